"""Where does the trace of a plugin's failure go? Into one private, bounded file that a warning names.

The file is the user's alone (0600), each entry is one write, and above `MOST_BYTES` it
becomes the older of two: whatever plugins do, the log stays below twice that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from khlone import files
from khlone.errors import KhloneError
from khlone.model import utc_now
from khlone.redaction import redacted

LOG_FILE = "plugins.log"
MOST_BYTES = 256 << 10
#: Of one trace the end is kept: it says what was raised.
_MOST_ENTRY = 16 << 10


def write(path: Path, *, plugin: str, where: str, seconds: float, error: BaseException) -> bool:
    """Append a failure with its trace; False when that cannot be done, which is never an error."""
    import traceback

    trace = redacted("".join(traceback.format_exception(error)))[-_MOST_ENTRY:]
    head = f"{utc_now()} plugin {plugin!r} in {where}, after {seconds:.3f} s\n"
    entry = f"{head}{trace.rstrip()}\n\n".encode(errors="replace")
    return append(path, entry, most=MOST_BYTES)


def append(path: Path, entry: bytes, *, most: int) -> bool:
    """Append to such a file, the older of two once it would be larger than `most`; False when it cannot be done."""
    try:
        files.make_private_dir(path.parent)
        _make_room(path, len(entry), most)
        _append(path, entry)
    except (OSError, KhloneError):
        return False
    return True


def _make_room(path: Path, wanted: int, most: int) -> None:
    try:
        size = os.lstat(path).st_size
    except FileNotFoundError:
        return
    if size + wanted > most:
        os.replace(path, path.with_name(f"{path.name}.1"))


def _append(path: Path, entry: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{path} is not a file of this user's")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
        os.write(descriptor, entry)
    finally:
        os.close(descriptor)
