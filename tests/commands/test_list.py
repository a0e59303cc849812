"""`list`, `show`, `path` and `env`: what is there, said without changing it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import NOTES, clone_names, common_dir, document, footprint, new, refused, show, tree
from tests.support import Commit, Git, Khlone

FIELDS = [
    "id",
    "name",
    "branch",
    "target",
    "base",
    "head",
    "path",
    "state",
    "agent",
    "isolation",
    "config_dir",
    "created_at",
    "dirty",
    "untracked",
    "ahead",
    "behind",
    "merged",
    "locked",
    "sessions",
    "ports",
    "reason",
]


def environment(khlone: Khlone, where: Path, *name: str) -> dict[str, str]:
    """The variables that `env` gives."""
    return dict(document(khlone("env", *name, "--json", cwd=where), "env")["environment"])


# -- list ----------------------------------------------------------------------------------


def test_without_clones_the_list_is_empty_and_nothing_is_made(khlone: Khlone, git: Git, project: Path) -> None:
    before = footprint(git, project), sorted(path.name for path in (project / ".git").iterdir())

    found = document(khlone("list", "--json", cwd=project), "list")

    assert (found["repository"], found["clones"]) == (str(project), [])
    assert (footprint(git, project), sorted(path.name for path in (project / ".git").iterdir())) == before


def test_every_clone_is_listed_with_every_field(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "b")
    new(khlone, project, "a")

    clones = document(khlone("list", "--json", cwd=project), "list")["clones"]

    assert sorted(clone["name"] for clone in clones) == ["a", "b"]
    assert [set(clone) for clone in clones] == [set(FIELDS)] * 2


def test_the_text_names_every_clone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "alpha")
    new(khlone, project, "beta")

    done = khlone("list", cwd=project)

    assert done.code == 0
    assert all(name in done.out for name in ("alpha", "beta"))
    assert "\x1b" not in done.out


def test_the_list_is_the_same_from_every_worktree(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    first = new(khlone, project, "a")
    git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"), cwd=project)

    answers = [
        document(khlone("list", "--json", cwd=where), "list")
        for where in (project, project / "src", first, first / "src", tmp_path / "linked", project / ".git")
    ]

    assert all(answer == answers[0] for answer in answers)


def test_distance_is_counted_from_the_target(khlone: Khlone, project: Path, commit: Commit) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"two.txt": "2\n"}, "two")
    commit(project, {"three.txt": "3\n"}, "three")

    clone = show(khlone, project, "a")

    assert (clone["ahead"], clone["behind"], clone["merged"]) == (2, 1, False)


@pytest.mark.parametrize(
    ("kind", "dirty", "untracked"),
    [("clean", False, 0), ("unstaged", True, 0), ("staged", True, 0), ("untracked", False, 2), ("ignored", False, 0)],
)
def test_uncommitted_work_is_told_by_kind(
    khlone: Khlone, git: Git, project: Path, kind: str, dirty: bool, untracked: int
) -> None:
    path = new(khlone, project, "a")
    if kind in ("unstaged", "staged"):
        (path / "notes.txt").write_text("changed\n")
    if kind == "staged":
        git("add", "notes.txt", cwd=path)
    if kind == "untracked":
        (path / "fresh").mkdir()
        (path / "fresh" / "1.txt").write_text("1\n")
        (path / "fresh" / "2.txt").write_text("2\n")
    if kind == "ignored":
        (path / "build.log").write_text("log\n")

    clone = show(khlone, project, "a")

    assert (clone["dirty"], clone["untracked"]) == (dirty, untracked)


def test_merged_is_null_while_nothing_was_ever_ahead(khlone: Khlone, project: Path, commit: Commit) -> None:
    new(khlone, project, "a")
    commit(project, {"more.txt": "more\n"}, "the target moves on")

    assert show(khlone, project, "a")["merged"] is None


def test_merged_is_judged_by_content(khlone: Khlone, git: Git, project: Path, commit: Commit) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"two.txt": "2\n"}, "two")
    git("merge", "-q", "--squash", "a", cwd=project)
    git("commit", "-q", "-m", "squashed", cwd=project)

    assert show(khlone, project, "a")["merged"] is True
    assert document(khlone("list", "--json", cwd=project), "list")["clones"][0]["merged"] is True


def test_a_broken_clone_says_so_and_hides_no_other(khlone: Khlone, project: Path) -> None:
    gone = new(khlone, project, "gone")
    new(khlone, project, "fine")
    shutil.rmtree(gone)

    clones = {clone["name"]: clone for clone in document(khlone("list", "--json", cwd=project), "list")["clones"]}

    assert (clones["fine"]["state"], clones["fine"]["reason"]) == ("ready", None)
    assert clones["gone"]["state"] == "broken"
    assert clones["gone"]["reason"]


def test_a_branch_that_vanished_does_not_break_the_list(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    new(khlone, project, "fine")
    git("update-ref", "-d", "refs/heads/a", cwd=project)

    clones = {clone["name"]: clone for clone in document(khlone("list", "--json", cwd=project), "list")["clones"]}

    assert clones["a"]["state"] == "broken"
    assert clones["a"]["reason"]
    assert clones["fine"]["state"] == "ready"


def test_a_damaged_index_is_told_of_that_clone_alone(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    new(khlone, project, "fine")
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=path).strip())
    index.write_bytes(b"not an index")

    clones = {clone["name"]: clone for clone in document(khlone("list", "--json", cwd=project), "list")["clones"]}

    assert (clones["a"]["state"], bool(clones["a"]["reason"])) == ("broken", True)
    assert clones["fine"]["state"] == "ready"


def test_what_is_in_the_trash_is_not_listed(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")
    khlone("remove", "a", cwd=project)

    assert clone_names(khlone, project) == ["b"]
    refused(khlone("show", "a", "--json", cwd=project), "no-such-clone")


def test_looking_changes_nothing(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    (path / "notes.txt").write_text("changed\n")
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=path).strip())
    registry = common_dir(git, project) / "khlone" / "registry.sqlite3"
    files = [index, registry, project / ".git" / "index"]
    before = footprint(git, project), tree(path), [file.read_bytes() for file in files]

    for verb in (("list",), ("show", "a"), ("path", "a"), ("env", "a"), ("trash",), ("doctor",)):
        assert khlone(*verb, cwd=project).code == 0
        assert khlone(*verb, "--json", cwd=project).code == 0

    assert (footprint(git, project), tree(path), [file.read_bytes() for file in files]) == before


def test_an_odd_branch_is_shown_without_its_control_characters(khlone: Khlone, git: Git, project: Path) -> None:
    odd = "evil\u202ebranch"
    git("branch", odd, cwd=project)
    new(khlone, project, "a", "--branch", odd)

    for verb in (("list",), ("show", "a")):
        assert "\u202e" not in khlone(*verb, cwd=project).out
    assert show(khlone, project, "a")["branch"] == odd


# -- show, path ----------------------------------------------------------------------------


def test_show_tells_a_person_what_there_is(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")

    done = khlone("show", "a", cwd=project)

    assert done.code == 0
    assert all(text in done.out for text in ("ready", "main", str(path)))


@pytest.mark.parametrize("where", ["", "src/lib"])
@pytest.mark.parametrize("verb", ["show", "path", "env"])
def test_inside_a_clone_no_name_is_needed(khlone: Khlone, project: Path, verb: str, where: str) -> None:
    path = new(khlone, project, "a")
    new(khlone, project, "b")

    found = document(khlone(verb, "--json", cwd=path / where), verb)

    assert found.get("name", found.get("clone", {}).get("name")) == "a"


@pytest.mark.parametrize("verb", ["show", "path", "env", "remove", "merge"])
def test_outside_a_clone_a_name_is_needed(khlone: Khlone, git: Git, project: Path, verb: str) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    done = khlone(verb, "--json", cwd=project)

    assert document(done, "error", done.code)["code"]
    assert done.code in (1, 2)
    assert footprint(git, project) == before


def test_path_prints_the_folder_and_nothing_else(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")

    done = khlone("path", "a", cwd=project)

    assert done.out == f"{path}\n"
    assert document(khlone("path", "a", "--json", cwd=project), "path")["path"] == str(path)


@pytest.mark.parametrize("verb", ["show", "path", "env"])
def test_an_unknown_name_is_refused(khlone: Khlone, project: Path, verb: str) -> None:
    new(khlone, project, "feature")

    error = refused(khlone(verb, "featuer", "--json", cwd=project), "no-such-clone")

    assert error["facts"]["name"] == "featuer"


# -- env -----------------------------------------------------------------------------------


def test_env_names_the_clone_in_its_variables(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "feature/x")

    found = environment(khlone, project, "feature/x")

    assert found["KHLONE_NAME"] == "feature/x"
    assert found["KHLONE_ID"] == show(khlone, project, "feature/x")["id"]
    assert found["KHLONE_BRANCH"] == "feature/x"
    assert found["KHLONE_TARGET"] == "main"
    assert found["KHLONE_PATH"] == str(path)
    assert found["KHLONE_REPOSITORY"] == str(project)
    assert all(isinstance(value, str) for value in found.values())


def test_the_lines_of_env_are_safe_for_a_shell(khlone: Khlone, git: Git, project: Path) -> None:
    odd = "it's;$(touch-nothing)"
    git("branch", odd, cwd=project)
    new(khlone, project, "a", "--branch", odd)
    lines = khlone("env", "a", cwd=project).out

    shell = subprocess.run(
        ["sh", "-c", f'{lines}\nprintf %s "$KHLONE_BRANCH"'], capture_output=True, text=True, check=True, cwd=project
    )

    assert shell.stdout == odd


def test_env_inside_a_clone_is_the_same_as_outside(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")

    assert environment(khlone, path) == environment(khlone, project, "a")


def test_a_clone_is_known_by_its_real_path_too(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    path = new(khlone, project, "a")
    link = tmp_path / "link"
    link.symlink_to(path)

    assert document(khlone("path", "--json", cwd=link), "path")["name"] == "a"
    assert (Path(os.path.realpath(link)) / "notes.txt").read_text() == NOTES


# -- list --tree ---------------------------------------------------------------------------


def test_the_tree_has_each_clone_below_its_target(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b", "--from", "a", "--into", "a")
    new(khlone, project, "c")
    git("branch", "release", cwd=project)
    new(khlone, project, "d", "--into", "release")
    # Two that are each other's targets hang on nothing.
    new(khlone, project, "e")
    new(khlone, project, "f", "--into", "e")
    database = common_dir(git, project) / "khlone/registry.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE clones SET target = 'f' WHERE name = 'e'")

    shown = khlone("list", "--tree", cwd=project)
    ascii_only = khlone("list", "--tree", cwd=project, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})

    names = [line.split("  ")[0] if line[:1].isalpha() else line[:6].rstrip() for line in shown.out.splitlines()]
    assert names == ["NAME", "main", "├─ a", "│  └─", "└─ c", "release", "└─ d", "-", "├─ e", "└─ f"]
    assert "│  └─ b  ready  b" in shown.out
    assert "|- a" in ascii_only.out
    assert "`- c" in ascii_only.out
    assert clone_names(khlone, project) == ["a", "b", "c", "d", "e", "f"]


def test_a_clone_that_a_killed_command_left_half_made_says_so(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "whole")
    assert khlone("new", "half", cwd=project, env={"KHLONE_FAULT": "create.refs"}).code == -9

    found = {one["name"]: one for one in document(khlone("list", "--json", cwd=project), "list")["clones"]}

    assert found["half"]["state"] == "creating"
    assert "its create was interrupted" in found["half"]["reason"]
    assert found["whole"]["reason"] is None
    assert "interrupted" in khlone("list", cwd=project).err


def test_no_verb_but_those_that_go_there_take_the_main_worktree_for_a_clone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "one")

    for words in (["show", "^"], ["remove", "^"], ["merge", "^"]):
        assert "^ is the main worktree" in khlone(*words, cwd=project).err
    assert khlone("path", "^", cwd=project).out.strip() == str(project)


def test_names_are_in_the_order_that_people_count_in(khlone: Khlone, repository: Path) -> None:
    for name in ("t-10", "t-9", "T-1", "a/12", "a/2", "b"):
        new(khlone, repository, name)
    wanted = ["a/2", "a/12", "b", "T-1", "t-9", "t-10"]

    piped = khlone("list", cwd=repository).out.splitlines()[1:]

    listed = document(khlone("list", "--json", cwd=repository), "list")["clones"]
    assert [one["name"] for one in listed] == wanted
    assert [line.split()[0] for line in piped] == wanted
    assert khlone("_names", cwd=repository).out.split() == wanted
    assert document(khlone("conflicts", "--json", cwd=repository), "conflicts")["order"] == wanted
