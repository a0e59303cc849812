"""How does a chain of queued commits become the tip of its target, and who finishes that for a killed driver?

The plan of the landing is in the registry before anything moves; the commit point ends
every entry of it at once. Recovery reads the ref: the target ends at its old commit or at
the tested one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import cast

from khlone import faults, queue_rows, sessions, values
from khlone.app import App
from khlone.errors import CloneNotReady
from khlone.locks import HeldLock
from khlone.model import Candidate, CloneRecord, CloneState, Kept, Landed, MergeResult, OperationKind, Outcome, utc_now
from khlone.operations import events, journal, landing, leaving, moving, queue
from khlone.operations.moving import Move
from khlone.operations.offer import MERGEABLE
from khlone.records import QueueEntry, QueueState
from khlone.registry import Operation, Transaction
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry as it would land on top of those before it."""

    entry: QueueEntry
    clone: CloneRecord
    candidate: Candidate


def land(app: App, target: str, base: str, chain: Sequence[Change], seat: HeldLock, epoch: int, *, gated: bool) -> bool:
    """Move the target to the last of a chain; False when it is not at `base` any more.

    Raises SeatLost where another drives the queue now, TargetDirty, TargetInProgress, or what git says.
    """
    with app.locks.landing(target, told=app.told) as turn:
        if app.repository.read_ref(f"refs/heads/{target}") != base:
            return False
        new = chain[-1].candidate.oid
        checkout = moving.require_clean(app, target, base, new)
        turn.verify()
        seat.verify()
        move = Move(
            operation=journal.new_operation_id(),
            branch=target,
            old=base,
            new=new,
            reason=f"khlone: merge into {target}",
            leaves=False,
            worktree=None if checkout is None else str(checkout.worktree),
        )
        plan = {**move.as_json(), "entries": _planned(chain), "gated": gated}
        with app.registry.transaction() as change:
            queue_rows.require_seat(change.connection, target, epoch)
            change.begin_operation(
                Operation(
                    id=move.operation,
                    kind=OperationKind.LAND,
                    clone_id=queue.seat_of(target),
                    name=target,
                    plan=plan,
                    owner=sessions.identity(),
                    started_at=utc_now(),
                    step="publishing",
                )
            )
        faults.point("queue.publishing")
        try:
            done = moving.carry_out(app, move, checkout, seat)
        except Exception as error:
            if moving.is_settled(app, move, checkout, error):
                _forget(app, move.operation)
            raise
        if not done:
            _forget(app, move.operation)
            return False
        faults.point("queue.published")
    landing.make_durable(app, checkout)
    with app.registry.transaction() as change:
        _commit(app, change, plan)
    faults.point("queue.landed")
    queue.drop_pins(app, [one.entry for one in chain])
    faults.point("queue.finished")
    return True


def _forget(app: App, operation_id: str) -> None:
    with app.registry.transaction() as change:
        change.forget_operation(operation_id)


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
        }
        for number, one in enumerate(chain)
    ]


def _commit(app: App, change: Transaction, plan: Mapping[str, object]) -> None:
    """The commit point: every entry of the plan has landed, and the journal says so of each clone."""
    target = str(plan["branch"])
    for item in cast("Sequence[Mapping[str, object]]", plan["entries"]):
        clone = journal.from_json(cast("Mapping[str, object]", item["clone"]), CloneState.MERGED)
        queue_rows.end(
            change.connection,
            str(item["entry"]),
            QueueState.LANDED,
            oid=item["new"],
            gated=bool(plan["gated"]),
            resolved_by=item["resolved_by"],
        )
        own = {
            "operation": item["operation"],
            "clone": item["clone"],
            "target": target,
            "strategy": item["strategy"],
            "old": item["old"],
            "new": item["new"],
            "source": item["source"],
            "worktree": plan["worktree"],
        }
        change.begin_operation(journal.operation(OperationKind.MERGE, clone, own, step="publishing"))
        change.end_operation(str(item["operation"]), Outcome.DONE)
        change.note_merged(clone.id, str(item["source"]))
        if app.repository.read_ref(clone.ref) == item["source"]:
            # It may be gone, or another command may be at work on it: then its state is theirs.
            with contextlib.suppress(CloneNotReady):
                change.move_clone(clone, CloneState.MERGED, from_states=MERGEABLE)
    change.forget_operation(str(plan["operation"]))


def _told(change: Change) -> Landed:
    made = change.candidate
    return Landed(name=made.clone, strategy=made.strategy, oid=made.oid, resolved_by=made.resolved_by)


def tell(app: App, target: str, base: str, chain: Sequence[Change], *, gated: bool) -> None:
    """Say that a chain has landed, to whoever follows the queue and to plugins, and let go what was to go then."""
    landed = [_told(one) for one in chain]
    result = MergeResult(target=target, old=base, new=chain[-1].candidate.oid, gated=gated, landed=landed, held=())
    for one in chain:
        events.note(app, "landed", entry=one.entry.id, clone=one.entry.name, target=target, oid=one.candidate.oid)
        merged = values.replace(one.clone, state=CloneState.MERGED, merged_head=one.candidate.source)
        app.tell_problems(app.plugins.post_merge(journal.as_clone(merged, head=one.candidate.source), result))
    for one in chain:
        if one.entry.remove:
            found = leaving.leave(app, one.clone)
            if isinstance(found, Kept):
                events.note(app, "kept", entry=one.entry.id, clone=one.entry.name, target=target, code=found.code)


# -- recovery --------------------------------------------------------------------------------


def recover(app: App, operation: Operation, seat: HeldLock) -> list[str]:
    """Finish a landing whose driver died: the target ends at its old commit or at the tested one."""
    move = moving.from_plan(operation.plan)
    done = moving.resume(app, move, seat)
    seat.verify()
    items = cast("Sequence[Mapping[str, object]]", operation.plan["entries"])
    names = ", ".join(str(cast("Mapping[str, object]", item["clone"])["name"]) for item in items)
    with app.registry.transaction() as change:
        if done:
            _commit(app, change, operation.plan)
        else:
            change.forget_operation(operation.id)
    queue.mend_pins(app)
    return [f"{names} landed on {move.branch}" if done else f"{move.branch} moved on; {names} will be tried again"]
