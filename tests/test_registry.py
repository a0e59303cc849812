"""A name, a path and a branch belong to one live clone, and a clone is moved by one command at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from khlone import registry as registry_module
from khlone.errors import BranchCheckedOut, CloneExists, CloneNotReady, KhloneError, NameCollides
from khlone.model import (
    GONE_STATES,
    CloneRecord,
    CloneState,
    Holds,
    Isolation,
    OperationKind,
    Outcome,
    ProcessIdentity,
)
from khlone.registry import KEPT_OPERATIONS, Operation, Registry, SessionRecord, TrashRecord, folded
from tests.support import TIMEOUT_S

#: A Latin-1 letter where UTF-8 is expected.
ODD = os.fsdecode(b"caf\xe9")
US = ProcessIdentity(pid=17, start_ticks=4711, boot_id="boot", host="here")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite3")


def clone(name: str, **changes: object) -> CloneRecord:
    """A ready clone whose other names follow from its own."""
    plain = CloneRecord(
        id=f"id-{name}",
        name=name,
        branch=name,
        branch_owned=True,
        target="main",
        base="a" * 40,
        path=Path("/clones", name.replace("/", "-")),
        admin=name.replace("/", "-"),
        state=CloneState.READY,
        agent="claude",
        isolation=Isolation.CONFIG,
        config_dir=Path("/state", name),
        created_at="2026-01-01T00:00:00.000000Z",
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def reserve(registry: Registry, *clones: CloneRecord) -> None:
    with registry.transaction() as change:
        for one in clones:
            change.reserve_clone(one)


def move(
    registry: Registry, one: CloneRecord, to: CloneState, *from_states: CloneState, reason: str | None = None
) -> None:
    with registry.transaction() as change:
        change.move_clone(one, to, from_states=from_states or None, reason=reason)


def operation(number: int, **changes: object) -> Operation:
    plain = Operation(
        id=f"{number:016d}",
        kind=OperationKind.MERGE,
        clone_id="id-a",
        name="a",
        plan={"target": "main", "number": number},
        owner=US,
        started_at="2026-01-01T00:00:00.000000Z",
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


# -- what is taken -------------------------------------------------------------------------


def test_a_clone_comes_back_as_it_was_written(registry: Registry) -> None:
    full = clone("a", reason="why", epoch=3, merged_head="b" * 40)
    bare = clone("b", target=None, agent=None, config_dir=None, branch_owned=False)

    reserve(registry, full, bare)

    assert registry.clones() == [full, bare]
    assert registry.clone("a") == registry.clone_by_id("id-a") == full
    assert registry.clone("c") is None
    assert registry.clone_by_id("id-c") is None


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (clone("feature/x", id="other"), CloneExists),
        (clone("Feature/X"), NameCollides),
        (clone("FEATURE/x"), NameCollides),
        (clone("feature"), NameCollides),
        (clone("Feature"), NameCollides),
        (clone("feature/x/y"), NameCollides),
        (clone("b", branch="feature/x"), BranchCheckedOut),
        (clone("b", path=Path("/clones/feature-x")), NameCollides),
    ],
)
def test_what_a_live_clone_has_no_other_one_gets(
    registry: Registry, other: CloneRecord, error: type[KhloneError]
) -> None:
    reserve(registry, clone("feature/x"))

    with pytest.raises(error):
        reserve(registry, other)

    assert [one.name for one in registry.clones()] == ["feature/x"]


@pytest.mark.parametrize("name", ["feature/y", "feature-x", "feature/xx", "featur"])
def test_a_name_beside_it_is_free(registry: Registry, name: str) -> None:
    reserve(registry, clone("feature/x"), clone(name, path=Path("/clones/elsewhere")))

    assert registry.clone(name) is not None


@pytest.mark.parametrize(
    ("one", "other"), [("strasse", "straße"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301"), ("K", "\u212a")]
)
def test_names_that_a_file_system_may_confuse_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize("state", sorted(GONE_STATES))
def test_what_a_trashed_clone_had_is_free_again(registry: Registry, state: CloneState) -> None:
    gone = clone("a", state=CloneState.READY)
    reserve(registry, gone)
    move(registry, gone, state)

    reserve(registry, clone("a", id="second"))

    assert [one.id for one in registry.clones()] == ["second"]
    assert registry.clone_by_id("id-a") is not None


def test_a_trashed_clone_does_not_come_back_to_what_another_has_meanwhile(registry: Registry) -> None:
    gone = clone("a")
    reserve(registry, gone)
    move(registry, gone, CloneState.TRASHED)
    reserve(registry, clone("a", id="second"))

    with pytest.raises(CloneExists):
        move(registry, gone, CloneState.CREATING, CloneState.TRASHED)

    assert [one.id for one in registry.clones()] == ["second"]


def test_the_tables_themselves_refuse_what_is_taken(registry: Registry) -> None:
    reserve(registry, clone("a"))

    for other in (clone("A"), clone("b", path=Path("/clones/a")), clone("b", branch="a")):
        with pytest.raises(Exception, match="UNIQUE"):
            insert(registry, other)

    assert [one.name for one in registry.clones()] == ["a"]


def insert(registry: Registry, one: CloneRecord) -> None:
    with registry.transaction() as change:
        change.insert_clone(one)


def test_a_renamed_clone_gives_its_old_names_up(registry: Registry) -> None:
    reserve(registry, clone("a"))

    with registry.transaction() as change:
        change.rename_clone("id-a", name="B", branch="b/x", path=Path("/clones/B"))
        change.set_admin("id-a", "a1")

    reserve(registry, clone("a", id="second"))
    found = registry.clone("B")
    assert found is not None
    assert (found.branch, found.path, found.admin) == ("b/x", Path("/clones/B"), "a1")
    with pytest.raises(NameCollides):
        reserve(registry, clone("b"))


# -- moving --------------------------------------------------------------------------------


def test_a_clone_is_moved_from_the_state_that_was_seen_and_its_epoch_grows(registry: Registry) -> None:
    seen = clone("a")
    reserve(registry, seen)

    move(registry, seen, CloneState.MERGING, reason="gates run")

    found = registry.clone("a")
    assert found is not None
    assert (found.state, found.epoch, found.reason) == (CloneState.MERGING, seen.epoch + 1, "gates run")


def test_of_two_that_saw_the_same_state_one_moves_the_clone(registry: Registry) -> None:
    seen = clone("a")
    reserve(registry, seen)
    move(registry, seen, CloneState.MERGING, reason="by the first")

    with pytest.raises(CloneNotReady, match=r"merging \(by the first\)"):
        move(registry, seen, CloneState.REMOVING)

    found = registry.clone("a")
    assert found is not None
    assert (found.state, found.epoch) == (CloneState.MERGING, 1)


def test_a_move_may_name_the_states_it_starts_from(registry: Registry) -> None:
    seen = clone("a", state=CloneState.MERGED)
    reserve(registry, seen)

    with pytest.raises(CloneNotReady):
        move(registry, seen, CloneState.READY, CloneState.MERGING, CloneState.BROKEN)
    move(registry, seen, CloneState.READY, CloneState.MERGING, CloneState.MERGED)

    assert registry.clone("a") is not None


def test_a_clone_that_is_gone_cannot_be_moved(registry: Registry) -> None:
    with pytest.raises(CloneNotReady, match="gone"):
        move(registry, clone("a"), CloneState.REMOVING)


def test_a_refused_move_takes_the_rest_of_its_transaction_back(registry: Registry) -> None:
    reserve(registry, clone("a"))

    def work() -> None:
        with registry.transaction() as change:
            change.begin_operation(operation(1))
            change.move_clone(clone("a"), CloneState.READY, from_states=(CloneState.BROKEN,))

    with pytest.raises(CloneNotReady):
        work()

    assert registry.open_operations() == []


def test_a_landed_tip_is_remembered_until_it_is_taken_back(registry: Registry) -> None:
    reserve(registry, clone("a"))
    seen = []

    for head in ("c" * 40, None):
        with registry.transaction() as change:
            change.note_merged("id-a", head)
        found = registry.clone("a")
        assert found is not None
        seen.append(found.merged_head)

    assert seen == ["c" * 40, None]


# -- many at once --------------------------------------------------------------------------

RESERVE = """
import dataclasses, sys
from pathlib import Path
from khlone.errors import KhloneError
from khlone.model import CloneRecord, CloneState, Isolation
from khlone.registry import Registry
name, number = sys.argv[2], sys.argv[3]
registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    with registry.transaction() as change:
        change.reserve_clone(CloneRecord(id=number, name=name, branch=name, branch_owned=True, target=None, base="a",
            path=Path("/clones", name), admin=name, state=CloneState.CREATING, agent=None, isolation=Isolation.CONFIG,
            config_dir=None, created_at="now"))
    print("won")
except KhloneError as error:
    print(error.code)
"""


def reserved_at_once(path: Path, names: list[str]) -> list[str]:
    """What processes say that reserve these names in a registry that none of them has opened before."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", RESERVE, str(path), name, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(names)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    return [worker.communicate("go\n", timeout=TIMEOUT_S)[0].strip() for worker in workers]


def test_of_many_processes_that_want_one_name_one_gets_it(tmp_path: Path) -> None:
    said = reserved_at_once(tmp_path / "registry", ["same"] * 6)

    assert sorted(said) == ["clone-exists"] * 5 + ["won"]
    assert len(Registry(tmp_path / "registry").clones()) == 1


def test_many_processes_that_want_different_names_all_get_them(tmp_path: Path) -> None:
    names = [f"clone-{number}" for number in range(6)]

    assert reserved_at_once(tmp_path / "registry", names) == ["won"] * 6

    assert [one.name for one in Registry(tmp_path / "registry").clones()] == names
    assert {path.name for path in tmp_path.iterdir()} <= {"registry", "registry-journal"}


SWAP = """
import sys
from pathlib import Path
from khlone.model import CloneState
from khlone.registry import Registry
registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
states = [CloneState.READY, CloneState.MERGED]
for _ in range(150 if sys.argv[2] == "whole" else 1_000_000):
    if sys.argv[2] == "whole":
        with registry.transaction() as change:
            for clone in change.clones():
                change.move_clone(clone, states[clone.state is states[0]], reason=str(clone.epoch))
    else:
        for clone in registry.clones():
            with registry.transaction() as change:
                change.move_clone(clone, states[clone.state is states[0]], reason=str(clone.epoch))
"""


def is_half_seen(path: Path, how: str) -> bool:
    """Whether a reader sees two clones differ that a writer beside it moves together."""
    registry = Registry(path)
    reserve(registry, clone("a"), clone("b"))
    is_seen = False
    with subprocess.Popen([sys.executable, "-c", SWAP, str(path), how], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while writer.poll() is None and not is_seen:
            one, other = registry.clones()
            is_seen = (one.state, one.epoch, one.reason) != (other.state, other.epoch, other.reason)
        writer.kill()
    return is_seen


def test_a_reader_never_sees_half_of_a_transaction(tmp_path: Path) -> None:
    assert not is_half_seen(tmp_path / "whole", "whole")
    assert is_half_seen(tmp_path / "halves", "halves"), "the control must show halves"


KILLED = """
import os, signal, sys
from pathlib import Path
from khlone.model import CloneState
from khlone.registry import Registry
registry = Registry(Path(sys.argv[1]))
with registry.transaction() as change:
    for clone in change.clones():
        change.move_clone(clone, CloneState.MERGED)
        change._connection.execute("PRAGMA cache_spill=1")
    if sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("when", "state"), [("before", CloneState.READY), ("after", CloneState.MERGED)])
def test_a_killed_writer_has_changed_all_or_nothing(
    tmp_path: Path, registry: Registry, when: str, state: CloneState
) -> None:
    reserve(registry, clone("a"), clone("b"))

    subprocess.run([sys.executable, "-c", KILLED, str(registry.path), when], check=False, timeout=TIMEOUT_S)

    assert [one.state for one in registry.clones()] == [state] * 2
    assert registry.check() == []


# -- the journal ---------------------------------------------------------------------------


def test_an_operation_comes_back_as_it_was_written(registry: Registry) -> None:
    written = operation(1, plan={"path": f"/{ODD}", "list": [1, None]}, step="begun", owner=US)

    with registry.transaction() as change:
        change.begin_operation(written)

    assert registry.open_operations() == [written]
    assert registry.operation(written.id) == written
    assert registry.operation("none") is None


def test_an_operation_is_ended_once(registry: Registry) -> None:
    with registry.transaction() as change:
        change.begin_operation(operation(1))
        change.note_step(operation(1).id, "half", {"grown": True})
    with registry.transaction() as change:
        change.end_operation(operation(1).id, Outcome.DONE, "first")
        change.end_operation(operation(1).id, Outcome.STUCK, "second")

    found = registry.operation(operation(1).id)
    assert found is not None
    assert (found.outcome, found.message, found.step, found.plan) == (Outcome.DONE, "first", "half", {"grown": True})
    assert registry.open_operations() == []


def test_the_journal_keeps_the_newest_ended_operations_and_every_open_one(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT_OPERATIONS >= 1000
    monkeypatch.setattr(registry_module, "KEPT_OPERATIONS", 3)
    with registry.transaction() as change:
        for number in range(10):
            change.begin_operation(operation(number))
        for number in range(1, 10):
            change.end_operation(operation(number).id, Outcome.DONE)

    kept = [number for number in range(10) if registry.operation(operation(number).id) is not None]

    assert kept == [0, 7, 8, 9]


def test_an_operation_without_effect_is_forgotten(registry: Registry) -> None:
    with registry.transaction() as change:
        change.begin_operation(operation(1))
        change.forget_operation(operation(1).id)

    assert registry.operation(operation(1).id) is None


# -- sessions and trash --------------------------------------------------------------------


def session(clone_id: str) -> SessionRecord:
    return SessionRecord(
        id=f"session-{clone_id}",
        clone_id=clone_id,
        owner=US,
        state="starting",
        command=("sh", "-c", f"echo {ODD}"),
        started_at="2026-01-01T00:00:00.000000Z",
    )


@pytest.mark.parametrize(
    "state", [state for state in CloneState if state not in ("ready", "merging", "merged", "adopted")]
)
def test_no_session_starts_in_a_clone_that_is_not_there_to_work_in(registry: Registry, state: CloneState) -> None:
    insert(registry, clone("a", state=state))

    def start() -> None:
        with registry.transaction() as change:
            change.start_session(session("id-a"))

    with pytest.raises(CloneNotReady, match=str(state)):
        start()

    assert registry.live_sessions() == []


def test_a_session_is_live_until_its_end_is_recorded(registry: Registry) -> None:
    reserve(registry, clone("a"), clone("b"))
    with registry.transaction() as change:
        change.start_session(session("id-a"))
        change.start_session(session("id-b"))
        change.note_session_process("session-id-a", dataclasses.replace(US, pid=99, start_ticks=5))
    running = registry.live_sessions("id-a")

    with registry.transaction() as change:
        change.end_session("session-id-a", "exit 0", 0)

    assert [(one.owner.pid, one.owner.start_ticks, one.state) for one in running] == [(99, 5, "running")]
    assert tuple(running[0].command) == session("id-a").command
    assert [one.clone_id for one in registry.live_sessions()] == ["id-b"]


def trashed(name: str, removed_at: str) -> TrashRecord:
    return TrashRecord(
        id=f"trash-{name}",
        clone=clone(name, state=CloneState.TRASHED),
        removed_at=removed_at,
        head="b" * 40,
        snapshot="c" * 40,
        branch_deleted=True,
        bytes=4096,
        holds=Holds(tracked=1, untracked=2, ignored=3),
    )


def test_trash_comes_back_as_it_was_written_newest_first(registry: Registry) -> None:
    older, newer = trashed("a", "2026-01-01"), trashed("b", "2026-02-01")
    with registry.transaction() as change:
        for record in (older, newer):
            change.insert_clone(record.clone)
            change.insert_trash(record)

    assert registry.trash() == [newer, older]
    assert registry.clones() == []
    assert registry.trash()[0].entry().holds == Holds(tracked=1, untracked=2, ignored=3)

    with registry.transaction() as change:
        change.delete_trash(newer.id)
        change.delete_clone(older.clone.id)
    assert registry.trash() == []
    assert registry.clone_by_id(newer.clone.id) is not None


def test_a_forgotten_clone_takes_its_rows_along_and_leaves_the_journal(registry: Registry) -> None:
    reserve(registry, clone("a"))
    with registry.transaction() as change:
        change.start_session(session("id-a"))
        change.begin_operation(operation(1))
        change.delete_clone("id-a")

    tables = ("clones", "branches", "sessions", "trash", "operations")
    counts = {name: registry._rows(f"SELECT count(*) FROM {name}")[0][0] for name in tables}
    assert counts == {"clones": 0, "branches": 0, "sessions": 0, "trash": 0, "operations": 1}


# -- odd bytes -----------------------------------------------------------------------------


def test_undecodable_bytes_go_round_in_every_text(registry: Registry) -> None:
    odd = clone(
        "a",
        branch=f"b/{ODD}",
        target=ODD,
        path=Path("/clones", ODD),
        admin=ODD,
        config_dir=Path("/state", ODD),
        reason=f"cannot write /{ODD}",
        agent=ODD,
    )
    reserve(registry, odd)
    move(registry, odd, CloneState.BROKEN, reason=f"gone: {ODD}")
    with registry.transaction() as change:
        change.begin_operation(operation(1, name=ODD))
        change.end_operation(operation(1).id, Outcome.STUCK, f"failed: {ODD}")
        change.set_meta("key", ODD)
    registry.close()

    again = Registry(registry.path)
    found, ended = again.clone("a"), again.operation(operation(1).id)

    assert found == dataclasses.replace(odd, state=CloneState.BROKEN, reason=f"gone: {ODD}", epoch=1)
    assert ended is not None
    assert (ended.name, ended.message) == (ODD, f"failed: {ODD}")
    assert again.meta("key") == ODD


@pytest.mark.parametrize("ask", [lambda found: found.clone(ODD), lambda found: found.meta("none")])
def test_asking_for_an_odd_name_finds_nothing(registry: Registry, ask: Callable[[Registry], object]) -> None:
    reserve(registry, clone("a"))

    assert ask(registry) is None


def test_a_plan_is_kept_as_json_that_any_program_reads(registry: Registry) -> None:
    with registry.transaction() as change:
        change.begin_operation(operation(1, plan={"path": ODD}))

    row = registry._rows("SELECT plan FROM operations")[0]
    assert json.loads(row["plan"]) == {"path": ODD}
    assert row["plan"].isascii()
