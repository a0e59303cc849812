"""Repository formats that this git, or khlone, cannot use: one line says so before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.steps import refused, tree
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone

VERBS = [("new", "a"), ("list",), ("merge", "a"), ("remove", "a"), ("restore", "a"), ("prune",), ("doctor",)]


@pytest.mark.parametrize("linked", [False, True], ids=["main", "linked"])
def test_an_unknown_extension_is_refused_before_any_change(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path, linked: bool
) -> None:
    git("worktree", "add", "-q", "-b", "theirs", str(tmp_path / "linked"), cwd=repository)
    git("config", "core.repositoryFormatVersion", "1", cwd=repository)
    git("config", "extensions.fromTheFuture", "true", cwd=repository)
    before = tree(tmp_path)

    for verb in VERBS:
        done = khlone(*verb, "--json", cwd=tmp_path / "linked" if linked else repository)

        refused(done, "repository-unsupported")
        assert "fromthefuture" in done.out

    assert tree(tmp_path) == before


@pytest.mark.needs_git_254
def test_a_reftable_is_refused_before_any_change(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    project = tmp_path / "project"
    git("init", "-q", "--ref-format=reftable", str(project), cwd=tmp_path)
    commit(project, {"a.txt": "a\n"}, "first")
    before = tree(project / ".git")

    done = khlone("new", "a", "--json", cwd=project)

    refused(done, "repository-unsupported")
    assert "reftable" in done.out
    assert tree(project / ".git") == before


@pytest.mark.needs_git_254
def test_relative_worktrees_of_a_newer_git(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "--relative-paths", "-b", "theirs", str(linked), cwd=repository)
    assert git("config", "extensions.relativeWorktrees", cwd=repository) == "true\n"

    Tour(khlone=khlone, git=git, where=linked, common=repository / ".git", target="theirs").run()
