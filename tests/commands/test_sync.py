"""What `sync` promises: a clone gets what its target has, whole or not at all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid, parents, worked
from tests.commands.steps import NOTES, document, edited, local_state, new, refs, refused, show
from tests.support import KHLONE, Commit, Git, Khlone, run_git, write


def sync(khlone: Khlone, where: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The document of a sync that ended with `code`."""
    return document(khlone("sync", *arguments, "--json", cwd=where), "sync", code)


def kept(found: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(name, code, paths) of each clone that was kept as it was."""
    return [(one["name"], one["code"], one["paths"]) for one in found["kept"]]


def ahead(khlone: Khlone, commit: Commit, project: Path) -> tuple[Path, str, str]:
    """A clone with a commit of its own, behind a target that has another: worktree, its tip, the target's."""
    path = worked(khlone, commit, project, "a", {"src/app.txt": edited(NOTES, 2, "mine")})
    theirs = commit(project, {"src/app.txt": edited(NOTES, 17, "theirs"), "fresh.txt": "fresh\n"}, "theirs")
    return path, oid_of(path), theirs


def oid_of(path: Path) -> str:
    """HEAD's commit, by git alone."""
    return run_git("rev-parse", "HEAD", cwd=path).strip()


# -- what is brought -----------------------------------------------------------------------


def test_a_clone_gets_its_target_by_a_merge_commit_and_its_files_follow(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path, mine, theirs = ahead(khlone, commit, project)
    write(path, {"untracked.txt": "untracked\n"})

    found = sync(khlone, project, "a")

    assert found["synced"] == [{"name": "a", "old": mine, "new": oid(git, project, "a")}]
    assert found["kept"] == []
    assert parents(git, project, "a") == [mine, theirs]
    assert git("log", "-1", "--format=%s", "a", cwd=project) == "Merge branch 'main' into a\n"
    assert (path / "fresh.txt").read_text() == "fresh\n"
    assert (path / "src/app.txt").read_text() == edited(edited(NOTES, 17, "theirs"), 2, "mine")
    assert git("status", "--porcelain", cwd=path) == "?? untracked.txt\n"
    assert oid(git, project, "main") == theirs


def test_a_rebase_puts_the_commits_on_top_and_keeps_the_old_tip(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path, mine, theirs = ahead(khlone, commit, project)

    found = sync(khlone, project, "a", "--rebase")

    assert parents(git, project, "a") == [theirs]
    assert git("log", "-1", "--format=%s %an", "a", cwd=project) == "work of a Test Author\n"
    assert git("status", "--porcelain", cwd=path) == ""
    assert (path / "fresh.txt").exists()
    assert git("for-each-ref", "--format=%(objectname)", "refs/khlone/undo", cwd=project).split() == [mine]
    assert git("rev-parse", "a@{1}", "HEAD@{1}", cwd=path).split() == [mine, mine]
    assert found["synced"][0]["old"] == mine


def test_a_clone_without_work_goes_forward_and_still_counts_as_untouched(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    theirs = commit(project, {"fresh.txt": "fresh\n"}, "theirs")

    sync(khlone, project, "a")

    clone = show(khlone, project, "a")
    assert (clone["head"], clone["base"], clone["merged"], clone["state"]) == (theirs, theirs, None, "ready")
    assert oid(git, project, f"refs/khlone/clones/{clone['id']}") == theirs
    assert (path / "fresh.txt").exists()
    pruned = document(khlone("prune", "--json", cwd=project), "prune")
    assert [one["code"] for one in pruned["kept"]] == ["untouched"]


@pytest.mark.parametrize("way", ["merge", "rebase"])
def test_a_clone_that_has_it_all_stays_even_when_it_is_dirty(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    write(path, {"notes.txt": "dirty\n"})
    before = refs(git, project)

    found = sync(khlone, path, f"--{way}")

    assert found["synced"][0]["old"] == found["synced"][0]["new"] == oid(git, project, "a")
    assert refs(git, project) == before


def test_the_setting_says_how_and_a_flag_beats_it(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    _, _, theirs = ahead(khlone, commit, project)
    other = worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    commit(project, {"more.txt": "more\n"}, "more")
    git("config", "khlone.sync", "rebase", cwd=project)

    sync(khlone, project, "a")
    sync(khlone, other, "--merge")

    assert parents(git, project, "a") == [oid(git, project, "main")]
    assert len(parents(git, project, "b")) == 2
    assert theirs in git("rev-list", "a", cwd=project)
    git("config", "khlone.sync", "both", cwd=project)
    refused(khlone("sync", "a", "--json", cwd=project), "invalid-setting", 2)


def test_a_branch_that_was_squashed_onto_its_target_is_marked_merged(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"one.txt": "one\n"})
    commit(path, {"two.txt": "two\n"}, "second")
    git("merge", "-q", "--squash", "a", cwd=project)
    git("commit", "-q", "-m", "squashed by hand", cwd=project)
    commit(project, {"more.txt": "more\n"}, "more")
    assert show(khlone, project, "a")["state"] == "ready"

    sync(khlone, project, "a")

    clone = show(khlone, project, "a")
    assert (clone["state"], clone["merged"]) == ("merged", True)
    assert (path / "more.txt").exists()
    assert document(khlone("remove", "a", "--json", cwd=project), "remove")["removed"][0]["branch_deleted"]


def test_a_branch_that_goes_on_after_a_squash_takes_the_target_without_a_conflict(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "first")})
    assert khlone("merge", "a", "--squash", cwd=project).code == 0
    commit(path, {"notes.txt": edited(NOTES, 3, "second")}, "goes on")

    sync(khlone, project, "a", "--rebase")

    assert parents(git, project, "a") == [oid(git, project, "main")]
    assert (path / "notes.txt").read_text() == edited(NOTES, 3, "second")


# -- what stands in the way ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["--merge", "--rebase"])
def test_a_conflict_names_its_paths_and_leaves_the_clone_untouched(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "mine"), "more.txt": "more\n"})
    commit(project, {"notes.txt": edited(NOTES, 3, "theirs")}, "theirs")
    write(path, {"untracked.txt": "untracked\n"})
    before = refs(git, project), local_state(git, path)

    found = sync(khlone, project, "a", way, code=4)

    assert kept(found) == [("a", "conflict", ["notes.txt"])]
    assert found["synced"] == []
    assert (refs(git, project), local_state(git, path)) == before


def staged(git: Git, path: Path) -> str:
    """A staged file, far from what changes."""
    write(path, {"notes.txt": "staged\n"})
    git("add", "notes.txt", cwd=path)
    return "notes.txt"


def unstaged(git: Git, path: Path) -> str:
    """An edit, far from what changes."""
    write(path, {"notes.txt": "edited\n"})
    return "notes.txt"


def untracked_in_the_way(git: Git, path: Path) -> str:
    """A file of the user's where a new one would be."""
    write(path, {"fresh.txt": "the user's own\n"})
    return "fresh.txt"


def ignored_in_the_way(git: Git, path: Path) -> str:
    """An ignored file where a new one would be."""
    (Path(git("rev-parse", "--git-common-dir", cwd=path).strip()) / "info").mkdir(exist_ok=True)
    (Path(git("rev-parse", "--git-common-dir", cwd=path).strip()) / "info/exclude").write_text("fresh.txt\n")
    return untracked_in_the_way(git, path)


@pytest.mark.parametrize("way", ["--merge", "--rebase"])
@pytest.mark.parametrize("dirty", [staged, unstaged, untracked_in_the_way, ignored_in_the_way])
def test_a_dirty_clone_is_kept_to_the_byte(
    khlone: Khlone, git: Git, commit: Commit, project: Path, dirty: Callable[[Git, Path], str], way: str
) -> None:
    path, _, _ = ahead(khlone, commit, project)
    name = dirty(git, path)
    before = refs(git, project), local_state(git, path)

    found = sync(khlone, project, "a", way, code=1)

    assert kept(found) == [("a", "clone-dirty", [name])]
    assert (refs(git, project), local_state(git, path)) == before


def test_a_clone_off_its_branch_or_within_a_rebase_is_kept(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path, _, _ = ahead(khlone, commit, project)
    git("switch", "-q", "--detach", cwd=path)

    off = sync(khlone, project, "a", code=1)
    git("switch", "-q", "a", cwd=path)
    git("rebase", "-q", "--exec", "false", "main", cwd=path, check=False)
    within = sync(khlone, project, "a", code=1)

    assert [one["code"] for one in off["kept"]] == ["clone-not-ready"]
    assert [one["code"] for one in within["kept"]] == ["clone-dirty"]


def test_a_clone_in_use_is_kept_unless_forced(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    ahead(khlone, commit, project)
    with subprocess.Popen(
        [KHLONE, "exec", "a", "--", "sh", "-c", "echo started; read _"],
        cwd=project,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        found = sync(khlone, project, "a", code=1)
        forced = sync(khlone, project, "a", "--force")
        running = child.poll() is None
        child.communicate(b"\n")

    assert [one["code"] for one in found["kept"]] == ["session-live"]
    assert [one["name"] for one in forced["synced"]] == ["a"]
    assert running
    assert child.returncode == 0


def test_all_goes_on_past_refusals_and_the_first_one_gives_the_exit_code(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    clash = worked(khlone, commit, project, "b-clash", {"fresh.txt": "mine\n"})
    path, _, theirs = ahead(khlone, commit, project)
    idle = new(khlone, project, "c-dirty", "--from", "main~1")
    write(idle, {"notes.txt": "edited\n"})

    found = sync(khlone, project, "--all", code=4)

    assert [one["name"] for one in found["synced"]] == ["a"]
    assert [one[:2] for one in kept(found)] == [("b-clash", "conflict"), ("c-dirty", "clone-dirty")]
    assert theirs in git("rev-list", "HEAD", cwd=path)
    assert (clash / "fresh.txt").read_text() == "mine\n"


def test_a_clone_without_a_target_and_names_that_cannot_be_meant_are_refused(
    khlone: Khlone, git: Git, project: Path
) -> None:
    git("checkout", "-q", "--detach", cwd=project)
    new(khlone, project, "free")

    assert kept(sync(khlone, project, "free", code=1)) == [("free", "no-target", [])]
    refused(khlone("sync", "--json", cwd=project), "usage", 2)
    refused(khlone("sync", "free", "--all", "--json", cwd=project), "usage", 2)
    refused(khlone("sync", "free", "--merge", "--rebase", "--json", cwd=project), "usage", 2)
    refused(khlone("sync", "free", "nobody", "--json", cwd=project), "no-such-clone")


def test_a_dry_run_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path, mine, _ = ahead(khlone, commit, project)
    before = refs(git, project), local_state(git, path)

    found = sync(khlone, project, "a", "--dry-run")

    assert found["synced"][0]["old"] == mine != found["synced"][0]["new"]
    assert (refs(git, project), local_state(git, path)) == before


# -- the upstream --------------------------------------------------------------------------


@pytest.fixture
def fetches(git: Git, project: Path, tmp_path: Path) -> Path:
    """Make `project` the clone of a remote; returns the file that gets a line for each fetch."""
    remote, log = tmp_path / "remote.git", tmp_path / "fetches"
    git("clone", "-q", "--bare", str(project), str(remote), cwd=tmp_path)
    counter = tmp_path / "counter.sh"
    counter.write_text(f'#!/bin/sh\necho fetch >>"{log}"\nexec git-upload-pack "$@"\n')
    counter.chmod(0o755)
    git("remote", "add", "origin", str(remote), cwd=project)
    git("fetch", "-q", "origin", cwd=project)
    git("config", "remote.origin.uploadpack", str(counter), cwd=project)
    git("branch", "-q", "--set-upstream-to=origin/main", "main", cwd=project)
    return log


def push(git: Git, commit: Commit, tmp_path: Path, name: str) -> str:
    """Somebody else commits to the remote's main; returns the oid."""
    place = tmp_path / f"elsewhere-{name}"
    git("clone", "-q", str(tmp_path / "remote.git"), str(place), cwd=tmp_path)
    made = commit(place, {f"{name}.txt": name}, name)
    git("push", "-q", "origin", "main", cwd=place)
    return made


def test_fetch_brings_the_upstream_to_all_clones_by_one_fetch(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, fetches: Path
) -> None:
    paths = [worked(khlone, commit, project, name, {f"{name}.txt": name}) for name in ("a", "b")]
    local = oid(git, project, "main")
    theirs = push(git, commit, tmp_path, "theirs")
    plain = sync(khlone, project, "--all")

    sync(khlone, project, "--all", "--fetch")

    assert all(one["old"] == one["new"] for one in plain["synced"])
    assert [parents(git, path, "HEAD")[1] for path in paths] == [theirs, theirs]
    assert git("log", "-1", "--format=%s", "a", cwd=project) == "Merge remote-tracking branch 'origin/main' into a\n"
    assert oid(git, project, "main") == local
    assert fetches.read_text() == "fetch\n"


def test_an_upstream_that_has_diverged_is_told_and_not_taken(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, fetches: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    push(git, commit, tmp_path, "theirs")
    local = commit(project, {"local.txt": "local\n"}, "local")

    done = khlone("sync", "a", "--fetch", cwd=project)

    assert done.code == 0
    assert "have diverged" in done.err
    assert parents(git, path, "HEAD")[1] == local
    assert not (path / "theirs.txt").exists()
    assert fetches.exists()


def test_a_fetch_that_fails_changes_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, fetches: Path
) -> None:
    ahead(khlone, commit, project)
    before = refs(git, project)
    (tmp_path / "remote.git").rename(tmp_path / "gone.git")

    refused(khlone("sync", "a", "--fetch", "--json", cwd=project), "remote-failed")

    assert refs(git, project) == before
    assert fetches.exists()


def test_a_branch_that_was_squashed_upstream_alone_is_marked_merged(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, fetches: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"one.txt": "one\n"})
    commit(path, {"two.txt": "two\n"}, "second")
    place = tmp_path / "forge"
    git("clone", "-q", str(tmp_path / "remote.git"), str(place), cwd=tmp_path)
    commit(place, {"one.txt": "one\n", "two.txt": "two\n"}, "squashed by a forge")
    git("push", "-q", "origin", "main", cwd=place)

    sync(khlone, project, "a", "--fetch")

    clone = show(khlone, project, "a")
    assert clone["state"] == "merged"
    assert fetches.exists()
