"""How is a file changed, moved or deleted so that a crash at any moment loses nothing?

Changed: written beside, fsynced, renamed over, folder fsynced. Created: O_EXCL. Moved:
one rename; across file systems the copy is complete and verified before the source goes.
Deleted: through directory descriptors, following no symbolic link and crossing no mount.
Everything khlone writes for itself is 0600 in 0700 folders.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from khlone.errors import NoSpace, NotPermitted, StateUnsafe

_CLOEXEC_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs", "fuse.glusterfs"}
)


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turn the OSErrors that have a plain cause (full disk, no permission) into khlone errors."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(error.filename or path, os.strerror(error.errno or 0)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = error.filename or path
            raise NotPermitted(
                f"cannot write {where}: {os.strerror(error.errno).lower()}",
                hint="check its owner and mode",
                path=str(where),
            ) from error
        raise


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
    """Create `path` with `content`; FileExistsError when there is anything by that name."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        _write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace or create `path` whole: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        write_new(temporary, content, mode=mode, durable=durable)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_dir(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def read_regular(path: Path, *, most: int = 1 << 20) -> bytes | None:
    """The content of a regular file, `None` when it is absent; a link or a larger file is refused.

    Raises StateUnsafe for a symbolic link, a folder, a FIFO or a file above `most` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StateUnsafe(path, "it is a symbolic link") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StateUnsafe(path, "it is not a regular file")
        if found.st_size > most:
            raise StateUnsafe(path, f"it is larger than {most} bytes")
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return stream.read(most + 1)
    finally:
        os.close(descriptor)


def make_private_dir(path: Path) -> Path:
    """Make `path` and what is missing above it, 0700; refuse a link or another user's folder.

    An existing folder of ours that others may write to is refused too; one that others
    may only read is tightened.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise StateUnsafe(path, "it is not a folder")
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise StateUnsafe(path, f"it belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        raise StateUnsafe(path, "others may write to it")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


def exists(path: Path) -> bool:
    """Whether anything has that name, a dangling link included."""
    return os.path.lexists(path)


def rename_new(source: Path, destination: Path, *, durable: bool = True) -> None:
    """Move a folder to a name that nothing has, by one rename.

    Raises FileExistsError when the name is taken, OSError(EXDEV) across file systems.
    """
    if exists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    os.rename(source, destination)
    if durable:
        sync_dir(destination.parent)
        sync_dir(source.parent)


def move_tree(source: Path, destination: Path, *, aside: Path) -> None:
    """Move a folder to a name that nothing has; may be repeated after a crash.

    On one file system this is one rename. Across file systems the source is first renamed
    to `aside` (its sibling), copied beside the destination, verified, published by rename,
    and only then deleted. When `source` is gone and `destination` is there, it is done.
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
    if not exists(destination):
        partial = destination.with_name(destination.name + ".partial")
        if exists(partial):
            remove_tree(partial)
        shutil.copytree(aside, partial, symlinks=True, copy_function=_copy_entry)
        _verify_copy(aside, partial)
        sync_file_system(partial)
        rename_new(partial, destination)
    remove_tree(aside)


def _copy_entry(source: str, destination: str) -> str:
    found = os.lstat(source)
    if stat.S_ISFIFO(found.st_mode):
        os.mkfifo(destination, stat.S_IMODE(found.st_mode))
    elif stat.S_ISSOCK(found.st_mode):
        return destination
    else:
        shutil.copy2(source, destination, follow_symlinks=False)
    return destination


def _verify_copy(source: Path, copy: Path) -> None:
    for folder, _, names in os.walk(source):
        for name in names:
            original = Path(folder, name)
            found = os.lstat(original)
            if stat.S_ISSOCK(found.st_mode):
                continue
            twin = copy / original.relative_to(source)
            if stat.S_ISREG(found.st_mode) and os.lstat(twin).st_size != found.st_size:
                raise OSError(errno.EIO, "the copy differs", str(twin))
            if stat.S_ISLNK(found.st_mode) and os.readlink(original) != os.readlink(twin):
                raise OSError(errno.EIO, "the copy differs", str(twin))


def remove_tree(path: Path) -> None:
    """Delete a folder and all in it, following no link and crossing no mount point.

    Folders without write permission are made writable first, since they are ours to
    delete. Raises StateUnsafe, with the rest kept, when a mount point lies inside.
    """
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
        _remove_children(path.name, parent, found.st_dev, path)
        os.rmdir(path.name, dir_fd=parent)
    finally:
        os.close(parent)


def _open_dir(name: str, parent: int) -> int:
    try:
        return os.open(name, _CLOEXEC_DIR, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _CLOEXEC_DIR, dir_fd=parent)


def _remove_children(name: str, parent: int, device: int, shown: Path) -> None:
    descriptor = _open_dir(name, parent)
    try:
        if os.fstat(descriptor).st_dev != device:
            raise StateUnsafe(shown, "another file system is mounted there")
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            os.fchmod(descriptor, 0o700)
        with os.scandir(descriptor) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_dir in children:
            if is_dir:
                _remove_children(child, descriptor, device, shown / child)
                os.rmdir(child, dir_fd=descriptor)
            else:
                os.unlink(child, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def tree_size(path: Path) -> int:
    """Bytes on disk below a folder, following no link; what vanishes meanwhile counts nothing."""
    total = 0
    pending = [str(path)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    return total


def network_file_system(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network file system that `path` lies on, `None` when it is local or unknown."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    wanted = os.path.realpath(path)
    best, kind = "", None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        mounted = fields[4].replace("\\040", " ")
        inside = wanted == mounted or wanted.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(best):
            best, kind = mounted, right.split()[0]
    return kind if kind in _NETWORK_TYPES else None
