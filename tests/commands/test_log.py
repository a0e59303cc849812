"""`log`: everything that was done, newest first, and honest about what of it can still be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import merge, plugin, release_main, worked
from tests.commands.steps import document, new, refused, trash
from tests.support import Commit, Done, Git, Khlone, write

KILLED = -9


def log(khlone: Khlone, where: Path, *words: str) -> list[dict[str, Any]]:
    """The operations that the document names."""
    return list(document(khlone("log", *words, "--json", cwd=where), "log")["operations"])


def brief(khlone: Khlone, where: Path, *words: str) -> list[tuple[str, str, str | None, bool]]:
    """(kind, clone, outcome, undoable) of each."""
    return [(one["kind"], one["clone"], one["outcome"], one["undoable"]) for one in log(khlone, where, *words)]


def done(found: Done) -> None:
    """Fail where a command did."""
    assert found.code == 0, found


def test_where_nothing_was_done_there_is_nothing_to_show(khlone: Khlone, project: Path) -> None:
    assert log(khlone, project) == []
    assert "nothing was done here yet" in khlone("log", cwd=project).err
    assert not (project / ".git" / "khlone").exists()


def test_an_entry_says_what_to_which_clone_when_and_how(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")

    (entry,) = log(khlone, project)

    assert sorted(entry) == ["clone", "ended_at", "id", "kind", "outcome", "started_at", "undoable"]
    assert (entry["kind"], entry["clone"], entry["outcome"]) == ("create", "a", "done")
    assert entry["started_at"] <= entry["ended_at"]
    assert entry["started_at"].endswith("Z")


def test_every_kind_is_there_newest_first(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "work\n"})
    commit(project, {"theirs.txt": "theirs\n"}, "theirs")
    for words in (("sync", "a"), ("rename", "a", "b"), ("merge", "b"), ("undo",), ("merge", "b"), ("remove", "b")):
        done(khlone(*words, cwd=project))
    done(khlone("restore", "b", cwd=project))
    done(khlone("remove", "b", cwd=project))
    done(khlone("prune", "--trash", "--age", "0", cwd=project))
    git("worktree", "add", "-q", str(project.with_name("theirs")), "-b", "theirs", cwd=project)
    done(khlone("adopt", str(project.with_name("theirs")), cwd=project))

    found = log(khlone, project)

    assert [(one["kind"], one["outcome"]) for one in found] == [
        ("adopt", "done"),
        ("purge", "done"),
        ("remove", "done"),
        ("restore", "done"),
        ("remove", "done"),
        ("merge", "done"),
        ("undo", "done"),
        ("merge", "done"),
        ("rename", "done"),
        ("sync", "done"),
        ("create", "done"),
    ]
    assert [one["id"] for one in found] == sorted((one["id"] for one in found), reverse=True)
    assert [one["started_at"] for one in found] == sorted((one["started_at"] for one in found), reverse=True)


# -- outcomes ------------------------------------------------------------------------------


def test_what_is_under_way_is_open_and_what_is_finished_later_says_so(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    write(project.with_name("project.clones") / "a", {"new.txt": "new\n"})
    assert khlone("remove", "--force", "a", cwd=project, env={"KHLONE_FAULT": "remove.admin-moved"}).code == KILLED

    opened = log(khlone, project)[0]
    text = khlone("log", cwd=project).out
    done(khlone("doctor", "--fix", cwd=project))
    ended = log(khlone, project)[0]

    assert (opened["kind"], opened["ended_at"], opened["outcome"], opened["undoable"]) == ("remove", None, None, False)
    assert text.splitlines()[1].split()[2:] == ["remove", "a", "open", "no"]
    assert (ended["id"], ended["outcome"], ended["undoable"]) == (opened["id"], "recovered", True)
    assert ended["ended_at"] is not None


def test_what_was_taken_back_by_recovery_or_at_once_says_so(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    source = """
from khlone import Refusal, hookimpl

@hookimpl
def khlone_prepare(clone):
    raise Refusal("not this one")
"""
    assert khlone("new", "killed", cwd=project, env={"KHLONE_FAULT": "create.refs"}).code == KILLED
    done(khlone("doctor", "--fix", cwd=project))

    assert khlone("new", "vetoed", cwd=project, env=plugin(tmp_path / "site", source)).code == 1

    assert brief(khlone, project) == [
        ("create", "vetoed", "rolled-back", False),
        ("create", "killed", "rolled-back", False),
    ]


def test_a_purge_that_failed_is_stuck(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"new.txt": "new\n"})
    done(khlone("remove", "--force", "a", cwd=project))

    done(khlone("prune", "--trash", "--age", "0", cwd=project, env={"KHLONE_FAULT": "purge.admin:raise:EIO"}))

    assert brief(khlone, project, "-n", "1") == [("purge", "a", "stuck", False)]


# -- what can be taken back ----------------------------------------------------------------


def test_a_create_can_be_taken_back_while_the_clone_is_there_as_it_was_made(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    new(khlone, project, "gone")
    done(khlone("remove", "gone", cwd=project))

    assert [entry for entry in brief(khlone, project) if entry[0] == "create"] == [
        ("create", "gone", "done", False),
        ("create", "a", "done", True),
    ]
    commit(path, {"a.txt": "work\n"}, "work")
    assert brief(khlone, project, "a") == [("create", "a", "done", False)]


def test_a_merge_can_be_taken_back_while_its_target_is_where_it_left_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    release_main(git, project)
    for name in ("a", "b"):
        worked(khlone, commit, project, name, {f"{name}.txt": "work\n"})

    merge(khlone, project, "a")
    assert brief(khlone, project, "-n", "1") == [("merge", "a", "done", True)]
    first = git("rev-parse", "main", cwd=project).strip()
    merge(khlone, project, "b")
    assert brief(khlone, project, "-n", "2") == [("merge", "b", "done", True), ("merge", "a", "done", False)]
    git("update-ref", "refs/heads/main", first, cwd=project)

    assert brief(khlone, project, "-n", "2") == [("merge", "b", "done", False), ("merge", "a", "done", True)]
    git("update-ref", "-d", "refs/heads/main", cwd=project)
    assert [one[3] for one in brief(khlone, project, "-n", "2")] == [False, False]


def test_a_remove_can_be_taken_back_while_it_is_in_the_trash(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"new.txt": "new\n"})
    done(khlone("remove", "--force", "a", cwd=project))
    (entry,) = trash(khlone, project)

    assert brief(khlone, project, "-n", "1") == [("remove", "a", "done", True)]
    assert log(khlone, project, "-n", "1")[0]["id"] == entry["trash"]
    done(khlone("prune", "--trash", "--age", "0", cwd=project))
    assert brief(khlone, project, "-n", "2")[1] == ("remove", "a", "done", True), "its snapshot is still there"
    done(khlone("restore", "a", cwd=project))

    assert ("remove", "a", "done", False) in brief(khlone, project)
    assert brief(khlone, project, "-n", "1") == [("restore", "a", "done", True)]


def test_a_remove_whose_trash_is_gone_cannot_be_taken_back(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    done(khlone("remove", "a", cwd=project))

    done(khlone("prune", "--trash", "--age", "0", cwd=project))

    assert trash(khlone, project) == []
    assert brief(khlone, project) == [
        ("purge", "a", "done", False),
        ("remove", "a", "done", False),
        ("create", "a", "done", False),
    ]


@pytest.mark.parametrize("undoable", [True, False])
def test_undo_agrees_with_the_log(khlone: Khlone, commit: Commit, project: Path, undoable: bool) -> None:
    path = new(khlone, project, "a")
    if not undoable:
        commit(path, {"a.txt": "work\n"}, "work")
    (entry,) = log(khlone, project)

    found = khlone("undo", entry["id"], "--json", cwd=project)

    assert entry["undoable"] is undoable
    assert found.code == (0 if undoable else 1), found


# -- which ---------------------------------------------------------------------------------


@pytest.fixture
def history(khlone: Khlone, project: Path) -> Path:
    """`a` is there, `b` was removed; returns the worktree of `a`."""
    path = new(khlone, project, "a")
    new(khlone, project, "b")
    done(khlone("remove", "b", cwd=project))
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), ["remove b", "create b", "create a"]),
        (("a",), ["create a"]),
        (("b",), ["remove b", "create b"]),
        (("-n", "1"), ["remove b"]),
        (("-n", "2"), ["remove b", "create b"]),
        (("-n", "99"), ["remove b", "create b", "create a"]),
        (("b", "-n", "1"), ["remove b"]),
        (("a", "-n", "1"), ["create a"]),
        (("@",), ["create a"]),
    ],
    ids=str,
)
def test_a_name_and_a_number_choose(khlone: Khlone, history: Path, words: Sequence[str], found: Sequence[str]) -> None:
    assert [f"{one[0]} {one[1]}" for one in brief(khlone, history, *words)] == found


@pytest.mark.parametrize("words", [("-n", "0"), ("-n", "-1"), ("-n", "x"), ("a", "b")], ids=" ".join)
def test_words_that_cannot_be_meant_are_a_usage_error(khlone: Khlone, project: Path, words: Sequence[str]) -> None:
    refused(khlone("log", *words, "--json", cwd=project), "usage", 2)


def test_the_table_for_people_says_the_same(khlone: Khlone, project: Path, history: Path) -> None:
    lines = [line.split() for line in khlone("log", cwd=project).out.splitlines()]

    assert lines[0] == ["ID", "STARTED", "WHAT", "CLONE", "OUTCOME", "UNDOABLE"]
    assert [line[2:] for line in lines[1:]] == [
        ["remove", "b", "done", "yes"],
        ["create", "b", "done", "no"],
        ["create", "a", "done", "yes"],
    ]


def test_looking_changes_nothing(khlone: Khlone, project: Path, history: Path) -> None:
    registry = project / ".git/khlone/registry.sqlite3"
    before = registry.read_bytes()

    log(khlone, project)

    assert registry.read_bytes() == before
