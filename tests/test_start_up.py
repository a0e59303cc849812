"""What each verb loads: start-up is a feature, so a library comes in only where the path needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from khlone.parser import VERBS
from tests.commands.steps import new
from tests.remotes.forge import fake_forge
from tests.support import Khlone, run_git

#: Third-party packages, and modules of the standard library that cost more than 5 ms.
HEAVY = {
    *("click", "pluggy", "filelock", "psutil", "git", "sqlite3"),
    *("tomlkit", "rich"),
    *("inspect", "asyncio", "dataclasses", "importlib.metadata", "logging", "ctypes", "email", "tomllib"),
}
#: What comes along with a library.
CLICK = {"click", "inspect"}

LOADED: dict[str, tuple[Sequence[str], set[str]]] = {
    "path": (("path", "one"), {"sqlite3"}),
    "list": (("list",), {"sqlite3"}),
    "show": (("show", "one"), {"sqlite3"}),
    "cd": (("cd", "one"), {"sqlite3"}),
    "help": (("help", "agents"), CLICK),
    "uninstall": (("uninstall", "--all", "--dry-run"), {"sqlite3", *CLICK}),
    # These two look at the module of every verb.
    "completion": (("completion", "fish"), {"sqlite3", *CLICK}),
    "setup": (("setup", "--shell", "bash", "--dry-run"), {"sqlite3", *CLICK}),
    "hooks": (("hooks", "status"), {"sqlite3", *CLICK}),
    "env": (("env", "one"), {"sqlite3", "pluggy", "inspect"}),
    "trash": (("trash",), {"sqlite3", *CLICK}),
    "log": (("log",), {"sqlite3", *CLICK}),
    "diff": (("diff", "one"), {"sqlite3", *CLICK}),
    "exec": (("exec", "one", "--", "true"), {"sqlite3", "pluggy", *CLICK}),
    "run": (("run", "one", "--detach", "--", "true"), {"sqlite3", *CLICK}),
    "ask": (("ask", "done", "hello", "--detach"), {"sqlite3", "pluggy", *CLICK}),
    "attach": (("attach", "done", "--detach"), {"sqlite3", "pluggy", *CLICK}),
    "logs": (("logs", "done"), {"sqlite3", *CLICK}),
    "stop": (("stop", "--all"), {"sqlite3", *CLICK}),
    "wait": (("wait", "done"), {"sqlite3", *CLICK}),
    "slot": (("slot", "run", "--", "true"), {"sqlite3", *CLICK}),
    "top": (("top",), {"sqlite3", *CLICK}),
    "usage": (("usage",), {"sqlite3", "pluggy", *CLICK}),
    "limits": (("limits",), {"sqlite3", *CLICK}),
    "new": (("new", "other"), {"sqlite3", "pluggy", "ctypes", *CLICK}),
    "sync": (("sync", "one"), {"sqlite3", "pluggy", *CLICK}),
    "adopt": (("adopt", "../linked"), {"sqlite3", "pluggy", *CLICK}),
    "rename": (("rename", "one", "two"), {"sqlite3", "pluggy", "psutil", "ctypes", *CLICK}),
    "undo": (("undo",), {"sqlite3", "ctypes", *CLICK}),
    "push": (("push", "one"), {"sqlite3", *CLICK}),
    "pr": (("pr", "one", "--dry-run", "--into", "old"), {"sqlite3", *CLICK}),
    "merge": (("merge", "one"), {"sqlite3", "pluggy", *CLICK}),
    "remove": (("remove", "one"), {"sqlite3", "pluggy", "psutil", "ctypes", *CLICK}),
    "restore": (("restore", "gone"), {"sqlite3", "ctypes", *CLICK}),
    "prune": (("prune",), {"sqlite3", *CLICK}),
    "approve": (("approve", "one"), {"sqlite3", *CLICK}),
    "trust": (("trust",), {"sqlite3", "pluggy", *CLICK}),
    "untrust": (("untrust",), {"sqlite3", *CLICK}),
    "hook": (("hook", "run", "post-create", "one"), {"sqlite3", *CLICK}),
    "agents": (("agents",), {"sqlite3", "pluggy", *CLICK}),
    "contention": (("contention", "--fake", "-n", "1"), {"psutil", *CLICK}),
    "plugins": (("plugins",), {"sqlite3", "pluggy", *CLICK}),
    "config": (("config",), {"sqlite3", *CLICK}),
    "conflicts": (("conflicts",), {"sqlite3"}),
    "queue": (("queue",), {"sqlite3", *CLICK}),
    "events": (("events",), {"sqlite3", *CLICK}),
    "doctor": (("doctor",), {"sqlite3", "pluggy", "git", "psutil", "logging", *CLICK}),
}
#: Brought along by what is allowed to be there.
FREE = {"dataclasses", "importlib.metadata", "email", "asyncio", "tomllib", "ctypes", "logging"}
QUICK = {"path", "cd", "list", "show", "conflicts"}


def loaded(where: Path, words: Sequence[str]) -> set[str]:
    """Which heavy modules a fresh process has loaded when a call has ended well."""
    code = f"""
import sys
from khlone.cli import run
code = run({list(words)!r})
print("loaded:", *(set(sys.modules) & set({sorted(HEAVY)!r})), file=sys.__stderr__)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=where, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.fixture
def project(khlone: Khlone, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a clone, a linked worktree, a remote and something in the trash; plugins are cached."""
    new(khlone, repository, "one")
    new(khlone, repository, "gone")
    new(khlone, repository, "done")
    assert khlone("run", "done", "--detach", "--", "true", cwd=repository).code == 0
    assert khlone("wait", "done", cwd=repository).code == 0
    assert khlone("remove", "gone", cwd=repository).code == 0
    run_git("worktree", "add", "-q", "-b", "linked", "../linked", cwd=repository)
    run_git("clone", "-q", "--bare", str(repository), "../origin.git", cwd=repository)
    run_git("branch", "old", "main~", cwd=repository)
    run_git("remote", "add", "origin", "../origin.git", cwd=repository)
    programs = fake_forge(repository.parent / "programs", "gh")
    for name in ("claude", "tmux"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "fake")
    return repository


@pytest.mark.parametrize("verb", LOADED)
def test_a_verb_loads_what_it_needs_and_no_more(project: Path, verb: str) -> None:
    words, allowed = LOADED[verb]

    found = loaded(project, words)

    assert found <= allowed | (set() if verb in QUICK else FREE)


def test_a_list_loads_plugins_where_one_may_add_a_column(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "other-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[khlone]\nother = other\n")
    (info.parent / "other.py").write_text("from khlone import hookimpl\n")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))

    assert "pluggy" in loaded(project, ["list"])
    assert "pluggy" not in loaded(project, ["list", "--json"])
    assert "pluggy" not in loaded(project, ["list", "--no-plugins"])


def test_every_verb_is_looked_at() -> None:
    assert set(LOADED) == set(VERBS)


def test_asking_for_help_loads_click_alone(project: Path) -> None:
    assert loaded(project, ["-h"]) <= CLICK | FREE
