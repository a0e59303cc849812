"""How does a chain of queued commits become the tip of its target?

The plan of the landing is in the registry before anything moves; the commit point ends
every entry of it at once. What is to be on a remote too gets there first, and lands here
when it has. What a killed driver leaves is finished by `queue_recovery`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from khlone import faults, queue_rows, sessions, values
from khlone.app import App
from khlone.errors import CloneNotReady, KhloneError, TargetDiverged, TargetMoved
from khlone.locks import HeldLock
from khlone.model import (
    MERGEABLE,
    Candidate,
    CloneRecord,
    CloneState,
    Kept,
    Landed,
    MergeResult,
    OperationKind,
    Outcome,
    Removed,
    utc_now,
)
from khlone.operations import events, journal, landed, landing, leaving, moving, queue, upstream
from khlone.operations.moving import Move
from khlone.operations.upstream import Upstream
from khlone.records import QueueEntry, QueueState
from khlone.registry import Operation, Transaction
from khlone.values import dataclass

#: The steps of an operation while the remote is to take what lands, and when all is here and some clones are to go.
PUSHING, LANDED = "pushing", "landed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry as it would land on top of those before it."""

    entry: QueueEntry
    clone: CloneRecord
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The right to drive a target's queue: its lock, and the epoch of whoever holds that."""

    target: str
    lock: HeldLock
    epoch: int


def land(
    app: App,
    seat: Seat,
    base: str,
    chain: Sequence[Change],
    *,
    gated: bool,
    notes: Sequence[str] = (),
    there: Upstream | None = None,
) -> bool:
    """Move the target to the last of a chain; False when it, or `there`, is not where it was any more,
    or when one of the chain has been taken out of the queue or gave way to a newer entry.

    `there` is the branch of a remote that goes there first. Raises SeatLost where another
    drives the queue now, TargetDirty, TargetInProgress, TargetDiverged, PushRejected,
    RemoteFailed, CredentialsMissing, or what git says.
    """
    plan = {**_plan(seat, base, chain[-1].candidate.oid), "entries": _planned(chain), "gated": gated}
    plan |= {"notes": list(notes), "push": None if there is None else there.as_json()}
    if there is None:
        done = _move(app, seat, plan)
    else:
        done = _send(app, seat, plan, there) and _move_after(app, seat, plan, there)
    if not done:
        return False
    with app.registry.transaction() as change:
        commit(app, change, plan)
    faults.point("queue.landed")
    queue.drop_pins(app, [one.entry for one in chain])
    faults.point("queue.finished")
    return True


def catch_up(app: App, seat: Seat, base: str, there: Upstream) -> str:
    """Where the target is once it has what its upstream has: still at `base`, or where that is.

    Raises UpstreamGone where it was seen and is no more, TargetDiverged where each has commits
    that the other lacks, TargetMoved, and what looking there and landing raise.
    """
    tip = upstream.look(app, there)
    if tip is None and upstream.last_seen(app, there) is not None:
        raise upstream.gone(seat.target, there)
    if tip is None or moving.contains(app, base, tip):
        return base
    if not moving.contains(app, tip, base):
        raise TargetDiverged(seat.target, there.shown)
    plan = {**_plan(seat, base, tip), "reason": f"khlone: follow {there.shown}", "entries": [], "gated": False}
    if not _move(app, seat, plan):
        raise TargetMoved(seat.target, 1)
    _forget(app, plan)
    landed.note_brought(app, seat.target, base, tip)
    app.told(f"{seat.target} has now what {there.shown} has ({tip[:10]})")
    return tip


def _plan(seat: Seat, base: str, new: str) -> dict[str, object]:
    move = Move(
        operation=journal.new_operation_id(),
        branch=seat.target,
        old=base,
        new=new,
        reason=f"khlone: merge into {seat.target}",
        leaves=False,
    )
    return move.as_json()


def _move(app: App, seat: Seat, plan: dict[str, object]) -> bool:
    """Let the target go where the plan says; False, with nothing changed, when it is not where it was any more."""
    with app.locks.landing(seat.target, told=app.told) as turn:
        checkout = _require_ready(app, plan)
        if checkout is False:
            return False
        turn.verify()
        seat.lock.verify()
        plan["worktree"] = None if checkout is None else str(checkout.worktree)
        move = moving.from_plan(plan)
        if not _note(app, seat, plan, "publishing"):
            return False
        faults.point("queue.publishing")
        try:
            done = moving.carry_out(app, move, checkout, seat.lock)
        except Exception as error:
            if moving.is_settled(app, move, checkout, error):
                _forget(app, plan)
            raise
        if not done:
            _forget(app, plan)
            return False
        faults.point("queue.published")
    landing.make_durable(app, checkout)
    return True


def _require_ready(app: App, plan: Mapping[str, object]) -> landing.Checkout | Literal[False] | None:
    """Where the target is checked out, False when it is not where it was; raises TargetDirty or TargetInProgress."""
    target, base = str(plan["branch"]), str(plan["old"])
    if app.repository.read_ref(f"refs/heads/{target}") != base:
        return False
    return moving.require_clean(app, target, base, str(plan["new"]))


def _note(app: App, seat: Seat, plan: Mapping[str, object], step: str) -> bool:
    """Write the plan down, in place of what is written of it; False where an entry of it waits no more.

    From here on none of them is taken out of the queue.
    """
    with app.registry.transaction() as change:
        queue_rows.require_seat(change.connection, seat.target, seat.epoch)
        if not queue_rows.all_wait(change.connection, [str(item["entry"]) for item in items(plan)]):
            return False
        change.forget_operation(str(plan["operation"]))
        change.begin_operation(
            Operation(
                id=str(plan["operation"]),
                kind=OperationKind.LAND,
                clone_id=queue.seat_of(seat.target),
                name=seat.target,
                plan=plan,
                owner=sessions.identity(),
                started_at=utc_now(),
                step=step,
            )
        )
    return True


# -- to a remote first -------------------------------------------------------------------------


def _send(app: App, seat: Seat, plan: dict[str, object], there: Upstream) -> bool:
    """Have the remote's branch go first; False, with nothing changed, when it or the target is not where it was."""
    seen, new = upstream.last_seen(app, there), str(plan["new"])
    if _require_ready(app, plan) is False or (seen is not None and not moving.contains(app, new, seen)):
        return False
    seat.lock.verify()
    if not _note(app, seat, plan, PUSHING):
        return False
    faults.point("queue.pushing")
    try:
        done = upstream.send(app, there, seat.target, seen, new, mark=str(plan["operation"]))
    except Exception:
        _forget(app, plan)
        raise
    if done:
        faults.point("queue.pushed")
        events.note(app, "pushed", target=seat.target, oid=new)
    else:
        _forget(app, plan)
        events.note(app, "push-lost", target=seat.target, oid=new)
        app.told(f"{there.shown} has moved on: computed and tested again on top of it")
    return done


def _move_after(app: App, seat: Seat, plan: dict[str, object], there: Upstream) -> bool:
    """Let the target follow to what the remote has taken; raises, saying so, where it cannot."""
    try:
        if _move(app, seat, plan):
            return True
        raise TargetDiverged(seat.target, there.shown, new=str(plan["new"]))
    except KhloneError as error:
        if not isinstance(error, TargetDiverged):
            error.message += f"; {there.shown} has it already"
        found = app.registry.operation(str(plan["operation"]))
        if found is None or found.step == PUSHING:
            with app.registry.transaction() as change:
                commit(app, change, plan, error)
        raise


def _forget(app: App, plan: Mapping[str, object]) -> None:
    with app.registry.transaction() as change:
        change.forget_operation(str(plan["operation"]))


def _planned(chain: Sequence[Change]) -> list[dict[str, object]]:
    """The entries of a landing as the journal keeps them, each with the id of the operation that `log` will show."""
    now = time.time_ns() // 1_000_000
    return [
        {
            "entry": one.entry.id,
            "operation": f"{now + number:012x}{one.entry.id[-4:]}",
            "clone": journal.to_json(one.clone),
            "strategy": one.candidate.strategy.value,
            "old": one.candidate.old,
            "new": one.candidate.oid,
            "source": one.candidate.source,
            "resolved_by": one.candidate.resolved_by,
            "state": one.clone.state.value,
            "remove": one.entry.remove,
        }
        for number, one in enumerate(chain)
    ]


def commit(app: App, change: Transaction, plan: Mapping[str, object], missed: KhloneError | None = None) -> None:
    """The commit point: every entry of the plan has landed, and the journal says so of each clone.

    With `missed` a remote has them, and that is why the target here has not: the entries are held by it.
    """
    target = str(plan["branch"])
    ended = QueueState.LANDED if missed is None else QueueState.HELD
    why = {} if missed is None else {"code": missed.code, "exit_code": missed.exit_code, "message": missed.message}
    why |= {} if missed is None else {"hint": missed.hint}
    for item in items(plan):
        clone = journal.from_json(cast("Mapping[str, object]", item["clone"]), CloneState.MERGED)
        queue_rows.end(
            change.connection,
            str(item["entry"]),
            ended,
            **why,
            oid=item["new"],
            gated=bool(plan["gated"]),
            resolved_by=item["resolved_by"],
            notes=plan.get("notes", ()),
        )
        own = {
            "operation": item["operation"],
            "clone": item["clone"],
            "target": target,
            "strategy": item["strategy"],
            "old": item["old"],
            "new": item["new"],
            "source": item["source"],
            "state": item["state"],
            "worktree": plan["worktree"],
        }
        change.begin_operation(journal.operation(OperationKind.MERGE, clone, own, step="publishing"))
        change.end_operation(str(item["operation"]), Outcome.DONE)
        change.note_merged(clone.id, str(item["source"]))
        if app.repository.read_ref(clone.ref) == item["source"]:
            # It may be gone, or another command may be at work on it: then its state is theirs.
            with contextlib.suppress(CloneNotReady):
                change.move_clone(clone, CloneState.MERGED, from_states=MERGEABLE)
    if missed is None and any(item["remove"] for item in items(plan)):
        change.note_step(str(plan["operation"]), LANDED)
    else:
        change.forget_operation(str(plan["operation"]))


def items(plan: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    """The entries of a plan."""
    return cast("Sequence[Mapping[str, object]]", plan["entries"])


def as_landed(change: Change) -> Landed:
    """A change as an answer has it."""
    made = change.candidate
    return Landed(name=made.clone, strategy=made.strategy, oid=made.oid, resolved_by=made.resolved_by)


def tell(
    app: App, target: str, base: str, chain: Sequence[Change], *, gated: bool, there: Upstream | None = None
) -> list[Removed | Kept]:
    """Say that a chain has landed, to whoever follows the queue and to plugins, and let go what was to go then.

    The seat of the target is held. Returns what became of those that were to go.
    """
    announce(app, target, base, chain, gated=gated, there=there)
    return let_go(app, target, chain)


def announce(app: App, target: str, base: str, chain: Sequence[Change], *, gated: bool, there: Upstream | None) -> None:
    """Say that a chain has landed."""
    result = MergeResult(
        target=target,
        old=base,
        new=chain[-1].candidate.oid,
        gated=gated,
        landed=[as_landed(one) for one in chain],
        held=(),
        pushed=None if there is None else there.shown,
    )
    for one in chain:
        events.note(app, "landed", entry=one.entry.id, clone=one.entry.name, target=target, oid=one.candidate.oid)
        merged = values.replace(one.clone, state=CloneState.MERGED, merged_head=one.candidate.source)
        app.tell_problems(app.plugins.post_merge(journal.as_clone(merged, head=one.candidate.source), result))


def let_go(app: App, target: str, chain: Sequence[Change]) -> list[Removed | Kept]:
    """Remove the clones that were to go when they had landed; the last step of a landing that has any."""
    gone: list[Removed | Kept] = []
    for one in chain:
        if one.entry.remove:
            found = leaving.leave(app, one.clone)
            gone.append(found)
            if isinstance(found, Kept):
                events.note(app, "kept", entry=one.entry.id, clone=one.entry.name, target=target, code=found.code)
    if gone:
        with app.registry.transaction() as change:
            for operation in landings(app, target):
                if operation.step == LANDED:
                    change.forget_operation(operation.id)
    return gone


def landings(app: App, target: str) -> list[Operation]:
    """The landings on a target that have not ended."""
    return [one for one in app.registry.open_operations() if one.clone_id == queue.seat_of(target)]
