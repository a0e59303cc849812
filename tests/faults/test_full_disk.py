"""A disk that is really full: a small tmpfs. What was there stays, the message names a place, nothing is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, tree
from tests.faults.lab import code_of, leftovers, open_operations, rows
from tests.support import Commit, Git, Khlone, make_repository

pytestmark = pytest.mark.needs_root

SIZE_KB = 4096


@pytest.fixture
def small(tmp_path: Path, commit: Commit) -> Iterator[Path]:
    """A repository, its clones and the account's state on a file system of a few megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "none", place], check=True)
    try:
        project = make_repository(place / "project")
        commit(project, {"large.bin": os.urandom(400 << 10), ".gitignore": "*.log\n"}, "large")
        state = Path(os.environ["XDG_STATE_HOME"])
        state.parent.mkdir(exist_ok=True)
        (place / "state").mkdir(mode=0o700)
        state.symlink_to(place / "state")
        yield project
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(project: Path, *, leave_kb: int) -> Path:
    """Take what room there is but for so many kilobytes; deleting the file gives it back."""
    filler = project.parent / "filler"
    found = os.statvfs(project)
    wanted = found.f_bavail * found.f_frsize - (leave_kb << 10)
    assert wanted > 0
    filler.write_bytes(b"x" * wanted)
    return filler


@pytest.mark.parametrize("leave_kb", [0, 4, 16, 64, 200])
def test_a_create_on_a_full_disk_is_taken_back_and_tells_where(
    khlone: Khlone, git: Git, small: Path, leave_kb: int
) -> None:
    new(khlone, small, "a")
    before, clone = footprint(git, small), tree(small.with_name("project.clones") / "a")
    filler = fill(small, leave_kb=leave_kb)

    done = khlone("new", "b", "--json", cwd=small)
    filler.unlink()

    assert (done.code, code_of(done)) == (1, "no-space")
    assert done.json()["facts"]["path"]
    assert footprint(git, small) == before
    assert tree(small.with_name("project.clones") / "a") == clone
    assert open_operations(small) == []
    assert leftovers(small) == []
    assert rows(small, "PRAGMA integrity_check") == [("ok",)]
    assert khlone("new", "b", cwd=small).code == 0


@pytest.mark.parametrize("leave_kb", [0, 4, 16, 64])
@pytest.mark.parametrize("verb", ["merge", "remove"])
def test_another_change_on_a_full_disk_is_done_or_not_done(
    khlone: Khlone, git: Git, commit: Commit, small: Path, leave_kb: int, verb: str
) -> None:
    path = new(khlone, small, "a")
    commit(path, {"one.bin": os.urandom(100 << 10)}, "one")
    (path / "loose.bin").write_bytes(os.urandom(100 << 10))
    tip, files = git("rev-parse", "a", cwd=small), tree(path)
    options = ["--committed"] if verb == "merge" else ["--force"]
    main = git("rev-parse", "main", cwd=small)
    filler = fill(small, leave_kb=leave_kb)

    done = khlone(verb, *options, "a", "--json", cwd=small)
    filler.unlink()

    if done.code != 0:
        assert code_of(done) == "no-space", done.out
    assert khlone("doctor", "--fix", cwd=small).code == 0
    assert open_operations(small) == []
    assert leftovers(small) == []
    assert rows(small, "PRAGMA integrity_check") == [("ok",)]
    git("fsck", "--no-dangling", cwd=small)
    if verb == "merge":
        assert done.code != 0 or git("rev-parse", "main", cwd=small) != main
        assert git("status", "--porcelain", cwd=small) == ""
    elif not path.exists():
        assert khlone("restore", "a", cwd=small).code == 0
    assert git("rev-parse", "a", cwd=small) == tip
    assert tree(path) == files


def test_without_inodes_nothing_is_made(khlone: Khlone, git: Git, small: Path) -> None:
    new(khlone, small, "a")
    before = footprint(git, small)
    used = os.statvfs(small).f_files - os.statvfs(small).f_ffree
    subprocess.run(["mount", "-o", f"remount,nr_inodes={used + 6}", small.parent], check=True)

    done = khlone("new", "b", "--json", cwd=small)
    subprocess.run(["mount", "-o", f"remount,nr_inodes={used + 5000}", small.parent], check=True)

    assert (done.code, code_of(done)) == (1, "no-space")
    assert khlone("doctor", "--fix", cwd=small).code == 0, "what could not be taken back without one either"
    assert footprint(git, small) == before
    assert open_operations(small) == []
    assert document(khlone("list", "--json", cwd=small), "list")["clones"][0]["state"] == "ready"
