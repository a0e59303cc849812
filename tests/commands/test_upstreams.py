"""Clones whose branch or target follows a remote: one that is gone there has not landed by that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import branches, clone_names, document, new, show
from tests.support import Commit, Git, Khlone


@pytest.fixture
def remote(git: Git, project: Path, tmp_path: Path) -> Path:
    """A remote `origin` that has main, which follows it."""
    git("init", "-q", "--bare", str(tmp_path / "origin.git"), cwd=tmp_path)
    git("remote", "add", "origin", str(tmp_path / "origin.git"), cwd=project)
    git("push", "-q", "-u", "origin", "main", cwd=project)
    return tmp_path / "origin.git"


@pytest.fixture
def pushed(khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path) -> Path:
    """A clone `a` with a commit of its own, which it pushed and follows."""
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    git("push", "-q", "-u", "origin", "a", cwd=path)
    return path


def _delete_and_fetch(git: Git, project: Path) -> None:
    git("push", "-q", "origin", "--delete", "a", cwd=project)
    git("fetch", "-q", "--prune", cwd=project)


def _delete_the_remote(git: Git, project: Path) -> None:
    git("remote", "remove", "origin", cwd=project)


GONE: dict[str, Callable[[Git, Path], None]] = {
    "pushed and there": lambda git, project: None,
    "deleted there": _delete_and_fetch,
    "the remote is gone": _delete_the_remote,
}


@pytest.mark.parametrize("how", GONE)
def test_a_branch_that_is_gone_on_its_remote_is_not_merged_by_that(
    khlone: Khlone, git: Git, project: Path, pushed: Path, how: str
) -> None:
    GONE[how](git, project)
    tip = branches(git, project)["a"]

    merged = show(khlone, project, "a")["merged"]
    pruned = document(khlone("prune", "--json", cwd=project), "prune")
    removed = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)

    assert merged is False
    assert pruned["removed"] == []
    assert [(one["name"], one["code"]) for one in removed["kept"]] == [("a", "not-integrated")]
    assert "1 commit" in removed["kept"][0]["message"]
    assert branches(git, project)["a"] == tip
    assert (pushed / "one.txt").exists()


def _merge_there(git: Git, project: Path) -> None:
    """The branch lands on the main of the remote, and only there."""
    git("push", "-q", "origin", "a:main", cwd=project)
    git("fetch", "-q", cwd=project)


def test_what_landed_on_the_upstream_of_the_target_counts_as_merged(
    khlone: Khlone, git: Git, project: Path, pushed: Path
) -> None:
    """The control of the next one: as long as that upstream is known, it has all of it."""
    _merge_there(git, project)
    _delete_and_fetch(git, project)

    found = document(khlone("remove", "a", "--json", cwd=project), "remove")

    assert [one["name"] for one in found["removed"]] == ["a"]
    assert not pushed.exists()


def test_what_only_a_lost_upstream_of_the_target_had_is_kept_and_can_be_thrown_away_only_by_force(
    khlone: Khlone, git: Git, project: Path, pushed: Path
) -> None:
    _merge_there(git, project)
    _delete_the_remote(git, project)
    tip = branches(git, project)["a"]

    kept = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)["kept"]
    pruned = document(khlone("prune", "--json", cwd=project), "prune")["removed"]
    forced = document(khlone("remove", "--force", "a", "--json", cwd=project), "remove")["removed"]

    assert [one["code"] for one in kept] == ["not-integrated"]
    assert pruned == []
    assert [one["branch_deleted"] for one in forced] == [False]
    assert branches(git, project)["a"] == tip
    assert clone_names(khlone, project) == []
