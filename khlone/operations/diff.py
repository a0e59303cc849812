"""What has a clone changed since it left its target?

From the merge base of the clone's branch and its target to the files as they are in the
worktree: committed, staged, edited and untracked work alike. Nothing is written but
loose objects and a private copy of the index.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from khlone import worktrees
from khlone.app import App
from khlone.errors import CloneNotReady
from khlone.model import CloneRecord
from khlone.operations import aside, changes, names, undo
from khlone.ref_files import is_oid
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One changed file: git's status letter, lines added and deleted (`None` for a binary file)."""

    path: str
    status: str
    added: int | None
    deleted: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What a clone has changed since it left its target."""

    name: str
    target: str | None
    files: Sequence[FileChange]


#: Neither a program of the user's nor one that the repository names is run to show a difference.
_PLAIN = (
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-color",
    "--submodule=short",
    "--ignore-submodules=none",
)


def diff(app: App, name: str | None, *, committed: bool = False) -> Diff:
    """The changed files of a clone with the lines added and deleted, `None` for binary ones.

    With `committed` the branch alone counts, not what lies in the worktree. Raises
    NoSuchClone or CloneNotReady.
    """
    clone = app.require_clone(name)
    with _ends(app, clone, committed=committed) as (cwd, environment, ends):
        done = app.repository.git(
            "diff",
            "--raw",
            "--numstat",
            "-z",
            "--abbrev=40",
            *_PLAIN,
            *ends,
            "--",
            cwd=cwd,
            environment=environment,
            filters=False,
        )
    return Diff(name=clone.name, target=clone.target, files=tuple(_parsed(done.stdout)))


def patch(app: App, name: str | None, *, committed: bool = False, stat: bool = False) -> bytes:
    """The same as a patch, or as `--stat`, for people."""
    clone = app.require_clone(name)
    with _ends(app, clone, committed=committed) as (cwd, environment, ends):
        how = ("--stat=100",) if stat else ("--patch",)
        return app.repository.git(
            "diff", *how, *_PLAIN, *ends, "--", cwd=cwd, environment=environment, filters=False
        ).stdout


@contextlib.contextmanager
def _ends(app: App, clone: CloneRecord, *, committed: bool) -> Iterator[tuple[Path | None, dict[str, str], list[str]]]:
    """Where to run `git diff`, with which environment and between what."""
    tip = app.repository.read_ref(clone.ref)
    if tip is None:
        raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
    base = _base(app, clone, tip)
    admin = undo.admin_path(app, clone)
    is_there = worktrees.is_linked(clone.path, admin)
    if committed:
        # In the worktree, for its attributes, where it is there.
        yield clone.path if is_there else None, {}, [base, tip]
        return
    if not is_there:
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
    with aside.own_index(app, admin) as environment:
        _note_untracked(app, clone, environment)
        yield clone.path, environment, [base]


def _note_untracked(app: App, clone: CloneRecord, environment: Mapping[str, str]) -> None:
    """Make untracked files known to the copy of the index, by name only.

    A repository inside the worktree counts as its commit; one without a commit cannot be
    shown, and said on `app.told`, as is what git refuses.
    """
    status = changes.read_status(app, clone.path, filters=False)
    if not (status.changes.untracked or status.changes.unmerged):
        return
    nested = [name for name in status.changes.untracked if name.endswith("/")]
    empty = [name for name in nested if not _has_commit(app, clone.path / name)]
    for name in empty:
        app.told(f"not shown: {names.shown(name)} is a repository of its own without a commit")
    done = app.repository.git(
        *("add", "--intent-to-add", "--ignore-errors", "--", ":/"),
        *(f":(exclude,literal,top){name}" for name in empty),
        cwd=clone.path,
        environment=environment,
        check=False,
        configuration=["core.splitIndex=false", "core.safecrlf=false"],
        # It looks at tracked files too, those that may have changed right after the index was written.
        filters=False,
    )
    if done.status != 0:
        app.told(f"warning: some untracked files may not be shown: {done.error_text.strip()}")


def _has_commit(app: App, nested: Path) -> bool:
    return app.repository.git("rev-parse", "--verify", "--quiet", "HEAD", cwd=nested, check=False).status == 0


def _base(app: App, clone: CloneRecord, tip: str) -> str:
    target = app.repository.read_ref(f"refs/heads/{clone.target}") if clone.target else None
    if target is None:
        return clone.base
    found = app.repository.git("merge-base", target, tip, check=False).text.strip()
    return found if is_oid(found) else clone.base


def _parsed(output: bytes) -> list[FileChange]:
    """Read `--raw --numstat -z`: first every raw entry, then every count, in the same order of paths."""
    status: dict[bytes, str] = {}
    found = []
    fields = iter(output.split(b"\0"))
    for field in fields:
        if field.startswith(b":"):
            status[next(fields)] = field.rsplit(b" ", 1)[1].decode()[:1]
        elif field:
            added, deleted, path = field.split(b"\t", 2)
            found.append(
                FileChange(
                    path=os.fsdecode(path), status=status.get(path, "M"), added=_count(added), deleted=_count(deleted)
                )
            )
    return found


def _count(text: bytes) -> int | None:
    return None if text == b"-" else int(text)
