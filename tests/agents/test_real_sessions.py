"""The real Claude Code in detached sessions: asked, gone on with, many at once; what they used is what was served."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone.testing import TIER_1, Answer, Loopback, RateLimit
from tests.agents import real
from tests.agents.test_real_claude import Environment, key, programs, start_as_the_user
from tests.commands.steps import document
from tests.commands.test_resources import wait_for
from tests.commands.test_run import supervisors
from tests.support import KHLONE, Khlone, run_git

__all__ = ["key", "programs"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IS_TORTURE = bool(os.environ.get("KHLONE_TORTURE"))
SESSIONS, AT_ONCE = (10, 3) if IS_TORTURE else (4, 2)
#: As many as ask for more than one minute has: of the first tier, or of one that has less, so that fewer will do.
LIMITED, LIMITED_AT_ONCE, TIER = (
    (30, 8, TIER_1) if IS_TORTURE else (4, 3, RateLimit(requests=50, input_tokens=15_000, output_tokens=8_000))
)


@pytest.fixture
def api() -> Iterator[Loopback]:
    """The service that it talks to."""
    with Loopback(caches=True, shared_limit=True) as found:
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


def used_by(khlone: Khlone, repository: Path, name: str) -> dict[str, int]:
    """What `show` says that a clone has used."""
    found = document(khlone("show", name, "--json", cwd=repository), "show")["usage"]
    return {kind: found[kind] for kind in COUNTED}


COUNTED = ("requests", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")


def served(api: Loopback) -> dict[str, int]:
    """The server's own count of the same."""
    tally = api.tally(real.DUMMY_KEY)
    return {kind: getattr(tally, kind) for kind in COUNTED}


def ended_well(khlone: Khlone, repository: Path, env: Environment, names: list[str]) -> None:
    """Wait for all of them, however long the API keeps them waiting."""
    words = [str(KHLONE), "wait", *names, "--json"]
    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    done = subprocess.run(words, cwd=repository, env=variables, capture_output=True, text=True, timeout=800)
    ended = json.loads(done.stdout)["sessions"]
    assert {one["name"]: (one["exit"], one["reason"]) for one in ended} == dict.fromkeys(names, (0, None))
    wait_for(lambda: not supervisors())


def start_all(khlone: Khlone, repository: Path, env: Environment, key: Path, count: int) -> list[str]:
    """A session that was asked something in each of so many clones; their names."""
    names = [f"w{number}" for number in range(count)]
    for name in names:
        make(khlone, repository, name, key, env)
        assert khlone("ask", name, "say hello", "--detach", cwd=repository, env=env).code == 0
    return names


def test_many_at_once_all_end_well_and_what_they_used_is_what_was_served(
    khlone: Khlone, repository: Path, env: Environment, key: Path, api: Loopback
) -> None:
    run_git("config", "khlone.limits.sessions", str(AT_ONCE), cwd=repository)
    before = served(api)

    names = start_all(khlone, repository, env, key, SESSIONS)
    ended_well(khlone, repository, env, names)

    used = [used_by(khlone, repository, name) for name in names]
    total = {kind: sum(one[kind] for one in used) for kind in COUNTED}
    assert total == {kind: count - before[kind] for kind, count in served(api).items()}
    assert all(one["requests"] and one["output_tokens"] for one in used)
    whole = document(khlone("usage", "--json", cwd=repository, env=env), "usage")["total"]
    assert {kind: whole[kind] for kind in COUNTED} == total


def test_more_than_a_minute_of_the_first_tier_allows_all_end_well(
    khlone: Khlone, repository: Path, env: Environment, key: Path, api: Loopback
) -> None:
    run_git("config", "khlone.limits.sessions", str(LIMITED_AT_ONCE), cwd=repository)
    before = served(api)
    api.limit(TIER)

    names = start_all(khlone, repository, env, key, LIMITED)
    ended_well(khlone, repository, env, names)

    tally = api.tally(real.DUMMY_KEY)
    # The limit was met, and the requests that it refused are none that were used.
    assert (tally.limited > 0, tally.failed) == (True, 0)
    assert tally.input_tokens + tally.cache_creation_tokens > (TIER.input_tokens or 0)
    used = [used_by(khlone, repository, name) for name in names]
    total = {kind: sum(one[kind] for one in used) for kind in COUNTED}
    assert total == {kind: count - before[kind] for kind, count in served(api).items()}
    assert total["requests"] == LIMITED
    assert total["cache_read_tokens"] > 0
