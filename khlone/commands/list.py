"""`list`: show every clone."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("list")
@click.option("--no-status", is_flag=True, help="Do not look at the worktrees: faster, without dirty and untracked.")
@click.option("--tree", is_flag=True, help="Below its target each: what is stacked on what.")
def command(context: Context, *, no_status: bool, tree: bool) -> None:
    """Show every clone, how far it is and whether it is dirty."""
    quick.show_all(context, status=not no_status, as_tree=tree)
