"""`run`: run a session in a clone, with a supervisor that sees it through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khlone.commands import Context, cost_option, session_options, verb
from khlone.errors import UsageError

if TYPE_CHECKING:
    from khlone.app import App
    from khlone.model import CloneRecord
    from khlone.operations.standing import SessionReport

_USUAL_RESTARTS, _MOST_RESTARTS = 3, 1000


@verb("run", options_metavar="[OPTIONS]", epilog="Everything after -- is the command.")
@click.argument("name", required=False)
@click.option("-d", "--detach", is_flag=True, help="Go on without it: see logs, wait and stop.")
@click.option(
    "--restart",
    metavar="POLICY",
    help="on-failure or on-failure:N: start it again when it has failed, 3 times or N, after 1, 2, 4 ... 60 s.",
)
@cost_option
@session_options
def command(
    context: Context,
    *,
    name: str | None,
    detach: bool,
    restart: str | None,
    no_wait: bool,
    priority: int,
    max_time: str | None,
    max_memory: str | None,
    max_cost: str | None,
    stall: str | None,
) -> int:
    """Run the session of a clone: one at a time, of which the output, the end and what is left behind are looked after.

    It waits in line until the machine has a place for it, has this terminal, and this command ends as it did. Detached
    it has none, its output is in the log, and it ends neither with this command nor with the terminal.
    """
    from khlone.operations import bounds, run, spending

    if not context.command:
        raise UsageError("no command is given", hint="git khlone run NAME -- CMD ...")
    limits = bounds.parsed(max_time=max_time, stall=stall, max_memory=max_memory)
    most = spending.parsed(max_cost)
    if most is not None and not detach and not context.output.as_json:
        raise UsageError("--max-cost goes with --detach: on a terminal nobody but you sees what it has cost")
    restarts = _restarts(restart)
    if restarts and not detach and not context.output.as_json:
        raise UsageError("--restart goes with --detach: on a terminal it is yours to start it again")
    app = context.app()
    clone = app.require_clone(name)
    app.note_used(clone)
    request = run.RunRequest(
        clone=clone.name,
        command=context.command,
        wait=not no_wait,
        priority=priority,
        max_time_s=limits.max_time_s,
        stall_s=limits.stall_s,
        max_memory_bytes=limits.max_memory_bytes,
        max_cost_usd=most,
        restarts=restarts,
    )
    if not detach and not context.output.as_json:
        status = run.foreground(app, request)
        return status if status >= 0 else 128 - status
    found = run.detach(app, request)
    if not detach:
        found = _to_its_end(app, clone, found.id)
    if context.output.as_json:
        context.output.document("run", {"session": found})
    else:
        why = f" ({found.reason})" if found.reason else ""
        context.output.tell(f"session {found.id} of {clone.name}: {found.state}{why}, pid {found.pid}")
        context.output.answer(found.id)
    return 0 if detach else found.code


def _restarts(policy: str | None) -> int:
    """How often a session is started again; raises UsageError."""
    if policy in (None, "no"):
        return 0
    word, _, count = str(policy).partition(":")
    if word == "on-failure" and policy == word:
        return _USUAL_RESTARTS
    if word == "on-failure" and count.isascii() and count.isdecimal() and 0 < int(count[:9]) <= _MOST_RESTARTS:
        return int(count)
    hint = f"on-failure, or on-failure:N with N from 1 to {_MOST_RESTARTS}"
    raise UsageError(f"--restart {policy!r} is no policy", hint=hint)


def _to_its_end(app: App, clone: CloneRecord, session: str) -> SessionReport:
    """Wait for it, with nobody else to hear what it says; who is interrupted stops it."""
    from khlone.operations import ending

    try:
        return ending.wait(app, clone)
    except BaseException:
        ending.stop_all(app, clone, only=session)
        raise
