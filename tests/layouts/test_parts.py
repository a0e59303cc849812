"""Repositories that hold only a part: sparse checkouts, and clones that left objects with their promisor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.steps import footprint, new, refused
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone


@pytest.fixture
def partial(repository: Path, git: Git, tmp_path: Path) -> Path:
    """A clone without the blobs that its checkout does not need; its promisor is `promisor.git`."""
    promisor = tmp_path / "promisor.git"
    git("clone", "-q", "--bare", str(repository), str(promisor), cwd=tmp_path)
    git("config", "uploadpack.allowFilter", "true", cwd=promisor)
    git(
        "clone", "-q", "--filter=blob:none", "--no-checkout", promisor.as_uri(), str(tmp_path / "partial"), cwd=tmp_path
    )
    return tmp_path / "partial"


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (("--cone", "src/lib"), {"README.md", "src/app.py", "src/lib/words.py"}, {"docs/guide.md"}),
        (("--no-cone", "/docs/", "!*.py"), {"docs/guide.md"}, {"README.md", "src/app.py"}),
    ],
    ids=["cone", "patterns"],
)
def test_sparse_patterns_of_the_calling_worktree_hold_in_the_clone(
    khlone: Khlone, git: Git, repository: Path, options: tuple[str, ...], there: set[str], absent: set[str]
) -> None:
    git("sparse-checkout", "set", *options, cwd=repository)
    if "--no-cone" in options:
        git("sparse-checkout", "add", "/tour-*", "/staged.txt", cwd=repository)

    def check(clone: Path) -> None:
        assert {name for name in there | absent if (clone / name).exists()} == there
        assert git("sparse-checkout", "list", cwd=clone) == git("sparse-checkout", "list", cwd=repository)

    def state(clone: Path) -> object:
        return git("sparse-checkout", "list", cwd=clone), git("config", "core.sparseCheckout", cwd=clone)

    Tour(khlone=khlone, git=git, where=repository, common=repository / ".git", check=check, state=state).run()


def test_a_worktree_that_is_not_sparse_has_clones_that_are_not(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "-b", "theirs", str(linked), cwd=repository)
    git("sparse-checkout", "set", "src/lib", cwd=linked)

    whole, part = new(khlone, repository, "whole"), new(khlone, linked, "part")

    assert (whole / "docs/guide.md").exists()
    assert not (part / "docs/guide.md").exists()


def test_a_partial_clone_with_its_promisor(khlone: Khlone, git: Git, partial: Path) -> None:
    git("checkout", "-q", cwd=partial)

    Tour(khlone=khlone, git=git, where=partial, common=partial / ".git").run()


def test_blobs_that_only_the_promisor_has_are_fetched(khlone: Khlone, git: Git, partial: Path) -> None:
    clone = new(khlone, partial, "a")

    assert (clone / "docs/guide.md").read_text() == "# guide\n"
    assert git("status", "--porcelain", cwd=clone) == ""


def test_a_partial_clone_whose_promisor_is_gone_rolls_back_whole(khlone: Khlone, git: Git, partial: Path) -> None:
    shutil.rmtree(partial.parent / "promisor.git")
    khlone("doctor", cwd=partial)
    before = footprint(git, partial)

    done = khlone("new", "a", "--json", cwd=partial)

    found = refused(done, "git-failed")
    assert "promisor" in found["message"]
    assert footprint(git, partial) == before
    assert git("branch", "--list", "a", cwd=partial) == ""


def test_what_the_checkout_has_is_enough_without_the_promisor(
    khlone: Khlone, git: Git, partial: Path, commit: Commit
) -> None:
    git("checkout", "-q", cwd=partial)
    shutil.rmtree(partial.parent / "promisor.git")

    clone = new(khlone, partial, "a")

    assert (clone / "docs/guide.md").read_text() == "# guide\n"
    assert git("status", "--porcelain", cwd=clone) == ""
