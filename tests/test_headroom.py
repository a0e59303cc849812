"""What the kernel tells is read with all its gaps, and what keeps a session waiting follows from it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from khlone import headroom
from khlone.api_rows import ApiLimit
from khlone.headroom import Headroom
from khlone.machine import Lease
from khlone.model import ProcessIdentity
from khlone.operations import admission
from khlone.operations.admission import Limits, Request
from khlone.values import replace
from tests.support import write

GIB = 1 << 30
MEMINFO = f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n"
PRESSURE = "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n"
V1 = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": MEMINFO}, (16 * GIB, 8 * GIB, None, None)),
        ({"proc/meminfo": MEMINFO, "proc/pressure/memory": PRESSURE}, (16 * GIB, 8 * GIB, 12.5, 0.25)),
        ({"proc/meminfo": MEMINFO, "proc/pressure/memory": "some\n"}, (16 * GIB, 8 * GIB, None, None)),
        (
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            },
            (4 * GIB, GIB, None, None),
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            },
            (16 * GIB, 8 * GIB, None, None),
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                f"{V1}/memory.limit_in_bytes": f"{2 * GIB}\n",
                f"{V1}/memory.usage_in_bytes": f"{5 * GIB}\n",
            },
            (2 * GIB, 0, None, None),
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                f"{V1}/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
                f"{V1}/memory.usage_in_bytes": "1\n",
            },
            (16 * GIB, 8 * GIB, None, None),
        ),
    ],
)
def test_memory_and_pressure_are_what_the_machine_or_its_container_has(
    tmp_path: Path, files: dict[str, str], expected: tuple[object, ...]
) -> None:
    write(tmp_path, files)

    found = headroom.look(tmp_path)

    assert (found.total_bytes, found.available_bytes, found.some_percent, found.full_percent) == expected


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "50000 0\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_cores_are_what_a_container_may_use(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    write(tmp_path, files)

    assert headroom.cores(tmp_path) == (cores or headroom.cores(tmp_path / "nothing"))


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    found = headroom.disk_free(tmp_path / "a" / "b")

    assert found is not None
    assert found > 0


# -- what follows from it -----------------------------------------------------------------------

ROOMY = Headroom(total_bytes=16 * GIB, available_bytes=8 * GIB, some_percent=0.0, full_percent=0.0)
LIMITS = Limits(
    sessions=None,
    of_kind=None,
    memory_bytes=None,
    each_bytes=GIB,
    reserve_bytes=GIB,
    disk_bytes=GIB,
    pressure_percent=10.0,
    wait_s=60.0,
)
#: A process that is not there: what it uses cannot be looked at.
NOBODY = ProcessIdentity(pid=(1 << 31) - 2, start_ticks=1, boot_id="b", host="h")
REQUEST = Request(clone="c", name="c", path=Path("/"), kind="claude")


def lease(number: int, state: str = "running", *, kind: str = "claude", memory: int = GIB, used: int = 0) -> Lease:
    """One lease of an agent."""
    return Lease(
        number=number,
        id=str(number),
        pool="",
        state=state,
        priority=0,
        repository="",
        clone="c",
        name="c",
        kind=kind,
        session=None,
        credential="login",
        memory_bytes=memory,
        used_bytes=used,
        blocker=None,
        reason=None,
        asked_at="",
        granted_at=None,
        granted_s=None,
        command="",
        idle_s=None,
        owner=NOBODY,
        child=None,
    )


def word(
    holders: int = 1,
    room: Headroom = ROOMY,
    disk: int | None = 2 * GIB,
    limits: Limits = LIMITS,
    limit: ApiLimit | None = None,
    request: Request = REQUEST,
    used: int = 0,
) -> str | None:
    """What one more session waits for beside some that run."""
    leases = [lease(number, used=used) for number in range(holders)]
    found = admission.judge(lease(99, "waiting"), leases, limits, request, (room, disk), limit)
    return None if found is None else found.word


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        ({}, None),
        # 8 GiB are available, 1 is kept: with 6 that may grow to 1 GiB each the seventh fits, the eighth does not.
        ({"holders": 6}, None),
        ({"holders": 7}, "memory"),
        # What they have taken already is not available any more: it is not counted twice.
        ({"holders": 7, "used": GIB}, None),
        ({"limits": replace(LIMITS, memory_bytes=2 * GIB)}, None),
        ({"limits": replace(LIMITS, memory_bytes=2 * GIB), "holders": 2}, "memory"),
        # One that has outgrown what was reserved for it counts with what it uses.
        ({"limits": replace(LIMITS, memory_bytes=3 * GIB), "used": 5 * GIB // 2}, "memory"),
        ({"limits": replace(LIMITS, sessions=2), "holders": 2}, "sessions"),
        ({"limits": replace(LIMITS, of_kind=1)}, "agent:claude"),
        ({"room": replace(ROOMY, some_percent=10.0)}, "pressure"),
        ({"room": replace(ROOMY, some_percent=9.9)}, None),
        ({"room": replace(ROOMY, full_percent=1.0)}, "pressure"),
        ({"room": replace(ROOMY, some_percent=99.0), "limits": replace(LIMITS, pressure_percent=0.0)}, None),
        # Without pressure told, little memory stands for it.
        (
            {
                "room": Headroom(total_bytes=64 * GIB, available_bytes=3 * GIB),
                "limits": replace(LIMITS, reserve_bytes=1),
            },
            "pressure",
        ),
        ({"room": Headroom(total_bytes=None, available_bytes=None)}, None),
        ({"disk": GIB - 1}, "disk"),
        ({"disk": None}, None),
        ({"disk": 0, "limits": replace(LIMITS, disk_bytes=0)}, None),
        # Nothing of khlone's runs: one may start.
        ({"holders": 0, "room": replace(ROOMY, available_bytes=1, some_percent=99.0), "disk": 0}, None),
        ({"holders": 0, "limits": replace(LIMITS, sessions=0)}, "sessions"),
        # A command that somebody types counts, and no more.
        ({"holders": 7, "disk": 0, "request": replace(REQUEST, light=True)}, None),
    ],
)
def test_what_one_more_session_waits_for(situation: dict[str, object], expected: str | None) -> None:
    assert word(**situation) == expected  # type: ignore[arg-type]


def test_a_limited_login_waits_alone_and_for_its_own_sessions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    limit = ApiLimit(credential="login", status=429, until_s=now + 5, reason="r", hits=1, noted_at="")

    assert word(0, limit=limit) == "credential:login"
    assert word(0, limit=replace(limit, until_s=now - 1)) is None
    assert word(1, limit=replace(limit, until_s=now - 1)) == "credential:login"
    assert word(1, limit=replace(limit, until_s=now - 31)) is None
    found = admission.judge(lease(9, "waiting"), [], LIMITS, REQUEST, (ROOMY, None), limit)
    assert found is not None
    assert found.own
