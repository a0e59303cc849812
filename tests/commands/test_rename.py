"""What `rename` promises: name, branch and folder change together, and nothing else does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid, worked
from tests.commands.steps import branches, clone_names, document, footprint, new, refs, refused, show, tree
from tests.support import Commit, Git, Khlone, write


def rename(khlone: Khlone, where: Path, *arguments: str) -> dict[str, Any]:
    """The document of a rename that was done."""
    return document(khlone("rename", *arguments, "--json", cwd=where), "rename")


def test_name_branch_and_folder_change_and_the_work_comes_along(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n", "run.log": "ignored\n"})
    before, tip = tree(path), oid(git, project, "a")
    config_dir = show(khlone, project, "a")["config_dir"]

    found = rename(khlone, project, "a", "feature/b")

    clone = found["clone"]
    assert found["old"] == {"name": "a", "branch": "a", "path": str(path)}
    assert (clone["name"], clone["branch"], clone["path"]) == (
        "feature/b",
        "feature/b",
        str(path.with_name("feature-b")),
    )
    assert (clone["head"], clone["state"], clone["config_dir"]) == (tip, "ready", config_dir)
    assert clone == show(khlone, project, "feature/b")
    assert not path.exists()
    assert tree(path.with_name("feature-b")) == before
    assert branches(git, project) == {"main": oid(git, project, "main"), "feature/b": tip}
    assert git("symbolic-ref", "HEAD", cwd=path.with_name("feature-b")) == "refs/heads/feature/b\n"
    assert khlone("doctor", cwd=project).code == 0
    assert f"worktree {path.with_name('feature-b')}\n" in git("worktree", "list", "--porcelain", cwd=project)
    assert "remove it with git khlone remove feature/b" in git("worktree", "list", "--porcelain", cwd=project)


def test_reflog_and_configuration_of_the_branch_come_along(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    git("config", "branch.a.description", "what it is for", cwd=project)
    git("config", "branch.ab.description", "another", cwd=project)
    log = git("log", "-g", "--format=%H %gs", "a", cwd=path).splitlines()

    rename(khlone, path, "@", "b")

    after = git("log", "-g", "--format=%H %gs", "b", cwd=project).splitlines()
    assert after == [f"{oid(git, project, 'b')} Branch: renamed refs/heads/a to refs/heads/b", *log]
    assert git("config", "--get-regexp", r"^branch\.", cwd=project) == (
        "branch.b.description what it is for\nbranch.ab.description another\n"
    )
    assert not (project / ".git/logs/refs/heads/a").exists()


def test_a_renamed_clone_merges_and_goes_and_comes_back(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    rename(khlone, project, "a", "b")

    assert khlone("merge", "b", cwd=project).code == 0
    assert khlone("remove", "b", cwd=project).code == 0
    restored = khlone("restore", "b", cwd=project)

    assert restored.code == 0
    assert "b" in branches(git, project)
    assert show(khlone, project, "b")["state"] == "merged"


def test_a_branch_that_khlone_did_not_make_or_that_has_another_name_stays(
    khlone: Khlone, git: Git, project: Path
) -> None:
    git("branch", "theirs", cwd=project)
    new(khlone, project, "a", "--branch", "theirs")
    new(khlone, project, "b", "--branch", "odd")
    before = branches(git, project)

    found = [rename(khlone, project, old, fresh)["clone"] for old, fresh in (("a", "c"), ("b", "d"))]

    assert [(one["name"], one["branch"], Path(one["path"]).name) for one in found] == [
        ("c", "theirs", "c"),
        ("d", "odd", "d"),
    ]
    assert branches(git, project) == before


def test_clones_that_merge_into_the_branch_follow_its_name(khlone: Khlone, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    new(khlone, path, "b", "--into", "a")

    rename(khlone, project, "a", "c")

    assert show(khlone, project, "b")["target"] == "c"


def test_a_folder_of_the_users_own_choice_stays(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    path = new(khlone, project, "a")
    git("worktree", "unlock", str(path), cwd=project)
    git("worktree", "move", str(path), str(tmp_path / "mine"), cwd=project)
    assert khlone("doctor", "--fix", cwd=project).code == 0

    found = rename(khlone, project, "a", "b")

    assert found["clone"]["path"] == str(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


# -- what stands in the way ----------------------------------------------------------------


def taken_clone(khlone: Khlone, git: Git, project: Path) -> tuple[str, str]:
    """Another clone has the name."""
    new(khlone, project, "b")
    return "b", "clone-exists"


def taken_branch(khlone: Khlone, git: Git, project: Path) -> tuple[str, str]:
    """A branch has the name."""
    git("branch", "b", cwd=project)
    return "b", "branch-exists"


def taken_folder_of_branches(khlone: Khlone, git: Git, project: Path) -> tuple[str, str]:
    """A branch lies below the name."""
    git("branch", "b/c", cwd=project)
    return "b", "name-collides"


def below_itself(khlone: Khlone, git: Git, project: Path) -> tuple[str, str]:
    """The new name lies below the old one."""
    return "a/b", "name-collides"


def in_another_case(khlone: Khlone, git: Git, project: Path) -> tuple[str, str]:
    """The new name is the old one in other letters."""
    return "A", "name-collides"


@pytest.mark.parametrize("taken", [taken_clone, taken_branch, taken_folder_of_branches, below_itself, in_another_case])
def test_a_name_that_is_taken_changes_nothing(
    khlone: Khlone, git: Git, project: Path, taken: Callable[[Khlone, Git, Path], tuple[str, str]]
) -> None:
    path = new(khlone, project, "a")
    name, code = taken(khlone, git, project)
    before = footprint(git, project), clone_names(khlone, project)

    refused(khlone("rename", "a", name, "--json", cwd=project), code)

    assert (footprint(git, project), clone_names(khlone, project)) == before
    assert path.is_dir()


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [(("a", "a"), "usage", 2), (("a", "b..c"), "illegal-name", 2), (("nobody", "b"), "no-such-clone", 1)],
)
def test_names_that_cannot_be_meant_are_refused(
    khlone: Khlone, project: Path, words: tuple[str, str], code: str, exit_code: int
) -> None:
    new(khlone, project, "a")

    refused(khlone("rename", *words, "--json", cwd=project), code, exit_code)


def test_a_clone_within_a_rebase_keeps_its_name(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("rebase", "-q", "--exec", "false", "main~1", cwd=path, check=False)
    before = refs(git, project)

    refused(khlone("rename", "a", "b", "--json", cwd=project), "clone-not-ready")

    assert refs(git, project) == before


def test_a_folder_in_use_stays_where_it_is_with_keep_path_alone(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    with subprocess.Popen(["cat"], cwd=path, stdin=subprocess.PIPE) as child:
        error = refused(khlone("rename", "a", "b", "--json", cwd=project), "session-live")
        before = refs(git, project)
        found = rename(khlone, project, "a", "b", "--keep-path")
        running = child.poll() is None
        child.communicate()

    assert "--keep-path" in error["hint"]
    assert any(line.endswith("refs/heads/a") for line in before)
    assert found["clone"]["path"] == str(path)
    assert git("symbolic-ref", "HEAD", cwd=path) == "refs/heads/b\n"
    assert running


def test_a_dry_run_changes_nothing(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    before = footprint(git, project)

    found = rename(khlone, project, "a", "b", "--dry-run")

    assert (found["clone"]["name"], found["clone"]["branch"]) == ("b", "b")
    assert found["clone"]["path"] == str(path.with_name("b"))
    assert footprint(git, project) == before
    assert clone_names(khlone, project) == ["a"]


# -- the short names -----------------------------------------------------------------------


def path_of(khlone: Khlone, where: Path, name: str) -> str:
    """What `path` answers."""
    return str(document(khlone("path", name, "--json", cwd=where), "path")["path"])


def test_short_names_are_this_clone_the_one_before_and_the_main_worktree(khlone: Khlone, project: Path) -> None:
    first, second = new(khlone, project, "a"), new(khlone, project, "b")
    path_of(khlone, project, "a")
    document(khlone("cd", "b", "--json", cwd=project), "cd")

    assert path_of(khlone, first, "@") == str(first)
    assert path_of(khlone, first, "-") == str(second)
    assert path_of(khlone, second, "-") == str(first)
    assert path_of(khlone, second, "^") == str(project)
    assert document(khlone("cd", "^", "--json", cwd=first), "cd") == {
        "schema": "khlone.cd/1",
        "name": "^",
        "path": str(project),
    }


def test_the_one_before_is_what_exec_used_follows_a_rename_and_forgets_who_is_gone(
    khlone: Khlone, project: Path
) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")
    assert khlone("exec", "a", "--", "true", cwd=project).code == 0
    assert khlone("exec", "b", "--", "true", cwd=project).code == 0
    rename(khlone, project, "b", "c")

    renamed = document(khlone("path", "-", "--json", cwd=project), "path")["name"]
    khlone("remove", "c", cwd=project)
    left = document(khlone("path", "-", "--json", cwd=project), "path")["name"]

    assert (renamed, left) == ("c", "a")


def test_what_a_session_uses_is_not_what_its_user_used(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")
    path_of(khlone, project, "a")

    khlone("path", "b", cwd=project, env={"KHLONE_SESSION": "someone"})

    assert document(khlone("path", "-", "--json", cwd=project), "path")["name"] == "a"


def test_short_names_without_a_meaning_are_refused(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", str(project), str(tmp_path / "bare.git"), cwd=tmp_path)

    refused(khlone("path", "-", "--json", cwd=project), "usage", 2)
    refused(khlone("path", "@", "--json", cwd=project), "usage", 2)
    refused(khlone("path", "^", "--json", cwd=tmp_path / "bare.git"), "usage", 2)
    refused(khlone("show", "^", "--json", cwd=project), "no-such-clone")
