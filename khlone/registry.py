"""Which clones exist, in which state, and who may change that?

`Registry` reads; `Registry.transaction()` gives a `Transaction` that changes. A state
only changes from a state that the caller names (compare-and-swap; each change raises the
epoch), so that two commands never both believe they moved a clone. A name, a path and a branch
belong to one live clone. The journal of operations lies beside the clones, so that one
commit ends an operation and publishes its effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from khlone.database import Database, raw
from khlone.errors import BranchCheckedOut, CloneExists, CloneNotReady, NameCollides
from khlone.model import (
    GONE_STATES,
    CloneRecord,
    CloneState,
    Holds,
    Isolation,
    OperationKind,
    Outcome,
    ProcessIdentity,
    natural,
    utc_now,
)
from khlone.records import EXEC
from khlone.records import Operation as Operation
from khlone.records import SessionRecord as SessionRecord
from khlone.records import TrashRecord as TrashRecord
from khlone.schema import MIGRATIONS
from khlone.values import replace

_CLONE_COLUMNS = """c.id, c.name, c.target, c.path, c.admin, c.state, c.reason, c.agent, c.isolation, c.config_dir,
    c.created_at, c.epoch, b.name AS branch, b.base, b.owned, b.merged_head"""
_CLONES = f"SELECT {_CLONE_COLUMNS} FROM clones c JOIN branches b ON b.clone = c.id"  # noqa: S608
_OWNER = ("pid", "start_ticks", "boot_id", "host", "pid_namespace")
_LIVE = "c.state NOT IN ('trashed', 'purging')"
#: Ended operations kept for `log`.
KEPT_OPERATIONS = 2000
#: Sessions of one clone that are kept, with how they ended.
KEPT_SESSIONS = 50


def folded(name: str) -> str:
    """The form in which two names that a file system may confuse are equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Registry:
    """The clones, sessions, trash and operations of one repository."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, MIGRATIONS)
        self.path = path

    def close(self) -> None:
        """Give up this thread's connection."""
        self.database.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction that excludes every other writer; committed at the end of the block."""
        with self.database.transaction() as connection:
            yield Transaction(connection)

    def clones(self) -> list[CloneRecord]:
        """Every clone that is not in the trash, by name."""
        return sorted(map(_clone, self._rows(f"{_CLONES} WHERE {_LIVE}")), key=lambda one: natural(one.name))

    def clone(self, name: str) -> CloneRecord | None:
        """The live clone of that name, by exact letters."""
        rows = self._rows(f"{_CLONES} WHERE c.folded = CAST(? AS TEXT) AND {_LIVE}", (raw(folded(name)),))
        return next((_clone(row) for row in rows if row["name"] == name), None)

    def clone_by_id(self, clone_id: str) -> CloneRecord | None:
        """The clone of that id, in whatever state."""
        rows = self._rows(f"{_CLONES} WHERE c.id = ?", (clone_id,))
        return _clone(rows[0]) if rows else None

    def open_operations(self) -> list[Operation]:
        """Every operation that has not ended, oldest first."""
        return [_operation(row) for row in self._rows("SELECT * FROM operations WHERE ended_at IS NULL ORDER BY id")]

    def operations(self, *, name: str | None = None, limit: int | None = None) -> list[Operation]:
        """The operations of the journal, newest first, of one clone's name or of all."""
        where = "" if name is None else "WHERE name = CAST(? AS TEXT)"
        values: list[object] = [] if name is None else [raw(name)]
        query = f"SELECT * FROM operations {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        return [_operation(row) for row in self._rows(query, [*values, -1 if limit is None else limit])]

    def operation(self, operation_id: str) -> Operation | None:
        """One operation, ended or not."""
        return next(map(_operation, self._rows("SELECT * FROM operations WHERE id = ?", (operation_id,))), None)

    def last_landing(self, clone_id: str, target: str) -> Operation | None:
        """The newest merge that brought the clone onto that branch, as far back as the journal goes."""
        return next((found for found in self._landings(clone_id) if found.plan["target"] == target), None)

    def landed_on(self, clone_id: str, source: str) -> dict[str, str]:
        """The branches that the clone was brought onto at that very tip, each with the commit that did it."""
        found = (one.plan for one in self._landings(clone_id))
        return {str(plan["target"]): str(plan["new"]) for plan in found if plan["source"] == source}

    def _landings(self, clone_id: str) -> Iterator[Operation]:
        rows = self._rows(
            """SELECT * FROM operations WHERE clone = ? AND kind = ? AND outcome IN (?, ?) ORDER BY id DESC""",
            (clone_id, OperationKind.MERGE, Outcome.DONE, Outcome.RECOVERED),
        )
        return map(_operation, rows)

    def live_sessions(self, clone_id: str | None = None) -> list[SessionRecord]:
        """Every session without a recorded end; whether its process lives is another question."""
        rows = self._rows("SELECT * FROM sessions WHERE ended_at IS NULL ORDER BY id")
        return [_session(row) for row in rows if clone_id is None or row["clone"] == clone_id]

    def sessions(self, clone_id: str) -> list[SessionRecord]:
        """The sessions of a clone as far back as they are kept, the newest first, single commands aside."""
        query = "SELECT * FROM sessions WHERE clone = ? AND kind <> ? ORDER BY id DESC"
        return [_session(row) for row in self._rows(query, (clone_id, EXEC))]

    def trash(self) -> list[TrashRecord]:
        """Everything in the trash, newest first."""
        query = f"""SELECT {_CLONE_COLUMNS}, t.id AS trash, t.removed_at, t.head, t.snapshot, t.branch_deleted, t.bytes,
            t.tracked, t.untracked, t.ignored FROM trash t JOIN clones c ON c.id = t.clone
            JOIN branches b ON b.clone = c.id ORDER BY t.removed_at DESC, t.id DESC"""  # noqa: S608
        return [_trash(row) for row in self._rows(query)]

    def meta(self, key: str) -> str | None:
        """A fact about the repository as a whole."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0]["value"]) if rows else None

    def check(self) -> list[str]:
        """What SQLite's own checks have to say, and rows that miss their other half; empty when all is well."""
        found = [text for row in self._rows("PRAGMA integrity_check") if (text := str(row[0])) != "ok"]
        found += [f"a row of {row['table']} misses its clone" for row in self._rows("PRAGMA foreign_key_check")]
        lone = self._rows("SELECT id FROM clones WHERE id NOT IN (SELECT clone FROM branches)")
        return found + [f"clone {row['id']} has no branch" for row in lone]

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for what reads rows of its own (`queue_rows`)."""
        with self.database.explained():
            yield self.database.connection()

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self.database.explained():
            return self.database.connection().execute(query, tuple(values)).fetchall()


class Transaction:
    """Changes inside one `BEGIN IMMEDIATE`; what it reads cannot change before it commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for what changes rows of its own (`queue_rows`) in the same transaction."""
        return self._connection

    def reserve_clone(self, clone: CloneRecord) -> None:
        """Add a clone; raises CloneExists, NameCollides or BranchCheckedOut when something of it is taken."""
        for other in self._clones():
            if other.name == clone.name:
                raise CloneExists(clone.name, other.path)
            if folded(other.name) == folded(clone.name) or _nested(folded(other.name), folded(clone.name)):
                raise NameCollides(clone.name, other.name)
            if other.branch == clone.branch:
                raise BranchCheckedOut(clone.branch, other.path, clone=other.name)
            if other.path == clone.path:
                raise NameCollides(clone.path.name, other.path.name)
        self.insert_clone(clone)

    def insert_clone(self, clone: CloneRecord) -> None:
        """Add a clone as it is."""
        self._connection.execute(
            """INSERT INTO clones
            (id, name, folded, target, path, admin, state, reason, agent, isolation, config_dir, created_at, epoch)
            VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?,
                CAST(? AS TEXT), CAST(? AS TEXT), ?, CAST(? AS TEXT), ?, ?)""",
            (
                clone.id,
                raw(clone.name),
                raw(folded(clone.name)),
                _raw_or_none(clone.target),
                os.fsencode(clone.path),
                raw(clone.admin),
                clone.state,
                _raw_or_none(clone.reason),
                _raw_or_none(clone.agent),
                clone.isolation,
                None if clone.config_dir is None else os.fsencode(clone.config_dir),
                clone.created_at,
                clone.epoch,
            ),
        )
        self._connection.execute(
            """INSERT INTO branches (clone, name, base, owned, live, merged_head)
            VALUES (?, CAST(? AS TEXT), ?, ?, ?, ?)""",
            (
                clone.id,
                raw(clone.branch),
                clone.base,
                int(clone.branch_owned),
                int(clone.state not in GONE_STATES),
                clone.merged_head,
            ),
        )

    def move_clone(
        self,
        clone: CloneRecord,
        to: CloneState,
        *,
        from_states: Collection[CloneState] | None = None,
        reason: str | None = None,
    ) -> None:
        """Change a clone's state if it is still the one that `clone` says, else raise CloneNotReady.

        Raises CloneExists when one comes back whose name, path or branch another has meanwhile.
        """
        allowed = (clone.state,) if from_states is None else tuple(from_states)
        marks = ", ".join("?" * len(allowed))
        try:
            changed = self._connection.execute(
                f"""UPDATE clones SET state = ?, reason = CAST(? AS TEXT), epoch = epoch + 1
                WHERE id = ? AND state IN ({marks})""",  # noqa: S608
                (to, _raw_or_none(reason), clone.id, *allowed),
            ).rowcount
            self._connection.execute(
                "UPDATE branches SET live = ? WHERE clone = ? AND ?", (int(to not in GONE_STATES), clone.id, changed)
            )
        except sqlite3.IntegrityError as error:
            raise CloneExists(clone.name, clone.path) from error
        if changed != 1:
            found = self._connection.execute("SELECT state, reason FROM clones WHERE id = ?", (clone.id,)).fetchone()
            raise CloneNotReady(clone.name, found["state"] if found else "gone", found["reason"] if found else None)

    def note_merged(self, clone_id: str, head: str | None) -> None:
        """Remember which tip of the clone's branch has landed."""
        self._connection.execute("UPDATE branches SET merged_head = ? WHERE clone = ?", (head, clone_id))

    def rename_clone(self, clone_id: str, *, name: str, branch: str, path: Path) -> None:
        """Give a clone another name, branch and path."""
        self._connection.execute(
            """UPDATE clones SET name = CAST(? AS TEXT), folded = CAST(? AS TEXT), path = CAST(? AS TEXT)
            WHERE id = ?""",
            (raw(name), raw(folded(name)), os.fsencode(path), clone_id),
        )
        self._connection.execute("UPDATE branches SET name = CAST(? AS TEXT) WHERE clone = ?", (raw(branch), clone_id))

    def set_base(self, clone_id: str, base: str) -> None:
        """Note another commit as the one that the clone's own work begins at."""
        self._connection.execute("UPDATE branches SET base = ? WHERE clone = ?", (base, clone_id))

    def retarget(self, old: str, new: str) -> None:
        """Let every clone that merges into a branch follow its new name."""
        self._connection.execute(
            "UPDATE clones SET target = CAST(? AS TEXT) WHERE target = CAST(? AS TEXT)", (raw(new), raw(old))
        )

    def set_admin(self, clone_id: str, admin: str) -> None:
        """Note which admin folder git chose."""
        self._connection.execute("UPDATE clones SET admin = CAST(? AS TEXT) WHERE id = ?", (raw(admin), clone_id))

    def delete_clone(self, clone_id: str) -> None:
        """Forget a clone, its branch and its trash; the journal keeps what was done."""
        self._connection.execute("DELETE FROM sessions WHERE clone = ?", (clone_id,))
        self._connection.execute("DELETE FROM clones WHERE id = ?", (clone_id,))

    def clones(self) -> list[CloneRecord]:
        """Every clone that is not in the trash."""
        return self._clones()

    def _clones(self) -> list[CloneRecord]:
        return [_clone(row) for row in self._connection.execute(f"{_CLONES} WHERE {_LIVE}")]

    def begin_operation(self, operation: Operation) -> None:
        """Write the plan of an operation."""
        self._connection.execute(
            """INSERT INTO operations
            (id, kind, clone, name, plan, step, pid, start_ticks, boot_id, host, pid_namespace, started_at)
            VALUES (?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                operation.id,
                operation.kind,
                operation.clone_id,
                raw(operation.name),
                json.dumps(operation.plan),
                operation.step,
                *(getattr(operation.owner, name) for name in _OWNER),
                operation.started_at,
            ),
        )

    def note_step(self, operation_id: str, step: str, plan: Mapping[str, object] | None = None) -> None:
        """Record that an operation has reached a step, with its plan where that grew."""
        self._connection.execute("UPDATE operations SET step = ? WHERE id = ?", (step, operation_id))
        if plan is not None:
            self._connection.execute("UPDATE operations SET plan = ? WHERE id = ?", (json.dumps(plan), operation_id))

    def end_operation(self, operation_id: str, outcome: Outcome, message: str | None = None) -> None:
        """Close an operation; the oldest closed ones beyond a bound are dropped."""
        self._connection.execute(
            """UPDATE operations SET ended_at = ?, outcome = ?, message = CAST(? AS TEXT)
            WHERE id = ? AND ended_at IS NULL""",
            (utc_now(), outcome, _raw_or_none(message), operation_id),
        )
        self._connection.execute(
            """DELETE FROM operations WHERE ended_at IS NOT NULL AND id NOT IN
            (SELECT id FROM operations WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT ?)""",
            (KEPT_OPERATIONS,),
        )

    def forget_operation(self, operation_id: str) -> None:
        """Drop an operation that left no effect."""
        self._connection.execute("DELETE FROM operations WHERE id = ?", (operation_id,))

    def start_session(self, session: SessionRecord) -> None:
        """Record a process that is about to work in a clone that is there to work in."""
        found = self._connection.execute(
            "SELECT name, state, reason FROM clones WHERE id = ?", (session.clone_id,)
        ).fetchone()
        usable = (CloneState.READY, CloneState.MERGING, CloneState.MERGED, CloneState.ADOPTED)
        if found is None or found["state"] not in usable:
            name = found["name"] if found else session.clone_id
            raise CloneNotReady(name, found["state"] if found else "gone", found["reason"] if found else None)
        self._connection.execute(
            """INSERT INTO sessions
            (id, clone, pid, start_ticks, boot_id, host, pid_namespace, state, command, started_at, kind, log,
            supervisor_pid, supervisor_ticks)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?)""",
            (
                session.id,
                session.clone_id,
                *(getattr(session.owner, name) for name in _OWNER),
                session.state,
                json.dumps(list(session.command)),
                session.started_at,
                session.kind,
                _raw_or_none(session.log),
                None if session.supervisor is None else session.supervisor.pid,
                None if session.supervisor is None else session.supervisor.start_ticks,
            ),
        )

    def live_sessions(self, clone_id: str) -> list[SessionRecord]:
        """Every session of a clone without a recorded end."""
        query = "SELECT * FROM sessions WHERE clone = ? AND ended_at IS NULL ORDER BY id"
        return [_session(row) for row in self._connection.execute(query, (clone_id,))]

    def note_reason(self, session_id: str, reason: str) -> None:
        """Record why a session is about to end, unless that is known."""
        self._connection.execute(
            "UPDATE sessions SET reason = coalesce(reason, CAST(? AS TEXT)) WHERE id = ? AND ended_at IS NULL",
            (raw(reason), session_id),
        )

    def forget_session(self, session_id: str) -> None:
        """Drop a session that never came to be."""
        self._connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))

    def note_session_process(self, session_id: str, owner: ProcessIdentity, *, waits: str | None = None) -> None:
        """Record which process a session is, once it runs, or which is to start it again, and what it waits for."""
        self._connection.execute(
            "UPDATE sessions SET pid = ?, start_ticks = ?, state = ?, reason = CAST(? AS TEXT) WHERE id = ?",
            (owner.pid, owner.start_ticks, "waiting" if waits else "running", _raw_or_none(waits), session_id),
        )

    def note_supervisor(self, session_id: str, supervisor: ProcessIdentity) -> None:
        """Record who sees a session through from now on."""
        self._connection.execute(
            "UPDATE sessions SET supervisor_pid = ?, supervisor_ticks = ? WHERE id = ? AND ended_at IS NULL",
            (supervisor.pid, supervisor.start_ticks, session_id),
        )

    def end_session(self, session_id: str, state: str, status: int | None, reason: str | None = None) -> bool:
        """Record how a session ended; False when somebody else has. The oldest of its clone beyond a bound go."""
        changed = self._connection.execute(
            """UPDATE sessions SET state = ?, status = ?, ended_at = ?, reason = coalesce(CAST(? AS TEXT), reason)
            WHERE id = ? AND ended_at IS NULL""",
            (state, status, utc_now(), _raw_or_none(reason), session_id),
        ).rowcount
        self._connection.execute(
            """DELETE FROM sessions WHERE ended_at IS NOT NULL AND id IN (SELECT id FROM sessions
            WHERE clone = (SELECT clone FROM sessions WHERE id = ?) ORDER BY id DESC LIMIT -1 OFFSET ?)""",
            (session_id, KEPT_SESSIONS),
        )
        return changed == 1

    def insert_trash(self, record: TrashRecord) -> None:
        """Record a removed clone."""
        self._connection.execute(
            "INSERT OR REPLACE INTO trash VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                record.clone.id,
                record.removed_at,
                record.head,
                record.snapshot,
                int(record.branch_deleted),
                record.bytes,
                record.holds.tracked,
                record.holds.untracked,
                record.holds.ignored,
            ),
        )

    def delete_trash(self, trash_id: str) -> None:
        """Forget a trash entry; its clone stays."""
        self._connection.execute("DELETE FROM trash WHERE id = ?", (trash_id,))

    def set_meta(self, key: str, value: str) -> None:
        """Keep a fact about the repository as a whole."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, CAST(? AS TEXT))", (key, raw(value)))


def _raw_or_none(text: str | None) -> bytes | None:
    return None if text is None else raw(text)


def _nested(one: str, other: str) -> bool:
    return one.startswith(other + "/") or other.startswith(one + "/")


def _clone(row: sqlite3.Row) -> CloneRecord:
    return CloneRecord(
        id=row["id"],
        name=row["name"],
        branch=row["branch"],
        branch_owned=bool(row["owned"]),
        target=row["target"],
        base=row["base"],
        path=Path(row["path"]),
        admin=row["admin"],
        state=CloneState(row["state"]),
        agent=row["agent"],
        isolation=Isolation(row["isolation"]),
        config_dir=None if row["config_dir"] is None else Path(row["config_dir"]),
        created_at=row["created_at"],
        epoch=row["epoch"],
        reason=row["reason"],
        merged_head=row["merged_head"],
    )


def _identity(row: sqlite3.Row) -> ProcessIdentity:
    return ProcessIdentity(**{name: row[name] for name in _OWNER})


def _operation(row: sqlite3.Row) -> Operation:
    return Operation(
        id=row["id"],
        kind=OperationKind(row["kind"]),
        clone_id=row["clone"],
        name=row["name"],
        plan=json.loads(row["plan"]),
        step=row["step"],
        owner=_identity(row),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        message=row["message"],
    )


def _session(row: sqlite3.Row) -> SessionRecord:
    owner, supervisor = _identity(row), None
    if row["supervisor_pid"] is not None:
        supervisor = replace(owner, pid=row["supervisor_pid"], start_ticks=row["supervisor_ticks"])
    same = ("id", "state", "started_at", "ended_at", "status", "kind", "log", "reason")
    return SessionRecord(
        **{name: row[name] for name in same},
        clone_id=row["clone"],
        owner=owner,
        supervisor=supervisor,
        command=json.loads(row["command"]),
    )


def _trash(row: sqlite3.Row) -> TrashRecord:
    return TrashRecord(
        id=row["trash"],
        clone=_clone(row),
        removed_at=row["removed_at"],
        head=row["head"],
        snapshot=row["snapshot"],
        branch_deleted=bool(row["branch_deleted"]),
        bytes=row["bytes"],
        holds=Holds(tracked=row["tracked"], untracked=row["untracked"], ignored=row["ignored"]),
    )
