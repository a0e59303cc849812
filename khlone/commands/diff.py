"""`diff`: what a clone has changed."""

from __future__ import annotations

import click

from khlone.commands import Context, verb


@verb("diff")
@click.argument("name", required=False)
@click.option("--committed", is_flag=True, help="Only what is committed on its branch.")
@click.option("--stat", is_flag=True, help="Counts of lines instead of the patch.")
def command(context: Context, *, name: str | None, committed: bool, stat: bool) -> None:
    """Show what a clone has changed since it left its target, uncommitted and untracked work included."""
    from khlone.operations import diff

    app = context.app()
    if context.output.as_json:
        found = diff.diff(app, name, committed=committed)
        context.output.document("diff", {"name": found.name, "target": found.target, "files": found.files})
        return
    context.output.raw_answer(diff.patch(app, name, committed=committed, stat=stat))
