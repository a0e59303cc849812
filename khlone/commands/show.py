"""`show`: everything about one clone."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import plain, visible
from khlone.values import field_names


@verb("show")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Show everything about one clone; inside its worktree NAME can be left out."""
    from khlone.operations import inspect

    clone = inspect.show_clone(context.app(), name)
    if context.output.as_json:
        context.output.document("show", {"clone": clone})
        return
    for field in field_names(clone):
        value = plain(getattr(clone, field))
        if field == "sessions":
            value = len(clone.sessions)
        shown = "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        context.output.answer(f"{field.replace('_', ' '):<11} {visible(shown)}")
    for session in clone.sessions:
        context.output.answer(f"  {session.pid} {session.state}: {visible(' '.join(session.command))}")
