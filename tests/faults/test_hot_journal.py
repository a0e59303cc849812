"""A registry whose writer died in the middle of its pages, and whose rollback journal was deleted beside it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import document, new, refused, show, trash
from tests.faults.lab import registry, rows, run
from tests.support import Commit, Git, Khlone, write

#: A writer with no room to keep its pages to itself: it spills them into the file, then it is gone.
DYING = """
import os, signal, sys
from pathlib import Path
from khlone.database import Database
from khlone.schema import MIGRATIONS

connection = Database(Path(sys.argv[1]), MIGRATIONS).connection()
connection.execute("PRAGMA cache_size=2")
connection.execute("PRAGMA cache_spill=1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM branches")
connection.execute("UPDATE clones SET state = 'failed', reason = printf('%.*c', 900, 'x')")
for number in range(400):
    values = (f"id-{number}", f"name-{number}", f"name-{number}", f"/p/{number}", f"admin-{number}", "x" * 400)
    connection.execute(
        "INSERT INTO clones (id, name, folded, path, admin, state, isolation, created_at, reason)"
        " VALUES (?, ?, ?, ?, ?, 'broken', 'config', 't', ?)", values
    )
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Used:
    """A repository with a clone `a` and a removed `b`, as khlone told of them."""

    project: Path
    clone: dict[str, Any]
    entries: list[dict[str, Any]]


@pytest.fixture
def used(khlone: Khlone, commit: Commit, project: Path) -> Used:
    """One whose registry is whole."""
    commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    write(new(khlone, project, "b"), {"b.txt": "b\n"})
    assert khlone("remove", "--force", "b", cwd=project).code == 0
    return Used(project=project, clone=show(khlone, project, "a"), entries=trash(khlone, project))


@pytest.fixture
def torn(used: Used) -> Used:
    """One whose registry is half written, with its journal."""
    file = registry(used.project)
    before = file.read_bytes()
    assert run(sys.executable, "-c", DYING, str(file), cwd=used.project).code == -signal.SIGKILL
    assert file.read_bytes() != before, "nothing was spilled"
    assert journal(used.project).stat().st_size > 0
    return used


def journal(project: Path) -> Path:
    """SQLite's rollback journal beside the registry."""
    return registry(project).with_name(f"{registry(project).name}-journal")


def test_the_journal_of_a_dead_writer_takes_its_pages_back(khlone: Khlone, torn: Used) -> None:
    """The control: what the next test deletes is what makes the file whole."""
    project, clone, entries = torn.project, torn.clone, torn.entries

    found = document(khlone("doctor", "--json", cwd=project), "doctor")["findings"]

    assert found == []
    assert show(khlone, project, "a") == clone
    assert trash(khlone, project) == entries


@pytest.mark.parametrize("verb", [("list",), ("new", "c"), ("remove", "--force", "a"), ("restore", "b"), ("trash",)])
def test_without_its_journal_a_half_written_registry_is_refused_by_every_verb(
    khlone: Khlone, git: Git, torn: Used, verb: tuple[str, ...]
) -> None:
    project = torn.project
    journal(project).unlink()
    half, kept = registry(project).read_bytes(), git("for-each-ref", cwd=project)

    done = khlone(*verb, "--json", cwd=project)

    refused(done, "registry-corrupt")
    assert registry(project).read_bytes() == half
    assert git("for-each-ref", cwd=project) == kept


def _lose_the_branches(project: Path) -> None:
    rows(project, "DELETE FROM branches")


def _lose_the_clones(project: Path) -> None:
    rows(project, "DELETE FROM clones")


@pytest.mark.parametrize("lose", [_lose_the_branches, _lose_the_clones])
def test_the_doctor_builds_a_registry_anew_whose_halves_do_not_fit(
    khlone: Khlone, used: Used, lose: Callable[[Path], None]
) -> None:
    """What a change that was torn without a trace of its length may look like."""
    lose(used.project)

    fixed = document(khlone("doctor", "--fix", "--json", cwd=used.project), "doctor")["findings"]

    assert [one["code"] for one in fixed if one["fixed"]] == ["registry-corrupt"]
    assert show(khlone, used.project, "a") == used.clone
    assert trash(khlone, used.project) == used.entries


def test_without_its_journal_the_doctor_sets_it_aside_and_builds_it_anew(khlone: Khlone, torn: Used) -> None:
    project, clone, entries = torn.project, torn.clone, torn.entries
    journal(project).unlink()
    half = registry(project).read_bytes()

    looked = khlone("doctor", "--json", cwd=project)
    untouched = registry(project).read_bytes() == half
    fixed = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert [one["code"] for one in document(looked, "doctor", 1)["findings"]] == ["registry-corrupt"]
    assert untouched
    assert [one["code"] for one in fixed if one["fixed"]] == ["registry-corrupt"]
    (aside,) = (project / ".git" / "khlone" / "quarantine").glob("*.sqlite3")
    assert aside.read_bytes() == half
    assert show(khlone, project, "a") == clone
    assert trash(khlone, project) == entries
    assert khlone("restore", "b", cwd=project).code == 0
    assert (project.with_name("project.clones") / "b" / "b.txt").read_text() == "b\n"
