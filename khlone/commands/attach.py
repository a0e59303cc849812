"""`attach`: a session of a clone with a terminal that can be left and come back to."""

from __future__ import annotations

import contextlib
import sys

import click

from khlone.commands import Context, session_options, verb
from khlone.errors import UsageError
from khlone.output import visible


@verb("attach", epilog="Everything after -- is the command; without one it is the clone's agent.")
@click.argument("name", required=False)
@click.option("--resume", is_flag=True, help="Let the agent go on with the session of its last answer.")
@click.option("-d", "--detach", is_flag=True, help="Start it, and come to it later.")
@session_options
def command(
    context: Context,
    *,
    name: str | None,
    resume: bool,
    detach: bool,
    no_wait: bool,
    priority: int,
    max_time: str | None,
    max_memory: str | None,
    stall: str | None,
) -> int:
    """Come to the session of a clone that has a terminal, or start one: its agent, or a command.

    The terminal is tmux's, or khlone's own where there is no tmux: Ctrl-b d leaves the session, which goes on, as it
    does when this window is closed.
    """
    from khlone.operations import bounds, ending, run, standing, terminals

    limits = bounds.parsed(max_time=max_time, stall=stall, max_memory=max_memory)
    is_here = not detach and not context.output.as_json
    if is_here and not (sys.stdin.isatty() and sys.__stdout__ is not None and sys.__stdout__.isatty()):
        raise UsageError("attach wants a terminal", hint="git khlone attach NAME --detach starts it without one")
    app = context.app()
    clone = app.require_clone(name)
    app.note_used(clone)
    record = standing.current(app, clone)
    if record is None or record.kind != terminals.ATTACH or context.command or resume:
        asked = terminals.request(
            app,
            clone,
            context.command or (),
            resume=resume,
            wait=not no_wait,
            priority=priority,
            bounds=limits,
        )
        record = standing.find(app, clone, run.detach(app, asked).id)
    found = standing.report(app, clone, record)
    if not is_here:
        if context.output.as_json:
            context.output.document("attach", {"session": found})
        else:
            context.output.tell(f"session {found.id} of {clone.name}: {found.state}, pid {found.pid}")
            context.output.answer(found.id)
        return 0
    if terminals.connect(app, clone, record):
        context.output.tell(f"the session of {clone.name} goes on; git khlone attach {clone.name} comes back to it")
        return 0
    found = ending.wait(app, clone)
    why = f" ({found.reason})" if found.reason else ""
    context.output.tell(f"{clone.name}: {found.state}{visible(why)}")
    with contextlib.suppress(OSError):
        # What nobody was quick enough to see, and what its supervisor has said.
        if found.log is not None and found.log.stat().st_size:
            context.output.tell(f"there is more in its log: git khlone logs {clone.name}")
    return found.code
