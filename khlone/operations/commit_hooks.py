"""Which of the user's commit hooks look at a commit that lands, and what do they say?

The commit is made without a checkout, so what git would call on the way is called here:
prepare-commit-msg and commit-msg with a file that holds the message, where the user's own
commits are made; pre-merge-commit, or pre-commit of a squash, as a gate, in the scratch
worktree. Where no such hook is there, that costs a look at one folder.
docs/decisions/0009-commit-hooks-of-landings.md says why so.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from khlone import files, git_config
from khlone.app import App
from khlone.errors import CommitHookRefused
from khlone.gate_table import Gate
from khlone.model import CloneRecord, Strategy
from khlone.operations import hook_places

#: For the two ways in which git makes a commit of its own: the source of its message, and the hook of its tree.
_MADE = {Strategy.MERGE: ("merge", "pre-merge-commit"), Strategy.SQUASH: ("squash", "pre-commit")}
_MESSAGE = ("prepare-commit-msg", "commit-msg")
#: The one that `--no-verify` does not leave out, here as in git.
_ALWAYS = "prepare-commit-msg"
_SOURCE = "git hook"
#: What a file of git's configuration says that says anything of hooks.
_SAID = rb"(?i)hookspath|\[\s*hook\b|include"
#: Variables that bring configuration along.
_GIVEN = ("GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT")
#: A hook that takes longer is ended, and has refused.
TIMEOUT_S = 600.0
_SHOWN_LINES, _SHOWN_CHARACTERS = 15, 4000


def are_there(app: App) -> bool:
    """Whether any hook is asked for the message of a commit that lands."""
    return bool(_present(app, _MESSAGE))


def message(app: App, clone: CloneRecord, strategy: Strategy, text: str, *, verify: bool) -> str:
    """The message as the user's hooks leave it, without `verify` only the one that is never left out.

    Raises CommitHookRefused.
    """
    present = _present(app, _MESSAGE if verify else (_ALWAYS,))
    if not present:
        return text
    path = files.make_private_dir(app.state_dir / "stage") / f"message-{os.getpid()}-{os.urandom(4).hex()}"
    files.write_new(path, text.encode(errors="surrogateescape"), durable=False)
    try:
        for name in present:
            source = (_MADE[strategy][0],) if name == _ALWAYS else ()
            _run(app, clone, name, [str(path), *source])
        found = (files.read_regular(path) or b"").decode(errors="surrogateescape")
    finally:
        path.unlink(missing_ok=True)
    if not found.strip():
        raise CommitHookRefused(clone.name, present[-1], "it left an empty message")
    return found if found.endswith("\n") else f"{found}\n"


def _run(app: App, clone: CloneRecord, name: str, arguments: Sequence[str]) -> None:
    done = app.repository.git(
        "hook",
        "run",
        "--ignore-missing",
        name,
        "--",
        *arguments,
        cwd=_place(app),
        hooks=True,
        check=False,
        environment={"GIT_EDITOR": ":"},
        timeout_s=TIMEOUT_S,
    )
    if done.status == 0:
        return
    how = f"it took longer than {TIMEOUT_S:.0f} s" if done.timed_out else f"it ended with exit {done.status}"
    said = (done.text + done.error_text)[-_SHOWN_CHARACTERS:].splitlines()[-_SHOWN_LINES:]
    raise CommitHookRefused(clone.name, name, how + (":" if said else "") + "".join(f"\n  {line}" for line in said))


def gates(app: App) -> list[Gate]:
    """The hooks that look at a tree, as gates: with the target's tip as HEAD and all that lands in the index."""
    return [
        Gate(name=name, command=_command(folder, name), source=f"{_SOURCE} {_content(folder / name)}")
        for name in _present(app, [tree for _, tree in _MADE.values()])
        for folder in [_places(app)[0]]
    ]


def concerns(gate: Gate, strategy: Strategy, *, verify: bool) -> bool:
    """Whether a gate is asked of what lands in that way."""
    return not gate.source.startswith(_SOURCE) or (verify and strategy in _MADE and _MADE[strategy][1] == gate.name)


def _command(folder: Path, name: str) -> str:
    quiet = "git -c core.hooksPath=/dev/null reset -q --soft"
    run = f"GIT_EDITOR=: git -c core.hooksPath={shlex.quote(os.fspath(folder))} hook run --ignore-missing {name}"
    return f'{quiet} "$KHLONE_BASE" && {{ {run}; code=$?; {quiet} "$KHLONE_CANDIDATE" && exit $code; }}'


def _content(path: Path) -> str:
    """What a result that is kept is kept for."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# -- where they are ------------------------------------------------------------------------------


def _place(app: App) -> Path:
    return app.location.main_worktree or app.location.common_dir


def _places(app: App) -> tuple[Path, frozenset[str]]:
    """What `_configured` said when it was asked first: once for a command, however many candidates it builds."""
    if app.commit_hooks is None:
        app.commit_hooks = _configured(app)
    return app.commit_hooks


def _configured(app: App) -> tuple[Path, frozenset[str]]:
    """Where git looks for hooks in the main worktree, and for which of them its configuration has commands.

    git is asked only where a file says anything of either.
    """
    default, common_dir = app.location.common_dir / "hooks", app.location.common_dir
    said = [*git_config.files(common_dir, app.environment), common_dir / "config.worktree"]
    asked_of_git = not git_config.knows_places() or not app.environment.keys().isdisjoint(_GIVEN)
    if not asked_of_git and not any(re.search(_SAID, _read(path)) for path in said):
        return default, frozenset()
    # With `hooks`, since khlone's own calls of git have another folder for them.
    asked = ("config", "-z", "--get-regexp", r"^core\.hookspath$|^hook\..*\.event$")
    done = app.repository.git(*asked, cwd=_place(app), check=False, hooks=True)
    pairs = [item.partition("\n")[::2] for item in done.text.split("\0") if item]
    paths = [value for key, value in pairs if key == "core.hookspath"]
    folder = _place(app) / os.path.expanduser(paths[-1]) if paths and paths[-1] else default
    return folder, frozenset(value for key, value in pairs if key != "core.hookspath")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _present(app: App, names: Sequence[str]) -> list[str]:
    """Those of the hooks that are there and may run, of others than khlone's."""
    if not app.settings.merge_hooks:
        return []
    folder, events = _places(app)
    return [name for name in names if name in events or _is_there(folder, name)]


def _is_there(folder: Path, name: str) -> bool:
    path = folder / name
    if not path.is_file() or not os.access(path, os.X_OK):
        return False
    return not hook_places.is_ours(path) or files.exists(folder / (name + hook_places.CHAINED))
