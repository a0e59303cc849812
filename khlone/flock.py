"""How does one process of this user at a time do something short, by a lock that ends with its holder?

Not the locks of operations, which `locks` has: nothing is run while one of these is held.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from khlone.errors import Locked

_POLL_S = 0.02
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


@contextlib.contextmanager
def held(
    path: Path,
    what: str,
    *,
    holder: str = "another khlone",
    wait_s: float,
    is_folder: bool = False,
    or_without: bool = False,
) -> Iterator[None]:
    """Hold the kernel's lock on a file, which is made, or on a folder, which stays as it is.

    Raises Locked naming `what` and the `holder` after `wait_s` seconds, OSError where the
    file system has no locks, unless it is to go on without.
    """
    import fcntl

    descriptor = os.open(path, (os.O_RDONLY | os.O_DIRECTORY if is_folder else _FILE) | os.O_CLOEXEC, 0o600)
    try:
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited_s = time.monotonic() - started
                if waited_s > wait_s:
                    raise Locked(what, holder, waited_s) from None
                time.sleep(_POLL_S)
            except OSError:
                if not or_without:
                    raise
                break
        yield
    finally:
        os.close(descriptor)
