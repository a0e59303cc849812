"""How is a SQLite file opened so that it survives kill -9, power loss and other processes?

Rollback journal (TRUNCATE), synchronous=FULL, `BEGIN IMMEDIATE` for every change, strict
tables, a schema version with ordered migrations. Not WAL: before SQLite 3.51.3 it has a
corruption bug with several writers, and it never works on a network file system
(docs/decisions/0002-sqlite-settings.md). A connection is never used by another thread or
by a forked child. The file appears whole, its tables in it, so that an empty one is a
damaged one; a damaged file is reported, never reset.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import struct
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from khlone.errors import Locked, NoSpace, NotPermitted, RegistryCorrupt, RegistryNewer, StateUnsafe

#: How long a statement waits for another process's transaction, in seconds.
BUSY_TIMEOUT_S = 20.0
#: The bytes of a database file that SQLite locks: the one of the writer, then all of them.
_LOCKED_BYTES = ((0x40000001, 1), (0x40000000, 512))
_FLOCK = "hhqqi4x" if sys.platform == "linux" else "qqihh"


def raw(text: str) -> bytes:
    """Text that may hold undecodable bytes, to be bound as `CAST(? AS TEXT)`."""
    return text.encode(errors="surrogateescape")


class _Connection(sqlite3.Connection):
    """One that can be found again when the process forks."""


_alive: weakref.WeakSet[_Connection] = weakref.WeakSet()
_forking: list[_Connection] = []


@cache
def _guard_forks() -> None:
    """Never let a forked child close what it was born with: that would roll back its parent's transaction."""
    os.register_at_fork(
        before=lambda: _forking.extend(_alive), after_in_parent=_forking.clear, after_in_child=_keep_for_ever
    )


def _keep_for_ever() -> None:
    import ctypes

    for connection in _forking:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _forking.clear()


class Database:
    """A SQLite file with a schema that `migrations` build, one script for each version; `what` it is, for people."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        what: str = "the registry",
    ) -> None:
        self.path = path
        self._what = what
        self._migrations = migrations
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()
        self._probe: int | None = None

    def connection(self) -> sqlite3.Connection:
        """This thread's connection, opened and migrated when needed, and anew after a fork.

        Raises RegistryNewer, RegistryCorrupt, StateUnsafe, Locked, NotPermitted or NoSpace.
        """
        known = self._known()
        if known is not None:
            return known
        with self.explained():
            connection = self._open()
        self._local.opened = (os.getpid(), connection)
        return connection

    def close(self) -> None:
        """Close this thread's connection; it opens again when used."""
        known = self._known()
        if known is not None:
            known.close()
        self._local.opened = None

    def _known(self) -> sqlite3.Connection | None:
        owner, connection = getattr(self._local, "opened", None) or (0, None)
        return connection if owner == os.getpid() else None

    def _open(self) -> sqlite3.Connection:
        try:
            if not os.path.lexists(self.path):
                self._create()
            found = os.lstat(self.path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(self.path, os.strerror(error.errno)) from error
            raise self._closed(os.strerror(error.errno or 0).lower()) from error
        if not stat.S_ISREG(found.st_mode):
            raise StateUnsafe(self.path, "it is not a regular file")
        if found.st_size == 0:
            raise RegistryCorrupt(self.path, "it is empty")
        connection = self._connect(self.path)
        try:
            self._require_known(connection)
            connection.execute("PRAGMA journal_mode=TRUNCATE")
            self._require_whole(connection)
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, path: Path) -> sqlite3.Connection:
        # A URI, since only that can forbid to create the file.
        name = os.fspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            f"file:{name}?mode=rw", uri=True, timeout=self._busy_timeout_s, isolation_level=None, factory=_Connection
        )
        _guard_forks()
        _alive.add(connection)
        connection.text_factory = lambda content: content.decode(errors="surrogateescape")
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _create(self) -> None:
        """Let the file appear with its tables, unless another process is faster."""
        temporary = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}.tmp")
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            connection = self._connect(temporary)
            try:
                connection.execute("PRAGMA journal_mode=MEMORY")
                self._migrate(connection)
            finally:
                connection.close()
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.path)
        finally:
            os.unlink(temporary)
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _require_known(self, connection: sqlite3.Connection) -> int:
        """The file's schema version; a newer one than ours is refused before anything is set."""
        known = len(self._migrations)
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > known:
            raise RegistryNewer(self.path, found, known)
        return found

    def _require_whole(self, connection: sqlite3.Connection) -> None:
        """Raise RegistryCorrupt where the file is not as long as its first page says.

        A writer died between its pages, and its journal, which would take them back, was
        deleted: what is left may be in good order for SQLite and still be half of a change.
        """
        connection.execute("BEGIN")
        try:
            # With a page read nobody writes one: the two lengths are of one moment.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            length = pages * connection.execute("PRAGMA page_size").fetchone()[0]
            found = os.lstat(self.path).st_size
        finally:
            connection.execute("COMMIT")
        if found != length:
            raise RegistryCorrupt(self.path, f"it has {found} bytes instead of {length}: its journal was deleted")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        known = len(self._migrations)
        if self._require_known(connection) == known:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            for version in range(found, known):
                for statement in self._migrations[version].split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
            connection.execute(f"PRAGMA user_version={max(found, known)}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One `BEGIN IMMEDIATE` transaction: committed at the end, rolled back on an exception."""
        connection = self.connection()
        started = time.monotonic()
        with self.explained(started):
            connection.execute("BEGIN IMMEDIATE")
        owner = os.getpid()
        try:
            with self.explained(started):
                yield connection
                if os.getpid() != owner:
                    raise RuntimeError("a transaction ends in the process that began it")
                connection.execute("COMMIT")
        except BaseException:
            if os.getpid() == owner:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def explained(self, started: float | None = None) -> Iterator[None]:
        """Turn SQLite's errors into khlone's; a broken rule of the tables stays what it is."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            text = str(error)
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                waited = time.monotonic() - started if started is not None else self._busy_timeout_s
                raise Locked(self._what, self._holder(), waited) from error
            if name == "SQLITE_FULL":
                raise NoSpace(self.path, text) from error
            if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_IOERR")):
                raise self._closed(text) from error
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
                raise RegistryCorrupt(self.path, text) from error
            if "no such table" in text or "no such column" in text:
                raise RegistryCorrupt(self.path, text) from error
            raise

    def _closed(self, why: str) -> NotPermitted:
        return NotPermitted(f"cannot use {self.path}: {why}", hint="check its owner and mode, and the disk")

    def _holder(self) -> str:
        """Who holds a lock of SQLite's, as the kernel says.

        The descriptor stays open: closing one would give up every lock that this process
        holds on the file, those of its other connections too.
        """
        try:
            if self._probe is None:
                self._probe = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            for start, length in _LOCKED_BYTES:
                asked = (fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
                if sys.platform != "linux":
                    asked = (start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)
                found = struct.unpack(_FLOCK, fcntl.fcntl(self._probe, fcntl.F_GETLK, struct.pack(_FLOCK, *asked)))
                kind, pid = (found[0], found[4]) if sys.platform == "linux" else (found[3], found[2])
                if kind != fcntl.F_UNLCK and pid > 0:
                    return f"{_program(pid)} (pid {pid})"
        except OSError:
            pass
        return "another transaction"


def _program(pid: int) -> str:
    """The name of a program, as far as it can be told."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        words = [os.path.basename(os.fsdecode(word)) for word in stream.read(4096).split(b"\0")]
        is_script = words[0].startswith("python") and len(words) > 1 and not words[1].startswith("-")
        name = words[1] if is_script else words[0]
        return "".join(letter for letter in name if letter.isprintable()) or "a process"
    return "a process"
