"""A look at clones runs nothing that the repository's configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.steps import document, new
from tests.support import Commit, Git, Khlone, write

#: Keys whose value is a program that git runs on plain calls.
PROGRAMS = {
    "core.fsmonitor": "fsmonitor",
    "core.sshCommand": "ssh",
    "core.pager": "pager",
    "core.editor": "editor",
    "diff.external": "external",
    "diff.own.command": "command",
    "diff.own.textconv": "textconv",
    "filter.own.clean": "clean",
    "filter.own.smudge": "smudge",
    "gpg.program": "gpg",
}
LOOKS = [
    ["list"],
    ["show", "one"],
    ["diff", "one"],
    ["diff", "one", "--stat"],
    ["path", "one"],
    ["log"],
    ["trash"],
    ["doctor"],
    ["trust", "--check"],
]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where each program leaves its name when it runs."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def armed(khlone: Khlone, git: Git, repository: Path, commit: Commit, marks: Path, tmp_path: Path) -> Path:
    """A repository with all of the programs, and a clone with changes; returns the clone's worktree."""
    commit(repository, {".gitattributes": "*.txt filter=own diff=own\n", "a.txt": "a\n"}, "attributes")
    path = new(khlone, repository, "one")
    new(khlone, repository, "gone")
    assert khlone("remove", "gone", cwd=repository).code == 0
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\ntouch "{marks}/$1"\ncat\n')
    program.chmod(0o755)
    for key, name in PROGRAMS.items():
        git("config", key, f"{program} {name}", cwd=repository)
    write(path, {"a.txt": "b\n", "new.txt": "new\n"})
    return path


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_look_runs_no_program_that_the_repository_names(
    khlone: Khlone, armed: Path, marks: Path, words: Sequence[str]
) -> None:
    done = khlone(*words, cwd=armed)

    assert done.code == 0, done
    assert list(marks.iterdir()) == []


def test_a_filter_that_stays_running_is_not_started_either(
    khlone: Khlone, git: Git, armed: Path, marks: Path, tmp_path: Path
) -> None:
    git("config", "filter.own.process", f"{tmp_path}/program process", cwd=armed)
    git("config", "filter.own.required", "true", cwd=armed)

    for words in (["list"], ["diff", "one"]):
        assert khlone(*words, cwd=armed).code == 0

    assert list(marks.iterdir()) == []


def test_plain_git_runs_them(git: Git, armed: Path, marks: Path) -> None:
    git("status", cwd=armed)
    git("diff", cwd=armed, check=False)

    assert {path.name for path in marks.iterdir()} >= {"fsmonitor", "clean"}


def test_a_filter_of_the_users_own_is_asked(khlone: Khlone, git: Git, repository: Path, commit: Commit) -> None:
    git("config", "--global", "filter.upper.clean", "tr a-z A-Z", cwd=repository)
    # A repository that names it too does not get its own way.
    git("config", "filter.upper.clean", "rev", cwd=repository)
    commit(repository, {".gitattributes": "*.txt filter=upper\n"}, "attributes")
    git("config", "--unset", "filter.upper.clean", cwd=repository)
    commit(repository, {"a.txt": "ab\n"}, "filtered")
    path = new(khlone, repository, "one")
    git("config", "filter.upper.clean", "rev", cwd=repository)

    write(path, {"a.txt": "ab\n"})
    shown = document(khlone("show", "one", "--json", cwd=repository), "show")["clone"]

    assert shown["dirty"] is False
