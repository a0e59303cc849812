"""What does the kernel say of a process: its line of numbers, and where its own number counts?"""

from __future__ import annotations

import contextlib
import os
from functools import cache


@cache
def pid_namespace() -> int | None:
    """The inode of the pid namespace that this process's numbers are of, `None` where there is none to tell."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return None


def stat_fields(pid: int | str) -> list[bytes]:
    """/proc/PID/stat from the state on: field N of proc(5) is at N - 3.

    The name, which may hold anything, is left out. Raises OSError where there is no such process or no /proc.
    """
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return stream.read().rpartition(b")")[2].split()
