"""What does the output of an agent say of its API's limits and of what it has used, and where is it written down?

Limits are kept by credential, for all sessions that use it on this machine; what was used,
by session and minute.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from khlone import agent_events, api_rows
from khlone.agent_events import Tokens
from khlone.api_rows import Used
from khlone.errors import KhloneError
from khlone.machine import Machine
from khlone.operations import logins
from khlone.profiles import AgentProfile

#: Seconds between two writes of what was used.
_WRITE_S = 10.0
#: Answers of one session that are told apart.
_MOST_ANSWERS = 100_000


class Meter:
    """Reads what one session writes, as it comes, and writes down what it says.

    `used` says whose session it is, `login` hears the events too. Nothing that goes wrong here reaches the session.
    """

    def __init__(self, machine: Machine, profile: AgentProfile, used: Used, login: logins.Ear | None = None) -> None:
        self._machine = machine
        self._login = login
        self._profile = profile
        self._whose = used
        self._output = agent_events.Reader(whole=profile.reading.output == "json")
        self._transcript = agent_events.Reader()
        self._answers: dict[str, Tokens] = {}
        #: What the session of the agent's has told last, where that is of all of it.
        self._told: Tokens | None = None
        #: The dollars that the session has told of so far.
        self.cost_usd = 0.0
        self._waiting: list[Used] = []
        self._agent_session: str | None = used.agent_session
        self._written_s = time.monotonic()

    def feed_output(self, piece: bytes) -> None:
        """A piece of the client's own output: an object a line, or one in all (which `close` reads)."""
        for event in self._output.feed(piece):
            self._take_output(event)
        self._write_sometimes()

    def feed_transcript(self, piece: bytes) -> None:
        """A piece of a session file: what each answer has used stands there, some of it more than once."""
        for event in self._transcript.feed(piece):
            self._note_limit(event)
            if self._login is not None:
                self._login.take(event)
            tokens = agent_events.tokens_of(event)
            if tokens is not None and len(self._answers) < _MOST_ANSWERS:
                before = self._answers.get(tokens.key)
                self._answers[tokens.key] = tokens
                self._count(tokens, before)
        self._write_sometimes()

    def close(self) -> None:
        """Read what is left, and write down what is not written yet; once more there is nothing."""
        for event in self._output.end():
            self._take_output(event)
        self._write()

    def _take_output(self, event: Mapping[str, object]) -> None:
        reading = self._profile.reading
        self._note_limit(event)
        if self._login is not None:
            self._login.take(event, is_output=True)
        session = agent_events.at(event, reading.session) if reading.session else None
        if isinstance(session, str) and len(session) < 200:
            self._agent_session = session
        message = event.get("message")
        if isinstance(message, Mapping) and isinstance(message.get("id"), str):
            key = str(message["id"])
            if key not in self._answers and len(self._answers) < _MOST_ANSWERS:
                self._answers[key] = Tokens(key=key)
                self._count(Tokens(key=key), None)
            return
        usage = agent_events.at(event, reading.usage) if reading.usage else None
        cost = agent_events.cost_of(event, reading)
        if isinstance(usage, Mapping) or cost is not None:
            tokens = agent_events.counted("", usage if isinstance(usage, Mapping) else {})
            if reading.usage_of == "session":
                known = self._told or self.earlier(self._agent_session)
                self._told, tokens = tokens, agent_events.added(tokens, known, -1)
            if reading.usage_of == "step":
                more, self.cost_usd = cost, self.cost_usd + (cost or 0.0)
            else:
                # What it has cost is told for all of the session each time.
                more, self.cost_usd = None if cost is None else max(0.0, cost - self.cost_usd), cost or self.cost_usd
            self._count(tokens, None, requests=0 if self._answers else 1, cost_usd=more)

    def earlier(self, agent_session: str | None) -> Tokens:
        """What was used in a session of the agent's before it was gone on with here."""
        if agent_session is None:
            return Tokens(key="")
        with contextlib.suppress(KhloneError), self._machine.reading() as connection:
            return Tokens(key="", **api_rows.used_earlier(connection, self._whose, agent_session))
        return Tokens(key="")

    def _count(self, now: Tokens, before: Tokens | None, *, requests: int = 1, cost_usd: float | None = None) -> None:
        """Add what is new since the same answer was seen before."""
        old, whose = before or Tokens(key=now.key), self._whose
        self._waiting.append(
            Used(
                repository=whose.repository,
                clone=whose.clone,
                name=whose.name,
                agent=whose.agent,
                session=whose.session,
                agent_session=self._agent_session,
                credential=whose.credential,
                requests=requests if before is None else 0,
                input=max(0, now.input - old.input),
                output=max(0, now.output - old.output),
                cache_read=max(0, now.cache_read - old.cache_read),
                cache_creation=max(0, now.cache_creation - old.cache_creation),
                cost_usd=cost_usd,
            )
        )

    def _note_limit(self, event: Mapping[str, object]) -> None:
        evidence = agent_events.evidence_of(event, self._profile.reading)
        if evidence is None or self._whose.credential is None:
            return
        with contextlib.suppress(KhloneError), self._machine.transaction() as change:
            api_rows.note_limit(
                change.connection,
                self._whose.credential,
                evidence.status,
                evidence.until_s,
                evidence.reason,
                is_told=evidence.is_told,
            )

    def _write_sometimes(self) -> None:
        if self._waiting and time.monotonic() - self._written_s >= _WRITE_S:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._written_s = time.monotonic()
        if waiting:
            with contextlib.suppress(KhloneError), self._machine.transaction() as change:
                api_rows.sum_up_old(change.connection)
                for one in waiting:
                    api_rows.add_used(change.connection, one)
