"""How is a command got ready to start in a clone, and recorded from its start to its end?

Everything that plugins and the clone's level of isolation have a word in is decided
before it waits for its turn; that it started, and how it ended, is written down by whoever
started it, and plugins are told.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import process, sessions, signals, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, CommandNotFound, Interrupted, KhloneError, OverLimit
from khlone.model import Clone, CloneRecord, Demand, Session, utc_now
from khlone.operations import (
    admission,
    attending,
    boot_gate,
    environment,
    isolation,
    journal,
    logins,
    minding,
    spending,
    standing,
    undo,
    watching,
)
from khlone.operations.bounds import NO_BOUNDS, Bounds, enforced
from khlone.profiles import AgentProfile
from khlone.registry import SessionRecord
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A command that may be started in a clone: everything that plugins have a word in is decided."""

    clone: CloneRecord
    level: isolation.Level
    #: The command as it was asked for, and the process that runs it at that level.
    asked: isolation.Start
    start: isolation.Start
    session: SessionRecord
    #: The agent that it is, where it is the clone's own.
    agent: AgentProfile | None
    #: How many dollars it may cost.
    allowance: spending.Allowance | None = None


def prepare(
    app: App,
    clone: CloneRecord,
    command: Sequence[str],
    *,
    is_foreground: bool = False,
    max_cost_usd: float | None = None,
) -> Prepared:
    """Decide all that is to be known before a command starts; raises what keeps it from starting in that clone."""
    if not worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
    watching.pace_of(app.settings)  # Raises here what must not be raised once it runs.
    view = journal.as_clone(clone)
    level = isolation.of(clone.isolation)
    level.require(app)
    profile, known = environment.profiles_of(app, clone)
    agent = profile if environment.is_agent(profile, command) else None
    allowed = spending.allowance(app, clone, agent, max_cost_usd)
    _require_room(app, view, command)
    app.plugins.pre_spawn(view, tuple(command))
    argv = app.plugins.spawn_command(view, tuple(command))
    session = SessionRecord(
        id=journal.new_operation_id(),
        clone_id=clone.id,
        owner=sessions.identity(),
        state="starting",
        command=tuple(argv),
        started_at=utc_now(),
    )
    level.prepare(app, clone)
    variables = environment.complete(app, clone, session_id=session.id, command=argv, profile=profile, known=known)
    asked = isolation.Start(
        clone=clone,
        command=argv,
        argv=(_found(argv[0], variables, clone.path), *argv[1:]),
        variables=variables,
        session=session.id,
        profile=profile,
        is_foreground=is_foreground,
    )
    return Prepared(
        clone=clone,
        level=level,
        asked=asked,
        start=level.wrap(app, asked),
        session=session,
        agent=agent,
        allowance=allowed,
    )


def _require_room(app: App, clone: Clone, command: Sequence[str]) -> None:
    """Raise NotAdmitted, or what a plugin says instead, while plugins see no room for one more session."""
    if app.plugins.has("khlone_admit"):
        known = app.registry.live_sessions()
        live = sum(one.state != standing.WAITING and standing.may_live(one) for one in known)
        app.plugins.admit(clone, Demand(command=tuple(command), live_sessions=live))


def request_of(prepared: Prepared, *, light: bool, wait: bool) -> admission.Request:
    """What is asked for of the machine; a `light` one counts, and asks for no memory."""
    clone, agent = prepared.clone, prepared.agent
    login = None if agent is None else logins.login_of(agent, prepared.asked.variables)
    return admission.Request(
        clone=clone.id,
        name=clone.name,
        path=clone.path,
        kind=admission.COMMAND if agent is None else agent.name,
        session=prepared.session.id,
        light=light,
        wait=wait,
        credential=None if login is None else login.credential,
    )


# -- as a recorded session -----------------------------------------------------------------


class Running:
    """A session from the moment it is recorded to its end; `started` and `status` are filled in on the way."""

    def __init__(self, app: App, prepared: Prepared, place: admission.Place) -> None:
        self._app, self._prepared, self._place = app, prepared, place
        self._pid = prepared.session.owner.pid
        self.mind = minding.Minded(
            app,
            prepared.clone,
            prepared.agent,
            session=prepared.session.id,
            variables=prepared.asked.variables,
            place=place,
        )
        #: Whether its output is read by nobody, so that what it used is in its session files alone.
        self.reads_files = False
        self.status: int | None = None
        self._is_there = False

    def started(self, pid: int) -> None:
        """The process is there: record which one, and tell plugins."""
        self._pid, self._is_there = pid, True
        process.offer_to_oom_killer(pid)
        self._place.started(pid)
        with self._app.registry.transaction() as change:
            change.note_session_process(self._prepared.session.id, sessions.identity(pid))
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(self._app.plugins.post_spawn(view, self._view("running")))
        self.mind.started(pid, reads_files=self.reads_files)

    def rests(self, reason: str) -> None:
        """It has ended, and is started again by and by: it waits for that."""
        self.mind.ended()
        with self._app.registry.transaction() as change:
            change.note_session_process(self._prepared.session.id, sessions.identity(), waits=reason)

    def ended(self) -> None:
        """Record how it ended, and tell plugins."""
        self.mind.ended()
        status = self.status
        state = standing.ended_as(status)
        with self._app.registry.transaction() as change:
            change.end_session(self._prepared.session.id, state, status)
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(self._app.plugins.session_ended(view, self._view(state)))

    def not_started(self) -> None:
        """Forget it where no process ever was there; what keeps it from that is told to who asked for it."""
        if self._is_there:
            self.ended()
            return
        self.mind.ended()
        with self._app.registry.transaction() as change:
            change.forget_session(self._prepared.session.id)

    def _view(self, state: str) -> Session:
        session = self._prepared.session
        return Session(
            id=session.id,
            pid=self._pid,
            state=state,
            command=session.command,
            started_at=session.started_at,
            log=None if session.log is None else Path(session.log),
        )


@contextlib.contextmanager
def recorded(
    app: App,
    prepared: Prepared,
    place: admission.Place,
    turn: threading.Lock | None = None,
    *,
    is_begun: bool = False,
) -> Iterator[Running]:
    """A session for the length of the block, in which it is started; with `is_begun` it was recorded before.

    Plugins are called by one thread at a time: those that hold `turn`.
    """
    excluding = turn or threading.Lock()
    running = Running(app, prepared, place)
    if not is_begun:
        with app.registry.transaction() as change:
            change.start_session(prepared.session)
    end = running.ended
    try:
        yield running
    except (CommandNotFound, OverLimit, Interrupted):
        end = running.not_started
        raise
    finally:
        prepared.level.ended(app, prepared.asked, running.status)
        with excluding:
            end()


def on_terminal(
    app: App,
    prepared: Prepared,
    place: admission.Place,
    *,
    is_begun: bool = False,
    bounds: Bounds = NO_BOUNDS,
) -> int:
    """Run it on this terminal, to its end; its status. Ctrl-C is its own to answer; raises Interrupted for the rest."""

    def passed(why: str) -> None:
        app.told(f"ending the session of {prepared.clone.name}: {why}")
        with contextlib.suppress(KhloneError), app.registry.transaction() as change:
            change.note_reason(prepared.session.id, why)
        app.registry.close()

    with signals.Noted() as noted:
        with (
            recorded(app, prepared, place, is_begun=is_begun) as running,
            boot_gate.passed(
                app, prepared.clone, prepared.agent, prepared.asked.variables, check=noted.raise_noted
            ) as gate,
        ):
            noted.raise_noted()
            running.reads_files = True
            child = process.start_foreground(
                prepared.start.argv, cwd=prepared.clone.path, environment=prepared.start.variables
            )
            noted.pass_on(child.pid)
            gate.started(child.pid)
            try:
                running.started(child.pid)
            finally:
                with enforced(bounds, child.pid, passed=passed, pids=lambda: attending.below("")):
                    process.await_foreground(child)
                noted.keep()
                running.status = child.wait()
        noted.raise_noted(but=signals.SIGINT)
    return running.status


def _found(program: str, variables: dict[str, str], cwd: Path) -> str:
    """A program with a slash is looked up from the worktree, another one on the clone's PATH."""
    if os.sep in program and not os.path.isabs(program):
        return os.fspath(cwd / program)
    if os.sep in program:
        return program
    for folder in variables.get("PATH", os.defpath).split(os.pathsep):
        candidate = os.path.join(folder or os.fspath(cwd), program)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return os.path.join(cwd, candidate)
    return program
