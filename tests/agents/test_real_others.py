"""The real Codex and OpenCode through khlone, against a service on loopback: asked, gone on with, and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Answer, Failure, Loopback
from tests.agents import real
from tests.commands.steps import document, tree
from tests.support import Done, Khlone, run_git, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: The package of each, in the newest version that these tests are known to pass with.
PACKAGES = {"codex": "@openai/codex@0.171.0", "opencode": "opencode-ai@1.18.33"}
each = pytest.mark.parametrize("agent", PACKAGES)
ANSWER = Answer(text="said by the loopback")


@pytest.fixture
def api() -> Iterator[Loopback]:
    """The service that they talk to, at the only place that they can reach."""
    with Loopback() as found:
        found.respond = lambda _: ANSWER
        yield found


@pytest.fixture
def env(agent: str, api: Loopback, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The environment of a user whose settings for it name that service."""
    real.require_npm()
    programs = real.npm_install(tmp_path_factory.getbasetemp().parent / "agents", PACKAGES[agent])
    if agent == "codex":
        write(Path(os.environ["HOME"], ".codex"), {"config.toml": _CODEX.format(url=api.url)})
    else:
        model = {"model": "anthropic/claude-sonnet-4-5", "small_model": "anthropic/claude-sonnet-4-5"}
        options = {"baseURL": f"{api.url}/v1", "apiKey": "{env:OPENCODE_API_KEY}"}
        settings = {**model, "share": "disabled", "provider": {"anthropic": {"options": options}}}
        write(Path(os.environ["XDG_CONFIG_HOME"], "opencode"), {"opencode.json": json.dumps(settings)})
    return {**api.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}


_CODEX = """\
model_provider = "loopback"
model = "gpt-5"

[model_providers.loopback]
name = "loopback"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "CODEX_API_KEY"
request_max_retries = 0
stream_max_retries = 0
"""


@pytest.fixture
def clone(khlone: Khlone, repository: Path, tmp_path: Path, agent: str, env: dict[str, str | None]) -> str:
    """A clone whose agent has a key."""
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(real.DUMMY_KEY)
    assert khlone("new", "one", "--agent", agent, cwd=repository, env=env).code == 0
    assert khlone("agents", "key", "one", "--file", str(key), cwd=repository, env=env).code == 0
    return "one"


def users() -> list[object]:
    """Everything of the user's own: kinds, modes and bytes."""
    return [tree(Path(os.environ["HOME"])), tree(Path(os.environ["XDG_CONFIG_HOME"]))]


def used(khlone: Khlone, repository: Path) -> tuple[int, int]:
    """The tokens that khlone has counted."""
    found = document(khlone("show", "one", "--json", cwd=repository), "show")["usage"]
    return found["input_tokens"] + found["cache_read_tokens"], found["output_tokens"]


def served(api: Loopback) -> tuple[int, int]:
    """The tokens that the service has counted."""
    tally = api.tally(real.DUMMY_KEY)
    return tally.input_tokens + tally.cache_read_tokens, tally.output_tokens


@each
def test_the_newest_is_asked_run_and_gone_on_with_and_what_it_has_used_is_what_was_served(
    khlone: Khlone, repository: Path, api: Loopback, env: dict[str, str | None], clone: str, agent: str
) -> None:
    def ask(*words: str) -> dict[str, Any]:
        return dict(document(khlone("ask", clone, *words, "--json", cwd=repository, env=env), "ask"))

    before = users()

    first, at_first = ask("say hello"), served(api)
    second = ask("--resume", "and again")

    for found in (first, second):
        assert (found["session"]["exit"], found["answer"]["failed"]) == (0, False)
        assert found["answer"]["result"] == ANSWER.text
    assert first["answer"]["session"] == second["answer"]["session"] is not None
    assert at_first[0] > 0
    if agent == "codex":
        assert [_tokens(one) for one in (first, second)] == [at_first, _less(served(api), at_first)]
        assert used(khlone, repository) == served(api)
    else:
        # OpenCode asks for a title of the session too, and tells nobody what that has used.
        assert [one["answer"]["output_tokens"] for one in (first, second)] == [ANSWER.tokens] * 2
        assert used(khlone, repository)[1] == 2 * ANSWER.tokens
        assert 0 < used(khlone, repository)[0] <= served(api)[0]
    assert users() == before
    assert run_git("status", "--porcelain", cwd=repository) == ""


def _tokens(found: dict[str, Any]) -> tuple[int, int]:
    answer = found["answer"]
    return answer["input_tokens"] + answer["cache_read_tokens"], answer["output_tokens"]


def _less(whole: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
    return whole[0] - part[0], whole[1] - part[1]


@each
def test_the_newest_answers_through_exec_and_codex_through_run(
    khlone: Khlone, repository: Path, api: Loopback, env: dict[str, str | None], clone: str, agent: str
) -> None:
    words = {"codex": ["exec", "--json", "say hello"], "opencode": ["run", "--format", "json", "say hello"]}[agent]

    def started(*verb: str) -> Done:
        return khlone(*verb, clone, "--", agent, *words, cwd=repository, env=env)

    # OpenCode takes many seconds to start; `ask`, above, is `run` with a prompt.
    done = [started(verb) for verb in ("exec", "run")[: 2 if agent == "codex" else 1]]

    assert {one.code for one in done} == {0}, done
    assert all(ANSWER.text in one.out for one in done)
    assert api.tally(real.DUMMY_KEY).requests >= len(done)


@each
def test_an_api_that_refuses_makes_it_fail_and_the_login_is_named(
    khlone: Khlone, repository: Path, api: Loopback, env: dict[str, str | None], clone: str, agent: str
) -> None:
    api.respond = lambda _: Failure(status=401)

    done = khlone("ask", clone, "say hello", "--json", cwd=repository, env=env)

    found = json.loads(done.out)["answer"]
    assert done.code == 1
    assert (found["failed"], found["result"]) == (True, None)
    told = f"the login of {agent} (" in done.err and "was refused by its API (401)" in done.err
    assert told, done.err
    (login,) = document(khlone("limits", "--json", cwd=repository), "limits")["refused"]
    assert (login["agent"], login["status"]) == (agent, 401)


@pytest.mark.parametrize("agent", ["codex"])
def test_what_codex_runs_by_itself_is_counted_and_a_limit_that_it_tells_in_words_is_kept(
    khlone: Khlone, repository: Path, api: Loopback, env: dict[str, str | None], clone: str
) -> None:
    assert khlone("run", clone, "--", "codex", "exec", "say hello", cwd=repository, env=env).code == 0

    assert used(khlone, repository) == served(api)
    assert served(api)[0] > 0

    api.respond = lambda _: Failure(status=429)
    assert khlone("ask", clone, "say hello", cwd=repository, env=env).code == 1
    (limit,) = document(khlone("limits", "--json", cwd=repository), "limits")["credentials"]
    assert limit["reason"] == "too many requests (429)"


@each
def test_several_at_once_answer_each_from_its_own_config_dir(
    khlone: Khlone, repository: Path, tmp_path: Path, env: dict[str, str | None], agent: str
) -> None:
    count = {"codex": 8, "opencode": 3}[agent]
    words = {"codex": ["exec", "--json", "hello"], "opencode": ["run", "--format", "json", "hello"]}[agent]
    made = document(khlone("new", "c", "-n", str(count), "--agent", agent, "--json", cwd=repository, env=env), "new")[
        "clones"
    ]
    keys = {"CODEX_API_KEY": real.DUMMY_KEY, "OPENCODE_API_KEY": real.DUMMY_KEY}
    before = users()

    given = [f"{name}={value}" for name, value in keys.items()]
    done = khlone(
        "exec", "--all", "-j", str(count), "--json", "--", "env", *given, agent, *words, cwd=repository, env=env
    )

    results = document(done, "exec")["results"]
    assert [one["exit"] for one in results] == [0] * count
    assert all(ANSWER.text in one["stdout"] for one in results)
    assert users() == before
    left = {"codex": "sessions/*/*/*/rollout-*.jsonl", "opencode": "opencode/opencode.db"}[agent]
    assert [len(list(Path(one["config_dir"]).glob(left))) for one in made] == [1] * count
