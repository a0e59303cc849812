"""How do agents that share one config dir start one after the other, each past its first writes?

While it starts an agent reads, changes and writes its config without a lock: of many at
once some lose what others have written. Where clones share a config dir one starts at a
time, and the next once the config is quiet, or has said something where nobody knows
where its config lies. Nobody waits for one start longer than `khlone.limits.boot`, and
who dies lets the next one go. An agent with a config dir of its own never waits here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import sessions
from khlone.app import App
from khlone.errors import KhloneError, NoRoom
from khlone.machine import Lease, Machine
from khlone.model import CloneRecord, Isolation
from khlone.operations import turns
from khlone.operations.turns import Blocker, Place, Wish
from khlone.profiles import AgentProfile

_PREFIX = "boot:"
#: How long the config is to be unchanged, and how long after a start at the earliest that counts, in seconds:
#: Claude Code writes from 0.5 to 1.3 s after it was started.
_QUIET_S, _EARLIEST_S = 1.0, 1.5
_LOOK_S = 0.1
_MOST_ENTRIES = 1000


class Gate:
    """The turn of one start; whoever has started the agent says so, and when it says something."""

    def __init__(self, machine: Machine | None, place: Place, home: Path | None, longest_s: float) -> None:
        self._machine, self._place, self._home, self._longest_s = machine, place, home, longest_s
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
        began_s = changed_s = time.monotonic()
        process, before = sessions.identity(pid), self._state()
        while not self._over.wait(_LOOK_S):
            now, state = time.monotonic(), self._state()
            if state != before:
                before, changed_s = state, now
            is_quiet = now - began_s >= _EARLIEST_S and now - changed_s >= _QUIET_S
            if is_quiet if self._home is not None else self._heard.is_set():
                break
            if now - began_s >= self._longest_s or not sessions.may_live(process):
                break
        assert self._machine is not None
        with contextlib.suppress(KhloneError):
            self._place.give_back()
        self._machine.close()

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


@contextlib.contextmanager
def passed(
    app: App,
    clone: CloneRecord,
    agent: AgentProfile | None,
    *,
    told: Callable[[str], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Gate]:
    """Have the turn to start an agent; waits for it first. `check` is called meanwhile, and may raise."""
    longest_s = app.settings.value("limits.boot")
    assert isinstance(longest_s, float)
    if agent is None or not longest_s or not _is_shared(clone, agent):
        yield Gate(None, turns.NO_PLACE, None, longest_s)
        return
    say = told or app.told
    machine = turns.open_machine(app.environment, app.told)
    wish = Wish(
        name=f"the start of {agent.name} in {clone.name}",
        pool=f"{_PREFIX}{agent.name}:{_place_of(agent, app.environment.get('HOME', ''))}",
        clone=clone.id,
        repository=app.repository_id,
        kind=clone.name,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(machine.close)
        place = turns.NO_PLACE
        try:
            judge = lambda: lambda _, leases: _judge(leases, longest_s)  # noqa: E731 (as `turns.Judge` is called)
            place = stack.enter_context(turns.hold(machine, wish, judge, told=say, check=check))
        except NoRoom as error:
            say(f"warning: {error.message}; it starts all the same")
        gate = Gate(machine, place, agent.home, longest_s)
        stack.callback(gate.close)
        yield gate


def _is_shared(clone: CloneRecord, agent: AgentProfile) -> bool:
    """Whether other clones' agents write the same config."""
    return not agent.config_variables and clone.isolation is Isolation.CONFIG


def _place_of(agent: AgentProfile, home: str) -> str:
    place = home if agent.home is None else os.fspath(agent.home)
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]


def _judge(leases: Sequence[Lease], longest_s: float) -> Blocker | None:
    now = time.monotonic()
    for one in turns.holders_of(leases):
        if one.granted_s is not None and now - one.granted_s < longest_s:
            return Blocker(word="boot", reason=f"that of {one.kind} is under way (pid {one.owner.pid})")
    return None
