"""May one more session start on this machine now, and who is next when it may not?

Whoever asks gets in line: by priority, then in the order of asking. What is not there is
waited for, with the reason and the place in line told whenever they change. Only the
first in line starts, and the next one once it has; but one that waits for something of
its own (the limit of its agent) keeps nobody else waiting, nor does one that is stopped.
While nothing of khlone's runs one session may always start: otherwise a machine that
others have filled would never let anything begin.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import capacity, headroom, sessions
from khlone.app import App
from khlone.bells import Bell
from khlone.config_dir import state_root
from khlone.errors import KhloneError, NoRoom
from khlone.headroom import Headroom
from khlone.machine import RUNNING, STARTING, WAITING, Change, Lease, Machine
from khlone.model import ProcessIdentity
from khlone.values import dataclass, replace

#: The kind of a session that is any command, not an agent.
COMMAND = "command"
#: What a command is taken to need until its kind was seen.
_COMMAND_BYTES = 128 << 20
#: How long the first in line may take from its turn until its process is there, in seconds.
_START_S = 5.0
#: Seconds between two looks of the first few in line, and of the others; a bell wakes them earlier.
_NEAR_S, _FAR_S = 0.5, 2.0
_NEAR = 4
#: What is a matter of moments is told when it takes longer, in seconds.
_UNTOLD_S = 1.0
_LINE, _START = "line", "start"
#: The share of time (percent) in which everything waits for memory that is too much, whatever the setting says of some.
_FULL_PERCENT = 1.0
#: Where the kernel tells no pressure, less memory than this share of all of it is taken for such.
_SCARCE = 0.05
#: A session's memory is written down again when it has grown by this much.
_GROWN = 1.1
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a session that is about to start asks for.

    `kind` is the name of its agent, or `COMMAND`; `session` its id. A higher `priority`
    goes first. With `wait` false it is refused instead of waiting. A `light` one only
    counts: neither memory nor disk is looked at. `credential` is the hash of what it logs
    in with, never the secret itself.
    """

    clone: str
    name: str
    path: Path
    kind: str = COMMAND
    session: str | None = None
    priority: int = 0
    wait: bool = True
    light: bool = False
    credential: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this repository's settings allow on the machine; `None` for any number."""

    sessions: int | None
    of_kind: int | None
    memory_bytes: int | None
    each_bytes: int
    reserve_bytes: int
    disk_bytes: int
    pressure_percent: float
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """What a session waits for: a stable word, and the reason for people. Others wait behind it unless it is `own`."""

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
    def number(self) -> int | None:
        """Its number in the order of asking; `None` for one that needed none."""
        return None if self._lease is None else self._lease.number

    def started(self, pid: int) -> None:
        """The session's process is there: from here on the place is kept for as long as it or this process lives."""
        if self._machine is not None and self._lease is not None:
            with self._machine.transaction() as change:
                change.note_started(self._lease.id, sessions.identity(pid))
                left = change.leases
            self._machine.wake(left)

    def note_usage(self, used_bytes: int) -> None:
        """What the session uses now (PSS where it is known); may be called as often as it is measured."""
        self._peak = max(self._peak, used_bytes)
        if self._machine is None or self._lease is None or used_bytes < self._written * _GROWN:
            return
        self._written = used_bytes
        with self._machine.transaction() as change:
            change.note_used(self._lease.id, used_bytes)

    def give_back(self) -> None:
        """Give it back, and wake whoever is next; what the session used at most is remembered for its kind."""
        machine, lease = self._machine, self._lease
        self._machine = self._lease = None
        if machine is None or lease is None:
            return
        # What cannot be written down is found out by whoever asks next: the bell is silent by then.
        with contextlib.suppress(KhloneError):
            with machine.transaction() as change:
                change.give_back(lease.id)
                if self._peak:
                    change.remember_peak(lease.kind, self._peak)
                left = change.leases
            machine.wake(left)


#: A place for what needs none.
NO_PLACE = Place(None, None)


@contextlib.contextmanager
def admit(
    app: App,
    request: Request,
    *,
    told: Callable[[str], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Place]:
    """Hold a place for a session for the length of the block; waits for its turn first.

    `told` gets the reason and the place in line whenever they change; `check` is called
    after each wait and may raise. Within a session that has a place none is asked for.
    Raises NoRoom when it may not wait, has waited for `khlone.limits.wait`, or asks for
    more than it could ever be given.
    """
    machine = open_machine(app)
    limits = limits_of(app, request)
    bell: Bell | None = None
    place = Place(None, None)
    try:
        if not _is_within(app, machine):
            lease_id = os.urandom(8).hex()
            bell = machine.new_bell(lease_id)
            where = os.fspath(app.location.anchor)
            lease = _Turn(machine, request, limits, where, lease_id, told or app.told, check).await_it(bell)
            place = Place(machine, lease)
        yield place
    finally:
        if bell is not None:
            bell.close()
        place.give_back()
        machine.close()


def open_machine(app: App) -> Machine:
    """The user's machine database, its folders made; a damaged one is set aside."""
    machine = Machine(state_root(app.environment), here=sessions.identity(), lives=_lives)
    machine.prepare(app.told)
    return machine


def _lives(owner: ProcessIdentity) -> bool:
    """Whether a process lives that can be seen from here: the bell tells of the others."""
    return sessions.out_of_sight(owner) is None and sessions.may_live(owner)


def _is_within(app: App, machine: Machine) -> bool:
    """Whether this command runs in a session that has a place: it must not wait for a second one."""
    session = app.environment.get("KHLONE_SESSION")
    return bool(session) and any(one.session == session and one.state != WAITING for one in machine.leases())


def limits_of(app: App, request: Request) -> Limits:
    """The limits that the settings set for such a session."""
    settings = app.settings
    settings.require_whole()
    each = _COMMAND_BYTES if request.kind == COMMAND else _whole(settings.value("limits.memoryeach"))
    reserve = _whole(settings.value("limits.reserve"))
    pressure, wait_s = settings.value("limits.pressure"), settings.value("limits.wait")
    assert isinstance(pressure, float)
    assert isinstance(wait_s, float)
    return Limits(
        sessions=_whole(settings.value("limits.sessions")),
        of_kind=_whole(settings.value(f"limits.agent.{request.kind.lower()}")),
        memory_bytes=_whole(settings.value("limits.memory")),
        each_bytes=each or 0,
        reserve_bytes=reserve or 0,
        disk_bytes=_whole(settings.value("limits.disk")) or 0,
        pressure_percent=pressure,
        wait_s=wait_s,
    )


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None


class _Turn:
    """One session in line, until it is its turn."""

    def __init__(
        self,
        machine: Machine,
        request: Request,
        limits: Limits,
        repository: str,
        lease_id: str,
        told: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._machine, self._request, self._limits = machine, request, limits
        self._repository, self._id, self._told, self._check = repository, lease_id, told, check
        self._said: tuple[int, str] | None = None

    def await_it(self, bell: Bell) -> Lease:
        """The lease, once it is granted; whatever is raised, the line is left."""
        started = time.monotonic()
        try:
            blocker, lease, position = self._ask()
            while blocker is not None:
                waited_s = time.monotonic() - started
                if waited_s >= _UNTOLD_S or blocker.word not in (_LINE, _START):
                    self._tell(blocker, position)
                if not self._request.wait or waited_s >= self._limits.wait_s:
                    raise NoRoom(self._request.name, blocker.reason, position=position[0], waited_s=waited_s)
                bell.wait(min(_NEAR_S if position[0] <= _NEAR else _FAR_S, self._limits.wait_s - waited_s))
                self._check()
                blocker, lease, position = self._look(lease)
        except BaseException:
            self._leave()
            raise
        return lease

    def _leave(self) -> None:
        with contextlib.suppress(KhloneError):
            with self._machine.transaction() as change:
                change.give_back(self._id)
                left = change.leases
            self._machine.wake(left)

    def _ask(self) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        request = self._request
        memory = 0 if request.light else self._machine.expected_bytes(request.kind) or self._limits.each_bytes
        most = self._limits.memory_bytes
        if most is not None and memory > most:
            raise NoRoom(
                request.name,
                f"a session of kind {request.kind} takes {shown(memory)} and khlone.limits.memory is {shown(most)}",
                never=True,
            )
        room = self._measure()
        with self._machine.transaction() as change:
            lease = change.ask(
                lease_id=self._id,
                priority=request.priority,
                repository=self._repository,
                clone=request.clone,
                name=request.name,
                kind=request.kind,
                session=request.session,
                credential=request.credential,
                memory_bytes=memory,
                owner=sessions.identity(),
            )
            return self._decide(change, lease, room)

    def _look(self, lease: Lease) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        """Look again, and take the place if it is there; nothing is written while nothing changes."""
        room = self._measure()
        leases = self._machine.leases()
        blocker = judge(lease, leases, self._limits, self._request, room)
        if blocker is not None and blocker.word == lease.blocker:
            return blocker, lease, _position(lease, leases)
        with self._machine.transaction() as change:
            return self._decide(change, change.find(self._id) or lease, room)

    def _decide(
        self, change: Change, lease: Lease, room: tuple[Headroom, int | None]
    ) -> tuple[Blocker | None, Lease, tuple[int, int]]:
        blocker = judge(lease, change.leases, self._limits, self._request, room)
        if blocker is None:
            change.grant(self._id)
        else:
            change.note_blocker(self._id, ("own:" if blocker.own else "") + blocker.word, blocker.reason)
            lease = replace(lease, blocker=blocker.word)
        return blocker, lease, _position(lease, change.leases)

    def _measure(self) -> tuple[Headroom, int | None]:
        if self._request.light:
            return Headroom(total_bytes=None, available_bytes=None), None
        return headroom.look(), headroom.disk_free(self._request.path)

    def _tell(self, blocker: Blocker, position: tuple[int, int]) -> None:
        if self._request.wait and self._said != (position[0], blocker.word):
            self._said = (position[0], blocker.word)
            self._told(f"{self._request.name} waits, number {position[0]} of {position[1]} in line: {blocker.reason}")


def judge(
    lease: Lease,
    leases: Sequence[Lease],
    limits: Limits,
    request: Request,
    room: tuple[Headroom, int | None],
) -> Blocker | None:
    """What keeps a session that waits from starting now, `None` where nothing does."""
    holders = [one for one in leases if one.state in (STARTING, RUNNING)]
    own = _of_its_own(lease, holders, limits)
    if own is not None:
        return own
    shared = _of_all(lease, holders, limits, request, room)
    if shared is not None:
        return shared
    ahead = [one for one in _ahead(lease, leases) if _keeps_waiting(one)]
    if ahead:
        return Blocker(word=_LINE, reason=ahead[0].reason or f"it is the turn of {ahead[0].name}")
    starting = next((one for one in holders if _is_starting(one)), None)
    if starting is not None:
        return Blocker(word=_START, reason=f"{starting.name} is starting")
    return None


def _of_its_own(lease: Lease, holders: Sequence[Lease], limits: Limits) -> Blocker | None:
    alike = sum(one.kind == lease.kind for one in holders)
    if limits.of_kind is not None and alike >= limits.of_kind:
        key = f"khlone.limits.agent.{lease.kind}"
        return Blocker(
            word=f"agent:{lease.kind}", reason=f"{alike} of {limits.of_kind} of {lease.kind} run ({key})", own=True
        )
    return None


def _of_all(
    lease: Lease, holders: Sequence[Lease], limits: Limits, request: Request, room: tuple[Headroom, int | None]
) -> Blocker | None:
    if limits.sessions is not None and len(holders) >= limits.sessions:
        reason = f"{len(holders)} of {limits.sessions} sessions run (khlone.limits.sessions)"
        return Blocker(word="sessions", reason=reason)
    if request.light or not holders:
        return None
    found, disk = room
    return _memory(lease, holders, limits, found) or _pressure(limits, found) or _disk(limits, disk)


def _memory(lease: Lease, holders: Sequence[Lease], limits: Limits, found: Headroom) -> Blocker | None:
    reserved = sum(max(one.memory_bytes, one.used_bytes) for one in holders)
    wanted, most = lease.memory_bytes, limits.memory_bytes
    if most is not None and reserved + wanted > most:
        reason = f"{shown(wanted)} more than the {shown(reserved)} that are reserved pass {shown(most)}"
        return Blocker(word="memory", reason=f"{reason} (khlone.limits.memory)")
    if found.available_bytes is None:
        return None
    kept = reserve_bytes(limits, found)
    if found.available_bytes - reserved - wanted >= kept:
        return None
    # Only now what they use already is worth a look at every process: it is not available any more.
    growth = sum(max(0, one.memory_bytes - used) for one, used in zip(holders, _used(holders), strict=True))
    if found.available_bytes - growth - wanted >= kept:
        return None
    return Blocker(
        word="memory",
        reason=f"{shown(wanted)} of memory is wanted, and of {shown(found.available_bytes)} that are available "
        f"sessions may still take {shown(growth)}, with {shown(kept)} kept free (khlone.limits.reserve)",
    )


def reserve_bytes(limits: Limits, found: Headroom) -> int:
    """How much memory is kept free: what the setting says, else a tenth of all, at most 1 GiB."""
    return limits.reserve_bytes or min(1 << 30, (found.total_bytes or 0) // 10)


def _used(holders: Sequence[Lease]) -> list[int]:
    """What each uses now, as far as that can be seen."""
    trees = capacity.tree_bytes([one.child.pid for one in holders if one.child is not None])
    return [max(one.used_bytes, trees.get(one.child.pid, 0) if one.child is not None else 0) for one in holders]


def _pressure(limits: Limits, found: Headroom) -> Blocker | None:
    if not limits.pressure_percent:
        return None
    some, full = found.some_percent, found.full_percent
    if some is None:
        total, available = found.total_bytes, found.available_bytes
        if total is not None and available is not None and available < total * _SCARCE:
            return Blocker(word="pressure", reason=f"{shown(available)} of {shown(total)} of memory are left")
        return None
    if some >= limits.pressure_percent or (full is not None and full >= _FULL_PERCENT):
        return Blocker(
            word="pressure",
            reason=f"programs wait for memory for {some:g} % of the time (khlone.limits.pressure)",
        )
    return None


def _disk(limits: Limits, free: int | None) -> Blocker | None:
    if free is not None and free < limits.disk_bytes:
        reason = f"{shown(free)} of disk are free, and {shown(limits.disk_bytes)} are kept (khlone.limits.disk)"
        return Blocker(word="disk", reason=reason)
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


def _position(lease: Lease, leases: Sequence[Lease]) -> tuple[int, int]:
    """Its place in line, and how many there are in line."""
    return len(_ahead(lease, leases)) + 1, sum(one.state == WAITING for one in leases)


def shown(size: int) -> str:
    """Bytes for people."""
    if size < _MIB:
        return f"{math.ceil(size / 1024)} KiB"
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{math.ceil(size / _MIB)} MiB"
