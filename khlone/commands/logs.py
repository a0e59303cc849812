"""`logs`: what the session of a clone has said."""

from __future__ import annotations

from pathlib import Path

import click

from khlone.commands import MOST, Context, verb
from khlone.errors import UsageError


@verb("logs")
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0, MOST), metavar="N", help="The last N lines alone.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the session has ended.")
def command(context: Context, *, name: str | None, lines: int | None, follow: bool) -> None:
    """Print what the session of a clone has said, or the last one where none runs.

    The newest 8 to 16 MiB of it are kept; lines of khlone's own begin with its name.
    """
    from khlone import session_logs
    from khlone.operations import following, standing

    if follow and context.output.as_json:
        raise UsageError("logs --follow prints what it reads, so --json cannot be given too")

    app = context.app()
    clone = app.require_clone(name)
    record = standing.latest(app, clone)
    untold = f"session {record.id} of {clone.name} had a terminal: what was said there is kept nowhere"
    if record.log is None:
        context.output.tell(untold)
    if follow:
        for piece in following.follow(app, clone, record, lines=lines):
            context.output.raw_answer(piece)
        return
    content = b"" if record.log is None else session_logs.tail(Path(record.log), lines)
    if record.kind == "attach" and record.log is not None and not content and lines != 0:
        context.output.tell(untold)
    if context.output.as_json:
        text = content.decode(errors="replace")
        context.output.document("logs", {"session": standing.report(app, clone, record), "text": text})
    else:
        context.output.raw_answer(content)
