"""What do the processes of clones use of this machine?

A process belongs to a clone when it works in its worktree, when the clone's id stands in
its environment (a double fork that moves elsewhere keeps it), or when an ancestor does.
Where there is /proc, one cheap pass over it says whether there is any; psutil, which costs
more than a listing, measures only those that were found.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from khlone import procfs
from khlone.values import dataclass

MARKER = "KHLONE_ID"
_SESSION = "KHLONE_SESSION"
_MOST_ENVIRONMENT = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A live process of a clone; `session` is the one that its environment names."""

    pid: int
    parent: int
    clone: str
    session: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one process uses: bytes, and seconds of CPU since it started. `pss_bytes` only where asked for."""

    pid: int
    command: Sequence[str]
    started_s: float
    rss_bytes: int
    pss_bytes: int | None
    cpu_s: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    pid: int
    parent: int
    cwd: str
    variables: Mapping[str, str]


def members(clones: Mapping[str, Path]) -> list[Member]:
    """Every live process of these clones (id to worktree), this one and its ancestors aside."""
    roots = {clone: os.path.realpath(path) for clone, path in clones.items()}
    seen = {one.pid: one for one in (_from_proc() if os.path.exists("/proc/self/stat") else _from_psutil())}
    ours = _ancestors(os.getpid(), seen)
    belongs: dict[int, str] = {}
    for one in seen.values():
        clone = one.variables.get(MARKER)
        if clone in roots:
            belongs[one.pid] = clone
        else:
            inside = next((key for key, root in roots.items() if _is_inside(one.cwd, root)), None)
            if inside is not None:
                belongs[one.pid] = inside
    found = []
    for one in seen.values():
        clone = next((belongs[pid] for pid in _ancestors(one.pid, seen) if pid in belongs), None)
        # Neither this process and its callers, nor the git that it has just started there.
        if clone is not None and one.pid not in ours and os.getpid() not in _ancestors(one.pid, seen):
            found.append(
                Member(pid=one.pid, parent=one.parent, clone=clone, session=one.variables.get(_SESSION) or None)
            )
    return found


def marked() -> set[str]:
    """The ids of all clones, of whichever repository, that a live process was started in."""
    seen = _from_proc() if os.path.exists("/proc/self/stat") else _from_psutil()
    return {one.variables[MARKER] for one in seen if one.variables.get(MARKER)}


def measure(pids: Iterable[int], *, pss: bool = False) -> dict[int, Usage]:
    """What processes use right now; those that are gone, or are another user's, are left out."""
    import psutil

    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                found[pid] = Usage(
                    pid=pid,
                    command=tuple(process.cmdline()),
                    started_s=process.create_time(),
                    rss_bytes=process.memory_info().rss,
                    pss_bytes=_pss(process) if pss else None,
                    cpu_s=times.user + times.system,
                    at_s=time.monotonic(),
                )
    return found


def cpu_percent(before: Mapping[int, Usage], after: Mapping[int, Usage], pids: Iterable[int]) -> float | None:
    """The share of one core that processes used between two measurements, in percent; `None` without an interval."""
    total, interval = 0.0, 0.0
    for pid in pids:
        if pid in before and pid in after and before[pid].started_s == after[pid].started_s:
            total += after[pid].cpu_s - before[pid].cpu_s
            interval = max(interval, after[pid].at_s - before[pid].at_s)
    return round(100.0 * total / interval, 1) if interval > 0 else None


def tree_bytes(roots: Iterable[int]) -> dict[int, int]:
    """Resident bytes of each of these processes and all below it; only where /proc tells, without psutil."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                fields = procfs.stat_fields(name)
                parents[int(name)], resident[int(name)] = int(fields[1]), int(fields[21])
    found = {root: 0 for root in roots if root in parents}
    page = os.sysconf("SC_PAGE_SIZE")
    for pid, pages in resident.items():
        chain: set[int] = set()
        while pid in parents and pid not in chain:
            chain.add(pid)
            if pid in found:
                found[pid] += pages * page
            pid = parents[pid]
    return found


def count(pids: Iterable[int]) -> tuple[int | None, int | None]:
    """How many threads processes have, and how many files are open in them; `None` where that cannot be told."""
    threads = files = 0
    seen = False
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            threads += int(procfs.stat_fields(pid)[17])
            files += len(os.listdir(f"/proc/{pid}/fd"))
            seen = True
    return (threads, files) if seen else (None, None)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal; False where that cannot be told."""
    with contextlib.suppress(OSError, IndexError):
        return procfs.stat_fields(pid)[0] in (b"T", b"t")
    return False


def _pss(process: object) -> int | None:
    import psutil

    assert isinstance(process, psutil.Process)
    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        return int(process.memory_full_info().pss)
    return None


def _is_inside(cwd: str, root: str) -> bool:
    return cwd == root or cwd.startswith(root + os.sep)


def _ancestors(pid: int, seen: Mapping[int, _Seen]) -> list[int]:
    """A process and those above it, nearest first."""
    chain: list[int] = []
    while pid in seen and pid not in chain:
        chain.append(pid)
        pid = seen[pid].parent
    return chain


def _from_proc() -> Iterable[_Seen]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = procfs.stat_fields(name)
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        cwd = ""
        variables: dict[str, str] = {}
        with contextlib.suppress(OSError):
            cwd = _as_it_was(os.readlink(f"/proc/{name}/cwd"))
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as stream:
            variables = _markers(stream.read(_MOST_ENVIRONMENT))
        yield _Seen(pid=int(name), parent=int(fields[1]), cwd=cwd, variables=variables)


def _as_it_was(cwd: str) -> str:
    """The name of a working folder that was deleted under its process, as it was before."""
    name = cwd.removesuffix(" (deleted)")
    return cwd if name != cwd and os.path.lexists(cwd) else name


def _markers(environment: bytes) -> dict[str, str]:
    if MARKER.encode() not in environment:
        return {}
    pairs = (os.fsdecode(item).partition("=") for item in environment.split(b"\0") if item.startswith(b"KHLONE_"))
    return {name: value for name, _, value in pairs}


def _from_psutil() -> Iterable[_Seen]:
    import psutil

    for process in psutil.process_iter(["ppid", "cwd", "environ", "status"]):
        facts = process.info
        if facts["status"] != psutil.STATUS_ZOMBIE:
            variables = {name: value for name, value in (facts["environ"] or {}).items() if name.startswith("KHLONE_")}
            yield _Seen(pid=process.pid, parent=facts["ppid"] or 0, cwd=facts["cwd"] or "", variables=variables)
