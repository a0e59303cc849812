"""Input that cannot be meant, surroundings that cannot be used: one clear line, a hint, a code, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.steps import branches, clone_names, document, footprint, new, refused, show
from tests.support import KHLONE, TIMEOUT_S, Commit, Done, Git, Khlone, make_repository

HUGE = "100000000000000000000"


@pytest.fixture
def place(khlone: Khlone, project: Path) -> Path:
    """The repository with a clone named `a`."""
    new(khlone, project, "a")
    return project


def told(done: Done) -> list[str]:
    """What a refusal says without --json: a line and a hint."""
    lines = done.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["khlone", "hint"], done.err
    return [line.partition(": ")[2] for line in lines]


# -- words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("log", "-n", HUGE),
        ("log", "-n", "0"),
        ("new", "b", "-n", HUGE),
        ("new", "b", "-n", "abc"),
        ("exec", "--all", "-j", HUGE, "--", "true"),
        ("new", "b", "--from", ""),
        ("new", "b", "--branch", ""),
        ("new", "b", "--into", ""),
        ("new", "b", "--agent", ""),
        ("adopt", "x", "--name", ""),
        ("adopt", "x", "--into", ""),
        ("adopt", "x", "--agent", ""),
        ("merge", "a", "--into", ""),
        ("prune", "--trash", "--age", ""),
        ("prune", "--trash", "--size", ""),
        ("doctor", "--fix", "--host-gone", ""),
        ("new", "b", ""),
        ("new", "b", "c"),
    ],
    ids=" ".join,
)
def test_a_value_that_cannot_be_meant_is_a_usage_error_with_a_hint(
    khlone: Khlone, git: Git, place: Path, words: Sequence[str]
) -> None:
    before = footprint(git, place)

    done = khlone(*words, cwd=place)

    assert done.code == 2
    assert " -h" in told(done)[1]
    assert refused(
        khlone(*words, "--json", cwd=place) if "--" not in words else khlone("--json", *words, cwd=place), "usage", 2
    )
    assert footprint(git, place) == before


def test_an_extra_word_is_named_as_it_was_typed(khlone: Khlone, place: Path) -> None:
    assert told(khlone("new", "b", "", cwd=place))[0] == "got unexpected extra argument: ''"
    assert told(khlone("new", "b", "c d", cwd=place))[0].startswith("got unexpected extra argument")


def test_a_log_of_a_name_that_never_was_is_refused_and_one_that_is_gone_is_known(khlone: Khlone, place: Path) -> None:
    assert khlone("remove", "a", cwd=place).code == 0

    refused(khlone("log", "nosuch", "--json", cwd=place), "no-such-clone")
    assert document(khlone("log", "a", "--json", cwd=place), "log")["operations"]


def test_a_full_name_of_a_branch_means_that_branch_as_for_git(khlone: Khlone, git: Git, place: Path) -> None:
    new(khlone, place, "b", "--branch", "refs/heads/q", "--into", "refs/heads/main")

    assert "refs/heads/q" not in branches(git, place)
    assert (show(khlone, place, "b")["branch"], show(khlone, place, "b")["target"]) == ("q", "main")
    assert document(khlone("merge", "b", "--into", "refs/heads/main", "--json", cwd=place), "merge")["target"] == "main"


@pytest.mark.parametrize("words", [("merge", "a", "--into", "HEAD"), ("new", "b", "--into", "nosuch")], ids=" ".join)
def test_a_target_that_is_no_branch_is_told_as_such(khlone: Khlone, place: Path, words: Sequence[str]) -> None:
    assert told(khlone(*words, cwd=place))[0] == f"there is no branch {words[-1]!r}"
    refused(khlone(*words, "--json", cwd=place), "no-such-ref")


def test_a_target_of_the_settings_that_is_no_branch_is_refused(khlone: Khlone, git: Git, place: Path) -> None:
    git("config", "khlone.target", "nosuch", cwd=place)

    refused(khlone("new", "b", "--json", cwd=place), "invalid-setting", 2)

    assert clone_names(khlone, place) == ["a"]
    assert show(khlone, new(khlone, place, "b", "--into", "main"), "b")["target"] == "main"


def test_a_clone_whose_command_cannot_be_started_is_named(khlone: Khlone, place: Path) -> None:
    found = document(khlone("new", "b", "--json", "-x", "nosuch-command", cwd=place), "new", 1)
    plain = khlone("new", "c", "-x", "nosuch-command", cwd=place)

    assert [clone["name"] for clone in found["clones"]] == ["b"]
    assert [(one["name"], one["code"]) for one in found["failed"]] == [("b", "command-not-found")]
    assert (plain.code, plain.out) == (1, khlone("path", "c", cwd=place).out)
    assert "cannot run 'nosuch-command'" in plain.err


@pytest.mark.parametrize("words", [("exec", "a", "--json", "--"), ("new", "b", "--json", "-x")], ids=" ".join)
def test_a_captured_command_reads_what_khlone_was_given(khlone: Khlone, place: Path, words: Sequence[str]) -> None:
    done = khlone(*words, "sh", "-c", "read word; exit $word", cwd=place, input="7\n")

    assert done.code == 7, done.err


def test_a_dry_run_names_no_trash_that_is_not_there(khlone: Khlone, git: Git, place: Path) -> None:
    clone = new(khlone, place, "b")
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=clone)
    assert khlone("merge", "b", cwd=place).code == 0

    assert "restore" not in khlone("prune", "--dry-run", cwd=place).out
    assert "restore" in khlone("prune", cwd=place).out


def test_a_gate_that_is_required_and_missing_says_what_to_do(khlone: Khlone, git: Git, place: Path) -> None:
    git("config", "khlone.gate.required", "true", cwd=place)
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=Path(show(khlone, place, "a")["path"]))

    done = khlone("merge", "a", cwd=place)

    assert done.code == 5
    assert "unset khlone.gate.required" in done.err


# -- surroundings --------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("list",), ("new", "b"), ("show", "a", "--json"), ("adopt", "x")], ids=" ".join)
def test_a_working_folder_that_was_deleted_is_told_as_such(place: Path, tmp_path: Path, words: Sequence[str]) -> None:
    (tmp_path / "gone").mkdir()

    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", str(KHLONE), *words],
        cwd=tmp_path / "gone",
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 1
    if "--json" in words:
        assert json.loads(done.stdout)["code"] == "working-folder-gone"
    else:
        assert done.stderr.startswith(b"khlone: the working folder was deleted")


@pytest.mark.parametrize("where", ["/proc/x", "/dev/null"])
def test_a_place_for_state_where_nothing_can_be_made_is_refused_whole(
    khlone: Khlone, git: Git, project: Path, where: str
) -> None:
    before = footprint(git, project)

    found = refused(khlone("new", "a", "--json", cwd=project, env={"XDG_STATE_HOME": where}), "state-unsafe", 77)

    assert "XDG_STATE_HOME" in found["hint"]
    assert footprint(git, project) == before
    assert clone_names(khlone, project) == []


def test_a_path_that_is_too_long_for_the_registry_is_told_as_such(khlone: Khlone, git: Git, tmp_path: Path) -> None:
    parent = tmp_path
    while len(str(parent)) < 600:
        parent /= "x" * 90
    parent.mkdir(parents=True)
    long = make_repository(parent / "project")

    found = refused(khlone("new", "a", "--json", cwd=long), "repository-unsupported")

    assert "long" in found["message"]
    assert khlone("list", cwd=long).code == 0
    assert branches(git, long).keys() == {"main"}


def test_what_cannot_be_shown_is_escaped_for_people_and_kept_in_documents(khlone: Khlone, tmp_path: Path) -> None:
    odd = make_repository(Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\n\x1b[31m\xff")))
    path = new(khlone, odd, "a")

    listed = khlone("list", cwd=odd)
    error = khlone("new", "a", cwd=odd)

    assert "odd\\n\\x1b[31m\\xff.clones/a" in listed.out
    assert len(listed.out.splitlines()) == 2
    assert "odd\\n\\x1b[31m\\xff.clones/a" in told(error)[0]
    assert document(khlone("list", "--json", cwd=odd), "list")["clones"][0]["path"] == str(path)
    assert khlone("path", "a", cwd=odd).out == f"{path}\n"


def test_without_any_plugin_an_agent_that_is_unknown_says_why(khlone: Khlone, place: Path) -> None:
    done = khlone("new", "b", cwd=place, env={"KHLONE_PLUGINS": ""})

    assert done.code == 2
    assert "KHLONE_PLUGINS" in told(done)[1]


@pytest.mark.parametrize(("words", "leads"), [(("remove", "a"), "project"), (("rename", "a", "b"), "project.clones/b")])
def test_who_stands_in_a_folder_that_goes_is_told_where_to_go(
    khlone: Khlone, place: Path, words: Sequence[str], leads: str
) -> None:
    inside = Path(show(khlone, place, "a")["path"], "src")

    done = khlone(*words, cwd=inside)
    other = khlone("new", "c", cwd=place)

    assert done.code == 0
    assert f"cd {place.parent / leads}" in done.err
    assert "cd " not in other.err


# -- what is shown of what was typed ------------------------------------------------------------

LONG = "n" * 300


@pytest.mark.parametrize("verb", ["hooks", "completion"])
def test_a_missing_word_is_told_in_one_line_as_it_is_typed(khlone: Khlone, place: Path, verb: str) -> None:
    done = khlone(verb, cwd=place)

    assert done.code == 2
    assert done.err.splitlines()[0].startswith("khlone: missing argument '{")
    assert "choose from" in done.err
    assert "\\n" not in done.err
    assert "\\t" not in done.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", LONG), "no-such-clone"),
        (("new", LONG), "illegal-name"),
        (("new", "b", "--from", LONG), "no-such-ref"),
        (("new", "b", "--branch", LONG), "name-too-long"),
        (("new", "b", "--into", LONG), "name-too-long"),
        (("merge", "a", "--into", LONG), "name-too-long"),
        (("adopt", LONG), "name-too-long"),
        (("-C", LONG, "list"), "name-too-long"),
        ((LONG,), "usage"),
        (("restore", LONG), "no-such-trash"),
    ],
    ids=lambda value: " ".join(value).replace(LONG, "LONG") if isinstance(value, tuple) else value,
)
def test_a_name_of_three_hundred_letters_is_refused_and_shown_by_its_ends(
    khlone: Khlone, git: Git, place: Path, words: tuple[str, ...], code: str
) -> None:
    before = footprint(git, place)

    found = refused(khlone(*words, "--json", cwd=place), code, 1 if code.startswith("no-such-") else 2)

    assert "nnn...nnn" in found["message"]
    assert len(found["message"]) < 250
    assert LONG not in found["hint"]
    assert footprint(git, place) == before


def test_the_facts_of_an_error_hold_a_long_name_whole(khlone: Khlone, place: Path) -> None:
    assert refused(khlone("show", LONG, "--json", cwd=place), "no-such-clone")["facts"]["name"] == LONG


@pytest.mark.parametrize("how", ["--merge", "--rebase"])
def test_a_conflict_in_a_clone_whose_folder_is_gone_says_how_it_comes_back(
    khlone: Khlone, commit: Commit, place: Path, how: str
) -> None:
    path = Path(khlone("path", "a", cwd=place).out.strip())
    commit(path, {"notes.txt": "of a\n"}, "of a")
    commit(place, {"notes.txt": "of main\n"}, "of main")
    whole = khlone("merge", "a", how, cwd=place)
    shutil.rmtree(path)

    gone = khlone("merge", "a", how, cwd=place)
    assert khlone("doctor", "--fix", cwd=place).code == 0
    back = khlone("merge", "a", how, cwd=place)

    assert whole.code == gone.code == back.code == 4
    assert "doctor --fix" not in whole.err
    assert "its folder is gone, `git khlone doctor --fix` brings it back" in gone.err
    assert back.err == whole.err


def test_python_runs_the_package_as_the_command(khlone: Khlone, place: Path) -> None:
    argv = [sys.executable, "-m", "khlone", "list"]

    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, khlone("list", cwd=place).out)
    assert subprocess.run([*argv, "--nope"], cwd=place, capture_output=True, check=False).returncode == 2
