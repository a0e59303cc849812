"""`cd`: go to a clone."""

from __future__ import annotations

import click

from khlone import quick
from khlone.commands import Context, verb


@verb("cd")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Go to the folder of a clone.

    A program cannot move the shell that called it: the function `khlone`, which
    `git khlone setup` installs, does. Without it the folder is printed.
    """
    quick.change_folder(context, name)
