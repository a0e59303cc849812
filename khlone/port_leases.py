"""Which ports belong to which clone on this machine?

A lease is a small file in the private folder of its clone: it goes to the trash with the
clone, comes back with it, and is gone with a `new` that was killed and taken back, so that
none outlives its clone. Who reserves holds one lock of the user's, reads the leases of all
clones of all repositories of that user, and binds every port of a block on both loopback
addresses before the block is given. Blocks of clones in the trash are given last, for a
restore. Where two leases overlap all the same (a clone came back after its block was given
away), the older one is given up.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from khlone import files, flock
from khlone.errors import KhloneError, NoPorts
from khlone.values import dataclass

LEASE_FILE = "ports.json"
LOCK_FILE = "ports.lock"

#: How long the lock is waited for; its holder binds and closes a few sockets.
_WAIT_S = 60.0
_LOOPBACK = (("AF_INET", "127.0.0.1"), ("AF_INET6", "::1"))
#: What a machine without that kind of address answers.
_NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`count` ports from `first` on, held since `since_ns` by a clone of the repository at `repository`."""

    first: int
    count: int
    since_ns: int
    repository: str

    @property
    def ports(self) -> range:
        """The ports."""
        return range(self.first, self.first + self.count)

    def overlaps(self, ports: range) -> bool:
        """Whether any port is in both."""
        return self.first < ports.stop and ports.start < self.first + self.count


def private_folder(config_dir: Path) -> Path:
    """The private folder of the clone with this config dir."""
    return config_dir.parent.parent


def read(folder: Path) -> Lease | None:
    """The lease of the clone whose private folder this is; `None` where it has none that can be read."""
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, KeyError):
        content = files.read_regular(folder / LEASE_FILE, most=1 << 12)
        if content is not None:
            found = json.loads(content)
            return Lease(
                first=int(found["first"]),
                count=int(found["count"]),
                since_ns=int(found["since_ns"]),
                repository=str(found["repository"]),
            )
    return None


def hold(state_dir: Path, folder: Path, *, repository: Path, among: range, count: int, durable: bool = True) -> Lease:
    """The clone's lease; where it has none, or one that is another's now, a free block of `count` ports.

    Raises NoPorts when no block among these ports is free, Locked, and NotPermitted where it cannot be written down.
    """
    with files.explained(folder):
        return _hold(state_dir, folder, repository=repository, among=among, count=count, durable=durable)


def _hold(state_dir: Path, folder: Path, *, repository: Path, among: range, count: int, durable: bool) -> Lease:
    found = read(folder)
    if found is not None and found.repository == os.fspath(repository) and not _is_given_away(state_dir, folder, found):
        return found
    with flock.held(files.make_private_dir(state_dir) / LOCK_FILE, "the ports", wait_s=_WAIT_S):
        found = read(folder)
        if found is not None and _is_given_away(state_dir, folder, found):
            found = None
        first = _free_block(state_dir, folder, among, count) if found is None else found.first
        lease = Lease(
            first=first,
            count=count if found is None else found.count,
            since_ns=time.time_ns() if found is None else found.since_ns,
            repository=os.fspath(repository),
        )
        written = {name: getattr(lease, name) for name in ("first", "count", "since_ns", "repository")}
        files.write_atomic(folder / LEASE_FILE, json.dumps(written).encode() + b"\n", durable=durable)
    return lease


def _is_given_away(state_dir: Path, folder: Path, lease: Lease) -> bool:
    return any(other.overlaps(lease.ports) and other.since_ns > lease.since_ns for other in _live(state_dir, folder))


def _free_block(state_dir: Path, folder: Path, among: range, count: int) -> int:
    taken = _live(state_dir, folder)
    trashed = _leases(state_dir, "repositories/*/trash/*/*")
    for avoided in ([*taken, *trashed], taken):
        for first in range(among.start, among.stop - count + 1, count):
            block = range(first, first + count)
            if not any(lease.overlaps(block) for lease in avoided) and all(map(is_free, block)):
                return first
    raise NoPorts(among, count)


def _live(state_dir: Path, folder: Path) -> Sequence[Lease]:
    """The leases of all other clones whose repository is still there."""
    found = _leases(state_dir, "repositories/*/clones/*", but=folder)
    return [lease for lease in found if os.path.isdir(lease.repository)]


def _leases(state_dir: Path, folders: str, but: Path | None = None) -> list[Lease]:
    import glob

    # The root is no pattern: its own brackets and stars mean themselves.
    names = glob.glob(f"{folders}/{LEASE_FILE}", root_dir=state_dir)
    places = [(state_dir / name).parent for name in names]
    return [lease for place in places if place != but and (lease := read(place)) is not None]


def is_free(port: int) -> bool:
    """Whether a server could have the port on the loopback addresses, IPv4 and IPv6, right now."""
    import socket

    for family, address in _LOOPBACK:
        try:
            with socket.socket(getattr(socket, family), socket.SOCK_STREAM) as probe:
                probe.bind((address, port))
        except OSError as error:
            if error.errno not in _NO_SUCH_ADDRESS:
                return False
    return True
