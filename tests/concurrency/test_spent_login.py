"""Agents that share a login by a link: one renews it when it has run out, and the others wait for that."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agents.steps import program
from tests.commands.steps import document, new
from tests.support import Khlone, run_git

MANY = 4
#: An old Claude Code: renews what has run out, each client with the token that it has read; writes in place.
CLAUDE = """
import json, os, sys, time
if "--version" in sys.argv:
    sys.exit(print("2.1.112 (Claude Code)"))
folder = os.environ["RENEWALS"]
path = os.path.join(os.environ["CLAUDE_CONFIG_DIR"], ".credentials.json")
with open(path) as stream:
    login = json.load(stream)["claudeAiOauth"]
if login["expiresAt"] < time.time() * 1000:
    with open(os.path.join(folder, "renewals"), "a") as stream:
        stream.write(os.environ["KHLONE_NAME"] + "\\n")
    # Where so many are to have read the same, none writes before.
    while sum(1 for _ in open(os.path.join(folder, "renewals"))) < int(os.environ["AT_ONCE"]):
        time.sleep(0.02)
    if os.path.exists(os.path.join(folder, "hang")):
        # As long as nobody else has tried.
        while sum(1 for _ in open(os.path.join(folder, "renewals"))) < 2:
            time.sleep(0.02)
    with open(path, "w") as stream:
        time.sleep(0.2)
        json.dump({"claudeAiOauth": {"accessToken": "new", "expiresAt": (time.time() + 3600) * 1000}}, stream)
print("answered")
"""


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's login that has run out, and the program; the file of the login."""
    (tmp_path / "claude.py").write_text(CLAUDE)
    program(tmp_path / "bin", "claude", f'exec {sys.executable} -IS {tmp_path}/claude.py "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("RENEWALS", str(tmp_path))
    monkeypatch.setenv("AT_ONCE", "1")
    place = Path(os.environ["HOME"], ".claude", ".credentials.json")
    place.parent.mkdir(mode=0o700)
    place.touch(0o600)
    place.write_text(json.dumps({"claudeAiOauth": {"accessToken": "old", "expiresAt": time.time() * 1000 - 1}}))
    return place


def in_all(khlone: Khlone, repository: Path) -> list[dict[str, Any]]:
    """How the agent ended in each of many clones, started at once."""
    for number in range(MANY):
        new(khlone, repository, f"c{number}", "--agent", "claude")
    done = khlone("exec", "--all", "-j", str(MANY), "--json", "--", "claude", "-p", "hello", cwd=repository)
    return list(document(done, "exec")["results"])


def renewals(login: Path) -> list[str]:
    """Who has renewed the login."""
    return Path(os.environ["RENEWALS"], "renewals").read_text().split()


def test_without_the_gate_each_renews_what_has_run_out(
    khlone: Khlone, repository: Path, login: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    run_git("config", "khlone.limits.boot", "0", cwd=repository)
    monkeypatch.setenv("AT_ONCE", str(MANY))

    in_all(khlone, repository)

    assert len(renewals(login)) == MANY


def test_one_renews_a_login_that_has_run_out_and_the_others_find_it_renewed(
    khlone: Khlone, repository: Path, login: Path
) -> None:
    run_git("config", "khlone.limits.boot", "600", cwd=repository)

    results = in_all(khlone, repository)

    assert [(one["exit"], one["stdout"].strip()) for one in results] == [(0, "answered")] * MANY
    assert len(renewals(login)) == 1
    assert json.loads(login.read_text())["claudeAiOauth"]["accessToken"] == "new"


def test_a_session_that_waits_for_it_says_so_and_starts_in_time_all_the_same(
    khlone: Khlone, repository: Path, login: Path
) -> None:
    run_git("config", "khlone.limits.boot", "2", cwd=repository)
    Path(os.environ["RENEWALS"], "hang").touch()
    for name in ("first", "second"):
        new(khlone, repository, name, "--agent", "claude")
    assert khlone("run", "first", "--detach", "--", "claude", cwd=repository).code == 0

    done = khlone("run", "second", "--", "claude", cwd=repository)

    assert (done.code, done.out) == (0, "answered\n"), done
    assert (
        "the start of claude in second waits, number 1 of 1 in line: that of first renews the login first" in done.err
    )
    assert khlone("wait", "first", cwd=repository).code == 0
    assert sorted(renewals(login)) == ["first", "second"]


@pytest.mark.parametrize("why", ["good", "a key"])
def test_a_login_that_is_good_or_not_used_keeps_nobody_waiting(
    khlone: Khlone, repository: Path, login: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    run_git("config", "khlone.limits.boot", "600", cwd=repository)
    monkeypatch.setenv("AT_ONCE", str(MANY))
    if why == "good":
        login.write_text(json.dumps({"claudeAiOauth": {"expiresAt": (time.time() + 3600) * 1000}}))
        results = in_all(khlone, repository)
        assert [one["exit"] for one in results] == [0] * MANY
        assert not Path(os.environ["RENEWALS"], "renewals").exists()
        return
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-dummy")
    in_all(khlone, repository)
    # All were there at once, or none would have gone on.
    assert len(renewals(login)) == MANY
