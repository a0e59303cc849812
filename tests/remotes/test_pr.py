"""What `pr` promises: one pull request for a clone's branch, through gh or glab, and none without a push."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid, worked
from tests.commands.steps import at_once, document, new, refs, refused
from tests.remotes.forge import calls, fail, fake_forge, verbs
from tests.support import Commit, Git, Khlone


@pytest.fixture
def programs(tmp_path: Path, remote: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fake gh, first on PATH."""
    assert remote.exists()
    folder = fake_forge(tmp_path / "programs", "gh")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def path(khlone: Khlone, commit: Commit, repository: Path, remote: Path) -> Path:
    """A clone `a` with one commit of its own."""
    assert remote.exists()
    made = new(khlone, repository, "a")
    commit(made, {"one.txt": "1\n"}, "a title\n\nwhy it is so")
    return made


def pr(khlone: Khlone, where: Path, *words: str, env: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """The document of a `pr` that ended well."""
    return document(khlone("pr", *words, "--json", cwd=where, env=env), "pr")


def test_a_pull_request_is_opened_with_the_words_of_the_one_commit(
    khlone: Khlone, git: Git, repository: Path, remote: Path, programs: Path, path: Path
) -> None:
    found = pr(khlone, path)

    assert oid(git, remote, "a") == oid(git, path, "HEAD")
    assert (found["opened"], found["number"], found["draft"]) == (True, 1, False)
    assert found["url"] == "https://github.example/team/project/pull/1"
    assert (found["title"], found["base"], found["remote"]) == ("a title", "main", "origin")
    created = calls(programs)[-1]
    assert created["argv"][:2] == ["pr", "create"]
    assert created["stdin"] == "why it is so"
    assert "why it is so" not in created["argv"]
    assert created["cwd"] == os.path.realpath(path)
    assert created["environment"] == {"GH_PROMPT_DISABLED": "1", "GIT_DIR": None}


def test_one_that_is_open_gets_the_new_commits_and_is_shown(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, programs: Path, path: Path
) -> None:
    first = pr(khlone, repository, "a")
    commit(path, {"two.txt": "2\n"}, "more")

    again = khlone("pr", "a", cwd=repository)

    assert again.out == first["url"] + "\n"
    assert "open already" in again.err
    assert verbs(programs).count("gh pr create") == 1
    assert oid(git, remote, "a") == oid(git, path, "HEAD")


def test_several_commits_make_a_list_and_options_beat_them(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, programs: Path, path: Path
) -> None:
    git("branch", "release", cwd=repository)
    commit(path, {"two.txt": "2\n"}, "more")
    other = worked(khlone, commit, repository, "b", {"b.txt": "b\n"})

    listed = pr(khlone, repository, "a", "--draft", "--web")
    said = pr(khlone, other, "--title", "T", "--body", "B", "--into", "release")

    of_a, of_b = (one for one in calls(programs) if one["argv"][1] == "create")
    assert (listed["title"], listed["draft"]) == ("a title", True)
    assert of_a["stdin"] == "- a title\n- more\n"
    assert "--draft" in of_a["argv"]
    assert ["pr", "view", "1", "--web"] in [one["argv"] for one in calls(programs)]
    assert (said["title"], said["base"], of_b["stdin"]) == ("T", "release", "B")


def test_glab_opens_merge_requests_where_the_address_or_a_setting_says_so(
    khlone: Khlone, git: Git, repository: Path, remote: Path, programs: Path, path: Path
) -> None:
    fake_forge(programs, "glab")
    git("config", "khlone.forge", "glab", cwd=repository)
    by_setting = pr(khlone, path)
    git("config", "--unset", "khlone.forge", cwd=repository)
    git("config", f"url.{remote}.insteadOf", "https://gitlab.example/team/project.git", cwd=repository)
    git("remote", "set-url", "origin", "https://gitlab.example/team/project.git", cwd=repository)

    by_address = pr(khlone, path)

    assert by_setting["url"] == "https://gitlab.example/team/project/-/merge_requests/1"
    assert (by_setting["opened"], by_address["opened"], by_address["number"]) == (True, False, 1)
    assert {one["program"] for one in calls(programs)} == {"glab"}
    created = next(one["argv"] for one in calls(programs) if one["argv"][1] == "create")
    assert created[created.index("--description") + 1] == "why it is so"
    assert "--yes" in created


def test_without_a_program_nothing_is_pushed(
    khlone: Khlone, git: Git, repository: Path, remote: Path, programs: Path, path: Path
) -> None:
    git("config", "khlone.forge", "glab", cwd=repository)

    done = khlone("pr", "a", cwd=repository)

    assert done.code == 1
    assert done.out == ""
    assert "hint: git khlone push a" in done.err
    refused(khlone("pr", "a", "--json", cwd=repository), "no-forge")
    assert git("branch", "--list", "a", cwd=remote) == ""


def test_a_clone_without_commits_proposes_nothing(
    khlone: Khlone, git: Git, repository: Path, remote: Path, programs: Path
) -> None:
    new(khlone, repository, "a")

    refused(khlone("pr", "a", "--json", cwd=repository), "nothing-to-propose")

    assert git("branch", "--list", "a", cwd=remote) == ""
    assert calls(programs) == []


def test_a_push_that_is_refused_opens_nothing(khlone: Khlone, repository: Path, programs: Path, path: Path) -> None:
    hooks = repository / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "pre-push").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-push").chmod(0o755)

    refused(khlone("pr", "a", "--json", cwd=repository), "push-rejected")

    assert calls(programs) == []


@pytest.mark.parametrize(
    ("code", "text", "error", "exit_code"),
    [
        (4, "To get started with GitHub CLI, please run:  gh auth login", "credentials-missing", 77),
        (1, "HTTP 502: ghp_0123456789abcdef is upset", "forge-failed", 1),
    ],
)
def test_what_the_program_says_is_told_without_its_token(
    khlone: Khlone, repository: Path, programs: Path, path: Path, code: int, text: str, error: str, exit_code: int
) -> None:
    fail(programs, "create", code, text)

    done = khlone("pr", "a", "--json", cwd=repository)

    refused(done, error, exit_code)
    assert "ghp_" not in done.out + done.err


def test_a_dry_run_pushes_and_opens_nothing(
    khlone: Khlone, git: Git, repository: Path, remote: Path, programs: Path, path: Path
) -> None:
    before = refs(git, repository), refs(git, remote), (repository / ".git/config").read_bytes()

    found = pr(khlone, repository, "a", "--dry-run")

    assert (found["url"], found["number"], found["opened"], found["title"]) == (None, None, False, "a title")
    assert (refs(git, repository), refs(git, remote), (repository / ".git/config").read_bytes()) == before
    assert calls(programs) == []


def test_a_fork_is_named_with_its_owner(
    khlone: Khlone, git: Git, repository: Path, programs: Path, path: Path, tmp_path: Path
) -> None:
    git("init", "-q", "--bare", str(tmp_path / "fork.git"), cwd=tmp_path)
    git("config", f"url.{tmp_path / 'fork.git'}.insteadOf", "https://github.example/me/project.git", cwd=repository)
    git("remote", "add", "fork", "https://github.example/me/project.git", cwd=repository)

    found = pr(khlone, repository, "a", "--remote", "fork")

    created = next(one["argv"] for one in calls(programs) if one["argv"][1] == "create")
    assert created[created.index("--head") + 1] == "me:a"
    assert (found["remote"], found["base"]) == ("fork", "main")


def test_two_at_once_open_one(khlone: Khlone, repository: Path, programs: Path, path: Path) -> None:
    """The fake refuses nothing: whoever comes second finds the first one, or is told of it when it opens its own."""
    first = pr(khlone, repository, "a")
    fail(programs, "create", 1, 'a pull request for branch "a" already exists')

    done = at_once([lambda: khlone("pr", "a", cwd=repository) for _ in range(2)])

    assert [(one.code, one.out) for one in done] == [(0, first["url"] + "\n")] * 2
