"""`trash`: what can be restored."""

from __future__ import annotations

from khlone.commands import Context, verb
from khlone.output import size, visible


@verb("trash")
def command(context: Context) -> None:
    """Show what can be restored, newest first."""
    app = context.app()
    entries = [record.entry() for record in app.registry.trash()] if app.has_registry else []
    if context.output.as_json:
        context.output.document("trash", {"entries": entries})
        return
    if not entries:
        context.output.tell("the trash is empty")
        return
    rows = [
        (
            entry.trash,
            entry.name,
            visible(entry.branch),
            entry.oid[:10],
            entry.removed_at[:19] + "Z",
            size(entry.bytes),
            f"{entry.holds.tracked} tracked, {entry.holds.untracked} untracked, {entry.holds.ignored} ignored",
        )
        for entry in entries
    ]
    context.output.table(("ID", "NAME", "BRANCH", "AT", "REMOVED", "SIZE", "HOLDS"), rows)
