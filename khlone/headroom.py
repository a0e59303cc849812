"""What has this machine left: memory, room on a disk, and how long do its programs wait for memory?

From the kernel's own files, a container's limits among them; where one is missing, what
it would say is `None` and nothing is concluded from it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from khlone.values import dataclass

#: Where the kernel tells what a cgroup may use and does use: version 2, then version 1.
_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
#: Cores that a cgroup may use, as microseconds a period: version 2, then version 1.
_QUOTAS = (
    ("sys/fs/cgroup/cpu.max",),
    ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
_ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """Bytes of memory in all and still available, and the share of the last ten seconds (percent) in which some, and
    in which all programs waited for memory. `None` where the system does not tell.
    """

    total_bytes: int | None
    available_bytes: int | None
    some_percent: float | None = None
    full_percent: float | None = None


def look(root: Path = _ROOT) -> Headroom:
    """What is left of memory now; `root` is the folder that stands for `/`."""
    total, available = _memory(root)
    for limit_file, used_file in _CGROUPS:
        limit, used = _number(root / limit_file), _number(root / used_file)
        if limit is not None and used is not None and (total is None or limit < total):
            total = limit
            available = max(0, limit - used) if available is None else min(available, max(0, limit - used))
    some, full = _pressure(root / "proc/pressure/memory")
    return Headroom(total_bytes=total, available_bytes=available, some_percent=some, full_percent=full)


def cores(root: Path = _ROOT) -> float:
    """How many cores this process may use: its affinity, and the quota of a container."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for names in _QUOTAS:
        words: list[str] = []
        for name in names:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                words += (root / name).read_text(encoding="ascii").split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            count = min(count, int(words[0]) / int(words[1]))
    return count


def disk_free(path: Path) -> int | None:
    """Bytes that this user may still write where `path` lies, or will lie; 0 where no file can be added."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            # Some file systems count no inodes at all.
            if found.f_files and not found.f_favail:
                return 0
            return found.f_bavail * found.f_frsize
    return None


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Bytes in all and available."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(rest.split()[0]) * 1024
        return found.get("MemTotal"), found.get("MemAvailable")
    total = None
    with contextlib.suppress(OSError, ValueError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, None


def _pressure(path: Path) -> tuple[float | None, float | None]:
    """`some` and `full` of the last ten seconds."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError, IndexError):
        for line in path.read_text(encoding="ascii").splitlines():
            words = line.split()
            found[words[0]] = float(words[1].removeprefix("avg10="))
    return found.get("some"), found.get("full")


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None
