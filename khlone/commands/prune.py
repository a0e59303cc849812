"""`prune`: remove what is done with, purge what is old."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.output import visible


@verb("prune")
@click.option("--trash", is_flag=True, help="Delete old trash for good, instead of removing clones.")
@click.option("--age", metavar="AGE", help="With --trash: what is older goes (90m, 12h, 30d, 2w).")
@click.option("--size", metavar="SIZE", help="With --trash: the oldest goes until this much is left (500M, 10G).")
@click.option("--fetch", is_flag=True, help="Fetch first what the targets follow: a branch may have landed there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
def command(context: Context, *, trash: bool, age: str | None, size: str | None, fetch: bool, dry_run: bool) -> None:
    """Remove every clone that is integrated, clean and idle; with --trash delete old trash for good.

    Without --age and --size the settings khlone.trash.age (30d) and khlone.trash.size hold.
    What git keeps of a deleted folder can still be restored, unless a branch has all of it.
    """
    from khlone.operations import prune

    if not trash and (age is not None or size is not None):
        raise UsageError("--age and --size go with --trash")
    if trash and fetch:
        raise UsageError("--fetch goes without --trash")
    request = prune.PruneRequest(trash=trash, age=age, size=size, fetch=fetch, dry_run=dry_run)
    result = prune.prune(context.app(), request)
    if context.output.as_json:
        kept = [{"name": one.name, "code": one.code, "message": one.message} for one in result.kept]
        context.output.document("prune", {"removed": result.removed, "kept": kept, "purged": result.purged})
    would = "would be" if dry_run else "is"
    for removed in result.removed:
        branch = "its branch too" if removed.branch_deleted else "its branch stays"
        back = "" if dry_run else f"; git khlone restore {removed.trash}"
        context.output.answer(f"{removed.name} {would} in the trash, {branch}{back}")
    for purged in result.purged:
        context.output.answer(f"{purged} {'would be ' if dry_run else ''}purged")
    for one in result.kept:
        context.output.tell(f"kept: {visible(one.message)}")
    if not (result.removed or result.purged or result.kept):
        context.output.tell("nothing to prune")
