"""How is a SQLite file opened so that it survives kill -9, power loss and other processes?

Rollback journal (TRUNCATE), synchronous=FULL, `BEGIN IMMEDIATE` for every change, strict
tables, a schema version with ordered migrations. Not WAL: before SQLite 3.51.3 it has a
corruption bug with several writers, and it never works on a network file system
(docs/decisions/0002-sqlite-settings.md). A connection is never used by another thread or
by a forked child. A damaged file is reported, never reset.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone.errors import Locked, NoSpace, NotPermitted, RegistryCorrupt, RegistryNewer

#: How long a statement waits for another process's transaction, in seconds.
BUSY_TIMEOUT_S = 20.0


def raw(text: str) -> bytes:
    """Text that may hold undecodable bytes, to be bound as `CAST(? AS TEXT)`."""
    return text.encode(errors="surrogateescape")


class Database:
    """A SQLite file with a schema that `migrations` build, one script for each version."""

    def __init__(self, path: Path, migrations: Sequence[str], *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self._migrations = migrations
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection, opened and migrated when needed, and anew after a fork.

        Raises RegistryNewer, RegistryCorrupt, Locked, NotPermitted or NoSpace.
        """
        owner = getattr(self._local, "owner", None)
        if owner == os.getpid():
            connection: sqlite3.Connection = self._local.connection
            return connection
        with self.explained():
            connection = self._open()
        self._local.connection = connection
        self._local.owner = os.getpid()
        return connection

    def close(self) -> None:
        """Close this thread's connection; it opens again when used."""
        if getattr(self._local, "owner", None) == os.getpid():
            self._local.connection.close()
        self._local.owner = None

    def _open(self) -> sqlite3.Connection:
        before = os.umask(0o077)
        try:
            connection = sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None)
        finally:
            os.umask(before)
        try:
            connection.text_factory = lambda content: content.decode(errors="surrogateescape")
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=TRUNCATE")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA trusted_schema=OFF")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        known = len(self._migrations)
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > known:
            raise RegistryNewer(self.path, found, known)
        if found == known:
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
        try:
            yield connection
            with self.explained(started):
                connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def explained(self, started: float | None = None) -> Iterator[None]:
        """Turn SQLite's errors into khlone's."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            text = str(error)
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                waited = time.monotonic() - started if started is not None else self._busy_timeout_s
                raise Locked("the registry", "another process's transaction", waited) from error
            if name == "SQLITE_FULL":
                raise NoSpace(self.path, text) from error
            if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
                raise NotPermitted(f"cannot open {self.path}: {text}", hint="check its owner and mode") from error
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")):
                raise RegistryCorrupt(self.path, text) from error
            if "no such table" in text or "no such column" in text:
                raise RegistryCorrupt(self.path, text) from error
            raise
