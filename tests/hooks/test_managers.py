"""Real hook managers keep working in the main worktree and in clones, before, during and after khlone's hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused
from tests.support import Git, Khlone, make_commit, run_khlone, write

_MINUTES_3_S = 180
CONFIG = """
repos:
- repo: local
  hooks:
  - {id: noted, name: noted, entry: sh -c 'echo "$PWD" >>"$HOOK_LOG"', language: system, always_run: true,
     pass_filenames: false, stages: [pre-commit]}
  - {id: after, name: after, entry: sh -c 'echo after >>"$HOOK_LOG"', language: system, always_run: true,
     pass_filenames: false, stages: [post-commit]}
"""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pre-commit and prek, installed from their packages."""
    folder = tmp_path_factory.mktemp("managers")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=_MINUTES_3_S)
    install = [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", "pre-commit", "prek"]
    subprocess.run(install, check=True, timeout=_MINUTES_3_S)
    return folder / "bin"


@pytest.fixture(scope="session")
def husky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that husky is installed in."""
    folder = tmp_path_factory.mktemp("husky")
    words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "husky"]
    subprocess.run(words, check=True, cwd=folder, timeout=_MINUTES_3_S)
    return folder / "node_modules/husky"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the managers' hooks say that they ran."""
    monkeypatch.setenv("HOOK_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def ran(log: Path, where: Path) -> list[str]:
    """What ran at a commit there: `here` for the worktree, else what was said."""
    log.unlink(missing_ok=True)
    make_commit(where, {"change.txt": os.urandom(8).hex()}, "change")
    lines = log.read_text().splitlines() if log.exists() else []
    return ["here" if line == str(where) else line for line in lines]


def installed(where: Path, scope: str) -> None:
    """khlone's hooks."""
    document(run_khlone("hooks", "install", f"--{scope}", "--json", cwd=where), "hooks")


def noted(project: Path) -> bool:
    """Whether khlone's hooks ran too."""
    return any((project / ".git/khlone/run").glob("*.moves"))


@pytest.fixture
def project(git: Git, repository: Path) -> Path:
    """A repository that asks for two hooks."""
    make_commit(repository, {".pre-commit-config.yaml": CONFIG}, "hooks wanted")
    return repository


@pytest.mark.parametrize("scope", ["all", "clones"])
@pytest.mark.parametrize("manager", ["pre-commit", "prek"])
def test_pre_commit_and_prek_run_before_during_and_after(
    khlone: Khlone, project: Path, programs: Path, log: Path, manager: str, scope: str
) -> None:
    words = (str(programs / manager), "install", "-t", "pre-commit", "-t", "post-commit")
    subprocess.run(words, cwd=project, check=True, capture_output=True, timeout=60)
    clone = new(khlone, project, "one")
    seen = [ran(log, clone)]

    installed(project, scope)
    seen += [ran(log, project), ran(log, clone)]
    was_noted = noted(project)
    khlone("hooks", "remove", cwd=project)
    seen += [ran(log, project), ran(log, clone)]

    assert seen == [["here", "after"]] * 5
    assert was_noted


@pytest.mark.parametrize("manager", ["pre-commit", "prek"])
def test_pre_commit_and_prek_can_be_installed_in_a_clone_after_khlones_hooks(
    khlone: Khlone, project: Path, programs: Path, log: Path, manager: str
) -> None:
    clone = new(khlone, project, "one")
    installed(project, "all")

    words = (str(programs / manager), "install", "-t", "pre-commit", "-t", "post-commit")
    subprocess.run(words, cwd=clone, check=True, capture_output=True, timeout=60)

    during = [ran(log, project), ran(log, clone)]
    states = {hook["name"]: hook["state"] for hook in _hooks(khlone, project)}
    assert during == [["here", "after"]] * 2
    assert noted(project)
    assert states["post-commit"] in ("displaced", "unchained", "installed")
    khlone("hooks", "remove", cwd=project)
    assert [ran(log, project), ran(log, clone)] == during
    assert not list((project / ".git/hooks").glob("*khlone*"))


def _hooks(khlone: Khlone, project: Path) -> list[dict[str, str]]:
    found = document(khlone("hooks", "status", "--json", cwd=project), "hooks")["hooks"]
    assert isinstance(found, list)
    return found


def test_where_clones_have_a_hooks_path_pre_commit_says_so_and_the_main_worktree_serves_them(
    khlone: Khlone, project: Path, programs: Path, log: Path
) -> None:
    clone = new(khlone, project, "one")
    installed(project, "clones")

    inside = subprocess.run([programs / "pre-commit", "install"], cwd=clone, capture_output=True, text=True, timeout=60)
    subprocess.run([programs / "pre-commit", "install"], cwd=project, check=True, capture_output=True, timeout=60)

    assert inside.returncode != 0
    assert "core.hooksPath" in inside.stdout + inside.stderr
    assert ran(log, clone) == ["here"]


@pytest.mark.parametrize("first", [True, False])
def test_prek_installed_inside_a_clone_that_has_a_hooks_path_serves_every_clone(
    khlone: Khlone, project: Path, programs: Path, log: Path, first: bool
) -> None:
    words = (str(programs / "prek"), "install", "-t", "pre-commit", "-t", "post-commit")
    before = project / ".git/hooks/pre-commit"
    write(before.parent, {"pre-commit": '#!/bin/sh\necho mine >>"$HOOK_LOG"\n'})
    before.chmod(0o755)
    if first:
        subprocess.run(words, cwd=project, check=True, capture_output=True, timeout=60)
    one, two = new(khlone, project, "one"), new(khlone, project, "two")
    installed(project, "clones")

    subprocess.run(words, cwd=one, check=True, capture_output=True, timeout=60)

    assert (project / ".git/khlone/hooks/clones/pre-commit.legacy").exists(), "the control: prek moved khlone's aside"
    displaced = {hook["name"]: hook for hook in _hooks(khlone, project)}["post-commit"]
    assert displaced["state"] == "displaced"
    assert displaced["called_by"] == str(project / ".git/khlone/hooks/clones/post-commit")
    assert displaced["called_by"] in khlone("hooks", "status", cwd=project).out
    for clone in (one, two):
        assert sorted(ran(log, clone)) == ["after", "here", "mine"]
    assert noted(project)


def start_husky(husky: Path, worktree: Path) -> None:
    """What `npm install` does in a worktree whose package.json says `prepare: husky`."""
    subprocess.run(["node", husky / "bin.js"], cwd=worktree, check=True, capture_output=True, timeout=60)


def test_husky_runs_before_during_and_after(git: Git, khlone: Khlone, repository: Path, husky: Path, log: Path) -> None:
    make_commit(repository, {".husky/pre-commit": 'echo "$PWD" >>"$HOOK_LOG"\n'}, "husky")
    start_husky(husky, repository)
    clone, without = new(khlone, repository, "one"), new(khlone, repository, "two")
    start_husky(husky, clone)
    places = [repository, clone, without]
    before = [ran(log, place) for place in places]
    config = (repository / ".git/config").read_bytes()

    refusal = refused(khlone("hooks", "install", "--all", "--json", cwd=repository), "hooks-in-the-way")
    installed(repository, "clones")
    during = [ran(log, place) for place in places]
    was_noted = noted(repository)
    khlone("hooks", "remove", cwd=repository)

    assert before == during == [ran(log, place) for place in places] == [["here"], ["here"], []]
    assert "relative" in refusal["message"]
    assert was_noted
    assert (repository / ".git/config").read_bytes() == config


def test_husky_that_comes_later_is_in_force_in_clones(
    git: Git, khlone: Khlone, repository: Path, husky: Path, log: Path
) -> None:
    make_commit(repository, {".husky/pre-commit": 'echo "$PWD" >>"$HOOK_LOG"\n'}, "husky")
    clone = new(khlone, repository, "one")
    installed(repository, "clones")

    start_husky(husky, clone)

    assert ran(log, clone) == ["here"]


def test_lefthooks_way_of_keeping_a_hook_is_understood(khlone: Khlone, repository: Path, log: Path) -> None:
    installed(repository, "all")
    folder = repository / ".git/hooks"
    (folder / "post-commit").rename(folder / "post-commit.old")
    write(folder, {"post-commit": '#!/bin/sh\necho lefthook >>"$HOOK_LOG"\n'})
    (folder / "post-commit").chmod(0o755)

    states = {hook["name"]: hook["state"] for hook in _hooks(khlone, repository)}
    khlone("hooks", "remove", cwd=repository)

    assert states["post-commit"] == "displaced"
    assert ran(log, repository) == ["lefthook"]
    assert not (folder / "post-commit.old").exists()
