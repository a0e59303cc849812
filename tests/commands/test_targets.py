"""A clone whose target was deleted: told by `list` and `doctor`, and `merge` names a branch that is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands.steps import branches, document, new, refused, show
from tests.support import Commit, Git, Khlone


@pytest.fixture
def path(khlone: Khlone, git: Git, commit: Commit, project: Path) -> Path:
    """The worktree of a clone `a`, one commit ahead of a target `release` that is gone."""
    git("branch", "release", cwd=project)
    path = new(khlone, project, "a", "--into", "release")
    commit(path, {"one.txt": "1\n"}, "one")
    git("branch", "-D", "release", cwd=project)
    return path


def test_list_says_so_in_text_and_document(khlone: Khlone, project: Path, path: Path) -> None:
    new(khlone, project, "b")

    text = khlone("list", cwd=project)
    listed = {one["name"]: one for one in document(khlone("list", "--json", cwd=project), "list")["clones"]}

    assert "a: its target release is gone" in text.err
    assert (listed["a"]["state"], listed["a"]["reason"]) == ("ready", "its target release is gone")
    assert listed["b"]["reason"] is None


def test_doctor_warns_and_its_cure_lands_the_clone(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    done = khlone("doctor", "--json", cwd=project)

    (found,) = document(done, "doctor")["findings"]
    assert (found["code"], found["severity"], found["clone"]) == ("target-missing", "warning", "a")
    assert "release" in found["message"]
    cure = re.findall(r"`git khlone ([^`]*)`", found["fix"])
    assert khlone(*shlex.split(cure[0]), cwd=project).code == 0
    assert "one\n" in git("log", "--format=%s", "main", cwd=project)


def test_doctor_makes_no_branch_and_says_that_nothing_was_fixed(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    before = branches(git, project)

    (found,) = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert found["fixed"] is False
    assert branches(git, project) == before


def test_the_refusal_names_a_branch_that_is_there(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    before = branches(git, project)

    done = khlone("merge", "a", cwd=project)

    assert done.code == 1
    assert "there is no branch 'release'" in done.err
    assert "the target of a is gone; `git khlone merge a --into main`" in done.err
    assert branches(git, project) == before


def test_what_sync_says_brings_in_another_branch(
    khlone: Khlone, git: Git, commit: Commit, project: Path, path: Path
) -> None:
    commit(project, {"two.txt": "2\n"}, "two")

    done = khlone("sync", "a", cwd=project)
    way = re.findall(r"in the clone: (git merge \S+), or make the branch release again", done.err)

    assert done.code == 1
    assert "there is no branch 'release'" in done.err
    git(*shlex.split(way[0])[1:], "-m", "by hand", cwd=path)
    assert (path / "two.txt").read_text() == "2\n"


@pytest.mark.parametrize("words", [(), ("--squash",), ("--rebase",)], ids=["merge", "squash", "rebase"])
def test_what_remove_says_lands_the_clone_and_then_it_goes(
    khlone: Khlone, project: Path, path: Path, words: tuple[str, ...]
) -> None:
    done = khlone("remove", "a", cwd=project)
    cure = re.findall(r"`git khlone ([^`]*)`", done.err)

    assert done.code == 1
    assert "a has 1 commit that is not in release, which is gone" in done.err
    assert [one.split()[0] for one in cure] == ["merge", "remove"]
    assert khlone(*shlex.split(cure[0]), *words, cwd=project).code == 0
    assert show(khlone, project, "a")["merged"] is True
    assert document(khlone("remove", "a", "--json", cwd=project), "remove")["removed"][0]["branch_deleted"] is True
    assert (project / "one.txt").read_text() == "1\n"


def test_a_clone_whose_target_was_merged_elsewhere_and_deleted_can_go(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    refused_first = khlone("remove", "a", cwd=project).code
    git("merge", "-q", "--no-ff", "-m", "release", "a", cwd=project)

    done = khlone("remove", "a", cwd=project)

    assert (refused_first, done.code) == (1, 0)
    assert "a" not in branches(git, project)


def test_where_the_target_is_there_remove_says_merge_alone(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    """The control."""
    git("branch", "release", "main", cwd=project)

    done = khlone("remove", "a", cwd=project)

    assert "is gone" not in done.err
    assert "git khlone merge a," in done.err


def test_without_a_default_branch_the_first_that_is_no_clones_own_is_named(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    new(khlone, project, "aa")
    git("branch", "abc", cwd=project)
    git("switch", "-q", "--detach", cwd=project)

    hint = refused(khlone("merge", "a", "--json", cwd=project), "no-such-ref")["hint"]

    assert "--into abc`" in hint


def test_a_branch_that_the_user_has_typed_is_not_called_the_target(khlone: Khlone, project: Path, path: Path) -> None:
    hint = refused(khlone("merge", "a", "--into", "nowhere", "--json", cwd=project), "no-such-ref")["hint"]

    assert hint == "name a local branch: see `git branch`"


def test_a_target_that_is_there_again_is_no_more_told(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    git("branch", "release", "main", cwd=project)

    assert show(khlone, project, "a")["reason"] is None
    assert document(khlone("doctor", "--json", cwd=project), "doctor")["findings"] == []
