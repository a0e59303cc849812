"""A login that an API refuses is named once, and is known until it works again or there is another one."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone.agent_events import has_answered, refusal_of
from khlone.loopback import Loopback, install_fake_agent
from khlone.profiles import AgentReading
from tests.agents.steps import on_path, program
from tests.commands.steps import document, new
from tests.support import KHLONE, Done, Khlone, write

READING = AgentReading(output="jsonl", result="result", failed="is_error", usage="usage")
WORDS = ("claude", "-p", "hello", "--output-format", "stream-json", "--verbose")
TOLD = "was refused by its API"

Environment = dict[str, str | None]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        # As Claude Code 2.1.112 and 2.1.330 have said it.
        ({"type": "result", "is_error": True, "api_error_status": 401, "result": "Failed to authenticate."}, 401),
        ({"type": "result", "is_error": True, "api_error_status": 403}, 403),
        ({"type": "assistant", "error": "authentication_failed", "message": {"id": "1"}}, 0),
        (
            {"type": "assistant", "error": "authentication_failed", "isApiErrorMessage": True, "apiErrorStatus": 401},
            401,
        ),
        ({"type": "error", "error": {"type": "authentication_error", "message": "invalid"}}, 0),
        # As Codex 0.171.0 and OpenCode 1.18.33 have.
        ({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized: no, url: http://x"}}, 401),
        ({"type": "error", "message": "unexpected status 401 Unauthorized: no, url: http://x"}, None),
        ({"type": "turn.failed", "error": {"message": "exceeded retry limit, last status: 429 Too Many"}}, None),
        ({"type": "error", "error": {"name": "APIError", "data": {"statusCode": 401, "isRetryable": False}}}, 401),
        # A client that tries again may find a fresh token.
        ({"type": "system", "subtype": "api_retry", "error_status": 401, "error": "authentication_failed"}, None),
        ({"type": "system", "subtype": "api_error", "error": {"status": 401}}, None),
        ({"type": "result", "is_error": True, "api_error_status": 429}, None),
        ({"type": "user", "error": "authentication_failed"}, None),
        ({"type": "result", "is_error": False, "result": "authentication_failed: 401"}, None),
        ({"type": "result", "api_error_status": "401"}, None),
    ],
)
def test_a_refusal_is_what_the_client_gives_up_on(event: dict[str, Any], status: int | None) -> None:
    assert refusal_of(event) == status


def test_an_answer_is_what_a_model_has_said() -> None:
    said = {"message": {"id": "1", "usage": {"output_tokens": 2}}}

    assert has_answered({"type": "assistant", **said}, READING)
    assert has_answered({"type": "result", "result": "x", "usage": {"output_tokens": 1}}, READING)
    assert not has_answered({"type": "assistant", "isApiErrorMessage": True, **said}, READING)
    assert not has_answered({"type": "result", "is_error": True, "usage": {"output_tokens": 1}}, READING)
    assert not has_answered({"type": "result", "result": "from /help", "usage": {"output_tokens": 0}}, READING)


# -- through the real command, with the fake agent against services on loopback ------------------


@pytest.fixture
def api() -> Iterator[Loopback]:
    """The services."""
    with Loopback() as services:
        yield services


@pytest.fixture
def env(api: Loopback, tmp_path: Path) -> Environment:
    """The environment of a user who is logged in."""
    install_fake_agent(tmp_path / "bin")
    store = Path(os.environ["HOME"], ".claude", ".credentials.json")
    store.parent.mkdir(mode=0o700)
    log_in(api)
    return {**api.environment(), **on_path(tmp_path / "bin"), "FAKE_AGENT_VERSION": "2.1.330"}


def store_of_the_user() -> Path:
    """Where the user's one login is kept."""
    return Path(os.environ["HOME"], ".claude", ".credentials.json")


def log_in(api: Loopback) -> None:
    """What `claude /login` does."""
    fresh = store_of_the_user().with_name("fresh")
    fresh.touch(0o600)
    fresh.write_text(api.accounts.login().credentials())
    fresh.rename(store_of_the_user())


def revoke(api: Loopback) -> None:
    """Make the tokens of that login worth nothing, at the service alone."""
    tokens = json.loads(store_of_the_user().read_bytes())["claudeAiOauth"]
    for name in ("accessToken", "refreshToken"):
        api.accounts.revoke(tokens[name])


def ask(khlone: Khlone, where: Path, name: str, env: Environment) -> Done:
    """One question, whose answer is read by khlone."""
    return khlone("exec", name, "--json", "--", *WORDS, cwd=where, env=env)


def known(khlone: Khlone, where: Path) -> list[dict[str, Any]]:
    """The refused logins that `limits` knows."""
    found = document(khlone("limits", "--json", cwd=where), "limits")["refused"]
    assert isinstance(found, list)
    return found


def findings(khlone: Khlone, where: Path) -> list[dict[str, Any]]:
    """What the doctor says of logins."""
    found = document(khlone("doctor", "--json", cwd=where), "doctor")["findings"]
    return [one for one in found if one["code"] == "login-refused"]


@pytest.fixture
def clones(khlone: Khlone, repository: Path, env: Environment) -> Path:
    """Two clones of the user's login."""
    for name in ("one", "two"):
        new(khlone, repository, name, "--agent", "claude")
    assert ask(khlone, repository, "one", env).code == 0
    return repository


def test_a_revoked_login_is_told_once_and_shown_until_a_new_login(
    khlone: Khlone, clones: Path, env: Environment, api: Loopback
) -> None:
    before = (known(khlone, clones), findings(khlone, clones))
    revoke(api)

    done = [ask(khlone, clones, name, env) for name in ("one", "one", "two")]
    (limit,) = known(khlone, clones)
    text = khlone("limits", cwd=clones).out
    (finding,) = findings(khlone, clones)
    (checked,) = document(khlone("agents", "check", "claude", "--json", cwd=clones, env=env), "agents")["checks"]
    log_in(api)

    assert before == ([], [])
    assert [one.code for one in done] == [1, 1, 1]
    assert [one.err.count(TOLD) for one in done] == [1, 0, 0]
    assert "log in again with claude, outside of clones" in done[0].err
    assert (limit["agent"], limit["status"], limit["variable"]) == ("claude", 401, None)
    assert text.count(TOLD) == 1
    assert (finding["severity"], finding["fix"]) == ("warning", "log in again with claude, outside of clones")
    assert (checked["refused"], checked["message"].count(TOLD)) == (True, 1)
    assert (known(khlone, clones), findings(khlone, clones)) == ([], [])
    assert ask(khlone, clones, "one", env).code == 0


@pytest.mark.parametrize("expired", [True, False])
def test_one_that_could_not_be_refreshed_and_is_gone_by_then_counts_too_and_no_login_at_all_does_not(
    khlone: Khlone, clones: Path, env: Environment, api: Loopback, expired: bool
) -> None:
    tokens = api.accounts.login()
    store_of_the_user().write_text(tokens.credentials(expired=True) if expired else "{}")
    api.accounts.revoke(tokens.refresh)

    done = [ask(khlone, clones, "one", env) for _ in range(2)]

    assert [(one.code, one.err.count(TOLD)) for one in done] == [(1, int(expired)), (1, 0)]
    assert [one["status"] for one in known(khlone, clones)] == [401] * expired
    log_in(api)
    assert known(khlone, clones) == []


def test_an_answer_ends_it(khlone: Khlone, clones: Path, env: Environment, api: Loopback, tmp_path: Path) -> None:
    """One refusal, and the same login works: what the service refused it for is over."""
    refusal = {"type": "result", "is_error": True, "api_error_status": 403, "usage": {"output_tokens": 0}}
    says = f"[ \"$1\" = --version ] && {{ echo 2.1.330; exit; }}; echo '{json.dumps(refusal)}'; exit 1"
    program(tmp_path / "refused", "claude", says)
    failed = ask(khlone, clones, "one", {**env, **on_path(tmp_path / "refused")})
    between = [one["status"] for one in known(khlone, clones)]

    other = khlone("exec", "two", "--json", "--", "claude", "--version", cwd=clones, env=env)
    after_no_answer = [one["status"] for one in known(khlone, clones)]
    worked = ask(khlone, clones, "two", env)

    assert (failed.code, failed.err.count(TOLD), between) == (1, 1, [403])
    assert (other.code, after_no_answer) == (0, [403])
    assert (worked.code, known(khlone, clones)) == (0, [])


def test_many_that_fail_at_once_tell_it_once(
    khlone: Khlone, clones: Path, env: Environment, api: Loopback, tmp_path: Path
) -> None:
    revoke(api)
    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    words = [str(KHLONE), "exec"]
    running = [
        subprocess.Popen(
            [*words, name, "--json", "--", *WORDS],
            env=variables,
            cwd=clones,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "two", "one", "two")
    ]
    said = [one.communicate(timeout=100)[1].decode() for one in running]
    everywhere = khlone("exec", "--all", "--json", "--", *WORDS, cwd=clones, env=env)

    assert [one.returncode for one in running] == [1] * 4
    assert sum(text.count(TOLD) for text in said) == 1, said
    assert everywhere.err.count(TOLD) == 0


def test_a_key_of_one_clone_is_told_as_its_own_and_another_one_ends_that(
    khlone: Khlone, clones: Path, env: Environment, api: Loopback, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(api.accounts.long_lived("somebody"))
    assert khlone("agents", "key", "one", "--file", str(key), cwd=clones).code == 0
    api.accounts.revoke(key.read_text())

    refused = ask(khlone, clones, "one", env)
    other = ask(khlone, clones, "two", env)
    (limit,) = known(khlone, clones)
    (finding,) = findings(khlone, clones)
    machine = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3").read_bytes()
    assert khlone("agents", "key", "one", "--file", str(key), cwd=clones).code == 0

    assert (refused.code, other.code) == (1, 0)
    assert "the login of claude (CLAUDE_CODE_OAUTH_TOKEN of one) was refused" in refused.err
    assert "git khlone agents key one --file FILE" in refused.err
    assert (limit["name"], limit["variable"]) == ("one", "CLAUDE_CODE_OAUTH_TOKEN")
    assert finding["clone"] == "one"
    assert known(khlone, clones) == []
    tokens = json.loads(store_of_the_user().read_bytes())["claudeAiOauth"]
    for secret in (key.read_text(), tokens["accessToken"], tokens["refreshToken"]):
        assert secret.encode() not in machine


@pytest.mark.parametrize(
    "words", [("ask", "one", "hello"), ("run", "one", "--", *WORDS[:3]), ("exec", "one", "--", *WORDS[:3])]
)
def test_every_way_to_start_it_tells_it(
    khlone: Khlone, clones: Path, env: Environment, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Where its output is not read, its session file says it, also that of a session that has ended in a moment."""
    event = {"type": "assistant", "error": "authentication_failed", "isApiErrorMessage": True, "apiErrorStatus": 401}
    result = {"type": "result", "is_error": True, "api_error_status": 401, "result": "no"}
    script = (
        '[ "$1" = --version ] && { echo 2.1.330; exit; }\n'
        'mkdir -p "$CLAUDE_CONFIG_DIR/projects/x"\n'
        f"echo '{json.dumps(event)}' >>\"$CLAUDE_CONFIG_DIR/projects/x/s.jsonl\"\n"
        f"case \"$*\" in *stream-json*) echo '{json.dumps(result)}';; esac; exit 1"
    )
    program(tmp_path / "refused", "claude", script)

    done = khlone(*words, cwd=clones, env={**env, **on_path(tmp_path / "refused")})

    assert done.code == 1
    assert (done.out + done.err).count(TOLD) == 1, done
    assert [one["status"] for one in known(khlone, clones)] == [401]


def test_what_was_refused_before_a_session_began_is_none_of_it(
    khlone: Khlone, clones: Path, env: Environment, tmp_path: Path
) -> None:
    event = {"type": "assistant", "error": "authentication_failed", "apiErrorStatus": 401}
    config = Path(document(khlone("show", "one", "--json", cwd=clones), "show")["clone"]["config_dir"])
    write(config / "projects" / "x", {"s.jsonl": json.dumps(event) + "\n"})
    program(tmp_path / "silent", "claude", 'case "$1" in --version) echo 2.1.330;; *) echo;; esac')

    done = khlone("exec", "one", "--", "claude", "-p", "x", cwd=clones, env={**env, **on_path(tmp_path / "silent")})

    assert (done.code, known(khlone, clones)) == (0, [])


def test_the_doctor_changes_no_database_of_an_older_version(khlone: Khlone, clones: Path) -> None:
    path = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3")
    with sqlite3.connect(path, timeout=60) as connection:
        connection.execute("DROP TABLE refused_logins")
        connection.execute("PRAGMA user_version=4")
    before = path.read_bytes()

    assert findings(khlone, clones) == []
    assert path.read_bytes() == before
    assert known(khlone, clones) == []
    assert path.read_bytes() != before
