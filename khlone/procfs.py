"""What does the kernel say of a process in its line of numbers?"""

from __future__ import annotations


def stat_fields(pid: int | str) -> list[bytes]:
    """/proc/PID/stat from the state on: field N of proc(5) is at N - 3.

    The name, which may hold anything, is left out. Raises OSError where there is no such process or no /proc.
    """
    with open(f"/proc/{pid}/stat", "rb") as stream:
        return stream.read().rpartition(b")")[2].split()
