"""The real Claude Code, in clones: seeded so that it writes nothing at its start, and kept to its clone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.agents.steps import agent
from tests.agents.test_config_dirs import config_dir, state
from tests.commands.steps import document, new, tree
from tests.support import Khlone

pytestmark = pytest.mark.slow

Environment = dict[str, str | None]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the newest Claude Code, installed once a run."""
    return real.claude(tmp_path_factory.getbasetemp().parent / "agents")


@pytest.fixture
def env(programs: Path) -> Iterator[Environment]:
    """The environment of a user whose Claude Code was started before, so that its file is up to date."""
    with Loopback() as api:
        found: Environment = {**api.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
        start_as_the_user({**found, "ANTHROPIC_API_KEY": real.DUMMY_KEY})
        yield found


@pytest.fixture
def subscriber(programs: Path) -> Iterator[Environment]:
    """The same of a user who is logged in with a subscription."""
    with Loopback() as api:
        store = Path(os.environ["HOME"], ".claude", ".credentials.json")
        store.parent.mkdir(mode=0o700)
        store.touch(0o600)
        store.write_text(api.accounts.login().credentials())
        found: Environment = {**api.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
        start_as_the_user(found)
        yield found


def start_as_the_user(env: Environment) -> None:
    """Start Claude Code outside every clone, once, and be past its first questions."""
    variables = {**os.environ, **{name: value for name, value in env.items() if value}}
    words = ["claude", "-p", "hi"]
    done = subprocess.run(words, env=variables, cwd=os.environ["HOME"], stdin=subprocess.DEVNULL, timeout=100)
    assert done.returncode == 0
    change_state(theme="dark", hasCompletedOnboarding=True)


def change_state(*gone: str, **changed: object) -> None:
    """Change the user's `.claude.json`."""
    mine = Path(os.environ["HOME"], ".claude.json")
    kept = {name: value for name, value in json.loads(mine.read_bytes()).items() if name not in gone}
    mine.write_text(json.dumps({**kept, **changed}))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file with a key that no service knows."""
    path = tmp_path / "key"
    path.write_text(real.DUMMY_KEY)
    path.chmod(0o600)
    return path


def events(text: str) -> list[dict[str, Any]]:
    """The events of a headless run."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_seeded_clone_answers_writes_no_config_and_touches_nothing_of_the_users(
    khlone: Khlone, repository: Path, env: Environment, key: Path
) -> None:
    profile = agent(khlone, repository, "claude", env)
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=env).code == 0
    assert khlone("agents", "key", "one", "--file", str(key), cwd=repository, env=env).code == 0
    place = config_dir(khlone, repository, "one")
    mine = Path(os.environ["HOME"])
    before = (place / ".claude.json").stat().st_ino, (place / ".claude.json").read_bytes(), tree(mine)

    words = ("exec", "one", "--json", "--", "claude", *profile["headless"], "say hello")
    result = document(khlone(*words, cwd=repository, env=env), "exec")["results"][0]

    (end,) = [one for one in events(result["stdout"]) if one["type"] == "result"]
    reading = profile["reading"]
    assert (profile["version"], profile["login"]) == (real.CLAUDE_NEWEST, "store")
    assert (result["exit"], end[reading["failed"]], end[reading["result"]]) == (0, False, Answer().text)
    assert end[reading["usage"]]["output_tokens"] == Answer().tokens
    assert end[reading["cost_usd"]] >= 0
    records = list(place.glob(reading["transcripts"]))
    assert [path.stem for path in records] == [end[reading["session"]]]
    after = (place / ".claude.json").stat().st_ino, (place / ".claude.json").read_bytes(), tree(mine)
    assert after == before


@pytest.mark.needs_strace
@pytest.mark.parametrize(("gone", "renames"), [((), 0), (("cachedExtraUsageDisabledReason",), 1)])
def test_a_clone_of_a_subscriber_replaces_no_config_at_its_first_start(
    khlone: Khlone, repository: Path, tmp_path: Path, subscriber: Environment, gone: tuple[str, ...], renames: int
) -> None:
    change_state(*gone)
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=subscriber).code == 0
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=rename,renameat,renameat2,link,linkat", "-o", str(trace))

    done = khlone("exec", "one", "--", *strace, "claude", "-p", "hi", cwd=repository, env=subscriber)

    assert (done.code, done.out.strip()) == (0, Answer().text), done
    place = config_dir(khlone, repository, "one") / ".claude.json"
    assert len([line for line in trace.read_text().splitlines() if f'"{place}"' in line]) == renames


def test_a_server_that_claude_adds_in_a_clone_reaches_the_user_when_promoted(
    khlone: Khlone, repository: Path, env: Environment, key: Path
) -> None:
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=env).code == 0
    new(khlone, repository, "two", "--agent", "claude")
    add = ("exec", "one", "--", "claude", "mcp", "add")
    assert khlone(*add, "-s", "user", "everywhere", "--", "true", cwd=repository, env=env).code == 0
    assert khlone(*add, "-s", "local", "here", "--", "true", cwd=repository, env=env).code == 0
    mine = Path(os.environ["HOME"], ".claude.json")
    untouched = mine.read_bytes()

    promoted = document(khlone("agents", "promote", "one", "--json", cwd=repository, env=env), "agents")["changes"]
    refreshed = document(khlone("agents", "refresh", "two", "--json", cwd=repository, env=env), "agents")["changes"]

    assert b"everywhere" not in untouched
    keys = ["mcpServers.everywhere", f"projects.{repository}.mcpServers.here"]
    assert sorted(one["key"] for one in promoted) == keys
    found = json.loads(mine.read_bytes())
    assert list(found["mcpServers"]) == ["everywhere"]
    assert list(found["projects"][str(repository)]["mcpServers"]) == ["here"]
    assert {*keys} <= {one["key"] for one in refreshed}
    listed = khlone("exec", "two", "--", "claude", "mcp", "get", "here", cwd=repository, env=env)
    assert (listed.code, "here" in listed.out) == (0, True), listed
    assert "everywhere" in state(config_dir(khlone, repository, "two"))["mcpServers"]
