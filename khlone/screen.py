"""How is a page shown on a terminal again and again, and how are single keys read meanwhile?"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
_ARROWS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}


def is_possible() -> bool:
    """Whether both stdin and the real stdout are a terminal that can be drawn on."""
    real = sys.__stdout__
    if real is None or os.environ.get("TERM", "dumb") == "dumb":
        return False
    with contextlib.suppress(OSError, ValueError):
        return sys.stdin.isatty() and real.isatty()
    return False


class Screen:
    """The whole terminal for the length of a `with` block; what was on it comes back, however the block ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextlib.contextmanager
    def shown(self) -> Iterator[Screen]:
        """Take the terminal, keys read one by one."""
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin.fileno())
        try:
            tty.setcbreak(sys.stdin.fileno())
            self._write(_ENTER)
            yield self
        finally:
            # The terminal may have gone away with its window.
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
                self._write(_LEAVE)

    @property
    def height(self) -> int:
        """Lines that fit."""
        return shutil.get_terminal_size().lines

    def draw(self, lines: Sequence[str]) -> None:
        """Draw a page; what is too long for the terminal is cut."""
        size = shutil.get_terminal_size()
        page = [f"{line[: size.columns]}{_CLEAR_LINE}" for line in lines[: size.lines]]
        self._write(_HOME + "\r\n".join(page) + _CLEAR_REST)

    def key(self, timeout_s: float) -> str | None:
        """The next key, `up` and `down` among them; `None` when none came, `q` when there is no terminal any more."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select((sys.stdin,), (), (), left_s)
            if not ready:
                return None
            given = os.read(sys.stdin.fileno(), 16)
            if not given:
                return "q"
            if given in _ARROWS:
                return _ARROWS[given]
            text = given.decode(errors="replace")[:1]
            if text.isprintable():
                return text
        return None

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
