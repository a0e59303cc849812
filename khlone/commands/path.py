"""`path`: where a clone lies."""

from __future__ import annotations

import click

from khlone.commands import Context, verb


@verb("path")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Print the folder of a clone; inside its worktree NAME can be left out."""
    clone = context.app().require_clone(name)
    if context.output.as_json:
        context.output.document("path", {"name": clone.name, "path": clone.path})
    context.output.answer(str(clone.path))
