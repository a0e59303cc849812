"""`uninstall`: leave a repository and an account as they were without khlone."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.commands.completion import SHELLS
from khlone.output import visible


@verb("uninstall")
@click.option("--all", "everything", is_flag=True, help="The registry, the trash and private folders too.")
@click.option("--dry-run", is_flag=True, help="Say what would go and what would stay, change nothing.")
def command(context: Context, *, everything: bool, dry_run: bool) -> int:
    """Take away what khlone has put in this repository and in your account.

    That is git hooks, refs, the locks on worktrees, and what `setup` installed. Worktrees and
    branches stay, as plain ones of git; so does, with --all too, whatever is the only copy
    of anything. Killed half way, it is finished by running it again.
    """
    from khlone.operations import setup, uninstall

    app = context.plain_app()
    shell = setup.plan(SHELLS, {}, b"", context.environment, remove=True)
    report = uninstall.uninstall(app, shell, everything=everything, dry_run=dry_run)
    if context.output.as_json:
        removed = [{"kind": one.kind, "what": one.what} for one in report.removed]
        kept = [{"kind": one.kind, "what": one.what, "why": one.why} for one in report.kept]
        context.output.document("uninstall", {"removed": removed, "kept": kept, "done": report.done})
    for one in report.removed:
        context.output.answer(f"{one.kind}: {visible(one.what)}")
    for one in report.kept:
        context.output.tell(f"kept: {visible(one.what)}: {visible(one.why or '')}")
    if not report.removed:
        context.output.tell("nothing to take away")
    elif report.done:
        context.output.tell("done; to remove the program: uv tool uninstall khlone, or what you installed it with")
    return int(any(one.asked for one in report.kept))
