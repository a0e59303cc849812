"""`approve`: say that a clone's commit may land."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.output import visible


@verb("approve")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--head", metavar="OID", help="Only if this is the tip of its branch still.")
@click.option("--withdraw", is_flag=True, help="Take the approval back.")
@click.option("--list", "listing", is_flag=True, help="Show what is approved.")
def command(context: Context, *, names: tuple[str, ...], head: str | None, withdraw: bool, listing: bool) -> None:
    """Approve the tip of clones' branches, as it is now, for landing.

    With khlone.merge.approval nothing else lands. A later commit has to be approved again.
    """
    from khlone.operations import approval

    if listing and (names or head or withdraw):
        raise UsageError("--list shows all approvals and takes nothing else")
    if withdraw and head:
        raise UsageError("--withdraw and --head contradict each other")
    app = context.app()
    chosen = names or (None,)
    if listing:
        found = approval.approved(app)
    elif withdraw:
        found = approval.withdraw(app, chosen)
    else:
        found = approval.approve(app, chosen, head=head)
    if context.output.as_json:
        context.output.document("approve", {"action": _action(withdraw, listing), "approved": found})
    for one in found:
        how = (
            "is approved no more" if withdraw else "is approved" if one.valid else "was approved; it has moved on since"
        )
        context.output.answer(f"{visible(one.name)} {one.oid[:10]} {how}")


def _action(withdraw: bool, listing: bool) -> str:
    if listing:
        return "list"
    return "withdraw" if withdraw else "approve"
