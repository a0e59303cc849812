"""`conflicts`: what would conflict, before anything lands."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("conflicts")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--into", metavar="T", help="As if all went to this branch, instead of to their targets.")
@click.option("--uncommitted", is_flag=True, help="With what is not committed in the clones, untracked files too.")
def command(context: Context, *, names: tuple[str, ...], into: str | None, uncommitted: bool) -> None:
    """Show which clones would conflict with each other and with their target, and in which paths.

    With names only these are compared. The last line is an order in which the most of
    them land. Nothing is changed.
    """
    from khlone.operations import conflicts

    request = conflicts.ForecastRequest(names=names, into=into, uncommitted=uncommitted)
    found = conflicts.predict(context.app(), request)
    if context.output.as_json:
        context.output.document("conflicts", {"pairs": found.pairs, "order": found.order})
        return
    for pair in found.pairs:
        paths = ", ".join(visible(path) for path in pair.paths)
        context.output.answer(f"{pair.a} and {visible(pair.b)} conflict" + (f": {paths}" if paths else ""))
    if not found.pairs:
        context.output.answer("no conflicts")
    if found.order:
        context.output.answer(f"order: {' '.join(found.order)}")
