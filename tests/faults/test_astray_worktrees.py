"""A worktree that was deleted under a process, or moved to a far place: who is still there is told, and it is found."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.steps import document, new, show, tree
from tests.support import Commit, Git, Khlone, write


@pytest.fixture
def worker(khlone: Khlone, project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in a folder of the clone `a`, and knows nothing of khlone."""
    path = new(khlone, project, "a")
    with subprocess.Popen(["sleep", "600"], cwd=path / "src") as child:
        yield child
        child.kill()


@pytest.mark.parametrize("is_there_again", [False, True], ids=["gone", "there again"])
def test_who_works_in_a_deleted_worktree_is_told_by_every_verb(
    khlone: Khlone, project: Path, worker: subprocess.Popen[bytes], is_there_again: bool
) -> None:
    path = project.with_name("project.clones") / "a"
    shutil.rmtree(path)
    assert os.readlink(f"/proc/{worker.pid}/cwd").endswith("src (deleted)"), "the kernel's own word for it"

    told = khlone("doctor", *(["--fix"] if is_there_again else []), cwd=project)
    shown = show(khlone, project, "a")
    (listed,) = document(khlone("list", "--json", cwd=project), "list")["clones"]
    kept = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)["kept"]

    assert f"still at work where it was: sleep ({worker.pid})" in told.out
    for clone in (shown, listed):
        assert clone["state"] == ("ready" if is_there_again else "broken")
        assert [(one["pid"], one["state"]) for one in clone["sessions"]] == [(worker.pid, "foreign")]
    assert f"sleep ({worker.pid})" in kept[0]["message"]
    assert worker.poll() is None


def test_a_deleted_worktree_without_anybody_in_it_names_nobody(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    """The control, with a process in a deleted folder beside it."""
    path = new(khlone, project, "a")
    beside = path.with_name("a-and-more")
    beside.mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=beside) as child:
        shutil.rmtree(beside)
        shutil.rmtree(path)

        told = khlone("doctor", cwd=project)
        shown = show(khlone, project, "a")
        child.kill()

    assert "still at work" not in told.out
    assert "worktree-missing" in told.out
    assert shown["sessions"] == []


# -- moved to a far place ------------------------------------------------------------------


@pytest.fixture
def moved(khlone: Khlone, project: Path, tmp_path: Path) -> Path:
    """Where the worktree of the clone `a`, with work in it, was moved to: a folder that khlone has never seen."""
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "changed\n", "new.txt": "new\n", "kept.log": "ignored\n"})
    place = tmp_path / "far" / "away" / "mine"
    place.parent.mkdir(parents=True)
    path.rename(place)
    return place


def test_a_worktree_that_was_moved_far_is_followed_from_inside_it(
    khlone: Khlone, git: Git, project: Path, moved: Path
) -> None:
    files = tree(moved)

    fixed = document(khlone("doctor", "--fix", "--json", cwd=moved / "src"), "doctor")["findings"]

    assert [(one["code"], one["fixed"]) for one in fixed] == [("worktree-moved", True)]
    clone = show(khlone, project, "a")
    assert (clone["path"], clone["state"]) == (str(moved), "ready")
    assert tree(moved) == files
    assert git("status", "--porcelain", cwd=moved) == " M notes.txt\n?? new.txt\n"
    assert str(moved) in git("worktree", "list", cwd=project)
    assert not project.with_name("project.clones").joinpath("a").exists()


def test_from_the_main_worktree_the_doctor_says_how_it_is_found(khlone: Khlone, project: Path, moved: Path) -> None:
    (found,) = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]

    assert (found["code"], found["fixed"]) == ("worktree-missing", False)
    assert "where it was only moved: git khlone doctor --fix in it" in found["fix"]


def test_a_worktree_that_was_checked_out_again_meanwhile_stays_and_the_moved_one_is_told(
    khlone: Khlone, project: Path, moved: Path
) -> None:
    files = tree(moved)
    assert khlone("doctor", "--fix", cwd=project).code == 0
    path = project.with_name("project.clones") / "a"

    found = document(khlone("doctor", "--fix", "--json", cwd=moved), "doctor")["findings"]
    elsewhere = document(khlone("doctor", "--json", cwd=path), "doctor")["findings"]

    assert [(one["code"], one["severity"], one["fixed"]) for one in found] == [("worktree-twice", "warning", False)]
    assert str(path) in found[0]["fix"]
    assert elsewhere == [], "the control: in its own worktree there is nothing to tell"
    assert show(khlone, project, "a")["path"] == str(path)
    assert tree(moved) == files


# -- moved, and taken for gone -------------------------------------------------------------


def _landed(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """The worktree of a clone `a` that has landed."""
    path = new(khlone, project, "a")
    commit(path, {"a.txt": "of a\n"}, "of a")
    assert khlone("merge", "a", cwd=project).code == 0
    return path


PLACES = {
    "beside": lambda path: path.with_name("mine"),
    "above": lambda path: path.parent.parent / "mine",
    "far": lambda path: path.parent.parent / "far" / "mine",
}


@pytest.mark.parametrize("verb", [("remove", "a"), ("prune",)], ids=lambda verb: verb[0])
@pytest.mark.parametrize("where", PLACES)
def test_a_worktree_that_was_moved_by_hand_is_not_let_go(
    khlone: Khlone, git: Git, commit: Commit, project: Path, where: str, verb: tuple[str, ...]
) -> None:
    path = _landed(khlone, commit, project)
    place = PLACES[where](path)
    place.parent.mkdir(exist_ok=True)
    path.rename(place)
    write(place, {"a.txt": "edited\n", "new.txt": "new\n"})

    (kept,) = khlone(*verb, "--json", cwd=project).json()["kept"]

    assert kept["code"] == "clone-not-ready"
    assert (str(place) in kept["message"]) == (where != "far"), kept["message"]
    assert git("status", "--porcelain", cwd=place) == " M a.txt\n?? new.txt\n", "it still is a worktree"
    assert khlone("doctor", "--fix", cwd=place).code == 0
    assert show(khlone, project, "a")["path"] == str(place)


def test_a_worktree_far_away_is_found_by_who_works_in_it(
    khlone: Khlone, commit: Commit, project: Path, tmp_path: Path
) -> None:
    path = _landed(khlone, commit, project)
    place = tmp_path / "far" / "away" / "mine"
    place.parent.mkdir(parents=True)
    path.rename(place)
    with subprocess.Popen(["sleep", "600"], cwd=place / "src") as child:
        kept = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)["kept"]
        told = khlone("remove", "a", cwd=project)
        fixed = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]
        child.kill()

    assert [(one["name"], one["code"]) for one in kept] == [("a", "clone-not-ready")]
    assert str(place) in kept[0]["message"]
    assert f"git worktree repair {place}" in told.err
    assert [(one["code"], one["fixed"]) for one in fixed] == [("worktree-moved", True)]
    assert show(khlone, project, "a")["path"] == str(place)


def test_a_clone_that_was_moved_by_hand_is_held_and_stays_when_it_was_to_land_and_go(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"a.txt": "of a\n"}, "of a")
    place = path.with_name("mine")
    path.rename(place)
    write(place, {"a.txt": "edited\n"})

    held = document(khlone("merge", "a", "--remove", "--json", cwd=project), "merge", 1)
    told = khlone("merge", "a", "--committed", "--remove", cwd=project)

    assert [(one["name"], one["code"]) for one in held["held"]] == [("a", "clone-not-ready")]
    assert str(place) in told.err
    assert git("show", "main:a.txt", cwd=project) == "of a\n"
    assert git("status", "--porcelain", cwd=place) == " M a.txt\n"


def test_a_clone_whose_moved_worktree_is_left_behind_by_force_comes_back(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = _landed(khlone, commit, project)
    place = path.with_name("mine")
    path.rename(place)
    write(place, {"a.txt": "edited\n"})

    assert khlone("remove", "a", "--force", cwd=project).code == 0

    assert (place / "a.txt").read_text() == "edited\n"
    assert khlone("restore", "a", cwd=project).code == 0
