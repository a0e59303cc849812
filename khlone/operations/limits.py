"""What has the machine, who has reserved what of it, and how many clones does it carry?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from khlone import headroom
from khlone.machine import WAITING, Lease
from khlone.operations import admission, turns
from khlone.operations.admission import Limits, reserve_bytes, shown
from khlone.settings import Settings
from khlone.values import dataclass

#: The share of one core (percent) that an active agent takes on average: 9 to 18 were measured, without its builds.
_CORE_PERCENT = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The machine now; sizes are bytes, pressure is percent of ten seconds, `None` for what it does not tell."""

    cores: float
    memory_bytes: int | None
    available_bytes: int | None
    pressure_some_percent: float | None
    pressure_full_percent: float | None
    disk_free_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A place that is held, or waited for at `position`, with the bytes reserved for it and last seen used by it."""

    number: int
    state: str
    position: int | None
    name: str
    repository: str
    kind: str
    session: str | None
    pid: int
    memory_bytes: int
    used_bytes: int
    since: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Carries:
    """How many active clones the machine carries, and by what; `arithmetic` says it for people, line by line."""

    sessions: int
    by_memory: int | None
    by_cores: int
    by_limit: int | None
    each_bytes: int
    each_core_percent: int
    arithmetic: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    machine: Facts
    limits: Limits
    carries: Carries
    places: Sequence[Reserved]


def report(
    settings: Settings, environment: Mapping[str, str], agent: str, where: Path, told: Callable[[str], None]
) -> Report:
    """Look at the machine and at the line; nothing is made or changed."""
    found = headroom.look()
    limits = admission.limits_for(settings, agent)
    machine = turns.open_machine(environment, told, make=False)
    leases: list[Lease] = []
    learned = None
    if machine.exists:
        leases = machine.leases()
        learned = machine.expected_bytes(agent)
        machine.close()
    facts = Facts(
        cores=headroom.cores(),
        memory_bytes=found.total_bytes,
        available_bytes=found.available_bytes,
        pressure_some_percent=found.some_percent,
        pressure_full_percent=found.full_percent,
        disk_free_bytes=headroom.disk_free(where),
    )
    return Report(
        machine=facts,
        limits=limits,
        carries=_carries(facts, limits, reserve_bytes(limits, found), agent, learned),
        places=[_reserved(one, leases) for one in leases],
    )


def _carries(facts: Facts, limits: Limits, reserve: int, agent: str, learned: int | None) -> Carries:
    each = learned or limits.each_bytes
    source = "nine of ten stayed below" if learned else "khlone.limits.memoryEach, none was seen yet"
    by_cores = max(1, math.floor(facts.cores * 100 / _CORE_PERCENT))
    lines = [f"cores: {facts.cores:g} x 100 % / {_CORE_PERCENT} % for an active agent = {by_cores}"]
    by_memory = None
    if facts.memory_bytes is not None and each:
        usable = max(0, facts.memory_bytes - reserve)
        if limits.memory_bytes is not None:
            usable = min(usable, limits.memory_bytes)
        by_memory = max(1, usable // each)
        held_back = f"{shown(facts.memory_bytes)} less {shown(reserve)} kept free"
        if limits.memory_bytes is not None:
            held_back += f", at most {shown(limits.memory_bytes)} by khlone.limits.memory"
        lines.append(f"memory: ({held_back}) / {shown(each)} for {agent} ({source}) = {by_memory}")
    if limits.sessions is not None:
        lines.append(f"khlone.limits.sessions = {limits.sessions}")
    if limits.of_kind is not None:
        lines.append(f"khlone.limits.agent.{agent} = {limits.of_kind}")
    known = [one for one in (by_cores, by_memory, limits.sessions, limits.of_kind) if one is not None]
    lines.append(f"the least of these: {min(known)} active clones of {agent}")
    chosen = [one for one in (limits.sessions, limits.of_kind) if one is not None]
    return Carries(
        sessions=min(known),
        by_memory=by_memory,
        by_cores=by_cores,
        by_limit=min(chosen, default=None),
        each_bytes=each,
        each_core_percent=_CORE_PERCENT,
        arithmetic=lines,
    )


def _reserved(lease: Lease, leases: Sequence[Lease]) -> Reserved:
    waits = lease.state == WAITING
    return Reserved(
        number=lease.number,
        state=lease.state,
        position=turns.position(lease, leases)[0] if waits else None,
        name=lease.name,
        repository=lease.repository,
        kind=lease.kind,
        session=lease.session,
        pid=lease.owner.pid if lease.child is None else lease.child.pid,
        memory_bytes=lease.memory_bytes,
        used_bytes=lease.used_bytes,
        since=lease.granted_at or lease.asked_at,
        reason=lease.reason,
    )
