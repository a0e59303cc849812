"""Who of this user holds what share of this machine, or waits for one, across all repositories?

One SQLite file below the user's state folder. A lease dies with its owner: the owner keeps
a bell open, and whoever asks next takes back what belongs to nobody any more. A session
that outlives its supervisor keeps the lease until it has ended as well. What another
machine wrote, where several share a home, is left alone and counts nothing here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import bells, files, flock
from khlone.database import Database, raw
from khlone.errors import RegistryCorrupt
from khlone.machine_schema import MIGRATIONS
from khlone.model import ProcessIdentity, utc_now
from khlone.values import dataclass

DATABASE_FILE = "machine.sqlite3"
_BELLS = "leases"
#: Where a SQLite file says what it is, and which version of a schema it has.
_SQLITE, _VERSION = b"SQLite format 3\0", slice(60, 64)
WAITING, STARTING, RUNNING = "waiting", "starting", "running"
#: How many are woken when something changes: the first in line may wait for something of its own.
_WOKEN = 4
#: How much of the past the memory of a kind of session is learned from.
_REMEMBERED = 50
#: A bell without a lease that is older than this was left by a process that was killed.
_LEFT_S = 60.0
_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A place for one session, or a slot of a `pool` for one command, held or waited for.

    `memory_bytes` is what it may come to use, `used_bytes` what it was last seen to use;
    `blocker` says what it waits for, and `child` is the session's own process.
    """

    number: int
    id: str
    pool: str
    state: str
    priority: int
    repository: str
    clone: str
    name: str
    kind: str
    session: str | None
    credential: str | None
    memory_bytes: int
    used_bytes: int
    blocker: str | None
    reason: str | None
    asked_at: str
    granted_at: str | None
    granted_s: float | None
    command: str
    idle_s: float | None
    owner: ProcessIdentity
    child: ProcessIdentity | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A process that khlone has stopped, at a monotonic time, and who lets it go on: the bell of that name."""

    owner: str
    session: str
    why: str
    at_s: float
    process: ProcessIdentity

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid


def version_of(path: Path) -> int | None:
    """The version of such a file by its header, `None` without one: to open it with SQLite might change it."""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        head = stream.read(_VERSION.stop)
        return int.from_bytes(head[_VERSION]) if head.startswith(_SQLITE) else None
    return None


class Machine:
    """The machine database of one user, below `folder`.

    `here` is the identity of this process; `lives` says whether a process that can be seen
    from here lives.
    """

    def __init__(self, folder: Path, *, here: ProcessIdentity, lives: Callable[[ProcessIdentity], bool]) -> None:
        self.folder = folder
        self._here = here
        self._lives = lives
        self._database = Database(folder / DATABASE_FILE, MIGRATIONS, what="the machine database")

    @property
    def exists(self) -> bool:
        """Whether anybody has asked for anything yet."""
        return self._database.path.exists()

    @property
    def is_current(self) -> bool:
        """Whether it is there, and of the version of this khlone."""
        return version_of(self._database.path) == len(MIGRATIONS)

    def prepare(self, told: Callable[[str], None]) -> None:
        """Make the folders; a damaged file is set aside and told of, since nothing in it outlives a session."""
        with files.explained(self.folder):
            files.make_private_dir(self.folder)
            files.make_private_dir(self.folder / _BELLS)
        try:
            self._database.connection()
        except RegistryCorrupt:
            with flock.held(self.folder / "machine.lock", "the machine database", wait_s=_WAIT_S):
                self._set_aside(told)

    def _set_aside(self, told: Callable[[str], None]) -> None:
        try:
            self._database.connection()
        except RegistryCorrupt as error:
            aside = self._database.path.with_name(f"{DATABASE_FILE}.damaged-{time.time_ns()}")
            files.rename_new(self._database.path, aside)
            told(f"warning: {error.message}; it is {aside} now, and begun anew")
            self._database.connection()

    def close(self) -> None:
        """Give up this thread's connection."""
        self._database.close()

    def new_bell(self, lease_id: str) -> bells.Bell:
        """The bell of a lease that is about to be asked for."""
        with files.explained(self.folder):
            return bells.Bell(self._bell_path(lease_id))

    @contextlib.contextmanager
    def transaction(self, pool: str = "") -> Iterator[Change]:
        """One transaction that excludes every other writer; it begins with taking back what belongs to the dead."""
        with self._database.transaction() as connection:
            change = Change(self, connection, pool)
            change.reap()
            yield change

    def leases(self, pool: str | None = "") -> list[Lease]:
        """Every lease of a pool (`None`: of all) on this machine whose owner or session lives, those that wait too.

        In the order of the line. Sessions are the pool without a name.
        """
        with self._database.explained():
            found = _rows(self._database.connection())
        wanted = (lease for lease in found if pool in (None, lease.pool))
        return [lease for lease in wanted if self.is_here(lease) and self.is_alive(lease)]

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read other tables of the file by."""
        with self._database.explained():
            yield self._database.connection()

    def expected_bytes(self, kind: str) -> int | None:
        """The memory that nine of ten sessions of a kind stayed below; `None` before three were seen."""
        with self._database.explained():
            rows = self._database.connection().execute(
                "SELECT peak FROM memory_seen WHERE kind = CAST(? AS TEXT) ORDER BY number DESC LIMIT ?",
                (raw(kind), _REMEMBERED),
            )
            peaks = sorted(row["peak"] for row in rows)
        return peaks[(len(peaks) * 9 - 1) // 10] if len(peaks) >= 3 else None

    def stops(self) -> list[Stop]:
        """Every process that is stopped by a khlone that lives."""
        with self._database.explained():
            found = _stops(self._database.connection())
        return [one for one in found if bells.is_held(self._bell_path(one.owner))]

    def has_forsaken_stops(self) -> bool:
        """Whether something was stopped by a khlone that is gone."""
        with self._database.explained():
            return any(map(self.is_forsaken, _stops(self._database.connection())))

    def is_forsaken(self, stop: Stop) -> bool:
        """Whether nobody is there any more to let a process of this machine go on."""
        is_ours = stop.process.boot_id == self._here.boot_id or stop.process.host == self._here.host
        return is_ours and not bells.is_held(self._bell_path(stop.owner))

    def wake(self, leases: Sequence[Lease]) -> None:
        """Ring the bells of those that wait first."""
        waiting = (lease for lease in leases if lease.state == WAITING)
        for lease, _ in zip(waiting, range(_WOKEN), strict=False):
            bells.ring(self._bell_path(lease.id))

    def is_here(self, lease: Lease) -> bool:
        """Whether a lease is of this machine as it runs now."""
        owner = lease.owner
        if owner.boot_id is None or self._here.boot_id is None:
            return owner.host == self._here.host
        return owner.boot_id == self._here.boot_id

    def is_alive(self, lease: Lease) -> bool:
        """Whether the owner of a lease of this machine, or the session that it was for, lives."""
        held = bells.is_held(self._bell_path(lease.id))
        if held or (held is None and self._lives(lease.owner)):
            return True
        return lease.child is not None and self._lives(lease.child)

    def is_past(self, lease: Lease) -> bool:
        """Whether a lease is of an earlier boot of this machine."""
        return not self.is_here(lease) and lease.owner.host == self._here.host

    def _bell_path(self, lease_id: str) -> Path:
        return self.folder / _BELLS / lease_id

    def sweep_bells(self, known: set[str]) -> None:
        """Unlink the bells of processes that were killed."""
        now = time.time()
        with contextlib.suppress(OSError), os.scandir(self.folder / _BELLS) as entries:
            for entry in entries:
                old = now - entry.stat(follow_symlinks=False).st_mtime > _LEFT_S
                if entry.name not in known and old and bells.is_held(Path(entry.path)) is False:
                    os.unlink(entry.path)


class Change:
    """What may be changed in one transaction; `leases` are those of one pool that live on this machine."""

    def __init__(self, machine: Machine, connection: sqlite3.Connection, pool: str) -> None:
        self._machine = machine
        self._pool = pool
        #: Also to change other tables of the file by, in the same transaction.
        self.connection = connection
        self.leases: list[Lease] = []

    def reap(self) -> None:
        """Take back what belongs to nobody any more, in whatever pool."""
        found = _rows(self.connection)
        living = [one for one in found if self._machine.is_here(one) and self._machine.is_alive(one)]
        self.leases = [one for one in living if one.pool == self._pool]
        kept = {one.number for one in living}
        gone = [
            one
            for one in found
            if one.number not in kept and (self._machine.is_here(one) or self._machine.is_past(one))
        ]
        for one in gone:
            self.connection.execute("DELETE FROM leases WHERE number = ?", (one.number,))
        if gone:
            self._machine.sweep_bells({one.id for one in found} - {one.id for one in gone})

    def ask(
        self,
        *,
        lease_id: str,
        priority: int,
        repository: str,
        clone: str,
        name: str,
        kind: str,
        session: str | None,
        credential: str | None,
        memory_bytes: int,
        command: str,
        owner: ProcessIdentity,
    ) -> Lease:
        """Get in line, at its end."""
        self.connection.execute(
            """INSERT INTO leases (id, pool, command, state, priority, repository, clone, name, kind, session,
            credential, memory, asked_at, pid, start_ticks, boot_id, host, pid_namespace)
            VALUES (?, ?, CAST(? AS TEXT), 'waiting', ?, CAST(? AS TEXT), ?, CAST(? AS TEXT), CAST(? AS TEXT),
            ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                lease_id,
                self._pool,
                raw(command),
                priority,
                raw(repository),
                clone,
                raw(name),
                raw(kind),
                session,
                credential,
                memory_bytes,
                utc_now(),
                owner.pid,
                owner.start_ticks,
                owner.boot_id,
                owner.host,
                owner.pid_namespace,
            ),
        )
        found = _rows(self.connection)
        known = {one.number for one in self.leases}
        self.leases = [one for one in found if one.number in known or one.id == lease_id]
        return next(one for one in self.leases if one.id == lease_id)

    def find(self, lease_id: str) -> Lease | None:
        """A lease that is still there."""
        return next((one for one in self.leases if one.id == lease_id), None)

    def note_blocker(self, lease_id: str, blocker: str, reason: str) -> None:
        """Say what a lease waits for."""
        self.connection.execute(
            "UPDATE leases SET blocker = ?, reason = CAST(? AS TEXT) WHERE id = ?", (blocker, raw(reason), lease_id)
        )

    def grant(self, lease_id: str) -> None:
        """Give it; nobody else is given one until it has started, for a while."""
        self.connection.execute(
            """UPDATE leases SET state = 'starting', blocker = NULL, reason = NULL, granted_at = ?, granted = ?
            WHERE id = ? AND state = 'waiting'""",
            (utc_now(), time.monotonic(), lease_id),
        )

    def note_started(self, lease_id: str, child: ProcessIdentity) -> None:
        """The session's process is there."""
        self.connection.execute(
            "UPDATE leases SET state = 'running', child_pid = ?, child_ticks = ? WHERE id = ?",
            (child.pid, child.start_ticks, lease_id),
        )

    def note_used(self, lease_id: str, used_bytes: int) -> None:
        """What a session uses now."""
        self.connection.execute("UPDATE leases SET used = ? WHERE id = ?", (used_bytes, lease_id))

    def note_idle(self, lease_id: str, since_s: float | None) -> None:
        """Since when (monotonic) a session does nothing; `None` for one that does."""
        self.connection.execute("UPDATE leases SET idle = ? WHERE id = ?", (since_s, lease_id))

    def note_stop(self, owner: str, session: str, process: ProcessIdentity, why: str) -> None:
        """Write down that a process is about to be stopped."""
        identity = (process.pid, process.start_ticks, process.boot_id, process.host, process.pid_namespace)
        self.connection.execute(
            """INSERT INTO stops (owner, session, why, at, pid, start_ticks, boot_id, host, pid_namespace)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (owner, session, why, time.monotonic(), *identity),
        )

    def forget_stops(self, owner: str) -> None:
        """What an owner has stopped goes on."""
        self.connection.execute("DELETE FROM stops WHERE owner = ?", (owner,))

    def forsaken_stops(self) -> list[Stop]:
        """What was stopped by those that are gone; it is forgotten with this transaction."""
        found = [one for one in _stops(self.connection) if self._machine.is_forsaken(one)]
        for owner in {one.owner for one in found}:
            self.forget_stops(owner)
        return found

    def give_back(self, lease_id: str) -> None:
        """The lease is free, or the line is left."""
        self.connection.execute("DELETE FROM leases WHERE id = ?", (lease_id,))
        self.leases = [one for one in self.leases if one.id != lease_id]

    def remember_peak(self, kind: str, peak_bytes: int) -> None:
        """Learn what sessions of a kind use at most."""
        self.connection.execute(
            "INSERT INTO memory_seen (kind, peak, seen_at) VALUES (CAST(? AS TEXT), ?, ?)",
            (raw(kind), peak_bytes, utc_now()),
        )
        self.connection.execute(
            """DELETE FROM memory_seen WHERE kind = CAST(? AS TEXT) AND number NOT IN
            (SELECT number FROM memory_seen WHERE kind = CAST(? AS TEXT) ORDER BY number DESC LIMIT ?)""",
            (raw(kind), raw(kind), _REMEMBERED),
        )


def _rows(connection: sqlite3.Connection) -> list[Lease]:
    return [_lease(row) for row in connection.execute("SELECT * FROM leases ORDER BY priority DESC, number")]


def _stops(connection: sqlite3.Connection) -> list[Stop]:
    return [
        Stop(owner=row["owner"], session=row["session"], why=row["why"], at_s=row["at"], process=_identity(row))
        for row in connection.execute("SELECT * FROM stops ORDER BY number")
    ]


def _identity(row: sqlite3.Row) -> ProcessIdentity:
    return ProcessIdentity(
        pid=row["pid"],
        start_ticks=row["start_ticks"],
        boot_id=row["boot_id"],
        host=row["host"],
        pid_namespace=row["pid_namespace"],
    )


def _lease(row: sqlite3.Row) -> Lease:
    owner = _identity(row)
    child = None
    if row["child_pid"] is not None:
        child = ProcessIdentity(
            pid=row["child_pid"],
            start_ticks=row["child_ticks"],
            boot_id=owner.boot_id,
            host=owner.host,
            pid_namespace=owner.pid_namespace,
        )
    same = ("number", "id", "pool", "state", "priority", "repository", "clone", "name", "kind", "session")
    return Lease(
        **{name: row[name] for name in same},
        credential=row["credential"],
        command=row["command"],
        idle_s=row["idle"],
        memory_bytes=row["memory"],
        used_bytes=row["used"],
        blocker=row["blocker"],
        reason=row["reason"],
        asked_at=row["asked_at"],
        granted_at=row["granted_at"],
        granted_s=row["granted"],
        owner=owner,
        child=child,
    )
