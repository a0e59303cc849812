"""What has the machine, who has reserved what of it, and how many clones does it carry?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from khlone import api_rows, headroom, values
from khlone.api_rows import ApiLimit, Used
from khlone.login_rows import RefusedLogin
from khlone.machine import WAITING, Lease
from khlone.operations import admission, logins, turns
from khlone.operations.admission import Limits, reserve_bytes
from khlone.operations.names import sized
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
class Credential:
    """A login, by its hash, that an API has limited until `until` (it may have lifted); `allowed` sessions may run."""

    credential: str
    status: int
    reason: str
    until: str
    lifted: bool
    sessions: int
    allowed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A login, by its hash, that an API has refused: in a `variable` of the clone `name`, or the user's own."""

    credential: str
    agent: str
    name: str
    variable: str | None
    status: int
    since: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What the sessions of one clone of this repository ask of an API, over this minute and the one before."""

    name: str
    clone: str
    requests_per_minute: float
    input_tokens_per_minute: float
    output_tokens_per_minute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    machine: Facts
    limits: Limits
    carries: Carries
    places: Sequence[Reserved]
    credentials: Sequence[Credential]
    refused: Sequence[Refused]
    rates: Sequence[Rate]


def report(
    settings: Settings,
    environment: Mapping[str, str],
    agent: str,
    where: Path,
    told: Callable[[str], None],
    *,
    repository: str | None = None,
) -> Report:
    """Look at the machine, at the line, and at what the clones of a repository ask of APIs; nothing is changed."""
    found = headroom.look()
    limits = admission.limits_for(settings, agent)
    machine = turns.open_machine(environment, told, make=False)
    leases: list[Lease] = []
    learned = None
    credentials: list[Credential] = []
    rates: list[Rate] = []
    if machine.exists:
        leases = machine.leases()
        learned = machine.expected_bytes(agent)
        with machine.reading() as connection:
            credentials = [_credential(one, leases) for one in api_rows.limits(connection)]
            if repository is not None:
                rates = _rates(api_rows.used(connection, repository, minutes=2), 1 + time.time() % 60 / 60)
        machine.close()
    facts = Facts(
        cores=headroom.cores(),
        memory_bytes=found.total_bytes,
        available_bytes=found.available_bytes,
        pressure_some_percent=found.some_percent,
        pressure_full_percent=found.full_percent,
        disk_free_bytes=headroom.disk_free(where),
    )
    limits = values.replace(limits, reserve_bytes=reserve_bytes(limits, found))
    return Report(
        machine=facts,
        limits=limits,
        carries=_carries(facts, limits, agent, learned),
        places=[_reserved(one, leases) for one in leases],
        credentials=credentials,
        refused=[_refused(one) for one in logins.refused(environment)],
        rates=rates,
    )


def _carries(facts: Facts, limits: Limits, agent: str, learned: int | None) -> Carries:
    each = learned or limits.each_bytes
    source = "nine of ten stayed below" if learned else "khlone.limits.memoryEach, none was seen yet"
    by_cores = max(1, math.floor(facts.cores * 100 / _CORE_PERCENT))
    lines = [f"cores: {facts.cores:g} x 100 % / {_CORE_PERCENT} % for an active agent = {by_cores}"]
    by_memory = None
    if facts.memory_bytes is not None and each:
        usable = max(0, facts.memory_bytes - limits.reserve_bytes)
        if limits.memory_bytes is not None:
            usable = min(usable, limits.memory_bytes)
        by_memory = max(1, usable // each)
        held_back = f"{sized(facts.memory_bytes)} less {sized(limits.reserve_bytes)} kept free"
        if limits.memory_bytes is not None:
            held_back += f", at most {sized(limits.memory_bytes)} by khlone.limits.memory"
        lines.append(f"memory: ({held_back}) / {sized(each)} for {agent} ({source}) = {by_memory}")
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


def _credential(limit: ApiLimit, leases: Sequence[Lease]) -> Credential:
    until = datetime.fromtimestamp(limit.until_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    holders = turns.holders_of(leases)
    return Credential(
        credential=limit.credential,
        status=limit.status,
        reason=limit.reason,
        until=until,
        lifted=admission.allowed(limit) > 0,
        sessions=sum(one.credential == limit.credential for one in holders),
        allowed=admission.allowed(limit),
    )


def _refused(login: RefusedLogin) -> Refused:
    return Refused(
        credential=login.credential,
        agent=login.agent,
        name=login.name,
        variable=login.variable,
        status=login.status,
        since=logins.since(login),
        message=logins.said_of(login),
        fix=logins.remedy_of(login),
    )


def _rates(used: Sequence[Used], minutes: float) -> list[Rate]:
    clones = {one.clone: one.name for one in used}
    return [
        Rate(
            name=name,
            clone=clone,
            requests_per_minute=round(sum(one.requests for one in used if one.clone == clone) / minutes, 1),
            input_tokens_per_minute=round(
                sum(one.input + one.cache_creation for one in used if one.clone == clone) / minutes, 1
            ),
            output_tokens_per_minute=round(sum(one.output for one in used if one.clone == clone) / minutes, 1),
        )
        for clone, name in clones.items()
    ]


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
