"""A collection that takes what is about to land, since nothing points at it yet, keeps no clone from landing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands.merging import Stopping, landed, merge, oid, release_main, shown, worked
from tests.commands.steps import document, show
from tests.faults.lab import open_operations
from tests.support import KHLONE, Commit, Git, Khlone, write

POINTS = [
    ("merge.publishing", "checked out"),
    ("merge.publishing", "nowhere"),
    ("landing.files-written", "checked out"),
    ("landing.index-published", "checked out"),
]


@pytest.fixture
def work(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """A clone with work, and local work in the checkout of the target that it does not meet."""
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n", "src/app.txt": "of a\n"})
    write(project, {"notes.txt": "my own edit\n", "untracked.txt": "mine\n"})
    return path


def collect(git: Git, project: Path) -> None:
    """Delete every object that nothing points at, as `git gc --prune=now` does."""
    git("prune", "--expire=now", cwd=project)


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(("point", "where"), POINTS)
def test_it_is_made_again(khlone: Khlone, git: Git, project: Path, point: str, where: str) -> None:
    if where == "nowhere":
        git("stash", "-q", "-u", cwd=project)
        release_main(git, project)
    running = Stopping(project, point, "a")
    assert running.wait()

    collect(git, project)
    running.go_on()
    done = running.end()

    assert landed(document(done, "merge")) == ["a"]
    assert shown(git, project, "src/app.txt") == "of a\n"
    assert open_operations(project) == []
    if where == "checked out":
        assert (project / "src/app.txt").read_text() == "of a\n"
        assert (project / "notes.txt").read_text() == "my own edit\n"
    assert git("fsck", "--no-dangling", "--connectivity-only", cwd=project) == ""


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(("point", "where"), POINTS)
def test_whoever_comes_after_a_kill_finishes_it(
    khlone: Khlone, git: Git, project: Path, point: str, where: str
) -> None:
    if where == "nowhere":
        git("stash", "-q", "-u", cwd=project)
        release_main(git, project)
    done = subprocess.run(
        [KHLONE, "merge", "a"], cwd=project, env={**os.environ, "KHLONE_FAULT": point}, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL

    collect(git, project)
    mended = khlone("doctor", "--fix", cwd=project)

    assert mended.code == 0, mended.err
    assert show(khlone, project, "a")["state"] == "merged"
    assert shown(git, project, "src/app.txt") == "of a\n"
    if where == "checked out":
        assert (project / "notes.txt").read_text() == "my own edit\n"
        assert (project / "untracked.txt").read_text() == "mine\n"
        # Nothing of the landing is left to be committed, nor half written.
        assert git("diff", "--name-only", "HEAD", cwd=project) == "notes.txt\n"
    assert open_operations(project) == []


@pytest.mark.usefixtures("work")
def test_nothing_is_left_of_it_where_the_target_moved(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("stash", "-q", "-u", cwd=project)
    release_main(git, project)
    running = Stopping(project, "merge.publishing", "a")
    assert running.wait()

    collect(git, project)
    oid_before = commit(project, {"theirs.txt": "theirs\n"}, "theirs")
    git("update-ref", "refs/heads/main", oid_before, cwd=project)
    running.go_on()

    assert landed(document(running.end(), "merge")) == ["a"]
    assert shown(git, project, "theirs.txt") == "theirs\n"
    assert oid(git, project, "main") != oid_before
    merge(khlone, project, "a")
