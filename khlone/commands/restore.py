"""`restore`: bring a clone back."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("restore")
@click.argument("wanted", metavar="NAME|TRASH-ID")
def command(context: Context, *, wanted: str) -> None:
    """Bring a clone back from the trash, the newest of that name.

    A name, branch or folder that is taken by now gives a new one, and says so. The last
    line of the answer is the folder of the worktree.
    """
    from khlone.operations import restore

    result = restore.restore(context.app(), wanted)
    for note in result.notes:
        context.output.tell(visible(note))
    if context.output.as_json:
        context.output.document("restore", {"clone": result.clone})
    context.output.answer(str(result.clone.path))
