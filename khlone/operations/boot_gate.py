"""How do agents that share what they write without a lock start one after the other, each past its first writes?

While it starts an agent reads, changes and writes its config without a lock: of many at
once some lose what others have written. Where clones share a config dir one starts at a
time, and the next once the config is quiet, or has said something where nobody knows
where its config lies. Where they share a login by a link, and it has run out, one starts
first and renews it: at once each would spend a refresh token that works once, and read
what another is just writing. Nobody waits for one start longer than
`khlone.limits.boot`, and who dies lets the next one go. An agent with a config dir of its
own, and a login that is good or has a lock, never waits here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from khlone import sessions
from khlone.app import App
from khlone.errors import KhloneError, NoRoom
from khlone.machine import Lease, Machine
from khlone.model import CloneRecord, Isolation
from khlone.operations import logins, turns
from khlone.operations.turns import Blocker, Place, Wish
from khlone.profiles import AgentProfile
from khlone.values import dataclass

_PREFIX = "boot:"
#: How long the config is to be unchanged, and how long after a start at the earliest that counts, in seconds:
#: Claude Code writes from 0.5 to 1.3 s after it was started.
_QUIET_S, _EARLIEST_S = 1.0, 1.5
_LOOK_S = 0.1
_MOST_ENTRIES = 1000


class Gate:
    """The turn of one start; whoever has started the agent says so, and when it says something."""

    def __init__(self, machine: Machine | None, place: Place, shared: _Shared | None, longest_s: float) -> None:
        self._machine, self._place, self._shared, self._longest_s = machine, place, shared, longest_s
        self._over, self._heard = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def started(self, pid: int) -> None:
        """The agent's process is there: from here on it is watched until the next one may start."""
        if self._machine is not None and self._place.id is not None:
            self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
            self._thread.start()

    def heard(self) -> None:
        """It has said something."""
        self._heard.set()

    def close(self) -> None:
        """Its session has ended."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, pid: int) -> None:
        assert self._machine is not None
        assert self._shared is not None
        began_s, process = time.monotonic(), sessions.identity(pid)
        while not self._over.wait(_LOOK_S):
            start = _Start(after_s=time.monotonic() - began_s, has_spoken=self._heard.is_set())
            if self._shared.is_written(start) or start.after_s >= self._longest_s or not sessions.may_live(process):
                break
        with contextlib.suppress(KhloneError):
            self._place.give_back()
        self._machine.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """How far an agent has come: so long after its start, and whether it has said something."""

    after_s: float
    has_spoken: bool


class _Shared(Protocol):
    """What agents share, and write without a lock while they start."""

    @property
    def pool(self) -> str:
        """The line in which they start."""

    @property
    def reason(self) -> str:
        """What is waited for, for people; `{name}` is the clone whose start it is."""

    def is_waited_for(self, granted_s: float, /) -> bool:
        """Whether one whose turn began then, by the monotonic clock, is in the way."""

    def is_written(self, start: _Start, /) -> bool:
        """Whether an agent that has come so far has written what it writes first."""


class _Config:
    """A config dir; `home` is `None` where nobody knows which."""

    reason = "that of {name} is under way"

    def __init__(self, agent: AgentProfile, environment_home: str, longest_s: float) -> None:
        self._home, self._longest_s = agent.home, longest_s
        place = environment_home if agent.home is None else os.fspath(agent.home)
        self.pool = f"{_PREFIX}{agent.name}:{_hashed(place)}"
        self._changed_s, self._before = 0.0, self._state()

    def is_waited_for(self, granted_s: float) -> bool:
        return time.monotonic() - granted_s < self._longest_s

    def is_written(self, start: _Start) -> bool:
        if self._home is None:
            return start.has_spoken
        state = self._state()
        if state != self._before:
            self._before, self._changed_s = state, start.after_s
        return start.after_s >= _EARLIEST_S and start.after_s - self._changed_s >= _QUIET_S

    def _state(self) -> tuple[tuple[str, int, int], ...]:
        """What can be seen of the config: each file's name, size and time."""
        found = []
        if self._home is not None:
            with contextlib.suppress(OSError), os.scandir(self._home) as entries:
                for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False):
                    with contextlib.suppress(OSError):
                        about = entry.stat(follow_symlinks=False)
                        found.append((entry.name, about.st_size, about.st_mtime_ns))
        return tuple(sorted(found))


class _SpentLogin:
    """A login that has run out, in a file that clones share by links. Once it is good again nobody waits."""

    reason = "that of {name} renews the login first"

    def __init__(self, agent: AgentProfile, file: logins.SharedFile, longest_s: float) -> None:
        # What one could not renew in that time the next one could not either.
        self._file, self._until_s = file, time.monotonic() + longest_s
        self.pool = f"{_PREFIX}login:{agent.name}:{_hashed(os.fspath(file.path))}"

    def is_waited_for(self, _: float) -> bool:
        return time.monotonic() < self._until_s and self._file.is_spent

    def is_written(self, _: _Start) -> bool:
        return not self._file.is_spent


@contextlib.contextmanager
def passed(
    app: App,
    clone: CloneRecord,
    agent: AgentProfile | None,
    variables: Mapping[str, str],
    *,
    told: Callable[[str], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Gate]:
    """Have the turn to start an agent with these variables; waits for it first.

    `check` is called meanwhile, and may raise.
    """
    longest_s = app.settings.value("limits.boot")
    assert isinstance(longest_s, float)
    shared = _shared(app, clone, agent, variables, longest_s) if longest_s else None
    if agent is None or shared is None:
        yield Gate(None, turns.NO_PLACE, None, longest_s)
        return
    say = told or app.told
    machine = turns.open_machine(app.environment, app.told)
    wish = Wish(
        name=f"the start of {agent.name} in {clone.name}",
        pool=shared.pool,
        clone=clone.id,
        repository=app.repository_id,
        kind=clone.name,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(machine.close)
        place = turns.NO_PLACE
        try:
            place = stack.enter_context(turns.hold(machine, wish, _judge(shared), told=say, check=check))
        except NoRoom as error:
            say(f"warning: {error.message}; it starts all the same")
        gate = Gate(machine, place, shared, longest_s)
        stack.callback(gate.close)
        yield gate


def _shared(
    app: App, clone: CloneRecord, agent: AgentProfile | None, variables: Mapping[str, str], longest_s: float
) -> _Shared | None:
    """What its start writes without a lock, and other clones' agents do too."""
    if agent is None:
        return None
    if not agent.config_variables and clone.isolation is Isolation.CONFIG:
        return _Config(agent, app.environment.get("HOME", ""), longest_s)
    file = logins.shared_file(clone, agent, variables)
    return _SpentLogin(agent, file, longest_s) if file is not None and file.is_spent else None


def _hashed(place: str) -> str:
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]


def _judge(shared: _Shared) -> turns.Judge:
    def judge(_: Lease, leases: Sequence[Lease]) -> Blocker | None:
        for one in turns.holders_of(leases):
            if one.granted_s is not None and shared.is_waited_for(one.granted_s):
                reason = shared.reason.format(name=one.kind)
                return Blocker(word="boot", reason=f"{reason} (pid {one.owner.pid})")
        return None

    return lambda: judge
