"""Hooks that git's configuration names (git 2.54 and later) do not run in khlone's own calls of git."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from khlone import discovery
from khlone.config_hooks import ConfigHooks
from khlone.repository import Repository
from tests.commands.steps import document, new
from tests.support import Git, Khlone, make_commit

#: Asks or sets up; runs no hook in any version of git.
HARMLESS = {"rev-parse", "config", "version", "init"}
PLACES = [*("system", "global", "local", "worktree", "include", "include-if", "chain", "home")]
NAMES = ["check", "two words", "Upper.Case", "a=b", 'quo"te', "back\\slash", "ü", "--force", "hook.event"]


def hook(name: str, command: str = "true", event: str = "reference-transaction") -> str:
    """A section of a configuration file that names a hook."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'[hook "{quoted}"]\n\tevent = {event}\n\tcommand = "{command}"\n'


def put(git: Git, repository: Path, place: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a section where git finds it."""
    config = repository / ".git/config"
    if place == "system":
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "0")
        monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(repository.parent / "system"))
        (repository.parent / "system").write_text(text)
    elif place == "global":
        with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as stream:
            stream.write(text)
    elif place == "local":
        config.write_text(config.read_text() + text)
    elif place == "worktree":
        git("config", "extensions.worktreeConfig", "true", cwd=repository)
        (repository / ".git/config.worktree").write_text(text)
    elif place == "home":
        Path(os.environ["HOME"], "more").write_text(text)
        git("config", "include.path", "~/more", cwd=repository)
    else:
        (repository.parent / "more").write_text(text)
        last = repository.parent / "more"
        if place == "chain":
            last = repository.parent / "between"
            last.write_text("[include]\n\tpath = more\n")
        key = "includeIf.gitdir:/.path" if place == "include-if" else "include.path"
        git("config", key, str(last), cwd=repository)


def own_calls(log: Path) -> list[tuple[list[str], dict[str, str]]]:
    """Each git that khlone started itself: its words, and the hooks that its command line switches."""
    found: dict[str, tuple[list[str], dict[str, str]]] = {}
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "start" and "/" not in event["sid"]:
            found[event["sid"]] = (event["argv"], {})
        elif event["event"] == "def_param" and event.get("scope") == "command" and event["sid"] in found:
            found[event["sid"]][1][event["param"]] = event["value"]
    return list(found.values())


def traced(git: Git, repository: Path) -> Path:
    """A file in which every git from now on writes what it was started with."""
    log = repository.parent / "trace"
    git("config", "--global", "trace2.configParams", "hook.*", cwd=repository)
    git("config", "--global", "trace2.eventTarget", str(log), cwd=repository)
    return log


def verb_of(words: list[str]) -> str:
    """The git command that was called."""
    at = iter(words[1:])
    for word in at:
        if word in ("-c", "-C", "--git-dir", "--work-tree"):
            next(at)
        elif not word.startswith("-"):
            return word
    return ""


def life(khlone: Khlone, repository: Path) -> None:
    """A clone from its making to the trash and back."""
    clone = new(khlone, repository, "a")
    make_commit(clone, {"a.txt": "a\n"}, "work")
    document(khlone("merge", "a", "--json", cwd=repository), "merge")
    document(khlone("remove", "a", "--json", cwd=repository), "remove")
    document(khlone("restore", "a", "--json", cwd=repository), "restore")
    document(khlone("doctor", "--json", cwd=repository), "doctor")


@pytest.mark.parametrize("place", PLACES)
def test_every_call_of_git_switches_off_the_hooks_that_the_configuration_names(
    place: str, khlone: Khlone, git: Git, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(git, repository, place, hook("check"), monkeypatch)
    log = traced(git, repository)

    life(khlone, repository)

    calls = [(words, off) for words, off in own_calls(log) if any("core.hooksPath" in word for word in words)]
    assert {"update-ref", "reset", "commit-tree"} <= {verb_of(words) for words, _ in calls}
    assert [words for words, off in calls if off.get("hook.check.enabled") != "false"] == []
    others = {verb_of(words) for words, _ in own_calls(log)} - {verb_of(words) for words, _ in calls}
    assert others <= HARMLESS | {"add", "commit"}, "and what the test itself calls"


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_of_an_odd_name_is_switched_off_too(name: str, git: Git, repository: Path) -> None:
    with (repository / ".git/config").open("a") as stream:
        stream.write(hook(name))
    log = traced(git, repository)
    ours = Repository(discovery.discover(repository, os.environ))
    head = git("rev-parse", "HEAD", cwd=repository).strip()

    ours.git("update-ref", "refs/heads/one", head, writes=True)
    ours.cold("status", cwd=repository)

    switched = [off for words, off in own_calls(log) if verb_of(words) in ("update-ref", "status")]
    assert switched == [{f"hook.{name}.enabled": "false"}] * 2
    assert ours.git("config", f"hook.{name}.enabled").text == "false\n"


def test_a_repository_without_such_hooks_is_not_asked_for_them(khlone: Khlone, git: Git, repository: Path) -> None:
    git("config", "core.hooksPath", "elsewhere", cwd=repository)
    git("config", "include.path", str(repository.parent / "nothing"), cwd=repository)
    log = traced(git, repository)
    asked = ConfigHooks(repository / ".git", os.environ)

    ours = Repository(discovery.discover(repository, os.environ))
    ours.git("rev-parse", "HEAD")
    ours.git("status", cwd=repository)

    calls = [words for words, _ in own_calls(log)]
    assert [verb_of(words) for words in calls] == ["rev-parse", "status"]
    assert not any("hook." in word for words in calls for word in words)
    assert asked.names(repository, {}) == []


def test_a_hook_that_comes_meanwhile_is_noticed(git: Git, repository: Path) -> None:
    asked = ConfigHooks(repository / ".git", os.environ)
    assert asked.names(repository / ".git", {}) == []

    git("config", "hook.late.command", "true", cwd=repository)

    assert asked.names(repository / ".git", {}) == ["late"]


def test_a_hook_of_one_worktree_and_one_of_a_submodule_are_noticed(git: Git, repository: Path, tmp_path: Path) -> None:
    git("worktree", "add", "-q", "../linked", cwd=repository)
    git("config", "extensions.worktreeConfig", "true", cwd=repository)
    git("config", "--worktree", "hook.there.command", "true", cwd=tmp_path / "linked")
    git("init", "-q", str(tmp_path / "sub"), cwd=tmp_path)
    git("config", "hook.sub.command", "true", cwd=tmp_path / "sub")
    asked = ConfigHooks(repository / ".git", os.environ)

    found = [asked.names(place, {}) for place in (tmp_path / "linked", tmp_path / "sub", repository)]

    assert found == [["there"], ["sub"], []]
    assert asked.names(repository, {"GIT_DIR": str(tmp_path / "sub/.git")}) == ["sub"]


@pytest.mark.parametrize("text", ['[core] bare = false\n[hook "a"] command = true\n', '[hook "a"]\\\n', "[hook\n"])
def test_what_is_not_plain_is_left_to_git(text: str, git: Git, repository: Path) -> None:
    (repository / ".git/config").write_text(text)
    known = git("config", "--name-only", "--get-regexp", r"^hook\.", cwd=repository, check=False).split()

    found = ConfigHooks(repository / ".git", os.environ).names(repository, os.environ)

    assert found == sorted({key.split(".")[1] for key in known})


@pytest.mark.needs_git_254
def test_no_hook_of_the_configuration_runs(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    events = ("post-checkout", "post-merge", "post-index-change", "reference-transaction")
    for number, event in enumerate(events):
        with (repository / ".git/config").open("a") as stream:
            stream.write(hook(f"n={number}" if number % 2 else f"n{number}", f"echo {event} >>{witness}", event))
    document(khlone("new", "a", "--json", cwd=repository), "new")
    assert not witness.exists()

    make_commit(repository.parent / "project.clones/a", {"a.txt": "a\n"}, "work")
    assert witness.exists(), "the control: git itself runs them"
    witness.unlink()
    for words in (["merge", "a"], ["remove", "a"], ["restore", "a"]):
        document(khlone(*words, "--json", cwd=repository), words[0])

    assert not witness.exists()
