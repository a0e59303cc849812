"""`log`: what was done."""

from __future__ import annotations

import click

from khlone.commands import MOST, Context, verb


@verb("log")
@click.argument("name", required=False)
@click.option("-n", "--max-count", "limit", type=click.IntRange(1, MOST), metavar="N", help="Show the newest N only.")
def command(context: Context, *, name: str | None, limit: int | None) -> None:
    """Show what was done, newest first, to one clone or to all.

    Names of clones that are gone are known here too.
    """
    from khlone.operations import history

    found = history.log(context.app(), clone=name, limit=limit)
    if context.output.as_json:
        context.output.document("log", {"operations": found})
        return
    if not found:
        context.output.tell("nothing was done here yet")
        return
    rows = [
        (
            one.id,
            one.started_at[:19] + "Z",
            one.kind.value,
            one.clone,
            one.outcome.value if one.outcome is not None else "open",
            "yes" if one.undoable else "no",
        )
        for one in found
    ]
    context.output.table(("ID", "STARTED", "WHAT", "CLONE", "OUTCOME", "UNDOABLE"), rows)
