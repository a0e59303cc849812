"""A clone whose branch somebody renamed with git: the old name is told as the clone's until `doctor --fix` follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.steps import branches, document, new, refused, show
from tests.support import Commit, Git, Khlone


@pytest.fixture
def path(khlone: Khlone, git: Git, commit: Commit, project: Path) -> Path:
    """The worktree of a clone `a`, one commit ahead, whose branch was renamed to `b`."""
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    git("branch", "-m", "b", cwd=path)
    return path


def codes(khlone: Khlone, project: Path, *words: str) -> list[tuple[str, bool]]:
    done = khlone("doctor", "--json", *words, cwd=project)
    return [(one["code"], one["fixed"]) for one in document(done, "doctor", done.code)["findings"]]


def test_the_old_name_is_said_to_be_the_clones_and_the_hint_frees_it(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    before = branches(git, project)

    found = refused(khlone("new", "c", "--branch", "a", "--json", cwd=project), "branch-checked-out")
    assert branches(git, project) == before
    assert khlone("doctor", "--fix", cwd=project).code == 0
    new(khlone, project, "c", "--branch", "a")

    assert found["message"] == "branch 'a' belongs to clone 'a'"
    assert "git khlone doctor --fix" in found["hint"]
    assert found["facts"] == {"branch": "a", "worktree": str(path), "clone": "a"}
    assert show(khlone, project, "a")["branch"] == "b"
    assert show(khlone, project, "c")["branch"] == "a"


def test_a_branch_that_is_checked_out_is_still_said_to_be_where_it_is(
    khlone: Khlone, project: Path, path: Path
) -> None:
    found = refused(khlone("new", "c", "--branch", "b", "--json", cwd=project), "branch-checked-out")

    assert found["message"] == f"branch 'b' is checked out in {path}"


@pytest.mark.parametrize("again", [False, True], ids=["gone", "there again"])
@pytest.mark.parametrize("names", [("b",), ("b", "c")], ids="-".join)
def test_doctor_follows_however_often_it_was_renamed_and_whoever_took_the_old_name(
    khlone: Khlone, git: Git, project: Path, path: Path, names: tuple[str, ...], again: bool
) -> None:
    for name in names[1:]:
        git("branch", "-m", name, cwd=path)
    if again:
        git("branch", "a", "main", cwd=project)
    before = branches(git, project)

    told = codes(khlone, project)
    mended = codes(khlone, project, "--fix")

    assert (told, mended) == ([("branch-renamed", False)], [("branch-renamed", True)])
    assert branches(git, project) == before
    clone = show(khlone, project, "a")
    assert (clone["branch"], clone["state"], clone["reason"]) == (names[-1], "ready", None)
    assert codes(khlone, project) == []


def test_a_clone_that_only_looks_at_a_renamed_branch_keeps_its_own(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    git("branch", "a", cwd=project)
    git("branch", "-m", "a", "old", cwd=project)
    path = new(khlone, project, "a")
    git("switch", "-q", "old", cwd=path)

    assert codes(khlone, project, "--fix") == [("head-elsewhere", False)]

    assert show(khlone, project, "a")["branch"] == "a"


def test_a_renamed_branch_is_followed_although_head_holds_junk(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    (admin,) = (project / ".git" / "worktrees").iterdir()
    (admin / "HEAD").write_bytes(b"junk")

    mended = codes(khlone, project, "--fix")

    assert mended[:2] == [("branch-renamed", True), ("broken-admin-folder", True)]
    assert "a" not in branches(git, project)
    assert show(khlone, project, "a")["branch"] == "b"
    assert git("branch", "--show-current", cwd=path) == "b\n"
    assert git("status", "--porcelain", cwd=path) == ""
