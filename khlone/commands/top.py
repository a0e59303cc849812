"""`top`: what the sessions of all clones use, again and again on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.output import size, visible

if TYPE_CHECKING:
    from pathlib import Path

    from khlone.app import App
    from khlone.operations.top import Row, Top
    from khlone.screen import Screen

_SORTS = {"c": "cpu", "m": "memory", "n": "name", "a": "age", "o": "quiet"}
_HEADS = ("CLONE", "STATE", "PID", "CPU", "RSS", "PSS", "PROCS", "THREADS", "FILES", "QUIET", "COMMAND")
_WIDTHS = (20, 8, 8, 7, 10, 10, 6, 8, 6, 7)
#: In 79 columns, whole.
_HELP = "sort c cpu m memory n name a age o quiet; up/down; p pause s stop l log q quit"
_TAIL_BYTES = 16 << 10
#: PSS costs thirty times what RSS does: it is measured each so many looks.
_PSS_EACH = 5


@verb("top")
@click.option(
    "--sort",
    type=click.Choice(tuple(_SORTS.values())),
    default="cpu",
    metavar="BY",
    help="cpu (the default), memory, name, age or quiet.",
)
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    metavar="S",
    help="Seconds between two looks; 2 unless said.",
)
def command(context: Context, *, sort: str, delay: float) -> None:
    """Show what the sessions of all clones use: memory, CPU, threads, open files, and how long each has been quiet.

    On a terminal again and again, with keys to sort, pause, stop and see the log; in a pipe or with --json once.
    """
    from khlone import screen
    from khlone.operations.top import Top

    app = context.app()
    top = Top(app)
    if context.output.as_json:
        rows = top.rows(pss=True, sort=sort)
        context.output.document("top", {"sessions": rows})
        return
    if not screen.is_possible():
        rows = top.rows(pss=True, sort=sort)
        if not rows:
            context.output.tell("no session runs")
            return
        context.output.table(_HEADS, [_cells(row) for row in rows])
        return
    assert sys.__stdout__ is not None
    with screen.Screen(sys.__stdout__).shown() as shown:
        _Live(app, top, shown, sort, delay).run()


class _Live:
    """The page with its keys."""

    def __init__(self, app: App, top: Top, screen: Screen, sort: str, delay_s: float) -> None:
        self._app, self._top, self._screen = app, top, screen
        self._sort, self._delay_s = sort, delay_s
        self._chosen: str | None = None
        self._said = ""
        #: The session that is asked about: whichever is chosen by the time of the answer, it is this one.
        self._asked: Row | None = None
        self._shows_log = False
        self._rows: list[Row] = []

    def run(self) -> None:
        """Until q is pressed."""
        looks = 0
        while True:
            self._rows = self._top.rows(pss=looks % _PSS_EACH == 0, sort=self._sort)
            looks += 1
            key = self._wait()
            while key is not None and key != "q":
                self._take(key)
                key = self._wait(0.05) if key not in ("p", "s", "y") else None
            if key == "q":
                return

    def _wait(self, at_least_s: float | None = None) -> str | None:
        self._screen.draw(self._page())
        return self._screen.key(self._delay_s if at_least_s is None else at_least_s)

    def _take(self, key: str) -> None:
        asked, self._asked, self._said = self._asked, None, ""
        if key in _SORTS:
            self._sort = _SORTS[key]
        elif key in ("up", "down", "j", "k"):
            self._choose(1 if key in ("down", "j") else -1)
        elif key == "l":
            self._shows_log = not self._shows_log
        elif key == "y" and asked is not None:
            self._stop(asked)
        elif key == "s":
            self._asked = self._row()
            self._chosen = self._asked.session if self._asked is not None else None
        elif key == "p":
            self._pause()

    def _row(self) -> Row | None:
        """The one that was chosen, `None` once it is gone; the first one until then."""
        first = self._rows[0] if self._rows and self._chosen is None else None
        return next((row for row in self._rows if row.session == self._chosen), first)

    def _choose(self, step: int) -> None:
        row = self._row()
        if row is None:
            self._chosen = self._rows[0].session if self._rows else None
        else:
            at = self._rows.index(row) + step
            self._chosen = self._rows[max(0, min(at, len(self._rows) - 1))].session

    def _pause(self) -> None:
        from khlone.operations import steering

        row = self._row()
        if row is not None:
            clone = steering.require_record(self._app, row.clone)
            act = steering.resume if row.paused else steering.pause
            count = act(clone, row.session)
            self._said = f"{count} processes of {row.name} {'go on' if row.paused else 'are paused'}"

    def _stop(self, row: Row) -> None:
        from khlone.errors import NoSuchSession, SessionFailed
        from khlone.operations import ending, standing, steering

        app, clone = self._app, steering.require_record(self._app, row.clone)
        record = standing.current(app, clone)
        try:
            if record is not None and record.id == row.session:
                # Who sees it through is told: it says why the session has ended, and starts it no more.
                ending.stop(app, clone, grace_s=3.0)
                left = []
            else:
                left = steering.stop(clone, row.session, grace_s=3.0)
        except (NoSuchSession, SessionFailed) as error:
            self._said = error.message
        else:
            self._said = f"{row.name} is stopped" if not left else f"{len(left)} processes of {row.name} live on"

    def _page(self) -> list[str]:
        from khlone.operations import top

        machine, row = top.machine(), self._row()
        memory = "" if machine.available_bytes is None else f", {size(machine.available_bytes)} of memory available"
        cpu = sum(one.cpu_percent or 0.0 for one in self._rows)
        lines = [f"{len(self._rows)} sessions, {cpu:.0f} % of a core{memory}; sorted by {self._sort}", _line(_HEADS)]
        for one in self._rows:
            text = _line(_cells(one))
            lines.append(f"\x1b[7m{text}\x1b[0m" if row is not None and one.session == row.session else text)
        if self._shows_log and row is not None:
            lines = [*lines[: self._screen.height // 2], "", *self._tail(row)]
        room = self._screen.height - 2
        of = self._asked
        asked = self._said if of is None else f"stop {of.name} (pid {of.pid})? y"
        keys = _HELP.replace("l log", "l back") if self._shows_log else _HELP
        return [*lines[:room], *[""] * max(0, room - len(lines)), asked, keys]

    def _tail(self, row: Row) -> list[str]:
        path = _newest_log(self._app.config_dirs.clone_path(row.clone) / "logs")
        if path is None:
            return [f"{row.name} has no log"]
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
        return [f"{path}:", *map(visible, lines[-(self._screen.height // 2 - 4) :])]


def _newest_log(folder: Path) -> Path | None:
    try:
        found = [path for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def _cells(row: Row) -> tuple[str, ...]:
    return (
        visible(row.name),
        "paused" if row.paused else "asks" if row.waiting_for else row.activity or row.state,
        str(row.pid),
        "-" if row.cpu_percent is None else f"{row.cpu_percent:.1f} %",
        "-" if row.rss_bytes is None else size(row.rss_bytes),
        "-" if row.pss_bytes is None else size(row.pss_bytes),
        str(row.processes),
        "-" if row.threads is None else str(row.threads),
        "-" if row.open_files is None else str(row.open_files),
        "-" if row.output_age_s is None else _age(row.output_age_s),
        visible(" ".join(row.command)),
    )


def _line(cells: tuple[str, ...]) -> str:
    fixed = (f"{cell[:width]:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False))
    return " ".join([*fixed, cells[-1]])


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
