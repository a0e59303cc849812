"""What does a repository bring along that an agent would go by without asking, and has the user approved it?

Settings with hooks, servers and helpers that lie in the repository run with the user's
rights once an agent starts there; started headless, it asks nobody. Its profile names such
files; those that the repository has, and not merely somebody in that worktree, are
approved by their content, as the repository's hooks are, and looked at before each start.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from khlone.app import App
from khlone.errors import NotTrusted, Refusal
from khlone.model import CloneRecord
from khlone.operations import agents
from khlone.profiles import AgentProfile

# For those commands alone that start an agent.
if TYPE_CHECKING:
    from khlone.named_files import Found, Tree
    from khlone.trust import Subject

#: What approvals of this kind are for.
EVENT = "agent"
#: A larger file is approved by its digest alone, and not shown.
_MOST_SHOWN_BYTES = 64 << 10
#: More than these are not looked at before a start.
_MOST_FILES = 2000
#: Programs that start others which are among their words, or in a text that is (decision 0010).
_RUNNERS = re.compile(
    r"(ba|da|z|k|mk|fi|c|tc)?sh|busybox|toybox|env|nice|ionice|chrt|taskset|timeout|nohup|setsid|stdbuf|time|exec|command"
    r"|xargs|parallel|watch|flock|sudo|doas|su|runuser|unshare|nsenter|chroot|prlimit|setpriv|bwrap|firejail|systemd-run"
    r"|strace|ltrace|gdb|script|unbuffer|expect|caffeinate|tmux|screen|zellij"
    r"|npx|npm|pnpm|pnpx|yarn|bun|bunx|node|nodejs|deno|corepack|volta|fnm|nvm|asdf|mise|rtx|direnv|nix|nix-shell|devbox"
    r"|uv|uvx|pipx|docker|podman"
)
#: What ends a word in a shell text, or may stand around the name of a program.
_BETWEEN = re.compile(r"[\s;|&()<>`\"'$={}\\]+")
#: Whose folders are named for packages.
_PACKAGES = "node_modules"


def starts(command: Sequence[str], profile: AgentProfile) -> bool:
    """Whether a command is the program of an agent, or one that starts others and has its name among its words.

    What is not to be seen there, as what a script or a Makefile does, is not found.
    """
    if not command or not profile.executable:
        return False
    program = os.path.basename(profile.executable)
    if _is_named(command[0], program):
        return True
    if not _RUNNERS.fullmatch(os.path.basename(command[0])):
        return False
    return any(_is_named(part, program) for word in command[1:] for part in _BETWEEN.split(word))


def _is_named(word: str, program: str) -> bool:
    """Whether a word is that program, by a path too, or a package of its name: `claude`, `@x/claude-code@1`."""
    parts = [re.sub(r"(?<=.)@.*", "", part) for part in word.split("/")]
    names = [parts[-1], *(name for above, name in itertools.pairwise(parts) if above[:1] == "@" or above == _PACKAGES)]
    return any(name == program or name.startswith(f"{program}-") for name in names)


def require_for(app: App, clone: CloneRecord, command: Sequence[str], known: Iterable[AgentProfile]) -> None:
    """Raise NotTrusted where a command starts one of these agents before what it would go by is approved."""
    for profile in known:
        if profile.brought and starts(command, profile):
            require(app, clone, profile)


def require(app: App, clone: CloneRecord, profile: AgentProfile) -> None:
    """Raise NotTrusted where the agent would go by something in the clone that the user has not approved."""
    if not any(os.path.lexists(clone.path / name) for name in profile.brought):
        return
    from khlone import trust

    approvals = trust.Approvals.of_user(app.environment).load()
    repository = trust.identity(app.location)
    for one in in_worktree(app, [profile], clone.path):
        if not repository.id or trust.key_of(repository, one) not in approvals:
            error = NotTrusted(f"{one.files[0].path}, which the repository brings along for {profile.name},")
            error.hint = f"look at it and approve it with `git khlone -C {shlex.quote(str(clone.path))} trust`"
            raise error


def profiles(app: App) -> list[AgentProfile]:
    """Every agent that goes by something of a repository."""
    return [one for _, one in sorted(agents.profiles(app).items()) if one.brought]


def in_worktree(app: App, known: Iterable[AgentProfile], folder: Path) -> list[Subject]:
    """What a worktree has of it that belongs to the repository, as it is there now; raises Refusal.

    Behind a link, or in a repository within, that belongs to the repository everything counts.
    """
    from khlone.named_files import Worktree

    tree = Worktree(folder, app.location.anchor, app.location.common_dir)
    found: list[Subject] = []
    for profile in known:
        wanted = [name.rstrip("/") for name in profile.brought]
        there = [name for name in wanted if os.path.lexists(folder / name)]
        if not there:
            continue
        parts = sorted({part for name in there for part in (name, *_above(name))})
        names = _listed(app, "ls-files", "-z", "--", *parts, cwd=folder)
        for name in there:
            leads = any(part in names for part in (name, *_above(name)))
            found += _subjects(profile, tree, folder, [one for one in _files(folder, name) if leads or one in names])
    return found


def at_commit(app: App, known: Iterable[AgentProfile], oid: str, tree: Tree, folder: Path) -> list[Subject]:
    """What a commit has of it; `folder` stands for the worktree with the files of `tree`.

    A folder that lies behind a link is not looked into: a clone that has it is.
    """
    found: list[Subject] = []
    for profile in known:
        wanted = [name.rstrip("/") for name in profile.brought]
        parts = sorted({part for name in wanted for part in (name, *_above(name))})
        names = _listed(app, "ls-tree", "-r", "-z", "--name-only", oid, "--", *parts)
        for name in wanted:
            leads = any(part in names for part in _above(name))
            below = sorted(one for one in names if one == name or one.startswith(f"{name}/"))
            found += _subjects(profile, tree, folder, below or ([name] if leads else []))
    return found


def _listed(app: App, *words: str, cwd: Path | None = None) -> set[str]:
    answer = app.repository.git("--literal-pathspecs", *words, cwd=cwd).text
    return {name for name in answer.split("\0") if name}


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def _files(folder: Path, name: str) -> list[str]:
    """A file, or every file below a folder, links followed, by its path from the worktree on."""
    place = folder / name
    if not place.is_dir():
        return [name]
    found: list[str] = []
    for base, _, inside in os.walk(place, followlinks=True):
        found += [os.path.relpath(os.path.join(base, one), folder) for one in inside]
        if len(found) > _MOST_FILES:
            raise Refusal(f"{name} has more than {_MOST_FILES} files, too many to look at before an agent starts")
    return sorted(found)


def _subjects(profile: AgentProfile, tree: Tree, folder: Path, names: Iterable[str]) -> list[Subject]:
    """Each file as it is approved: shown in full where it is text of a usual size, else by its digest alone."""
    from khlone.named_files import NamedFile
    from khlone.trust import Subject

    found = []
    for name in names:
        seen = tree.look(os.path.join(folder, name))
        if seen is None or seen.is_folder:
            continue
        file = NamedFile(path=name, sha256=seen.sha256, size=seen.size, script=False)
        found.append(
            Subject(
                event=EVENT, name=profile.name, command=_shown(name, seen), timeout_s=0.0, secrets=False, files=(file,)
            )
        )
    return found


def _shown(name: str, seen: Found) -> str:
    if seen.leads_out:
        return f"# {name}: a link that leads out of the repository"
    content = seen.content
    if content is None or len(content) > _MOST_SHOWN_BYTES or b"\0" in content:
        return f"# {name}: not shown, {seen.size} bytes"
    return content.decode(errors="backslashreplace")
