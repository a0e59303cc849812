"""What `undo` promises: what was done is taken back while nothing has moved on, and nothing is lost by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid, release_main, worked
from tests.commands.steps import (
    NOTES,
    branches,
    clone_names,
    document,
    edited,
    local_state,
    new,
    refs,
    refused,
    show,
    trash,
    tree,
)
from tests.support import Commit, Git, Khlone, write


def undo(khlone: Khlone, where: Path, *arguments: str) -> dict[str, Any]:
    """The document of an undo that was done."""
    return document(khlone("undo", *arguments, "--json", cwd=where), "undo")


def log(khlone: Khlone, where: Path) -> list[dict[str, Any]]:
    """The operations of the journal, newest first."""
    return list(document(khlone("log", "--json", cwd=where), "log")["operations"])


def newest(khlone: Khlone, where: Path, kind: str) -> dict[str, Any]:
    """The newest operation of a kind."""
    return next(one for one in log(khlone, where) if one["kind"] == kind)


def do(khlone: Khlone, where: Path, *words: str) -> None:
    """Call a verb that must succeed."""
    done = khlone(*words, cwd=where)
    assert done.code == 0, done


def test_where_nothing_was_done_nothing_can_be_undone(khlone: Khlone, project: Path) -> None:
    assert "khlone: nothing can be undone: no operation here" in khlone("undo", cwd=project).err


# -- each kind ---------------------------------------------------------------------------


def test_a_create_is_undone_by_a_remove_that_can_be_undone_in_turn(khlone: Khlone, git: Git, project: Path) -> None:
    before = branches(git, project)
    path = new(khlone, project, "a")
    created = newest(khlone, project, "create")

    found = undo(khlone, project)

    assert found["undone"] == {"id": created["id"], "kind": "create", "clone": "a"}
    assert (found["branch"], found["old"], found["new"], found["kept"]) == (None, None, None, None)
    assert clone_names(khlone, project) == []
    assert branches(git, project) == before
    assert [one["trash"] for one in trash(khlone, project)] == [found["by"]]
    undo(khlone, project, found["by"])
    assert show(khlone, project, "a")["path"] == str(path)
    assert newest(khlone, project, "create")["undoable"]


def test_what_one_command_did_to_several_clones_is_undone_as_one(khlone: Khlone, git: Git, project: Path) -> None:
    before = branches(git, project)
    new(khlone, project, "bystander")
    do(khlone, project, "new", "t", "-n", "3")
    made = branches(git, project)
    creates = [one["id"] for one in log(khlone, project) if one["clone"].startswith("t-")]

    first = undo(khlone, project)

    assert [first["undone"]["id"], *(one["undone"]["id"] for one in first["together"])] == creates
    assert (first["undone"]["clone"], [one["undone"]["clone"] for one in first["together"]]) == ("t-3", ["t-2", "t-1"])
    assert first["held"] == []
    assert clone_names(khlone, project) == ["bystander"]
    assert set(branches(git, project)) - set(before) == {"bystander"}
    back = undo(khlone, project, first["by"], *(one["by"] for one in first["together"]))
    assert (len(back["together"]), branches(git, project)) == (2, made)
    do(khlone, project, "remove", "t-1", "t-3")
    again = undo(khlone, project)
    assert {again["undone"]["clone"], *(one["undone"]["clone"] for one in again["together"])} == {"t-1", "t-3"}
    one = next(one["id"] for one in log(khlone, project) if (one["kind"], one["clone"]) == ("create", "t-2"))
    assert undo(khlone, project, one)["together"] == []
    assert clone_names(khlone, project) == ["bystander", "t-1", "t-3"]


def test_of_several_clones_that_were_made_at_once_undo_keeps_those_with_work_and_tells_them(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    do(khlone, project, "new", "t", "-n", "4")
    committed(commit, Path(show(khlone, project, "t-4")["path"]))
    uncommitted(commit, Path(show(khlone, project, "t-2")["path"]))

    dry = khlone("undo", "--dry-run", cwd=project)
    done = khlone("undo", cwd=project)

    assert (dry.code, done.code) == (1, 1)
    assert dry.out == done.out.replace("is taken", "would be taken")
    assert done.out == "the create of t-3 is taken back\nthe create of t-1 is taken back\n"
    assert "kept: the create of t-4 cannot be undone: t-4 has commits of its own" in done.err
    assert "kept: t-2 has " in done.err
    assert clone_names(khlone, project) == ["t-2", "t-4"]
    refused(khlone("undo", "--json", cwd=project), "not-undoable")
    assert clone_names(khlone, project) == ["t-2", "t-4"]


def test_an_adopt_is_not_undone_and_the_ways_there_are_are_named(khlone: Khlone, git: Git, project: Path) -> None:
    path = project.parent / "mine"
    git("worktree", "add", "-q", "-b", "mine", str(path), cwd=project)
    do(khlone, project, "adopt", str(path))

    error = refused(khlone("undo", "--json", cwd=project), "not-undoable")

    assert "git khlone remove mine" in error["hint"]
    assert "git khlone uninstall" in error["hint"]


def uncommitted(commit: Commit, path: Path) -> str:
    """Work that no commit holds."""
    write(path, {"thoughts.txt": "precious\n"})
    return "has-changes"


def committed(commit: Commit, path: Path) -> str:
    """Work that only the clone's branch holds."""
    commit(path, {"work.txt": "work\n"}, "work")
    return "not-undoable"


@pytest.mark.parametrize("work", [uncommitted, committed])
def test_a_create_is_not_undone_when_the_clone_has_work(
    khlone: Khlone, git: Git, commit: Commit, project: Path, work: Callable[[Commit, Path], str]
) -> None:
    path = new(khlone, project, "a")
    operation = newest(khlone, project, "create")["id"]
    code = work(commit, path)
    before = refs(git, project), tree(path)

    refused(khlone("undo", operation, "--json", cwd=project), code)

    assert (refs(git, project), tree(path)) == before
    assert clone_names(khlone, project) == ["a"]


def test_a_remove_is_undone_byte_for_byte(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"work.txt": "work\n"})
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n", "run.log": "ignored\n"})
    before = local_state(git, path)
    do(khlone, project, "remove", "--force", "a")

    found = undo(khlone, project)

    assert found["undone"]["kind"] == "remove"
    assert local_state(git, path) == before
    assert trash(khlone, project) == []


def test_a_restore_is_undone_only_while_the_files_are_what_came_back(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"work.txt": "work\n"})
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n"})
    do(khlone, project, "remove", "--force", "a")
    do(khlone, project, "restore", "a")
    operation = newest(khlone, project, "restore")
    write(path, {"new.txt": "newer\n"})

    error = refused(khlone("undo", operation["id"], "--json", cwd=project), "not-undoable")

    assert operation["undoable"]
    assert "changed" in error["message"]
    assert (path / "new.txt").read_text() == "newer\n"
    write(path, {"new.txt": "new\n"})
    assert undo(khlone, project, operation["id"])["undone"]["kind"] == "restore"
    assert not path.exists()
    do(khlone, project, "restore", "a")
    assert (path / "new.txt").read_text() == "new\n"


def test_a_removal_is_undone_though_the_clone_came_back_and_went_again_by_undo(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"work.txt": "work\n"})
    do(khlone, project, "remove", "--force", "a")
    removal = newest(khlone, project, "remove")
    do(khlone, project, "restore", "a")
    restore = newest(khlone, project, "restore")

    while_there = refused(khlone("undo", removal["id"], "--json", cwd=project), "not-undoable")
    first, second = undo(khlone, project), undo(khlone, project)

    assert f"the restore of a ({restore['id']}) came after it" in while_there["message"]
    assert [first["undone"]["id"], second["undone"]["id"]] == [restore["id"], removal["id"]]
    assert (path / "work.txt").read_text() == "work\n"
    assert trash(khlone, project) == []
    # In between it was what `log` called undoable, by its own id and not by that of its trash entry.
    gone = newest(khlone, project, "remove")
    assert (gone["id"], gone["undoable"]) == (first["by"], False)


def test_a_removal_whose_trash_was_purged_is_not_undone_and_says_why(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    do(khlone, project, "remove", "a")
    removal = newest(khlone, project, "remove")
    do(khlone, project, "prune", "--trash", "--age", "0s")

    error = refused(khlone("undo", removal["id"], "--json", cwd=project), "not-undoable")

    assert "the purge of a" in error["message"]


def test_a_rename_is_undone(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    before = branches(git, project)
    do(khlone, project, "rename", "a", "b")

    found = undo(khlone, project)

    assert found["undone"]["kind"] == "rename"
    clone = show(khlone, project, "a")
    assert (clone["branch"], clone["path"], clone["state"]) == ("a", str(path), "ready")
    assert branches(git, project) == before


@pytest.mark.parametrize("strategy", ["--merge", "--squash", "--rebase", "--ff-only"])
@pytest.mark.parametrize("checked_out", [True, False], ids=["checked-out", "elsewhere"])
def test_a_merge_is_undone_and_the_clone_can_land_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str, checked_out: bool
) -> None:
    path = worked(khlone, commit, project, "a", {"new.txt": "new\n", "src/app.txt": edited(NOTES, 3, "mine")})
    if not checked_out:
        release_main(git, project)
    write(project, {"notes.txt": "staged\n", "scratch.txt": "untracked\n", "README.md": "edited\n"})
    git("add", "notes.txt", cwd=project)
    before, old = local_state(git, project), oid(git, project, "main")
    do(khlone, project, "merge", "a", strategy)
    landed = oid(git, project, "main")

    found = undo(khlone, project)

    assert (found["branch"], found["old"], found["new"]) == ("main", landed, old)
    assert oid(git, project, "main") == old
    assert oid(git, project, found["kept"]) == landed
    assert local_state(git, project) == before
    assert (show(khlone, project, "a")["state"], show(khlone, project, "a")["merged"]) == ("ready", False)
    assert git("status", "--porcelain", cwd=path) == ""
    do(khlone, project, "merge", "a", strategy)
    assert git("show", "main:new.txt", cwd=project) == "new\n"


@pytest.mark.parametrize("gate", [False, True], ids=["direct", "queue"])
@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_a_merge_of_an_adopted_clone_is_undone_and_it_is_adopted_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, gate: bool, killed: bool
) -> None:
    path = tmp_path / "mine"
    git("worktree", "add", "-q", "-b", "mine", str(path), cwd=project)
    commit(path, {"new.txt": "new\n"}, "mine")
    do(khlone, project, "adopt", str(path), "--into", "main")
    if gate:
        git("config", "khlone.gate.test", "true", cwd=project)
    do(khlone, project, "merge", "mine")
    assert show(khlone, project, "mine")["state"] == "merged"
    if killed:
        assert khlone("undo", cwd=project, env={"KHLONE_FAULT": "undo.moved"}).code == -9
        do(khlone, project, "doctor", "--fix")
    else:
        undo(khlone, project)

    assert show(khlone, project, "mine")["state"] == "adopted"
    do(khlone, project, "merge", "mine")
    assert git("show", "main:new.txt", cwd=project) == "new\n"


def test_a_merge_of_an_adopted_clone_that_was_killed_and_overtaken_leaves_it_adopted(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    git("worktree", "add", "-q", "-b", "mine", str(path), cwd=project)
    commit(path, {"new.txt": "new\n"}, "mine")
    do(khlone, project, "adopt", str(path), "--into", "main")
    assert khlone("merge", "mine", cwd=project, env={"KHLONE_FAULT": "merge.publishing"}).code == -9
    commit(project, {"theirs.txt": "theirs\n"}, "theirs")

    do(khlone, project, "doctor", "--fix")

    assert show(khlone, project, "mine")["state"] == "adopted"


@pytest.mark.parametrize("way", ["--merge", "--rebase"])
def test_a_sync_is_undone_and_the_clone_is_what_it_was(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    idle = new(khlone, project, "b")
    commit(project, {"fresh.txt": "fresh\n", "notes.txt": "theirs\n"}, "theirs")
    write(path, {"scratch.txt": "untracked\n"})
    before = [(local_state(git, one), show(khlone, project, one.name)) for one in (path, idle)]
    do(khlone, project, "sync", "a", way)
    do(khlone, project, "sync", "b", way)

    undo(khlone, project)
    undo(khlone, project)

    assert [(local_state(git, one), show(khlone, project, one.name)) for one in (path, idle)] == before


# -- which one ---------------------------------------------------------------------------


def test_each_undo_goes_further_into_the_past(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    old = oid(git, project, "main")
    path = worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    do(khlone, project, "merge", "a")
    do(khlone, project, "rename", "a", "b")
    do(khlone, project, "remove", "b")

    kinds = [undo(khlone, project)["undone"]["kind"] for _ in range(3)]

    assert kinds == ["remove", "rename", "merge"]
    assert oid(git, project, "main") == old
    assert show(khlone, project, "a")["path"] == str(path)
    error = refused(khlone("undo", "--json", cwd=project), "not-undoable")
    assert error["facts"] == {"operation": newest(khlone, project, "create")["id"]}


def test_one_that_cannot_be_taken_back_is_not_skipped_for_an_older_one(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    new(khlone, project, "bystander")
    create = newest(khlone, project, "create")["id"]
    path = worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    do(khlone, project, "merge", "a", "--squash")
    merge = newest(khlone, project, "merge")["id"]
    commit(project, {"later.txt": "later\n"}, "the target moves on")
    do(khlone, project, "remove", "a", "--force")
    undo(khlone, project)

    error = refused(khlone("undo", "--json", cwd=project), "not-undoable")

    assert (error["facts"], "moved on" in error["message"]) == ({"operation": merge}, True)
    assert error["hint"].startswith("git revert ")
    assert clone_names(khlone, project) == ["a", "bystander"]
    assert path.is_dir()
    assert undo(khlone, project, create)["undone"]["kind"] == "create"


def test_log_calls_undoable_what_undo_takes_back_and_nothing_else(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    new(khlone, project, "c")
    for words in (("merge", "a"), ("merge", "b"), ("sync", "c"), ("rename", "c", "d"), ("remove", "a"), ("undo",)):
        do(khlone, project, *words)

    answers = {
        one["id"]: (one["undoable"], khlone("undo", one["id"], "--dry-run", "--json", cwd=project))
        for one in log(khlone, project)
    }

    assert {undoable for undoable, _ in answers.values()} == {True, False}
    for undoable, done in answers.values():
        if undoable:
            assert document(done, "undo")["by"] is None
        else:
            refused(done, "not-undoable")


def test_a_dry_run_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    do(khlone, project, "merge", "a")
    before = refs(git, project), local_state(git, project)

    found = undo(khlone, project, "--dry-run")

    assert (found["undone"]["kind"], found["by"], found["kept"]) == ("merge", None, None)
    assert (refs(git, project), local_state(git, project)) == before


# -- what stands in the way ----------------------------------------------------------------


def test_a_merge_whose_target_moved_on_is_refused_and_a_revert_proposed(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    do(khlone, project, "merge", "a")
    landed = oid(git, project, "main")
    operation = newest(khlone, project, "merge")["id"]
    commit(project, {"more.txt": "more\n"}, "more")
    before = refs(git, project)

    error = refused(khlone("undo", operation, "--json", cwd=project), "not-undoable")

    assert error["hint"] == f"git revert -m 1 {landed}"
    assert "moved on" in error["message"]
    assert not newest(khlone, project, "merge")["undoable"]
    assert refs(git, project) == before
    git("revert", "--no-edit", *error["hint"].split()[2:], cwd=project)
    assert not (project / "new.txt").exists()


def test_a_merge_that_was_pushed_is_taken_back_here_and_that_is_said(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    git("init", "-q", "--bare", str(tmp_path / "remote.git"), cwd=tmp_path)
    git("remote", "add", "origin", str(tmp_path / "remote.git"), cwd=project)
    worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    old = oid(git, project, "main")
    do(khlone, project, "merge", "a")
    git("push", "-q", "-u", "origin", "main", cwd=project)

    done = khlone("undo", cwd=project)

    assert done.code == 0
    assert "warning: origin/main has it already" in done.err
    assert oid(git, project, "main") == old != oid(git, project, "origin/main")


def test_local_work_where_files_would_change_keeps_the_merge(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"new.txt": "new\n"})
    do(khlone, project, "merge", "a")
    write(project, {"new.txt": "the user's own\n"})
    before = refs(git, project), local_state(git, project)

    error = refused(khlone("undo", "--json", cwd=project), "target-dirty")

    assert error["facts"]["paths"] == ["new.txt"]
    assert "undo again" in error["hint"]
    assert (refs(git, project), local_state(git, project)) == before


def test_a_sync_is_kept_when_the_clone_moved_on_is_dirty_or_in_use(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"mine.txt": "mine\n"})
    commit(project, {"fresh.txt": "fresh\n"}, "theirs")
    do(khlone, project, "sync", "a")
    operation = newest(khlone, project, "sync")["id"]

    with subprocess.Popen(["cat"], cwd=path, stdin=subprocess.PIPE) as child:
        refused(khlone("undo", operation, "--json", cwd=project), "session-live")
        child.communicate()
    write(path, {"mine.txt": "edited\n"})
    refused(khlone("undo", operation, "--json", cwd=project), "clone-dirty")
    commit(path, {"mine.txt": "edited\n"}, "goes on")
    error = refused(khlone("undo", operation, "--json", cwd=project), "not-undoable")

    assert "moved on" in error["message"]
    assert (path / "mine.txt").read_text() == "edited\n"


def test_what_came_later_in_the_clone_has_to_be_undone_first(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    create = newest(khlone, project, "create")["id"]
    do(khlone, project, "rename", "a", "b")
    rename = newest(khlone, project, "rename")["id"]

    error = refused(khlone("undo", create, "--json", cwd=project), "not-undoable")

    assert rename in error["message"]
    assert clone_names(khlone, project) == ["b"]


def test_an_operation_that_never_was_and_a_repository_without_any(khlone: Khlone, project: Path) -> None:
    refused(khlone("undo", "--json", cwd=project), "not-undoable")
    refused(khlone("undo", "0123456789abcdef", "--json", cwd=project), "no-such-operation")


def test_an_operation_is_undone_once(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    operation = newest(khlone, project, "create")["id"]
    by = undo(khlone, project, operation)["by"]

    error = refused(khlone("undo", operation, "--json", cwd=project), "not-undoable")

    assert by in error["message"]
