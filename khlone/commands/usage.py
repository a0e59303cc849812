"""`usage`: how many tokens clones have used, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.output import visible

if TYPE_CHECKING:
    from khlone.operations.usage import CloneUsage


@verb("usage")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(context: Context, *, names: tuple[str, ...]) -> None:
    """Show how many tokens the clones of the repository have used, removed ones too, and what it cost.

    The cost is what the agents say; - where they say nothing.
    """
    from khlone.operations import usage

    found = usage.summary(context.app(), names)
    whole = usage.total(found)
    if context.output.as_json:
        context.output.document("usage", {"clones": found, "total": whole})
        return
    if not found:
        context.output.tell("nothing is known of any session")
        return
    columns = ("CLONE", "STATE", "AGENT", "SESSIONS", "REQUESTS", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "USD")
    context.output.table(columns, [*map(_row, found), _row(whole)])


def _row(one: CloneUsage) -> tuple[str, ...]:
    numbers = (one.sessions, one.requests, one.input_tokens, one.output_tokens)
    cached = (one.cache_read_tokens, one.cache_creation_tokens)
    cost = "-" if one.cost_usd is None else f"{one.cost_usd:.4f}"
    return (visible(one.name) or "all", one.state or "-", one.agent or "-", *map(str, (*numbers, *cached)), cost)
