"""A lock of another git on the repository's configuration: what needs it waits, says so, and takes it from nobody."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.commands.steps import branches, document, new, refused
from tests.faults.lab import customized, open_operations
from tests.support import Commit, Git, Khlone

IMPATIENT = """
import khlone.repository as r
import khlone.operations.config_edits as e
r._RETRY_TOTAL_S = e._LOCK_WAIT_S = 0.3
"""


@pytest.fixture
def lock(project: Path) -> Path:
    """Where git locks the repository's configuration."""
    return project / ".git/config.lock"


@pytest.fixture
def impatient(tmp_path: Path) -> dict[str, str]:
    """Variables under which such a lock is not waited for long."""
    return customized(tmp_path / "site", IMPATIENT)


def test_a_renamed_clone_leaves_its_branchs_settings_and_says_how_they_follow(
    khlone: Khlone, git: Git, project: Path, lock: Path, impatient: dict[str, str]
) -> None:
    new(khlone, project, "a")
    git("config", "branch.a.description", "mine", cwd=project)
    lock.touch()

    done = khlone("rename", "a", "b", cwd=project, env=impatient)

    assert (done.code, "b" in branches(git, project), "a" in branches(git, project)) == (0, True, False)
    assert open_operations(project) == []
    assert "git config --rename-section branch.a branch.b" in done.err
    assert lock.exists()
    lock.unlink()
    git("config", "--rename-section", "branch.a", "branch.b", cwd=project)
    assert git("config", "branch.b.description", cwd=project) == "mine\n"


def test_a_lock_that_is_given_up_is_waited_for(khlone: Khlone, git: Git, project: Path, lock: Path) -> None:
    new(khlone, project, "a")
    git("config", "branch.a.description", "mine", cwd=project)
    lock.touch()
    # Longer than git itself would wait, which is not at all.
    later = threading.Timer(1.0, lock.unlink)
    later.start()

    done = khlone("rename", "a", "b", cwd=project)

    later.join()
    assert done.code == 0
    assert git("config", "branch.b.description", cwd=project) == "mine\n"


def test_a_push_is_done_though_the_upstream_cannot_be_noted(
    khlone: Khlone, git: Git, commit: Commit, project: Path, lock: Path, impatient: dict[str, str]
) -> None:
    git("init", "-q", "--bare", "../origin.git", cwd=project)
    git("remote", "add", "origin", "../origin.git", cwd=project)
    commit(new(khlone, project, "a"), {"a.txt": "a\n"}, "a")
    lock.touch()

    done = khlone("push", "a", "--json", cwd=project, env=impatient)

    assert [one["name"] for one in document(done, "push")["pushed"]] == ["a"]
    assert git("ls-remote", "origin", "a", cwd=project)
    assert "could not be noted that it follows origin/a" in done.err
    assert lock.exists()


def test_git_hooks_are_not_installed_beside_it(
    khlone: Khlone, git: Git, project: Path, lock: Path, impatient: dict[str, str]
) -> None:
    new(khlone, project, "a")
    before = (project / ".git/config").read_bytes()
    lock.touch()
    os.utime(lock, (time.time() - 3600, time.time() - 3600))

    error = refused(khlone("hooks", "install", "--clones", "--json", cwd=project, env=impatient), "locked", 75)

    assert str(lock) in error["message"]
    assert (project / ".git/config").read_bytes() == before
    assert lock.exists()
