"""Commits that a clone's branch does not tell of: on a detached HEAD, on another branch, landed on another target."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.commands.merging import held, landed, merge, oid, release_main, shown, worked
from tests.commands.steps import document, new, refs, show
from tests.support import Commit, Git, Khlone

AWAY = {"detached": ("--detach",), "other branch": ("-c", "topic")}


def strayed(khlone: Khlone, git: Git, commit: Commit, project: Path, how: str) -> Path:
    """A clone `a` with a commit where its branch does not have it."""
    path = new(khlone, project, "a")
    git("switch", "-q", *AWAY[how], cwd=path)
    commit(path, {"beside.txt": "beside\n"}, "beside")
    return path


@pytest.mark.parametrize("how", AWAY)
def test_commits_beside_the_branch_are_told(khlone: Khlone, git: Git, commit: Commit, project: Path, how: str) -> None:
    strayed(khlone, git, commit, project, how)

    reason = show(khlone, project, "a")["reason"]
    table = khlone("list", cwd=project)

    assert "1 commit that its branch lacks" in reason
    assert f"a: {reason}" in table.err
    assert ("detached HEAD" if how == "detached" else "branch topic") in reason
    assert show(khlone, project, "a")["state"] == "ready"


@pytest.mark.parametrize("how", AWAY)
def test_a_merge_holds_them_and_the_hint_brings_them_along(
    khlone: Khlone, git: Git, commit: Commit, project: Path, how: str
) -> None:
    release_main(git, project)
    strayed(khlone, git, commit, project, how)
    before = refs(git, project)

    found = merge(khlone, project, "a", code=1)
    told = khlone("merge", "a", cwd=project)

    assert held(found) == [("a", "head-elsewhere")]
    assert refs(git, project) == before
    hint = next(line for line in told.err.splitlines() if "hint: " in line).partition("hint: ")[2].partition(";")[0]
    subprocess.run(["sh", "-c", hint], cwd=project, check=True, capture_output=True)
    assert landed(merge(khlone, project, "a")) == ["a"]
    assert shown(git, project, "beside.txt") == "beside\n"
    assert show(khlone, project, "a")["reason"] is None


def test_the_branch_alone_lands_when_that_is_asked_for(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    release_main(git, project)
    path = worked(khlone, commit, project, "a", {"own.txt": "own\n"})
    git("switch", "-q", "--detach", cwd=path)
    commit(path, {"beside.txt": "beside\n"}, "beside")

    found = merge(khlone, project, "a", "--committed")

    assert landed(found) == ["a"]
    assert oid(git, project, "main^2") == oid(git, project, "a")


def test_a_head_elsewhere_without_commits_of_its_own_holds_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    release_main(git, project)
    path = worked(khlone, commit, project, "a", {"own.txt": "own\n"})
    git("switch", "-q", "--detach", "main", cwd=path)

    assert "detached HEAD" in show(khlone, project, "a")["reason"]
    assert landed(merge(khlone, project, "a")) == ["a"]


@pytest.mark.parametrize("how", AWAY)
def test_the_hint_of_remove_leads_out(khlone: Khlone, git: Git, commit: Commit, project: Path, how: str) -> None:
    path = strayed(khlone, git, commit, project, how)

    told = khlone("remove", "a", cwd=project)

    assert told.code == 1
    hint = next(line for line in told.err.splitlines() if "hint: " in line)
    assert f"git -C {shlex.quote(str(path))} switch a" in hint
    subprocess.run(
        ["sh", "-c", hint.partition("hint: ")[2].partition(";")[0]], cwd=project, check=True, capture_output=True
    )
    assert oid(git, project, "a") == oid(git, path, "HEAD")


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_what_landed_on_another_target_says_so(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    git("branch", "release", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a", "--into", "release", strategy)

    clone = show(khlone, project, "a")
    listed = document(khlone("list", "--json", cwd=project), "list")["clones"][0]

    assert clone["reason"] == listed["reason"] == "it has landed on release, not on its target main"
    assert (clone["merged"], listed["merged"]) == (False, False)


def test_a_target_that_was_renamed_since_is_still_the_one_it_landed_on(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    new(khlone, project, "base")
    worked(khlone, commit, project, "a", {"a.txt": "a\n"}, "--into", "base")
    merge(khlone, project, "a", "--squash")
    assert khlone("rename", "base", "ground", cwd=project).code == 0

    clone = show(khlone, project, "a")

    assert (clone["target"], clone["merged"], clone["reason"]) == ("ground", True, None)
