"""`ask`: ask the agent of a clone something, without a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from khlone.commands import Context, cost_option, session_options, verb
from khlone.errors import UsageError
from khlone.output import visible

if TYPE_CHECKING:
    from khlone.app import App
    from khlone.model import CloneRecord


@verb("ask", epilog="Everything after -- are further words for the agent.")
@click.argument("name")
@click.argument("prompt", required=False)
@click.option("--resume", is_flag=True, help="Go on with the session of its last answer.")
@click.option("--session", metavar="ID", help="Go on with this session of the agent.")
@click.option("--last", is_flag=True, help="Print the last answer again; waits for one that is still to come.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the answer: see ask NAME --last.")
@cost_option
@session_options
def command(
    context: Context,
    *,
    name: str,
    prompt: str | None,
    resume: bool,
    session: str | None,
    last: bool,
    detach: bool,
    no_wait: bool,
    priority: int,
    max_time: str | None,
    max_memory: str | None,
    max_cost: str | None,
    stall: str | None,
) -> int:
    """Ask the agent of a clone, as its session, and print what it answers; - reads the prompt from stdin.

    Ends with 0 when the agent says that all went well.
    """
    from khlone.operations import asking, bounds, run, spending

    limits, most = bounds.parsed(max_time=max_time, stall=stall, max_memory=max_memory), spending.parsed(max_cost)
    if last:
        if prompt is not None or resume or session is not None or detach or context.command:
            raise UsageError("--last prints an answer that was asked for before, and asks nothing")
        app = context.app()
        return _answer(context, app, app.require_clone(name))
    if resume and session is not None:
        raise UsageError("--session names the session to go on with, so --resume cannot be given too")
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        raise UsageError("there is no prompt", hint="git khlone ask NAME PROMPT, or - to read it from stdin")
    app = context.app()
    clone = app.require_clone(name)
    app.note_used(clone)
    wanted = asking.request(
        app,
        clone,
        text,
        extra=context.command or (),
        resume=resume,
        session=session,
        wait=not no_wait,
        priority=priority,
        bounds=limits,
        max_cost_usd=most,
    )
    if not detach:
        # Who is interrupted while it waits for its own stops the session.
        with run.attended(app, wanted):
            return _answer(context, app, clone)
    found = run.detach(app, wanted)
    if context.output.as_json:
        context.output.document("ask", {"session": found, "answer": None})
    else:
        why = f" ({found.reason})" if found.reason else ""
        context.output.tell(f"session {found.id} of {clone.name}: {found.state}{visible(why)}, pid {found.pid}")
        context.output.answer(found.id)
    return 0


def _answer(context: Context, app: App, clone: CloneRecord) -> int:
    """Wait for the answer and print it."""
    from khlone.operations import asking, ending, standing

    found = ending.wait(app, clone, kind=asking.ASK)
    answer = asking.answer_of(standing.find(app, clone, found.id))
    if context.output.as_json:
        context.output.document("ask", {"session": found, "answer": answer})
    elif answer is not None and answer.result is not None:
        context.output.answer(answer.result.removesuffix("\n"))
    if answer is None or answer.failed or found.code != 0:
        why = f" ({found.reason})" if found.reason else ""
        said = ", and says that it failed" if answer is not None and answer.failed else ""
        if answer is None or answer.result is None:
            said = f", and gave no answer: see git khlone logs {clone.name}"
        context.output.tell(f"the agent of {clone.name} ended with {found.state}{visible(why)}{said}")
    return found.code or int(answer is None or answer.failed)
