"""How is a file changed, moved or deleted so that a crash at any moment loses nothing?

Changed: written beside, fsynced, renamed over, folder fsynced. Created: O_EXCL. Moved:
one rename; across file systems the copy is complete and verified before the source goes.
Deleted: through directory descriptors, following no symbolic link and crossing no mount.
Everything khlone writes for itself is 0600 in 0700 folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from khlone import mounts
from khlone.errors import LIMITS, DiskFailed, KhloneError, NameTooLong, NoSpace, NotPermitted, OverLimit, StateUnsafe

_CLOEXEC_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Folders deeper than this below the one that is deleted are brought up first: each level costs a descriptor.
_DEEPEST = 100
#: How often a folder is emptied again that something comes into while it is deleted, and after how many seconds.
_MOST_TRIES, _NEXT_TRY_S = 20, 0.05


def cause(error: OSError, path: Path | str) -> KhloneError | None:
    """The khlone error for an OSError with a plain cause (full disk, no permission, a limit), else `None`."""
    where, why = error.filename or path, os.strerror(error.errno or 0)
    if error.filename2 is not None and os.access(os.path.dirname(where), os.W_OK):
        where = error.filename2  # Of a rename it was the other folder.
    if error.errno in _FULL:
        return NoSpace(where, why)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(f"cannot write {where}: {why.lower()}", hint="check its owner and mode", path=str(where))
    if error.errno in LIMITS:
        return OverLimit(f"cannot use {where}", why.lower())
    if error.errno == errno.ENAMETOOLONG:
        return NameTooLong(where)
    return DiskFailed(where, why.lower()) if error.errno == errno.EIO else None


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn the OSErrors that have a plain cause into khlone errors; others stay what they are."""
    try:
        yield
    except OSError as error:
        known = cause(error, path)
        if known is None:
            raise
        raise known from error


def sync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Make everything written so far to the file system of `path` durable (syncfs, else sync)."""
    if sys.platform == "linux":
        import ctypes

        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is not None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if syncfs(descriptor) == 0:
                    return
                number = ctypes.get_errno()
                if number in (errno.EIO, *_FULL):
                    raise OSError(number, os.strerror(number), str(path))
            finally:
                os.close(descriptor)
    os.sync()


def write_new(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Create `path` with `content`; FileExistsError when there is anything by that name.

    What fails half way (a full disk) leaves no file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace or create `path` whole: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    write_new(temporary, content, mode=mode, durable=durable)
    try:
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_dir(path.parent)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of the content to an open file."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def read_regular(path: Path, *, most: int = 1 << 20) -> bytes | None:
    """The content of a regular file, `None` when it is absent; a link or a larger file is refused.

    Raises StateUnsafe for a symbolic link, a folder, a FIFO, a socket or a file above `most` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StateUnsafe(path, "it is a symbolic link") from None
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):
            raise StateUnsafe(path, "it is not a regular file") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StateUnsafe(path, "it is not a regular file")
        if found.st_size > most:
            raise StateUnsafe(path, f"it is larger than {most} bytes")
        content = b""
        while len(content) <= most and (chunk := os.read(descriptor, max(found.st_size + 1 - len(content), 1))):
            content += chunk
        return content
    finally:
        os.close(descriptor)


def make_private_dir(path: Path) -> Path:
    """Make `path` and what is missing above it, 0700; refuse a link, another user's folder or where none can be.

    An existing folder of ours that others may write to is refused too; one that others
    may only read is tightened. Root may use a folder of anyone's.
    """
    missing = []
    folder = path.parent
    while not exists(folder):
        missing.append(folder)
        folder = folder.parent
    for folder in (*reversed(missing), path):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        except OSError as error:
            if cause(error, folder) is not None:
                raise
            why = f"{folder} cannot be made: {os.strerror(error.errno or 0).lower()}"
            hint = "name a folder of yours: see XDG_STATE_HOME, XDG_CACHE_HOME and HOME"
            raise StateUnsafe(path, why, hint=hint) from error
    if require_private_dir(path) & 0o077:
        _tighten(path)
    return path


def require_private_dir(path: Path) -> int:
    """The mode of a folder; raises StateUnsafe for a link, another user's folder or one that others may write to."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise StateUnsafe(path, "it is not a folder")
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        hint = "run khlone as that user; leave it where it is: what was removed lies in there"
        raise StateUnsafe(path, f"it belongs to user {found.st_uid}", hint=hint)
    if found.st_mode & 0o022:
        raise StateUnsafe(path, "others may write to it", hint=f"look who did, then chmod go-w {path}")
    return found.st_mode


def owner_of(path: Path) -> str:
    """The user that a file or folder belongs to, for people."""
    import pwd

    try:
        number = os.lstat(path).st_uid
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
    except OSError:
        return "another user"


def _tighten(path: Path) -> None:
    descriptor = os.open(path, _CLOEXEC_DIR)
    try:
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def exists(path: Path) -> bool:
    """Whether anything has that name, a dangling link included."""
    return os.path.lexists(path)


def rename_new(source: Path, destination: Path, *, durable: bool = True) -> None:
    """Move a folder to a name that nothing has, by one rename.

    Raises FileExistsError when the name is taken, were it by an empty folder that another
    program makes at this very moment; OSError(EXDEV) across file systems.
    """
    if exists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    _rename(source, destination)
    if durable:
        sync_dir(destination.parent)
        sync_dir(source.parent)


def _rename(source: Path, destination: Path) -> None:
    """One rename that replaces nothing; where the kernel has none such, a plain one."""
    exclusive = _exclusive_rename()
    if exclusive is None:
        os.rename(source, destination)
        return
    number = exclusive(os.fsencode(source), os.fsencode(destination))
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        os.rename(source, destination)
    elif number:
        raise OSError(number, os.strerror(number), str(source), None, str(destination))


@cache
def _exclusive_rename() -> Callable[[bytes, bytes], int] | None:
    """The system's rename that fails when the new name is there; returns 0 or an error number."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    linux, macos = getattr(library, "renameat2", None), getattr(library, "renamex_np", None)
    if linux is not None:  # -100 is AT_FDCWD, 1 is RENAME_NOREPLACE
        return lambda source, destination: ctypes.get_errno() if linux(-100, source, -100, destination, 1) else 0
    if macos is not None:  # 4 is RENAME_EXCL
        return lambda source, destination: ctypes.get_errno() if macos(source, destination, 4) else 0
    return None


def move_tree(source: Path, destination: Path, *, aside: Path) -> None:
    """Move a folder to a name that nothing has; may be repeated after a crash.

    On one file system this is one rename. Across file systems the source is first renamed
    to `aside` (its sibling), copied beside the destination, verified byte by byte,
    published by rename, and only then deleted; sockets are left behind. When `source` is
    gone and `destination` is there, it is done. Raises StateUnsafe, with both kept, when
    a repeated call finds a destination that is not the copy.
    """
    if not exists(source) and not exists(aside):
        return
    if not exists(aside):
        try:
            rename_new(source, destination)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            rename_new(source, aside)
        else:
            return
    if exists(destination):
        differing = _difference(aside, destination)
        if differing is not None:
            raise StateUnsafe(destination, f"{differing} is not what was moved there, which is in {aside}")
    else:
        partial = destination.with_name(destination.name + ".partial")
        if exists(partial):
            remove_tree(partial)
        _copy_tree(aside, partial)
        differing = _difference(aside, partial)
        if differing is not None:
            raise OSError(errno.EIO, "the copy differs", str(differing))
        sync_file_system(partial)
        rename_new(partial, destination)
    remove_tree(aside)


def _copy_tree(source: Path, copy: Path) -> None:
    pending, folders = [Path()], []
    while pending:
        relative = pending.pop()
        folders.append(relative)
        os.mkdir(copy / relative, 0o700)
        with os.scandir(source / relative) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative / entry.name)
                else:
                    _copy_entry(Path(entry.path), copy / relative / entry.name)
    # Last and from below: a folder without write permission takes no entries.
    for relative in reversed(folders):
        _copy_facts(source / relative, copy / relative)


def _copy_entry(source: Path, copy: Path) -> None:
    import shutil

    found = os.lstat(source)
    if stat.S_ISSOCK(found.st_mode):
        return
    if stat.S_ISFIFO(found.st_mode):
        os.mkfifo(copy, 0o600)
    else:
        shutil.copyfile(source, copy, follow_symlinks=False)
    _copy_facts(source, copy)


def _copy_facts(source: Path, copy: Path) -> None:
    import shutil

    if os.geteuid() == 0:
        found = os.lstat(source)
        os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, copy, follow_symlinks=False)


def _difference(source: Path, copy: Path) -> Path | None:
    """The first path of the copy that is not as in the source; what only the copy has is not looked for."""
    pending = [Path()]
    while pending:
        relative = pending.pop()
        with os.scandir(source / relative) as entries:
            for entry in entries:
                twin = copy / relative / entry.name
                if not _is_same(Path(entry.path), twin):
                    return twin
                if entry.is_dir(follow_symlinks=False):
                    pending.append(relative / entry.name)
    return None


def _is_same(source: Path, copy: Path) -> bool:
    found = os.lstat(source)
    if stat.S_ISSOCK(found.st_mode):
        return True
    try:
        other = os.lstat(copy)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_IFMT(found.st_mode) != stat.S_IFMT(other.st_mode):
        return False
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(source) == os.readlink(copy)
    return not stat.S_ISREG(found.st_mode) or (found.st_size == other.st_size and _same_bytes(source, copy))


def _same_bytes(source: Path, copy: Path) -> bool:
    with open(source, "rb") as one, open(copy, "rb") as other:
        while True:
            content = one.read(1 << 20)
            if content != other.read(1 << 20):
                return False
            if not content:
                return True


def remove_tree(path: Path) -> None:
    """Delete a folder and all in it, following no link and crossing no mount point.

    Folders without write permission are made writable first, since they are ours to
    delete. Raises StateUnsafe, with all of it kept, when a mount point lies inside, and
    with the rest kept when one appears meanwhile or a program goes on making files there.
    """
    mounted = mounts.inside(path)
    if mounted is not None:
        raise StateUnsafe(mounted, "another file system is mounted there", hint="unmount it, then try again")
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        try:
            found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(path.name, dir_fd=parent)
            return
        top = _open_dir(path.name, parent)
        try:
            for _ in range(_MOST_TRIES):
                while _remove_children(top, found.st_dev, path, top, 0):
                    pass
                if _remove_emptied(path.name, parent):
                    return
                time.sleep(_NEXT_TRY_S)
        finally:
            os.close(top)
        raise StateUnsafe(path, "a program makes files there all the while", hint="end it, then try again")
    finally:
        os.close(parent)


def _remove_emptied(name: str, parent: int) -> bool:
    """Delete a folder that was emptied; False where something has come into it meanwhile."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _open_dir(name: str, parent: int) -> int:
    try:
        descriptor = os.open(name, _CLOEXEC_DIR, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        descriptor = os.open(name, _CLOEXEC_DIR, dir_fd=parent)
    return descriptor


def _remove_children(folder: int, device: int, shown: Path, top: int, depth: int) -> bool:
    """Empty an open folder; says whether something was brought up to `top`, which then is not empty yet."""
    found = os.fstat(folder)
    if found.st_dev != device:
        raise StateUnsafe(shown, "another file system is mounted there", hint="unmount it, then try again")
    if found.st_mode & 0o700 != 0o700:
        os.fchmod(folder, 0o700)
    with os.scandir(folder) as entries:
        children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    again = False
    for child, is_dir in children:
        if not is_dir:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(child, dir_fd=folder)
            continue
        try:
            descriptor = _open_dir(child, folder)
        except FileNotFoundError:
            continue
        try:
            if depth < _DEEPEST:
                again |= _remove_children(descriptor, device, shown / child, top, depth + 1)
            else:
                _bring_up(descriptor, child, folder, device, shown / child, top)
                again = True
                continue
        finally:
            os.close(descriptor)
        _remove_emptied(child, folder)
    return again


def _bring_up(descriptor: int, name: str, folder: int, device: int, shown: Path, top: int) -> None:
    """Move a folder from far below right under the one that is deleted."""
    if os.fstat(descriptor).st_dev != device:
        raise StateUnsafe(shown, "another file system is mounted there", hint="unmount it, then try again")
    os.fchmod(descriptor, 0o700)
    os.rename(name, f"deep-{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)


def tree_size(path: Path) -> int:
    """Bytes on disk below a folder, following no link; what vanishes meanwhile counts nothing."""
    return measure(path)[0]


def measure(path: Path, most: int | None = None) -> tuple[int, int]:
    """`tree_size`, and how many names were seen; no folder is begun once there are `most` of them."""
    total = seen = 0
    pending = [str(path)]
    while pending and (most is None or seen < most):
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                seen += 1
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return total, seen
