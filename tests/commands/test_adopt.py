"""What `adopt` promises: a worktree that is there becomes a clone and stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid
from tests.commands.steps import branches, clone_names, document, footprint, local_state, new, refused, show, tree
from tests.support import Commit, Git, Khlone, make_repository, write


def adopt(khlone: Khlone, where: Path, *arguments: str) -> dict[str, Any]:
    """The CLONE that a worktree has become."""
    clone = document(khlone("adopt", *arguments, "--json", cwd=where), "adopt")["clone"]
    assert isinstance(clone, dict)
    return clone


@pytest.fixture
def linked(git: Git, commit: Commit, project: Path, tmp_path: Path) -> Path:
    """A linked worktree made by git, with a commit and uncommitted work, on branch `topic`."""
    path = tmp_path / "some where"
    git("worktree", "add", "-q", "-b", "topic", str(path), cwd=project)
    commit(path, {"mine.txt": "mine\n"}, "mine")
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n", "run.log": "ignored\n"})
    return path


def admin_of(git: Git, path: Path) -> Path:
    """The worktree's admin folder."""
    return Path(git("rev-parse", "--absolute-git-dir", cwd=path).strip())


def test_a_worktree_becomes_a_clone_and_stays_as_it_is(khlone: Khlone, git: Git, project: Path, linked: Path) -> None:
    before, admin = local_state(git, linked), admin_of(git, linked)
    kept = {name: content for name, content in tree(admin).items() if name != "index"}

    clone = adopt(khlone, project, str(linked))

    assert (clone["name"], clone["branch"], clone["target"]) == ("topic", "topic", "main")
    assert (clone["state"], clone["path"], clone["agent"]) == ("adopted", str(linked), "claude")
    assert (clone["base"], clone["head"]) == (oid(git, project, "main"), oid(git, project, "topic"))
    assert (clone["ahead"], clone["merged"], clone["dirty"], clone["untracked"]) == (1, False, True, 1)
    assert Path(clone["config_dir"]).is_dir()
    assert show(khlone, project, "topic") == clone
    assert local_state(git, linked) == before
    after = {name: content for name, content in tree(admin).items() if name != "index"}
    assert set(after) - set(kept) == {"khlone.json", "locked"}
    assert all(after[name] == content for name, content in kept.items())
    assert khlone("doctor", cwd=project).code == 0


def test_an_adopted_clone_lands_goes_and_comes_back_and_keeps_its_branch(
    khlone: Khlone, git: Git, commit: Commit, project: Path, linked: Path
) -> None:
    adopt(khlone, project, str(linked))
    commit(linked, {"notes.txt": "edited\n", "new.txt": "new\n"}, "all of it")

    ran = khlone("exec", "topic", "--", "sh", "-c", "echo $KHLONE_BRANCH", cwd=project)
    merged = khlone("merge", "topic", cwd=project)
    state = show(khlone, project, "topic")["state"]
    removed = document(khlone("remove", "topic", "--json", cwd=project), "remove")["removed"]
    gone = not linked.exists()
    restored = khlone("restore", "topic", cwd=project)

    assert (ran.out, merged.code, state) == ("topic\n", 0, "merged")
    assert [one["branch_deleted"] for one in removed] == [False]
    assert "topic" in branches(git, project)
    assert gone
    assert restored.out == f"{linked}\n"
    assert (linked / "run.log").read_text() == "ignored\n"
    assert khlone("doctor", cwd=project).code == 0


def test_name_target_and_agent_can_be_given(khlone: Khlone, git: Git, project: Path, linked: Path) -> None:
    git("branch", "other", cwd=project)

    clone = adopt(khlone, linked, ".", "--name", "mine", "--into", "other", "--agent", "generic")

    assert (clone["name"], clone["branch"], clone["target"], clone["agent"]) == ("mine", "topic", "other", "generic")


def test_the_folder_names_a_clone_whose_branch_cannot(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    git("worktree", "add", "-q", "-b", "odd#branch", str(tmp_path / "plain"), cwd=project)

    assert adopt(khlone, project, str(tmp_path / "plain"))["name"] == "plain"


def test_a_subfolder_of_the_worktree_means_the_worktree(khlone: Khlone, project: Path, linked: Path) -> None:
    assert adopt(khlone, linked / "src", ".")["path"] == str(linked)


def test_a_lock_of_the_users_own_stays(khlone: Khlone, git: Git, project: Path, linked: Path) -> None:
    git("worktree", "lock", "--reason", "on a stick", str(linked), cwd=project)

    assert adopt(khlone, project, str(linked))["locked"] == "on a stick"


def test_a_relative_link_is_understood(khlone: Khlone, git: Git, project: Path, linked: Path) -> None:
    admin = admin_of(git, linked)
    (linked / ".git").write_text(f"gitdir: {os.path.relpath(admin, linked)}\n")

    clone = adopt(khlone, project, str(linked))

    assert clone["state"] == "adopted"
    assert admin_of(git, linked) == admin


# -- what cannot be adopted ----------------------------------------------------------------


def main_worktree(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """The main worktree."""
    return project, "main-worktree"


def other_repository(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """A worktree of somebody else's."""
    other = make_repository(linked.with_name("other"))
    git("worktree", "add", "-q", "-b", "topic", "../theirs", cwd=other)
    return linked.with_name("theirs"), "other-repository"


def detached(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """A worktree on no branch."""
    git("switch", "-q", "--detach", cwd=linked)
    return linked, "detached-head"


def no_repository(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """A folder in no repository."""
    plain = linked.with_name("plain")
    plain.mkdir()
    return plain, "not-a-repository"


def nothing(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """No folder at all."""
    return linked.with_name("nothing"), "not-a-repository"


def unborn(git: Git, project: Path, linked: Path) -> tuple[Path, str]:
    """A worktree on a branch without a commit."""
    git("symbolic-ref", "HEAD", "refs/heads/unborn", cwd=linked)
    return linked, "unborn-head"


@pytest.mark.parametrize("what", [main_worktree, other_repository, detached, no_repository, nothing, unborn])
def test_what_cannot_be_a_clone_is_refused_and_left_as_it_is(
    khlone: Khlone, git: Git, project: Path, linked: Path, what: Callable[[Git, Path, Path], tuple[Path, str]]
) -> None:
    path, code = what(git, project, linked)
    before = footprint(git, project)

    refused(khlone("adopt", str(path), "--json", cwd=project), code)

    assert footprint(git, project) == before
    assert clone_names(khlone, project) == []


def test_a_clone_is_not_adopted_twice_and_names_and_agents_must_fit(
    khlone: Khlone, git: Git, project: Path, linked: Path
) -> None:
    path = new(khlone, project, "topic-of-mine")

    refused(khlone("adopt", str(path), "--json", cwd=project), "clone-exists")
    refused(khlone("adopt", str(linked), "--name", "topic-of-mine", "--json", cwd=project), "clone-exists")
    refused(khlone("adopt", str(linked), "--name", "a..b", "--json", cwd=project), "illegal-name", 2)
    refused(khlone("adopt", str(linked), "--agent", "nobody", "--json", cwd=project), "unknown-agent", 2)
    refused(khlone("adopt", str(linked), "--into", "nowhere", "--json", cwd=project), "no-such-ref")


def test_an_adoption_that_fails_leaves_no_trace(khlone: Khlone, git: Git, project: Path, linked: Path) -> None:
    before, admin = footprint(git, project), tree(admin_of(git, linked))

    done = khlone("adopt", str(linked), "--json", cwd=project, env={"KHLONE_FAULT": "adopt.admin:raise:ENOSPC"})

    refused(done, "no-space")
    assert footprint(git, project) == before
    assert tree(admin_of(git, linked)) == admin
    assert adopt(khlone, project, str(linked))["state"] == "adopted"


# -- a record that was lost -----------------------------------------------------------------


def test_a_clone_whose_record_was_lost_becomes_what_it_was(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a", "--agent", "generic")
    commit(path, {"work.txt": "work\n"}, "work")
    before = show(khlone, project, "a")
    Path(before["config_dir"], "settings").write_text("kept\n")
    (project / ".git/khlone/registry.sqlite3").unlink()
    # A registry that knows another clone alone: nothing is rebuilt by itself.
    admin = admin_of(git, path)
    marker = (admin / "khlone.json").read_bytes()
    (admin / "khlone.json").unlink()
    new(khlone, project, "b")
    (admin / "khlone.json").write_bytes(marker)
    assert clone_names(khlone, project) == ["b"]

    clone = adopt(khlone, project, str(path))

    assert clone == before
    assert Path(clone["config_dir"], "settings").read_text() == "kept\n"
    assert khlone("doctor", cwd=project).code == 0
    assert khlone("merge", "a", cwd=project).code == 0
    removed = document(khlone("remove", "a", "--json", cwd=project), "remove")["removed"]
    assert [one["branch_deleted"] for one in removed] == [True]
