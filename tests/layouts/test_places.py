"""Where the git dir and the worktrees lie: bare, apart, linked, gone, named by variables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.steps import common_dir, document, new
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone, make_commit


@pytest.mark.parametrize("name", ["project.git", "of two\nlines.git"], ids=["plain", "newline"])
def test_a_bare_repository(khlone: Khlone, git: Git, repository: Path, tmp_path: Path, name: str) -> None:
    bare = tmp_path / "bare" / name
    git("clone", "-q", "--bare", str(repository), str(bare), cwd=tmp_path)

    Tour(khlone=khlone, git=git, where=bare, common=bare).run()


def test_a_bare_repository_with_its_worktrees_beside_it(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    git("clone", "-q", "--bare", str(repository), str(hub / ".bare"), cwd=tmp_path)
    (hub / ".git").write_text("gitdir: ./.bare\n")
    git("worktree", "add", "-q", "main", "main", cwd=hub)

    Tour(khlone=khlone, git=git, where=hub / "main", common=hub / ".bare").run()


def test_called_in_the_folder_of_a_bare_repository_with_its_worktrees_beside_it(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    git("clone", "-q", "--bare", str(repository), str(hub / ".bare"), cwd=tmp_path)
    (hub / ".git").write_text("gitdir: ./.bare\n")
    git("worktree", "add", "-q", "main", "main", cwd=hub)

    Tour(khlone=khlone, git=git, where=hub, common=hub / ".bare").run()


def test_a_git_dir_that_lies_apart(khlone: Khlone, git: Git, tmp_path: Path, commit: Commit) -> None:
    apart = tmp_path / "store" / "the.git"
    apart.parent.mkdir()
    project = tmp_path / "project"
    git("init", "-q", f"--separate-git-dir={apart}", str(project), cwd=tmp_path)
    commit(project, {"a.txt": "a\n"}, "first")

    Tour(khlone=khlone, git=git, where=project, common=apart).run()


def test_a_worktree_that_the_settings_name(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    """`core.worktree`: the git dir moved away, its worktree left where it was."""
    apart = tmp_path / "store" / "the.git"
    apart.parent.mkdir()
    (repository / ".git").rename(apart)
    git("--git-dir", str(apart), "config", "core.worktree", str(repository), cwd=tmp_path)

    Tour(khlone=khlone, git=git, where=apart, common=apart).run()

    assert git("--git-dir", str(apart), "status", "--porcelain", cwd=repository) == ""


def test_a_linked_worktree_that_khlone_did_not_make(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "-b", "theirs", str(linked), cwd=repository)
    (linked / "sub").mkdir()

    Tour(khlone=khlone, git=git, where=linked / "sub", common=repository / ".git", target="theirs").run()

    assert git("status", "--porcelain", cwd=linked) == ""


def test_inside_a_clone(khlone: Khlone, git: Git, repository: Path) -> None:
    outer = new(khlone, repository, "outer")

    inner = document(khlone("new", "inner", "--json", cwd=outer), "new")["clones"][0]

    assert (Path(inner["path"]), inner["target"]) == (outer.parent / "inner", "main")
    assert common_dir(git, outer.parent / "inner") == repository / ".git"


def test_the_main_worktree_is_gone_and_a_linked_one_is_left(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "-b", "theirs", str(linked), cwd=repository)
    for entry in repository.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    Tour(khlone=khlone, git=git, where=linked, common=repository / ".git", target="theirs").run()

    assert [entry.name for entry in repository.iterdir()] == [".git"]


def test_a_folder_of_settings_in_home(khlone: Khlone, git: Git, commit: Commit, tmp_path: Path) -> None:
    """`git --git-dir=$HOME/.cfg --work-tree=$HOME`: a bare-looking git dir, the home folder its worktree."""
    home = tmp_path / "home"
    home.mkdir()
    store = home / ".cfg"
    git("init", "-q", "--bare", str(store), cwd=home)
    named = ("--git-dir", str(store), "--work-tree", str(home))
    git(*named, "config", "status.showUntrackedFiles", "no", cwd=home)
    (home / ".profile").write_text("profile\n")
    (home / "private").write_text("not tracked\n")
    git(*named, "add", ".profile", cwd=home)
    git(*named, "commit", "-q", "-m", "first", cwd=home)
    variables = {"GIT_DIR": str(store), "GIT_WORK_TREE": str(home)}

    Tour(khlone=khlone, git=git, where=home, common=store, environment=variables).run()
    clone = Path(document(khlone("new", "a", "--json", cwd=home, env=variables), "new")["clones"][0]["path"])
    make_commit(clone, {".profile": "changed\n"}, "changed")
    found = document(khlone("merge", "a", "--json", cwd=clone), "merge", 1)

    assert [one["code"] for one in found["held"]] == ["repository-unsupported"]
    assert "GIT_WORK_TREE" in found["held"][0]["message"]
    assert (home / ".profile").read_text() == "profile\n"
    assert (home / "private").read_text() == "not tracked\n"
    assert git(*named, "status", "--porcelain", cwd=home) == ""
