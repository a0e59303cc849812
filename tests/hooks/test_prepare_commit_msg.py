"""Commits made in a clone's session carry its name, once, and no commit is ever stopped or changed for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import ROOT, Git, write

HOOK = ROOT / "hooks" / "khlone-hook"


@pytest.fixture
def project(repository: Path, git: Git) -> Path:
    """A repository with the hook in place and the setting on."""
    shutil.copy(HOOK, repository / ".git" / "hooks" / "prepare-commit-msg")
    git("config", "khlone.trailer", "true", cwd=repository)
    return repository


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that a session in the clone `feature/x` has."""
    monkeypatch.setenv("KHLONE_NAME", "feature/x")


def commit_change(git: Git, project: Path, *arguments: str) -> str:
    """Commit a change with these arguments and return the whole message."""
    write(project, {"change.txt": os.urandom(8).hex()})
    git("add", "change.txt", cwd=project)
    git("commit", "-q", *arguments, cwd=project)
    return message(git, project)


def message(git: Git, project: Path) -> str:
    """The message of the last commit."""
    return git("log", "-1", "--format=%B", cwd=project).rstrip("\n")


@pytest.mark.usefixtures("session")
def test_a_commit_of_a_session_carries_the_name_of_the_clone(git: Git, project: Path) -> None:
    assert commit_change(git, project, "-m", "subject") == "subject\n\nClone: feature/x"
    assert git("log", "-1", "--format=%(trailers:key=Clone,valueonly)", cwd=project).strip() == "feature/x"


@pytest.mark.usefixtures("session")
def test_other_trailers_stay_in_one_block_with_it(git: Git, project: Path) -> None:
    found = commit_change(git, project, "-m", "subject", "-m", "Fixes: #1")

    assert found == "subject\n\nFixes: #1\nClone: feature/x"


@pytest.mark.usefixtures("session")
def test_amending_adds_no_second_one(git: Git, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_change(git, project, "-m", "subject")
    monkeypatch.setenv("KHLONE_NAME", "other")

    assert commit_change(git, project, "--amend", "--no-edit") == "subject\n\nClone: feature/x"


def test_a_commit_outside_a_session_is_left_alone(git: Git, project: Path) -> None:
    assert commit_change(git, project, "-m", "subject") == "subject"


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("value", ["false", "no", "", "nonsense", None])
def test_a_setting_that_is_not_true_leaves_commits_alone(git: Git, project: Path, value: str | None) -> None:
    if value is None:
        git("config", "--unset", "khlone.trailer", cwd=project)
    else:
        git("config", "khlone.trailer", value, cwd=project)

    assert commit_change(git, project, "-m", "subject") == "subject"


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("value", ["yes", "on", "1"])
def test_the_setting_is_read_as_git_reads_booleans(git: Git, project: Path, value: str) -> None:
    git("config", "khlone.trailer", value, cwd=project)

    assert commit_change(git, project, "-m", "subject").endswith("\n\nClone: feature/x")


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("option", ["--no-ff", "--squash"])
def test_the_messages_of_merges_are_left_alone(git: Git, project: Path, option: str) -> None:
    git("checkout", "-q", "-b", "side", "HEAD~1", cwd=project)
    write(project, {"side.txt": "side\n"})
    git("add", "side.txt", cwd=project)
    git("commit", "-q", "-m", "side", cwd=project)
    git("checkout", "-q", "main", cwd=project)

    git("merge", "-q", "--no-edit", option, "side", cwd=project)
    if option == "--squash":
        git("commit", "-q", "--no-edit", cwd=project)

    own_lines = [line for line in message(git, project).splitlines() if not line.startswith("    ")]
    assert "Clone: feature/x" not in own_lines


@pytest.mark.usefixtures("session")
def test_a_message_left_empty_in_the_editor_still_aborts_the_commit(
    git: Git, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git("rev-parse", "HEAD", cwd=project)
    monkeypatch.setenv("GIT_EDITOR", "true")
    write(project, {"change.txt": "change\n"})
    git("add", "change.txt", cwd=project)

    git("commit", cwd=project, check=False)

    assert git("rev-parse", "HEAD", cwd=project) == before
    assert git("diff", "--cached", "--name-only", cwd=project).split() == ["change.txt"]


@pytest.mark.usefixtures("session")
def test_a_name_is_never_read_by_the_shell(git: Git, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KHLONE_NAME", "$(touch made) `touch made` -x")

    assert commit_change(git, project, "-m", "subject") == "subject\n\nClone: $(touch made) `touch made` -x"
    assert not (project / "made").exists()


@pytest.mark.usefixtures("session")
def test_the_last_commit_of_a_linked_worktree_carries_it_too(git: Git, project: Path, tmp_path: Path) -> None:
    git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), cwd=project)

    assert commit_change(git, tmp_path / "linked", "-m", "subject") == "subject\n\nClone: feature/x"


def programs_started(folder: Path, environment: Mapping[str, str]) -> list[str]:
    """The programs that the hook starts, traced."""
    given, trace = folder / "message", folder / "trace"
    given.write_text("subject\n")
    hook = folder / ".git" / "hooks" / "prepare-commit-msg"
    subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-o", str(trace), str(hook), str(given), "message"],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=60,
    )
    calls = [line for line in trace.read_text().splitlines() if "execve(" in line and line.endswith(" = 0")]
    return [Path(line.split('"')[1]).name for line in calls]


@pytest.mark.needs_strace
def test_the_fast_path_starts_no_program_and_the_slow_one_only_git(git: Git, project: Path) -> None:
    outside = programs_started(project, {})
    inside = programs_started(project, {"KHLONE_NAME": "a"})

    assert outside == ["prepare-commit-msg"]
    assert inside[0] == "prepare-commit-msg"
    assert set(inside[1:]) == {"git"}


def test_the_hook_is_a_script_of_plain_sh() -> None:
    assert HOOK.read_bytes().startswith(b"#!/bin/sh\n")
    assert os.access(HOOK, os.X_OK)
    subprocess.run(["sh", "-n", str(HOOK)], check=True)
