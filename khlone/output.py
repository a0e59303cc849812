"""How does an answer reach the user: as one JSON document, or as text for people?

stdout carries the answer, stderr the story. Documents are written from the same values
as the tables. Names from git are escaped before they are shown.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from khlone.errors import Interrupted, KhloneError, OutputFailed
from khlone.values import plain

if TYPE_CHECKING:
    from khlone.live import Bar, Board
    from khlone.queue_watch import QueueView

COLOURS = ("auto", "always", "never")
_HEAD = "1"
#: Green for what is well, yellow for what is under way, red for what is wrong, dim for what says nothing.
_STYLES = {
    **dict.fromkeys(("ready", "adopted", "done", "yes"), "32"),
    "merged": "36",
    **dict.fromkeys(("creating", "merging", "removing", "purging", "open", "recovered"), "33"),
    **dict.fromkeys(("broken", "failed", "stuck", "rolled-back"), "31"),
    **dict.fromkeys(("-", "0", "clean", "no", "default"), "2"),
}


class Output:
    """Where a command's words go, given its `--json` and `--quiet`.

    Answers raise Interrupted (SIGPIPE) when nobody reads them any more, OutputFailed when
    they cannot be written. The story never fails: what is under way matters more.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        #: `always`, `never`, or `auto`: on a terminal that knows colours, unless NO_COLOR says otherwise.
        self.colour = "auto"
        self._answers: TextIO = sys.stdout
        self._is_lost = False
        self._bar: Bar | None = None
        self._board: Board | None = None

    def keep_stdout(self) -> None:
        """From here on stdout is for answers alone: whatever else prints (a plugin) goes to stderr."""
        sys.stdout = sys.stderr

    def progress(self, done: int, total: int, what: str) -> None:
        """Show how far something of several parts is, on a terminal alone, until something else is written."""
        if self.quiet or self.as_json or total < 2 or not _is_terminal(sys.stderr):
            return
        if self._bar is None:
            from khlone.live import Bar

            self._bar = Bar(sys.stderr, colour=self._paints(sys.stderr))
        with contextlib.suppress(OSError):
            self._bar.show(done, total, visible(what))

    def watch(self, look: Callable[[], QueueView]) -> None:
        """Show how a merge queue stands, on a terminal alone, until something else is written."""
        if self.quiet or self.as_json or not _is_terminal(sys.stderr):
            return
        if self._board is None:
            from khlone.live import Board

            self._board = Board(sys.stderr, colour=self._paints(sys.stderr), visible=visible)
        with contextlib.suppress(OSError):
            self._board.show(look)

    def finish(self) -> None:
        """Leave the terminal as it was found."""
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.hide()
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.hide()

    def can_show(self, letters: str) -> bool:
        """Whether stdout has these letters."""
        try:
            letters.encode(self._answers.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def _paints(self, stream: TextIO) -> bool:
        if self.colour != "auto":
            return self.colour == "always"
        return not os.environ.get("NO_COLOR") and _is_terminal(stream)

    def document(self, verb: str, content: Mapping[str, object], *, owner: str = "khlone") -> None:
        """Print the one JSON document of a verb, khlone's own or that of the plugin `owner`."""
        self._write(json.dumps({"schema": f"{owner}.{verb}/1", **_plain_mapping(content)}) + "\n")

    def answer(self, text: str = "") -> None:
        """Print a line of the answer; nothing under `--json`."""
        if not self.as_json:
            self._write(text + "\n")

    def line(self, text: str) -> None:
        """Print a line of an answer that never ends, also under `--json`."""
        _write(self._answers, text + "\n")

    def raw_answer(self, content: bytes) -> None:
        """Print bytes of the answer as they are; nothing under `--json`."""
        if not self.as_json:
            self._write(content)

    def tell(self, text: str) -> None:
        """Print a line of the story; nothing under `--quiet`."""
        if not self.quiet:
            self._tell(f"khlone: {visible(text, lines=True)}\n")

    def raw_story(self, text: str) -> None:
        """Print what another program said on its stderr; nothing under `--quiet`."""
        if text and not self.quiet:
            self._tell(text if text.endswith("\n") else text + "\n")

    def error(self, error: KhloneError) -> None:
        """Print a refusal or failure with its hint, as the document under `--json`."""
        if self.as_json and not self._is_lost:
            self.document(
                "error",
                {"code": error.code, "message": error.message, "hint": error.hint, "facts": error.facts},
            )
        else:
            self._tell(f"khlone: {paragraph(error.message)}\n")
            if error.hint:
                self._tell(f"hint: {visible(error.hint)}\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows below column heads, each column as wide as it must be; on a terminal states have colours.

        What is wider than the terminal is cut to fit, in a pipe nothing.
        """
        if self.as_json:
            return
        paint = _painted if self._paints(self._answers) else _unpainted
        widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
        room = _width(self._answers)
        if room is not None and sum(widths) + 2 * (len(widths) - 1) > room:
            from khlone import narrow

            rows = narrow.fitted(columns, rows, room, "\u2026" if self.can_show("\u2026") else "..")
            widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
        for row in (columns, *rows):
            cells = zip(row, widths, strict=True)
            line = "".join(paint(cell, is_head=row is columns) + " " * (width - len(cell) + 2) for cell, width in cells)
            self._write(line.rstrip() + "\n")

    def _tell(self, text: str) -> None:
        self.finish()
        _tell(text)

    def _write(self, content: str | bytes) -> None:
        self.finish()
        try:
            _write(self._answers, content)
        except BrokenPipeError:
            self._lose()
            raise Interrupted(signal.SIGPIPE) from None
        except OSError as error:
            self._lose()
            raise OutputFailed(os.strerror(error.errno or 0).lower()) from error

    def _lose(self) -> None:
        self._is_lost = True
        _drop(self._answers)


def _write(stream: TextIO, content: str | bytes) -> None:
    if isinstance(content, bytes):
        stream.flush()
        stream.buffer.write(content)
    else:
        try:
            stream.write(content)
        except UnicodeEncodeError:
            stream.buffer.write(content.encode(errors="surrogateescape"))
    stream.flush()


def _tell(text: str) -> None:
    try:
        _write(sys.stderr, text)
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    """Lead a stream nowhere: Python writes what is left in it once more at its end, and would fail there."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _width(stream: TextIO) -> int | None:
    """How many letters a line of a terminal has, `None` for what is none or does not say; COLUMNS counts first."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    with contextlib.suppress(OSError, ValueError):
        return (int(said) if said.isdecimal() else os.get_terminal_size(stream.fileno()).columns) or None
    return None


def _unpainted(cell: str, *, is_head: bool) -> str:
    del is_head
    return cell


def _painted(cell: str, *, is_head: bool) -> str:
    """A cell with the colour of what it says; the words say it too."""
    is_open = cell.startswith(("modified", "asks: ")) or cell.endswith(" untracked")
    style = _HEAD if is_head else _STYLES.get(cell, "33" if is_open else "")
    return f"\x1b[{style}m{cell}\x1b[0m" if style and cell else cell


def _plain_mapping(content: Mapping[str, object]) -> dict[str, object]:
    return {key: plain(value) for key, value in content.items()}


def visible(text: str, *, lines: bool = False) -> str:
    """A text that may come from git, safe for a terminal: what cannot be shown is escaped, and with `lines` no newline.

    A byte that is no text is shown as `\\xff`.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or (lines and letter == "\n") else _escaped(letter) for letter in text
    )


def paragraph(text: str) -> str:
    """A message that may quote what a program printed, safe for a terminal: the lines of it that are indented stay."""
    return "\n  ".join(visible(line) for line in text.split("\n  "))


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(letter)[1:-1]


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the last unit returns")
