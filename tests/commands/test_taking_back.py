"""A `new` that was killed with many files: taken back by few processes, told of, and nobody's work with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands.steps import clone_names
from tests.support import Git, Khlone, run_khlone, write

FILES = 1200


@pytest.fixture
def large(tmp_path: Path, git: Git) -> Path:
    """A repository of many files with odd names and contents that a checkout changes."""
    path = tmp_path / "large"
    git("init", "-q", str(path), cwd=tmp_path)
    write(path, {f"folder {number % 7}/file {number}.txt": f"text {number}\nmore\n" for number in range(FILES)})
    write(path, {".gitattributes": "*.txt text eol=crlf\n", "line\nend.txt": "a\nb\n"})
    git("add", "-A", cwd=path)
    git("commit", "-q", "-m", "many files", cwd=path)
    return path


def killed_new(repository: Path) -> Path:
    """The worktree that a killed `new` has left, half of its files cut as a killed checkout cuts one."""
    done = run_khlone("new", "a", cwd=repository, env={"KHLONE_FAULT": "create.checked-out"})
    assert done.code == -9
    worktree = repository.with_name("large.clones") / "a"
    for number in range(0, FILES, 2):
        file = worktree / f"folder {number % 7}" / f"file {number}.txt"
        os.truncate(file, file.stat().st_size // 2)
    os.truncate(worktree / "line\nend.txt", 2)
    return worktree


@pytest.mark.parametrize("kept", [False, True], ids=["nobody's work", "somebody's work"])
def test_a_killed_new_of_many_files_is_taken_back_by_few_processes(
    khlone: Khlone, git: Git, large: Path, tmp_path: Path, kept: bool
) -> None:
    worktree = killed_new(large)
    if kept:
        (worktree / "folder 3" / "file 3.txt").write_text("precious\n")
    trace = tmp_path / "trace"
    trace.mkdir()
    git("config", "--global", "trace2.eventTarget", str(trace), cwd=large)

    done = khlone("doctor", "--fix", cwd=large)

    assert done.code == 0
    assert len(list(trace.iterdir())) < 60
    assert f"taking back the interrupted new of a, which has many files: {worktree}" in done.err
    assert not worktree.exists()
    assert clone_names(khlone, large) == []
    quarantined = list((large / ".git" / "khlone").glob("quarantine/*/folder 3/file 3.txt"))
    assert [file.read_text() for file in quarantined] == (["precious\n"] if kept else [])
