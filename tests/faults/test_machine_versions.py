"""The machine database of another version: an older one is migrated, whoever is killed; a newer one refused by name."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from khlone.database import Database
from khlone.machine import DATABASE_FILE
from khlone.machine_schema import MIGRATIONS
from tests.commands.steps import clone_names, document, new, refused
from tests.faults.lab import customized
from tests.support import Khlone

NEWEST = len(MIGRATIONS)
#: Verbs that need the machine database, and those that do their work without.
NEEDING = (
    ("run", "a", "--", "true"),
    ("run", "a", "-d", "--", "true"),
    ("exec", "--all", "--", "true"),
    ("slot", "run", "--", "true"),
    ("slot", "list"),
    ("limits",),
    ("usage",),
)
WITHOUT = (("list",), ("show", "a"), ("exec", "a", "--", "true"), ("new", "b"), ("remove", "b"), ("restore", "b"))
#: What a khlone of another boot of this machine, long gone, has left: a place in line, and what it learned.
LEFT = """
INSERT INTO leases (id, state, priority, repository, clone, name, kind, memory, asked_at, pid, boot_id, host)
VALUES ('l1', 'running', 0, '/gone', 'c1', 'a', 'claude', 1, '2020-01-01T00:00:00Z', 1, 'earlier', :host);
INSERT INTO memory_seen (kind, peak, seen_at) VALUES ('claude', 7000000, '2020-01-01T00:00:00Z')
"""


@pytest.fixture
def machine() -> Path:
    """Where the machine database of the account lies."""
    path = Path(os.environ["XDG_STATE_HOME"], "khlone", DATABASE_FILE)
    path.parent.mkdir(parents=True, mode=0o700)
    return path


def of_version(path: Path, version: int) -> None:
    """The file as a khlone of that version left it."""
    path.unlink(missing_ok=True)
    database = Database(path, MIGRATIONS[:version])
    with database.transaction() as change:
        for statement in LEFT.split(";\n"):
            change.execute(statement, {"host": os.uname().nodename} if ":host" in statement else {})
    database.close()
    assert shape(path)[0] == version


def shape(path: Path) -> tuple[int, list[tuple[str, str]]]:
    """The version and everything that the schema defines."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return version, sorted(connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master").fetchall())


def asked(path: Path, query: str) -> list[tuple[object, ...]]:
    """What the file says, without khlone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("version", range(1, NEWEST))
@pytest.mark.parametrize("verb", [("run", "a", "--", "true"), ("limits",), ("slot", "list")])
def test_a_file_of_each_older_version_is_migrated_with_what_was_learned(
    khlone: Khlone, project: Path, machine: Path, version: int, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    of_version(machine, version)

    done = khlone(*verb, cwd=project)

    assert done.code == 0, done.err
    assert shape(machine)[0] == NEWEST
    assert asked(machine, "SELECT kind, peak FROM memory_seen WHERE kind = 'claude'") == [("claude", 7000000)]
    places = document(khlone("limits", "--json", cwd=project), "limits")["places"]
    assert places == [], "nobody of an earlier boot has a place"
    fresh = machine.with_name("fresh")
    Database(fresh, MIGRATIONS).connection()
    assert shape(machine) == shape(fresh)


def test_a_newer_file_is_refused_by_name_where_it_is_needed_and_told_by_the_doctor(
    khlone: Khlone, project: Path, machine: Path
) -> None:
    new(khlone, project, "a")
    of_version(machine, NEWEST)
    with contextlib.closing(sqlite3.connect(machine)) as connection:
        connection.execute(f"PRAGMA user_version={NEWEST + 1}")
    before = machine.read_bytes()

    refusals = {verb: khlone(verb[0], "--json", *verb[1:], cwd=project) for verb in NEEDING}
    (found,) = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]
    others = {verb: khlone(*verb, cwd=project).code for verb in WITHOUT}

    for verb, done in refusals.items():
        told = done.out + done.err
        assert done.code == 1, (verb, done)
        assert f"{machine} is of schema {NEWEST + 1}, this khlone knows {NEWEST}" in told, (verb, done)
    assert refused(refusals["limits",], "registry-newer")["hint"] == "upgrade khlone; nothing was changed"
    assert (found["code"], found["severity"]) == ("registry-newer", "error")
    assert set(others.values()) == {0}, others
    assert machine.read_bytes() == before
    assert clone_names(khlone, project) == ["a", "b"]


def test_with_a_file_of_this_version_the_same_verbs_do_their_work(khlone: Khlone, project: Path, machine: Path) -> None:
    """The control."""
    new(khlone, project, "a")
    of_version(machine, NEWEST)

    codes = {verb: khlone(*verb, cwd=project).code for verb in (*NEEDING, *WITHOUT, ("doctor",))}

    assert set(codes.values()) == {0}, codes


# -- a migration that is killed --------------------------------------------------------------

KILLING = """
import os, signal
from khlone import database

class Killing(database._Connection):
    count = 0

    def execute(self, sql, *values):
        if os.environ["HOW"] == "unprotected" and sql in ("BEGIN", "BEGIN IMMEDIATE", "COMMIT"):
            return super().execute("SELECT 1")
        done = super().execute(sql, *values)
        if sql.lstrip().startswith(("BEGIN IMMEDIATE", "CREATE", "ALTER", "PRAGMA user_version=", "COMMIT")):
            Killing.count += 1
            if Killing.count == int(os.environ["FATAL"]):
                os.kill(os.getpid(), signal.SIGKILL)
        return done

database._Connection = Killing
"""


def shapes(khlone: Khlone, machine: Path, env: Mapping[str, str], how: str) -> list[tuple[int, list[tuple[str, str]]]]:
    """The shape of a file of the first version after `slot list` was killed at each statement of its migration."""
    found = []
    for fatal in range(1, 40):
        of_version(machine, 1)
        done = khlone("slot", "list", cwd=machine.parent, env={**env, "HOW": how, "FATAL": str(fatal)})
        found.append(shape(machine))
        if done.code == 0:
            return found
        assert done.code == -9, done
        assert khlone("slot", "list", cwd=machine.parent).code == 0 or how == "unprotected"
    raise AssertionError("the migration never came to its end")


def test_a_migration_that_is_killed_at_any_statement_is_not_begun_or_done(
    khlone: Khlone, machine: Path, tmp_path: Path
) -> None:
    env = customized(tmp_path / "site", KILLING)
    of_version(machine, 1)
    old = shape(machine)
    assert khlone("slot", "list", cwd=tmp_path).code == 0
    whole = (old, shape(machine))

    protected = shapes(khlone, machine, env, "protected")
    unprotected = shapes(khlone, machine, env, "unprotected")

    assert [found for found in protected if found not in whole] == []
    assert (protected[0], protected[-1]) == whole
    assert len(protected) > 8, "it was killed between the statements of several versions"
    assert [found for found in unprotected if found not in whole] != [], "the control must show a half"
