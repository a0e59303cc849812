"""How does a session end when it is told to, and how is its end waited for?

Who sees the session through is told first: it ends all of it and records how. What still
lives after the grace is killed from here, and so is the rest of a session that nobody
sees through any more. A process is signalled only while it is the one that was recorded.
"""

from __future__ import annotations

import contextlib
import signal
import time

from khlone import sessions
from khlone.app import App
from khlone.errors import KhloneError, NoSuchSession, SessionFailed
from khlone.model import CloneRecord, ProcessIdentity
from khlone.operations import attending, isolation, names, standing, steering
from khlone.operations.standing import SessionReport
from khlone.profiles import AgentProfile
from khlone.registry import SessionRecord

STOPPED = "it was stopped"
#: How long the end of a session that was killed may take to be recorded, in seconds.
_RECORD_S = 10.0
#: How often a session is looked at whose supervisor cannot be waited for, in seconds.
_POLL_S = 0.2


def stop(app: App, clone: CloneRecord, *, grace_s: float = attending.GRACE_S) -> SessionReport:
    """End the session of a clone with all that it has started: TERM, a grace, KILL.

    Raises NoSuchSession where none lives, SessionFailed for one that lives on, or is out of sight.
    """
    record = standing.current(app, clone)
    if record is None:
        left = _end_left(app, clone, grace_s=grace_s)
        if left is None:
            others = _unmarked(clone)
            also = f"; {others} works there without one, and is nobody's to end but yours" if others else ""
            raise NoSuchSession(clone.name, f"has no session that runs{also}")
        _tell_of_unmarked(app, clone)
        return left
    place = sessions.out_of_sight(record.owner)
    if place is not None:
        raise SessionFailed(clone.name, f"it runs {place} and cannot be ended from here")
    with app.registry.transaction() as change:
        change.note_reason(record.id, STOPPED)
    deadline = time.monotonic() + grace_s
    told = [one for one in _who_sees_through(record) if _tell(one, signal.SIGTERM)]
    if not told:
        led = sessions.led_by(record.owner)
        steering.stop(clone, record.id, grace_s=grace_s)
        # What has no mark any more: only a subreaper would have it below itself.
        sessions.end_processes(led, grace_s=max(0.0, deadline - time.monotonic()))
    for one in told:
        sessions.await_end(one, max(0.0, deadline - time.monotonic()))
    if standing.may_live(record):
        steering.stop(clone, record.id, grace_s=0.0)
        for one in told:
            if not sessions.await_end(one, _RECORD_S):
                _tell(one, signal.SIGKILL)
                sessions.await_end(one, _RECORD_S)
    attending.end_marked(record.id)
    if not told:
        end_at_level(app, clone, record, None)
        _tell_of_unmarked(app, clone)
    now = standing.find(app, clone, record.id)
    if now.ended_at is None:
        if standing.may_live(now):
            raise SessionFailed(clone.name, f"pid {now.owner.pid} does not end")
        with app.registry.transaction() as change:
            change.end_session(record.id, standing.LOST, None, STOPPED)
    return standing.report(app, clone, standing.find(app, clone, record.id))


def _unmarked(clone: CloneRecord) -> str:
    """What works in a clone's worktree and bears no mark of a session, for people."""
    return names.listed([str(one) for one in sessions.processes_inside(clone.path)])


def _tell_of_unmarked(app: App, clone: CloneRecord) -> None:
    """After an end that nobody saw through: what may be left of it, as far as can be seen."""
    others = _unmarked(clone)
    if others:
        app.told(f"warning: {others} still works in {clone.name}, without the mark of a session: is it yours?")


def make_room(app: App, clone: CloneRecord) -> None:
    """Raise CloneBusy while the clone has a session; what one that was lost has left behind is ended."""
    with app.registry.transaction() as change:
        standing.require_free(change, clone)
    left = _end_left(app, clone, grace_s=attending.LEFT_GRACE_S)
    if left is not None:
        app.told(f"what session {left.id} of {clone.name} had left behind is ended")


def _end_left(app: App, clone: CloneRecord, *, grace_s: float) -> SessionReport | None:
    """End what the clone's last session has left behind that was lost, `None` where there is nothing."""
    known = app.registry.sessions(clone.id)
    if not known or known[0].state != standing.LOST or not steering.pids_of(clone, known[0].id):
        return None
    steering.stop(clone, known[0].id, grace_s=grace_s)
    end_at_level(app, clone, known[0], None)
    return standing.report(app, clone, known[0])


def end_at_level(app: App, clone: CloneRecord, record: SessionRecord, status: int | None) -> None:
    """End what the clone's level of isolation keeps running for a session whose supervisor was killed."""
    start = isolation.Start(
        clone=clone,
        command=record.command,
        argv=record.command,
        variables={},
        session=record.id,
        profile=AgentProfile(name=clone.agent or "generic"),
        is_foreground=False,
    )
    with contextlib.suppress(KhloneError):
        isolation.of(clone.isolation).ended(app, start, status)


def stop_all(app: App, clone: CloneRecord, *, only: str | None = None) -> list[SessionReport]:
    """End the session of a clone that has one, `only` that one; what cannot be ended is left to whoever asks."""
    record = standing.current(app, clone)
    if only is not None and (record is None or record.id != only):
        return []
    with contextlib.suppress(NoSuchSession, SessionFailed):
        return [stop(app, clone)]
    return []


def _who_sees_through(record: SessionRecord) -> list[ProcessIdentity]:
    """Who is to be told to end: the supervisor, or, while nothing of the session is there, who is to start it."""
    found = [] if record.supervisor is None else [record.supervisor]
    return found if record.state == "running" else [*found, record.owner]


def _tell(one: ProcessIdentity, number: int) -> bool:
    has_heard = sessions.send(one, number)
    # One that is paused would not hear of it.
    sessions.send(one, signal.SIGCONT)
    return has_heard


def wait(app: App, clone: CloneRecord, *, kind: str | None = None) -> SessionReport:
    """How the session of a clone ended, of that `kind`, or the last one where none lives; waits without a bound.

    Raises NoSuchSession.
    """
    record = standing.latest(app, clone, kind=kind)
    while record.ended_at is None:
        for one in (record.supervisor, record.owner):
            if one is not None and sessions.out_of_sight(one) is None:
                sessions.await_end(one, _POLL_S if record.supervisor is None else 60.0)
                break
        else:
            time.sleep(_POLL_S)
        standing.settle(app, clone)
        record = standing.find(app, clone, record.id)
    return standing.report(app, clone, record)
