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

from khlone import process, signals
from khlone.app import App
from khlone.errors import Interrupted, KhloneError, UsageError
from khlone.model import CloneRecord, ExecResult
from khlone.operations import admission, boot_gate, starting
from khlone.operations.starting import Prepared, prepare, recorded, request_of

#: Bytes of stdout and of stderr that are kept of one captured command.
CAPTURED_BYTES = 1 << 20
_NO_TIMEOUT_S = 30 * 24 * 3600.0
#: How often an interruption, or the end of what was interrupted, is looked for, in seconds.
_POLL_S = 0.1


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
    prepared = prepare(app, app.require_clone(name), command, is_foreground=not capture)
    with _place(app, prepared, wait=wait) as place:
        if not capture:
            return _as_result(prepared.clone, starting.on_terminal(app, prepared, place))
        with signals.Noted() as noted:
            noted.raise_noted()
            result = _captured(
                app,
                prepared,
                place,
                told=app.told,
                check=noted.raise_noted,
                given_up=lambda: bool(noted.numbers),
                own_stdin=True,
            )
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

    def _admitted(self, prepared: Prepared) -> ExecResult:
        request = request_of(prepared, light=False, wait=self._wait)
        with admission.admit(self._app, request, told=self._say, check=self._go_on) as place:
            return _captured(
                self._app,
                prepared,
                place,
                told=self._say,
                check=self._go_on,
                turn=self._turn,
                given_up=self._abandoned.is_set,
            )

    def _go_on(self) -> None:
        """Leave the line when it is all given up, or no other is to begin."""
        if self._stop.is_set():
            raise _NotBegun

    def _say(self, text: str) -> None:
        with self._turn:
            self._app.told(text)

    def _show(self, what: str) -> None:
        self._app.progress(len(self._results), len(self._clones), what)

    def _prepare_or_tell(self, clone: CloneRecord) -> Prepared | None:
        try:
            return prepare(self._app, clone, self._command)
        except KhloneError as error:
            self._app.told(f"{clone.name}: {error.message}")
            return None

    def _tell(self, clone: CloneRecord, error: KhloneError) -> None:
        with self._turn:
            self._app.told(f"{clone.name}: {error.message}")


def _require_command(command: Sequence[str]) -> None:
    if not command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")


@contextlib.contextmanager
def _place(app: App, prepared: Prepared, *, wait: bool) -> Iterator[admission.Place]:
    """A place for one command that somebody has typed.

    It counts where sessions are counted, waits while the API of its login is limited, and asks for no more.
    """
    request = request_of(prepared, light=True, wait=wait)
    limits = admission.limits_of(app, request)
    if limits.sessions is None and limits.of_kind is None and request.credential is None:
        yield admission.NO_PLACE
        return
    with admission.admit(app, request) as place:
        yield place


def _captured(
    app: App,
    prepared: Prepared,
    place: admission.Place,
    *,
    told: Callable[[str], None],
    check: Callable[[], None],
    turn: threading.Lock | None = None,
    given_up: Callable[[], bool],
    own_stdin: bool = False,
) -> ExecResult:
    """Run it with captured output, to its end or until it is given up; what `check` raises keeps it from starting."""
    with (
        boot_gate.passed(app, prepared.clone, prepared.agent, prepared.asked.variables, told=told, check=check) as gate,
        recorded(app, prepared, place, turn) as session,
        session.mind.output() as meter,
    ):

        def started(pid: int) -> None:
            gate.started(pid)
            with turn or contextlib.nullcontext():
                session.started(pid)

        def heard(chunk: bytes) -> None:
            gate.heard()
            if meter is not None:
                meter.feed_output(chunk)

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
