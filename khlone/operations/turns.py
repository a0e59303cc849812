"""How does one of many get its turn at what the machine has little of?

Whoever asks gets in line: by priority, then in the order of asking. Only the first in line
starts, and the next one once it has; but one that waits for something of its own keeps
nobody else waiting, nor does one that is stopped. The reason and the place in line are told
whenever they change.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from khlone import capacity, sessions
from khlone.bells import Bell
from khlone.config_dir import state_root
from khlone.errors import KhloneError, NoRoom
from khlone.machine import RUNNING, STARTING, WAITING, Change, Lease, Machine
from khlone.model import ProcessIdentity
from khlone.operations import steering
from khlone.values import dataclass, replace

#: How long the first in line may take from its turn until its process is there, in seconds.
_START_S = 5.0
#: Seconds between two looks of the first few in line, and of the others; a bell wakes them earlier.
_NEAR_S, _FAR_S = 0.5, 2.0
_NEAR = 4
#: What is a matter of moments is told when it takes longer, in seconds.
_UNTOLD_S = 1.0
_LINE, _START = "line", "start"
#: A session's memory is written down again when it has grown by this much.
_GROWN = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody gets in line for; `name` is what people are told that waits."""

    name: str
    pool: str = ""
    clone: str = ""
    repository: str = ""
    kind: str = ""
    session: str | None = None
    credential: str | None = None
    command: str = ""
    priority: int = 0
    memory_bytes: int = 0
    wait: bool = True
    wait_s: float = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """What is waited for: a stable word, and the reason for people. Others wait behind it unless it is `own`."""

    word: str
    reason: str
    own: bool = False


class Place:
    """A place that was given to a session, until it is given back."""

    def __init__(self, machine: Machine | None, lease: Lease | None) -> None:
        self._machine = machine
        self._lease = lease
        self._written = self._peak = 0

    @property
    def id(self) -> str | None:
        """Its id in the machine database; `None` for one that needed none."""
        return None if self._lease is None else self._lease.id

    @property
    def number(self) -> int | None:
        """Its number in the order of asking; `None` for one that needed none."""
        return None if self._lease is None else self._lease.number

    def started(self, pid: int) -> None:
        """The session's process is there: from here on the place is kept for as long as it or this process lives."""
        if self._machine is not None and self._lease is not None:
            with self._machine.transaction(self._lease.pool) as change:
                change.note_started(self._lease.id, sessions.identity(pid))
                left = change.leases
            self._machine.wake(left)

    def note_usage(self, used_bytes: int) -> None:
        """What the session uses now (PSS where it is known); may be called as often as it is measured."""
        self._peak = max(self._peak, used_bytes)
        if self._machine is None or self._lease is None or used_bytes < self._written * _GROWN:
            return
        self._written = used_bytes
        with self._machine.transaction(self._lease.pool) as change:
            change.note_used(self._lease.id, used_bytes)

    def give_back(self) -> None:
        """Give it back, and wake whoever is next; what the session used at most is remembered for its kind."""
        machine, lease = self._machine, self._lease
        self._machine = self._lease = None
        if machine is None or lease is None:
            return
        # What cannot be written down is found out by whoever asks next: the bell is silent by then.
        with contextlib.suppress(KhloneError):
            with machine.transaction(lease.pool) as change:
                change.give_back(lease.id)
                if self._peak:
                    change.remember_peak(lease.kind, self._peak)
                left = change.leases
            machine.wake(left)


#: A place for what needs none.
NO_PLACE = Place(None, None)


#: Looks at the machine, without a lock, and gives what judges the leases by what was seen.
Judge = Callable[[], Callable[[Lease, Sequence[Lease]], Blocker | None]]


@contextlib.contextmanager
def hold(
    machine: Machine,
    wish: Wish,
    judge: Judge,
    *,
    told: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Place]:
    """Hold what is wished for, for the length of the block; waits for the turn first.

    `judge` says what is in the way, the line aside. `check` is called after each wait and
    may raise. Raises NoRoom when it may not wait, or has waited for `wait_s`.
    """
    bell: Bell | None = None
    place = NO_PLACE
    try:
        lease_id = os.urandom(8).hex()
        bell = machine.new_bell(lease_id)
        lease = _Turn(machine, wish, judge, lease_id, told, check).await_it(bell)
        place = Place(machine, lease)
        yield place
    finally:
        if bell is not None:
            bell.close()
        place.give_back()


def machine_of(environment: Mapping[str, str]) -> Machine:
    """The user's machine database as it is: nothing is made, and nothing of an older version migrated."""
    return Machine(state_root(environment), here=sessions.identity(), lives=_lives)


def open_machine(environment: Mapping[str, str], told: Callable[[str], None], *, make: bool = True) -> Machine:
    """The user's machine database, its folders made; a damaged one is set aside."""
    machine = machine_of(environment)
    if make or machine.exists:
        machine.prepare(told)
        _free_forsaken(machine)
    return machine


def _free_forsaken(machine: Machine) -> None:
    """Let go on what was stopped by a khlone that was killed."""
    if not machine.has_forsaken_stops():
        return
    with machine.transaction() as change:
        found = change.forsaken_stops()
    steering.send([one.pid for one in found if _lives(one.process)], signal.SIGCONT)


def _lives(owner: ProcessIdentity) -> bool:
    """Whether a process lives that can be seen from here: the bell tells of the others."""
    return sessions.out_of_sight(owner) is None and sessions.may_live(owner)


class _Turn:
    """One in line, until it is its turn."""

    def __init__(
        self,
        machine: Machine,
        wish: Wish,
        judge: Judge,
        lease_id: str,
        told: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._machine, self._wish, self._judge = machine, wish, judge
        self._id, self._told, self._check = lease_id, told, check
        self._said: tuple[int, str] | None = None

    def await_it(self, bell: Bell) -> Lease:
        """The lease, once it is granted; whatever is raised, the line is left."""
        wish, started = self._wish, time.monotonic()
        try:
            blocker, lease, position = self._ask()
            while blocker is not None:
                waited_s = time.monotonic() - started
                if waited_s >= _UNTOLD_S or blocker.word not in (_LINE, _START):
                    self._tell(blocker, position)
                if not wish.wait or waited_s >= wish.wait_s:
                    raise NoRoom(
                        wish.name,
                        blocker.reason,
                        position=position[0],
                        waited_s=waited_s,
                        slot=blocker.word == "slots",
                    )
                bell.wait(min(_NEAR_S if position[0] <= _NEAR else _FAR_S, wish.wait_s - waited_s))
                self._check()
                blocker, lease, position = self._look(lease)
        except BaseException:
            self._leave()
            raise
        return lease

    def _leave(self) -> None:
        with contextlib.suppress(KhloneError):
            with self._machine.transaction(self._wish.pool) as change:
                change.give_back(self._id)
                left = change.leases
            self._machine.wake(left)

    def _ask(self) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        wish, judge = self._wish, self._judge()
        with self._machine.transaction(wish.pool) as change:
            lease = change.ask(
                lease_id=self._id,
                priority=wish.priority,
                repository=wish.repository,
                clone=wish.clone,
                name=wish.name,
                kind=wish.kind,
                session=wish.session,
                credential=wish.credential,
                memory_bytes=wish.memory_bytes,
                command=wish.command,
                owner=sessions.identity(),
            )
            return self._decide(change, lease, judge)

    def _look(self, lease: Lease) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        """Look again, and take the place if it is there; nothing is written while nothing changes."""
        judge = self._judge()
        leases = self._machine.leases(self._wish.pool)
        blocker = judge(lease, leases) or _of_the_line(lease, leases)
        if blocker is not None and blocker.word == lease.blocker:
            return blocker, lease, position(lease, leases)
        with self._machine.transaction(self._wish.pool) as change:
            return self._decide(change, change.find(self._id) or lease, judge)

    def _decide(
        self, change: Change, lease: Lease, judge: Callable[[Lease, Sequence[Lease]], Blocker | None]
    ) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        blocker = judge(lease, change.leases) or _of_the_line(lease, change.leases)
        if blocker is None:
            change.grant(self._id)
        else:
            change.note_blocker(self._id, ("own:" if blocker.own else "") + blocker.word, blocker.reason)
            lease = replace(lease, blocker=blocker.word)
        return blocker, lease, position(lease, change.leases)

    def _tell(self, blocker: Blocker, place: tuple[int, int]) -> None:
        if self._wish.wait and self._said != (place[0], blocker.word):
            self._said = (place[0], blocker.word)
            self._told(f"{self._wish.name} waits, number {place[0]} of {place[1]} in line: {blocker.reason}")


def holders_of(leases: Sequence[Lease]) -> list[Lease]:
    """Those that have what the others wait for."""
    return [one for one in leases if one.state in (STARTING, RUNNING)]


def _of_the_line(lease: Lease, leases: Sequence[Lease]) -> Blocker | None:
    ahead = [one for one in _ahead(lease, leases) if _keeps_waiting(one)]
    if ahead:
        return Blocker(word=_LINE, reason=ahead[0].reason or f"it is the turn of {ahead[0].name}")
    starting = next((one for one in leases if _is_starting(one)), None)
    if starting is not None:
        return Blocker(word=_START, reason=f"{starting.name} is starting")
    return None


def _ahead(lease: Lease, leases: Sequence[Lease]) -> list[Lease]:
    """Who waits before it, in order."""
    place = (-lease.priority, lease.number)
    return [one for one in leases if one.state == WAITING and (-one.priority, one.number) < place]


def _keeps_waiting(one: Lease) -> bool:
    """Whether those behind it wait for it: not where it waits for something of its own, or is stopped."""
    return not (one.blocker or "").startswith("own:") and not capacity.is_stopped(one.owner.pid)


def _is_starting(one: Lease) -> bool:
    if one.state != STARTING or one.granted_s is None:
        return False
    return time.monotonic() - one.granted_s < _START_S and not capacity.is_stopped(one.owner.pid)


def position(lease: Lease, leases: Sequence[Lease]) -> tuple[int, int]:
    """Its place in line, and how many there are in line."""
    return len(_ahead(lease, leases)) + 1, sum(one.state == WAITING for one in leases)
