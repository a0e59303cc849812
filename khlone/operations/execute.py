"""How does a command run inside a clone, or inside every clone?

In its worktree, with its environment, as a recorded session: started only while the
clone is there to work in, so that it cannot be removed under a command that khlone runs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import process, sessions, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, Interrupted, KhloneError, UsageError
from khlone.model import Clone, CloneRecord, Demand, ExecResult, Session, utc_now
from khlone.operations import environment, journal, undo
from khlone.registry import SessionRecord
from khlone.values import dataclass

#: Bytes of stdout and of stderr that are kept of one captured command.
CAPTURED_BYTES = 1 << 20
_NO_TIMEOUT_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A command that may be started in a clone: everything that plugins have a word in is decided."""

    clone: CloneRecord
    argv: Sequence[str]
    variables: dict[str, str]
    session: SessionRecord


def execute(app: App, name: str | None, command: Sequence[str], *, capture: bool = False) -> ExecResult:
    """Run `command` in a clone and return how it ended.

    With `capture` its output is kept, cut at `CAPTURED_BYTES`; otherwise it has this
    terminal. Raises NoSuchClone, CloneNotReady, CommandNotFound, Refusal or UsageError.
    """
    _require_command(command)
    prepared = _prepare(app, app.require_clone(name), command)
    return _captured(app, prepared) if capture else _foreground(app, prepared)


def execute_all(
    app: App,
    command: Sequence[str],
    *,
    jobs: int | None = None,
    fail_fast: bool = False,
    ended: Callable[[ExecResult], None] = lambda _: None,
) -> list[ExecResult]:
    """Run `command` in every clone, `jobs` at a time (default: one a core), and return how each ended, by name.

    Output is captured; `ended` gets each result as it comes, one at a time. A clone that
    cannot run it is told of on `app.told` and has neither `exit` nor `signal` in its
    result; so have those that were not begun after a failure, with `fail_fast`.
    """
    _require_command(command)
    clones = app.registry.clones() if app.has_registry else []
    results: dict[str, ExecResult] = {}
    turn = threading.Lock()
    stop = threading.Event()
    waiting = iter(clones)

    def work() -> None:
        while True:
            with turn:
                clone = next(waiting, None)
                if clone is None:
                    return
                if stop.is_set():
                    results[clone.name] = _not_run(clone)
                    continue
                prepared = _prepare_or_tell(app, clone, command)
            result = _not_run(clone)
            if prepared is not None:
                try:
                    result = _captured(app, prepared, turn=turn)
                except KhloneError as error:
                    app.told(f"{clone.name}: {error.message}")
            with turn:
                results[clone.name] = result
                if fail_fast and result.exit != 0:
                    stop.set()
                ended(result)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs or os.cpu_count() or 1, len(clones)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[clone.name] for clone in clones]


def _require_command(command: Sequence[str]) -> None:
    if not command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")


def _prepare_or_tell(app: App, clone: CloneRecord, command: Sequence[str]) -> _Prepared | None:
    try:
        return _prepare(app, clone, command)
    except KhloneError as error:
        app.told(f"{clone.name}: {error.message}")
        return None


def _prepare(app: App, clone: CloneRecord, command: Sequence[str]) -> _Prepared:
    if not worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
    view = journal.as_clone(clone)
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
    variables = environment.complete(app, clone, session_id=session.id)
    return _Prepared(
        clone=clone,
        argv=(_found(argv[0], variables, clone.path), *argv[1:]),
        variables=variables,
        session=session,
    )


# -- as a recorded session -----------------------------------------------------------------


class _Running:
    """A session from the moment it is recorded to its end; `started` and `status` are filled in on the way."""

    def __init__(self, app: App, prepared: _Prepared) -> None:
        self._app, self._prepared = app, prepared
        self.status: int | None = None

    def started(self, pid: int) -> None:
        """The process is there: record which one, and tell plugins."""
        with self._app.registry.transaction() as change:
            change.note_session_process(self._prepared.session.id, sessions.identity(pid))
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(self._app.plugins.post_spawn(view, self._view(pid, "running")))

    def ended(self) -> None:
        """Record how it ended, and tell plugins."""
        status = self.status
        state = "lost" if status is None else f"signal {-status}" if status < 0 else f"exit {status}"
        with self._app.registry.transaction() as change:
            change.end_session(self._prepared.session.id, state, status)
        view = journal.as_clone(self._prepared.clone)
        self._app.tell_problems(
            self._app.plugins.session_ended(view, self._view(self._prepared.session.owner.pid, state))
        )

    def _view(self, pid: int, state: str) -> Session:
    _require_room(app, view, command)
        session = self._prepared.session
        return Session(id=session.id, pid=pid, state=state, command=session.command, started_at=session.started_at)


@contextlib.contextmanager
def _recorded(app: App, prepared: _Prepared, turn: threading.Lock | None = None) -> Iterator[_Running]:
    """Plugins are called by one thread at a time: those that hold `turn`."""
    excluding = turn or threading.Lock()
    running = _Running(app, prepared)
    with app.registry.transaction() as change:
        change.start_session(prepared.session)
    try:
        yield running
    finally:
        with excluding:
            running.ended()


def _captured(app: App, prepared: _Prepared, *, turn: threading.Lock | None = None) -> ExecResult:
def _require_room(app: App, clone: Clone, command: Sequence[str]) -> None:
    """Raise NotAdmitted, or what a plugin says instead, while plugins see no room for one more session."""
    if app.plugins.has("khlone_admit"):
        live = sum(sessions.may_live(session.owner) for session in app.registry.live_sessions())
        app.plugins.admit(clone, Demand(command=tuple(command), live_sessions=live))


    with _recorded(app, prepared, turn) as running:

        def started(pid: int) -> None:
            with turn or contextlib.nullcontext():
                running.started(pid)

        done = process.run(
            prepared.argv,
            cwd=prepared.clone.path,
            environment=prepared.variables,
            timeout_s=_NO_TIMEOUT_S,
            capture_bytes=CAPTURED_BYTES,
            started=started,
        )
        running.status = done.status
        return _as_result(prepared.clone, done.status, done)


def _foreground(app: App, prepared: _Prepared) -> ExecResult:
    with _recorded(app, prepared) as running:
        child = process.start_foreground(prepared.argv, cwd=prepared.clone.path, environment=prepared.variables)
        running.started(child.pid)
        running.status = _waited(child)
        return _as_result(prepared.clone, running.status)


def _waited(child: process.Child) -> int:
    try:
        return child.wait()
    except KeyboardInterrupt:
        return _wait_out(child)
    except Interrupted as interrupt:
        child.send_signal(interrupt.signal_number)
        _wait_out(child)
        raise


def _wait_out(child: process.Child) -> int:
    """The terminal's Ctrl-C has reached the child too: wait for what it makes of it."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return child.wait()


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
