"""What does one process tree do right now, at the least cost?

A few files below /proc of the processes concerned, so that many sessions can be watched
all day; where there is no such /proc there is nothing to tell. Times are seconds of CPU.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping

from khlone import procfs
from khlone.values import dataclass

#: System calls in which an event loop looks for what is ready, by machine: epoll_wait, epoll_pwait, poll, select.
_POLLING = {"x86_64": {232, 281, 441, 7, 271, 23, 270}, "aarch64": {22, 441, 73, 72}}
_MOST = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process; `read` and `written` are bytes through so many `reads` and `writes`. `None` is not to be seen.

    `waited_s` is the CPU time of children that have ended and were waited for, `delayed_s` how
    long its first thread was ready and got no core.
    """

    pid: int
    parent: int
    start_ticks: int
    state: str
    cpu_s: float
    waited_s: float
    delayed_s: float
    threads: int
    rss_bytes: int
    read: int | None
    written: int | None
    reads: int
    writes: int
    polls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A process and all below it at one time (monotonic)."""

    root: int
    at_s: float
    processes: Mapping[int, Process]

    @property
    def rss_bytes(self) -> int:
        """Resident bytes of all of it."""
        return sum(one.rss_bytes for one in self.processes.values())

    @property
    def threads(self) -> int:
        """Threads of all of it."""
        return sum(one.threads for one in self.processes.values())

    def below(self, pid: int) -> list[Process]:
        """Everything below one process of it."""
        found: list[Process] = []
        parents = {pid}
        while more := [one for one in self.processes.values() if one.parent in parents and one not in found]:
            found += more
            parents = {one.pid for one in more}
        return found


def look(root: int) -> Tree | None:
    """The tree of a process, `None` when it is gone or cannot be seen."""
    first = _process(root)
    if first is None:
        return None
    found = {root: first}
    waiting = [root]
    while waiting and len(found) < _MOST:
        parent = waiting.pop()
        for pid in _children(parent):
            one = _process(pid)
            if one is not None and pid not in found:
                found[pid] = one
                waiting.append(pid)
    return Tree(root=root, at_s=time.monotonic(), processes=found)


def rss_bytes(pids: Iterable[int]) -> int:
    """The resident memory of some processes together, those that are gone aside."""
    return sum(one.rss_bytes for pid in pids if (one := _process(pid)) is not None)


def pss_bytes(pids: Iterable[int]) -> int | None:
    """The proportional memory of some processes: costs milliseconds each; `None` where one does not tell."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as stream:
                line = next(line for line in stream if line.startswith(b"Pss:"))
        except FileNotFoundError:
            continue
        except (OSError, StopIteration):
            return None
        total += int(line.split()[1]) * 1024
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as stream:
                found += map(int, stream.read().split())
    return found


def _process(pid: int) -> Process | None:
    try:
        fields = procfs.stat_fields(pid)
        state = fields[0].decode()
        if state in "ZX":
            return None
        ticks = os.sysconf("SC_CLK_TCK")
        io = _io(pid)
        return Process(
            pid=pid,
            parent=int(fields[1]),
            start_ticks=int(fields[19]),
            state=state,
            cpu_s=(int(fields[11]) + int(fields[12])) / ticks,
            waited_s=(int(fields[13]) + int(fields[14])) / ticks,
            delayed_s=_delayed_s(pid),
            threads=int(fields[17]),
            rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
            read=io.get(b"rchar"),
            written=io.get(b"wchar"),
            reads=io.get(b"syscr", 0),
            writes=io.get(b"syscw", 0),
            polls=_polls(pid),
        )
    except (OSError, IndexError, ValueError):
        return None


def _delayed_s(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/schedstat", "rb") as stream:
        return int(stream.read().split()[1]) / 1e9
    return 0.0


def _io(pid: int) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/io", "rb") as stream:
        for line in stream:
            name, _, value = line.partition(b":")
            found[name] = int(value)
    return found


def _polls(pid: int) -> bool:
    """Whether its first thread is in a call that looks for what is ready."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/syscall", "rb") as stream:
        return int(stream.read().split()[0]) in _POLLING.get(os.uname().machine, set())
    return False
