"""`undo`: take back what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.output import visible

if TYPE_CHECKING:
    from khlone.operations.take_back import Undone

#: So many ids are named for typing.
_NAMED = 10


@verb("undo")
@click.argument("operations", nargs=-1, metavar="[OPERATION-ID]...")
@click.option("--dry-run", is_flag=True, help="Say what would be taken back, change nothing.")
def command(context: Context, *, operations: tuple[str, ...], dry_run: bool) -> int:
    """Take back what was done last, or the operations of these ids; `log` shows them.

    What one new -n, remove or prune did to several clones is taken back as one; a clone
    whose part cannot be is kept as it is, and told. Called again it goes further back.
    Refused, with the reason, when things have moved on.
    """
    from khlone.operations import take_back

    result = take_back.undo(context.app(), operations, dry_run=dry_run)
    if context.output.as_json:
        first = result.undone[0]
        held = [{"name": one.name, "code": one.code, "message": one.message} for one in result.held]
        together = [_plain(one) for one in result.undone[1:]]
        context.output.document("undo", {**_plain(first), "together": together, "held": held})
    for one in result.undone:
        _tell(context, one, dry_run=dry_run)
    for left in result.held:
        context.output.tell(f"kept: {left.message}")
        if left.hint:
            context.output.tell(f"  hint: {left.hint}")
    back = [one.by for one in result.undone if one.by is not None and one.branch is None]
    if 0 < len(back) <= _NAMED:
        context.output.tell(f"git khlone undo {' '.join(back)} takes that back in turn")
    elif back:
        context.output.tell(f"git khlone undo ID takes one of that back in turn: see git khlone log -n {len(back)}")
    return result.held[0].exit_code if result.held else 0


def _plain(done: Undone) -> dict[str, object]:
    return {
        "undone": {"id": done.id, "kind": done.kind, "clone": done.clone},
        "by": done.by,
        "branch": done.branch,
        "old": done.old,
        "new": done.new,
        "kept": done.kept,
    }


def _tell(context: Context, done: Undone, *, dry_run: bool) -> None:
    would = "would be taken back" if dry_run else "is taken back"
    context.output.answer(f"the {done.kind.value} of {done.clone} {would}")
    if done.branch is not None and done.old is not None and done.new is not None:
        goes = "would go" if dry_run else "went"
        context.output.answer(f"{visible(done.branch)} {goes} back from {done.old[:10]} to {done.new[:10]}")
