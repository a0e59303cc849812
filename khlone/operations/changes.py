"""What does a worktree hold that no commit of its branch holds?

One `git status` in its machine format; nothing is written, no lock is taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from khlone import files, values, worktrees
from khlone.app import App
from khlone.errors import GitFailed, KhloneError
from khlone.model import Changes, CloneRecord
from khlone.process import Completed
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A worktree's HEAD commit, its branch (`None` when detached) and its changes."""

    head: str | None
    branch: str | None
    changes: Changes


def read_status(
    app: App,
    worktree: Path,
    *,
    ignored: bool = False,
    untracked: str = "all",
    tracked_only: bool = False,
    filters: bool = True,
) -> Status:
    """Ask `git status` about one worktree; raises GitFailed when git cannot read it.

    A look that must run nothing of the repository's is without `filters`: a file that was
    touched may then count as changed where only a filter of the repository's would tell.
    """
    asked = _asked("no" if tracked_only else untracked, ignored=ignored)
    return parse_status(app.repository.git(*asked, cwd=worktree, filters=filters).stdout)


def read_many(
    app: App, worktrees: Iterable[Path], *, at_once: int, given_up: Callable[[], bool]
) -> Iterator[tuple[int, Changes | KhloneError]]:
    """The changes of many worktrees, looked at `at_once` at a time without filters; yields the place of each."""
    for place, done in app.repository.look(_asked("all"), worktrees, at_once=at_once, given_up=given_up):
        yield place, done if isinstance(done, KhloneError) else parse_status(done.stdout).changes


def _asked(untracked: str, *, ignored: bool = False) -> list[str]:
    asked = ["status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=none"]
    asked.append(f"--untracked-files={untracked}")
    return [*asked, "--ignored=matching"] if ignored else asked


def uncounted(clone: CloneRecord, found: Changes) -> Changes:
    """The changes of a clone without untracked files that are what khlone itself wrote there: nobody's work."""
    if clone.config_dir is None or not found.untracked:
        return found
    from khlone import generated, port_leases

    own = generated.unchanged(port_leases.private_folder(clone.config_dir), clone.path, found.untracked)
    return values.replace(found, untracked=tuple(name for name in found.untracked if name not in own))


def read_trashed(app: App, worktree: Path, admin: Path, head: str) -> Changes:
    """How a worktree in the trash differs from a commit; raises GitFailed when git cannot read it.

    Its branch may be gone, and its two folders do not know each other. Submodules are not looked at.
    """
    environment = {
        "GIT_DIR": os.fspath(admin),
        "GIT_COMMON_DIR": os.fspath(app.location.common_dir),
        "GIT_WORK_TREE": os.fspath(worktree),
    }

    def ask(*arguments: str) -> tuple[str, ...]:
        done = app.repository.git(*arguments, cwd=worktree, environment=environment)
        return tuple(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)

    differing = ("diff", "--name-only", "-z", "--no-ext-diff", "--no-textconv", "--no-renames")
    return Changes(
        staged=ask(*differing, "--ignore-submodules=all", "--cached", head, "--"),
        unstaged=ask(*differing, "--ignore-submodules=all", head, "--"),
        untracked=ask("ls-files", "--others", "--exclude-standard", "-z"),
    )


def parse_status(output: bytes) -> Status:
    """Read porcelain v2 with NUL ends."""
    head = branch = None
    staged: list[str] = []
    unstaged: list[str] = []
    unmerged: list[str] = []
    untracked: list[str] = []
    ignored: list[str] = []
    for item in output.split(b"\0"):
        kind = item[:2]
        if kind == b"# ":
            key, _, value = os.fsdecode(item[2:]).partition(" ")
            if key == "branch.oid" and value != "(initial)":
                head = value
            elif key == "branch.head" and value != "(detached)":
                branch = value
        elif kind == b"1 ":
            fields = item.split(b" ", 8)
            path = os.fsdecode(fields[8])
            if fields[1][0:1] != b".":
                staged.append(path)
            if fields[1][1:2] != b"." or fields[2] not in (b"N...", b"S...", b"SC.."):
                unstaged.append(path)
        elif kind == b"u ":
            unmerged.append(os.fsdecode(item.split(b" ", 10)[10]))
        elif kind == b"? ":
            untracked.append(os.fsdecode(item[2:]))
        elif kind == b"! ":
            ignored.append(os.fsdecode(item[2:]))
    changes = Changes(
        staged=tuple(staged),
        unstaged=tuple(unstaged),
        unmerged=tuple(unmerged),
        untracked=tuple(untracked),
        ignored=tuple(ignored),
    )
    return Status(head=head, branch=branch, changes=changes)


def read_index(app: App, admin: Path) -> Status:
    """What an admin folder whose worktree is gone still says: its HEAD, its branch and what was staged.

    A HEAD or an index that git cannot read says nothing.
    """
    environment = {"GIT_DIR": os.fspath(admin)}
    place = app.location.common_dir

    def ask(*arguments: str) -> Completed:
        return app.repository.git(*arguments, cwd=place, environment=environment, check=False)

    found = ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    head = found.text.strip() if found.status == 0 else None
    staged: tuple[str, ...] = ()
    if head is not None and files.exists(admin / "index"):
        done = ask("diff-index", "--cached", "--name-only", "--no-renames", "-z", head, "--")
        staged = tuple(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)
    branch = worktrees.branch_of(worktrees.read_head(admin))
    short = None if branch is None else branch.removeprefix("refs/heads/")
    return Status(head=head, branch=short, changes=Changes(staged=staged))


def stashes_of(app: App, clone: CloneRecord) -> tuple[str, ...]:
    """The stash entries (`stash@{n}: ...`) that were made on the clone's branch."""
    if app.repository.read_ref("refs/stash") is None:
        return ()
    arguments = ("reflog", "show", "-z", "--no-show-signature", "--format=%gs", "refs/stash", "--")
    status, output = app.repository.cold(*arguments)
    if status != 0:
        raise GitFailed(arguments, status, output)
    made_here = re.compile(rf"(?:WIP on|On) {re.escape(clone.branch)}: ")
    lines = output.removesuffix("\0").split("\0")
    return tuple(f"stash@{{{number}}}: {line}" for number, line in enumerate(lines) if made_here.match(line))
