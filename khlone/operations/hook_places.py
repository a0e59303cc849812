"""Which git hooks of khlone's are in force where, and what do they stand before?

Asked of the disk: a script of khlone's says so in its second line, whoever moved it. What
an installation is about to change is written down first, in a record that its removal
reads. `githooks.py` puts hooks in and takes them away.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import HooksInTheWay, KhloneError
from khlone.model import CloneRecord
from khlone.operations import config_edits
from khlone.operations.config_edits import Edit
from khlone.values import dataclass, replace

#: The hooks that khlone has something to do in.
NAMES = ("post-checkout", "post-commit", "post-merge", "post-rewrite", "prepare-commit-msg", "reference-transaction")
CHAINED = ".khlone-chained"
#: How pre-commit and prek, and lefthook, name a hook that they found in their place.
_DISPLACED = (".legacy", ".old")
_MARK = b"# khlone-hook "
KEY = "core.hooksPath"
EXTENSION = "extensions.worktreeConfig"


class Scope(enum.Enum):
    """Where hooks are put in."""

    ALL = "all"
    CLONES = "clones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One hook of khlone's: `state` is installed, missing, outdated, displaced or unchained.

    It calls `chained`. Where another manager has moved it aside, git calls `called_by`, the
    script of that, which calls khlone's.
    """

    name: str
    path: Path
    state: str
    chained: Path | None
    called_by: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where git looks for hooks in one worktree, whether khlone's are in force there, and behind which others."""

    path: Path
    clone: str | None
    folder: Path
    installed: bool
    moves: int
    last_move_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is in force, and what a command changed or, in a dry run, would change."""

    scope: Scope | None
    folder: Path | None
    hooks: Sequence[Hook] = ()
    worktrees: Sequence[Place] = ()
    changed: Sequence[Path] = ()
    done: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What was written down before anything was changed."""

    scope: Scope
    folder: Path
    made_folder: bool = False
    extension: Edit | None = None
    clones: Mapping[str, Edit]


# -- what is there ------------------------------------------------------------------------------


def hooks_dir(app: App) -> Path:
    """The folder of khlone's that clones look for hooks in."""
    return app.state_dir / "hooks" / "clones"


def script() -> bytes:
    """The one script that stands under the name of every hook."""
    packaged = resources("khlone").joinpath("hook_scripts", "khlone-hook")
    if packaged.is_file():
        return packaged.read_bytes()
    return Path(__file__).resolve().parents[2].joinpath("hooks", "khlone-hook").read_bytes()


def record_path(app: App) -> Path:
    """Where it is written down what is installed."""
    return app.state_dir / "hooks" / "installed.json"


def load_record(app: App) -> Record | None:
    """What is installed, or was about to be; raises HooksInTheWay for a record that cannot be read."""
    content = files.read_regular(record_path(app), most=64 << 20)
    if content is None:
        return None
    try:
        found = json.loads(content)
        extension = found["extension"]
        return Record(
            scope=Scope(found["scope"]),
            folder=Path(found["folder"]),
            made_folder=bool(found["made_folder"]),
            extension=None if extension is None else Edit.from_json(extension),
            clones={str(key): Edit.from_json(edit) for key, edit in found["clones"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HooksInTheWay(
            f"{record_path(app)} cannot be read: {error}", hint="move it away and run git khlone hooks install again"
        ) from error


def save_record(app: App, record: Record) -> None:
    """Write down what is installed, or is about to be."""
    content = {
        "scope": record.scope.value,
        "folder": os.fspath(record.folder),
        "made_folder": record.made_folder,
        "extension": None if record.extension is None else record.extension.to_json(),
        "clones": {key: edit.to_json() for key, edit in record.clones.items()},
    }
    files.write_atomic(record_path(app), json.dumps(content).encode() + b"\n")


def shared_value(app: App) -> tuple[str, str] | None:
    """`core.hooksPath` as every worktree has it, and the scope that says so."""
    for scope in ("local", "global", "system"):
        asked = ("config", f"--{scope}", "--includes", "--type=path", "-z", "--get", KEY)
        done = app.repository.git(*asked, check=False)
        value = done.text.removesuffix("\0")
        if done.status == 0 and value:
            return value, scope
    return None


def common_folder(app: App) -> Path:
    """Where git looks for hooks in every worktree; raises HooksInTheWay where that is no one place of ours."""
    found = shared_value(app)
    if found is None:
        return app.location.common_dir / "hooks"
    value, scope = found
    why = None
    if scope != "local":
        why = (
            f"is set for {'your whole account' if scope == 'global' else 'this machine'} and serves other repositories"
        )
    elif not os.path.isabs(value):
        why = "is relative: each worktree has a folder of its own, whose files belong to the project"
    elif any(_is_inside(Path(value), worktree) for worktree in _worktrees(app)):
        why = "lies in a worktree, whose files belong to the project"
    if why is not None:
        raise HooksInTheWay(
            f"core.hooksPath ({value}) {why}", hint="git khlone hooks install --clones", path=value, scope=scope
        )
    return Path(value)


def _worktrees(app: App) -> list[Path]:
    found = [] if app.location.main_worktree is None else [app.location.main_worktree]
    return [*found, *(one.worktree for one in worktrees.entries(app.location.common_dir) if one.worktree is not None)]


def _is_inside(path: Path, folder: Path) -> bool:
    real, above = os.path.realpath(path), os.path.realpath(folder)
    return real == above or real.startswith(above.rstrip(os.sep) + os.sep)


def is_ours(path: Path) -> bool:
    """Whether a file is a script of khlone's, of whatever version."""
    with contextlib.suppress(KhloneError, OSError):
        return (files.read_regular(path) or b"").partition(b"\n")[2].startswith(_MARK)
    return False


def stand(folder: Path, name: str) -> Hook:
    """How one hook stands in a folder that others put theirs in too."""
    path, chained = folder / name, folder / (name + CHAINED)
    behind = chained if files.exists(chained) else None
    for place in (path, *(folder / (name + suffix) for suffix in _DISPLACED)):
        if is_ours(place):
            current = files.read_regular(place) == script() and os.access(place, os.X_OK)
            state = "outdated" if not current else "installed" if place == path else "displaced"
            first = None if place == path or not files.exists(path) else path
            return Hook(name=name, path=place, state=state, chained=behind, called_by=first)
    if behind is not None and files.exists(path) and not _is_one_file(path, behind):
        return Hook(name=name, path=path, state="unchained", chained=behind)
    return Hook(name=name, path=path, state="missing", chained=path if files.exists(path) else behind)


def _is_one_file(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(one), os.lstat(other))
    return False


def status(app: App) -> Report:
    """What is in force in every worktree."""
    record = load_record(app)
    folder = record.folder if record is not None else None
    if folder is None:
        with contextlib.suppress(HooksInTheWay):
            folder = common_folder(app)
    hooks = [] if folder is None else [stand(folder, name) for name in NAMES]
    if record is not None and record.scope is Scope.CLONES:
        hooks = [replace(hook, chained=_former(app, hook.name)) for hook in hooks]
    if record is None and all(hook.state == "missing" for hook in hooks):
        folder = None
    return Report(
        scope=None if record is None else record.scope, folder=folder, hooks=hooks, worktrees=list(_places(app))
    )


def _former(app: App, name: str) -> Path | None:
    """The hook that clones would have without khlone's, where that is one and the same for all."""
    shared = shared_value(app)
    path = (app.location.common_dir / "hooks" if shared is None else Path(shared[0])) / name
    return path if path.is_absolute() and files.exists(path) else None


def is_extended(app: App) -> bool:
    """Whether worktrees have configurations of their own."""
    value = config_edits.value_in(app, app.location.common_dir / "config", EXTENSION)
    return value is not None and value.lower() in ("true", "yes", "on", "1")


def _places(app: App) -> Iterator[Place]:
    shared = shared_value(app)
    common = app.location.common_dir
    extended = is_extended(app)
    names = {clone.admin: clone for clone in app.registry.clones()} if app.has_registry else {}
    places = [(app.location.main_worktree, common)]
    places += [(one.worktree, one.path) for one in worktrees.entries(common) if one.problem is None]
    for worktree, git_dir in places:
        if worktree is None:
            continue
        own = config_edits.value_in(app, git_dir / "config.worktree", KEY) if extended else None
        value = own or (shared[0] if shared is not None else None)
        folder = common / "hooks" if value is None else Path(os.path.normpath(worktree / value))
        clone = names.get(git_dir.name) if git_dir != common else None
        moves, last = _moves(app, clone)
        installed = any(is_ours(folder / name) for name in NAMES)
        name = None if clone is None else clone.name
        yield Place(path=worktree, clone=name, folder=folder, installed=installed, moves=moves, last_move_at=last)


def _moves(app: App, clone: CloneRecord | None) -> tuple[int, str | None]:
    """How many movements the hooks have noted of a clone's branch, and when the last one was."""
    if clone is None:
        return 0, None
    lines: list[bytes] = []
    changed: float | None = None
    for name in (f"{clone.id}.moves.before", f"{clone.id}.moves"):
        path = app.state_dir / "run" / name
        with contextlib.suppress(KhloneError, OSError):
            lines += (files.read_regular(path) or b"").splitlines()
            changed = path.lstat().st_mtime
    if not lines or changed is None:
        return len(lines), None
    # The hooks note no time where that would start a program: the file bears it.
    noted = lines[-1].partition(b" ")[0]
    return len(lines), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(noted) if noted.isdigit() else changed))
