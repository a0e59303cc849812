"""Does the process that waits for something, or holds it, still live, and how is it woken?

A bell is a named pipe that its owner keeps open. While the kernel finds a reader the owner
lives, in whatever pid namespace, and however it was killed there is none; who writes a
byte into it wakes the owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from pathlib import Path

_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST = 1 << 12


class Bell:
    """A bell of this process; where the file system has no named pipes it only waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        try:
            os.mkfifo(path, 0o600)
            # For writing too: so that it never ends.
            self._descriptor = os.open(path, os.O_RDWR | _FLAGS)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
                raise

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is rung, at most so long; says whether it was."""
        if self._descriptor is None:
            select.select((), (), (), timeout_s)
            return False
        ready, _, _ = select.select((self._descriptor,), (), (), timeout_s)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, _MOST)
        return bool(ready)

    def close(self) -> None:
        """Take it away; may be repeated."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(descriptor)


def is_held(path: Path) -> bool | None:
    """Whether the owner of a bell lives; `None` where there is no bell to tell by."""
    try:
        descriptor = os.open(path, os.O_WRONLY | _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno != errno.ENXIO
    try:
        return True if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def ring(path: Path) -> None:
    """Wake the owner of a bell, if there is one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | _FLAGS)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b".")
        finally:
            os.close(descriptor)
