"""Repositories in odd places, formats and states: the tour works, or one clear line says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.steps import footprint, new, refused, tree
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone, make_repository

ODD_FOLDERS = [
    'it\'s "a" $(place) *\n second line {parent} caf\u00e9 \U0001f4a9',
    "-n \udcff\udcfe.git ",
]


def test_the_usual_repository(khlone: Khlone, git: Git, repository: Path) -> None:
    Tour(khlone=khlone, git=git, where=repository, common=repository / ".git").run()


@pytest.mark.parametrize("name", ODD_FOLDERS, ids=["quotes-and-newline", "invalid-utf-8"])
def test_a_path_of_any_bytes(khlone: Khlone, git: Git, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    project = make_repository(folder / name)

    Tour(khlone=khlone, git=git, where=project, common=project / ".git").run()


def test_a_sha_256_repository(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    project = tmp_path / "project"
    git("init", "-q", "--object-format=sha256", str(project), cwd=tmp_path)
    commit(project, {"a.txt": "a\n"}, "first")

    Tour(khlone=khlone, git=git, where=project, common=project / ".git").run()

    assert len(git("rev-parse", "main", cwd=project).strip()) == 64


def test_a_shallow_repository(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git("clone", "-q", "--depth=1", repository.as_uri(), str(shallow), cwd=tmp_path)

    Tour(khlone=khlone, git=git, where=shallow, common=shallow / ".git").run()


def test_a_repository_that_borrows_objects(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    borrower = tmp_path / "borrower"
    git("clone", "-q", "--shared", str(repository), str(borrower), cwd=tmp_path)
    assert (borrower / ".git" / "objects" / "info" / "alternates").exists()

    Tour(khlone=khlone, git=git, where=borrower, common=borrower / ".git").run()


def test_a_default_branch_of_another_name(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    project = tmp_path / "project"
    git("init", "-q", "-b", "trunk/of-us", str(project), cwd=tmp_path)
    commit(project, {"a.txt": "a\n"}, "first")

    Tour(khlone=khlone, git=git, where=project, common=project / ".git", target="trunk/of-us").run()


def test_a_detached_head(khlone: Khlone, git: Git, repository: Path) -> None:
    git("checkout", "-q", "--detach", cwd=repository)

    Tour(khlone=khlone, git=git, where=repository, common=repository / ".git", options=("--into", "main")).run()


def test_an_empty_tree(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    project = tmp_path / "project"
    git("init", "-q", str(project), cwd=tmp_path)
    commit(project, {}, "a commit without files")

    Tour(khlone=khlone, git=git, where=project, common=project / ".git").run()


def test_no_commit_yet_is_told(khlone: Khlone, git: Git, tmp_path: Path) -> None:
    git("init", "-q", "-b", "any", str(tmp_path / "project"), cwd=tmp_path)
    before = tree(tmp_path / "project" / ".git")

    done = khlone("new", "a", "--json", cwd=tmp_path / "project")

    refused(done, "unborn-head")
    assert {name for name in tree(tmp_path / "project" / ".git") if not name.startswith("khlone")} == set(before)


def test_an_index_of_five_thousand_files(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    project = tmp_path / "project"
    git("init", "-q", str(project), cwd=tmp_path)
    commit(project, {f"d{number % 50}/f{number}": f"{number}\n" for number in range(5000)}, "many")

    Tour(khlone=khlone, git=git, where=project, common=project / ".git").run()


def test_file_names_of_any_bytes(khlone: Khlone, git: Git, repository: Path, commit: Commit) -> None:
    names = [
        "new\nline", "\udcff\udcfe not utf-8", "c" * 200 + "/" + "d" * 200 + "/" + "e" * 200,
        "-n", "--force", "trailing ", " leading", 'quo"te', "back\\slash", "tab\t", ":(glob)*", "*", "caf\u00e9",
        "cafe\u0301", "File", "file", ".gitkeep", "\x01\x7f", "d\n/in \udcff/-x",
    ]  # fmt: skip
    for number, name in enumerate(names):
        place = repository / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{number}\n")
    git("add", "-A", cwd=repository)
    git("commit", "-q", "-m", "names", cwd=repository)

    def dirty(clone: Path) -> None:
        for name in ("new\nline", "\udcff\udcfe not utf-8", "-n", "trailing ", "File"):
            (clone / name).write_text("changed\n")
        for name in ("un\ntracked", "\udcfd untracked", "--all", "untracked ", "FILE", "n" * 200):
            (clone / name).write_text("untracked\n")

    Tour(khlone=khlone, git=git, where=repository, common=repository / ".git", dirty=dirty).run()


def test_clone_names_that_only_case_tells_apart_collide(khlone: Khlone, git: Git, repository: Path) -> None:
    new(khlone, repository, "a")
    before = footprint(git, repository)

    done = khlone("new", "A", "--json", cwd=repository)

    refused(done, "name-collides")
    assert footprint(git, repository) == before
