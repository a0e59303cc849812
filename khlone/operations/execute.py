"""How does a command run inside a clone?

In its worktree, with its environment, as a recorded session: started only while the
clone is there to work in, so that it cannot be removed under a command that khlone runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from khlone import process, sessions, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, Interrupted, UsageError
from khlone.model import CloneRecord, ExecResult, Session, utc_now
from khlone.operations import environment, journal, undo
from khlone.registry import SessionRecord

#: Bytes of stdout and of stderr that `--json` keeps of one command.
CAPTURED_BYTES = 1 << 20
_NO_TIMEOUT_S = 30 * 24 * 3600.0


def execute(app: App, name: str | None, command: Sequence[str], *, capture: bool = False) -> ExecResult:
    """Run `command` in a clone and return how it ended.

    With `capture` its output is kept, cut at `CAPTURED_BYTES`; otherwise it has this
    terminal. Raises NoSuchClone, CloneNotReady, CommandNotFound, Refusal or UsageError.
    """
    if not command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")
    clone = app.require_clone(name)
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
    with app.registry.transaction() as change:
        change.start_session(session)
    status: int | None = None
    try:
        if capture:
            result = _captured(clone, argv, variables)
            status = -result.signal if result.signal is not None else result.exit
            return result
        status = _foreground(app, clone, argv, variables, session)
        return _as_result(clone, status)
    finally:
        _ended(app, clone, session, status)


def _as_result(clone: CloneRecord, status: int, completed: process.Completed | None = None) -> ExecResult:
    return ExecResult(
        name=clone.name,
        exit=status if status >= 0 else None,
        signal=-status if status < 0 else None,
        stdout="" if completed is None else completed.stdout.decode(errors="replace"),
        stderr="" if completed is None else completed.stderr.decode(errors="replace"),
        truncated=completed is not None and completed.truncated,
    )


def _captured(clone: CloneRecord, argv: Sequence[str], variables: dict[str, str]) -> ExecResult:
    done = process.run(
        [_found(argv[0], variables, clone.path), *argv[1:]],
        cwd=clone.path,
        environment=variables,
        timeout_s=_NO_TIMEOUT_S,
        capture_bytes=CAPTURED_BYTES,
    )
    return _as_result(clone, done.status, done)


def _foreground(
    app: App, clone: CloneRecord, argv: Sequence[str], variables: dict[str, str], session: SessionRecord
) -> int:
    argv = [_found(argv[0], variables, clone.path), *argv[1:]]
    child = process.start_foreground(argv, cwd=clone.path, environment=variables)
    with app.registry.transaction() as change:
        change.note_session_process(session.id, sessions.identity(child.pid))
    app.tell_problems(app.plugins.post_spawn(journal.as_clone(clone), _session(session, child.pid, "running")))
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


def _session(session: SessionRecord, pid: int, state: str) -> Session:
    return Session(id=session.id, pid=pid, state=state, command=session.command, started_at=session.started_at)


def _ended(app: App, clone: CloneRecord, session: SessionRecord, status: int | None) -> None:
    state = "lost" if status is None else f"signal {-status}" if status < 0 else f"exit {status}"
    with app.registry.transaction() as change:
        change.end_session(session.id, state, status)
    app.tell_problems(app.plugins.session_ended(journal.as_clone(clone), _session(session, session.owner.pid, state)))
