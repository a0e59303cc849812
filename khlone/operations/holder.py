"""Who holds the terminal of a session where there is no tmux?

The session's own process, below its supervisor: it has one end of a pseudo-terminal, shows
what is said there to whoever connects to its socket, and ends as the program on the other
end does. Nobody has to look; who does not read on is left behind. It is run by its path,
`holder.py SOCKET PROGRAM WORD...`, and imports nothing of khlone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence

#: What comes from whoever looks, after its kind and length: what was typed, or a size, rows and columns.
KEYS, SIZE = b"k", b"s"
HEAD, ROWS_COLUMNS = struct.Struct(">cH"), struct.Struct(">HH")
#: Until somebody looks.
_FIRST_SIZE = (50, 200)
#: Of what was said the last so many bytes are shown to who comes later.
_KEPT = 256 << 10
_MOST_VIEWERS = 16
_CHUNK = 64 << 10
#: The program waits for who has so much before them, in bytes, and for so long, in seconds.
_BEHIND, _PATIENCE_S = 256 << 10, 5.0
#: How long the last words may take to be read, in seconds.
_LAST_WORDS_S = 1.0
#: A program that fills the terminal draws it anew when the size changes: how long it is another one, in seconds.
_OTHER_SIZE_S = 0.1
_MODE = re.compile(
    rb"\x1b\[(?:\?(?P<numbers>\d{1,4}(?:;\d{1,4}){0,7})(?P<way>[hl])|(?P<keys>[<>]\d{0,3}u|>4(?:;\d)?m))"
)
_LONGEST_MODE = 64
_ON_AT_FIRST = frozenset({b"7", b"25"})
_FULL_SCREEN = frozenset({b"47", b"1047", b"1049"})
#: What asks the terminal something. It was answered; a second answer would be taken for keys.
_QUESTION = re.compile(
    rb"\x1b\[[>=?]?[\d;]*[cq]|\x1b\[\??[\d;]*n|\x1b\[\?u|\x1b\[\??[\d;]*\$p|\x1b\[1[1-9]t|\x1b\[2[01]t"
    rb"|\x1b\]\d+(?:;\d+)?;\?(?:\x07|\x1b\\)|\x1bP[+$]q[^\x1b]{0,256}\x1b\\"
)


class Modes:
    """Which modes of a terminal a program has set, by what it says."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, bool] = {}
        self._keys: dict[bytes, bytes] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """The next piece of what it says."""
        said, end = self._rest + chunk, 0
        for match in _MODE.finditer(said):
            end = match.end()
            if match["numbers"] is not None:
                self._numbers.update(dict.fromkeys(match["numbers"].split(b";"), match["way"] == b"h"))
            elif match["keys"][:1] == b"<" or match["keys"] in (b">4m", b">4;0m"):
                self._keys.pop(match["keys"][-1:], None)
            else:
                self._keys[match["keys"][-1:]] = match["keys"]
        self._rest = said[max(end, len(said) - _LONGEST_MODE) :]

    @property
    def is_full_screen(self) -> bool:
        """Whether the program has the whole screen, and draws it."""
        return any(self._numbers.get(one) for one in _FULL_SCREEN)

    def set(self) -> bytes:
        """What puts a terminal that is as new into them."""
        return self._said(lambda is_on: is_on) + b"".join(b"\x1b[" + one for one in self._keys.values())

    def reset(self) -> bytes:
        """What takes a terminal out of them."""
        keys = {b"u": b"\x1b[<u", b"m": b"\x1b[>4m"}
        return b"".join(keys[one] for one in self._keys) + self._said(lambda is_on: not is_on)

    def _said(self, way: Callable[[bool], bool]) -> bytes:
        other = [(one, is_on) for one, is_on in self._numbers.items() if is_on != (one in _ON_AT_FIRST)]
        return b"".join(b"\x1b[?%b%b" % (one, b"h" if way(is_on) else b"l") for one, is_on in other)


class _Viewer:
    """One who looks on."""

    def __init__(self, connection: socket.socket, shown: bytes) -> None:
        self.connection, self.given, self.has_size = connection, bytearray(), False
        self.ahead, self.read_at = bytearray(shown), time.monotonic()

    def show(self, chunk: bytes) -> None:
        if not self.ahead:
            self.read_at = time.monotonic()
        self.ahead += chunk

    @property
    def is_behind(self) -> bool:
        return len(self.ahead) > _BEHIND

    def messages(self) -> list[tuple[bytes, bytes]]:
        found = []
        while len(self.given) >= HEAD.size:
            kind, length = HEAD.unpack_from(self.given)
            if len(self.given) < HEAD.size + length:
                break
            found.append((kind, bytes(self.given[HEAD.size : HEAD.size + length])))
            del self.given[: HEAD.size + length]
        return found


class Holder:
    """Holds the terminal of one program, until that has ended."""

    def __init__(self, listener: socket.socket, argv: Sequence[str]) -> None:
        self._listener, self._viewers = listener, list[_Viewer]()
        # Our own descriptor of the program's end: without one there would be nothing to read once it closes its own.
        self._master, self._slave = os.openpty()
        self._resize(*_FIRST_SIZE)
        self._was_seen = False
        self._typed, self._kept, self._modes = bytearray(), bytearray(), Modes()
        self._size_due: tuple[float, int, int] | None = None
        self._woken, wake = os.pipe()
        for one in (self._master, self._woken, wake, listener.fileno()):
            os.set_blocking(one, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.pid = self._start(argv)
        # Who ends the session tells all of its processes, where these can be listed, and this one must be the last.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)

    def _start(self, argv: Sequence[str]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.login_tty(self._slave)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            if os.environ.get("TERM", "dumb") == "dumb":
                os.environ["TERM"] = "xterm-256color"
            os.execv(argv[0], tuple(argv))  # noqa: S606
        except OSError as error:
            os.write(2, f"{argv[0]}: {os.strerror(error.errno or 0)}\r\n".encode(errors="surrogateescape"))
        finally:
            os._exit(127)

    def _pass_on(self, number: int, _: object) -> None:
        if not os.path.isdir("/proc/self"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def see_out(self) -> int:
        """Hold it until the program has ended; its status, negative for a signal."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            self._turn()
        deadline = time.monotonic() + _LAST_WORDS_S
        self._listener.close()
        # Now there is an end to what can be read, once all that has been written came through.
        os.close(self._slave)
        while select.select((self._master,), (), (), max(0.0, deadline - time.monotonic()))[0] and self._hear():
            continue
        while (ahead := [one.connection for one in self._viewers if one.ahead]) and time.monotonic() < deadline:
            _, writable, _ = select.select((), ahead, (), max(0.0, deadline - time.monotonic()))
            self._serve(set(writable), set())
        if not self._was_seen:
            # So the log says why one has ended that nobody was quick enough to look at.
            _write_all(1, self._kept)
        return os.waitstatus_to_exitcode(status)

    def _turn(self) -> None:
        """Wait until there is something to do, and do it."""
        now = time.monotonic()
        for one in [one for one in self._viewers if one.ahead and now - one.read_at > _PATIENCE_S]:
            self._leave(one)
        reads: list[int | socket.socket] = [self._woken, self._listener]
        if not any(one.is_behind for one in self._viewers):
            reads.append(self._master)
        if len(self._typed) < _CHUNK:
            reads += [one.connection for one in self._viewers]
        writes: list[int | socket.socket] = [one.connection for one in self._viewers if one.ahead]
        if self._typed:
            writes.append(self._master)
        readable, writable, _ = select.select(reads, writes, (), self._due_s(now))
        if self._woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, _CHUNK)
        if self._master in readable:
            self._hear()
        if self._master in writable:
            with contextlib.suppress(BlockingIOError):
                del self._typed[: os.write(self._master, self._typed[:_CHUNK])]
        self._serve(set(writable), set(readable))
        if self._listener in readable:
            self._admit()
        if self._size_due is not None and time.monotonic() >= self._size_due[0]:
            self._resize(*self._size_due[1:])

    def _due_s(self, now: float) -> float | None:
        due = [one.read_at + _PATIENCE_S for one in self._viewers if one.ahead]
        due += [] if self._size_due is None else [self._size_due[0]]
        return max(0.0, min(due) - now) if due else None

    def _hear(self) -> bool:
        """Read what the program says; False when there is nothing."""
        try:
            chunk = os.read(self._master, _CHUNK)
        except OSError:
            return False
        self._modes.feed(chunk)
        self._kept += chunk
        del self._kept[:-_KEPT]
        for one in self._viewers:
            one.show(chunk)
        return bool(chunk)

    def _admit(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._viewers) < _MOST_VIEWERS:
                self._viewers.append(_Viewer(connection, self._past()))

    def _past(self) -> bytes:
        """What shows who comes now what was there before."""
        if self._modes.is_full_screen:
            return self._modes.set() + b"\x1b[2J\x1b[H"
        kept = bytes(self._kept)
        if len(kept) == _KEPT:
            kept = kept[kept.find(b"\n") + 1 :]
        return _QUESTION.sub(b"", kept) + self._modes.set()

    def _leave(self, one: _Viewer) -> None:
        self._viewers.remove(one)
        one.connection.close()

    def _serve(self, writable: set[int | socket.socket], readable: set[int | socket.socket]) -> None:
        for one in list(self._viewers):
            try:
                if one.connection in writable:
                    del one.ahead[: one.connection.send(one.ahead[:_CHUNK])]
                    one.read_at = time.monotonic()
                if one.connection in readable:
                    chunk = one.connection.recv(_CHUNK)
                    if not chunk:
                        raise ConnectionResetError
                    one.given += chunk
                    for kind, payload in one.messages():
                        self._take(one, kind, payload)
            except BlockingIOError:
                continue
            except OSError:
                self._leave(one)

    def _take(self, one: _Viewer, kind: bytes, payload: bytes) -> None:
        if kind == KEYS:
            self._typed += payload
        elif kind == SIZE and len(payload) == ROWS_COLUMNS.size:
            rows, columns = ROWS_COLUMNS.unpack(payload)
            is_first, one.has_size = not one.has_size, True
            self._was_seen = True
            if is_first and self._modes.is_full_screen:
                self._resize(max(1, rows - 1), columns)
                self._size_due = (time.monotonic() + _OTHER_SIZE_S, rows, columns)
            else:
                self._resize(rows, columns)

    def _resize(self, rows: int, columns: int) -> None:
        """Let the terminal have that size, of which its program hears."""
        self._size_due = None
        if rows and columns:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _write_all(descriptor: int, text: bytearray) -> None:
    with contextlib.suppress(OSError):
        while text:
            del text[: os.write(descriptor, text)]


def main() -> None:
    """The process: hold the terminal of a program, and end as that does."""
    place, *argv = sys.argv[1:]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    listener.bind(place)
    os.umask(before)
    listener.listen(_MOST_VIEWERS)
    try:
        holder = Holder(listener, argv)
    except OSError as error:
        # It goes to the log of the session: all that it has for a terminal.
        os.write(sys.stderr.fileno(), f"khlone: there is no terminal to be had: {error.strerror}\n".encode())
        os.unlink(place)
        os._exit(1)
    status = holder.see_out()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main()
