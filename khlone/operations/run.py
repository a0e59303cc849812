"""How does a session start in a clone, with a supervisor that sees it through?

The supervisor is a process of its own, which outlives whoever asked for it: it waits for
the session's turn, starts it, keeps its output, and records how it ended. What it has to
say until the session runs, or waits in line, comes back here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from khlone import process, sessions
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import KhloneError, SessionFailed, UsageError
from khlone.model import CloneRecord
from khlone.operations import standing
from khlone.operations.bounds import Bounds
from khlone.operations.standing import SessionReport
from khlone.values import dataclass, field_names, replace

#: The mark of a supervisor and its keeper in their environment; each has a value of its own.
SUPERVISES = "KHLONE_SUPERVISES"
#: How often what was left behind is looked for, in seconds.
_POLL_S = 0.05
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from khlone.operations.keeper import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A session that is to run in a clone, by the clone's name; without `wait` it is refused when it would queue."""

    clone: str
    command: Sequence[str]
    kind: str = "run"
    wait: bool = True
    priority: int = 0
    #: What it gets to read; nothing unless said.
    given: str | None = None
    max_time_s: float | None = None
    stall_s: float | None = None
    max_cost_usd: float | None = None
    max_memory_bytes: int | None = None
    #: How often it is started again when it has failed by itself.
    restarts: int = 0

    @property
    def bounds(self) -> Bounds:
        """How long it may run, and do nothing, and what memory it may take."""
        return Bounds(max_time_s=self.max_time_s, stall_s=self.stall_s, max_memory_bytes=self.max_memory_bytes)


def _require(app: App, request: RunRequest) -> CloneRecord:
    if not request.command:
        raise UsageError("no command is given", hint="git khlone run NAME -- CMD ...")
    app.require_outside()
    app.settings.require_whole()
    return app.require_clone(request.clone)


def detach(app: App, request: RunRequest) -> SessionReport:
    """Start a session that outlives this process; returns once it runs, waits in line, or has ended already.

    Raises what keeps it from starting: CloneBusy, NoRoom, CommandNotFound, Refusal and the
    like. Interrupted, it ends at once.
    """
    with attended(app, request) as found:
        return found


@contextlib.contextmanager
def attended(app: App, request: RunRequest) -> Iterator[SessionReport]:
    """Start a session as `detach` does, which is ended where something raises before the block is over."""
    from khlone.operations import ending

    clone = _require(app, request)
    path = [entry for entry in sys.path if os.path.isabs(entry)]
    spec = {
        "where": os.fspath(app.location.worktree or app.location.common_dir),
        "request": {name: getattr(request, name) for name in field_names(request)},
    }
    # It belongs to no clone that this one may have been called in: it goes on when that session ends.
    kept = {name: value for name, value in process.scrubbed(app.environment).items() if name not in SESSION_VARIABLES}
    token = os.urandom(8).hex()
    answers = process.start_linked(
        [sys.executable, "-I", "-c", _BOOT, *path],
        environment={**kept, SUPERVISES: token},
        given=json.dumps(spec).encode(),
    )
    session: str | None = None
    try:
        with open(answers, "rb") as stream:
            session = _heard(app, clone, stream)
        yield standing.report(app, clone, standing.find(app, clone, session))
    except BaseException as error:
        if session is not None:
            ending.stop_all(app, clone, only=session)
        elif not isinstance(error, KhloneError):
            # Nobody hears any more that it is there: unless that was said already, it ends by itself.
            _take_back(app, clone, token)
        raise


def _take_back(app: App, clone: CloneRecord, token: str) -> None:
    """End the session that a supervisor with that mark sees through, if it is there."""
    from khlone.operations import ending

    record = standing.current(app, clone)
    supervisor = None if record is None else record.supervisor
    if supervisor is not None and sessions.environment_of(supervisor.pid).get(SUPERVISES) == token:
        ending.stop_all(app, clone)


def foreground(app: App, request: RunRequest) -> int:
    """Run a session on this terminal, to its end; its status, negative for a signal.

    The terminal's Ctrl-C is the session's to answer. Raises as `detach` does, and Interrupted.
    """
    from khlone.operations import admission, clients, ending, starting

    clone = _require(app, request)
    ending.make_room(app, clone)
    found = starting.prepare(app, clone, request.command, is_foreground=True)
    clients.require_none(clone, found.agent)
    session = replace(found.session, kind=request.kind, state=standing.WAITING, supervisor=sessions.identity())
    prepared = replace(found, session=session)
    with app.registry.transaction() as change:
        standing.require_free(change, clone)
        change.start_session(session)
    is_there = False
    try:
        wanted = starting.request_of(prepared, light=False, wait=request.wait)
        with admission.admit(app, replace(wanted, priority=request.priority)) as place:
            is_there = True
            process.become_subreaper()
            try:
                return starting.on_terminal(app, prepared, place, is_begun=True, bounds=request.bounds)
            finally:
                _end_left(app, clone, session.id)
    finally:
        if not is_there:
            with app.registry.transaction() as change:
                change.forget_session(session.id)


def _end_left(app: App, clone: CloneRecord, session: str) -> None:
    """End what the session has left behind."""
    from khlone.operations import attending, steering

    def left() -> set[int]:
        # What has cleared its environment has become ours.
        return {*steering.pids_of(clone, session), *(attending.below("") or ())}

    found = left()
    if not found:
        return
    app.told(attending.told_of_left(len(found)))
    for number, wait_s in ((signal.SIGTERM, attending.LEFT_GRACE_S), (signal.SIGKILL, attending.LEFT_GRACE_S)):
        steering.send(list(found), number)
        steering.send(list(found), signal.SIGCONT)
        deadline = time.monotonic() + wait_s
        while (found := left()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _heard(app: App, clone: CloneRecord, answers: BinaryIO) -> str:
    """The id of the session, once its supervisor says that it is there; raises what keeps it from that."""
    for line in answers:
        answer = json.loads(line)
        if "told" in answer:
            app.told(str(answer["told"]))
        elif "session" in answer:
            return str(answer["session"])
        else:
            raise _error(answer["error"])
    raise SessionFailed(clone.name, "its supervisor ended before it was there")


def _error(about: object) -> KhloneError:
    """The error that kept the session from starting, as it was raised in the supervisor."""
    assert isinstance(about, dict)
    error = KhloneError(about["message"], hint=about["hint"])
    error.code, error.exit_code, error.facts = about["code"], about["exit"], about["facts"]  # type: ignore[misc]
    return error
