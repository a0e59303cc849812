"""What is done about a session of an agent while it runs, by whoever starts it?

Its output or its session files are read for what it uses, for limits of its API and for
whether its login is taken, its processes are watched, and what lands outside of its clone
meanwhile is reported. Any other command is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from khlone import values
from khlone.api_rows import Used
from khlone.app import App
from khlone.errors import KhloneError
from khlone.machine import Machine
from khlone.model import CloneRecord
from khlone.operations import clients, escape, journal, logins, metering, standing, turns, watching
from khlone.operations.turns import Place
from khlone.profiles import AgentProfile


class Minded:
    """One session, from before it starts to its end; does nothing where `agent` is `None`.

    `variables` are those that the agent gets, `place` what it was admitted by. Made before
    the process is started: what is in the main worktree by then is none of its doing.
    """

    def __init__(
        self,
        app: App,
        clone: CloneRecord,
        agent: AgentProfile | None,
        *,
        session: str,
        variables: Mapping[str, str],
        place: Place = turns.NO_PLACE,
    ) -> None:
        self._app, self._clone, self._agent, self._session = app, clone, agent, session
        self._place = place
        self._watch = contextlib.ExitStack()
        login = None if agent is None else logins.login_of(agent, variables)
        self._credential = None if login is None else login.credential
        self._login = None if agent is None else logins.Ear(app, clone, agent, session=session, variables=variables)
        self._reading: metering.Meter | None = None
        self._before = None if agent is None else escape.fingerprint(app)

    @contextlib.contextmanager
    def output(self) -> Iterator[metering.Meter | None]:
        """What reads the agent's output as it comes; `None` where nobody wants it."""
        agent = self._agent
        if agent is None or not agent.reading.output:
            yield None
            return
        machine = turns.open_machine(self._app.environment, self._app.told)
        self._reading = meter = self._meter(agent)(machine)
        try:
            yield meter
        finally:
            self._reading = None
            meter.close()
            machine.close()

    def started(self, pid: int, *, reads_files: bool) -> None:
        """The process is there; with `reads_files` nobody reads its output, and its session files tell what it uses."""
        app, clone, agent = self._app, self._clone, self._agent
        if agent is None:
            return
        watched = watching.Watched(
            session=self._session,
            name=clone.name,
            folder=app.config_dirs.clone_path(clone.id),
            agent=agent.name,
            transcripts=agent.reading.transcripts,
            pid=pid,
        )
        meter = self._meter(agent) if reads_files else None
        waits = _Waits(app, clone, agent, self._session) if agent.reading.waiting_for else None
        place, told = self._place, app.told
        self._watch.enter_context(
            watching.watched(app.environment, app.settings, watched, place=place, meter=meter, told=told, waits=waits)
        )

    def ended(self) -> None:
        """It has ended: nothing is stopped any more; what landed outside meanwhile, and a refused login, is told."""
        self._watch.close()
        app, clone = self._app, self._clone
        if self._reading is not None:
            self._reading.close()
        refusal = None if self._login is None else self._login.ended()
        if refusal is not None:
            app.told(f"warning: {refusal}")
            with contextlib.suppress(KhloneError), app.registry.transaction() as change:
                change.note_reason(self._session, refusal)
        found = None if self._before is None else escape.compare(app, self._session, self._before)
        if found is not None:
            escape.note(app.config_dirs.clone_path(clone.id), found)
            app.told(f"warning: while a session of {clone.name} ran, {found.told}")

    def _meter(self, agent: AgentProfile) -> Callable[[Machine], metering.Meter]:
        whose = Used(
            repository=self._app.repository_id,
            clone=self._clone.id,
            name=self._clone.name,
            agent=agent.name,
            session=self._session,
            credential=self._credential,
        )
        return lambda machine: metering.Meter(machine, agent, whose, self._login)


class _Waits:
    """Plugins are told when the agent of one session waits for a person, as its own session files say."""

    def __init__(self, app: App, clone: CloneRecord, agent: AgentProfile, session: str) -> None:
        self._app, self._clone, self._agent, self._session = app, clone, agent, session

    def reason(self, pids: Iterable[int]) -> str | None:
        folder = self._clone.config_dir
        said = {} if folder is None else clients.activities(folder, self._agent, pids)
        return next((one.waiting_for for one in said.values() if one.waiting_for), None)

    def tell(self, reason: str) -> None:
        app, clone = self._app, self._clone
        with contextlib.suppress(KhloneError):
            for record in app.registry.live_sessions(clone.id):
                if record.id == self._session:
                    session = standing.as_session(app, record)
                    session = values.replace(session, activity=clients.WAITING, waiting_for=reason)
                    app.tell_problems(app.plugins.session_waiting(journal.as_clone(clone), session))
