"""How is the agent of a clone asked something without a terminal, and what does it answer?

Its profile says with which words it is started, and where in what it prints the answer
stands. A prompt goes by stdin unless the profile wants it among the words. The answer lies
beside the log of the session, so that one that was asked detached can be had later, and
that the agent's session can be gone on with.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from khlone import agent_events, files
from khlone.app import App
from khlone.errors import KhloneError, NoHeadlessMode, NoSuchSession
from khlone.model import CloneRecord
from khlone.operations import environment, spending
from khlone.operations.bounds import NO_BOUNDS, Bounds
from khlone.operations.run import RunRequest
from khlone.profiles import AgentReading
from khlone.registry import SessionRecord
from khlone.values import dataclass, field_names

ASK = "ask"
#: Bytes of an answer that are kept.
_MOST_BYTES = 1 << 20
_MOST_FILE = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an agent has answered, as far as it says; `failed` where it says so, or has said nothing to its end.

    `session` is the agent's own, which `--resume` goes on with; `cost_usd` is what the agent takes it to be.
    """

    result: str | None
    failed: bool
    session: str | None
    cost_usd: float | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_creation_tokens: int | None
    truncated: bool = False


def request(
    app: App,
    clone: CloneRecord,
    prompt: str,
    *,
    extra: Sequence[str] = (),
    resume: bool = False,
    session: str | None = None,
    wait: bool = True,
    priority: int = 0,
    bounds: Bounds = NO_BOUNDS,
    max_cost_usd: float | None = None,
) -> RunRequest:
    """What is to run so that the clone's agent is asked that; `extra` words come last.

    With `resume` it goes on with the session of its last answer, or with the `session` that
    is named. Raises NoHeadlessMode, or NoSuchSession where there is none to go on with.
    """
    profile = environment.profile_of(app, clone)
    if session is None and resume:
        session = last_session(app, clone)
    words = profile.headless if session is None else profile.headless_resume
    if not profile.executable or not words:
        raise NoHeadlessMode(clone.name, profile.name, resuming=session is not None)
    allowed = spending.allowance(app, clone, profile, max_cost_usd)
    filled = [word.replace("{session}", session or "").replace("{prompt}", prompt) for word in words]
    return RunRequest(
        clone=clone.name,
        command=(profile.executable, *filled, *spending.words(profile, allowed), *extra),
        kind=ASK,
        wait=wait,
        priority=priority,
        max_time_s=bounds.max_time_s,
        stall_s=bounds.stall_s,
        max_memory_bytes=bounds.max_memory_bytes,
        max_cost_usd=max_cost_usd,
        given=None if any("{prompt}" in word for word in words) else prompt,
    )


def last_session(app: App, clone: CloneRecord) -> str:
    """The agent's own session of the clone's last answer; raises NoSuchSession where there is none."""
    for record in app.registry.sessions(clone.id):
        found = answer_of(record)
        if found is not None and found.session is not None:
            return found.session
    raise NoSuchSession(clone.name, "has no answer yet to go on from", answer=True)


# -- the answer ------------------------------------------------------------------------------


class Listener:
    """Hears what an agent prints, piece by piece, and knows at the end what it has answered."""

    def __init__(self, reading: AgentReading) -> None:
        self._reading = reading
        self._events = agent_events.Reader(whole=reading.output == "json")
        self._facts: dict[str, object] = {}
        self._tokens: agent_events.Tokens | None = None
        self._cost_usd: float | None = None
        #: What was used before in a session of the agent's, where it tells of all of that.
        self.earlier: Callable[[str | None], agent_events.Tokens] | None = None
        self._plain = bytearray()
        self._is_cut = False

    def feed(self, piece: bytes) -> None:
        """A piece of its stdout."""
        if self._reading.output:
            self._take(self._events.feed(piece))
            return
        room = _MOST_BYTES - len(self._plain)
        self._plain += piece[:room]
        self._is_cut = self._is_cut or len(piece) > room

    def _take(self, events: Iterable[Mapping[str, object]]) -> None:
        for event in events:
            for name in ("result", "failed", "session"):
                path = getattr(self._reading, name)
                found = agent_events.at(event, path) if path else None
                if found is not None:
                    self._facts[name] = found
            self._take_usage(event)

    def _take_usage(self, event: Mapping[str, object]) -> None:
        is_step = self._reading.usage_of == "step"
        usage = agent_events.at(event, self._reading.usage) if self._reading.usage else None
        if isinstance(usage, Mapping):
            tokens = agent_events.counted("", usage)
            self._tokens = agent_events.added(tokens, self._tokens) if is_step and self._tokens else tokens
        cost = agent_events.cost_of(event, self._reading)
        if cost is not None:
            self._cost_usd = cost + (self._cost_usd or 0.0) if is_step else cost

    def answer(self) -> Answer:
        """What it has answered, once it has said all."""
        if not self._reading.output:
            plain = self._plain.decode(errors="replace")
            return _answer(plain, {}, failed=False, is_cut=self._is_cut)
        self._take(self._events.end())
        facts, result, tokens = self._facts, self._facts.get("result"), self._tokens
        text = result if isinstance(result, str) else None if result is None else json.dumps(result)
        session = facts.get("session")
        if tokens is not None and self._reading.usage_of == "session" and self.earlier is not None:
            known = self.earlier(session if isinstance(session, str) else None)
            tokens = agent_events.added(tokens, known, -1)
        failed = bool(facts.get("failed")) or text is None
        return _answer(text, facts, failed=failed, tokens=tokens, cost_usd=self._cost_usd)


def _answer(
    text: str | None,
    facts: Mapping[str, object],
    *,
    failed: bool,
    tokens: agent_events.Tokens | None = None,
    cost_usd: float | None = None,
    is_cut: bool = False,
) -> Answer:
    session = facts.get("session")
    kept = None if text is None else text[:_MOST_BYTES]
    return Answer(
        result=kept,
        failed=failed,
        session=session if isinstance(session, str) and 0 < len(session) < 200 else None,
        cost_usd=cost_usd,
        input_tokens=None if tokens is None else tokens.input,
        output_tokens=None if tokens is None else tokens.output,
        cache_read_tokens=None if tokens is None else tokens.cache_read,
        cache_creation_tokens=None if tokens is None else tokens.cache_creation,
        truncated=is_cut or kept != text,
    )


def answer_path(log: Path) -> Path:
    """Where the answer of the session lies that has this log."""
    return log.with_suffix(".answer")


def write_answer(log: Path, answer: Answer) -> None:
    """Keep an answer beside the log."""
    content = {name: getattr(answer, name) for name in field_names(answer)}
    files.write_atomic(answer_path(log), json.dumps(content).encode(), durable=False)


def answer_of(record: SessionRecord) -> Answer | None:
    """The answer of a session that has one."""
    if record.log is None or record.kind != ASK:
        return None
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, RecursionError):
        content = files.read_regular(answer_path(Path(record.log)), most=_MOST_FILE)
        return None if content is None else Answer(**json.loads(content))
    return None
