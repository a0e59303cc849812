"""What a hook does in a clone that is about to be removed is seen: the decision is made again after it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, new
from tests.faults.lab import plugin
from tests.support import Git, Khlone

WRITES = """
from khlone import hookimpl

@hookimpl
def khlone_pre_cleanup(clone, plan):
    (clone.path / "late.txt").write_text("work of the last moment")
"""
STARTS = """
import subprocess
from khlone import hookimpl

@hookimpl
def khlone_pre_cleanup(clone, plan):
    null = subprocess.DEVNULL
    child = subprocess.Popen(["sleep", "300"], cwd=clone.path, stdin=null, stdout=null, stderr=null)
    (clone.path.parent / "pid").write_text(str(child.pid))
"""


def test_work_that_a_hook_leaves_keeps_the_clone(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    path = new(khlone, project, "a")

    done = khlone("remove", "a", "--json", cwd=project, env=plugin(tmp_path / "plugin", WRITES))

    assert [(one["name"], one["code"]) for one in document(done, "remove", 1)["kept"]] == [("a", "has-changes")]
    assert (path / "late.txt").read_text() == "work of the last moment"
    assert clone_names(khlone, project) == ["a"]


def test_a_process_that_a_hook_starts_there_keeps_the_clone(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    path = new(khlone, project, "a")

    done = khlone("remove", "a", "--json", cwd=project, env=plugin(tmp_path / "plugin", STARTS))

    os.kill(int((path.parent / "pid").read_text()), signal.SIGKILL)
    assert [(one["name"], one["code"]) for one in document(done, "remove", 1)["kept"]] == [("a", "session-live")]
    assert path.is_dir()


@pytest.mark.parametrize("deleted", [False, True], ids=["there", "deleted"])
def test_a_foreign_prune_takes_no_clone_and_nothing_that_was_staged(
    khlone: Khlone, git: Git, project: Path, deleted: bool
) -> None:
    path = new(khlone, project, "a")
    git("worktree", "add", "-q", "--detach", "../unlocked", cwd=project)
    (path / "staged.txt").write_text("staged\n")
    git("add", "staged.txt", cwd=path)
    if deleted:
        shutil.rmtree(path)
        shutil.rmtree(project.parent / "unlocked")

    git("worktree", "prune", "--expire", "now", cwd=project)
    mended = khlone("doctor", "--fix", cwd=project)

    # Without the lock it is gone, as the other one is.
    assert git("worktree", "list", "--porcelain", cwd=project).count("unlocked") == (0 if deleted else 1)
    assert mended.code == 0, mended.err
    assert git("diff", "--cached", "--name-only", cwd=path) == "staged.txt\n"
    assert git("show", ":staged.txt", cwd=path) == "staged\n"


@pytest.mark.parametrize("stays", [False, True], ids=["is gone in a moment", "stays"])
def test_a_git_that_only_looks_is_waited_for(khlone: Khlone, project: Path, stays: bool) -> None:
    path = new(khlone, project, "a")
    looking = subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=path, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert looking.stdin is not None
    gone = threading.Timer(0.3, looking.stdin.close)
    if not stays:
        gone.start()
    reaping = threading.Thread(target=looking.wait)
    reaping.start()

    done = khlone("remove", "a", "--json", cwd=project)

    looking.kill()
    reaping.join()
    gone.cancel()
    kept = document(done, "remove", 1 if stays else 0)["kept"]
    assert [one["code"] for one in kept] == (["session-live"] if stays else [])
    assert path.exists() is stays
