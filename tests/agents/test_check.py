"""`agents check` starts each agent in a throw-away clone and says what it found; nothing of the user's changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Accounts
from tests.agents import real
from tests.agents.steps import on_path, program, user_settings
from tests.commands.steps import document, refused, tree
from tests.support import Khlone, write

Environment = dict[str, str | None]

FIR = '[agents.fir]\ncommand = "fir"\nversion = ["--version"]\nvariable = "FIR_HOME"\n'


def checked(khlone: Khlone, where: Path, env: Environment, *names: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What the check says, by agent."""
    done = khlone("agents", "check", *names, "--json", cwd=where, env=env)
    return {one["name"]: one for one in document(done, "agents", code)["checks"]}


def says(folder: Path, name: str, version: str, status: int) -> Environment:
    """An agent that says of itself, by its exit code, whether it is logged in."""
    script = f'case "$*" in *--version*) echo {version};; *) echo "status: $*"; exit {status};; esac'
    program(folder, name, script)
    return dict(on_path(folder))


@pytest.mark.parametrize(("status", "logged_in"), [(0, True), (1, False), (7, None)])
@pytest.mark.parametrize(("name", "version", "login"), [("claude", "2.1.330", "store"), ("codex", "0.169.0", "link")])
def test_an_agent_says_whether_it_is_logged_in(
    khlone: Khlone, repository: Path, tmp_path: Path, name: str, version: str, login: str, status: int, logged_in: Any
) -> None:
    env = says(tmp_path / "bin", name, version, status)

    found = checked(khlone, repository, env, name)[name]

    assert (found["version"], found["started"], found["login"], found["logged_in"]) == (version, True, login, logged_in)
    assert found["why"]
    assert (found["message"] is None) == (logged_in is not None)


def test_it_runs_in_a_clone_of_its_own_that_is_gone_afterwards_and_has_no_way_out(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    user_settings(FIR)
    note = tmp_path / "note"
    program(tmp_path / "bin", "fir", f'env >"{note}"; [ -d "$FIR_HOME" ] && echo fir 1.2')
    own = Path(os.environ["XDG_STATE_HOME"])
    before = tree(Path(os.environ["HOME"])), tree(own), tree(repository)

    found = checked(khlone, repository, dict(on_path(tmp_path / "bin")), "fir")["fir"]

    assert (found["started"], found["logged_in"], found["login"]) == (True, None, "own")
    inside = dict(line.partition("=")[::2] for line in note.read_text().splitlines())
    assert inside["KHLONE_NAME"] == "check"
    assert {inside["HTTPS_PROXY"], inside["http_proxy"]} == {"http://127.0.0.1:9"}
    assert inside["NO_PROXY"] == ""
    assert not Path(inside["FIR_HOME"]).exists()
    assert not Path(inside["KHLONE_PATH"]).exists()
    assert (tree(Path(os.environ["HOME"])), tree(own), tree(repository)) == before


def test_hooks_and_plugins_have_no_part_in_it(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    user_settings(f"{FIR}[hooks]\npost-create = \"touch '{ran}'\"\npre-create = \"touch '{ran}'\"\n")
    program(tmp_path / "bin", "fir", "echo fir 1.2")

    found = checked(khlone, repository, dict(on_path(tmp_path / "bin")), "fir")["fir"]

    assert found["started"]
    assert not ran.exists()


def test_one_that_has_no_words_for_a_moment_is_not_started(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    user_settings('[agents.fir]\ncommand = "fir"\nvariable = "FIR_HOME"\n')
    program(tmp_path / "bin", "fir", f'touch "{tmp_path}/started"')

    found = checked(khlone, repository, dict(on_path(tmp_path / "bin")), "fir")["fir"]

    assert (found["started"], found["logged_in"]) == (None, None)
    assert "not started" in found["message"]
    assert not (tmp_path / "started").exists()


def test_one_that_breaks_is_told_and_the_others_are_checked(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    env = says(tmp_path / "bin", "claude", "2.1.330", 0)
    program(tmp_path / "bin", "codex", "echo it is broken >&2; exit 3")

    found = checked(khlone, repository, env, "claude", "codex", code=1)
    lines = khlone("agents", "check", "claude", "codex", cwd=repository, env=env).out.splitlines()

    assert (found["claude"]["started"], found["codex"]["started"]) == (True, False)
    assert "it is broken" in found["codex"]["message"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["claude", "2.1.330", "yes", "yes"],
        ["codex", "-", "no", "-"],
    ]


def test_a_version_that_shares_no_login_says_what_it_needs(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    env = says(tmp_path / "bin", "claude", "2.1.130", 0)

    without = checked(khlone, repository, env, "claude", code=1)["claude"]
    token = checked(khlone, repository, {**env, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}, "claude")["claude"]

    assert (without["started"], without["login"]) == (False, "key")
    assert "would log other clones out" in without["message"]
    assert (token["started"], token["logged_in"]) == (True, True)


def test_only_installed_ones_are_checked_unless_named(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    env: Environment = {**says(tmp_path / "bin", "claude", "2.1.330", 0)}
    env["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"

    assert list(checked(khlone, repository, env)) == ["claude"]
    assert checked(khlone, repository, env, "opencode", code=1)["opencode"]["message"] == (
        "opencode is not found on PATH"
    )
    refused(khlone("agents", "check", "nobody", "--json", cwd=repository, env=env), "unknown-agent", 2)


@pytest.mark.slow
@pytest.mark.parametrize("version", [real.CLAUDE_NEWEST, real.CLAUDE_OLD])
def test_the_real_claude_says_whether_it_is_logged_in_and_spends_no_token(
    khlone: Khlone, repository: Path, tmp_path_factory: pytest.TempPathFactory, version: str
) -> None:
    programs = real.claude(tmp_path_factory.getbasetemp().parent / "agents", version)
    env: Environment = {"PATH": f"{programs}:{os.environ['PATH']}", "DISABLE_TELEMETRY": "1"}
    out = checked(khlone, repository, env, "claude")["claude"]
    login = Accounts().login().credentials(expired=True)
    state = json.dumps({"hasCompletedOnboarding": True})
    write(Path(os.environ["HOME"]), {".claude/.credentials.json": login, ".claude.json": state})

    into = checked(khlone, repository, env, "claude")["claude"]

    assert (out["version"], out["started"], out["logged_in"]) == (version, True, False)
    assert (into["started"], into["logged_in"], into["message"]) == (True, True, None)
    assert Path(os.environ["HOME"], ".claude", ".credentials.json").read_text() == login
