"""How does a session stand: does it wait, run, has it ended, or was it lost?

A session is recorded as long as it lives, and whoever sees it through records its end.
Where that was killed, or the machine was restarted, the next command that looks at
sessions does: a session is lost only when neither its process nor its supervisor can
still be alive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from khlone import sessions
from khlone.app import App
from khlone.errors import CloneBusy, KhloneError, NoSuchSession
from khlone.model import CloneRecord, Session
from khlone.records import EXEC
from khlone.registry import SessionRecord, Transaction
from khlone.values import dataclass

WAITING, LOST, FAILED = "waiting", "lost", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """A session of a clone as its verbs tell of it; once it has ended by itself, `exit` or `signal` says how.

    `state` is waiting, starting, running, `exit N`, `signal N`, lost or failed (it never
    came to be). `reason` says more: what it waits for, or who or what has ended it.
    """

    id: str
    name: str
    kind: str
    state: str
    pid: int
    command: Sequence[str]
    started_at: str
    ended_at: str | None
    exit: int | None
    signal: int | None
    reason: str | None
    log: Path | None

    @property
    def code(self) -> int:
        """The exit code of a command that ends as the session did; 1 for one whose end is not known."""
        return self.exit if self.exit is not None else 128 + self.signal if self.signal is not None else 1


def ended_as(status: int | None) -> str:
    """The state of a session that has ended with that status, negative for a signal; `None` is not known."""
    return LOST if status is None else f"signal {-status}" if status < 0 else f"exit {status}"


def may_live(record: SessionRecord) -> bool:
    """Whether a session may still be alive, or its end still be recorded by who sees it through."""
    supervisor = record.supervisor
    return sessions.may_live(record.owner) or (supervisor is not None and sessions.may_live(supervisor))


def state_of(record: SessionRecord) -> str:
    """The state of a session now."""
    return record.state if record.ended_at is not None or may_live(record) else LOST


def _as_it_is(app: App, record: SessionRecord) -> SessionRecord:
    """The record, read again where nobody lives any more: they may have recorded the end since it was read."""
    if record.ended_at is not None or may_live(record):
        return record
    return next((one for one in app.registry.sessions(record.clone_id) if one.id == record.id), record)


def why_lost(record: SessionRecord) -> str:
    """What has become of a session that is lost, for people."""
    boot = sessions.boot_id()
    if record.owner.boot_id is not None and boot is not None and record.owner.boot_id != boot:
        return "the machine was restarted"
    if sessions.out_of_sight(record.owner) is not None:
        return "the container that it ran in is gone"
    return (
        "its supervisor was killed" if record.supervisor is not None else "the command that had started it was killed"
    )


def settle(app: App, clone: CloneRecord) -> None:
    """Record the end of the clone's sessions that are lost."""
    lost = [one for one in app.registry.live_sessions(clone.id) if not may_live(one)]
    if lost:
        with app.registry.transaction() as change:
            for one in lost:
                change.end_session(one.id, LOST, None, why_lost(one))


def require_free(change: Transaction, clone: CloneRecord) -> None:
    """Raise CloneBusy while the clone has a session, single commands aside; one that is lost is recorded as that."""
    for one in change.live_sessions(clone.id):
        if one.kind == EXEC:
            continue
        if may_live(one):
            raise CloneBusy(clone.name, f"session {one.id}, {one.state}, pid {one.owner.pid}: {' '.join(one.command)}")
        change.end_session(one.id, LOST, None, why_lost(one))


def current(app: App, clone: CloneRecord) -> SessionRecord | None:
    """The session of a clone that has not ended, `None` where there is none."""
    settle(app, clone)
    return next((one for one in app.registry.sessions(clone.id) if one.ended_at is None), None)


def latest(app: App, clone: CloneRecord, *, kind: str | None = None) -> SessionRecord:
    """The session of a clone that lives, of that `kind`, else the one that was last; raises NoSuchSession."""
    settle(app, clone)
    found = [one for one in app.registry.sessions(clone.id) if kind in (None, one.kind)]
    if not found:
        if kind is not None:
            raise NoSuchSession(clone.name, "was not asked anything yet", answer=True)
        raise NoSuchSession(clone.name)
    return next((one for one in found if one.ended_at is None), found[0])


def find(app: App, clone: CloneRecord, session_id: str) -> SessionRecord:
    """A session by its id; raises NoSuchSession."""
    for one in app.registry.sessions(clone.id):
        if one.id == session_id:
            return one
    raise NoSuchSession(clone.name)


def as_live(
    app: App,
    record: SessionRecord,
    *,
    rss_bytes: int | None = None,
    pss_bytes: int | None = None,
    cpu_percent: float | None = None,
) -> Session | None:
    """The session beside its clone, `None` once its end is recorded, which it may be since the record was read."""
    found = as_session(app, record, rss_bytes=rss_bytes, pss_bytes=pss_bytes, cpu_percent=cpu_percent)
    if found.state == LOST and all(one.id != record.id for one in app.registry.live_sessions(record.clone_id)):
        return None
    return found


def as_session(
    app: App,
    record: SessionRecord,
    *,
    rss_bytes: int | None = None,
    pss_bytes: int | None = None,
    cpu_percent: float | None = None,
) -> Session:
    """The session as it stands beside its clone, with what it uses where that was measured."""
    state = state_of(record)
    return Session(
        id=record.id,
        pid=record.owner.pid,
        state=state,
        command=record.command,
        started_at=record.started_at,
        rss_bytes=rss_bytes,
        pss_bytes=pss_bytes,
        cpu_percent=cpu_percent,
        log=None if record.log is None else Path(record.log),
        reason=_reason(app, record, state),
    )


def _reason(app: App, record: SessionRecord, state: str) -> str | None:
    if state == WAITING:
        return place_in_line(app, record)
    return why_lost(record) if state == LOST and record.reason is None else record.reason


def report(app: App, clone: CloneRecord, record: SessionRecord) -> SessionReport:
    """The session as its verbs tell of it."""
    record = _as_it_is(app, record)
    state, status = state_of(record), record.status
    return SessionReport(
        id=record.id,
        name=clone.name,
        kind=record.kind,
        state=state,
        pid=record.owner.pid,
        command=record.command,
        started_at=record.started_at,
        ended_at=record.ended_at,
        exit=status if status is not None and status >= 0 else None,
        signal=-status if status is not None and status < 0 else None,
        reason=_reason(app, record, state),
        log=None if record.log is None else Path(record.log),
    )


def place_in_line(app: App, record: SessionRecord) -> str | None:
    """The place in line of a session that waits, and what for, for people."""
    from khlone.operations import turns

    with contextlib.suppress(KhloneError):
        machine = turns.open_machine(app.environment, app.told, make=False)
        try:
            leases = machine.leases() if machine.exists else []
        finally:
            machine.close()
        lease = next((one for one in leases if one.session == record.id), None)
        if lease is not None and lease.state == WAITING:
            at, of = turns.position(lease, leases)
            return f"number {at} of {of} in line: {lease.reason or 'it is its turn'}"
    return record.reason
