"""What is kept of the output of a session? Two files of bounded size: what is written now, and what was before it.

`<session>.log` grows to a bound, then becomes `<session>.log.1` in place of the older one.
A reader sees the two as one; one that follows notices the change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from khlone import files

#: Bytes of each of the two files.
MOST_BYTES = 8 << 20
#: Sessions of one folder whose logs are kept.
KEPT = 20
_PIECE = 1 << 16
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def path_of(folder: Path, session: str) -> Path:
    """Where the log of a session lies."""
    return folder / f"{session}.log"


class SessionLog:
    """The log of one session, written by one thread; a full disk loses what comes then, and nothing else.

    Where something is missing the log says so once there is room; `gap` says why it could not be written.
    """

    def __init__(self, path: Path, *, most: int = MOST_BYTES) -> None:
        self.path = path
        self._most = most
        self._size = 0
        self._begins_line = True
        self._lost = 0
        self.gap: str | None = None
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _FLAGS, 0o600)

    def add(self, chunk: bytes) -> None:
        """Write what the session said."""
        for at in range(0, len(chunk), _PIECE):
            piece = chunk[at : at + _PIECE]
            told = self._about_gap() + piece if self._lost else piece
            try:
                if self._size and self._size + len(told) > self._most:
                    self._turn()
                files.write_all(self._descriptor, told)
            except OSError as error:
                self._lost += len(piece)
                self.gap, self._begins_line = (error.strerror or "it cannot be written").lower(), False
                continue
            self._lost = 0
            self._size += len(told)
            self._begins_line = piece.endswith(b"\n")

    def _about_gap(self) -> bytes:
        return f"\nkhlone: up to {self._lost} bytes are missing here: {self.gap}\n".encode()

    def line(self, text: str) -> None:
        """Write a line of ours, on a line of its own."""
        self.add((b"" if self._begins_line else b"\n") + f"khlone: {text}\n".encode(errors="surrogateescape"))

    def _turn(self) -> None:
        os.replace(self.path, _older(self.path))
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, 0

    def close(self) -> None:
        """Nothing more is written; of the folder's logs those of the newest sessions stay."""
        os.close(self._descriptor)
        # Logs of hooks lie in the same folder, and are not ours. The names of ours sort by time.
        ours = sorted(one for one in self.path.parent.glob("*.log") if not one.name.startswith("hook-"))
        for old in ours[:-KEPT]:
            discard(old)


def discard(path: Path) -> None:
    """Delete the log of a session."""
    for one in (path, _older(path), path.with_suffix(".answer")):
        with contextlib.suppress(OSError):
            os.unlink(one)


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def tail(path: Path, lines: int | None = None) -> bytes:
    """The last lines of a log, or all that is kept; nothing where there is none."""
    # The newer first: what becomes the older meanwhile is then there twice at worst, and never missing.
    newer = _read(path)
    content = _read(_older(path)) + newer
    return _last(content, lines)


class Follower:
    """Reads a log as it is written, from its last lines, or from all that is kept, on."""

    def __init__(self, path: Path, *, lines: int | None = None) -> None:
        self._path = path
        self._stream = _opened(path)
        self._rest = self._stream.read() if self._stream is not None else b""
        older = _read(_older(path))
        self._rest = _last(older + self._rest, lines)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def read(self) -> Iterator[bytes]:
        """What is new."""
        rest, self._rest = self._rest, b""
        if rest:
            yield rest
        while self._stream is not None:
            while chunk := self._stream.read(_PIECE):
                yield chunk
            if not self._has_turned():
                return
            # All of the older one was read: it was complete when the new one came.
            yield self._stream.read()
            self._stream.close()
            self._stream = _opened(self._path)

    def _has_turned(self) -> bool:
        assert self._stream is not None
        with contextlib.suppress(OSError):
            return os.fstat(self._stream.fileno()).st_ino != os.stat(self._path).st_ino
        return False


def _last(content: bytes, lines: int | None) -> bytes:
    if lines is None:
        return content
    return b"".join(content.splitlines(keepends=True)[-lines:]) if lines else b""


def _opened(path: Path) -> BinaryIO | None:
    with contextlib.suppress(OSError):
        return open(os.open(path, os.O_RDONLY | _FLAGS), "rb", buffering=0)
    return None


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError), open(os.open(path, os.O_RDONLY | _FLAGS), "rb") as stream:
        return stream.read()
    return b""
