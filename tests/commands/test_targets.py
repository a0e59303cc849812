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


@pytest.mark.parametrize("verb", ["merge", "sync"])
def test_the_refusal_names_a_branch_that_is_there(
    khlone: Khlone, git: Git, project: Path, path: Path, verb: str
) -> None:
    before = branches(git, project)

    done = khlone(verb, "a", cwd=project)

    assert done.code == 1
    assert "there is no branch 'release'" in done.err
    assert "the target of a is gone; `git khlone merge a --into main`" in done.err
    assert branches(git, project) == before


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
