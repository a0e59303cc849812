"""`undo`: take back what was done."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("undo")
@click.argument("operation", required=False, metavar="[OPERATION-ID]")
@click.option("--dry-run", is_flag=True, help="Say what would be taken back, change nothing.")
def command(context: Context, *, operation: str | None, dry_run: bool) -> None:
    """Take back the last operation that can be, or the one of that id; `log` shows both.

    Called again it goes further back. Refused, with the reason, when things have moved on.
    """
    from khlone.operations import take_back

    done = take_back.undo(context.app(), operation, dry_run=dry_run)
    if context.output.as_json:
        document = {
            "undone": {"id": done.id, "kind": done.kind, "clone": done.clone},
            "by": done.by,
            "branch": done.branch,
            "old": done.old,
            "new": done.new,
            "kept": done.kept,
        }
        context.output.document("undo", document)
    would = "would be taken back" if dry_run else "is taken back"
    context.output.answer(f"the {done.kind.value} of {done.clone} {would}")
    if done.branch is not None and done.old is not None and done.new is not None:
        goes = "would go" if dry_run else "went"
        context.output.answer(f"{visible(done.branch)} {goes} back from {done.old[:10]} to {done.new[:10]}")
    if done.by is not None and done.branch is None:
        context.output.tell(f"git khlone undo {done.by} takes that back in turn")
