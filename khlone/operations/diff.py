"""What has a clone changed since it left its target?

From the merge base of the clone's branch and its target to the files as they are in the
worktree: committed, staged, edited and untracked work alike. Nothing is written but
loose objects and a private copy of the index.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady
from khlone.model import CloneRecord, Diff, FileChange
from khlone.operations import undo
from khlone.repository import is_oid

#: Neither a program of the user's nor one that the repository names is run to show a difference.
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-renames", "--no-color")


def diff(app: App, name: str | None, *, committed: bool = False) -> Diff:
    """The changed files of a clone with the lines added and deleted, `None` for binary ones.

    With `committed` the branch alone counts, not what lies in the worktree. Raises
    NoSuchClone or CloneNotReady.
    """
    clone = app.require_clone(name)
    with _ends(app, clone, committed=committed) as (cwd, environment, ends):
        done = app.repository.git(
            "diff", "--raw", "--numstat", "-z", "--abbrev=40", *_PLAIN, *ends, "--", cwd=cwd, environment=environment
        )
    return Diff(name=clone.name, target=clone.target, files=tuple(_parsed(done.stdout)))


def patch(app: App, name: str | None, *, committed: bool = False, stat: bool = False) -> bytes:
    """The same as a patch, or as `--stat`, for people."""
    clone = app.require_clone(name)
    with _ends(app, clone, committed=committed) as (cwd, environment, ends):
        how = ("--stat=100",) if stat else ("--patch",)
        return app.repository.git("diff", *how, *_PLAIN, *ends, "--", cwd=cwd, environment=environment).stdout


@contextlib.contextmanager
def _ends(app: App, clone: CloneRecord, *, committed: bool) -> Iterator[tuple[Path | None, dict[str, str], list[str]]]:
    """Where to run `git diff`, with which environment and between what."""
    tip = app.repository.read_ref(clone.ref)
    if tip is None:
        raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
    base = _base(app, clone, tip)
    if committed:
        yield None, {}, [base, tip]
        return
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
    index = app.state_dir / "stage" / f"diff-{os.urandom(4).hex()}.index"
    try:
        if files.exists(admin / "index"):
            shutil.copyfile(admin / "index", index)
        environment = {"GIT_INDEX_FILE": os.fspath(index)}
        # Untracked files become known to the copy of the index, by name only.
        app.repository.git("add", "--intent-to-add", "--", ":/", cwd=clone.path, environment=environment, check=False)
        yield clone.path, environment, [base]
    finally:
        for leftover in (index, Path(f"{index}.lock")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)


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
