"""May one more session start on this machine now, and what does it wait for when it may not?

By number, memory that is reserved for each kind of session, memory pressure and disk; what
is not there is waited for in line. While nothing of khlone's runs one session may always
start: otherwise a machine that others have filled would never let anything begin.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from khlone import api_rows, capacity, headroom
from khlone.api_rows import ApiLimit
from khlone.app import App
from khlone.errors import NoRoom
from khlone.headroom import Headroom
from khlone.machine import WAITING, Lease, Machine
from khlone.operations.names import sized
from khlone.operations.turns import NO_PLACE as NO_PLACE
from khlone.operations.turns import Blocker, Wish, hold, holders_of, open_machine
from khlone.operations.turns import Place as Place
from khlone.settings import Settings
from khlone.values import dataclass

#: The kind of a session that is any command, not an agent.
COMMAND = "command"
#: What a command is taken to need until its kind was seen.
_COMMAND_BYTES = 128 << 20
#: Once an API limit has lifted one session may start, and one more each so many seconds.
_WIDEN_S = 30.0
#: The share of time (percent) in which everything waits for memory that is too much, whatever the setting says of some.
_FULL_PERCENT = 1.0
#: Where the kernel tells no pressure, less memory than this share of all of it is taken for such.
_SCARCE = 0.05


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
    machine = open_machine(app.environment, app.told)
    try:
        if _is_within(app, machine):
            yield NO_PLACE
            return
        limits = limits_of(app, request)
        wish = Wish(
            name=request.name,
            clone=request.clone,
            repository=os.fspath(app.location.anchor),
            kind=request.kind,
            session=request.session,
            credential=request.credential,
            priority=request.priority,
            memory_bytes=_reserved(machine, request, limits),
            wait=request.wait,
            wait_s=limits.wait_s,
        )

        def look() -> Callable[[Lease, Sequence[Lease]], Blocker | None]:
            room, limit = _measure(request), api_limit(machine, request.credential)
            return lambda lease, leases: judge(lease, leases, limits, request, room, limit)

        with hold(machine, wish, look, told=told or app.told, check=check) as place:
            yield place
    finally:
        machine.close()


def _reserved(machine: Machine, request: Request, limits: Limits) -> int:
    """What is reserved for it; raises NoRoom where that can never be had."""
    if request.light:
        return 0
    memory, most = machine.expected_bytes(request.kind) or limits.each_bytes, limits.memory_bytes
    if most is not None and memory > most:
        why = f"a session of kind {request.kind} takes {sized(memory)} and khlone.limits.memory is {sized(most)}"
        raise NoRoom(request.name, why, never=True)
    return memory


def _measure(request: Request) -> tuple[Headroom, int | None]:
    if request.light:
        return Headroom(total_bytes=None, available_bytes=None), None
    return headroom.look(), headroom.disk_free(request.path)


def _is_within(app: App, machine: Machine) -> bool:
    """Whether this command runs in a session that has a place: it must not wait for a second one."""
    session = app.environment.get("KHLONE_SESSION")
    return bool(session) and any(one.session == session and one.state != WAITING for one in machine.leases())


def limits_of(app: App, request: Request) -> Limits:
    """The limits that the settings set for such a session."""
    app.settings.require_whole()
    return limits_for(app.settings, request.kind)


def limits_for(settings: Settings, kind: str) -> Limits:
    """The limits that settings set for sessions of a kind."""
    each = _COMMAND_BYTES if kind == COMMAND else _whole(settings.value("limits.memoryeach"))
    pressure, wait_s = settings.value("limits.pressure"), settings.value("limits.wait")
    assert isinstance(pressure, float)
    assert isinstance(wait_s, float)
    return Limits(
        sessions=_whole(settings.value("limits.sessions")),
        of_kind=_whole(settings.value(f"limits.agent.{kind.lower()}")),
        memory_bytes=_whole(settings.value("limits.memory")),
        each_bytes=each or 0,
        reserve_bytes=_whole(settings.value("limits.reserve")) or 0,
        disk_bytes=_whole(settings.value("limits.disk")) or 0,
        pressure_percent=pressure,
        wait_s=wait_s,
    )


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) else None


def judge(
    lease: Lease,
    leases: Sequence[Lease],
    limits: Limits,
    request: Request,
    room: tuple[Headroom, int | None],
    limit: ApiLimit | None = None,
) -> Blocker | None:
    """What keeps a session that waits from starting now, `None` where nothing does."""
    holders = holders_of(leases)
    limited = None if limit is None else _of_the_api(lease, holders, limit)
    return limited or _of_its_own(lease, holders, limits) or _of_all(lease, holders, limits, request, room)


def _of_its_own(lease: Lease, holders: Sequence[Lease], limits: Limits) -> Blocker | None:
    alike = sum(one.kind == lease.kind for one in holders)
    if limits.of_kind is not None and alike >= limits.of_kind:
        key = f"khlone.limits.agent.{lease.kind}"
        return Blocker(
            word=f"agent:{lease.kind}", reason=f"{alike} of {limits.of_kind} of {lease.kind} run ({key})", own=True
        )
    return None


def api_limit(machine: Machine, credential: str | None) -> ApiLimit | None:
    """The limit that an API has told of a credential, also one that has lifted of late."""
    if credential is None:
        return None
    with machine.reading() as connection:
        return api_rows.limit(connection, credential)


def allowed(limit: ApiLimit, now_s: float | None = None) -> int:
    """How many sessions of a credential may run at once: none before the limit lifts, then one more by and by."""
    since_s = (time.time() if now_s is None else now_s) - limit.until_s
    return 0 if since_s < 0 else 1 + int(since_s // _WIDEN_S)


def _of_the_api(lease: Lease, holders: Sequence[Lease], limit: ApiLimit) -> Blocker | None:
    alike = sum(one.credential == lease.credential for one in holders)
    most = allowed(limit)
    if alike < most:
        return None
    if most == 0:
        when = datetime.fromtimestamp(limit.until_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        reason = f"the API of its login says: {limit.reason}, until {when}"
    else:
        reason = f"the API of its login had enough of late ({limit.reason}): {most} may run so far, and {alike} do"
    return Blocker(word=f"credential:{limit.credential}", reason=reason, own=True)


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
        reason = f"{sized(wanted)} more than the {sized(reserved)} that are reserved pass {sized(most)}"
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
        reason=f"{sized(wanted)} of memory is wanted, and of {sized(found.available_bytes)} that are available "
        f"sessions may still take {sized(growth)}, with {sized(kept)} kept free (khlone.limits.reserve)",
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
            return Blocker(word="pressure", reason=f"{sized(available)} of {sized(total)} of memory are left")
        return None
    if some >= limits.pressure_percent or (full is not None and full >= _FULL_PERCENT):
        return Blocker(
            word="pressure",
            reason=f"programs wait for memory for {some:g} % of the time (khlone.limits.pressure)",
        )
    return None


def _disk(limits: Limits, free: int | None) -> Blocker | None:
    if free is not None and free < limits.disk_bytes:
        reason = f"{sized(free)} of disk are free, and {sized(limits.disk_bytes)} are kept (khlone.limits.disk)"
        return Blocker(word="disk", reason=reason)
    return None
