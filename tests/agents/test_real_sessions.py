"""The real Claude Code in detached sessions: asked, gone on with, many at once; what they used is what was served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.agents.test_real_claude import Environment, key, programs, start_as_the_user
from tests.commands.steps import document
from tests.commands.test_resources import wait_for
from tests.commands.test_run import supervisors
from tests.support import Khlone, run_git

__all__ = ["key", "programs"]
pytestmark = pytest.mark.slow

SESSIONS, AT_ONCE = (10, 3) if os.environ.get("KHLONE_TORTURE") else (4, 2)


@pytest.fixture
def api() -> Iterator[Loopback]:
    """The service that it talks to."""
    with Loopback() as found:
        yield found


@pytest.fixture
def env(programs: Path, api: Loopback) -> Environment:
    """The environment of a user whose Claude Code was started before."""
    found: Environment = {**api.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
    start_as_the_user({**found, "ANTHROPIC_API_KEY": real.DUMMY_KEY})
    return found


def make(khlone: Khlone, repository: Path, name: str, key: Path, env: Environment) -> None:
    """A clone whose agent has a key."""
    assert khlone("new", name, "--agent", "claude", cwd=repository, env=env).code == 0
    assert khlone("agents", "key", name, "--file", str(key), cwd=repository, env=env).code == 0


def test_it_is_asked_and_gone_on_with(khlone: Khlone, repository: Path, env: Environment, key: Path) -> None:
    make(khlone, repository, "one", key, env)

    first = document(khlone("ask", "one", "say hello", "--json", cwd=repository, env=env), "ask")
    second = document(khlone("ask", "one", "--resume", "again", "--json", cwd=repository, env=env), "ask")

    for found in (first, second):
        assert (found["session"]["exit"], found["answer"]["failed"]) == (0, False)
        assert found["answer"]["result"] == Answer().text
        assert found["answer"]["output_tokens"] == Answer().tokens
    assert first["answer"]["session"] == second["answer"]["session"] is not None


def test_many_at_once_all_end_well_and_what_they_used_is_what_was_served(
    khlone: Khlone, repository: Path, env: Environment, key: Path, api: Loopback
) -> None:
    run_git("config", "khlone.limits.sessions", str(AT_ONCE), cwd=repository)
    before = api.tally(real.DUMMY_KEY)
    names = [f"w{number}" for number in range(SESSIONS)]
    for name in names:
        make(khlone, repository, name, key, env)
        assert khlone("ask", name, "say hello", "--detach", cwd=repository, env=env).code == 0

    ended = document(khlone("wait", *names, "--json", cwd=repository, env=env), "wait")["sessions"]
    used = document(khlone("usage", "--json", cwd=repository, env=env), "usage")["total"]

    served = api.tally(real.DUMMY_KEY)
    assert {one["name"]: one["exit"] for one in ended} == dict.fromkeys(names, 0)
    assert used["requests"] == served.requests - before.requests
    assert used["input_tokens"] == served.input_tokens - before.input_tokens
    assert used["output_tokens"] == served.output_tokens - before.output_tokens
    wait_for(lambda: not supervisors())
