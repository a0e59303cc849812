"""`path`: where a clone lies."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("path")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Print the folder of a clone; inside its worktree NAME can be left out."""
    quick.show_path(context, name)
