"""`conflicts`: what would conflict, before anything lands."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("conflicts")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--into", metavar="T", help="As if all went to this branch, instead of to their targets.")
@click.option("--uncommitted", is_flag=True, help="With what is not committed in the clones, untracked files too.")
def command(context: Context, *, names: tuple[str, ...], into: str | None, uncommitted: bool) -> None:
    """Show which clones would conflict with each other and with their target, and in which paths.

    With names only these are compared. The last line is an order in which the most of
    them land. Nothing is changed.
    """
    quick.show_conflicts(context, names, into=into, uncommitted=uncommitted)
