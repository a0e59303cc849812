"""What does a supervisor do for its session, from its place in line to its recorded end?

It asks for the session's place, starts it, keeps its output in a log, and records how it
ended; a session of an agent is watched as any other. Nothing here prints: what there is
to say goes to whoever asked for the session, as long as that one listens, and to the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khlone import files, session_logs, sessions, values
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import CloneRecord
from khlone.operations import (
    admission,
    asking,
    attending,
    boot_gate,
    clients,
    ending,
    journal,
    spending,
    standing,
    terminals,
)
from khlone.operations.run import SUPERVISES, RunRequest
from khlone.operations.starting import Prepared, Running, prepare, request_of
from khlone.process import Apart, start_apart
from khlone.registry import SessionRecord

_KILLED = "its supervisor was killed"
_STOPPED = "it was stopped while it waited to be started again"
#: No pause before a new start is longer, in seconds.
_LONGEST_PAUSE_S = 60.0


class Link:
    """The way back to whoever asked for the session, until that one knows enough; `descriptor` is taken over."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @property
    def is_open(self) -> bool:
        """Whether nothing final was said yet."""
        return self._descriptor is not None

    def tell(self, text: str) -> None:
        """Say a line for people."""
        self._say({"told": text})

    def hand_over(self, session: str) -> bool:
        """Say that the session is there and needs nobody; False when nobody has heard it."""
        return self._say({"session": session}, final=True)

    def fail(self, error: KhloneError) -> None:
        """Say what keeps the session from being there."""
        about = {"code": error.code, "exit": error.exit_code, "message": error.message, "hint": error.hint}
        self._say({"error": {**about, "facts": error.facts}}, final=True)

    def _say(self, what: dict[str, object], *, final: bool = False) -> bool:
        descriptor = self._descriptor
        if descriptor is None:
            return True
        try:
            files.write_all(descriptor, json.dumps(what).encode() + b"\n")
        except OSError:
            return False
        finally:
            if final:
                self._descriptor = None
                os.close(descriptor)
        return True


class _ToldToEnd(Exception):
    """It was told to end before the session was started."""


class Supervisor:
    """Sees one session through; `token` is the mark of this supervisor, `keeper` the process that stands by."""

    def __init__(
        self, app: App, request: RunRequest, link: Link, heard: attending.Signals, token: str, keeper: int
    ) -> None:
        self._app, self._request, self._link = app, request, link
        self._signals, self._token, self._keeper = heard, token, keeper
        self._is_alone = False
        #: How often it was started again, and how long is waited before it is once more.
        self._restarts = 0
        self._pause_s: float | None = None
        self._status: int | None = None
        self._log: session_logs.SessionLog | None = None
        app.told = self._tell

    def see_through(self) -> None:
        """Start the session when its turn comes, and stay until it has ended; what fails is said and recorded."""
        try:
            clone = self._app.require_clone(self._request.clone)
            ending.make_room(self._app, clone)
            prepared = self._prepared(clone)
            self._log = session_logs.SessionLog(Path(prepared.session.log or ""))
        except (KhloneError, OSError) as error:
            self._link.fail(_plain(error))
            return
        try:
            with self._app.registry.transaction() as change:
                standing.require_free(change, clone)
                change.start_session(prepared.session)
        except KhloneError as error:
            session_logs.discard(self._log.path)
            self._link.fail(error)
            return
        try:
            self._admitted(prepared)
            while self._pause_s is not None and self._rest(prepared, self._pause_s):
                prepared = self._prepared_again(prepared)
                self._admitted(prepared)
        except (KhloneError, OSError, _ToldToEnd) as error:
            self._give_up(prepared.session, error)
        finally:
            self._log.close()

    def _prepared(self, clone: CloneRecord) -> Prepared:
        has_terminal = self._request.kind == terminals.ATTACH
        prepared = prepare(
            self._app,
            clone,
            self._request.command,
            is_foreground=has_terminal,
            max_cost_usd=self._request.max_cost_usd,
        )
        clients.require_none(clone, prepared.agent)
        if has_terminal:
            terminals.require_program(prepared.start)
        log = session_logs.path_of(files.make_private_dir(self._app.config_dirs.logs(clone.id)), prepared.session.id)
        session = values.replace(
            prepared.session,
            kind=self._request.kind,
            state=standing.WAITING,
            # The keeper: it is there as long as anybody is who sees the session through.
            supervisor=sessions.identity(None if self._has_lost_keeper() else self._keeper),
            log=os.fspath(log),
        )
        return values.replace(prepared, session=session)

    def _prepared_again(self, prepared: Prepared) -> Prepared:
        """What a new start needs that the last one may have used up."""
        clone, most = prepared.clone, self._request.max_cost_usd
        prepared.level.prepare(self._app, clone)
        return values.replace(prepared, allowance=spending.allowance(self._app, clone, prepared.agent, most))

    def _admitted(self, prepared: Prepared) -> None:
        request = request_of(prepared, light=False, wait=self._request.wait)
        request = values.replace(request, priority=self._request.priority)

        def check() -> None:
            if self._signals.told_to_end or not self._link.hand_over(prepared.session.id):
                raise _ToldToEnd

        with admission.admit(self._app, request, told=self._tell, check=check) as place:
            if self._signals.told_to_end:
                raise _ToldToEnd

            def waits(why: str) -> None:
                self._tell(why)
                with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
                    change.note_session_process(prepared.session.id, sessions.identity(), waits=why)

            with boot_gate.passed(
                self._app, prepared.clone, prepared.agent, prepared.asked.variables, told=waits, check=check
            ) as gate:
                self._run(prepared, Running(self._app, prepared, place), gate)

    def _run(self, prepared: Prepared, running: Running, gate: boot_gate.Gate) -> None:
        assert self._log is not None
        log, given = self._log, self._request.given
        argv, has_terminal = prepared.start.argv, self._request.kind == terminals.ATTACH
        child = start_apart(
            terminals.on_terminal(self._app, prepared.clone, argv) if has_terminal else argv,
            cwd=prepared.clone.path,
            environment=terminals.outside_of_tmux(prepared.start.variables),
            has_input=given is not None,
        )
        gate.started(child.pid)
        agent = prepared.agent

        def over(why: str) -> None:
            attended.end_soon(why)

        listener = asking.Listener(agent.reading) if self._request.kind == asking.ASK and agent is not None else None
        try:
            # Of any other session what was said is not known to be what the agent says without a terminal.
            is_read = listener is not None or self._request.max_cost_usd is not None
            with running.mind.output() if is_read else contextlib.nullcontext() as meter:
                if listener is not None and meter is not None:
                    listener.earlier = meter.earlier
                metered = None if meter is None else spending.minded(meter, prepared.allowance, over)

                def said(chunk: bytes, is_answer: bool) -> None:
                    log.add(chunk)
                    gate.heard()
                    if metered is not None and is_answer:
                        metered(chunk)
                    if listener is not None and is_answer:
                        listener.feed(chunk)

                attended = attending.Attended(
                    child,
                    token=self._token,
                    heard=self._signals,
                    said=said,
                    given=(given or "").encode(errors="surrogateescape"),
                    bounds=self._request.bounds,
                    look=lambda: self._mind_keeper(prepared.session),
                )
                running.reads_files = metered is None
                self._attend(prepared, running, attended, listener)
        finally:
            child.close()

    def _attend(
        self,
        prepared: Prepared,
        running: Running,
        attended: attending.Attended,
        listener: asking.Listener | None,
    ) -> None:
        """Be there until it has ended, and record how."""
        session, child = prepared.session, attended.child
        try:
            try:
                running.started(child.pid)
                if not self._link.hand_over(session.id):
                    attended.end("the command that asked for it was interrupted")
            except BaseException:
                attended.end("its supervisor has failed")
                raise
            finally:
                running.status = attended.see_out()
        finally:
            left = attended.left + attending.end_marked(session.id)
            if left:
                self._tell(attending.told_of_left(left))
            if attended.reason is not None:
                self._tell(f"ended: {attended.reason}")
                with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
                    change.note_reason(session.id, attended.reason)
            if listener is not None:
                with contextlib.suppress(KhloneError, OSError):
                    asking.write_answer(Path(session.log or ""), listener.answer())
            prepared.level.ended(self._app, prepared.asked, running.status)
            again = self._why_again(running.status, attended.reason)
            if again is not None:
                self._tell(again)
                running.rests(again)
            else:
                self._note_restarts(session)
                self._note_gaps(session)
                running.ended()

    def _why_again(self, status: int | None, reason: str | None) -> str | None:
        """What to say of a session that has failed by itself and is to be started again; `None` where it is not."""
        self._pause_s, self._status, most = None, status, self._request.restarts
        is_failure = status is not None and status != 0 and reason is None and not self._signals.told_to_end
        if not is_failure or self._restarts >= most:
            return None
        self._pause_s = min(_LONGEST_PAUSE_S, 2.0**self._restarts)
        self._restarts += 1
        how = f"{self._restarts} of {most}"
        return f"it ended with {standing.ended_as(status)} and starts again in {self._pause_s:.0f} s ({how})"

    def _note_restarts(self, session: SessionRecord) -> None:
        if self._restarts:
            with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
                change.note_reason(session.id, f"it was started again {_times(self._restarts)}")

    def _note_gaps(self, session: SessionRecord) -> None:
        if self._log is not None and self._log.gap is not None:
            with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
                change.note_reason(session.id, f"its log has gaps: {self._log.gap}")

    def _rest(self, prepared: Prepared, pause_s: float) -> bool:
        """Wait before it is started again; False when it was told to end meanwhile, which is recorded."""
        deadline = time.monotonic() + pause_s
        while not self._signals.told_to_end and (left_s := deadline - time.monotonic()) > 0:
            self._signals.wait(left_s)
            self._mind_keeper(prepared.session)
        if not self._signals.told_to_end:
            return True
        session, app = prepared.session, self._app
        with app.registry.transaction() as change:
            change.end_session(session.id, standing.ended_as(self._status), self._status, _STOPPED)
        ended = standing.find(app, prepared.clone, session.id)
        app.tell_problems(app.plugins.session_ended(journal.as_clone(prepared.clone), standing.as_session(app, ended)))
        return False

    def _has_lost_keeper(self) -> bool:
        return os.getppid() != self._keeper

    def _mind_keeper(self, session: SessionRecord) -> None:
        """Where the keeper was killed, record that it is this process that sees the session through."""
        if self._is_alone or not self._has_lost_keeper():
            return
        self._is_alone = True
        with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
            change.note_supervisor(session.id, sessions.identity())

    def _give_up(self, session: SessionRecord, error: Exception) -> None:
        """It never came to be: nobody who was told of it hears of it again, for others it is recorded."""
        failure = None if isinstance(error, _ToldToEnd) else _plain(error)
        reason = "it was told to end before its turn came" if failure is None else failure.message
        assert self._log is not None
        with contextlib.suppress(KhloneError), self._app.registry.transaction() as change:
            if self._link.is_open:
                change.forget_session(session.id)
            else:
                change.end_session(session.id, standing.FAILED, None, reason)
        if self._link.is_open:
            session_logs.discard(self._log.path)
            self._link.fail(failure or KhloneError(reason))
        else:
            self._log.line(reason)

    def _tell(self, text: str) -> None:
        self._link.tell(text)
        if self._log is not None:
            self._log.line(text)


def see_through(spec: Mapping[str, Any], answer: int, keeper: int) -> None:
    """What the process of a supervisor does: all of one session. `answer` leads to whoever asked for it."""
    link, heard = Link(answer), attending.Signals()
    try:
        app, request, token = _opened(spec)
        Supervisor(app, request, link, heard, token, keeper).see_through()
        app.write_spent()
    except KhloneError as error:
        link.fail(error)
    except Exception as error:
        link.fail(_plain(error))
        raise


def _opened(spec: Mapping[str, Any]) -> tuple[App, RunRequest, str]:
    token = os.environ.pop(SUPERVISES, "")
    environment = dict(os.environ)
    return App.open(Path(spec["where"]), environment=environment), RunRequest(**spec["request"]), token


def take_over(spec: Mapping[str, Any], supervisor: int, ended: Mapping[int, int]) -> None:
    """End and record the session whose supervisor, a child of this process, was killed.

    `ended` are the statuses of what has ended here since.
    """
    heard = attending.Signals()
    app, request, token = _opened(spec)
    clone = app.require_clone(request.clone)
    here = sessions.identity()
    orphans = [one for one in app.registry.live_sessions(clone.id) if one.supervisor == here]
    for record in orphans:
        child, was_there = Apart(record.owner.pid, None, ()), record.owner.pid != supervisor
        # What it had not written down yet runs below this process too.
        child.status = ended.get(child.pid) if was_there else 0
        attended = attending.Attended(child, token=token, heard=heard, said=lambda *_: None)
        attended.end(_KILLED)
        found = attended.see_out()
        status = found if was_there else None
        attending.end_marked(record.id)
        ending.end_at_level(app, clone, record, status)
        state = standing.ended_as(status)
        with app.registry.transaction() as change:
            change.end_session(record.id, state, status, _KILLED)
        ended_now = standing.find(app, clone, record.id)
        app.plugins.session_ended(journal.as_clone(clone), standing.as_session(app, ended_now))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _plain(error: Exception) -> KhloneError:
    return error if isinstance(error, KhloneError) else files.cause(error, "the log") or KhloneError(str(error))  # type: ignore[arg-type]
