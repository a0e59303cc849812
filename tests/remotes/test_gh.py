"""What `pr` and `new --pr` promise with the real gh, which talks to a GitHub on loopback."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.merging import oid
from tests.commands.steps import at_once, document, new, refs, refused
from tests.remotes.hub import HOST, TOKEN, Hub, serving
from tests.support import Commit, Git, Khlone

pytestmark = pytest.mark.needs_gh


@pytest.fixture
def hub(git: Git, repository: Path, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A GitHub whose repository is `remote`, reached by what stands in for ssh; a gh that is logged in there."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nfor last; do :; done\nexec "${{last%% *}}" "{remote}"\n')
    ssh.chmod(0o755)
    git("remote", "set-url", "origin", f"git@{HOST}:team/project.git", cwd=repository)
    settings = tmp_path / "gh"
    settings.mkdir()
    (settings / "hosts.yml").write_text(f"{HOST}:\n    oauth_token: {TOKEN}\n    user: me\n    git_protocol: ssh\n")
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GH_CONFIG_DIR", str(settings))
    with serving() as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture
def path(khlone: Khlone, commit: Commit, repository: Path, hub: Hub) -> Path:
    """A clone `a` with one commit of its own."""
    assert hub.port
    made = new(khlone, repository, "a")
    commit(made, {"one.txt": "1\n"}, "a title\n\nwhy it is so")
    return made


def test_a_pull_request_is_opened_and_then_found_again(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, hub: Hub, path: Path
) -> None:
    first = document(khlone("pr", "a", "--draft", "--json", cwd=repository), "pr")
    commit(path, {"two.txt": "2\n"}, "more")
    again = document(khlone("pr", "a", "--json", cwd=repository), "pr")

    assert (first["opened"], first["number"], first["url"]) == (True, 1, f"https://{HOST}/team/project/pull/1")
    assert (again["opened"], again["number"], again["url"]) == (False, 1, first["url"])
    [pull] = hub.pulls
    assert (pull["title"], pull["body"].strip(), pull["isDraft"]) == ("a title", "why it is so", True)
    assert (pull["headRefName"], pull["baseRefName"]) == ("a", "main")
    assert oid(git, remote, "a") == oid(git, path, "HEAD")
    assert hub.tokens == {f"token {TOKEN}"}


def test_the_browser_is_shown_the_pull_request(
    khlone: Khlone, repository: Path, hub: Hub, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >"{tmp_path}/shown"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("GH_BROWSER", str(browser))

    found = document(khlone("pr", "a", "--web", "--json", cwd=repository), "pr")

    assert (tmp_path / "shown").read_text() == found["url"]


def test_who_is_not_logged_in_is_told_how_and_no_token_is_shown(
    khlone: Khlone, repository: Path, hub: Hub, path: Path
) -> None:
    hub.status = 401
    rejected = khlone("pr", "a", "--json", cwd=repository)
    os.unlink(Path(os.environ["GH_CONFIG_DIR"]) / "hosts.yml")
    logged_out = khlone("pr", "a", "--json", cwd=repository)

    for done in (rejected, logged_out):
        refused(done, "credentials-missing", 77)
        assert TOKEN not in done.out + done.err
    assert hub.pulls == []


def test_a_forge_that_fails_is_told_and_the_same_command_goes_on(khlone: Khlone, repository: Path, hub: Hub) -> None:
    made = new(khlone, repository, "b")
    (made / "b").write_text("b\n")
    hub.status = 502
    khlone("exec", "b", "--", "sh", "-c", "git add b && git commit -qm b", cwd=repository)

    refused(khlone("pr", "b", "--json", cwd=repository), "forge-failed")
    hub.status = 200
    found = document(khlone("pr", "b", "--json", cwd=repository), "pr")

    assert (found["opened"], len(hub.pulls)) == (True, 1)


def test_four_at_once_open_one(khlone: Khlone, repository: Path, hub: Hub, path: Path) -> None:
    done = at_once([lambda: khlone("pr", "a", "--json", cwd=repository) for _ in range(4)])

    found = [document(one, "pr") for one in done]
    assert [one["url"] for one in found] == [hub.pulls[0]["url"]] * 4
    assert [one["opened"] for one in found].count(True) == 1
    assert len(hub.pulls) == 1


def test_a_dry_run_asks_for_nothing_that_changes(
    khlone: Khlone, git: Git, repository: Path, remote: Path, hub: Hub, path: Path
) -> None:
    before = refs(git, remote)

    document(khlone("pr", "a", "--dry-run", "--json", cwd=repository), "pr")

    assert (refs(git, remote), hub.pulls) == (before, [])
    assert "create" not in hub.asked


def test_new_of_a_pull_request_takes_its_name_and_target_from_gh(
    khlone: Khlone, git: Git, repository: Path, remote: Path, hub: Hub, path: Path
) -> None:
    git("branch", "release", cwd=repository)
    git("push", "-q", "origin", "release", cwd=repository)
    opened = document(khlone("pr", "a", "--into", "release", "--json", cwd=repository), "pr")
    git("update-ref", f"refs/pull/{opened['number']}/head", oid(git, remote, "a"), cwd=remote)

    done = khlone("new", "review", "--pr", "1", "--branch", "looked-at", "--json", cwd=repository)

    [clone] = json.loads(done.out)["clones"]
    assert (clone["target"], clone["head"]) == ("release", oid(git, path, "HEAD"))
    assert "view" in hub.asked
