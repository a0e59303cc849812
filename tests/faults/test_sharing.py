"""One registry used by many: readers beside writers, a transaction that does not end, threads, forks, signals."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from khlone import worktrees
from khlone.app import App
from khlone.model import CloneRecord, Finding, NewRequest
from khlone.operations import doctor, inspect, repair
from khlone.operations.create import create
from khlone.registry import Operation, Registry
from tests.commands.steps import clone_names, document, footprint, new, refused, show
from tests.faults.lab import (
    customized,
    leftovers,
    open_operations,
    plugin,
    registry,
    rows,
    start,
    stopped,
)
from tests.support import Done, Git, Khlone

# -- readers beside writers ----------------------------------------------------------------


def test_who_looks_while_others_write_is_never_refused_and_sees_whole_clones(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")

    def write() -> list[int]:
        return [
            khlone(*verb, cwd=project).code
            for number in range(3)
            for verb in (("new", f"w{number}"), ("remove", f"w{number}"))
        ]

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        listed: list[list[dict[str, Any]]] = []
        paths: list[Done] = []
        while not listed or not writing.done():
            listed.append(document(khlone("list", "--json", cwd=project), "list")["clones"])
            paths.append(khlone("path", "a", cwd=project))

    assert writing.result() == [0] * 6
    assert {(done.code, done.out) for done in paths} == {(0, f"{path}\n")}
    for clones in listed:
        assert {clone["state"] for clone in clones} <= {"creating", "ready", "removing"}
        assert "a" in [clone["name"] for clone in clones]
        assert all(clone["branch"] == clone["name"] and len(clone["base"]) == 40 for clone in clones)


def test_a_clone_that_is_removed_while_it_is_looked_at_is_not_called_broken(
    khlone: Khlone, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")
    read = worktrees.read_entry
    removals: list[int] = []

    def read_late(path: Path) -> worktrees.AdminEntry | None:
        if not removals:
            removals.append(khlone("remove", "a", cwd=project).code)
        return read(path)

    monkeypatch.setattr(worktrees, "read_entry", read_late)

    found = inspect.list_clones(App.open(project))

    assert removals == [0]
    assert [(one.name, one.state.value) for one in found] == [("b", "ready")]


IN_A_RENAME = ("rename.branch-made", "rename.head", "rename.branch-gone", "rename.worktree", "rename.admin")


def _told(khlone: Khlone, project: Path) -> tuple[list[str], list[tuple[str, Any]]]:
    """The findings of the doctor, with and without --fix, and state and reason of each clone, listed and shown."""
    codes = []
    for words in (["doctor"], ["doctor", "--fix"]):
        done = khlone(*words, "--json", cwd=project)
        codes += [one["code"] for one in document(done, "doctor", done.code)["findings"]]
    clones = [
        *document(khlone("list", "--json", cwd=project), "list")["clones"],
        *document(khlone("list", "--no-status", "--json", cwd=project), "list")["clones"],
        show(khlone, project, "b"),
    ]
    return codes, [(clone["state"], clone["reason"]) for clone in clones]


@pytest.mark.parametrize("point", IN_A_RENAME)
def test_a_clone_in_the_middle_of_a_rename_is_not_called_damaged(khlone: Khlone, project: Path, point: str) -> None:
    new(khlone, project, "a")
    child = stopped(["rename", "a", "b"], point=point, cwd=project)

    told = _told(khlone, project)
    os.kill(child.pid, signal.SIGCONT)

    assert child.wait() == 0
    assert told == ([], [("ready", None)] * 3)
    assert [clone["reason"] for clone in document(khlone("list", "--json", cwd=project), "list")["clones"]] == [None]
    assert clone_names(khlone, project) == ["b"]


def test_a_rename_that_ends_while_its_clone_is_looked_at_leaves_no_broken_one(
    khlone: Khlone, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder was not there at the first look, and at the second nobody worked on it any more."""
    new(khlone, project, "a")
    child = stopped(["rename", "a", "b"], point="rename.branch-gone", cwd=project)
    ask = Registry.open_operations

    def ask_late(registry: Registry) -> list[Operation]:
        os.kill(child.pid, signal.SIGCONT)
        child.wait()
        return ask(registry)

    monkeypatch.setattr(Registry, "open_operations", ask_late)

    found = inspect.list_clones(App.open(project))

    assert child.returncode == 0
    assert [(one.name, one.state.value, one.reason) for one in found] == [("b", "ready", None)]


@pytest.mark.parametrize("point", ["rename.head", "rename.branch-gone"])
def test_a_clone_in_the_middle_of_a_rename_that_died_is_told(khlone: Khlone, project: Path, point: str) -> None:
    """The control: nobody works on it any more, and all of it is seen."""
    new(khlone, project, "a")
    child = stopped(["rename", "a", "b"], point=point, cwd=project)
    child.kill()
    child.wait()

    listed = document(khlone("list", "--json", cwd=project), "list")["clones"]
    found = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]

    assert [clone["reason"] is not None for clone in listed] == [True]
    assert "interrupted-operation" in [one["code"] for one in found]


@pytest.mark.parametrize("verb", [("remove", "a"), ("rename", "a", "c")])
@pytest.mark.parametrize("fix", [False, True])
def test_a_clone_that_leaves_while_the_doctor_looks_is_not_called_damaged(
    khlone: Khlone, project: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], fix: bool
) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")
    examine = repair.examine
    codes: list[int] = []

    def examine_late(app: App, clone: CloneRecord) -> Iterator[Finding]:
        if not codes:
            codes.append(khlone(*verb, cwd=project).code)
        return examine(app, clone)

    monkeypatch.setattr(repair, "examine", examine_late)

    found = doctor.diagnose(App.open(project), fix=fix)

    assert codes == [0]
    assert found == []


@pytest.mark.parametrize("fix", [False, True])
def test_a_clone_that_comes_while_the_doctor_looks_is_not_called_a_stranger(
    khlone: Khlone, project: Path, monkeypatch: pytest.MonkeyPatch, fix: bool
) -> None:
    new(khlone, project, "a")
    entries = worktrees.entries
    codes: list[int] = []

    def entries_late(common_dir: Path) -> list[worktrees.AdminEntry]:
        if not codes:
            codes.append(khlone("new", "b", cwd=project).code)
        return entries(common_dir)

    monkeypatch.setattr(worktrees, "entries", entries_late)

    found = doctor.diagnose(App.open(project), fix=fix)

    assert codes == [0]
    assert found == []


# -- a transaction that does not end -------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Path) -> dict[str, str]:
    """Variables under which nobody waits long for the registry."""
    code = "import khlone.database as d\nd.Database.__init__.__kwdefaults__['busy_timeout_s'] = 0.3\n"
    return customized(tmp_path / "site", code)


@pytest.fixture
def holder(khlone: Khlone, project: Path) -> Iterator[sqlite3.Connection]:
    """A transaction of this process on the registry of a repository with a clone `a`."""
    new(khlone, project, "a")
    connection = sqlite3.connect(registry(project), isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "--force", "a"), ("exec", "a", "--", "true")])
def test_a_change_waits_a_bounded_time_and_names_the_holder(
    khlone: Khlone,
    git: Git,
    project: Path,
    impatient: dict[str, str],
    holder: sqlite3.Connection,
    verb: tuple[str, ...],
) -> None:
    holder.execute("BEGIN IMMEDIATE")
    before = footprint(git, project)

    done = khlone(verb[0], "--json", *verb[1:], cwd=project, env=impatient)

    if verb[0] == "remove":
        (kept,) = document(done, "remove", 75)["kept"]
    else:
        kept = refused(done, "locked", 75)
    assert kept["code"] == "locked"
    assert f"(pid {os.getpid()})" in kept["message"]
    assert footprint(git, project) == before
    assert clone_names(khlone, project) == ["a"], "who only looks is not kept waiting"
    holder.execute("ROLLBACK")
    assert khlone(*verb, cwd=project).code == 0
    assert open_operations(project) == []


@pytest.mark.parametrize("verb", ["list", "trash", "log"])
def test_a_look_beside_an_exclusive_transaction_waits_a_bounded_time_and_names_the_holder(
    khlone: Khlone, project: Path, impatient: dict[str, str], holder: sqlite3.Connection, verb: str
) -> None:
    holder.execute("BEGIN EXCLUSIVE")

    found = refused(khlone(verb, "--json", cwd=project, env=impatient), "locked", 75)

    assert f"(pid {os.getpid()})" in found["message"]


# -- forks and threads ---------------------------------------------------------------------

FORKING = """
import os, sys
from khlone import hookimpl

@hookimpl
def khlone_prepare(clone):
    fork()

@hookimpl
def khlone_pre_cleanup(clone, plan):
    fork()

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            import gc
            gc.collect()
            sys.exit(0)
        finally:
            import atexit
            atexit._run_exitfuncs()
            os._exit(0)
    os.waitpid(pid, 0)
"""


def test_a_plugin_that_forks_harms_neither_registry_nor_lock(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    env = plugin(tmp_path / "site", FORKING)

    made = khlone("new", "a", cwd=project, env=env)
    removed = khlone("remove", "a", cwd=project, env=env)
    again = khlone("new", "a", cwd=project, env=env)

    assert (made.code, removed.code, again.code) == (0, 0, 0), made.err + removed.err + again.err
    assert "warning" not in made.err
    assert rows(project, "PRAGMA integrity_check") == [("ok",)]
    assert open_operations(project) == []
    assert leftovers(project) == []


def test_threads_that_share_one_app_make_clones_at_once(khlone: Khlone, project: Path) -> None:
    app = App.open(project)
    names = [f"t{number}" for number in range(4)]
    gate = Barrier(len(names))

    def make(name: str) -> str:
        gate.wait()
        return create(app, NewRequest(name=name)).name

    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(make, names))

    assert made == names
    assert clone_names(khlone, project) == names
    assert open_operations(project) == []
    assert khlone("doctor", cwd=project).code == 0


# -- signals -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("point", ["create.refs", "create.checked-out"])
def test_a_create_that_is_interrupted_is_taken_back_before_it_ends(
    khlone: Khlone, git: Git, project: Path, number: signal.Signals, point: str
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    child = stopped(["new", "half"], point=point, cwd=project)

    os.kill(child.pid, number)
    os.kill(child.pid, signal.SIGCONT)

    assert child.wait() == 128 + number
    assert footprint(git, project) == before
    assert open_operations(project) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("point", ["remove.snapshot", "remove.worktree-moved", "remove.refs"])
def test_a_removal_that_is_interrupted_is_completed_by_the_next_command(
    khlone: Khlone, project: Path, number: signal.Signals, point: str
) -> None:
    path = new(khlone, project, "a")
    (path / "kept.txt").write_text("kept\n")
    child = stopped(["remove", "--force", "a"], point=point, cwd=project)

    os.kill(child.pid, number)
    os.kill(child.pid, signal.SIGCONT)
    code = child.wait()
    done = khlone("doctor", "--fix", cwd=project)

    assert code == 128 + number
    assert done.code == 0, done.out
    assert open_operations(project) == []
    assert khlone("restore", "a", cwd=project).code == 0
    assert (path / "kept.txt").read_text() == "kept\n"


def test_a_signal_that_the_caller_ignores_stays_ignored(khlone: Khlone, project: Path) -> None:
    """`nohup git khlone new`: a terminal that goes away takes nothing back."""
    wrap = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    child = start(["new", "a"], cwd=project, env={"KHLONE_FAULT": "create.checked-out:stop"}, wrap=wrap)
    os.waitpid(child.pid, os.WUNTRACED)

    os.kill(child.pid, signal.SIGHUP)
    os.kill(child.pid, signal.SIGCONT)

    assert child.wait() == 0
    assert clone_names(khlone, project) == ["a"]
