"""The commit hooks of the repository look at what lands, as git would have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.merging import called, held, landed, merge, message, oid, worked
from tests.support import Commit, Git, Khlone


def hook(project: Path, name: str, script: str, folder: str = ".git/hooks") -> None:
    """Give the repository a hook."""
    path = project / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def left(project: Path) -> list[str]:
    """The files of messages that are still there."""
    return [path.name for path in (project / ".git" / "khlone" / "stage").glob("message-*")]


@pytest.mark.parametrize("gate", [False, True], ids=["direct", "queue"])
@pytest.mark.parametrize(("way", "source"), [("--merge", "merge"), ("--squash", "squash")])
def test_the_hooks_of_a_message_say_what_the_commit_says(
    khlone: Khlone, git: Git, commit: Commit, project: Path, gate: bool, way: str, source: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    hook(project, "prepare-commit-msg", 'printf "\\nPrepared: %s\\n" "$2" >>"$1"')
    hook(project, "commit-msg", 'grep -q "^Prepared" "$1" && echo "Checked: yes" >>"$1"')
    if gate:
        git("config", "khlone.gate.test", "true", cwd=project)

    found = merge(khlone, project, "a", way)

    assert (landed(found), found["gated"]) == (["a"], gate)
    assert message(git, project, "main").endswith(f"\n\nPrepared: {source}\nChecked: yes\n")
    assert left(project) == []
    assert git("status", "--porcelain", cwd=project) == ""


@pytest.mark.parametrize("gate", [False, True], ids=["direct", "queue"])
def test_a_commit_msg_that_refuses_holds_the_clone_with_its_words_and_the_rest_lands(
    khlone: Khlone, git: Git, commit: Commit, project: Path, gate: bool
) -> None:
    for name in ("bad", "good"):
        worked(khlone, commit, project, name, {f"{name}.txt": "x\n"})
    hook(project, "commit-msg", 'if grep -q bad "$1"; then seq 1000; echo "no ticket" >&2; exit 3; fi')
    if gate:
        git("config", "khlone.gate.test", "true", cwd=project)

    found = merge(khlone, project, "bad", "good", code=1)

    assert (held(found), landed(found)) == ([("bad", "commit-hook-refused")], ["good"])
    said = found["held"][0]["message"]
    assert said.startswith("the hook commit-msg refused bad: it ended with exit 3:\n")
    assert said.endswith("\n  no ticket")
    assert len(said.splitlines()) <= 16
    assert not (project / "bad.txt").exists()
    assert left(project) == []


@pytest.mark.parametrize("way", ["--rebase", "--ff-only"])
def test_what_git_would_call_no_hook_for_lands_without(khlone: Khlone, commit: Commit, project: Path, way: str) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    for name in ("prepare-commit-msg", "commit-msg", "pre-merge-commit", "pre-commit"):
        hook(project, name, "exit 1")

    found = merge(khlone, project, "a", way)

    assert (landed(found), found["gated"]) == (["a"], False)


def test_a_message_that_a_hook_empties_is_refused(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    hook(project, "commit-msg", ': >"$1"')

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "commit-hook-refused")]
    assert "empty message" in found["held"][0]["message"]


def test_hooks_are_left_out_when_the_setting_says_so(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    hook(project, "commit-msg", "exit 1")
    hook(project, "pre-merge-commit", "exit 1")
    git("config", "khlone.merge.hooks", "false", cwd=project)

    assert landed(merge(khlone, project, "a")) == ["a"]


def test_hooks_are_found_where_the_main_worktree_has_them(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "core.hooksPath", "my hooks", cwd=project)
    (project / ".git" / "info" / "exclude").write_text("/my hooks/\n")
    hook(project, "commit-msg", 'echo "Checked: yes" >>"$1"', "my hooks")

    assert landed(merge(khlone, path, "a")) == ["a"]

    assert "Checked: yes\n" in message(git, project, "main")


@pytest.mark.parametrize("scope", ["--all", "--clones"])
def test_hooks_of_khlones_own_are_no_hooks_and_those_behind_them_are(
    khlone: Khlone, git: Git, commit: Commit, project: Path, scope: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    runs = project.parent / "runs"
    assert khlone("hooks", "install", scope, cwd=project).code == 0
    assert landed(merge(khlone, path, "a")) == ["a"]
    assert khlone("hooks", "remove", cwd=project).code == 0
    hook(project, "prepare-commit-msg", f'echo run >>"{runs}"')
    assert khlone("hooks", "install", scope, cwd=project).code == 0

    found = merge(khlone, path, "b", env={"KHLONE_NAME": "a"})

    assert landed(found) == ["b"]
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize(("way", "name"), [("--merge", "pre-merge-commit"), ("--squash", "pre-commit")])
def test_the_hook_of_a_tree_is_a_gate_that_sees_what_lands_in_the_index(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str, name: str
) -> None:
    worked(khlone, commit, project, "good", {"good.txt": "x\n"})
    worked(khlone, commit, project, "bad", {"bad.txt": "x\n"})
    seen = project.parent / "seen"
    hook(project, name, f'git diff --cached --name-only >>"{seen}"; pwd >>"{seen}"; ! test -e bad.txt')
    old = oid(git, project, "main")

    good = merge(khlone, project, "good", way)
    said = seen.read_text().splitlines()
    bad = merge(khlone, project, "bad", way, code=5)

    assert (landed(good), good["gated"], good["notes"]) == (["good"], True, [])
    assert said[0] == "good.txt"
    assert Path(said[1]) != project
    assert len(said) == 2
    assert held(bad) == [("bad", "gate-failed")]
    assert f"gate '{name}' refused bad" in bad["held"][0]["message"]
    assert oid(git, project, "main^1") == old
    assert landed(merge(khlone, project, "bad", way, "--no-gate")) == ["bad"]


def test_clones_that_land_in_different_ways_are_tested_apart(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": "x\n"})
    hook(project, "pre-merge-commit", "! test -e a.txt")
    assert khlone("queue", "add", "a", cwd=project).code == 0
    assert khlone("queue", "add", "b", "--squash", cwd=project).code == 0

    khlone("queue", "run", cwd=project)

    assert git("log", "--format=%s", "-1", "main", cwd=project) == "work of b\n"
    assert not (project / "a.txt").exists()


def test_it_is_looked_for_hooks_once_however_many_land(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    git("config", "core.hooksPath", "my hooks", cwd=project)
    (project / ".git" / "info" / "exclude").write_text("/my hooks/\n")
    hook(project, "commit-msg", 'echo "Checked: yes" >>"$1"', "my hooks")
    calls = called(git, project)

    found = merge(khlone, project, *"abc")

    assert landed(found) == ["a", "b", "c"]
    assert sum(any("core" in word and "hookspath" in word for word in words) for words in calls()) == 1
    assert message(git, project, "main").count("Checked: yes\n") == 1


@pytest.mark.parametrize("way", ["--merge", "--squash"])
@pytest.mark.parametrize("later", [False, True])
def test_without_verifying_only_what_git_would_call_then_is_called(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str, later: bool
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    for name in ("commit-msg", "pre-commit", "pre-merge-commit"):
        hook(project, name, "exit 1")
    hook(project, "prepare-commit-msg", 'echo "Prepared: yes" >>"$1"')
    if later:
        assert khlone("merge", "a", way, "--no-verify", "--detach", cwd=project).code == 0

    found = merge(khlone, project, *(["b"] if later else ["b", "a"]), way, code=1)

    assert held(found)[0] == ("b", "commit-hook-refused")
    assert ("a.txt" in git("ls-tree", "--name-only", "main", cwd=project).split()) is later
    if not later:
        assert landed(merge(khlone, project, "a", way, "--no-verify")) == ["a"]
    assert "Prepared: yes\n" in message(git, project, "main")
