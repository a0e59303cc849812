"""`env`: the variables of a clone."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("env")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Print the variables that a process in the clone gets, as `export` lines for a shell."""
    quick.show_environment(context, name)
