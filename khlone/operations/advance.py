"""How do index, files and ref of a checkout go from one commit to another as one?

Under git's own lock of the index, from before it is read until the ref has moved: what
somebody stages meanwhile is never overwritten with an older index, and nobody can commit
what is written before it is the tip. `git merge --ff-only` reads first and locks then.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from khlone import faults
from khlone.app import App
from khlone.errors import Locked
from khlone.locks import HeldLock
from khlone.process import Completed

#: Seconds that another git command may hold the index of a checkout.
INDEX_WAIT_S = 5.0
_POLL_S = 0.05
_NAMED = re.compile(r"'(.+)' (?:not uptodate|would|cannot)|Updating '(.+)' would|^\t(.+)$", re.MULTILINE)


class LockedIndex:
    """The index of one worktree, which no other git can write while this is held."""

    def __init__(self, app: App, worktree: Path, git_dir: Path, lock: HeldLock) -> None:
        self._app = app
        self._worktree = worktree
        self._lock = lock
        self._index = Path(os.path.realpath(git_dir / "index"))
        self._next = self._index.with_name("index.khlone")

    def move_files(self, old: str, new: str) -> Completed:
        """Write the files that differ, and an index for them that is not in force yet.

        git refuses, with nothing changed, where an edit, a staged change or an untracked file is in the way.
        """
        done = self._read_tree(old, new)
        if done.status != 0 and "not uptodate" in done.error_text:
            # Only touched, perhaps: git compares the content where the index is refreshed.
            self._git("update-index", "-q", "--refresh")
            done = self._read_tree(old, new, fresh=False)
        return done

    def publish(self) -> None:
        """Put the index that `move_files` wrote in force."""
        os.replace(self._next, self._index)

    def move_ref(self, ref: str, old: str, new: str, reason: str) -> Completed:
        """Compare and swap the ref that HEAD is at; ORIG_HEAD keeps the old one, as after any merge."""
        # In the worktree, so that the reflog of its HEAD is told too.
        return self._app.repository.git(
            "update-ref",
            "-m",
            reason,
            "-z",
            "--stdin",
            stdin=f"update {ref}\0{new}\0{old}\0update ORIG_HEAD\0{old}\0\0".encode(),
            cwd=self._worktree,
            writes=True,
            keep_open=[self._lock.descriptor],
            check=False,
        )

    def move_back(self, old: str, new: str) -> None:
        """Undo `publish`; a file that was edited since keeps its edit, and the index then stays as it is."""
        if self._read_tree(new, old).status == 0:
            self.publish()

    def drop(self) -> None:
        """Forget the index that was not put in force."""
        for path in (self._next, self._next.with_name("index.khlone.lock")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _read_tree(self, one: str, other: str, *, fresh: bool = True) -> Completed:
        if fresh:
            import shutil

            self.drop()
            with contextlib.suppress(FileNotFoundError):
                # With its times: git tells by them which entries it must look at again.
                shutil.copy2(self._index, self._next)
        return self._git("read-tree", "-m", "-u", one, other)

    def _git(self, *arguments: str) -> Completed:
        durable = ("core.fsync=all",) if self._app.settings.durable else ()
        return self._app.repository.git(
            *arguments,
            cwd=self._worktree,
            keep_open=[self._lock.descriptor],
            environment={"GIT_OPTIONAL_LOCKS": "1", "GIT_INDEX_FILE": str(self._next)},
            configuration=("submodule.recurse=false", *durable),
            check=False,
        )


@contextlib.contextmanager
def locked_index(app: App, worktree: Path, git_dir: Path, lock: HeldLock) -> Iterator[LockedIndex]:
    """Hold git's lock of an index; raises Locked when another git has it for `INDEX_WAIT_S`."""
    place = f"{os.path.realpath(git_dir / 'index')}.lock"
    deadline = time.monotonic() + INDEX_WAIT_S
    while True:
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise Locked(index_of(worktree), "another git command (index.lock)", INDEX_WAIT_S) from None
            time.sleep(_POLL_S)
    held = LockedIndex(app, worktree, git_dir, lock)
    try:
        faults.point("landing.index-locked")
        yield held
    finally:
        with contextlib.suppress(OSError):
            held.drop()
        _unlock(place, descriptor)


def _unlock(place: str, descriptor: int) -> None:
    mine = os.fstat(descriptor)
    os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(place)
        if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            os.unlink(place)


def index_of(worktree: Path) -> str:
    """How the index of a worktree is named to the user."""
    return f"the index of {worktree}"


def paths_in_the_way(text: str) -> list[str]:
    """The paths that git names when it refuses to overwrite something."""
    return [next(part for part in found if part).strip() for found in _NAMED.findall(text)]
