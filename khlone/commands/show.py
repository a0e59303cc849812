"""`show`: everything about one clone."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("show")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Show everything about one clone; inside its worktree NAME can be left out."""
    quick.show_one(context, name)
