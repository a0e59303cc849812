"""How does a user at a terminal see how far a long operation is?

Through rich, which is imported when there is something to see.
"""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Bar:
    """One line at the bottom of a terminal: drawn by `show`, taken away by `hide`, which leaves nothing behind.

    Nothing draws by itself: no thread, and no byte between two calls.
    """

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=Console(file=stream, no_color=not colour, highlight=False, force_terminal=True),
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
