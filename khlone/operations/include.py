"""Which ignored files does a new clone get a copy of?

Those that `.worktreeinclude` in the main worktree names, in the syntax of `.gitignore`: the
convention of several tools for `.env` and the like. A file is copied only when it is
untracked and ignored there, ignored in the clone too, and nothing has its name; nothing is
followed out of either worktree. Where the file system can, a copy shares its blocks until
one of the two is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.model import CloneRecord
from khlone.operations import names
from khlone.values import dataclass

FILE = ".worktreeinclude"
_FICLONE = 0x40049409
_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Included:
    """What was copied, and what was not for want of room or for what it is."""

    paths: Sequence[str]
    bytes: int
    skipped: Sequence[str]


def source_of(app: App) -> Path | None:
    """The worktree whose ignored files are copied; `None` where no file names any."""
    top = app.location.main_worktree or app.location.worktree
    return top if top is not None and files.exists(top / FILE) else None


def include(app: App, clone: CloneRecord) -> Included | None:
    """Copy what `.worktreeinclude` names into a clone that is checked out; `None` when there is no such file.

    Stops short of `khlone.include.size` bytes in all; says on `app.told` what it did.
    """
    source = source_of(app)
    if source is None:
        return None
    done = _copy_all(app, clone, source, _chosen(app, source, clone))
    if done.paths:
        count = f"{len(done.paths)} file{'' if len(done.paths) == 1 else 's'}"
        app.told(f"copied {count} that {FILE} names: {names.listed(done.paths)}")
    if done.skipped:
        app.told(
            f"warning: {FILE} names more, which was not copied (too large, or a link): {names.listed(done.skipped)}"
        )
    return done


def is_copy(app: App, clone: CloneRecord, name: str) -> bool:
    """Whether a file of a clone is the beginning of what would have been copied there, and so nobody's work."""
    source = source_of(app)
    if source is None:
        return False
    try:
        copy, original = os.lstat(clone.path / name), os.lstat(source / name)
        if stat.S_ISLNK(copy.st_mode) and stat.S_ISLNK(original.st_mode):
            return os.readlink(clone.path / name) == os.readlink(source / name)
        if not (stat.S_ISREG(copy.st_mode) and stat.S_ISREG(original.st_mode)) or copy.st_size > original.st_size:
            return False
        with open(clone.path / name, "rb") as one, open(source / name, "rb") as other:
            while chunk := one.read(_CHUNK):
                if other.read(len(chunk)) != chunk:
                    return False
    except OSError:
        return False
    return True


def _chosen(app: App, source: Path, clone: CloneRecord) -> list[str]:
    """Untracked files that the patterns name and that both worktrees ignore, by name."""
    try:
        files.read_regular(source / FILE)
    except StateUnsafe as error:
        app.told(f"warning: {error.message}")
        return []
    listed = app.repository.git(
        "ls-files", "--others", "--ignored", "-z", f"--exclude-from={source / FILE}", cwd=source, check=False
    )
    found = [name for name in listed.stdout.split(b"\0") if name and not name.endswith(b"/")]
    for place in (source, clone.path):
        if found:
            asked = b"".join(name + b"\0" for name in found)
            ignored = app.repository.git("check-ignore", "-z", "--stdin", cwd=place, stdin=asked, check=False)
            found = [name for name in ignored.stdout.split(b"\0") if name]
    return sorted(os.fsdecode(name) for name in found)


def _copy_all(app: App, clone: CloneRecord, source: Path, chosen: Sequence[str]) -> Included:
    left = app.settings.include_size
    copied: list[str] = []
    skipped: list[str] = []
    total = 0
    with _opened(source) as there, _opened(clone.path) as here:
        for name in chosen:
            size = _copy(there, here, name, left - total)
            if size is None:
                skipped.append(name)
            elif size >= 0:
                copied.append(name)
                total += size
    return Included(paths=copied, bytes=total, skipped=skipped)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(there: int, here: int, name: str, room: int) -> int | None:
    """Copy one file; its size, -1 when its name is taken or it vanished, `None` when it must not be copied."""
    *parents, last = name.split("/")
    try:
        with _walked(there, parents, make=False) as source:
            found = os.stat(last, dir_fd=source, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                return _copy_link(source, here, parents, last)
            if not stat.S_ISREG(found.st_mode) or found.st_size > room:
                return None
            with _walked(here, parents, make=True) as target:
                return _copy_file(source, target, last, found)
    except FileExistsError:
        return -1
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return -1
        raise


@contextlib.contextmanager
def _walked(root: int, parts: Sequence[str], *, make: bool) -> Iterator[int]:
    """A folder below an open one, each step without following a link."""
    current = os.dup(root)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=current)
            below = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _copy_link(source: int, here: int, parents: Sequence[str], last: str) -> int | None:
    """A link comes along where it stays inside the worktree."""
    leads = os.readlink(last, dir_fd=source)
    inside = os.path.normpath(os.path.join(*parents, leads) if parents else leads)
    if os.path.isabs(leads) or inside.split("/")[0] == "..":
        return None
    with _walked(here, parents, make=True) as target:
        os.symlink(leads, last, dir_fd=target)
    return 0


def _copy_file(source: int, target: int, name: str, found: os.stat_result) -> int:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        mode = stat.S_IMODE(found.st_mode) & 0o777
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, mode, dir_fd=target)
        try:
            if not _share(reading, writing):
                while chunk := os.read(reading, _CHUNK):
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(writing, view) :]
            os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return found.st_size


def _share(reading: int, writing: int) -> bool:
    """Let both files have the same blocks, where the file system can."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True
