"""How is a file that another program may be writing changed, so that neither change is lost?

The new content goes beside the file and the two are exchanged in one step. What comes out
must be what the change was made of; if somebody was faster, the exchange is taken back
and the change is made anew. Programs that lock their file by a folder are waited for,
before and after: what they had read before the exchange would else overwrite it. Their
locks are never taken: a lock of khlone's that a crash leaves there would hang them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from khlone import files, flock
from khlone.errors import Locked, StateUnsafe

#: How long another program's lock is waited for, in seconds.
WAIT_S = 15.0
#: A lock that is older was left by a crash: who holds one touches it every few seconds.
STALE_S = 10.0

_POLL_S = 0.1
_TRIES = 8
_SWAP_LINUX, _SWAP_MACOS, _AT_FDCWD = 2, 2, -100


def update(
    path: Path,
    change: Callable[[bytes | None], bytes | None],
    *,
    locks: Sequence[Path] = (),
    most: int = 1 << 20,
    wait_s: float = WAIT_S,
) -> bool:
    """Replace a file's content by what `change` makes of it; False when that is `None` or the same.

    `change` gets `None` for a file that is absent, and may be called again. Links are
    followed to the file itself, whose mode stays. Raises StateUnsafe for what is no
    regular file or leads nowhere, Locked when another program does not leave it alone.
    """
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise StateUnsafe(
            path,
            f"it would be written to {real}, and that folder is not there",
            hint=f"make {real.parent}, or mend the link",
        )
    # Two that take back at once would lose a third's change.
    with flock.held(real.parent, str(path), wait_s=wait_s, is_folder=True, or_without=True):
        return _update(path, real, change, locks, most, wait_s)


def _update(
    path: Path,
    real: Path,
    change: Callable[[bytes | None], bytes | None],
    locks: Sequence[Path],
    most: int,
    wait_s: float,
) -> bool:
    for _ in range(_TRIES):
        _wait_for(locks, path, wait_s)
        before = files.read_regular(real, most=most)
        after = change(before)
        if after is None or after == before:
            return False
        if not _put(real, before, after):
            continue
        if not any(map(_is_fresh, locks)):
            return True
        _wait_for(locks, path, wait_s)
        now = files.read_regular(real, most=most)
        if now == after or change(now) in (None, now):
            return True
    raise Locked(str(path), "a program that keeps writing it", wait_s)


def _wait_for(locks: Sequence[Path], path: Path, wait_s: float) -> None:
    started = time.monotonic()
    while any(map(_is_fresh, locks)):
        if time.monotonic() - started > wait_s:
            raise Locked(str(path), "the program whose file it is", wait_s)
        time.sleep(_POLL_S)


def _is_fresh(lock: Path) -> bool:
    try:
        return time.time() - os.lstat(lock).st_mtime <= STALE_S
    except OSError:
        return False


def _put(path: Path, before: bytes | None, after: bytes) -> bool:
    """Write `after` where exactly `before` is; False, with the file as it was, when something else is there."""
    mode = 0o600 if before is None else stat.S_IMODE(os.stat(path).st_mode)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.khlone")
    files.write_new(aside, after, mode=mode)
    try:
        os.chmod(aside, mode)
        if before is None:
            os.link(aside, path, follow_symlinks=False)
        else:
            _exchange(aside, path)
            if files.read_regular(aside, most=1 << 30) != before:
                _take_back(aside, path, after)
                return False
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
    files.sync_dir(path.parent)
    return True


def _take_back(aside: Path, path: Path, after: bytes) -> None:
    """Put what was there back, unless yet another content has come: the newest stays."""
    _exchange(aside, path)
    if files.read_regular(aside, most=1 << 30) != after:
        _exchange(aside, path)


def _exchange(one: Path, other: Path) -> None:
    """Let two files change places; where the system has no such step, put `one` there and keep a copy of the other."""
    exchange = _exchanger()
    number = errno.ENOSYS if exchange is None else exchange(os.fsencode(one), os.fsencode(other))
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        kept = one.with_name(f"{one.name}.old")
        os.link(other, kept, follow_symlinks=False)
        os.replace(one, other)
        os.replace(kept, one)
    elif number:
        raise OSError(number, os.strerror(number), str(one), None, str(other))


@cache
def _exchanger() -> Callable[[bytes, bytes], int] | None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    linux, macos = getattr(library, "renameat2", None), getattr(library, "renamex_np", None)
    if linux is not None:
        return lambda one, other: ctypes.get_errno() if linux(_AT_FDCWD, one, _AT_FDCWD, other, _SWAP_LINUX) else 0
    if macos is not None:
        return lambda one, other: ctypes.get_errno() if macos(one, other, _SWAP_MACOS) else 0
    return None
