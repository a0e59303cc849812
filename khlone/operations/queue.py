"""How does a commit get in line for its target, and out again? The one who drives is `sequencer`.

An entry pins its commit under `refs/khlone/queue/<id>`: what is committed later, a clone
that is removed, or a collection change nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Sequence

from khlone import faults, files, queue_rows
from khlone.app import App
from khlone.errors import EntryLanding, Interrupted, KhloneError, NoSuchEntry, QueuePaused
from khlone.model import CloneRecord, utc_now
from khlone.operations import events, journal, offer, recovery, submodules
from khlone.operations.gates import Gates
from khlone.records import QueueEntry, QueueState
from khlone.repository import RefUpdate, null_oid

_REFS = "refs/khlone/queue/"
_CANDIDATES = "refs/khlone/candidates/"
#: Seconds between looks at entries that another process lands.
_POLL_S = 0.2


def seat_of(target: str) -> str:
    """The name of the operation lock that the driver of a target's queue holds."""
    return f"queue-{hashlib.sha256(target.encode(errors='surrogateescape')).hexdigest()[:16]}"


# -- in and out --------------------------------------------------------------------------------


def add(app: App, clone: CloneRecord, target: str, request: offer.MergeRequest) -> tuple[QueueEntry, bool]:
    """Put what a clone offers in line; an entry of it that waits for the same target is superseded.

    One that says the very same is returned as it is, with False: it keeps its place, and
    whoever waits for it learns how it ends.

    Raises what keeps it from landing at all: CloneBusy, CloneNotReady, CloneDirty,
    HeadElsewhere, or the Refusal of a plugin.
    """
    with journal.held(app, clone.id, clone.name) as lock:
        current, source = offer.prepare(app, clone, target, None, request)
        submodules.hand_over(app, current, lock)
        entry = QueueEntry(
            id=journal.new_operation_id(),
            clone=current.id,
            name=current.name,
            target=target,
            source=source,
            strategy=request.strategy,
            gate=request.gate,
            remove=request.remove,
            priority=request.priority,
            after=tuple(request.after),
            penalty=0,
            state=QueueState.WAITING,
            queued_at=utc_now(),
            record=json.dumps(journal.to_json(current)),
            push=offer.is_pushed(app, request),
            verify=request.verify,
        )
        with app.registry.transaction() as change:
            alike = queue_rows.find_alike(change.connection, entry)
            old = [] if alike is not None else queue_rows.add(change.connection, entry)
        if alike is not None:
            return alike, False
        faults.point("queue.added")
        _pin(app, [entry])
        faults.point("queue.pinned")
    drop_pins(app, old)
    events.note(app, "queued", entry=entry.id, clone=entry.name, target=target, oid=source)
    return entry, True


def remove(app: App, wanted: Sequence[str]) -> list[QueueEntry]:
    """Take entries out of line, by id or by the name of their clone, as it was then or is now.

    Raises NoSuchEntry, and EntryLanding for what is landing at this moment, before any is.
    """
    if app.has_registry:
        recovery.recover(app)
    there = waiting(app)
    found: list[QueueEntry] = []
    for word in wanted:
        clone = app.registry.clone(word) if there else None
        named = [entry for entry in there if word in (entry.id, entry.name) or (clone and entry.clone == clone.id)]
        if not named:
            raise NoSuchEntry(word)
        found += [entry for entry in named if entry not in found]
    return _take_out(app, found, all_or_none=True)


def _take_out(app: App, entries: Sequence[QueueEntry], *, all_or_none: bool) -> list[QueueEntry]:
    """Take out what can be; raises EntryLanding for what cannot, where it is to be all or none."""
    with app.registry.transaction() as change:
        landing = queue_rows.landing(change.connection)
        for entry in entries:
            if all_or_none and entry.id in landing:
                raise EntryLanding(entry.name, entry.target)
        ended = [
            entry.id
            for entry in entries
            if entry.id not in landing and queue_rows.end(change.connection, entry.id, QueueState.REMOVED)
        ]
    gone = by_id(app, ended)
    drop_pins(app, gone)
    for entry in gone:
        events.note(app, "removed", entry=entry.id, clone=entry.name, target=entry.target)
    return gone


def waiting(app: App, target: str | None = None) -> list[QueueEntry]:
    """What has not landed, nor been held, in the order in which it would be tried."""
    if not app.has_registry:
        return []
    with app.registry.reading() as connection:
        return queue_rows.waiting(connection, target)


def ended(app: App, limit: int) -> list[QueueEntry]:
    """How the last entries ended, the newest first."""
    if not app.has_registry:
        return []
    with app.registry.reading() as connection:
        found = queue_rows.select(connection, "ended_at IS NOT NULL")
    return sorted(found, key=lambda entry: str(entry.ended_at), reverse=True)[:limit]


def by_id(app: App, ids: Sequence[str]) -> list[QueueEntry]:
    """These entries, ended or not, in the order that is given."""
    with app.registry.reading() as connection:
        found = {
            entry.id: entry for entry in queue_rows.select(connection, f"id IN ({', '.join('?' * len(ids))})", ids)
        }
    return [found[one] for one in ids if one in found]


def is_paused(app: App, target: str) -> bool:
    """Whether nothing lands on the target through its queue."""
    with app.registry.reading() as connection:
        return queue_rows.is_paused(connection, target)


def paused(app: App) -> list[str]:
    """The targets whose queues rest."""
    if not app.has_registry:
        return []
    with app.registry.reading() as connection:
        return queue_rows.paused_targets(connection)


def pause(app: App, target: str, *, pause: bool) -> None:
    """Let nothing land any more, or again; what is being tested still does."""
    with app.registry.transaction() as change:
        queue_rows.set_paused(change.connection, target, paused=pause)
    events.note(app, "paused" if pause else "resumed", target=target)


def drop_pins(app: App, entries: Iterable[QueueEntry]) -> None:
    """Let go of commits whose entries have ended."""
    gone = [RefUpdate(ref=_REFS + entry.id, new=null_oid(entry.source), old=entry.source) for entry in entries]
    if gone and app.repository.update_refs(gone, reason="khlone: queue", check=False).status != 0 and len(gone) > 1:
        # All or none: one that is not there any more must not keep the others.
        for one in gone:
            app.repository.update_refs([one], reason="khlone: queue", check=False)


def _pin(app: App, entries: Iterable[QueueEntry]) -> None:
    for entry in entries:
        wanted = RefUpdate(ref=_REFS + entry.id, new=entry.source, old=null_oid(entry.source))
        app.repository.update_refs([wanted], reason="khlone: queue", check=False)


def mend_pins(app: App) -> None:
    """Pin what waits and let go of the rest, where a killed process did not.

    An entry is there before its pin, so a pin without one is nobody's.
    """
    listed = app.repository.git("for-each-ref", "--format=%(refname) %(objectname)", _REFS).text.split("\n")
    there = dict(line.removeprefix(_REFS).split(" ") for line in filter(None, listed))
    live = {entry.id: entry for entry in waiting(app)}
    for entry_id, oid in there.items():
        if entry_id not in live:
            gone = RefUpdate(ref=_REFS + entry_id, new=null_oid(oid), old=oid)
            app.repository.update_refs([gone], reason="khlone: queue", check=False)
    _pin(app, [entry for entry in live.values() if entry.id not in there])


def pin_candidate(app: App, target: str, oid: str, *, check: bool) -> bool:
    """Keep a commit from collection while gates look at it, until `drop_candidates`.

    False where it cannot be, as when it is gone already; with `check` that raises GitFailed.
    """
    fresh = RefUpdate(ref=f"{_CANDIDATES}{seat_of(target)}/{oid}", new=oid, old=null_oid(oid))
    return app.repository.update_refs([fresh], reason="khlone: candidate", check=check).status == 0


def drop_candidates(app: App, seat: str) -> None:
    """Let go of what was pinned for the gates of a target; its seat is held."""
    listed = app.repository.git("for-each-ref", "--format=%(refname) %(objectname)", _CANDIDATES + seat)
    found = (line.split(" ") for line in listed.text.splitlines())
    gone = [RefUpdate(ref=ref, new=null_oid(oid), old=oid) for ref, oid in found]
    if gone:
        app.repository.update_refs(gone, reason="khlone: candidate", check=False)


def drop_left_candidates(app: App) -> None:
    """Let go of what killed drivers had pinned, of every target that nobody drives."""
    listed = app.repository.git("for-each-ref", "--format=%(refname)", _CANDIDATES)
    for seat in sorted({ref.removeprefix(_CANDIDATES).partition("/")[0] for ref in listed.text.splitlines()}):
        lock = app.locks.try_operation(seat)
        if lock is not None:
            try:
                drop_candidates(app, seat)
            finally:
                lock.release()


# -- until they have landed --------------------------------------------------------------------


def settle(app: App, target: str, entries: Sequence[tuple[QueueEntry, bool]], gates: Gates) -> list[QueueEntry]:
    """See to it that entries land or are held, and return what became of them.

    Whoever finds the seat free drives the queue for all; the others wait. An interruption
    takes those out of line that were put there for this, as `add` says. Raises QueuePaused,
    with the entries left in line.
    """
    from khlone.operations import sequencer

    ids, own = [entry.id for entry, _ in entries], [entry.id for entry, is_new in entries if is_new]
    told = False
    try:
        while True:
            found = by_id(app, ids)
            if all(entry.ended_at is not None for entry in found):
                return found
            if is_paused(app, target):
                raise QueuePaused(target)
            if sequencer.drive(app, target, gates):
                continue
            if not told:
                told = True
                app.told(f"waiting in the queue of {target}, driven by {app.locks.operation_holder(seat_of(target))}")
            time.sleep(_POLL_S)
    except (KeyboardInterrupt, Interrupted):
        _take_out(app, [entry for entry in by_id(app, own) if entry.ended_at is None], all_or_none=False)
        raise


def see_through(app: App, ids: Collection[str]) -> None:
    """Return when these entries have ended: land them where nobody does, and wait while their queue rests."""

    told: set[str] = set()
    while pending := [entry for entry in waiting(app) if entry.id in ids]:
        for target in sorted({entry.target for entry in pending}):
            try:
                if run(app, target):
                    continue
                why = f"waiting in the queue of {target}, driven by {app.locks.operation_holder(seat_of(target))}"
            except QueuePaused:
                why = f"the queue of {target} rests: git khlone queue resume --into {target}"
            if target not in told:
                told.add(target)
                app.told(why)
            time.sleep(_POLL_S)


def in_order(entries: Sequence[QueueEntry]) -> list[QueueEntry]:
    """Entries in the order in which a queue takes them: each behind what it is to wait for."""
    left, found = list(entries), []
    while left:
        names = {(entry.target, entry.name) for entry in left}
        free = [one for one in left if not names & {(one.target, name) for name in one.after if name != one.name}]
        # Entries that wait for each other wait for nothing.
        taken = free or left
        found += taken
        left = [entry for entry in left if entry not in taken]
    return found


def run(app: App, target: str) -> bool:
    """Drive a target's queue until nothing waits; False when another process does."""
    from khlone.operations import sequencer

    app.prepare_state()
    recovery.recover(app)
    if is_paused(app, target):
        raise QueuePaused(target)
    return sequencer.drive(app, target, Gates(app))


def explain(app: App, entry: QueueEntry, error: KhloneError, *, epoch: int, notes: Sequence[str] = ()) -> None:
    """Note why an entry cannot land, if it is in line still; raises SeatLost where another drives the queue now."""
    with app.registry.transaction() as change, files.explained(app.location.common_dir):
        queue_rows.require_seat(change.connection, entry.target, epoch)
        held = queue_rows.end(
            change.connection,
            entry.id,
            QueueState.HELD,
            code=error.code,
            exit_code=error.exit_code,
            message=error.message,
            hint=error.hint,
            paths=error.listed("paths"),
            partners=error.listed("partners"),
            notes=notes,
        )
    if not held:
        return
    drop_pins(app, [entry])
    events.note(app, "held", entry=entry.id, clone=entry.name, target=entry.target, code=error.code)
