"""`push`: bring the branches of clones to their remote."""

from __future__ import annotations

import click

from khlone.commands import Context, landing, verb
from khlone.output import visible


@verb("push")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--remote", metavar="REMOTE", help="Push to this remote, whatever the settings say.")
@click.option("--atomic", is_flag=True, help="Push all of them or none, in one step.")
@click.option("--force", is_flag=True, help="Overwrite what was last seen there, even what the clone never had.")
@click.option("--no-verify", is_flag=True, help="Leave the hook pre-push out.")
@click.option("--dry-run", is_flag=True, help="Ask the remote what would happen, change nothing.")
def command(
    context: Context,
    *,
    names: tuple[str, ...],
    remote: str | None,
    atomic: bool,
    force: bool,
    no_verify: bool,
    dry_run: bool,
) -> int:
    """Push the branches of clones, each under its own name.

    A branch that was rebased replaces what was last seen there, if the clone once had
    that. A push that is refused holds that clone, and the others go on.
    """
    from khlone.operations import push

    request = push.PushRequest(
        names=names, remote=remote, atomic=atomic, force=force, verify=not no_verify, dry_run=dry_run
    )
    result = push.push(context.app(), request)
    if context.output.as_json:
        held = [{"name": one.name, "code": one.code, "message": one.message} for one in result.held]
        context.output.document("push", {"pushed": result.pushed, "held": held})
    for one in result.pushed:
        there = visible(f"{one.remote}/{one.branch}")
        if one.old == one.new:
            context.output.answer(f"{one.name}: {there} has it all already")
        else:
            how = "new" if one.old is None else f"{'instead of' if one.overwritten else 'from'} {one.old[:10]}"
            context.output.answer(f"{one.name}: {there} {'would be' if dry_run else 'is'} at {one.new[:10]} ({how})")
    for kept in result.held:
        landing.tell_held(context, kept)
    return result.held[0].exit_code if result.held else 0
