"""Submodules: each clone has its own, filled from what is here, and no commit of theirs is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, tree
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone

FILE = ("-c", "protocol.file.allow=always")


@pytest.fixture
def project(repository: Path, git: Git, commit: Commit, tmp_path: Path) -> Path:
    """A repository with the submodule `libs/outer`, which has `inner`; where they came from is gone."""
    for name in ("inner", "outer"):
        git("init", "-q", str(tmp_path / name), cwd=tmp_path)
        commit(tmp_path / name, {f"{name}.txt": f"{name}\n", ".gitignore": "*.ignored\n"}, "first")
    git(*FILE, "submodule", "--quiet", "add", str(tmp_path / "inner"), "inner", cwd=tmp_path / "outer")
    git("commit", "-q", "-m", "inner", cwd=tmp_path / "outer")
    git(*FILE, "submodule", "--quiet", "add", "--name", "the outer", str(tmp_path / "outer"), "libs/outer",
        cwd=repository)  # fmt: skip
    git("commit", "-q", "-m", "submodule", cwd=repository)
    git(*FILE, "submodule", "--quiet", "update", "--init", "--recursive", cwd=repository)
    for name in ("inner", "outer"):
        shutil.rmtree(tmp_path / name)
    return repository


def dirty(clone: Path) -> None:
    """Uncommitted work inside a submodule and inside the one within."""
    for place in ("libs/outer", "libs/outer/inner"):
        (clone / place / "new.txt").write_text("untracked in a submodule\n")
        (clone / place / "secret.ignored").write_text("ignored in a submodule\n")
    (clone / "libs/outer/outer.txt").write_text("changed\n")


@pytest.mark.parametrize("recurse", [None, "true"])
def test_submodules_are_there_without_a_network(khlone: Khlone, git: Git, project: Path, recurse: str | None) -> None:
    if recurse:
        git("config", "submodule.recurse", recurse, cwd=project)

    def check(clone: Path) -> None:
        assert (clone / "libs/outer/outer.txt").read_text() == "outer\n"
        assert (clone / "libs/outer/inner/inner.txt").read_text() == "inner\n"
        listed = git("submodule", "status", "--recursive", cwd=clone).splitlines()
        assert [line[0] for line in listed] == [" ", " "]

    def state(clone: Path) -> object:
        places = (clone / "libs/outer", clone / "libs/outer/inner")
        return [git("status", "--porcelain", "--ignored", "--branch", cwd=place) for place in places]

    Tour(khlone=khlone, git=git, where=project, common=project / ".git", check=check, dirty=dirty, state=state).run()

    assert git("submodule", "status", "--recursive", cwd=project).count("\n ") == 1
    assert git("status", "--porcelain", cwd=project) == ""


def test_two_clones_have_different_commits_of_one_submodule(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    one, two = new(khlone, project, "one"), new(khlone, project, "two")

    tip = commit(one / "libs/outer", {"outer.txt": "of one\n"}, "work in a submodule")

    assert git("rev-parse", "HEAD", cwd=one / "libs/outer").strip() == tip
    assert (two / "libs/outer/outer.txt").read_text() == "outer\n"
    assert git("status", "--porcelain", cwd=two) == ""
    assert git("status", "--porcelain", cwd=project) == ""
    homes = {git("rev-parse", "--absolute-git-dir", cwd=place / "libs/outer") for place in (one, two, project)}
    assert len(homes) == 3


@pytest.mark.parametrize("kind", ["changed", "untracked", "commit", "nested"])
def test_work_in_a_submodule_keeps_the_clone(
    khlone: Khlone, git: Git, project: Path, commit: Commit, kind: str
) -> None:
    clone = new(khlone, project, "a")
    outer = clone / "libs/outer"
    if kind == "commit":
        commit(outer, {"outer.txt": "x\n"}, "not recorded")
    else:
        name = {"changed": "outer.txt", "untracked": "new.txt", "nested": "inner/new.txt"}[kind]
        (outer / name).write_text("work\n")
    before = tree(clone)

    kept = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)["kept"]

    assert [one["code"] for one in kept] == ["has-changes"]
    assert tree(clone) == before


def test_a_commit_of_a_clones_submodule_outlives_the_clone(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    clone = new(khlone, project, "a")
    tip = commit(clone / "libs/outer", {"outer.txt": "of the clone\n"}, "work in a submodule")
    git("commit", "-q", "-a", "-m", "record it", cwd=clone)

    document(khlone("merge", "a", "--json", cwd=project), "merge")
    document(khlone("remove", "a", "--json", cwd=project), "remove")
    khlone("prune", "--trash", "--age", "0s", cwd=project)

    git("gc", "--quiet", "--prune=now", cwd=project / "libs/outer")
    git("submodule", "update", "--quiet", cwd=project)
    assert git("rev-parse", "HEAD", cwd=project / "libs/outer").strip() == tip
    assert (project / "libs/outer/outer.txt").read_text() == "of the clone\n"
    later = new(khlone, project, "later")
    assert (later / "libs/outer/outer.txt").read_text() == "of the clone\n"


def test_what_was_never_fetched_stays_empty_and_is_told_in_one_line(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    git("clone", "-q", str(project), str(copy), cwd=tmp_path)

    done = khlone("new", "a", "--json", cwd=copy)

    clone = Path(document(done, "new")["clones"][0]["path"])
    assert [line for line in done.err.splitlines() if "libs/outer" in line] == [
        "khlone: warning: libs/outer of a stays empty: never fetched here (in the clone: git submodule update --init)"
    ]
    assert list((clone / "libs/outer").iterdir()) == []
    assert git("status", "--porcelain", cwd=clone) == ""


def test_a_submodule_that_was_taken_off_stays_off(khlone: Khlone, git: Git, project: Path) -> None:
    git("submodule", "--quiet", "deinit", "libs/outer", cwd=project)

    done = khlone("new", "a", "--json", cwd=project)

    clone = Path(document(done, "new")["clones"][0]["path"])
    assert "libs/outer" not in done.err
    assert list((clone / "libs/outer").iterdir()) == []


def test_a_clone_of_a_clone_has_the_submodule_commits_of_the_calling_one(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    clone = new(khlone, project, "a")
    commit(clone / "libs/outer", {"outer.txt": "of a\n"}, "work in a submodule")
    git("commit", "-q", "-a", "-m", "record it", cwd=clone)

    inner = new(khlone, clone, "b")

    assert (inner / "libs/outer/outer.txt").read_text() == "of a\n"
    assert (inner / "libs/outer/inner/inner.txt").read_text() == "inner\n"


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "a/../../../evil"])
def test_a_name_that_leads_out_of_the_folder_is_not_followed(
    khlone: Khlone, git: Git, project: Path, commit: Commit, name: str
) -> None:
    text = (project / ".gitmodules").read_text().replace('"the outer"', f'"{name}"')
    commit(project, {".gitmodules": text}, "another name")
    git("config", f"submodule.{name}.url", "/nowhere", cwd=project)

    clone = new(khlone, project, "a")

    assert list((clone / "libs/outer").iterdir()) == []


def test_restored_in_another_place_the_submodules_work(khlone: Khlone, git: Git, project: Path) -> None:
    clone = new(khlone, project, "a")
    dirty(clone)
    before = tree(clone)
    document(khlone("remove", "a", "--force", "--json", cwd=project), "remove")
    clone.mkdir(parents=True)
    (clone / "in the way").write_text("")

    back = Path(document(khlone("restore", "a", "--json", cwd=project), "restore")["clone"]["path"])

    assert back != clone
    assert tree(back) == before
    assert git("rev-parse", "--show-toplevel", cwd=back / "libs/outer/inner").strip() == str(back / "libs/outer/inner")
    assert git("status", "--porcelain", cwd=back / "libs/outer").splitlines() == [
        " M inner", " M outer.txt", "?? new.txt"
    ]  # fmt: skip


def test_diverging_submodules_are_a_conflict_and_change_nothing(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    for name in ("a", "b"):
        clone = new(khlone, project, name)
        commit(clone / "libs/outer", {"outer.txt": f"of {name}\n"}, f"work of {name}")
        git("commit", "-q", "-a", "-m", f"record {name}", cwd=clone)
    document(khlone("merge", "a", "--json", cwd=project), "merge")
    before = git("for-each-ref", "refs/heads", cwd=project), tree(project)

    held = document(khlone("merge", "b", "--json", cwd=project), "merge", 4)["held"]

    assert [(one["code"], one["paths"]) for one in held] == [("conflict", ["libs/outer"])]
    assert (git("for-each-ref", "refs/heads", cwd=project), tree(project)) == before


def test_a_new_that_was_killed_with_its_submodules_filled_leaves_nothing(
    khlone: Khlone, git: Git, project: Path
) -> None:
    before = footprint(git, project)
    killed = khlone("new", "a", cwd=project, env={"KHLONE_FAULT": "create.checked-out:kill"})
    assert killed.code == -9

    document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")

    assert footprint(git, project) == before
    assert list((project / ".git/khlone").glob("quarantine/*")) == []


def test_what_was_handed_over_is_let_go_once_a_branch_has_it(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    clone, kept = new(khlone, project, "a"), project / "libs/outer"
    tip = commit(clone / "libs/outer", {"outer.txt": "of the clone\n"}, "work in a submodule")
    git("commit", "-q", "-a", "-m", "record it", cwd=clone)
    document(khlone("merge", "a", "--json", cwd=project), "merge")

    def handed_over() -> list[str]:
        return git("for-each-ref", "--format=%(objectname)", "refs/khlone/clones", cwd=kept).split()

    assert tip in handed_over()
    khlone("prune", cwd=project)
    assert handed_over() == [tip]
    git("branch", "taken-up", tip, cwd=kept)

    assert khlone("prune", cwd=project).code == 0

    assert handed_over() == []
