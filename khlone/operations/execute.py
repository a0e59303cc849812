"""How does a command run inside a clone, or inside every clone?

In its worktree, with its environment, as a recorded session: started only while the
clone is there to work in, so that it cannot be removed under a command that khlone runs.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import process, sessions, signals, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, Interrupted, KhloneError, UsageError
from khlone.model import Clone, CloneRecord, Demand, ExecResult, Session, utc_now
from khlone.operations import admission, environment, isolation, journal, metering, minding, undo, watching
from khlone.profiles import AgentProfile
from khlone.registry import SessionRecord
from khlone.values import dataclass

#: Bytes of stdout and of stderr that are kept of one captured command.
CAPTURED_BYTES = 1 << 20
_NO_TIMEOUT_S = 30 * 24 * 3600.0
#: How often an interruption, or the end of what was interrupted, is looked for, in seconds.
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A command that may be started in a clone: everything that plugins have a word in is decided."""

    clone: CloneRecord
    level: isolation.Level
    #: The command as it was asked for, and the process that runs it at that level.
    asked: isolation.Start
    start: isolation.Start
    session: SessionRecord
    #: The agent that it is, where it is the clone's own.
    agent: AgentProfile | None


def execute(
    app: App, name: str | None, command: Sequence[str], *, capture: bool = False, wait: bool = True
) -> ExecResult:
    """Run `command` in a clone and return how it ended.

    Where the settings say how many sessions may run it waits for its turn, or, without `wait`, raises NoRoom.

    With `capture` its output is kept, cut at `CAPTURED_BYTES`; otherwise it has this
    terminal; stdin is this process's own either way. The terminal's Ctrl-C is the
    command's to answer, and how that ended is returned; with `capture`, where it cannot
    reach the command, that is ended and Interrupted raised, as for any other signal.
    Raises NoSuchClone, CloneNotReady, CommandNotFound, Refusal or UsageError.
    """
    _require_command(command)
    app.require_outside()
    app.settings.require_whole()
    prepared = _prepare(app, app.require_clone(name), command, is_foreground=not capture)
    with _place(app, prepared, wait=wait) as place:
        if not capture:
            return _foreground(app, prepared, place)
        with signals.Noted() as noted:
            noted.raise_noted()
            result = _captured(app, prepared, place, given_up=lambda: bool(noted.numbers), own_stdin=True)
            noted.raise_noted()
    return result


def execute_all(
    app: App,
    command: Sequence[str],
    *,
    jobs: int | None = None,
    fail_fast: bool = False,
    wait: bool = True,
    ended: Callable[[ExecResult], None] = lambda _: None,
) -> list[ExecResult]:
    """Run `command` in every clone, `jobs` at a time (default: one a core), and return how each ended, by name.

    Each is a session that waits until the machine has a place for it; without `wait` it is not run then.

    Output is captured; `ended` gets each result as it comes, one at a time. A clone that
    cannot run it is told of on `app.told` and has neither `exit` nor `signal` in its
    result; so have those that were not begun after a failure, with `fail_fast`.
    """
    _require_command(command)
    app.require_outside()
    app.settings.require_whole()
    clones = app.registry.clones() if app.has_registry else []
    everywhere = _Everywhere(app, clones, command, fail_fast=fail_fast, wait=wait, ended=ended)
    return everywhere.run(jobs or os.cpu_count() or 1)


class _NotBegun(Exception):
    """It waited for its turn when it became clear that it is not wanted any more."""


class _Everywhere:
    """One command in many clones. Whoever holds `turn` may call plugins, tell and take notes: one thread at a time."""

    def __init__(
        self,
        app: App,
        clones: Sequence[CloneRecord],
        command: Sequence[str],
        *,
        fail_fast: bool,
        wait: bool,
        ended: Callable[[ExecResult], None],
    ) -> None:
        self._app, self._clones, self._command = app, clones, command
        self._fail_fast, self._wait, self._ended = fail_fast, wait, ended
        self._waiting = iter(clones)
        self._results: dict[str, ExecResult] = {}
        self._turn, self._stop = threading.Lock(), threading.Event()
        #: What runs is ended too: it leads process groups that no signal of the terminal reaches.
        self._abandoned = threading.Event()
        # Not `Thread.join`: interrupted, Python 3.11 takes the thread that it waited for to have ended.
        self._at_work, self._over = 0, queue.SimpleQueue[int]()
        self._failure: BaseException | None = None

    def run(self, jobs: int) -> list[ExecResult]:
        """How it ended in each clone. An interruption ends the commands that run before it goes on."""
        self._show("running")
        with signals.Noted() as noted:
            try:
                for _ in range(min(jobs, len(self._clones))):
                    self._start()
                while self._at_work:
                    noted.raise_noted()
                    self._await_end()
                    if isinstance(self._failure, Interrupted):
                        raise self._failure
            except BaseException:
                self._abandon()
                raise
            noted.raise_noted()
        if self._failure is not None:
            raise self._failure
        return [self._results[clone.name] for clone in self._clones]

    def _start(self) -> None:
        self._at_work += 1
        try:
            threading.Thread(target=self._work, daemon=True).start()
        except RuntimeError:
            self._at_work -= 1
            raise

    def _abandon(self) -> None:
        """Begin no other, and end what runs."""
        self._stop.set()
        self._abandoned.set()
        while self._at_work:
            self._await_end()

    def _await_end(self) -> None:
        """Wait for a thread to end, a while: a signal that comes just before a wait does not cut it short."""
        with contextlib.suppress(queue.Empty):
            self._at_work -= self._over.get(timeout=_POLL_S)

    def _work(self) -> None:
        try:
            while (clone := self._next()) is not None:
                self._run_in(clone)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            self._failure = error
            self._stop.set()
        finally:
            self._over.put(1)

    def _next(self) -> CloneRecord | None:
        with self._turn:
            return next(self._waiting, None)

    def _run_in(self, clone: CloneRecord) -> None:
        result = _not_run(clone)
        prepared = None
        with self._turn:
            if not self._stop.is_set():
                prepared = self._prepare_or_tell(clone)
        if prepared is not None:
            try:
                result = self._admitted(prepared)
            except _NotBegun:
                pass
            except KhloneError as error:
                self._tell(clone, error)
        with self._turn:
            self._results[clone.name] = result
            if self._fail_fast and result.exit != 0:
                self._stop.set()
            # Nobody reads on when it is given up.
            if not self._abandoned.is_set():
                self._ended(result)
                if len(self._results) < len(self._clones):
                    self._show(f"{clone.name} has ended")

    def _admitted(self, prepared: _Prepared) -> ExecResult:
        request = _request(prepared, light=False, wait=self._wait)
        with admission.admit(self._app, request, told=self._say, check=self._go_on) as place:
            return _captured(self._app, prepared, place, turn=self._turn, given_up=self._abandoned.is_set)

    def _go_on(self) -> None:
        """Leave the line when it is all given up, or no other is to begin."""
        if self._stop.is_set():
            raise _NotBegun

    def _say(self, text: str) -> None:
        with self._turn:
            self._app.told(text)

    def _show(self, what: str) -> None:
        self._app.progress(len(self._results), len(self._clones), what)

    def _prepare_or_tell(self, clone: CloneRecord) -> _Prepared | None:
        try:
            return _prepare(self._app, clone, self._command)
        except KhloneError as error:
            self._app.told(f"{clone.name}: {error.message}")
            return None

    def _tell(self, clone: CloneRecord, error: KhloneError) -> None:
        with self._turn:
            self._app.told(f"{clone.name}: {error.message}")


def _require_command(command: Sequence[str]) -> None:
    if not command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")


def _prepare(app: App, clone: CloneRecord, command: Sequence[str], *, is_foreground: bool = False) -> _Prepared:
    if not worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
    watching.pace_of(app.settings)  # Raises here what must not be raised once it runs.
    view = journal.as_clone(clone)
    level = isolation.of(clone.isolation)
    level.require(app)
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
    profile = environment.profile_of(app, clone)
    variables = environment.complete(app, clone, session_id=session.id, command=argv, profile=profile)
    asked = isolation.Start(
        clone=clone,
        command=argv,
        argv=(_found(argv[0], variables, clone.path), *argv[1:]),
        variables=variables,
        session=session.id,
        profile=profile,
        is_foreground=is_foreground,
    )
    return _Prepared(
        clone=clone,
        level=level,
        asked=asked,
        start=level.wrap(app, asked),
        session=session,
        agent=profile if environment.is_agent(profile, command) else None,
    )


def _require_room(app: App, clone: Clone, command: Sequence[str]) -> None:
    """Raise NotAdmitted, or what a plugin says instead, while plugins see no room for one more session."""
    if app.plugins.has("khlone_admit"):
        live = sum(sessions.may_live(session.owner) for session in app.registry.live_sessions())
        app.plugins.admit(clone, Demand(command=tuple(command), live_sessions=live))


def _request(prepared: _Prepared, *, light: bool, wait: bool) -> admission.Request:
    clone, agent = prepared.clone, prepared.agent
    return admission.Request(
        clone=clone.id,
        name=clone.name,
        path=clone.path,
        kind=admission.COMMAND if agent is None else agent.name,
        session=prepared.session.id,
        light=light,
        wait=wait,
        credential=None if agent is None else metering.credential_of(agent, prepared.asked.variables),
    )


@contextlib.contextmanager
def _place(app: App, prepared: _Prepared, *, wait: bool) -> Iterator[admission.Place]:
    """A place for one command that somebody has typed.

    It counts where sessions are counted, waits while the API of its login is limited, and asks for no more.
    """
    request = _request(prepared, light=True, wait=wait)
    limits = admission.limits_of(app, request)
    if limits.sessions is None and limits.of_kind is None and request.credential is None:
        yield admission.NO_PLACE
        return
    with admission.admit(app, request) as place:
        yield place


# -- as a recorded session -----------------------------------------------------------------


class _Running:
    """A session from the moment it is recorded to its end; `started` and `status` are filled in on the way."""

    def __init__(self, app: App, prepared: _Prepared, place: admission.Place) -> None:
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

    def started(self, pid: int) -> None:
        """The process is there: record which one, and tell plugins."""
        self._pid = pid
        self._place.started(pid)
        with self._app.registry.transaction() as change:
            change.note_session_process(self._prepared.session.id, sessions.identity(pid))
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(self._app.plugins.post_spawn(view, self._view("running")))
        self.mind.started(pid, reads_files=self.reads_files)

    def ended(self) -> None:
        """Record how it ended, and tell plugins."""
        self.mind.ended()
        status = self.status
        state = "lost" if status is None else f"signal {-status}" if status < 0 else f"exit {status}"
        with self._app.registry.transaction() as change:
            change.end_session(self._prepared.session.id, state, status)
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(self._app.plugins.session_ended(view, self._view(state)))

    def _view(self, state: str) -> Session:
        session = self._prepared.session
        return Session(
            id=session.id, pid=self._pid, state=state, command=session.command, started_at=session.started_at
        )


@contextlib.contextmanager
def _recorded(
    app: App, prepared: _Prepared, place: admission.Place, turn: threading.Lock | None = None
) -> Iterator[_Running]:
    """Plugins are called by one thread at a time: those that hold `turn`."""
    excluding = turn or threading.Lock()
    running = _Running(app, prepared, place)
    with app.registry.transaction() as change:
        change.start_session(prepared.session)
    try:
        yield running
    finally:
        prepared.level.ended(app, prepared.asked, running.status)
        with excluding:
            running.ended()


def _captured(
    app: App,
    prepared: _Prepared,
    place: admission.Place,
    *,
    turn: threading.Lock | None = None,
    given_up: Callable[[], bool],
    own_stdin: bool = False,
) -> ExecResult:
    """Run it with captured output, to its end or until it is given up."""
    with _recorded(app, prepared, place, turn) as session, session.mind.output() as heard:

        def started(pid: int) -> None:
            with turn or contextlib.nullcontext():
                session.started(pid)

        done = process.run(
            prepared.start.argv,
            cwd=prepared.clone.path,
            environment=prepared.start.variables,
            timeout_s=_NO_TIMEOUT_S,
            capture_bytes=CAPTURED_BYTES,
            started=started,
            heard=heard,
            given_up=given_up,
            own_stdin=own_stdin,
        )
        session.status = done.status
        return _as_result(prepared.clone, done.status, done)


def _foreground(app: App, prepared: _Prepared, place: admission.Place) -> ExecResult:
    with signals.Noted() as noted:
        with _recorded(app, prepared, place) as running:
            noted.raise_noted()
            running.reads_files = True
            child = process.start_foreground(
                prepared.start.argv, cwd=prepared.clone.path, environment=prepared.start.variables
            )
            noted.pass_on(child.pid)
            try:
                running.started(child.pid)
            finally:
                process.await_foreground(child)
                noted.keep()
                running.status = child.wait()
        noted.raise_noted(but=signals.SIGINT)
        return _as_result(prepared.clone, running.status)


def _not_run(clone: CloneRecord) -> ExecResult:
    return ExecResult(name=clone.name, exit=None, signal=None, stdout="", stderr="", truncated=False)


def _as_result(clone: CloneRecord, status: int, completed: process.Completed | None = None) -> ExecResult:
    return ExecResult(
        name=clone.name,
        exit=status if status >= 0 else None,
        signal=-status if status < 0 else None,
        stdout="" if completed is None else completed.stdout.decode(errors="replace"),
        stderr="" if completed is None else completed.stderr.decode(errors="replace"),
        truncated=completed is not None and completed.truncated,
    )


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
