"""`untrust`: take approvals back."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.commands.trust import approval, show_approval
from khlone.operations import trust
from khlone.output import visible


@verb("untrust")
@click.option("--all", "everywhere", is_flag=True, help="In every repository.")
def command(context: Context, *, everywhere: bool) -> None:
    """Forget what was approved in this repository: its hooks run no more."""
    gone = trust.withdraw(context.app(), everywhere=everywhere)
    if context.output.as_json:
        context.output.document("untrust", {"removed": [approval(one) for one in gone]})
    for one in gone:
        if everywhere:
            context.output.answer(visible(str(one.repository)))
        show_approval(context, one)
    context.output.tell(f"{len(gone)} approval{'' if len(gone) == 1 else 's'} taken back")
