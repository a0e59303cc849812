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
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from khlone import faults, files, queue_rows, queue_watch, values
from khlone.app import App
from khlone.errors import (
    GateFailed,
    KhloneError,
    LockLost,
    MergeConflict,
    NothingToMerge,
    SeatLost,
    TargetDirty,
    TargetMoved,
)
from khlone.model import (
    Candidate,
    Clone,
    CloneRecord,
    CloneState,
    Verdict,
)
from khlone.operations import (
    approval,
    batches,
    candidates,
    events,
    journal,
    landed,
    landing,
    look_ahead,
    offer,
    queue,
    queue_landing,
    queue_recovery,
    scratch,
    upstream,
)
from khlone.operations.gates import Gates, Judgement, required_but_missing
from khlone.operations.queue_landing import Change, Seat
from khlone.operations.upstream import Upstream
from khlone.records import QueueEntry

#: Entries that are tested as one.
BATCH = 32
#: Another drives the queue: nothing is written any more, and nobody held.
_LOST_SEAT = (SeatLost, LockLost)
#: A target that moved so often in a row while gates ran is left to the others.
MOST_LOST_RACES = 50


def drive(app: App, target: str, gates: Gates) -> bool:
    """Land or hold everything that waits for a target; False, with nothing done, when another process does."""
    seat = app.locks.try_operation(queue.seat_of(target))
    if seat is None:
        return False
    try:
        for operation in app.registry.open_operations():
            if operation.clone_id == queue.seat_of(target):
                for line in queue_recovery.recover(app, operation, seat, ask=True):
                    app.told(f"recovered: {line}")
        with app.registry.transaction() as change:
            epoch = queue_rows.take_seat(change.connection, target)
        queue.mend_pins(app)
        queue.drop_candidates(app, queue.seat_of(target))
        scratch.end_left(app)
        _Driver(app, gates, Seat(target=target, lock=seat, epoch=epoch)).run()
    finally:
        seat.release()
    return True


class _Collected(Exception):
    """A candidate was collected before it was pinned."""


class _Driver:
    """Drives one queue while it holds the seat."""

    def __init__(self, app: App, gates: Gates, seat: Seat) -> None:
        self._app, self._target, self._gates, self._seat = app, seat.target, gates, seat
        self._there: Upstream | None = None
        self._watched = queue_watch.Watched(seat.target)
        self._landed: list[QueueEntry] = []
        self._built: dict[tuple[str, str], Change | KhloneError] = {}
        self._pins: set[str] = set()
        self._lost = 0

    def run(self) -> None:
        """Until nothing waits, or the queue is paused."""
        while not queue.is_paused(self._app, self._target):
            entries = self._next()
            if not entries:
                return
            self._watched.begin_round(len(queue.waiting(self._app, self._target)))
            self._app.watch(self._watched.look)
            with self._marked(entries), self._pinned(), contextlib.suppress(_Collected):
                self._round(entries)

    def _next(self) -> list[QueueEntry]:
        there = queue.waiting(self._app, self._target)
        names = {entry.name for entry in there}
        free = [entry for entry in there if not names & (set(entry.after) - {entry.name})]
        # Entries that wait for each other wait for nothing.
        gated = free or there
        most = 1 if self._app.settings.merge_mode == "serial" else BATCH
        apart = self._gates.tell_strategies_apart
        kinds = [(entry.gate, entry.push, (entry.strategy, entry.verify) if apart else None) for entry in gated]
        return [entry for entry, kind in zip(gated, kinds, strict=True) if kind == kinds[0]][:most]

    @contextlib.contextmanager
    def _marked(self, entries: Sequence[QueueEntry]) -> Iterator[None]:
        ids = [entry.id for entry in entries]
        with self._app.registry.transaction() as change:
            queue_rows.require_seat(change.connection, self._target, self._seat.epoch)
            queue_rows.note_testing(change.connection, ids, testing=True)
        try:
            yield
        finally:
            with self._app.registry.transaction() as change:
                queue_rows.note_testing(change.connection, ids, testing=False)

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        """What is tested in the block stays until its end, whatever is collected meanwhile."""
        self._pins.clear()
        try:
            yield
        finally:
            if self._pins:
                queue.drop_candidates(self._app, queue.seat_of(self._target))

    def _pin(self, chain: Sequence[Change]) -> None:
        oid = chain[-1].candidate.oid
        if oid not in self._pins:
            surely = self._lost >= MOST_LOST_RACES
            if not queue.pin_candidate(self._app, self._target, oid, check=surely):
                self._lost += 1
                raise _Collected
            self._pins.add(oid)
            faults.point("queue.candidate-pinned")

    # -- one round

    def _round(self, entries: Sequence[QueueEntry]) -> None:
        base = self._begin(entries)
        if base is None:
            return
        self._built.clear()
        chain, left = self._chain(base, entries)
        for entry in left:
            self._hold_what_never_fits(base, entry)
        if not chain:
            return
        faults.point("queue.built")
        if not chain[0].entry.gate or not self._gates.is_there:
            if not self._app.settings.gate_required:
                self._land(base, chain, gated=False)
                return
            for one in chain:
                self._hold(one.entry, required_but_missing(one.entry.name, left_out=not one.entry.gate))
            return
        if self._app.settings.merge_mode == "speculative":
            self._land_as_they_pass(base, chain)
        else:
            self._land_what_passes(base, chain)

    def _begin(self, entries: Sequence[QueueEntry]) -> str | None:
        """Where the target is, with what its upstream has where that is to have what lands; `None`: all are held."""
        base = offer.tip_of(self._app, self._target)
        self._there = None
        if not entries[0].push:
            return base
        try:
            self._there = upstream.require(self._app, self._target)
            return queue_landing.catch_up(self._app, self._seat, base, self._there)
        except _LOST_SEAT:
            raise
        except TargetMoved as error:
            self._lose(entries, error)
        except KhloneError as error:
            for entry in entries:
                self._hold(entry, error)
        return None

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
        except _LOST_SEAT:
            raise
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
        self._land(base, found, gated=bool(judgement.verdicts), notes=judgement.notes)

    def _land_as_they_pass(self, base: str, chain: Sequence[Change]) -> None:
        """Test several ahead, each on top of those before it, and land each once all before it have."""
        rows = [chain[: number + 1] for number in range(len(chain))]
        wholes = [_whole(base, row) for row in rows]
        _ = self._gates.commands  # What cannot be understood is raised here, by one thread.
        self._pin(chain)
        for row in rows:
            self._note_testing(row)
        answers = look_ahead.judged(
            len(chain),
            lambda number, given_up: self._gates.run_commands(
                wholes[number], given_up=given_up, begun=lambda gate: self._watched.gate(wholes[number].oid, gate)
            ),
            at_once=look_ahead.width(self._app.settings.merge_window, self._app.settings.merge_memory),
        )
        with contextlib.closing(answers):
            for number, by_commands in answers:
                row, one = rows[number], chain[number]
                judgement = self._gates.with_plugins(by_commands, [_asked(one)])
                self._note_judged(row, judgement)
                if judgement.failed is not None:
                    self._blame_last(base, row, judgement)
                    return
                if not judgement.verdicts and self._app.settings.gate_required:
                    self._hold(one.entry, required_but_missing(one.entry.name))
                    return
                before = chain[number - 1].candidate.oid if number else base
                if not self._land(before, [one], gated=bool(judgement.verdicts), notes=judgement.notes):
                    return

    def _blame_last(self, base: str, row: Sequence[Change], judgement: Judgement) -> None:
        """Hold the last of a row that passes without it, and name those before it with which alone it fails."""

        def fails(selection: Sequence[int]) -> bool:
            if len(selection) == len(row):
                return True
            found, left = self._chain(base, [row[one].entry for one in selection])
            return bool(left) or self._judge(base, found).failed is not None

        together = batches.minimal(range(len(row)), fails) if len(row) > 1 else [0]
        self._blame([row[one].entry for one in together], [row[-1].entry], judgement)

    def _judge(self, base: str, chain: Sequence[Change]) -> Judgement:
        self._pin(chain)
        self._note_testing(chain)
        whole = _whole(base, chain)
        judgement = self._gates.judge(
            whole, [_asked(one) for one in chain], begun=lambda gate: self._watched.gate(whole.oid, gate)
        )
        self._note_judged(chain, judgement)
        return judgement

    def _note_testing(self, chain: Sequence[Change]) -> None:
        oid, names = chain[-1].candidate.oid, [one.entry.name for one in chain]
        events.note(self._app, "testing", target=self._target, oid=oid, clones=names)
        self._watched.testing(oid, names)
        self._tell(f"testing {', '.join(names)} on {self._target} ({oid[:10]})")

    def _tell(self, *lines: str) -> None:
        """Say something, and go on showing how the queue stands."""
        for line in lines:
            self._app.told(line)
        self._app.watch(self._watched.look)

    def _note_judged(self, chain: Sequence[Change], judgement: Judgement) -> None:
        failed = judgement.failed
        oid, names = chain[-1].candidate.oid, [one.entry.name for one in chain]
        self._watched.judged(oid, names, None if failed is None else failed.gate)
        refused = [] if failed is None else [f"gate {failed.gate!r} refused {', '.join(names)} ({oid[:10]})"]
        self._tell(*judgement.notes, *refused)
        events.note(
            self._app,
            "passed" if failed is None else "failed",
            target=self._target,
            oid=oid,
            clones=names,
            gate=None if failed is None else failed.gate,
        )

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
                approval.require(self._app, clone, entry.source)
                built = candidates.build(
                    self._app, clone, self._target, tip, entry.source, entry.strategy, verify=entry.verify
                )
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
        return candidates.clashing(self._app, entry.source, [(other.name, other.source) for other in self._landed])

    def _blame(self, together: Sequence[QueueEntry], held: Sequence[QueueEntry], judgement: Judgement | None) -> None:
        """Hold entries that fail together with others."""
        verdict = None if judgement is None else judgement.failed
        if verdict is None:
            verdict = Verdict(passed=False, gate="merge", message="they do not go together")
        for entry in held:
            partners = [other.name for other in together if other.id != entry.id]
            error = GateFailed(entry.name, verdict.gate, verdict.message or "it did not pass", partners=partners)
            self._hold(entry, error, notes=() if judgement is None else judgement.notes)

    def _hold(self, entry: QueueEntry, error: KhloneError, *, notes: Sequence[str] = ()) -> None:
        queue.explain(self._app, entry, error, epoch=self._seat.epoch, notes=notes)
        if isinstance(error, NothingToMerge):
            landed.note(self._app, entry.clone, self._target)
        partners = error.listed("partners")
        self._watched.held(entry.name, f"{error.code}{' with ' if partners else ''}{', '.join(partners)}")

    # -- landing

    def _land(self, base: str, chain: Sequence[Change], *, gated: bool, notes: Sequence[str] = ()) -> bool:
        """Move the target; False where it moved meanwhile, or something keeps it from moving."""
        self._pin(chain)
        if not self._are_approved_still(chain):
            return False
        try:
            with files.explained(self._app.location.common_dir):
                done = queue_landing.land(
                    self._app, self._seat, base, chain, gated=gated, notes=notes, there=self._there
                )
        except _LOST_SEAT:
            raise
        except TargetDirty as error:
            self._hold_what_overlaps(chain, error)
            return False
        except KhloneError as error:
            for one in chain:
                self._hold(one.entry, error)
            return False
        if not done:
            self._lose([one.entry for one in chain], TargetMoved(self._target, self._lost + 1))
            return False
        self._lost = 0
        self._landed += [one.entry for one in chain]
        self._watched.landed(len(chain))
        queue_landing.tell(self._app, self._target, base, chain, gated=gated, there=self._there)
        return True

    def _are_approved_still(self, chain: Sequence[Change]) -> bool:
        """Whether nobody took an approval back while gates ran; those without are held."""
        found = True
        for one in chain:
            try:
                approval.require(self._app, one.clone, one.entry.source)
            except KhloneError as error:
                found = False
                self._hold(one.entry, error)
        return found

    def _lose(self, entries: Sequence[QueueEntry], error: TargetMoved) -> None:
        """Count a race that was lost; after many of them in a row the others go first."""
        self._lost += 1
        if self._lost >= MOST_LOST_RACES:
            for entry in entries:
                self._hold(entry, error)

    def _hold_what_overlaps(self, chain: Sequence[Change], error: TargetDirty) -> None:
        """Hold those whose own change meets local work in the target's checkout; the others are tried without them."""
        in_the_way = set(error.listed("paths"))
        held = 0
        for one in chain:
            own = {change.path for change in landing.path_changes(self._app, one.candidate.old, one.candidate.oid)}
            if own & in_the_way:
                self._hold(one.entry, error)
                held += 1
        if not held:
            for one in chain:
                self._hold(one.entry, error)


def _whole(base: str, chain: Sequence[Change]) -> Candidate:
    """A chain as the one candidate that a gate looks at."""
    return values.replace(chain[-1].candidate, clone=", ".join(one.entry.name for one in chain), old=base)


def _asked(one: Change) -> tuple[Clone, Candidate]:
    """A change as plugins are asked about it."""
    return journal.as_clone(one.clone, head=one.candidate.source), one.candidate
