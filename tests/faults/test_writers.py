"""A program that makes and deletes files in a clone all the while, as git's own maintenance does, stops no verb.

It works elsewhere and holds the folders open, so that nobody sees it and it goes with them
wherever they are moved.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import files
from khlone.errors import StateUnsafe
from tests.commands.steps import clone_names, document, new, trash
from tests.faults.lab import open_operations, stopped
from tests.support import Git, Khlone, write

WRITER = """
import itertools, os, sys
folders = [os.open(place, os.O_RDONLY) for place in sys.argv[1:]]
for number in itertools.count():
    for folder in folders:
        try:
            os.close(os.open(f"made-{number % 40}.log", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
            if number % 3 == 0:
                os.unlink(f"made-{number % 40}.log", dir_fd=folder)
        except OSError:
            pass
    if number == 200:
        print("busy", flush=True)
"""


@contextlib.contextmanager
def writing_in(*places: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is in the midst of it."""
    argv = [sys.executable, "-c", WRITER, *map(str, places)]
    with subprocess.Popen(argv, cwd="/", stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"busy\n"
        yield writer
        assert writer.poll() is None, "it has written all the while"
        writer.kill()


def test_a_clone_is_removed_restored_and_purged_under_it(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {f"src/kept-{number}.log": f"{number}\n" for number in range(100)})
    (admin,) = (project / ".git" / "worktrees").iterdir()
    with writing_in(path, path / "src", admin):
        for _ in range(3):
            assert khlone("remove", "--force", "a", cwd=project).code == 0
            assert khlone("restore", "a", cwd=project).code == 0
        whole = sorted(path.glob("src/kept-*.log"))
        assert khlone("remove", "--force", "a", cwd=project).code == 0

        during = document(khlone("prune", "--trash", "--age", "0", "--json", cwd=project), "prune")
    after = document(khlone("prune", "--trash", "--age", "0", "--json", cwd=project), "prune")

    assert len(whole) == 100
    # A race: the folder goes in a moment in which it is empty, or stays, which is said.
    assert [one["code"] for one in during["kept"]] in ([], ["state-unsafe"]), during
    assert (len(during["purged"]) + len(after["purged"]), after["kept"]) == (1, [])
    assert trash(khlone, project) == []
    assert open_operations(project) == []
    assert khlone("doctor", cwd=project).code == 0


def test_a_create_that_was_killed_is_taken_back_under_it(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    child = stopped(["new", "half"], point="create.checked-out", cwd=project)
    child.kill()
    child.wait()
    places = [place for place in (project / ".git" / "worktrees").iterdir() if "half" in place.name]

    with writing_in(project.with_name("project.clones") / "half" / "src", *places):
        during = khlone("doctor", "--fix", cwd=project)
    after = khlone("doctor", "--fix", cwd=project)

    # The same race: it is done at once, or says why not.
    assert during.code == 0 or "a program makes files there all the while" in during.out + during.err, during
    assert after.code == 0, after
    assert open_operations(project) == []
    assert clone_names(khlone, project) == ["a"]
    git("worktree", "list", cwd=project)


@pytest.mark.parametrize("times", [3, 1000])
def test_a_folder_that_is_not_empty_when_it_is_to_go_is_emptied_again_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What the writer above does now and then, here each time: without another try it would end in ENOTEMPTY."""
    work = tmp_path / "work"
    write(work, {"a": "", "deep/er/b": ""})
    rmdir, left = os.rmdir, [times]

    def late(name: str, *, dir_fd: int) -> None:
        if left[0] and name == "work":
            left[0] -= 1
            (work / "made").touch()
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)

    if times == 3:
        files.remove_tree(work)
        assert not work.exists()
    else:
        with pytest.raises(StateUnsafe, match="makes files there all the while"):
            files.remove_tree(work)
        assert work.exists()
