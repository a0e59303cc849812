"""What killed and refused commands leave lying about goes with `prune` and `doctor --fix`, and nothing else does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.merging import merge, worked
from tests.commands.steps import document, new, show, trash
from tests.faults.lab import customized
from tests.support import Commit, Git, Khlone


def locks(project: Path) -> list[str]:
    """The lock files of clones."""
    return sorted(path.name for path in (project / ".git" / "khlone" / "locks").glob("clone-*.lock"))


@pytest.mark.parametrize("sweeping", [("prune",), ("prune", "--trash", "--age", "0s"), ("doctor", "--fix")])
def test_lock_files_stay_for_clones_that_are_there_or_in_the_trash(
    khlone: Khlone, git: Git, project: Path, sweeping: tuple[str, ...]
) -> None:
    for name in ("a", "b"):
        new(khlone, project, name)
        (project.with_name("project.clones") / name / "kept.txt").write_text("kept\n")
    khlone("remove", "--force", "b", cwd=project)
    known = locks(project)
    for _ in range(2):
        refused = khlone("new", "c", cwd=project, env={"KHLONE_FAULT": "create.refs:raise:ENOSPC"})
        assert refused.code == 1
    assert len(locks(project)) == 4

    assert khlone(*sweeping, cwd=project).code == 0

    assert locks(project) == known
    assert [one["name"] for one in trash(khlone, project)] == ["b"]


def test_temporary_files_of_dead_writers_go_and_those_of_the_living_stay(
    khlone: Khlone, git: Git, project: Path
) -> None:
    path = new(khlone, project, "a")
    ended = subprocess.Popen(["true"])
    ended.wait()
    state, admin = project / ".git" / "khlone", Path(git("rev-parse", "--absolute-git-dir", cwd=path).strip())
    dead = [
        state / f".used.{ended.pid}.01234567.tmp",
        admin / f".gitdir.{ended.pid}.01234567.tmp",
        state / ".registry.sqlite3.01234567.tmp",
        state / "registry.01234567.new-journal",
    ]
    young = state / f".id.{ended.pid}.89abcdef.tmp"
    living = [state / f".used.{os.getpid()}.01234567.tmp", state / "notes.tmp", young]
    for file in (*dead, *living):
        file.write_text("x")
        if file != young:
            os.utime(file, (time.time() - 3600,) * 2)

    seen = document(khlone("doctor", "--json", cwd=project), "doctor")["findings"]
    fixed = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert [(one["code"], one["severity"], one["fixed"]) for one in seen] == [("leftover-files", "info", False)]
    assert [(one["code"], one["fixed"]) for one in fixed] == [("leftover-files", True)]
    assert not any(file.exists() for file in dead)
    assert all(file.exists() for file in living)


def test_a_registry_that_was_rebuilt_leaves_no_file_beside_it(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    state = project / ".git" / "khlone"
    (state / "registry.sqlite3").unlink()

    assert khlone("doctor", "--fix", cwd=project).code == 0

    assert sorted(path.name for path in state.glob("registry*")) in (
        ["registry.sqlite3"],
        ["registry.sqlite3", "registry.sqlite3-journal"],
    )


@pytest.mark.parametrize("wanted", [("new", "a"), ("new", "a", "--from", "nowhere"), ("new", "main")])
def test_a_first_new_that_is_refused_leaves_nothing_in_the_repository(
    khlone: Khlone, git: Git, commit: Commit, tmp_path: Path, wanted: tuple[str, ...]
) -> None:
    place = tmp_path / "empty"
    git("init", "-q", str(place), cwd=tmp_path)
    if wanted != ("new", "a"):
        commit(place, {"one.txt": "1\n"}, "one")

    done = khlone(*wanted, cwd=place)

    assert done.code == 1
    assert not (place / ".git" / "khlone").exists()


@pytest.mark.parametrize(("age", "left"), [("1h", 1), ("0s", 0)])
def test_what_undo_keeps_of_a_branch_goes_with_the_age_of_the_trash(
    khlone: Khlone, git: Git, commit: Commit, project: Path, age: str, left: int
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a")
    assert khlone("undo", cwd=project).code == 0

    assert khlone("prune", "--trash", "--age", age, "--dry-run", cwd=project).code == 0
    assert len(git("for-each-ref", "refs/khlone/undo", cwd=project).splitlines()) == 1
    assert khlone("prune", "--trash", "--age", age, cwd=project).code == 0

    assert len(git("for-each-ref", "refs/khlone/undo", cwd=project).splitlines()) == left
    assert git("rev-parse", "--verify", "a", cwd=project)


def test_deleting_trash_says_how_much_it_is_and_what_has_gone(khlone: Khlone, project: Path) -> None:
    for name in ("a", "b"):
        (new(khlone, project, name) / "build.log").write_text("log\n")
    assert khlone("remove", "a", "b", cwd=project).code == 0

    done = khlone("prune", "--trash", "--age", "0s", cwd=project)

    assert done.code == 0
    assert "deleting 2 of the trash, " in done.err
    assert done.err.count(": deleted\n") == 2


# -- temporary folders of clones ------------------------------------------------------------------

TEMP = Path("/tmp", f"khlone-{os.geteuid()}")


def clone_id(khlone: Khlone, project: Path, name: str) -> str:
    return str(show(khlone, project, name)["id"])


@pytest.fixture
def stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Makes a temporary folder of a clone that nobody knows, last changed so many days ago.

    In a place of the test's own, where the doctors of other tests do not come by.
    """
    made = []
    root = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    made.append(root)
    site = customized(tmp_path / "site", f"import khlone.config_dir as c\nc._TEMP = {str(root)!r}\n")
    monkeypatch.setenv("PYTHONPATH", site["PYTHONPATH"])
    monkeypatch.setattr(sys.modules[__name__], "TEMP", root / f"khlone-{os.geteuid()}")

    def make(*files: str, days: float = 2, name: str | None = None) -> Path:
        place = TEMP / (name or os.urandom(6).hex())
        made.append(place)
        TEMP.mkdir(mode=0o700, exist_ok=True)
        (place / "inner").mkdir(parents=True, mode=0o700, exist_ok=True)
        for file in files:
            (place / "inner" / file).write_text(file)
        for folder in (place / "inner", place):
            os.utime(folder, (time.time() - days * 86400,) * 2)
        return place

    yield make
    for place in made:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("holds", ["nothing", "sockets", "a file"])
def test_the_temporary_folder_goes_with_the_clone_or_with_its_trash(
    khlone: Khlone, project: Path, stray: Callable[..., Path], holds: str
) -> None:
    new(khlone, project, "a")
    place = stray(name=clone_id(khlone, project, "a")[:12])
    if holds == "sockets":
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(os.fspath(place / "inner" / "left"))
        (place / "lock").touch()
    elif holds == "a file":
        (place / "inner" / "left").write_text("left\n")

    assert khlone("remove", "a", cwd=project).code == 0
    trashed = place.exists()
    assert khlone("prune", "--trash", "--age", "0s", cwd=project).code == 0

    assert trashed == (holds == "a file")
    assert not place.exists()


def test_what_is_temporary_of_a_clone_in_the_trash_is_there_when_it_comes_back(
    khlone: Khlone, project: Path, stray: Callable[..., Path]
) -> None:
    new(khlone, project, "a")
    place = stray("kept", name=clone_id(khlone, project, "a")[:12])
    assert khlone("remove", "a", cwd=project).code == 0

    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert khlone("restore", "a", cwd=project).code == 0

    assert (place / "inner" / "kept").read_text() == "kept"


@pytest.mark.parametrize("sweeping", [("prune",), ("doctor", "--fix")])
def test_empty_temporary_folders_of_clones_that_nobody_knows_go(
    khlone: Khlone, project: Path, stray: Callable[..., Path], sweeping: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    gone = [stray(), stray()]
    known = stray(name=clone_id(khlone, project, "a")[:12])
    kept = [stray("held"), stray(days=0.1), known, stray(name=f"{os.urandom(6).hex()}-not-ours")]
    living = os.urandom(8).hex()
    used = stray(name=living[:12])
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, "KHLONE_ID": living})

    try:
        assert khlone(*sweeping, cwd=project).code == 0
        found = [place.exists() for place in (*gone, *kept, used)]
    finally:
        process.kill()
        process.wait()

    assert found == [False, False, True, True, True, True, True]


def test_looking_drops_no_temporary_folder(khlone: Khlone, project: Path, stray: Callable[..., Path]) -> None:
    new(khlone, project, "a")
    place = stray()

    assert khlone("doctor", cwd=project).out == "all is well\n"

    assert place.exists()
