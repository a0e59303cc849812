"""`adopt`: make a clone of a worktree that is there."""

from __future__ import annotations

import os
from pathlib import Path

import click

from khlone.commands import Context, verb


@verb("adopt")
@click.argument("path")
@click.option("--name", metavar="NAME", help="The clone's name (default: its branch, else its folder).")
@click.option("--into", metavar="TARGET", help="The branch to merge back into.")
@click.option("--agent", metavar="A", help="The agent whose config dir is made.")
def command(context: Context, *, path: str, name: str | None, into: str | None, agent: str | None) -> None:
    """Make a clone of an existing linked worktree, which stays as it is and where it is.

    khlone never deletes its branch. A clone whose record was lost becomes what it was.
    """
    from khlone.operations import adopt, inspect

    app = context.app()
    place = Path(os.path.abspath(Path(context.directory or Path.cwd(), path)))
    found = adopt.adopt(app, adopt.AdoptRequest(path=place, name=name, target=into, agent=agent))
    if context.output.as_json:
        context.output.document("adopt", {"clone": inspect.show_clone(app, found.name)})
    context.output.tell(f"{found.name} is a clone now, on branch {found.branch}")
    context.output.answer(str(found.path))
