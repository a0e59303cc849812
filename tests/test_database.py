"""A database file is whole after every crash, and says plainly when it is not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from khlone.database import Database, raw
from khlone.errors import Locked, NoSpace, NotPermitted, RegistryCorrupt, RegistryNewer, StateUnsafe
from khlone.registry import Registry
from khlone.schema import MIGRATIONS
from tests.support import TIMEOUT_S

TABLE = ("CREATE TABLE words (word TEXT NOT NULL, number INTEGER) STRICT",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


def database(path: Path, *, wait_s: float = 20.0) -> Database:
    return Database(path, TABLE, busy_timeout_s=wait_s)


def words(path: Path) -> list[str]:
    """What is in the file, asked without khlone."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT word FROM words ORDER BY word")]
    finally:
        connection.close()


def add_all(found: Database, texts: Sequence[str | None]) -> None:
    with found.transaction() as change:
        for text in texts:
            change.execute("INSERT INTO words (word) VALUES (?)", (text,))


def add(found: Database, word: str) -> None:
    add_all(found, [word])


# -- how it is opened ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "truncate"), ("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0)]
)
def test_the_settings_that_survive_a_crash_are_in_force(path: Path, pragma: str, value: object) -> None:
    for _ in ("made", "opened"):
        found = database(path)
        assert found.connection().execute(f"PRAGMA {pragma}").fetchone()[0] == value
        found.close()


def test_a_file_that_another_program_put_into_wal_mode_is_put_back(path: Path) -> None:
    add(database(path), "a")
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode=WAL")
    other.close()

    found = database(path)

    assert found.connection().execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
    assert words(path) == ["a"]


def test_the_file_and_its_journal_are_for_their_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        found = database(path)
        with found.transaction() as change:
            change.execute("INSERT INTO words (word) VALUES ('a')")
            modes = {name: stat.S_IMODE(os.stat(path.parent / name).st_mode) for name in os.listdir(path.parent)}
    finally:
        os.umask(before)

    assert modes == {"state.sqlite3": 0o600, "state.sqlite3-journal": 0o600}


@pytest.mark.parametrize("name", ["a b", "100%25", "what?mode=ro", "#1", os.fsdecode(b"caf\xe9")])
def test_any_file_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    add(database(tmp_path / name), "a")

    assert words(tmp_path / name) == ["a"]
    assert {os.fsencode(found) for found in os.listdir(tmp_path)} <= {
        os.fsencode(name),
        os.fsencode(name) + b"-journal",
    }


@pytest.mark.parametrize("make", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused(path: Path, make: str) -> None:
    theirs = path.with_name("theirs")
    if make == "link":
        add(database(theirs), "theirs")
    if make in ("link", "dangling"):
        path.symlink_to(theirs)
    elif make == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)

    with pytest.raises(StateUnsafe, match="not a regular file"):
        database(path).connection()

    assert make != "dangling" or not theirs.exists()


def test_the_file_appears_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, seen = os.link, []

    def link(source: Path, destination: Path) -> None:
        seen.append((path.exists(), words(source)))
        plain(source, destination)

    monkeypatch.setattr(os, "link", link)

    database(path).connection()

    assert seen == [(False, [])]
    assert os.listdir(path.parent) == [path.name]


def test_of_two_that_make_the_file_at_once_both_work_in_the_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faster, plain = database(path), os.link

    def link(source: Path, destination: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", plain)
            add(faster, "first")
        plain(source, destination)

    monkeypatch.setattr(os, "link", link)

    add(database(path), "second")

    assert words(path) == ["first", "second"]
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]


def test_undecodable_bytes_go_round(path: Path) -> None:
    word = os.fsdecode(b"caf\xe9")
    found = database(path)

    with found.transaction() as change:
        change.execute("INSERT INTO words (word) VALUES (CAST(? AS TEXT))", (raw(word),))

    assert found.connection().execute("SELECT word FROM words").fetchone()[0] == word


# -- transactions --------------------------------------------------------------------------


def test_an_exception_takes_the_whole_transaction_back(path: Path) -> None:
    found = database(path)

    with pytest.raises(sqlite3.IntegrityError):
        add_all(found, ["a", None])

    assert words(path) == []
    add(found, "b")
    assert words(path) == ["b"]


def test_a_transaction_excludes_other_writers_before_its_first_change(path: Path) -> None:
    one, other = database(path), database(path, wait_s=0.0)

    with one.transaction(), pytest.raises(Locked):
        add(other, "a")
    with one.transaction() as change:
        change.rollback()
        change.execute("BEGIN")
        add(other, "control: a deferred transaction lets them in")

    assert len(words(path)) == 1


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(path: Path) -> Iterator[int]:
    """Let another process hold the writer's lock; gives its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.kill()


def test_a_wait_for_another_process_is_bounded_and_names_it(path: Path) -> None:
    add(database(path), "a")

    with held_by_another_process(path) as pid:
        with pytest.raises(Locked) as caught:
            add(database(path, wait_s=0.3), "b")

        assert caught.value.facts["holder"] == f"{Path(sys.executable).name} (pid {pid})"
        assert words(path) == ["a"], "who reads is not kept waiting"
    add(database(path), "b")
    assert words(path) == ["a", "b"]


def test_asking_for_the_holder_gives_up_no_lock_of_this_process(path: Path) -> None:
    mine, other = database(path), database(path, wait_s=0.0)
    with mine.transaction() as change:
        change.execute("INSERT INTO words (word) VALUES ('mine')")
        with pytest.raises(Locked, match="another transaction"):
            add(other, "theirs")

        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        tried = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
        os.close(os.open(path, os.O_RDONLY))
        control = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)

    assert b"locked" in tried.stderr
    assert control.returncode == 0, "the control: closing any descriptor of the file gives the lock up"


def test_each_thread_has_a_connection_of_its_own(path: Path) -> None:
    found = database(path)
    connections = [found.connection()]

    def work() -> None:
        connections.append(found.connection())
        add(found, "thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    add(found, "main")

    assert connections[0] is not connections[1]
    assert found.connection() is connections[0]
    assert words(path) == ["main", "thread"]


FORK = """
import os, sys
from pathlib import Path
from khlone import database
from khlone.database import Database
if sys.argv[2] == "unguarded":
    database._guard_forks = lambda: None
found = Database(Path(sys.argv[1]), ("CREATE TABLE words (word TEXT) STRICT",))
mine = found.connection()
mine.execute("BEGIN IMMEDIATE")
mine.execute("INSERT INTO words VALUES ('parent')")
child = os.fork()
if child == 0:
    theirs = found.connection()
    print(theirs is mine, theirs.execute("SELECT count(*) FROM words").fetchone()[0], flush=True)
    del theirs, mine
    found.close()
    found._local.opened = None
    sys.exit(0)
os.waitpid(child, 0)
print(os.stat(sys.argv[1] + "-journal").st_size > 0, flush=True)
mine.execute("COMMIT")
"""


@pytest.mark.parametrize(("how", "journal_is_kept"), [("guarded", b"True"), ("unguarded", b"False")])
def test_a_forked_child_opens_anew_and_leaves_its_parents_transaction_alone(
    path: Path, how: str, journal_is_kept: bytes
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path), how], capture_output=True, check=True, timeout=TIMEOUT_S
    )

    assert done.stderr == b""
    assert done.stdout.split() == [b"False", b"0", journal_is_kept]
    assert words(path) == ["parent"]


FORK_INSIDE = """
import os, sys
from pathlib import Path
from khlone.database import Database
found = Database(Path(sys.argv[1]), ("CREATE TABLE words (word TEXT) STRICT",))
child = 0
try:
    with found.transaction() as change:
        change.execute("INSERT INTO words VALUES ('parent')")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            print(os.stat(sys.argv[1] + "-journal").st_size > 0, flush=True)
        elif sys.argv[2] == "raises":
            raise RuntimeError("the child's own error")
except RuntimeError as error:
    print(error, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [("raises", "the child's own error"), ("goes on", "a transaction ends in the process that began it")],
)
def test_a_forked_child_neither_commits_nor_takes_back_what_its_parent_began(path: Path, how: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK_INSIDE, str(path), how],
        capture_output=True,
        check=True,
        timeout=TIMEOUT_S,
        text=True,
    )

    assert done.stdout.splitlines() == [told, "True"]
    assert words(path) == ["parent"]


# -- versions ------------------------------------------------------------------------------


def shape(path: Path) -> tuple[int, list[tuple[str, str]]]:
    """The version and everything that the schema defines."""
    connection = sqlite3.connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return version, sorted(connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master").fetchall())
    finally:
        connection.close()


def test_every_older_version_becomes_the_newest_one_with_its_rows(tmp_path: Path) -> None:
    Registry(tmp_path / "fresh").meta("none")
    for version in range(1, len(MIGRATIONS)):
        path = tmp_path / f"from-{version}"
        with Database(path, MIGRATIONS[:version]).transaction() as change:
            change.execute("INSERT INTO meta VALUES ('key', 'kept')")

        assert Registry(path).meta("key") == "kept"

        assert shape(path) == shape(tmp_path / "fresh")
        assert shape(path)[0] == len(MIGRATIONS)


def test_every_table_of_the_registry_refuses_a_value_of_another_type(path: Path) -> None:
    connection = Database(path, MIGRATIONS).connection()

    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'").fetchall()

    kept = {"meta", "clones", "branches", "operations", "sessions", "trash", "queue", "seats", "gate_results"}
    assert {row["name"] for row in tables} == kept
    assert [row["name"] for row in tables if not row["strict"]] == []
    with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER column"):
        connection.execute("INSERT INTO branches VALUES ('c', 'b', 'o', 'yes', 1, NULL)")


def test_a_state_that_does_not_exist_is_refused_by_the_tables(path: Path) -> None:
    connection = Database(path, MIGRATIONS).connection()

    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        connection.execute(
            "INSERT INTO clones (id, name, folded, path, admin, state, isolation, created_at) "
            "VALUES ('i', 'n', 'f', 'p', 'a', 'asleep', 'config', 't')"
        )


def test_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    found = database(path)
    found.connection().execute("PRAGMA user_version=7")
    found.close()
    before = path.read_bytes()

    with pytest.raises(RegistryNewer) as caught:
        database(path).connection()

    assert (caught.value.facts["found"], caught.value.facts["known"]) == (7, 1)
    assert path.read_bytes() == before


UPGRADE = """
import os, signal, sys
from pathlib import Path
from khlone import database
from khlone.schema import MIGRATIONS

path, how, fatal = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])


class Killing(database._Connection):
    count = 0

    def execute(self, sql, *values):
        if how == "unprotected" and sql in ("BEGIN", "BEGIN IMMEDIATE", "COMMIT"):
            return super().execute("SELECT 1")
        done = super().execute(sql, *values)
        if sql.lstrip().startswith(("BEGIN", "CREATE", "ALTER", "PRAGMA user_version=", "COMMIT")):
            Killing.count += 1
            if Killing.count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return done


database._Connection = Killing
database.Database(path, MIGRATIONS).connection()
"""


def upgrade(path: Path, how: str, fatal: int) -> bool:
    """Upgrade in a process that is killed after a number of statements; says whether it came to its end."""
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, str(path), how, str(fatal)], check=False, capture_output=True, timeout=TIMEOUT_S
    )
    assert done.stderr == b""
    return done.returncode == 0


def shapes_after_kills(folder: Path, how: str) -> list[tuple[int, list[tuple[str, str]]]]:
    """The shape of a file of the first version after an upgrade was killed at each of its statements."""
    found = []
    for fatal in range(1, 30):
        path = folder / f"{how}-{fatal}"
        database_of_first_version(path)
        ended = upgrade(path, how, fatal)
        found.append(shape(path))
        if ended:
            return found
    raise AssertionError("the upgrade never came to its end")


def database_of_first_version(path: Path) -> None:
    first = Database(path, MIGRATIONS[:1])
    first.connection()
    first.close()


def test_an_upgrade_that_was_killed_is_old_or_new(tmp_path: Path) -> None:
    database_of_first_version(tmp_path / "old")
    Registry(tmp_path / "new").meta("none")
    whole = [shape(tmp_path / "old"), shape(tmp_path / "new")]

    protected = shapes_after_kills(tmp_path, "protected")
    unprotected = shapes_after_kills(tmp_path, "unprotected")

    assert [found for found in protected if found not in whole] == []
    assert protected[0] == whole[0]
    assert protected[-1] == whole[1]
    assert [found for found in unprotected if found not in whole] != [], "the control must show a half"


@pytest.mark.parametrize("fatal", [1, 3, 12])
def test_a_file_whose_making_was_killed_is_not_there(path: Path, fatal: int) -> None:
    assert not upgrade(path, "protected", fatal)

    assert not path.exists()
    Registry(path).meta("none")
    assert shape(path)[0] == len(MIGRATIONS)


# -- damage --------------------------------------------------------------------------------


def large(path: Path) -> bytes:
    """A file of many pages; returns its bytes."""
    found = database(path)
    with found.transaction() as change:
        change.executemany("INSERT INTO words (word) VALUES (?)", [("word" * 100,)] * 500)
    found.close()
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    return path.read_bytes()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "a few bytes": lambda content: content[:50],
    "text": lambda content: b"not a database at all\n" * 100,
    "header overwritten": lambda content: b"\0" * 100 + content[100:],
    "tables overwritten": lambda content: content[:100] + b"\xff" * (len(content) - 100),
    "half": lambda content: content[: len(content) // 2 // 4096 * 4096],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_told_and_the_file_left_as_it_is(path: Path, how: str) -> None:
    damaged = DAMAGE[how](large(path))
    path.write_bytes(damaged)

    found = database(path)
    with pytest.raises(RegistryCorrupt) as caught, found.explained():
        found.connection().execute("SELECT * FROM words").fetchall()

    assert caught.value.facts["path"] == str(path)
    assert path.read_bytes() == damaged


def test_a_table_that_is_missing_is_damage(path: Path) -> None:
    found = database(path)
    found.connection().execute("DROP TABLE words")

    with pytest.raises(RegistryCorrupt, match="no such table"):
        add(found, "a")


def test_a_full_disk_is_told_and_takes_nothing(path: Path) -> None:
    add(database(path), "kept")
    found = database(path)
    found.connection().execute("PRAGMA max_page_count=3")

    with pytest.raises(NoSpace):
        add_all(found, ["x" * 4000] * 100)

    assert words(path) == ["kept"]
    found.connection().execute("PRAGMA max_page_count=1000")
    add(found, "next")
    assert words(path) == ["kept", "next"]


@pytest.mark.needs_root
def test_a_full_file_system_is_told_and_takes_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", tmp_path], check=True)
    try:
        found = database(tmp_path / "state")
        add(found, "kept")

        with pytest.raises(NoSpace):
            add_all(found, ["x" * 4000] * 200)

        assert words(tmp_path / "state") == ["kept"]
        with contextlib.suppress(OSError), open(tmp_path / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        with pytest.raises(NoSpace):
            database(tmp_path / "another").connection()
        assert not (tmp_path / "another").exists()
        found.close()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


WRITE = """
import sys
from pathlib import Path
from khlone.database import Database
from khlone.errors import KhloneError
found = Database(Path(sys.argv[1]), ("CREATE TABLE words (word TEXT NOT NULL, number INTEGER) STRICT",))
try:
    with found.transaction() as change:
        change.execute("INSERT INTO words (word) VALUES ('a')")
except KhloneError as error:
    print(error.code, str(error), sep="\\n")
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_what_may_not_be_written_to_is_told(path: Path, closed: str) -> None:
    if closed == "file":
        database(path).connection()
        path.chmod(0o400)
    else:
        path.parent.chmod(0o500)

    # Without these two even root is bound by the modes of its own files, as anyone is.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run([*bound, sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True, check=True)

    code, message = done.stdout.splitlines()
    assert code == "not-permitted"
    assert str(path) in message


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="no such file or directory"):
        database(tmp_path / "gone" / "state").connection()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("SQLITE_BUSY_SNAPSHOT", Locked),
        ("SQLITE_LOCKED", Locked),
        ("SQLITE_FULL", NoSpace),
        ("SQLITE_READONLY_ROLLBACK", NotPermitted),
        ("SQLITE_CANTOPEN", NotPermitted),
        ("SQLITE_IOERR_WRITE", NotPermitted),
        ("SQLITE_CORRUPT_INDEX", RegistryCorrupt),
        ("SQLITE_NOTADB", RegistryCorrupt),
        ("SQLITE_CONSTRAINT_UNIQUE", sqlite3.OperationalError),
    ],
)
def test_an_error_of_sqlite_becomes_the_one_that_says_what_to_do(path: Path, name: str, error: type[Exception]) -> None:
    cause = sqlite3.OperationalError("why")
    cause.sqlite_errorname = name

    with pytest.raises(error, match=r"why|transaction"), database(path).explained():
        raise cause
