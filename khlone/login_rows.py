"""Which logins has an API refused? Rows of the machine database.

A credential is known by a hash alone, and so is what lies in the file that a login is kept
in: a login that has changed since is another one, of which nothing is known.
"""

from __future__ import annotations

import sqlite3
import time

from khlone.database import raw
from khlone.values import dataclass

#: A login that nobody has used for so long is forgotten, in seconds.
_KEPT_S = 30 * 86400.0
#: What was noted so many seconds ahead of now was noted by another clock.
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedLogin:
    """A credential that an API has refused with `status`, as the first session found that met it.

    It is in `variable`, or is kept in the file `place`, whose `content` is a hash, empty for no login at all.
    """

    credential: str
    status: int
    agent: str
    repository: str
    clone: str
    name: str
    session: str
    variable: str | None
    place: str | None
    content: str
    noted_s: float


def note(connection: sqlite3.Connection, found: RefusedLogin) -> None:
    """Write it down in place of what is known of that credential."""
    connection.execute("DELETE FROM refused_logins WHERE noted < ?", (time.time() - _KEPT_S,))
    connection.execute(
        """INSERT OR REPLACE INTO refused_logins (credential, status, agent, repository, clone, name, session,
        variable, place, content, noted)
        VALUES (?, ?, CAST(? AS TEXT), ?, ?, CAST(? AS TEXT), ?, ?, CAST(? AS TEXT), ?, ?)""",
        (
            found.credential,
            found.status,
            raw(found.agent),
            found.repository,
            found.clone,
            raw(found.name),
            found.session,
            found.variable,
            None if found.place is None else raw(found.place),
            found.content,
            found.noted_s,
        ),
    )


def all_of(connection: sqlite3.Connection) -> list[RefusedLogin]:
    """Every login that was refused, the oldest first."""
    rows = connection.execute("SELECT * FROM refused_logins ORDER BY noted, credential")
    same = ("credential", "status", "agent", "repository", "clone", "name", "session", "variable", "place", "content")
    return [RefusedLogin(**{name: row[name] for name in same}, noted_s=row["noted"]) for row in rows]


def find(connection: sqlite3.Connection, credential: str) -> RefusedLogin | None:
    """What is known of a credential, `None` where it was not refused."""
    return next((one for one in all_of(connection) if one.credential == credential), None)


def forget(connection: sqlite3.Connection, credential: str, worked_s: float) -> None:
    """A credential has worked at that time: what was noted before is over."""
    connection.execute(
        "DELETE FROM refused_logins WHERE credential = ? AND (noted < ? OR noted > ?)",
        (credential, worked_s, time.time() + _SLACK_S),
    )


def forget_key(connection: sqlite3.Connection, repository: str, clone: str, but: str | None = None) -> None:
    """A clone logs in with something else, the credential `but`, than with what was refused in a variable there."""
    connection.execute(
        """DELETE FROM refused_logins
        WHERE repository = ? AND clone = ? AND variable IS NOT NULL AND credential IS NOT ?""",
        (repository, clone, but),
    )
