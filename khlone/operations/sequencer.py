"""How do the entries of one target's queue land, in which order, and who is held?

One process at a time drives a queue: whoever finds the seat free. It builds candidates
on the target's tip in the object database, lets the gates look at exactly the commit
that would land, and moves the target to it by compare-and-swap. What several entries
break together is traced to the fewest of them. Entries and the plan of a landing are in
the registry before anything moves, so that whoever comes next finishes what a killed
driver began.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from khlone import faults, files, queue_rows, sessions, values
from khlone.app import App
from khlone.errors import (
    CloneNotReady,
    GateFailed,
    KhloneError,
    MergeConflict,
    TargetDirty,
    TargetInProgress,
    TargetMoved,
)
from khlone.locks import HeldLock
from khlone.model import (
    Candidate,
    CloneRecord,
    CloneState,
    Kept,
    Landed,
    MergeResult,
    OperationKind,
    Outcome,
    Verdict,
    utc_now,
)
from khlone.operations import batches, candidates, events, journal, landing, leaving, moving, offer, queue
from khlone.operations.gates import Gates, Judgement, required_but_missing
from khlone.operations.moving import Move
from khlone.operations.offer import MERGEABLE
from khlone.records import QueueEntry, QueueState
from khlone.registry import Operation, Transaction
from khlone.values import dataclass

#: Entries that are tested as one.
BATCH = 32
#: A target that moved so often in a row while gates ran is left to the others.
MOST_LOST_RACES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry as it would land on top of those before it."""

    entry: QueueEntry
    clone: CloneRecord
    candidate: Candidate


def drive(app: App, target: str, gates: Gates) -> bool:
    """Land or hold everything that waits for a target; False, with nothing done, when another process does."""
    seat = app.locks.try_operation(queue.seat_of(target))
    if seat is None:
        return False
    try:
        for operation in app.registry.open_operations():
            if operation.clone_id == queue.seat_of(target):
                recover(app, operation, seat)
        with app.registry.transaction() as change:
            epoch = queue_rows.take_seat(change.connection, target)
        queue.mend_pins(app)
        _Driver(app, target, gates, seat, epoch).run()
    finally:
        seat.release()
    return True


class _Driver:
    """Drives one queue while it holds the seat."""

    def __init__(self, app: App, target: str, gates: Gates, seat: HeldLock, epoch: int) -> None:
        self._app, self._target, self._gates, self._seat, self._epoch = app, target, gates, seat, epoch
        self._landed: list[QueueEntry] = []
        self._built: dict[tuple[str, str], Change | KhloneError] = {}
        self._lost = 0

    def run(self) -> None:
        """Until nothing waits, or the queue is paused."""
        while not queue.is_paused(self._app, self._target):
            entries = self._next()
            if not entries:
                return
            with self._marked(entries):
                self._round(entries)

    def _next(self) -> list[QueueEntry]:
        there = queue.waiting(self._app, self._target)
        names = {entry.name for entry in there}
        free = [entry for entry in there if not names & (set(entry.after) - {entry.name})]
        # Entries that wait for each other wait for nothing.
        gated = free or there
        return [entry for entry in gated if entry.gate == gated[0].gate][:BATCH] if gated else []

    @contextlib.contextmanager
    def _marked(self, entries: Sequence[QueueEntry]) -> Iterator[None]:
        ids = [entry.id for entry in entries]
        with self._app.registry.transaction() as change:
            queue_rows.require_seat(change.connection, self._target, self._epoch)
            queue_rows.note_testing(change.connection, ids, testing=True)
        try:
            yield
        finally:
            with self._app.registry.transaction() as change:
                queue_rows.note_testing(change.connection, ids, testing=False)

    # -- one round

    def _round(self, entries: Sequence[QueueEntry]) -> None:
        base = offer.tip_of(self._app, self._target)
        self._built.clear()
        chain, left = self._chain(base, entries)
        for entry in left:
            self._hold_what_never_fits(base, entry)
        if not chain:
            return
        faults.point("queue.built")
        if not chain[0].entry.gate:
            self._land(base, chain, gated=False)
            return
        if not self._gates.is_there and self._app.settings.gate_required:
            for one in chain:
                self._hold(one.entry, required_but_missing(one.entry.name))
            return
        self._land_what_passes(base, chain)

    def _land_what_passes(self, base: str, chain: Sequence[Change]) -> None:
        tested: dict[tuple[int, ...], tuple[Sequence[Change], Judgement]] = {}

        def fails(selection: Sequence[int]) -> bool:
            found, left = self._chain(base, [chain[one].entry for one in selection])
            if left:
                return True
            tested[tuple(selection)] = found, self._judge(base, found)
            return tested[tuple(selection)][1].failed is not None

        try:
            landing_now, culprits = batches.settle(len(chain), fails, first_lands=self._app.settings.first_lands)
        except KhloneError as error:
            for one in chain:
                self._hold(one.entry, error)
            return
        for culprit in culprits:
            judgement = tested[tuple(culprit)][1] if tuple(culprit) in tested else None
            blamed = [chain[one].entry for one in culprit]
            self._blame(blamed, [chain[one].entry for one in culprit if one not in landing_now], judgement)
        if not landing_now:
            return
        # The very commits that the gates have seen.
        found, judgement = tested[tuple(landing_now)]
        if not judgement.verdicts and self._app.settings.gate_required:
            for one in found:
                self._hold(one.entry, required_but_missing(one.entry.name))
            return
        self._land(base, found, gated=bool(judgement.verdicts))

    def _judge(self, base: str, chain: Sequence[Change]) -> Judgement:
        names = ", ".join(one.entry.name for one in chain)
        last = chain[-1].candidate
        whole = values.replace(last, clone=names, old=base)
        events.note(self._app, "testing", target=self._target, oid=last.oid, clones=[one.entry.name for one in chain])
        self._app.told(f"testing {names} on {self._target} ({last.oid[:10]})")
        asked = [(journal.as_clone(one.clone, head=one.candidate.source), one.candidate) for one in chain]
        judgement = self._gates.judge(whole, asked)
        failed = judgement.failed
        for note in judgement.notes:
            self._app.told(note)
        events.note(
            self._app,
            "passed" if failed is None else "failed",
            target=self._target,
            oid=last.oid,
            clones=[one.entry.name for one in chain],
            gate=None if failed is None else failed.gate,
        )
        return judgement

    def _chain(self, base: str, entries: Sequence[QueueEntry]) -> tuple[list[Change], list[QueueEntry]]:
        """Each entry on top of those before it; and those that do not fit there."""
        tip, chain, left = base, [], []
        for entry in entries:
            try:
                change = self._build(tip, entry)
            except KhloneError:
                left.append(entry)
                continue
            chain.append(change)
            tip = change.candidate.oid
        return chain, left

    def _build(self, tip: str, entry: QueueEntry) -> Change:
        """An entry on top of a commit; asked again it is the very same, or the same error."""
        found = self._built.get((tip, entry.id))
        if found is None:
            clone = self._clone(entry)
            try:
                built = candidates.build(self._app, clone, self._target, tip, entry.source, entry.strategy)
                found = Change(entry=entry, clone=clone, candidate=built)
            except KhloneError as error:
                found = error
            self._built[tip, entry.id] = found
        if isinstance(found, KhloneError):
            raise found
        return found

    def _clone(self, entry: QueueEntry) -> CloneRecord:
        now = self._app.registry.clone_by_id(entry.clone)
        if now is not None:
            return now
        return journal.from_json(cast("Mapping[str, object]", json.loads(entry.record)), CloneState.READY)

    def _hold_what_never_fits(self, base: str, entry: QueueEntry) -> None:
        """Hold an entry that cannot land on the target as it is; what only stands behind another waits."""
        try:
            self._build(base, entry)
        except MergeConflict as error:
            error.facts["partners"] = self._partners(entry)
            self._hold(entry, error)
        except KhloneError as error:
            self._hold(entry, error)

    def _partners(self, entry: QueueEntry) -> list[str]:
        """Who of those that landed before it in this run does not go together with it."""
        found = []
        for other in self._landed:
            done = self._app.repository.git(
                "merge-tree", "--write-tree", "--name-only", "--no-messages", other.source, entry.source, check=False
            )
            if done.status == 1:
                found.append(other.name)
        return found

    def _blame(self, together: Sequence[QueueEntry], held: Sequence[QueueEntry], judgement: Judgement | None) -> None:
        """Hold entries that fail together with others."""
        verdict = None if judgement is None else judgement.failed
        if verdict is None:
            verdict = Verdict(passed=False, gate="merge", message="they do not go together")
        for entry in held:
            partners = [other.name for other in together if other.id != entry.id]
            self._hold(
                entry, GateFailed(entry.name, verdict.gate, verdict.message or "it did not pass", partners=partners)
            )

    def _hold(self, entry: QueueEntry, error: KhloneError) -> None:
        queue.explain(self._app, entry, error)

    # -- landing

    def _land(self, base: str, chain: Sequence[Change], *, gated: bool) -> None:
        try:
            with files.explained(self._app.location.common_dir):
                done = _land(self._app, self._target, base, chain, self._seat, self._epoch, gated=gated)
        except TargetDirty as error:
            self._hold_what_overlaps(chain, error)
            return
        except TargetInProgress as error:
            for one in chain:
                self._hold(one.entry, error)
            return
        except KhloneError as error:
            for one in chain:
                self._hold(one.entry, error)
            return
        if not done:
            self._lost += 1
            if self._lost >= MOST_LOST_RACES:
                for one in chain:
                    self._hold(one.entry, TargetMoved(self._target, self._lost))
            return
        self._lost = 0
        self._landed += [one.entry for one in chain]
        _after(self._app, self._target, base, chain, gated=gated)

    def _hold_what_overlaps(self, chain: Sequence[Change], error: TargetDirty) -> None:
        """Hold those whose own change meets local work in the target's checkout; the others are tried without them."""
        in_the_way = {str(path) for path in cast("list[object]", error.facts.get("paths") or [])}
        held = 0
        for one in chain:
            own = {change.path for change in landing.path_changes(self._app, one.candidate.old, one.candidate.oid)}
            if own & in_the_way:
                self._hold(one.entry, error)
                held += 1
        if not held:
            for one in chain:
                self._hold(one.entry, error)


def _land(
    app: App, target: str, base: str, chain: Sequence[Change], seat: HeldLock, epoch: int, *, gated: bool
) -> bool:
    """Move the target to the last of a chain; False when it is not at `base` any more."""
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


def _after(app: App, target: str, base: str, chain: Sequence[Change], *, gated: bool) -> None:
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
