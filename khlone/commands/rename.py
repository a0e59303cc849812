"""`rename`: give a clone another name."""

from __future__ import annotations

import click

from khlone import values
from khlone.commands import Context, verb
from khlone.output import visible


@verb("rename")
@click.argument("old")
@click.argument("new")
@click.option("--keep-path", is_flag=True, help="Leave the folder where it is.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
def command(context: Context, *, old: str, new: str, keep_path: bool, dry_run: bool) -> None:
    """Give a clone another name, its branch too where khlone made it under the old one.

    The folder follows where the old name gave it. The last line of the answer is the
    folder of the worktree.
    """
    from khlone.operations import inspect, rename

    app = context.app()
    result = rename.rename(app, old, new, keep_path=keep_path, dry_run=dry_run)
    for note in result.notes:
        context.output.tell(visible(note))
    before, after = result.old, result.new
    if context.output.as_json:
        shown = inspect.describe(app, [before if dry_run else after])[0]
        if dry_run:
            shown = values.replace(shown, name=after.name, branch=after.branch, path=after.path)
        was = {"name": before.name, "branch": before.branch, "path": before.path}
        context.output.document("rename", {"old": was, "clone": shown})
    would = "would be" if dry_run else "is"
    branch = f" on branch {after.branch}" if after.branch != before.branch else ", its branch keeps its name"
    context.output.tell(f"{before.name} {would} {after.name} now{visible(branch)}")
    context.output.answer(str(after.path))
