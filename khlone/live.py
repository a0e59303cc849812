"""How does a user at a terminal see how far a long operation is?

Through rich, which is imported when there is something to see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from khlone.queue_watch import QueueView

#: Lines of a board; what is older is left out.
_MOST_ROWS = 8
_A_SECOND = 4


def _console(stream: TextIO, *, colour: bool) -> Console:
    return Console(file=stream, no_color=not colour, highlight=False, force_terminal=True)


class Bar:
    """One line at the bottom of a terminal: drawn by `show`, taken away by `hide`, which leaves nothing behind.

    Nothing draws by itself: no thread, and no byte between two calls.
    """

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=_console(stream, colour=colour),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None)
        self._is_shown = False

    def show(self, done: int, total: int, what: str) -> None:
        """Draw it: `done` of `total`, and what goes on now."""
        if not self._is_shown:
            self._progress.start()
            self._is_shown = True
        self._progress.update(self._task, completed=done, total=total, description=what)
        self._progress.refresh()

    def hide(self) -> None:
        """Take it away, so that something else can be written."""
        if self._is_shown:
            self._is_shown = False
            self._progress.stop()


class Board:
    """A merge queue at the bottom of a terminal, drawn anew a few times a second between `show` and `hide`."""

    def __init__(self, stream: TextIO, *, colour: bool, visible: Callable[[str], str]) -> None:
        self._console = _console(stream, colour=colour)
        self._visible = visible
        self._lock = threading.RLock()
        self._live: Live | None = None

    def show(self, look: Callable[[], QueueView]) -> None:
        """Draw what `look` says, from now on."""
        with self._lock:
            self.hide()
            self._live = Live(
                get_renderable=lambda: self._drawn(look()),
                console=self._console,
                refresh_per_second=_A_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)

    def hide(self) -> None:
        """Take it away, so that something else can be written."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _drawn(self, view: QueueView) -> Table:
        board = Table.grid(padding=(0, 2))
        for _ in range(3):
            board.add_column(no_wrap=True, overflow="ellipsis")
        counts = f"{view.landed} landed, {len(view.held)} held, {view.waiting} in line"
        board.add_row(self._text(view.target, "bold"), Text(counts), Text(""))
        now_s = time.monotonic()
        for one in view.candidates[-_MOST_ROWS:]:
            style = "red" if one.state.startswith("refused") else "green" if one.state == "passed" else "yellow"
            told = self._text(one.told(now_s), style)
            board.add_row(self._text(", ".join(one.names)), Text(one.oid[:10], "dim"), told)
        for name, why in view.held[-_MOST_ROWS:]:
            board.add_row(self._text(name), Text("held", "red"), self._text(why))
        return board

    def _text(self, text: str, style: str = "") -> Text:
        return Text(self._visible(text), style)
