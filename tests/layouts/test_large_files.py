"""Git LFS: content that is here is filled in, what is not stays a pointer, and `new` never fails of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.steps import document, new
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone, write

LARGE = {"a.bin": b"\0large a\n" * 500, "sub/b.bin": b"\0large b\n" * 500, "sub/odd \n name.bin": b"\0odd\n"}


@pytest.fixture
def project(repository: Path, git: Git, commit: Commit) -> Path:
    """A repository with large files, in the way that `git lfs install` sets up an account."""
    git("lfs", "install", "--skip-repo", cwd=repository)
    commit(repository, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"}, "attributes")
    commit(repository, LARGE, "large files")
    git("config", "lfs.url", "http://127.0.0.1:9/nobody-listens", cwd=repository)
    assert git("cat-file", "blob", "HEAD:a.bin", cwd=repository).startswith("version https://git-lfs")
    return repository


def test_large_files_that_are_here_are_filled_in(khlone: Khlone, git: Git, project: Path) -> None:
    def check(clone: Path) -> None:
        assert {name: (clone / name).read_bytes() for name in LARGE} == LARGE

    def dirty(clone: Path) -> None:
        write(clone, {"a.bin": b"\1changed\n" * 100, "new.bin": b"\2new\n" * 100})

    Tour(khlone=khlone, git=git, where=project, common=project / ".git", check=check, dirty=dirty).run()


def test_large_files_that_are_not_here_stay_pointers_and_are_told(khlone: Khlone, git: Git, project: Path) -> None:
    oid = git("lfs", "ls-files", "--long", "--include=a.bin", cwd=project).split()[0]
    for found in (project / ".git/lfs/objects").rglob(oid):
        found.unlink()

    done = khlone("new", "a", "--json", cwd=project)

    clone = Path(document(done, "new")["clones"][0]["path"])
    assert (clone / "a.bin").read_bytes().startswith(b"version https://git-lfs")
    assert (clone / "sub/b.bin").read_bytes() == LARGE["sub/b.bin"]
    assert git("status", "--porcelain", cwd=clone) == ""
    assert [line for line in done.err.splitlines() if "pointer" in line] == [
        "khlone: warning: 1 large file of a stay pointers: the content is not here (in the clone: git lfs pull)"
    ]


def test_a_copy_without_any_content_has_pointers(khlone: Khlone, git: Git, project: Path) -> None:
    shutil.rmtree(project / ".git/lfs")

    done = khlone("new", "a", "--json", cwd=project)

    clone = Path(document(done, "new")["clones"][0]["path"])
    assert all((clone / name).read_bytes().startswith(b"version https://git-lfs") for name in LARGE)
    assert "3 large files of a stay pointers" in done.err


def test_a_large_file_of_a_clone_lands_with_its_content(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    clone = new(khlone, project, "a")
    commit(clone, {"c.bin": b"\3of the clone\n" * 200}, "another")

    document(khlone("merge", "a", "--json", cwd=project), "merge")

    assert (project / "c.bin").read_bytes() == b"\3of the clone\n" * 200
    assert git("status", "--porcelain", cwd=project) == ""
