"""Which limits has an API told of a credential, and what has each session used of it? Rows of the machine database.

A credential is known by a hash alone. Usage is summed up by session and minute; what is
older than two days by session.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from khlone.database import raw
from khlone.model import utc_now
from khlone.values import dataclass

#: A limit is over for good so long after it has lifted, in seconds.
FORGOTTEN_S = 3600.0
#: Hits so close together that the second pauses for longer than the first, in seconds.
_AGAIN_S = 600.0
_LONGEST_PAUSE_S = 900.0
#: What was noted so many seconds ahead of now was noted by another clock.
_SLACK_S = 60.0
_KEPT_MINUTES = 2 * 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimit:
    """A credential that the API has limited until `until_s` (seconds since 1970), told `hits` times in a row."""

    credential: str
    status: int
    until_s: float
    reason: str
    hits: int
    noted_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the sessions of one clone have used, all in all or in one minute. `cost_usd` is `None` where nobody told."""

    repository: str
    clone: str
    name: str
    agent: str
    session: str
    agent_session: str | None = None
    credential: str | None = None
    requests: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0
    cost_usd: float | None = None


def note_limit(
    connection: sqlite3.Connection, credential: str, status: int, until_s: float, reason: str, *, is_told: bool
) -> ApiLimit:
    """Write down that a credential is limited; the later end counts.

    Where the API has not told a time (`is_told` false), each hit soon after the end of
    another pauses for twice as long; those of many sessions at once are one.
    """
    now = time.time()
    found = limit(connection, credential)
    hits = 1
    if found is not None and now - found.until_s < _AGAIN_S:
        hits = found.hits + (now >= found.until_s)
        if not is_told:
            until_s = now + min(_LONGEST_PAUSE_S, (until_s - now) * 2 ** min(hits - 1, 8))
        until_s = max(until_s, found.until_s)
    connection.execute(
        """INSERT INTO api_limits (credential, status, until, reason, hits, noted_at) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (credential) DO UPDATE SET status = excluded.status, until = excluded.until,
        reason = excluded.reason, hits = excluded.hits, noted_at = excluded.noted_at""",
        (credential, status, until_s, reason, hits, utc_now()),
    )
    connection.execute("DELETE FROM api_limits WHERE until < ?", (now - FORGOTTEN_S,))
    return ApiLimit(credential=credential, status=status, until_s=until_s, reason=reason, hits=hits, noted_at=utc_now())


def limit(connection: sqlite3.Connection, credential: str) -> ApiLimit | None:
    """What is known of a credential, `None` where it is not limited, and has not been of late."""
    return next((one for one in limits(connection) if one.credential == credential), None)


def limits(connection: sqlite3.Connection) -> list[ApiLimit]:
    """Every credential that is limited or has been of late."""
    now = time.time()
    rows = connection.execute("SELECT * FROM api_limits WHERE until >= ?", (now - FORGOTTEN_S,))
    return [
        ApiLimit(
            credential=row["credential"],
            status=row["status"],
            until_s=_until(row, now),
            reason=row["reason"],
            hits=row["hits"],
            noted_at=row["noted_at"],
        )
        for row in rows
    ]


def _until(row: sqlite3.Row, now_s: float) -> float:
    """When it lifts: now, where it was noted by a clock that has been set back since, so that one may try."""
    until: float = row["until"]
    noted_s = datetime.fromisoformat(row["noted_at"]).timestamp()
    return until if noted_s <= now_s + _SLACK_S else min(until, now_s)


def add_used(connection: sqlite3.Connection, used: Used, *, minute: int | None = None) -> None:
    """Add what a session has used, by default in this very minute."""
    now = int(time.time() // 60) if minute is None else minute
    connection.execute(
        """INSERT INTO usage (minute, repository, clone, name, agent, session, agent_session, credential,
        requests, input, output, cache_read, cache_creation, cost)
        VALUES (?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (repository, clone, session, minute) DO UPDATE SET
        agent_session = coalesce(excluded.agent_session, agent_session),
        requests = requests + excluded.requests, input = input + excluded.input, output = output + excluded.output,
        cache_read = cache_read + excluded.cache_read, cache_creation = cache_creation + excluded.cache_creation,
        cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END""",
        (
            now,
            used.repository,
            used.clone,
            raw(used.name),
            raw(used.agent),
            used.session,
            used.agent_session,
            used.credential,
            used.requests,
            used.input,
            used.output,
            used.cache_read,
            used.cache_creation,
            used.cost_usd,
        ),
    )


def sum_up_old(connection: sqlite3.Connection) -> None:
    """Make one row a session of what is older than two days."""
    last = int(time.time() // 60) - _KEPT_MINUTES
    old = "FROM usage WHERE minute > 0 AND minute < ?"
    rows = connection.execute(f"SELECT * {old}", (last,)).fetchall()
    connection.execute(f"DELETE {old}", (last,))
    for row in rows:
        add_used(connection, _used(row), minute=0)


def cost_since(connection: sqlite3.Connection, repository: str, clone: str, minute: int) -> float:
    """The dollars that the sessions of a clone have told of since a minute (of 1970)."""
    query = "SELECT sum(cost) FROM usage WHERE repository = ? AND clone = ? AND minute >= ?"
    (found,) = connection.execute(query, (repository, clone, minute)).fetchone()
    return float(found or 0.0)


def used(connection: sqlite3.Connection, repository: str, *, minutes: int | None = None) -> Sequence[Used]:
    """What each session of a repository has used, all in all or in the last so many minutes."""
    since = -1 if minutes is None else int(time.time() // 60) - minutes
    rows = connection.execute(
        """SELECT repository, clone, max(name) AS name, max(agent) AS agent, session,
        max(agent_session) AS agent_session, max(credential) AS credential, sum(requests) AS requests,
        sum(input) AS input, sum(output) AS output, sum(cache_read) AS cache_read,
        sum(cache_creation) AS cache_creation, sum(cost) AS cost
        FROM usage WHERE repository = ? AND minute > ? GROUP BY repository, clone, session ORDER BY min(number)""",
        (repository, since),
    )
    return [_used(row) for row in rows]


def used_earlier(connection: sqlite3.Connection, whose: Used, agent_session: str) -> Mapping[str, int]:
    """The tokens of a session of the agent's that other sessions of the clone have counted, by their kind."""
    row = connection.execute(
        """SELECT coalesce(sum(input), 0) AS input, coalesce(sum(output), 0) AS output,
        coalesce(sum(cache_read), 0) AS cache_read, coalesce(sum(cache_creation), 0) AS cache_creation
        FROM usage WHERE repository = ? AND clone = ? AND agent_session = ? AND session <> ?""",
        (whose.repository, whose.clone, agent_session, whose.session),
    ).fetchone()
    return dict(row)


def _used(row: sqlite3.Row) -> Used:
    same = ("repository", "clone", "name", "agent", "session", "agent_session", "credential")
    numbers = ("requests", "input", "output", "cache_read", "cache_creation")
    return Used(**{name: row[name] for name in (*same, *numbers)}, cost_usd=row["cost"])
