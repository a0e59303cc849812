"""What lands in the main worktree while an agent's session runs is reported on the clone; khlone's own work is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.steps import on_path, program
from tests.commands.steps import document, new, show
from tests.support import KHLONE, Git, Khlone, make_commit, write

VERSION = 'case "$1" in --version) echo "2.1.330 (Claude Code)"; exit;; esac'


@pytest.fixture
def session(khlone: Khlone, repository: Path, tmp_path: Path) -> Callable[[str], str]:
    """Runs a script as the agent of clone `one`; returns what is told of it."""
    new(khlone, repository, "one", "--agent", "claude")

    def run(script: str) -> str:
        folder = tmp_path / "programs"
        program(folder, "claude", f'{VERSION}\nset -e\nmain="$KHLONE_REPOSITORY"\n{script}')
        done = khlone("exec", "one", "--", "claude", cwd=repository, env=on_path(folder))
        assert done.code == 0, done
        return done.err

    return run


def test_commits_and_edits_outside_of_the_clone_are_reported_on_it(
    khlone: Khlone, repository: Path, session: Callable[[str], str], git: Git
) -> None:
    told = session(
        'git -C "$main" commit -q --allow-empty -m stray; echo x >>"$main/README.md"; echo x >"$main/new.txt"'
    )

    oid = git("rev-parse", "main", cwd=repository).strip()
    expected = (
        f"1 commit landed on branch main of the main worktree ({oid[:10]}); "
        "README.md, new.txt changed in the main worktree"
    )
    assert f"warning: while a session of one ran, {expected}" in told
    assert show(khlone, repository, "one")["reason"] == f"while a session ran, {expected}"
    listed = document(khlone("list", "--json", cwd=repository), "list")["clones"][0]
    assert (listed["state"], listed["reason"]) == ("ready", f"while a session ran, {expected}")


def test_the_doctor_names_it_and_forgets_it_when_told_to(
    khlone: Khlone, repository: Path, session: Callable[[str], str]
) -> None:
    session('echo x >"$main/new.txt"')

    found = document(khlone("doctor", "--json", cwd=repository), "doctor")["findings"]
    mended = document(khlone("doctor", "--fix", "--json", cwd=repository), "doctor")["findings"]

    assert [(one["code"], one["severity"], one["clone"], one["fixed"]) for one in found] == [
        ("escaped", "warning", "one", False)
    ]
    assert [(one["code"], one["fixed"]) for one in mended] == [("escaped", True)]
    assert show(khlone, repository, "one")["reason"] is None
    assert (repository / "new.txt").exists()


@pytest.mark.parametrize(
    "script",
    [
        "echo x >mine.txt; git add mine.txt; git commit -q -m mine",
        "true",
        'git -C "$main" status; git -C "$main" log; git -C "$main" fetch -q . main:other',
        f'echo x >mine.txt; git add mine.txt; git commit -q -m mine; "{KHLONE}" merge one',
    ],
    ids=["in the clone", "nothing", "only looking", "landed by khlone"],
)
def test_nothing_else_is_reported(
    khlone: Khlone, repository: Path, session: Callable[[str], str], git: Git, script: str
) -> None:
    write(repository, {"README.md": "the user's own\n", "untracked.txt": "x\n"})

    told = session(script)

    assert "warning" not in told
    assert show(khlone, repository, "one")["reason"] is None


def test_what_was_edited_again_is_reported_and_what_was_not_is_not(
    khlone: Khlone, repository: Path, session: Callable[[str], str]
) -> None:
    write(repository, {"README.md": "the user's own\n", "untracked.txt": "x\n"})
    for name in ("README.md", "untracked.txt"):
        os.utime(repository / name, (1_700_000_000, 1_700_000_000))

    told = session('echo more >>"$main/README.md"')

    assert told.rstrip().endswith("while a session of one ran, README.md changed in the main worktree")


def test_a_branch_that_the_session_left_the_main_worktree_on_is_named(
    khlone: Khlone, repository: Path, session: Callable[[str], str]
) -> None:
    told = session('git -C "$main" switch -q -c stray; git -C "$main" commit -q --allow-empty -m stray')

    assert "1 commit landed on branch stray of the main worktree" in told


def test_a_plain_command_is_left_alone(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one", "--agent", "claude")

    done = khlone("exec", "one", "--", "sh", "-c", 'echo x >"$KHLONE_REPOSITORY/new.txt"', cwd=repository)

    assert done.err == ""
    assert show(khlone, repository, "one")["reason"] is None


def test_a_bare_repository_has_nothing_to_watch(khlone: Khlone, repository: Path, tmp_path: Path, git: Git) -> None:
    git("clone", "-q", "--bare", str(repository), str(tmp_path / "bare.git"), cwd=tmp_path)
    bare = tmp_path / "bare.git"
    path = new(khlone, bare, "one", "--agent", "claude")
    folder = tmp_path / "programs"
    program(folder, "claude", f"{VERSION}\necho x >mine.txt")

    done = khlone("exec", "one", "--", "claude", cwd=bare, env=on_path(folder))

    assert (done.code, (path / "mine.txt").exists()) == (0, True), done
    make_commit(path, {}, "still works")
