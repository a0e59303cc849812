"""What `push` promises: nothing that the clone never had is taken from its remote, and no password is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import oid, worked
from tests.commands.steps import at_once, document, new, refs, refused
from tests.support import Commit, Git, Khlone, write

pytestmark = pytest.mark.usefixtures("remote")


def push(
    khlone: Khlone, where: Path, *words: str, code: int = 0, env: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """The document of a push that ended with `code`."""
    return document(khlone("push", *words, "--json", cwd=where, env=env), "push", code)


def held(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, code) of each clone that was held."""
    return [(one["name"], one["code"]) for one in found["held"]]


def hook(folder: Path, name: str, script: str) -> Path:
    """Write a hook into a hooks folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_branch_gets_to_its_remote_and_follows_it(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    tip = oid(git, path, "HEAD")

    found = push(khlone, repository, "a")

    expected = {"name": "a", "branch": "a", "remote": "origin", "old": None, "new": tip, "overwritten": False}
    assert found == {"schema": "khlone.push/1", "pushed": [expected], "held": []}
    assert oid(git, remote, "a") == oid(git, repository, "origin/a") == tip
    assert git("rev-parse", "--abbrev-ref", "a@{upstream}", cwd=path) == "origin/a\n"
    assert push(khlone, path)["pushed"][0]["old"] == tip


def test_a_rebased_branch_replaces_what_it_had_pushed(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    old = oid(git, path, "HEAD")
    commit(repository, {"other.txt": "other\n"}, "of main")
    assert khlone("sync", "a", "--rebase", cwd=repository).code == 0

    (done,) = push(khlone, repository, "a")["pushed"]

    assert (done["old"], done["overwritten"]) == (old, True)
    assert oid(git, remote, "a") == oid(git, path, "HEAD") != old


def theirs(git: Git, commit: Commit, remote: Path, folder: Path, branch: str) -> str:
    """Somebody else adds a commit to a branch of the remote."""
    git("clone", "-q", "-b", branch, str(remote), str(folder), cwd=remote.parent)
    made = commit(folder, {"theirs.txt": "theirs\n"}, "of somebody else")
    git("push", "-q", "origin", branch, cwd=folder)
    return made


@pytest.mark.parametrize("seen", [False, True], ids=["not seen", "fetched by anybody"])
@pytest.mark.parametrize("rebased", [False, True])
def test_what_somebody_else_pushed_is_not_overwritten(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path, seen: bool, rebased: bool
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    made = theirs(git, commit, remote, tmp_path / "there", "a")
    if rebased:
        git("commit", "-q", "--amend", "-m", "reworded", cwd=path)
    else:
        commit(path, {"two.txt": "2\n"}, "two")
    if seen:
        git("fetch", "-q", "origin", cwd=repository)

    done = khlone("push", "a", cwd=repository)

    assert done.code == 1
    assert "git fetch origin; in the clone: git rebase origin/a" in done.err
    assert held(push(khlone, repository, "a", code=1)) == [("a", "push-rejected")]
    assert oid(git, remote, "a") == made


def test_force_overwrites_what_was_seen_and_nothing_newer(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    made = theirs(git, commit, remote, tmp_path / "there", "a")
    git("commit", "-q", "--amend", "-m", "reworded", cwd=path)

    unseen = push(khlone, repository, "a", "--force", code=1)
    still = oid(git, remote, "a")
    git("fetch", "-q", "origin", cwd=repository)
    (done,) = push(khlone, repository, "a", "--force")["pushed"]

    assert (held(unseen), still) == ([("a", "push-rejected")], made)
    assert (done["old"], oid(git, remote, "a")) == (made, oid(git, path, "HEAD"))


def test_what_somebody_else_pushed_can_be_brought_in_and_pushed(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    made = theirs(git, commit, remote, tmp_path / "there", "a")
    commit(path, {"two.txt": "2\n"}, "two")
    git("fetch", "-q", "origin", cwd=path)
    git("rebase", "-q", "origin/a", cwd=path)

    push(khlone, repository, "a")

    assert made in git("rev-list", "a", cwd=remote)
    assert oid(git, remote, "a") == oid(git, path, "HEAD")


def test_a_remote_that_only_follows_main_is_asked_what_it_has(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path
) -> None:
    git("config", "remote.origin.fetch", "+refs/heads/main:refs/remotes/origin/main", cwd=repository)
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    old = oid(git, path, "HEAD")
    git("commit", "-q", "--amend", "-m", "reworded", cwd=path)

    again = push(khlone, repository, "a")["pushed"]
    made = theirs(git, commit, remote, tmp_path / "there", "a")
    refused_push = push(khlone, repository, "a", code=1)

    assert [(one["old"], one["overwritten"]) for one in again] == [(old, True)]
    assert held(refused_push) == [("a", "push-rejected")]
    assert oid(git, remote, "a") == made


def test_one_refusal_does_not_keep_the_others_and_atomic_keeps_all(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    for name in ("a", "b", "c"):
        worked(khlone, commit, repository, name, {f"{name}.txt": "text\n"})
    hook(remote / "hooks", "update", '[ "$1" != refs/heads/b ] || { echo "b is closed"; exit 1; }')

    together = push(khlone, repository, "a", "b", "c", "--atomic", code=1)
    none_there = git("branch", "--list", "a", "b", "c", cwd=remote)
    one_by_one = push(khlone, repository, "a", "b", "c", code=1)

    assert together["pushed"] == []
    assert {one["name"] for one in together["held"]} == {"a", "b", "c"}
    assert none_there == ""
    assert [one["name"] for one in one_by_one["pushed"]] == ["a", "c"]
    assert held(one_by_one) == [("b", "push-rejected")]
    assert "b is closed" in one_by_one["held"][0]["message"]
    hook(remote / "hooks", "update", "exit 0")
    assert len(push(khlone, repository, "a", "b", "c", "--atomic")["pushed"]) == 3


def test_a_dry_run_asks_and_changes_nothing(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    worked(khlone, commit, repository, "b", {"one.txt": "1\n"})
    push(khlone, repository, "a")
    made = theirs(git, commit, remote, tmp_path / "there", "a")
    commit(path, {"two.txt": "2\n"}, "two")
    hook(repository / ".git/hooks", "pre-push", f'touch "{tmp_path}/ran"')
    before = refs(git, repository), refs(git, remote), (repository / ".git/config").read_bytes()

    found = push(khlone, repository, "a", "b", "--dry-run", code=1)

    assert held(found) == [("a", "push-rejected")]
    assert [one["name"] for one in found["pushed"]] == ["b"]
    assert (refs(git, repository), refs(git, remote), (repository / ".git/config").read_bytes()) == before
    assert oid(git, remote, "a") == made
    assert not (tmp_path / "ran").exists()


def test_the_hook_pre_push_runs_in_the_clone_where_git_would_run_it(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    hook(
        repository / ".git/hooks",
        "pre-push",
        f'{{ echo "$1"; pwd; cat; }} >"{tmp_path}/seen"; echo "no tests" >&2; exit 1',
    )

    stopped = push(khlone, repository, "a", code=1)
    passed = push(khlone, repository, "a", "--no-verify")

    assert held(stopped) == [("a", "push-rejected")]
    assert "pre-push" in stopped["held"][0]["message"]
    assert "no tests" in stopped["held"][0]["message"]
    name, where, line = (tmp_path / "seen").read_text().splitlines()
    assert (name, where) == ("origin", os.path.realpath(path))
    assert line.split()[1:3] == [oid(git, path, "HEAD"), "refs/heads/a"]
    assert [one["name"] for one in passed["pushed"]] == ["a"]


def test_the_hook_of_a_hooks_folder_that_the_configuration_names_runs_too(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    hook(tmp_path / "hooks", "pre-push", "exit 1")
    git("config", "core.hooksPath", str(tmp_path / "hooks"), cwd=repository)

    assert held(push(khlone, repository, "a", code=1)) == [("a", "push-rejected")]


REMOTES: dict[str, list[str]] = {
    "khlone.remote": ["config", "khlone.remote", "mine"],
    "the branch's own": ["config", "branch.a.pushRemote", "mine"],
    "remote.pushDefault": ["config", "remote.pushDefault", "mine"],
    "the only one": ["remote", "remove", "origin"],
}


@pytest.mark.parametrize("how", REMOTES)
def test_the_remote_is_the_one_that_settings_name(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path, how: str
) -> None:
    git("init", "-q", "--bare", str(tmp_path / "mine.git"), cwd=tmp_path)
    git("remote", "add", "mine", str(tmp_path / "mine.git"), cwd=repository)
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    git(*REMOTES[how], cwd=repository)

    assert push(khlone, repository, "a")["pushed"][0]["remote"] == "mine"

    assert oid(git, tmp_path / "mine.git", "a") == oid(git, path, "HEAD")


def test_a_remote_with_a_relative_path_is_that_of_the_main_worktree(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    git("remote", "set-url", "origin", "../origin.git", cwd=repository)
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})

    push(khlone, path)
    fetched = khlone("sync", "--fetch", cwd=path)

    assert oid(git, remote, "a") == oid(git, path, "HEAD")
    assert fetched.code == 0, fetched


def test_no_remote_an_unknown_one_and_an_address_are_refused(khlone: Khlone, git: Git, repository: Path) -> None:
    new(khlone, repository, "a")

    unknown = push(khlone, repository, "a", "--remote", "nowhere", code=1)
    address = khlone("push", "a", "--remote", "https://u:hunter2@example.invalid/x", cwd=repository)
    git("remote", "remove", "origin", cwd=repository)
    none = push(khlone, repository, "a", code=1)

    assert held(unknown) == held(none) == [("a", "no-remote")]
    assert address.code == 1
    assert "hunter2" not in address.err
    refused(khlone("push", "b", "--json", cwd=repository), "no-such-clone")


def test_a_remote_that_cannot_be_reached_holds_and_shows_no_password(
    khlone: Khlone, git: Git, repository: Path
) -> None:
    new(khlone, repository, "a")
    git("remote", "set-url", "origin", "http://u:hunter2@127.0.0.1:1/x.git", cwd=repository)

    done = khlone("push", "a", "--json", cwd=repository)

    assert held(document(done, "push", 1)) == [("a", "remote-failed")]
    assert "hunter2" not in done.out + done.err


def test_a_hook_that_does_not_end_is_ended(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    hook(repository / ".git/hooks", "pre-push", "exec sleep 1000")
    git("config", "khlone.network.timeout", "1", cwd=repository)

    found = push(khlone, repository, "a", code=1)

    assert held(found) == [("a", "remote-failed")]
    assert git("branch", "--list", "a", cwd=remote) == ""


def test_many_pushes_at_once_all_get_there_and_all_follow(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path
) -> None:
    names = [f"a{number}" for number in range(6)]
    for name in names:
        worked(khlone, commit, repository, name, {f"{name}.txt": "text\n"})

    done = at_once([lambda name=name: khlone("push", name, cwd=repository) for name in names])  # type: ignore[misc]

    assert [one.code for one in done] == [0] * len(names), done
    assert git("branch", "--list", "a*", "--format=%(refname:short)", cwd=remote).split() == names
    followed = git("for-each-ref", "--format=%(upstream:short)", "refs/heads/a*", cwd=repository).split()
    assert followed == [f"origin/{name}" for name in names]


def test_uncommitted_work_stays_where_it_is(khlone: Khlone, git: Git, commit: Commit, repository: Path) -> None:
    path = worked(khlone, commit, repository, "a", {"one.txt": "1\n"})
    write(path, {"one.txt": "edited\n", "two.txt": "untracked\n"})
    before = git("status", "--porcelain", cwd=path)

    push(khlone, repository, "a")

    assert git("status", "--porcelain", cwd=path) == before


@pytest.mark.parametrize(("theirs", "code"), [('"$3"', 0), ('"$(git rev-parse main)"', 1)])
def test_the_same_that_somebody_pushes_at_the_same_time_is_pushed(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, theirs: str, code: int
) -> None:
    """The remote makes the branch between its look at it and its change of it, as another push would."""
    commit(new(khlone, repository, "a"), {"a.txt": "a\n"}, "a")
    hook(remote / "hooks", "update", f'unset GIT_QUARANTINE_PATH\nexec git update-ref "$1" {theirs}')

    done = khlone("push", "a", "--json", cwd=repository)

    found = document(done, "push", code)
    assert [one["name"] for one in found["pushed"]] == (["a"] if code == 0 else [])
    assert held(found) == ([] if code == 0 else [("a", "push-rejected")])
    assert oid(git, remote, "a") == oid(git, repository, "a" if code == 0 else "main")
