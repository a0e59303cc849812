"""`queue`: what waits to land, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from khlone.commands import Context, landing, verb
from khlone.errors import NoSuchEntry, UsageError
from khlone.output import paragraph, visible
from khlone.records import QueueEntry, QueueState
from khlone.values import dataclass

if TYPE_CHECKING:
    from khlone.app import App
    from khlone.operations.offer import MergeRequest

#: How far back it is looked for how an entry ended.
_KEPT = 2000
_TAKE_NAMES = ("add", "remove", "wait")
#: What is shown of an entry under `--json`.
_SHOWN = (
    "id",
    "name",
    "target",
    "source",
    "strategy",
    "gate",
    "push",
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
    "notes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What an action works with."""

    context: Context
    app: App
    names: Sequence[str]
    into: str | None
    request: MergeRequest
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """The entries that an action shows, and how the command ends."""

    entries: Sequence[QueueEntry]
    code: int = 0


def _list(call: _Call) -> _Answer:
    from khlone.operations import queue

    return _Answer(entries=queue.in_order(queue.waiting(call.app)))


def _add(call: _Call) -> _Answer:
    from khlone.operations import merge, queue

    result = merge.merge(call.app, call.request)
    for held in result.held:
        landing.tell_held(call.context, held)
    return _Answer(entries=queue.in_order(queue.waiting(call.app)), code=result.held[0].exit_code if result.held else 0)


def _remove(call: _Call) -> _Answer:
    from khlone.operations import queue

    if not call.names:
        raise UsageError("which of them?", hint="git khlone queue remove NAME")
    return _Answer(entries=queue.remove(call.app, call.names))


def _pause(call: _Call) -> _Answer:
    return _rest(call, pause=True)


def _resume(call: _Call) -> _Answer:
    return _rest(call, pause=False)


def _rest(call: _Call, *, pause: bool) -> _Answer:
    from khlone.operations import queue
    from khlone.operations.landing import require_branch

    call.app.prepare_state()
    target, _ = require_branch(call.app, call.into or _only_target(call.app))
    queue.pause(call.app, target, pause=pause)
    call.context.output.tell(f"the queue of {visible(target)} {'rests' if pause else 'goes on'}")
    return _list(call)


def _only_target(app: App) -> str:
    from khlone.operations import queue

    targets = {entry.target for entry in queue.waiting(app)} | set(queue.paused(app))
    if len(targets) == 1:
        return next(iter(targets))
    targets = {clone.target for clone in app.registry.clones() if clone.target is not None}
    if len(targets) == 1:
        return next(iter(targets))
    if app.settings.target is not None:
        return app.settings.target
    raise UsageError("the queue of which target?", hint="--into T")


def _run(call: _Call) -> _Answer:
    from khlone.operations import queue

    before = queue.waiting(call.app)
    if not before:
        if call.app.has_registry:
            queue.mend_pins(call.app)
        return _ended(())
    for target in sorted({entry.target for entry in before}):
        if call.into in (None, target) and not queue.run(call.app, target):
            call.context.output.tell(f"another process lands on {visible(target)}")
    return _ended([one for one in queue.by_id(call.app, [entry.id for entry in before]) if one.ended_at])


def _wait(call: _Call) -> _Answer:
    """Until what is in line, or what is of these clones, has ended; the last that is known of each.

    Where nobody drives a queue, this does.
    """
    from khlone.operations import queue

    app, names = call.app, call.names
    begun = {entry.id for entry in queue.waiting(app) if not names or entry.name in names}
    known = queue.ended(app, _KEPT)
    for name in names:
        if not any(entry.name == name for entry in (*known, *queue.by_id(app, sorted(begun)))):
            raise NoSuchEntry(name)
    queue.see_through(app, begun)
    newest = {entry.name: entry for entry in reversed(queue.ended(app, _KEPT)) if entry.name in names}
    return _ended(list(newest.values()) if names else queue.by_id(app, sorted(begun)) if begun else [])


def _log(call: _Call) -> _Answer:
    from khlone.operations import queue

    return _Answer(entries=queue.ended(call.app, call.count))


def _ended(entries: Sequence[QueueEntry]) -> _Answer:
    """With the code of the first that was held."""
    held = next((one for one in entries if one.state is QueueState.HELD), None)
    code = 0 if held is None else 1 if held.exit_code is None else held.exit_code
    return _Answer(entries=entries, code=code)


_ACTIONS: Mapping[str, Callable[[_Call], _Answer]] = {
    "list": _list,
    "add": _add,
    "remove": _remove,
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "wait": _wait,
    "log": _log,
}


@verb("queue")
@click.argument("action", type=click.Choice(list(_ACTIONS)), default="list")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--into", metavar="T", help="The target, where it is not that of the clones.")
@landing.options
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
    pushing: tuple[str, ...],
    no_verify: bool,
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
    from khlone.operations import offer

    if names and action not in _TAKE_NAMES:
        raise UsageError(f"queue {action} takes no NAME")
    request = offer.MergeRequest(
        names=names or (None,),
        into=into,
        strategy=landing.strategy(strategies),
        committed=committed,
        remove=remove_landed,
        priority=priority,
        after=after,
        detach=True,
        push=landing.is_pushed(pushing),
        verify=not no_verify,
    )
    app = context.app()
    _require_known(app, after)
    answer = _ACTIONS[action](_Call(context=context, app=app, names=names, into=into, request=request, count=count))
    _show(context, app, action, answer.entries)
    return answer.code


def _require_known(app: App, names: Sequence[str]) -> None:
    """Raise NoSuchClone for a name that is neither a clone's nor in line."""
    from khlone.operations import queue

    in_line = {entry.name for entry in queue.waiting(app)} if names else set()
    for name in names:
        if name not in in_line:
            app.require_clone(name)


def _show(context: Context, app: App, action: str, entries: Sequence[QueueEntry]) -> None:
    from khlone.operations import queue

    if context.output.as_json:
        shown = [{name: getattr(entry, name) for name in _SHOWN} for entry in entries]
        context.output.document("queue", {"action": action, "entries": shown, "paused": queue.paused(app)})
        return
    for entry in entries:
        context.output.answer(_line(entry))
        for note in entry.notes:
            context.output.answer(f"  {visible(note)}")


def _line(entry: QueueEntry) -> str:
    how = entry.state.value
    if entry.state is QueueState.LANDED and entry.oid is not None:
        how = f"landed as {entry.oid[:10]}{', pushed' if entry.push else ''}"
    elif entry.code is not None:
        how = f"held: {paragraph(entry.message or entry.code)}"
    return f"{visible(entry.name)} -> {visible(entry.target)} {entry.source[:10]} {how}"
