"""`limits`: what the machine has, who has reserved what of it, and how many clones it carries."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.errors import NotARepository
from khlone.output import size, visible

if TYPE_CHECKING:
    from khlone.operations.limits import Report, Reserved


@verb("limits")
@click.option("--agent", metavar="AGENT", help="For clones with this agent, rather than khlone.agent.")
def command(context: Context, *, agent: str | None) -> None:
    """Show what the machine has, who has reserved what of it, and how many active clones it carries.

    The limits are settings: git khlone config set limits.sessions 8 --user
    """
    from khlone.operations import limits

    settings = context.settings()
    repository = None
    with contextlib.suppress(NotARepository):
        repository = context.plain_app().repository_id
    found = limits.report(
        settings,
        context.environment,
        agent or settings.agent,
        context.where(),
        context.output.tell,
        repository=repository,
    )
    if context.output.as_json:
        context.output.document("limits", {name: getattr(found, name) for name in _PARTS})
        return
    _print(context, found)


_PARTS = ("machine", "limits", "carries", "places", "credentials", "refused", "rates")


def _print(context: Context, found: Report) -> None:
    machine, limits = found.machine, found.limits
    free = "?" if machine.available_bytes is None else size(machine.available_bytes)
    total = "?" if machine.memory_bytes is None else size(machine.memory_bytes)
    context.output.answer(f"cores     {machine.cores:g}")
    context.output.answer(f"memory    {free} of {total} available")
    if machine.pressure_some_percent is not None:
        context.output.answer(f"pressure  programs wait for memory for {machine.pressure_some_percent:g} % of the time")
    if machine.disk_free_bytes is not None:
        context.output.answer(f"disk      {size(machine.disk_free_bytes)} free here")
    held = [one for one in found.places if one.position is None]
    waiting = len(found.places) - len(held)
    most = "" if limits.sessions is None else f" of {limits.sessions}"
    reserved = size(sum(one.memory_bytes for one in held))
    context.output.answer(f"sessions  {len(held)}{most} run, {waiting} wait, {reserved} are reserved")
    context.output.answer()
    for line in found.carries.arithmetic:
        context.output.answer(visible(line))
    for limit in found.credentials:
        so_far = f"{limit.allowed} may run so far" if limit.lifted else "none may start"
        context.output.answer(f"login {limit.credential}: {limit.reason}, until {limit.until}; {so_far}")
    for login in found.refused:
        context.output.answer(f"login {login.credential}: {visible(login.message)}; {visible(login.fix)}")
    for rate in found.rates:
        asked = f"{rate.requests_per_minute:g} requests, {rate.input_tokens_per_minute:g} tokens in"
        context.output.answer(f"{visible(rate.name)}: {asked}, {rate.output_tokens_per_minute:g} out a minute")
    if found.places:
        context.output.answer()
        context.output.table(
            ("CLONE", "STATE", "KIND", "PID", "RESERVED", "SINCE", "WHY"), list(map(_row, found.places))
        )


def _row(one: Reserved) -> tuple[str, ...]:
    return (
        visible(one.name),
        one.state if one.position is None else f"waits ({one.position})",
        visible(one.kind),
        str(one.pid),
        size(one.memory_bytes),
        one.since,
        visible(one.reason or "-"),
    )
