"""`sync`: bring the target into clones."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.output import visible


@verb("sync")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Sync every clone.")
@click.option("--merge", "merge", is_flag=True, help="By a merge commit (default, unless khlone.sync says rebase).")
@click.option("--rebase", "rebase", is_flag=True, help="Put the clone's own commits on top of the target.")
@click.option("--fetch", is_flag=True, help="Fetch first, and take the upstream of the target where that is ahead.")
@click.option("--force", is_flag=True, help="Even while processes run in the clone.")
@click.option("--conflict", is_flag=True, help="Lay a conflict out in the clone's worktree, to be settled there.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, change nothing.")
def command(
    context: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    merge: bool,
    rebase: bool,
    fetch: bool,
    force: bool,
    conflict: bool,
    dry_run: bool,
) -> int:
    """Bring what the target has into clones: their branch, index and files.

    A conflict leaves the clone as it is, but with --conflict: then it waits in the clone's
    worktree, as git merge or git rebase leaves it. A clone that cannot be synced is kept as it is,
    and the others go on. A branch whose work the target has already is marked merged.
    """
    from khlone.operations import sync

    if merge and rebase:
        raise UsageError("--merge and --rebase contradict each other")
    request = sync.SyncRequest(
        names=names,
        everything=everything,
        rebase=rebase if merge or rebase else None,
        fetch=fetch,
        force=force,
        conflict=conflict,
        dry_run=dry_run,
    )
    result = sync.sync(context.app(), request)
    if context.output.as_json:
        kept = [
            {
                "name": one.name,
                "code": one.code,
                "message": one.message,
                "paths": one.paths,
                "laid_out": one.laid_out,
            }
            for one in result.kept
        ]
        context.output.document("sync", {"synced": result.synced, "kept": kept})
    for synced in result.synced:
        if synced.old == synced.new:
            context.output.answer(f"{synced.name} has it all already")
        else:
            would = "would go" if dry_run else "went"
            context.output.answer(f"{synced.name} {would} from {synced.old[:10]} to {synced.new[:10]}")
    for one in result.kept:
        context.output.tell(f"kept: {visible(one.message)}")
        if one.hint:
            context.output.tell(f"  hint: {visible(one.hint)}")
    return result.kept[0].exit_code if result.kept else 0
