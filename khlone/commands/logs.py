"""`logs`: what the session of a clone has said."""

from __future__ import annotations

from pathlib import Path

import click

from khlone.commands import MOST, Context, verb


@verb("logs")
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0, MOST), metavar="N", help="The last N lines alone.")
def command(context: Context, *, name: str | None, lines: int | None) -> None:
    """Print what the session of a clone has said, or the last one where none runs.

    The newest 8 to 16 MiB of it are kept; lines of khlone's own begin with its name.
    """
    from khlone import session_logs
    from khlone.operations import standing

    app = context.app()
    clone = app.require_clone(name)
    record = standing.latest(app, clone)
    content = b"" if record.log is None else session_logs.tail(Path(record.log), lines)
    if context.output.as_json:
        text = content.decode(errors="replace")
        context.output.document("logs", {"session": standing.report(app, clone, record), "text": text})
    else:
        context.output.raw_answer(content)
