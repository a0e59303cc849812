"""`queue`: what waits to land, and in which order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.errors import NoSuchEntry, UsageError
from khlone.model import Strategy
from khlone.output import paragraph, visible
from khlone.records import QueueEntry, QueueState

if TYPE_CHECKING:
    from khlone.app import App

#: How far back it is looked for how an entry ended.
_KEPT = 2000
_ACTIONS = ("list", "add", "remove", "pause", "resume", "run", "wait", "log")


@verb("queue")
@click.argument("action", type=click.Choice(_ACTIONS), default="list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--into", metavar="T", help="The target, where it is not that of the clones.")
@click.option("--merge", "strategies", flag_value="merge", multiple=True, help="Land as a merge commit (the default).")
@click.option("--squash", "strategies", flag_value="squash", multiple=True, help="Land as one commit.")
@click.option("--rebase", "strategies", flag_value="rebase", multiple=True, help="Land each commit on the target.")
@click.option("--ff-only", "strategies", flag_value="ff-only", multiple=True, help="Land only as a fast-forward.")
@click.option("--committed", is_flag=True, help="Queue what is committed, whatever else lies in the clone.")
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, help="Higher lands first; 0 unless said.")
@click.option("--after", multiple=True, metavar="NAME", help="Not before what waits of that clone.")
@click.option("--remove", "remove_landed", is_flag=True, help="Remove the clone once it has landed.")
@click.option("-n", "count", type=click.IntRange(1, 2000), default=20, help="How many of the log; 20 unless said.")
def command(
    context: Context,
    *,
    action: str,
    names: tuple[str, ...],
    into: str | None,
    strategies: tuple[str, ...],
    committed: bool,
    priority: int,
    after: tuple[str, ...],
    remove_landed: bool,
    count: int,
) -> int:
    """Show the merge queue, put commits in line, take them out, let it rest or run.

    \b
    list             what waits, in the order in which it would land (the default)
    add NAME...      pin what is committed and put it in line, without landing it
    remove NAME...   take it out of line again
    pause, resume    let nothing land through the queue, or go on
    run              land what waits, until nothing is left
    wait [NAME...]   until it has landed or was held
    log              how the last ones ended
    """
    from khlone.operations import landing, merge, offer, queue

    if len(set(strategies)) > 1:
        raise UsageError(f"--{' and --'.join(dict.fromkeys(strategies))} contradict each other")
    if names and action not in ("add", "remove", "wait"):
        raise UsageError(f"queue {action} takes no NAME")
    app = context.app()
    in_line = {entry.name for entry in queue.waiting(app)} if after else set()
    for name in after:
        if name not in in_line:
            app.require_clone(name)
    if action == "add":
        request = offer.MergeRequest(
            names=names or (None,),
            into=into,
            strategy=Strategy(strategies[0]) if strategies else Strategy.MERGE,
            committed=committed,
            remove=remove_landed,
            priority=priority,
            after=after,
            detach=True,
        )
        result = merge.merge(app, request)
        for held in result.held:
            context.output.tell(f"held: {paragraph(held.message)}")
            if held.hint:
                context.output.tell(f"  hint: {visible(held.hint)}")
        _show(context, action, queue.waiting(app))
        return result.held[0].exit_code if result.held else 0
    if action == "remove":
        if not names:
            raise UsageError("which of them?", hint="git khlone queue remove NAME")
        _show(context, action, queue.remove(app, names))
        return 0
    if action in ("pause", "resume"):
        app.prepare_state()
        target, _ = landing.require_branch(app, into or _only_target(context, app.settings.target))
        queue.pause(app, target, pause=action == "pause")
        context.output.tell(f"the queue of {visible(target)} {'rests' if action == 'pause' else 'goes on'}")
    ended: list[QueueEntry] = []
    if action == "run":
        before = queue.waiting(app)
        if not before and app.has_registry:
            queue.mend_pins(app)
        for target in sorted({entry.target for entry in before}):
            if into in (None, target) and not queue.run(app, target):
                context.output.tell(f"another process lands on {visible(target)}")
        ended = [one for one in queue.by_id(app, [entry.id for entry in before]) if one.ended_at] if before else []
    if action == "wait":
        ended = _wait(app, names)
    if action in ("run", "wait"):
        _show(context, action, ended)
        return next((one.exit_code or 1 for one in ended if one.state is QueueState.HELD), 0)
    _show(context, action, queue.ended(app, count) if action == "log" else queue.waiting(app))
    return 0


def _wait(app: App, names: tuple[str, ...]) -> list[QueueEntry]:
    """Wait until what is in line, or what is of these clones, has ended; the last that is known of each."""
    from khlone.operations import queue

    begun = {entry.id for entry in queue.waiting(app) if not names or entry.name in names}
    known = queue.ended(app, _KEPT)
    for name in names:
        if not any(entry.name == name for entry in (*known, *queue.by_id(app, sorted(begun)))):
            raise NoSuchEntry(name)
    while begun & {entry.id for entry in queue.waiting(app)}:
        time.sleep(0.2)
    newest = {entry.name: entry for entry in reversed(queue.ended(app, _KEPT)) if entry.name in names}
    return list(newest.values()) if names else queue.by_id(app, sorted(begun)) if begun else []


def _only_target(context: Context, by_setting: str | None) -> str:
    from khlone.operations import queue

    targets = {entry.target for entry in queue.waiting(context.app())} | set(queue.paused(context.app()))
    if len(targets) == 1:
        return next(iter(targets))
    if by_setting is not None:
        return by_setting
    raise UsageError("the queue of which target?", hint="--into T")


def _show(context: Context, action: str, entries: list[QueueEntry]) -> None:
    from khlone.operations import queue

    if context.output.as_json:
        document = {"action": action, "entries": [_plain(one) for one in entries]}
        context.output.document("queue", {**document, "paused": queue.paused(context.app())})
        return
    for entry in entries:
        context.output.answer(_line(entry))


def _line(entry: QueueEntry) -> str:
    how = entry.state.value
    if entry.state is QueueState.LANDED and entry.oid is not None:
        how = f"landed as {entry.oid[:10]}"
    elif entry.code is not None:
        how = f"held: {paragraph(entry.message or entry.code)}"
    return f"{visible(entry.name)} -> {visible(entry.target)} {entry.source[:10]} {how}"


def _plain(entry: QueueEntry) -> dict[str, object]:
    names = (
        "id",
        "name",
        "target",
        "source",
        "strategy",
        "gate",
        "priority",
        "after",
        "state",
        "queued_at",
        "ended_at",
        "oid",
        "gated",
        "code",
        "message",
        "hint",
        "paths",
        "partners",
    )
    return {name: getattr(entry, name) for name in names}
