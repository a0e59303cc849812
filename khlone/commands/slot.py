"""`slot`: run a heavy command in one of a few slots that all clones share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khlone.commands import MOST, Context, verb
from khlone.errors import UsageError
from khlone.output import visible

if TYPE_CHECKING:
    from khlone.operations import slots


@verb("slot", options_metavar="[OPTIONS]", epilog="Everything after -- is the command.")
@click.argument("action", type=click.Choice(("run", "list")), default="list")
@click.option("--name", metavar="NAME", help="Which slots: `default` unless said.")
@click.option("-n", "count", type=click.IntRange(1, MOST), metavar="N", help="How many there are; khlone.slots.NAME.")
@click.option("--no-wait", is_flag=True, help="End with 75 rather than wait for a slot.")
def command(context: Context, *, action: str, name: str | None, count: int | None, no_wait: bool) -> int:
    """Run a heavy command in one of a few slots of the machine, and end as it ended.

    \b
    run --name build -n 2 -- make test    at most two of that name at once, over all clones and repositories
    list                                  who holds slots, and who waits for them
    """
    from khlone.operations import slots

    if action == "list":
        if name is not None or count is not None or no_wait or context.command:
            raise UsageError("slot list takes no other words")
        _list(context, slots.listed(context.environment, context.output.tell))
        return 0
    settings = context.settings()
    result = slots.run(
        settings,
        context.environment,
        slots.SlotRequest(
            name=name or "default",
            command=context.command or [],
            cwd=context.where(),
            count=count,
            wait=not no_wait,
            capture=context.output.as_json,
        ),
        told=context.output.tell,
    )
    if context.output.as_json:
        context.output.document("slot", {"slots": [], "result": result})
    return result.exit if result.exit is not None else 128 + (result.signal or 0)


def _list(context: Context, found: list[slots.Slot]) -> None:
    if context.output.as_json:
        context.output.document("slot", {"slots": found, "result": None})
        return
    if not found:
        context.output.tell("no slot is held")
        return
    rows = [
        (
            visible(one.name),
            f"waits ({one.position})" if one.waiting else "held",
            visible(one.holder),
            str(one.pid),
            one.since,
            visible(one.command),
        )
        for one in found
    ]
    context.output.table(("SLOT", "STATE", "BY", "PID", "SINCE", "COMMAND"), rows)
