"""Which commits wait for their turn to land, and what did gates say of which tree? Rows and their changes.

An entry pins one commit of one clone for one target. Whoever drives a target's queue has
its seat: each one who takes it raises the epoch, and nothing is written for an older one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from khlone.database import raw
from khlone.errors import SeatLost
from khlone.model import Strategy, utc_now
from khlone.records import QueueEntry, QueueState
from khlone.values import field_names, replace

#: Ended entries and results of gates that are kept.
KEPT_ENTRIES = 2000
KEPT_RESULTS = 5000
_ENDED = "('landed', 'held', 'removed', 'superseded')"
_TEXT = frozenset({"name", "target", "code", "message", "hint", "resolved_by"})
_LISTS = frozenset({"after", "paths", "partners", "notes"})
_COLUMNS = field_names(QueueEntry)
#: What two entries say alike that are the same request.
_SAME = ("clone", "target", "source", "strategy", "gate", "remove", "priority", "after", "push", "verify")


def select(connection: sqlite3.Connection, where: str, values: Sequence[object] = ()) -> list[QueueEntry]:
    """Entries in the order in which they land: by priority, by how often they were held, by age."""
    query = f"SELECT * FROM queue WHERE {where} ORDER BY priority DESC, penalty, id"  # noqa: S608
    return [_entry(row) for row in connection.execute(query, tuple(values))]


def waiting(connection: sqlite3.Connection, target: str | None = None) -> list[QueueEntry]:
    """What has not ended, of one target or of all."""
    if target is None:
        return select(connection, f"state NOT IN {_ENDED}")
    return select(connection, f"state NOT IN {_ENDED} AND target = CAST(? AS TEXT)", (raw(target),))


def find_alike(connection: sqlite3.Connection, entry: QueueEntry) -> QueueEntry | None:
    """The entry that is in line already and says the very same."""
    for one in waiting(connection, entry.target):
        if all(getattr(one, name) == getattr(entry, name) for name in _SAME):
            return one
    return None


def landing(connection: sqlite3.Connection) -> set[str]:
    """The ids of entries whose landing is written down and under way: nothing ends these but that."""
    rows = connection.execute("SELECT plan FROM operations WHERE ended_at IS NULL AND kind = 'land'")
    return {str(item["entry"]) for row in rows for item in json.loads(row["plan"])["entries"]}


def all_wait(connection: sqlite3.Connection, ids: Sequence[str]) -> bool:
    """Whether none of these has ended: was taken out, or gave way to a newer one."""
    marks = ", ".join("?" * len(ids))
    query = f"SELECT count(*) AS live FROM queue WHERE id IN ({marks}) AND state NOT IN {_ENDED}"  # noqa: S608
    return int(connection.execute(query, tuple(ids)).fetchone()["live"]) == len(set(ids))


def add(connection: sqlite3.Connection, entry: QueueEntry) -> list[QueueEntry]:
    """Add an entry; what waited of the same clone for the same target is superseded, and returned.

    What is landing at this moment is not: the entry waits behind it.

    It waits behind those of the same priority whose clones were held less often since they landed last.
    """
    under_way = landing(connection)
    old = [one for one in waiting(connection, entry.target) if one.clone == entry.clone and one.id not in under_way]
    for one in old:
        end(connection, one.id, QueueState.SUPERSEDED)
    entry = replace(entry, penalty=_refusals(connection, entry))
    marks = ", ".join("CAST(? AS TEXT)" if name in _TEXT else "?" for name in _COLUMNS)
    connection.execute(
        f"INSERT INTO queue ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608
        tuple(_value(name, getattr(entry, name)) for name in _COLUMNS),
    )
    connection.execute(
        f"""DELETE FROM queue WHERE state IN {_ENDED} AND id NOT IN
        (SELECT id FROM queue WHERE state IN {_ENDED} ORDER BY id DESC LIMIT ?)""",  # noqa: S608
        (KEPT_ENTRIES,),
    )
    return old


def _refusals(connection: sqlite3.Connection, entry: QueueEntry) -> int:
    """How often a gate or a conflict held a clone on its way to a target since it landed there last."""
    row = connection.execute(
        """SELECT count(*) AS held FROM queue WHERE clone = ?1 AND target = CAST(?2 AS TEXT) AND state = 'held'
        AND code IN ('gate-failed', 'conflict') AND id > coalesce((SELECT max(id) FROM queue
            WHERE clone = ?1 AND target = CAST(?2 AS TEXT) AND state = 'landed'), '')""",
        (entry.clone, raw(entry.target)),
    ).fetchone()
    return int(row["held"])


def end(connection: sqlite3.Connection, entry_id: str, state: QueueState, **facts: object) -> bool:
    """End an entry that has not ended, with what is to be said of it; False when it had."""
    facts["ended_at"] = utc_now()
    names = ", ".join(f"{name} = CAST(? AS TEXT)" if name in _TEXT else f"{name} = ?" for name in facts)
    changed = connection.execute(
        f"UPDATE queue SET state = ?, {names} WHERE id = ? AND state NOT IN {_ENDED}",  # noqa: S608
        (state, *(_value(name, value) for name, value in facts.items()), entry_id),
    )
    return changed.rowcount == 1


def take_seat(connection: sqlite3.Connection, target: str) -> int:
    """Become the one who drives a target, and learn the epoch."""
    connection.execute(
        """INSERT INTO seats (target, epoch) VALUES (CAST(? AS TEXT), 1)
        ON CONFLICT (target) DO UPDATE SET epoch = epoch + 1""",
        (raw(target),),
    )
    connection.execute(
        "UPDATE queue SET state = 'waiting' WHERE state = 'testing' AND target = CAST(? AS TEXT)", (raw(target),)
    )
    return _epoch(connection, target)


def note_testing(connection: sqlite3.Connection, entries: Sequence[str], *, testing: bool) -> None:
    """Mark what gates look at now, or no more."""
    to, of = ("testing", "waiting") if testing else ("waiting", "testing")
    connection.executemany(
        "UPDATE queue SET state = ? WHERE id = ? AND state = ?", [(to, entry_id, of) for entry_id in entries]
    )


def is_paused(connection: sqlite3.Connection, target: str) -> bool:
    """Whether nothing of the target's queue is to land."""
    row = connection.execute("SELECT paused FROM seats WHERE target = CAST(? AS TEXT)", (raw(target),)).fetchone()
    return row is not None and bool(row["paused"])


def set_paused(connection: sqlite3.Connection, target: str, *, paused: bool) -> None:
    """Let the target's queue rest, or go on."""
    connection.execute(
        """INSERT INTO seats (target, epoch, paused) VALUES (CAST(? AS TEXT), 0, ?)
        ON CONFLICT (target) DO UPDATE SET paused = excluded.paused""",
        (raw(target), int(paused)),
    )


def paused_targets(connection: sqlite3.Connection) -> list[str]:
    """The targets whose queues rest."""
    return [str(row["target"]) for row in connection.execute("SELECT target FROM seats WHERE paused ORDER BY target")]


def require_seat(connection: sqlite3.Connection, target: str, epoch: int) -> None:
    """Raise SeatLost when another took the seat since."""
    if _epoch(connection, target) != epoch:
        raise SeatLost(target)


def _epoch(connection: sqlite3.Connection, target: str) -> int:
    row = connection.execute("SELECT epoch FROM seats WHERE target = CAST(? AS TEXT)", (raw(target),)).fetchone()
    return int(row["epoch"]) if row else 0


def known_result(connection: sqlite3.Connection, tree: str, gate: str) -> bool:
    """Whether a gate, by its key, has passed that very tree."""
    query = "SELECT 1 FROM gate_results WHERE tree = ? AND gate = ?"
    return connection.execute(query, (tree, gate)).fetchone() is not None


def note_passed(connection: sqlite3.Connection, tree: str, gates: Iterable[str]) -> None:
    """Keep that gates have passed a tree."""
    now = utc_now()
    connection.executemany("INSERT OR REPLACE INTO gate_results VALUES (?, ?, ?)", [(tree, one, now) for one in gates])
    connection.execute(
        "DELETE FROM gate_results WHERE rowid NOT IN (SELECT rowid FROM gate_results ORDER BY passed_at DESC LIMIT ?)",
        (KEPT_RESULTS,),
    )


def _value(name: str, value: object) -> object:
    if name in _LISTS:
        return json.dumps(list(value) if isinstance(value, (list, tuple)) else [])
    if name in _TEXT:
        return None if value is None else raw(str(value))
    return int(value) if isinstance(value, bool) else value


def _entry(row: Mapping[str, object]) -> QueueEntry:
    found = {name: row[name] for name in _COLUMNS}
    found |= {name: tuple(json.loads(str(found[name]))) for name in _LISTS}
    found |= {"state": QueueState(str(found["state"])), "strategy": Strategy(str(found["strategy"]))}
    found |= {name: bool(found[name]) for name in ("gate", "remove", "push", "verify")}
    found["gated"] = None if found["gated"] is None else bool(found["gated"])
    return QueueEntry(**found)  # type: ignore[arg-type]
