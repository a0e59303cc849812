"""`remove`: move clones to the trash."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("remove")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Remove it with its changes and unmerged commits, and end its processes.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
def command(context: Context, *, names: tuple[str, ...], force: bool, dry_run: bool) -> int:
    """Move clones to the trash, from where `restore` brings them back byte for byte.

    Refused while there is uncommitted work, a stash of its branch, a commit that its
    target lacks, or a process in it. Even with --force nothing is lost.
    """
    from khlone.operations import remove

    result = remove.remove(context.app(), names or (None,), force=force, dry_run=dry_run)
    if context.output.as_json:
        kept = [{"name": one.name, "code": one.code, "message": one.message} for one in result.kept]
        context.output.document("remove", {"removed": result.removed, "kept": kept})
    for removed in result.removed:
        branch = "its branch too" if removed.branch_deleted else "its branch stays"
        if dry_run:
            context.output.answer(f"{removed.name} would go to the trash, {branch}")
        else:
            context.output.answer(f"{removed.name} is in the trash, {branch}; git khlone restore {removed.trash}")
    for one in result.kept:
        context.output.tell(f"kept: {visible(one.message)}")
        if one.hint:
            context.output.tell(f"  hint: {visible(one.hint)}")
    return result.kept[0].exit_code if result.kept else 0
