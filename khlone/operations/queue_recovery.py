"""How is a landing finished whose driver was killed?

Recovery reads the ref: the target ends at its old commit or at the tested one. Of what was
to be on a remote first, the remote's branch tells whether it has got there: nothing lands
on the target before that is known. What was to be said of a landing, and the clones that
were to go then, are part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from khlone import sessions, values
from khlone.app import App
from khlone.errors import KhloneError, RemoteFailed, TargetDiverged
from khlone.locks import HeldLock
from khlone.model import (
    Candidate,
    CloneRecord,
    CloneState,
    Kept,
    Landed,
    MergeResult,
    OperationKind,
    Removed,
    Strategy,
)
from khlone.operations import events, journal, leaving, moving, queue, queue_landing, upstream
from khlone.operations.queue_landing import Change
from khlone.operations.upstream import Upstream
from khlone.records import QueueEntry, QueueState
from khlone.registry import Operation
from khlone.values import dataclass


def require_settled(app: App, target: str) -> None:
    """Raise RemoteFailed while only a remote can tell whether a landing of a khlone that was killed has got there."""
    for operation in queue_landing.landings(app, target):
        if operation.step == queue_landing.PUSHING and not sessions.may_live(operation.owner):
            there = upstream.from_plan(cast("Mapping[str, object]", operation.plan["push"]))
            raise RemoteFailed(
                there.remote, f"{_unknown(operation.plan, there)}; nothing lands on {target} before that"
            )


def _unknown(plan: Mapping[str, object], there: Upstream) -> str:
    return f"whether {there.shown} has {_names(plan)}, which a khlone that was killed was pushing, is not known yet"


def _names(plan: Mapping[str, object]) -> str:
    return ", ".join(str(cast("Mapping[str, object]", item["clone"])["name"]) for item in queue_landing.items(plan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A clone that recovery has landed: the tip of its branch that has, and how."""

    clone: str
    source: str
    landed: Landed
    gated: bool
    pushed: str | None


def completed(app: App, operations: Sequence[Operation]) -> list[Completed]:
    """What has landed by the recovery of these operations."""
    found = []
    for operation in operations:
        if operation.kind is not OperationKind.LAND or not queue_landing.items(operation.plan):
            continue
        pushed = cast("Mapping[str, object] | None", operation.plan["push"])
        there = None if pushed is None else upstream.from_plan(pushed).shown
        for one in _chain_of(app, operation.plan):
            if one.entry.state is QueueState.LANDED:
                found.append(
                    Completed(
                        clone=one.clone.id,
                        source=one.candidate.source,
                        landed=queue_landing.as_landed(one),
                        gated=bool(one.entry.gated),
                        pushed=there,
                    )
                )
    return found


def without(
    app: App, clones: Sequence[CloneRecord], completed: Sequence[Completed]
) -> tuple[list[CloneRecord], list[tuple[CloneRecord, Completed]]]:
    """The clones that are still to land, and those that recovery has landed as they are."""
    by_id = {one.clone: one for one in completed}
    done = [
        (clone, by_id[clone.id])
        for clone in clones
        if clone.id in by_id and app.repository.read_ref(clone.ref) in (None, by_id[clone.id].source)
    ]
    names = {clone.id for clone, _ in done}
    return [clone for clone in clones if clone.id not in names], done


def with_completed(
    app: App,
    result: MergeResult,
    done: Sequence[tuple[CloneRecord, Completed]],
    *,
    remove: bool,
) -> MergeResult:
    """The result with what recovery has landed, which `--remove` is for too."""
    if not done:
        return result
    pushed = {one.pushed for _, one in done} | ({result.pushed} if result.landed else set())
    if remove:
        mine = leaving.remove_landed(app, [clone for clone, _ in done], result)
        result = values.replace(result, removed=[*mine.removed, *result.removed], kept=[*mine.kept, *result.kept])
    return values.replace(
        result,
        landed=[*(one.landed for _, one in done), *result.landed],
        gated=all(one.gated for _, one in done) and (result.gated or not result.landed),
        pushed=pushed.pop() if len(pushed) == 1 else None,
    )


def recover(app: App, operation: Operation, seat: HeldLock, *, ask: bool = False) -> list[str]:
    """Finish a landing whose driver died: the target ends at its old commit or at the tested one.

    Where only a remote can tell which of the two, it is asked with `ask`; else, and where it
    does not answer soon, RemoteFailed is raised and all is left as it is.
    """
    plan = operation.plan
    if operation.step != queue_landing.LANDED:
        told = _settle(app, operation, seat, ask=ask)
        if told is not None:
            return told
    queue.mend_pins(app)
    chain = _chain_of(app, plan)
    if not chain:
        return []
    target, names = str(plan["branch"]), _names(plan)
    pushed = cast("Mapping[str, object] | None", plan["push"])
    there = None if pushed is None else upstream.from_plan(pushed)
    if operation.step != queue_landing.LANDED or not _was_told(app, chain[-1].entry):
        queue_landing.announce(app, target, str(plan["old"]), chain, gated=bool(plan["gated"]), there=there)
    gone = queue_landing.let_go(app, target, chain)
    return [f"{names} landed on {target}", *(_shown(one) for one in gone)]


def _settle(app: App, operation: Operation, seat: HeldLock, *, ask: bool) -> list[str] | None:
    """Have the target where it ends, and all of that written down; what to say where that is not where it was to go."""
    plan = operation.plan
    move = moving.from_plan(plan)
    begun = _has_begun(app, operation, ask=ask)
    done = begun and moving.resume(app, move, seat)
    seat.verify()
    pushed = cast("Mapping[str, object] | None", plan.get("push")) if begun and not done else None
    there = None if pushed is None else upstream.from_plan(pushed)
    missed = None if there is None else TargetDiverged(move.branch, there.shown, new=move.new)
    with app.registry.transaction() as change:
        if done or missed is not None:
            queue_landing.commit(app, change, plan, missed)
        else:
            change.forget_operation(operation.id)
    if done:
        return None
    queue.mend_pins(app)
    if missed is not None:
        return [f"{_names(plan)}: {missed.message}", f"{missed.hint}"]
    return [f"{_names(plan)} will be tried again on {move.branch}"] if queue_landing.items(plan) else []


def _has_begun(app: App, operation: Operation, *, ask: bool) -> bool:
    """Whether anything was to move here already: not while a remote has not taken it."""
    if operation.step != queue_landing.PUSHING:
        return True
    there = upstream.from_plan(cast("Mapping[str, object]", operation.plan["push"]))
    try:
        if ask:
            upstream.require_ended(app, there, operation.id)
        found = upstream.has(app, there, str(operation.plan["new"]), ask=ask)
    except KhloneError as error:
        error.message += f"; {_unknown(operation.plan, there)}"
        raise
    if found is None:
        unknown = RemoteFailed(there.remote, _unknown(operation.plan, there))
        unknown.message += f": the next merge into {operation.name}, or git khlone doctor --fix, asks it"
        raise unknown
    return found


def _chain_of(app: App, plan: Mapping[str, object]) -> list[Change]:
    """The changes that a plan of the journal holds."""
    items = queue_landing.items(plan)
    entries = {entry.id: entry for entry in queue.by_id(app, [str(item["entry"]) for item in items])}
    chain = []
    for item in items:
        clone = journal.from_json(cast("Mapping[str, object]", item["clone"]), CloneState.MERGED)
        resolved_by = item["resolved_by"]
        candidate = Candidate(
            clone=clone.name,
            target=str(plan["branch"]),
            strategy=Strategy(str(item["strategy"])),
            old=str(item["old"]),
            oid=str(item["new"]),
            source=str(item["source"]),
            resolved_by=None if resolved_by is None else str(resolved_by),
        )
        if str(item["entry"]) in entries:
            chain.append(Change(entry=entries[str(item["entry"])], clone=clone, candidate=candidate))
    return chain


def _was_told(app: App, entry: QueueEntry) -> bool:
    """Whether it was said of an entry that it has landed: what was said before it was in line is not looked at."""
    for one in events.newest_first(app):
        if one.get("entry") == entry.id and one.get("event") in ("landed", "queued"):
            return one["event"] == "landed"
    return False


def _shown(one: Removed | Kept) -> str:
    if isinstance(one, Removed):
        return f"{one.name} is in the trash; git khlone restore {one.trash}"
    return f"{one.name} has landed but was not removed: {one.message}"
