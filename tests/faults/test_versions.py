"""A registry of another version: a newer one is refused by every verb, an older one migrated, whoever uses it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import sessions
from khlone.database import Database
from khlone.schema import MIGRATIONS
from tests.commands.steps import at_once, clone_names, footprint, new, refused, show, tree
from tests.faults.lab import customized, has_open, registry, rows, start, wait_until
from tests.support import Commit, Git, Khlone, write

#: Every verb that opens the registry, in a form that would work.
VERBS = (
    ("new", "c"),
    ("list",),
    ("list", "--no-status"),
    ("show", "a"),
    ("path", "a"),
    ("env", "a"),
    ("exec", "a", "--", "true"),
    ("exec", "--all", "--", "true"),
    ("diff", "a"),
    ("merge", "a"),
    ("merge", "a", "--dry-run"),
    ("remove", "--force", "a"),
    ("remove", "--dry-run", "a"),
    ("trash",),
    ("restore", "b"),
    ("prune",),
    ("prune", "--trash", "--age", "0s"),
    ("log",),
    ("doctor",),
    ("doctor", "--fix"),
)


def user_version(path: Path) -> int:
    """What the file says of its schema."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def everything(git: Git, project: Path) -> dict[str, object]:
    """Refs, admin folders, config dirs, and every byte of the registry, the trash and the clones."""
    state = project / ".git" / "khlone"
    return {
        **footprint(git, project),
        "state": {name: entry for name, entry in tree(state).items() if not name.startswith("locks/")},
        "clones": tree(project.with_name("project.clones")),
    }


@pytest.fixture
def used(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """A live clone `a` with work of its own and a removed clone `b`."""
    commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    write(new(khlone, project, "b"), {"b.txt": "b\n"})
    assert khlone("remove", "--force", "b", cwd=project).code == 0
    return project


def test_a_newer_registry_is_refused_by_every_verb_and_nothing_is_changed(khlone: Khlone, git: Git, used: Path) -> None:
    with contextlib.closing(sqlite3.connect(registry(used))) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    before = everything(git, used)

    answers = {verb: khlone(*verb[:1], "--json", *verb[1:], cwd=used) for verb in VERBS}

    for done in answers.values():
        assert str(len(MIGRATIONS) + 1) in refused(done, "registry-newer")["message"]
    assert everything(git, used) == before


def test_the_same_verbs_work_on_a_registry_of_this_version(khlone: Khlone, used: Path) -> None:
    """The control: each of them ends well, so that the version alone was what stood in its way."""
    leaving = [verb for verb in VERBS if verb[0] == "prune" or verb == ("remove", "--force", "a")]
    lasting = [verb for verb in VERBS if verb not in leaving]

    codes = {verb: khlone(*verb[:1], "--json", *verb[1:], cwd=used).code for verb in (*lasting, *leaving)}

    assert {verb: code for verb, code in codes.items() if code != 0} == {}


@pytest.fixture
def older(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """A repository with a live clone `a`, whose registry the first version wrote."""
    commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    path = registry(project)
    newest = path.with_name("newest")
    path.rename(newest)
    first = Database(path, MIGRATIONS[:1])
    with first.transaction() as change:
        change.execute("COMMIT")
        change.execute("ATTACH ? AS newest", (str(newest),))
        change.execute("BEGIN IMMEDIATE")
        for table in ("meta", "clones", "branches", "operations"):
            columns = ", ".join(row["name"] for row in change.execute(f"SELECT name FROM pragma_table_info('{table}')"))
            change.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM newest.{table}")
    first.close()
    newest.unlink()
    assert user_version(path) == 1
    return project


@pytest.mark.parametrize("verb", [("list",), ("new", "b"), ("doctor",), ("trash",), ("merge", "a")])
def test_a_registry_of_the_first_version_is_migrated_with_its_clones(
    khlone: Khlone, older: Path, verb: tuple[str, ...]
) -> None:
    done = khlone(*verb, cwd=older)

    assert done.code == 0, done.err
    assert user_version(registry(older)) == len(MIGRATIONS)
    assert (older.with_name("project.clones") / "a" / "one.txt").read_text() == "1\n"
    assert khlone("remove", "--force", "a", cwd=older).code == 0
    assert khlone("restore", "a", cwd=older).code == 0
    assert show(khlone, older, "a")["name"] == "a"
    assert khlone("doctor", cwd=older).code == 0


def test_many_that_find_the_old_version_at_once_all_work_in_the_new_one(khlone: Khlone, older: Path) -> None:
    names = [f"n{number}" for number in range(4)]

    results = at_once([lambda name=name: khlone("new", name, cwd=older) for name in names])  # type: ignore[misc]

    assert [done.err for done in results if done.code != 0] == []
    assert clone_names(khlone, older) == ["a", *names]
    assert user_version(registry(older)) == len(MIGRATIONS)


@pytest.fixture
def of_the_first_version(older: Path) -> Iterator[Database]:
    """A program of the first version with the registry open."""
    database = Database(registry(older), MIGRATIONS[:1])
    assert database.connection().execute("SELECT count(*) FROM clones").fetchone()[0] == 1
    yield database
    database.close()


def test_a_reader_of_the_old_version_goes_on_while_the_file_is_migrated(
    khlone: Khlone, older: Path, of_the_first_version: Database
) -> None:
    reading = of_the_first_version.connection().execute("SELECT name FROM clones")

    assert next(reading)[0] == "a"
    assert reading.fetchall() == []
    assert khlone("new", "b", cwd=older).code == 0
    names = of_the_first_version.connection().execute("SELECT name FROM clones ORDER BY name").fetchall()

    assert [row[0] for row in names] == ["a", "b"]


def test_a_writer_of_the_old_version_holds_the_migration_up_and_loses_nothing(
    khlone: Khlone, older: Path, of_the_first_version: Database
) -> None:
    with of_the_first_version.transaction() as change:
        change.execute("INSERT INTO meta (key, value) VALUES ('told-by', 'the old version')")
        child = start(["list"], cwd=older)
        wait_until(lambda: has_open(child.pid, registry(older)))
        version_meanwhile = user_version(registry(older))

    code = child.wait()

    assert (version_meanwhile, code) == (1, 0)
    assert user_version(registry(older)) == len(MIGRATIONS)
    assert clone_names(khlone, older) == ["a"]
    assert rows(older, "SELECT value FROM meta WHERE key = 'told-by'") == [("the old version",)]


def test_a_new_program_of_the_old_version_refuses_the_migrated_file_by_name(
    khlone: Khlone, older: Path, tmp_path: Path
) -> None:
    """Two installed versions at once: the older one says so, and changes nothing."""
    assert khlone("list", cwd=older).code == 0
    first = customized(tmp_path / "site", "import khlone.schema as s\ns.MIGRATIONS = s.MIGRATIONS[:1]\n")
    before = registry(older).read_bytes()

    done = khlone("new", "b", "--json", cwd=older, env=first)

    assert str(registry(older)) in refused(done, "registry-newer")["message"]
    assert registry(older).read_bytes() == before


#: A session whose process was gone before anyone looked, as a program of the second version records it.
DEAD = """INSERT INTO sessions (id, clone, pid, start_ticks, boot_id, host, state, command, started_at)
    SELECT 's1', id, 1, 1, ?, ?, 'running', '["sleep"]', created_at FROM clones WHERE name = 'a'"""


@pytest.mark.parametrize("when", ["before the migration", "after it, by a program that was there before"])
def test_a_session_that_the_second_version_recorded_is_judged_by_its_pid_as_before(
    khlone: Khlone, older: Path, when: str
) -> None:
    second = Database(registry(older), MIGRATIONS[:2])
    writing = second.connection()
    if when != "before the migration":
        assert khlone("list", cwd=older).code == 0
    with second.transaction():
        writing.execute(DEAD, (sessions.boot_id(), os.uname().nodename))
    second.close()

    shown = show(khlone, older, "a")["sessions"]
    removed = khlone("remove", "--force", "a", cwd=older)

    assert user_version(registry(older)) == len(MIGRATIONS)
    assert [(one["id"], one["state"]) for one in shown] == [("s1", "lost")]
    assert removed.code == 0
    assert "another pid namespace" not in removed.err
