"""`approve`: what somebody has looked at lands, and nothing that came after."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.merging import held, landed, merge, oid, worked
from tests.commands.steps import document, refused
from tests.commands.test_queue import gated, queue
from tests.support import KHLONE, Commit, Git, Khlone


@pytest.fixture
def clone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> Path:
    """A clone `a` with work, where approvals are wanted."""
    git("config", "khlone.merge.approval", "true", cwd=project)
    return worked(khlone, commit, project, "a", {"a.txt": "a\n"})


def approved(khlone: Khlone, where: Path) -> list[tuple[str, bool]]:
    """(name, valid) of each approval."""
    found = document(khlone("approve", "--list", "--json", cwd=where), "approve")
    return [(one["name"], one["valid"]) for one in found["approved"]]


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("with_gate", [False, True], ids=["directly", "through the queue"])
def test_only_what_is_approved_lands(khlone: Khlone, git: Git, project: Path, with_gate: bool) -> None:
    if with_gate:
        gated(git, project, "true")
    before = oid(git, project, "main")

    refusal = merge(khlone, project, "a", code=77)
    khlone("approve", "a", cwd=project)
    found = merge(khlone, project, "a")

    assert held(refusal) == [("a", "not-approved")]
    assert refusal["new"] == before
    assert landed(found) == ["a"]


def test_a_later_commit_voids_it(khlone: Khlone, commit: Commit, project: Path, clone: Path) -> None:
    khlone("approve", "a", cwd=project)
    commit(clone, {"later.txt": "later\n"}, "later")

    refusal = merge(khlone, project, "a", code=77)

    assert held(refusal) == [("a", "not-approved")]
    assert approved(khlone, project) == [("a", False)]


@pytest.mark.usefixtures("clone")
def test_what_is_taken_back_does_not_land_from_the_queue_either(khlone: Khlone, git: Git, project: Path) -> None:
    gated(git, project, "true")
    khlone("approve", "a", cwd=project)
    queue(khlone, project, "add", "a")

    taken = document(khlone("approve", "a", "--withdraw", "--json", cwd=project), "approve")
    queue(khlone, project, "run", code=77)

    assert [one["name"] for one in taken["approved"]] == ["a"]
    assert approved(khlone, project) == []
    assert [(one["name"], one["code"]) for one in queue(khlone, project, "log")["entries"]] == [("a", "not-approved")]


def test_only_the_commit_that_was_looked_at_is_approved(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    looked_at = oid(git, clone, "HEAD")
    commit(clone, {"later.txt": "later\n"}, "later")

    error = refused(khlone("approve", "a", "--head", looked_at, "--json", cwd=project), "not-approved", 77)

    assert error["hint"] == "look again: git khlone diff a"
    assert approved(khlone, project) == []
    assert khlone("approve", "a", "--head", oid(git, clone, "HEAD"), cwd=project).code == 0


@pytest.mark.usefixtures("clone")
def test_a_session_does_not_approve_its_own_work(khlone: Khlone, project: Path) -> None:
    done = khlone("exec", "a", "--", str(KHLONE), "approve", "--json", cwd=project)

    refused(done, "not-permitted", 77)
    assert approved(khlone, project) == []


def test_without_the_setting_nothing_has_to_be_approved(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})

    assert landed(merge(khlone, project, "b")) == ["b"]


@pytest.mark.usefixtures("clone")
def test_an_approval_comes_back_with_the_clone_and_goes_with_its_trash(khlone: Khlone, git: Git, project: Path) -> None:
    khlone("approve", "a", cwd=project)
    khlone("remove", "--force", "a", cwd=project)
    khlone("restore", "a", cwd=project)
    back = approved(khlone, project)
    khlone("merge", "a", cwd=project)
    khlone("remove", "a", cwd=project)

    khlone("prune", "--trash", "--age", "0s", cwd=project)

    assert back == [("a", True)]
    assert git("for-each-ref", "refs/khlone/approved", cwd=project) == ""


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("nobody",), "no-such-clone", 1),
        (("a", "--head", "nothing"), "no-such-ref", 1),
        (("a", "--withdraw", "--head", "HEAD"), "usage", 2),
        (("a", "--list"), "usage", 2),
    ],
)
@pytest.mark.usefixtures("clone")
def test_what_cannot_be_meant_is_refused(
    khlone: Khlone, project: Path, words: tuple[str, ...], code: str, exit_code: int
) -> None:
    refused(khlone("approve", *words, "--json", cwd=project), code, exit_code)

    assert approved(khlone, project) == []
