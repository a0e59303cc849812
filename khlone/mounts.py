"""What is mounted where, as the kernel says? Its list alone gives away a folder that is mounted a second time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "afs"}
    | {f"fuse.{name}" for name in ("sshfs", "glusterfs", "ceph", "rclone", "s3fs", "juicefs")}
)
#: How the kernel writes blanks and backslashes in /proc/self/mountinfo.
_ESCAPE = rb"\\([0-7]{3})"


def inside(path: Path, *, table: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """A mount point below a folder, `None` when there is none or the system does not tell.

    A folder of the same file system that is mounted there too has the device number of
    what is round it: only the kernel's list gives it away.
    """
    root = os.fsencode(os.path.realpath(path)).rstrip(b"/") + b"/"
    return next((Path(os.fsdecode(place)) for place, _ in _mounted(table) if place.startswith(root)), None)


def network_type(path: Path, *, table: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network file system that `path` lies on, `None` when it is local or unknown."""
    wanted = os.fsencode(os.path.realpath(path))
    best, kind = b"", None
    for mounted, found in _mounted(table):
        lies_there = wanted == mounted or wanted.startswith(mounted.rstrip(b"/") + b"/")
        if lies_there and len(mounted) >= len(best):
            best, kind = mounted, found
    return kind if kind in _NETWORK_TYPES else None


def _mounted(table: Path) -> Iterator[tuple[bytes, str]]:
    """Every mount point with the type of what is mounted, in the order of mounting."""
    try:
        lines = table.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        left, _, right = line.partition(b" - ")
        fields = left.split()
        if len(fields) >= 5 and right:
            place = re.sub(_ESCAPE, lambda escaped: bytes([int(escaped[1], 8)]), fields[4])
            yield place, os.fsdecode(right.split()[0])
