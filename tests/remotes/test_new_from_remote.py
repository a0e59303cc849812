"""What `new` promises of remotes: a clone of a pull request, and of a branch that somebody has just pushed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid
from tests.commands.steps import branches, clone_names, document, footprint, refused
from tests.remotes.conftest import Fetches
from tests.remotes.forge import fake_forge
from tests.support import Commit, Git, Khlone


def made(khlone: Khlone, where: Path, *words: str) -> dict[str, Any]:
    """The one CLONE of a `new` that ended well."""
    (clone,) = document(khlone("new", *words, "--json", cwd=where), "new")["clones"]
    return dict(clone)


@pytest.fixture
def there(git: Git, commit: Commit, remote: Path, tmp_path: Path) -> Path:
    """Somebody else's repository, on a branch `topic` with a commit that is nowhere else."""
    path = tmp_path / "there"
    git("clone", "-q", str(remote), str(path), cwd=tmp_path)
    git("switch", "-q", "-c", "topic", cwd=path)
    commit(path, {"topic.txt": "topic\n"}, "of somebody else")
    return path


@pytest.mark.parametrize("place", ["refs/pull/7/head", "refs/merge-requests/7/head"])
def test_a_pull_request_from_a_fork_becomes_a_clone(
    khlone: Khlone, git: Git, repository: Path, remote: Path, there: Path, place: str
) -> None:
    git("push", "-q", str(remote), f"HEAD:{place}", cwd=there)

    clone = made(khlone, repository, "--pr", "7")

    assert (clone["name"], clone["branch"], clone["target"]) == ("pr-7", "pr-7", "main")
    assert clone["head"] == oid(git, there, "HEAD")
    assert (Path(clone["path"]) / "topic.txt").exists()
    assert git("for-each-ref", "refs/khlone/pulls", cwd=repository) == ""


def test_its_name_its_branch_and_its_target_can_be_given(
    khlone: Khlone, git: Git, repository: Path, remote: Path, there: Path
) -> None:
    git("push", "-q", str(remote), "HEAD:refs/pull/7/head", cwd=there)
    git("branch", "release", cwd=repository)

    clone = made(khlone, repository, "review", "--pr", "7", "--branch", "looked-at", "--into", "release")

    assert (clone["name"], clone["branch"], clone["target"]) == ("review", "looked-at", "release")


def test_gh_says_what_its_branch_is_called_so_that_a_push_goes_there(
    khlone: Khlone,
    git: Git,
    commit: Commit,
    repository: Path,
    remote: Path,
    there: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = fake_forge(tmp_path / "programs", "gh")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    git("config", "khlone.forge", "gh", cwd=repository)
    git("push", "-q", str(remote), "topic", "HEAD:refs/pull/1/head", cwd=there)
    (folder / "pulls").write_text(
        '[{"number": 1, "url": "https://github.example/o/r/pull/1", "title": "t", "isDraft": false,'
        ' "baseRefName": "main", "headRefName": "topic", "isCrossRepository": false}]'
    )

    clone = made(khlone, repository, "--pr", "1")
    commit(Path(clone["path"]), {"more.txt": "more\n"}, "more")
    pushed = khlone("push", "pr-1", cwd=repository)

    assert (clone["name"], clone["branch"]) == ("pr-1", "topic")
    assert pushed.code == 0, pushed
    assert oid(git, remote, "topic") == oid(git, Path(clone["path"]), "HEAD")


def test_a_pull_request_that_is_not_there_leaves_nothing(
    khlone: Khlone, git: Git, repository: Path, remote: Path
) -> None:
    assert khlone("list", cwd=repository).code == 0
    before = footprint(git, repository)

    refused(khlone("new", "--pr", "9", "--json", cwd=repository), "no-such-ref")

    assert remote.exists()
    assert footprint(git, repository) == before


@pytest.mark.parametrize("answer", ["[]", "null", '"text"', '{"number": 1}', '{"number": 1', "7"])
def test_an_answer_of_gh_that_nobody_expects_leaves_the_number_for_a_name(
    answer: str, khlone: Khlone, git: Git, repository: Path, remote: Path, there: Path, tmp_path: Path
) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/gh").write_text(f"#!/bin/sh\necho '{answer}'\n")
    (tmp_path / "programs/gh").chmod(0o755)
    git("config", "khlone.forge", "gh", cwd=repository)
    git("push", "-q", str(remote), "topic", "HEAD:refs/pull/1/head", cwd=there)

    done = khlone(
        "new", "--pr", "1", "--json", cwd=repository, env={"PATH": f"{tmp_path}/programs:{os.environ['PATH']}"}
    )

    assert done.code == 0
    assert "gh does not say what it is called: gh failed: " in done.err
    assert clone_names(khlone, repository) == ["pr-1"]


def test_a_name_that_is_taken_leaves_nothing_of_the_pull_request(
    khlone: Khlone, git: Git, repository: Path, remote: Path, there: Path
) -> None:
    git("push", "-q", str(remote), "HEAD:refs/pull/7/head", cwd=there)
    git("branch", "pr-7", cwd=repository)
    before = branches(git, repository)

    refused(khlone("new", "--pr", "7", "--json", cwd=repository), "branch-exists")

    assert branches(git, repository) == before
    assert git("for-each-ref", "refs/khlone", cwd=repository) == ""


@pytest.mark.parametrize(
    "words", [("--pr", "7", "--from", "main"), ("--pr", "7", "-n", "2"), ("--pr", "7", "--fetch"), ("x", "--fetch"), ()]
)
def test_what_contradicts_is_refused(khlone: Khlone, repository: Path, remote: Path, words: tuple[str, ...]) -> None:
    assert remote.exists()

    refused(khlone("new", *words, "--json", cwd=repository), "usage", 2)


def test_a_branch_that_was_just_pushed_is_fetched_when_it_is_not_here(
    khlone: Khlone, git: Git, repository: Path, fetches: Fetches, there: Path
) -> None:
    git("push", "-q", "origin", "topic", cwd=there)
    before = fetches.count

    clone = made(khlone, repository, "mine", "--from", "origin/topic")

    assert (clone["branch"], clone["head"]) == ("mine", oid(git, there, "HEAD"))
    assert fetches.count - before == 1


def test_a_branch_that_moved_is_taken_as_it_is_there_when_asked(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, fetches: Fetches, there: Path
) -> None:
    git("push", "-q", "origin", "topic", cwd=there)
    git("fetch", "-q", "origin", cwd=repository)
    old, before = oid(git, there, "HEAD"), fetches.count
    commit(there, {"more.txt": "more\n"}, "more")
    git("push", "-q", "origin", "topic", cwd=there)

    as_it_was = made(khlone, repository, "was", "--from", "origin/topic")
    unasked = fetches.count - before
    as_it_is = made(khlone, repository, "is", "--from", "origin/topic", "--fetch")
    row = document(
        khlone("new", "row", "-n", "2", "--from", "origin/topic", "--fetch", "--json", cwd=repository), "new"
    )

    assert (as_it_was["head"], unasked) == (old, 0)
    assert [one["head"] for one in (as_it_is, *row["clones"])] == [oid(git, there, "HEAD")] * 3


def test_a_branch_that_no_remote_has_is_refused(khlone: Khlone, repository: Path, fetches: Fetches) -> None:
    refused(khlone("new", "mine", "--from", "origin/none", "--json", cwd=repository), "no-such-ref")
    refused(khlone("new", "mine", "--from", "elsewhere/none", "--json", cwd=repository), "no-such-ref")

    assert fetches.count == 1
