"""What does the kernel say of a process: its line of numbers, where its own number counts, and who else is there?"""

from __future__ import annotations

import contextlib
import os
from functools import cache

#: The pid namespace that all others are inside of has this number on every Linux (PROC_PID_INIT_INO).
_OUTERMOST = 0xEFFFFFFC


@cache
def pid_namespace() -> int | None:
    """The inode of the pid namespace that this process's numbers are of, `None` where there is none to tell."""
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino
    return None


def is_forsaken(namespace: int) -> bool:
    """Whether no process runs in another pid namespace any more: told by who sees all processes of the machine."""
    if pid_namespace() != _OUTERMOST or namespace == _OUTERMOST:
        return False
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
        # Mounted so that a user sees only what is theirs.
        return "1" in pids and not any(_may_be_in(pid, namespace) for pid in pids)
    except OSError:
        return False


def _may_be_in(pid: str, namespace: int) -> bool:
    """Whether a process may run in a pid namespace; raises OSError for one that does not let itself be looked at."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/status", "rb") as stream:
        numbers = next((line.split()[1:] for line in stream if line.startswith(b"NSpid:")), [])
        # Whoever has one number alone runs in ours; that is shown of everybody's processes, and the next is not.
        return len(numbers) != 1 and os.stat(f"/proc/{pid}/ns/pid").st_ino == namespace
    return False


def stat_fields(pid: int | str) -> list[bytes]:
    """/proc/PID/stat from the state on: field N of proc(5) is at N - 3.

    The name, which may hold anything, is left out. Raises OSError where there is no such process or no /proc.
    """
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return stream.read().rpartition(b")")[2].split()
