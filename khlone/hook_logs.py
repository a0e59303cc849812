"""What is kept of the output of a hook?

Of one that runs here its end; of one in the background a log file of bounded size: its
beginning, as it comes, and its end. Of a folder's logs the newest are kept.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from khlone import files
from khlone.model import utc_now

#: Bytes of one log file, beginning and end together.
MOST_BYTES = 1 << 20
_END_BYTES = 64 << 10
#: Log files of hooks that one folder keeps.
MOST_LOGS = 50


class Tail:
    """The last bytes of what is added."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self.total = 0

    def add(self, chunk: bytes) -> None:
        """Add some."""
        self.total += len(chunk)
        self._kept += chunk
        if len(self._kept) > 2 * self._most:
            del self._kept[: -self._most]

    @property
    def content(self) -> bytes:
        """What is kept."""
        return bytes(self._kept[-self._most :])

    @property
    def text(self) -> str:
        """What is kept, for people."""
        return self.content.decode(errors="replace")

    @property
    def truncated(self) -> bool:
        """Whether there was more."""
        return self.total > self._most


class Log:
    """One log file; may be written to by several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._room = MOST_BYTES - _END_BYTES
        self._rest = Tail(_END_BYTES // 2)
        self._turn = threading.Lock()

    def line(self, text: str) -> None:
        """Write a line of ours."""
        self.add(text.encode(errors="replace") + b"\n")

    def add(self, chunk: bytes) -> None:
        """Write what a command said, as long as there is room."""
        with self._turn:
            now = chunk[: self._room]
            self._room -= len(now)
            files.write_all(self._descriptor, now)
            self._rest.add(chunk[len(now) :])

    def finish(self) -> None:
        """Write the end of what there was no room for."""
        with self._turn:
            if self._rest.total:
                left_out = self._rest.total - len(self._rest.content)
                files.write_all(self._descriptor, f"\n[{left_out} bytes left out]\n".encode() + self._rest.content)


@contextlib.contextmanager
def log_in(folder: Path, event: str) -> Iterator[Log]:
    """A new log file in a folder, which is made if it is missing; old ones go."""
    files.make_private_dir(folder)
    # Its name sorts by time; two of one moment differ by the number of their process.
    stamp = utc_now().replace(":", "").replace(".", "-")
    path = folder / f"hook-{stamp}-{os.getpid()}-{event}.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    log = Log(descriptor)
    try:
        yield log
    finally:
        log.finish()
        os.close(descriptor)
        for old in sorted(folder.glob("hook-*.log"))[:-MOST_LOGS]:
            with contextlib.suppress(OSError):
                os.unlink(old)
