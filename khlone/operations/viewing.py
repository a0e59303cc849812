"""How is the terminal of a session seen on this one?

Keys go there, what is said there comes here, and the size of this terminal is that one's
too. Ctrl-b d leaves, as with tmux, and Ctrl-b Ctrl-b types a Ctrl-b.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator

from khlone import files
from khlone.operations import holder

#: Ctrl-b as it is, and as terminals say it that a program has asked to tell more of keys.
_PREFIX = re.compile(rb"(\x02|\x1b\[98;5u|\x1b\[27;5;98~)")
_LEAVES = (b"d", b"\x1b[100u")
_CHUNK = 32 << 10
#: What is typed beyond that, in bytes, while nobody reads it is dropped.
_MOST_TYPED = 64 << 10


class Keys:
    """What is typed, until the words that leave."""

    def __init__(self) -> None:
        self.has_left = False
        self._held = b""

    def feed(self, typed: bytes) -> bytes:
        """What of it is for the program."""
        out = b""
        for part in filter(None, _PREFIX.split(typed)):
            is_prefix = _PREFIX.fullmatch(part) is not None
            if not self._held and is_prefix:
                self._held = part
                continue
            if self._held and not is_prefix:
                if part.startswith(_LEAVES):
                    self.has_left = True
                    return out
                out += self._held
            out += part
            self._held = b""
        return out


def view(connection: socket.socket) -> None:
    """Show it on this terminal until it has ended, or its user leaves; this terminal is then as it was."""
    assert sys.__stdout__ is not None
    keys, modes, typed = Keys(), holder.Modes(), bytearray()
    given, shown = sys.stdin.fileno(), sys.__stdout__.fileno()
    connection.setblocking(False)
    with _raw(given), _sizes() as resized:
        try:
            typed += _size(shown)
            while not keys.has_left:
                ready, writable, _ = select.select((given, connection, resized), (connection,) if typed else (), ())
                if resized in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(resized, _CHUNK)
                    typed += _size(shown)
                if given in ready:
                    chunk = _read(given)
                    if not chunk:
                        return
                    said = keys.feed(chunk)
                    if said and len(typed) < _MOST_TYPED:
                        typed += holder.HEAD.pack(holder.KEYS, len(said)) + said
                if writable:
                    del typed[: connection.send(typed)]
                if connection in ready:
                    chunk = connection.recv(_CHUNK)
                    if not chunk:
                        return
                    modes.feed(chunk)
                    files.write_all(shown, chunk)
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            with contextlib.suppress(OSError):
                files.write_all(shown, modes.reset() + b"\x1b[0m\r\n")


def _read(descriptor: int) -> bytes:
    """What was typed; nothing where the terminal has gone away."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""


def _size(terminal: int) -> bytes:
    """The message that tells the size of a terminal, where it has one."""
    try:
        found = os.get_terminal_size(terminal)
    except OSError:
        return b""
    size = holder.ROWS_COLUMNS.pack(found.lines, found.columns)
    return holder.HEAD.pack(holder.SIZE, len(size)) + size


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Keys as they are typed, none of them for the terminal itself."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        # The terminal may have gone away with its window.
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _sizes() -> Iterator[int]:
    """A descriptor that has something to read when the size of this terminal has changed."""
    woken, wake = os.pipe()
    for one in (woken, wake):
        os.set_blocking(one, False)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    earlier = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGWINCH, before)
        os.close(woken)
        os.close(wake)
