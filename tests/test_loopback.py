"""The services on loopback and the fake agent: what plugins are tested with has to behave as the real ones do."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from khlone.testing import (
    Accounts,
    Answer,
    Failure,
    Habits,
    KhloneCommand,
    Loopback,
    MakeClone,
    RateLimit,
    Tally,
    install_fake_agent,
)
from tests.commands.steps import at_once

KEY = {"x-api-key": "sk-dummy"}
HELLO = {"model": "m", "stream": False, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def api() -> Iterator[Loopback]:
    """A server that lets anyone ask."""
    with Loopback() as services:
        yield services


def post(
    url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] = KEY
) -> tuple[int, Mapping[str, str], str]:
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    connection.close()
    return found


def events(text: str) -> list[dict[str, Any]]:
    """The contents of a stream's events, each under the name that it was sent by."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    found = [json.loads(content.removeprefix("data: ")) for _, content in blocks]
    assert [name.removeprefix("event: ") for name, _ in blocks] == [one["type"] for one in found]
    return found


# -- answers ---------------------------------------------------------------------------------


def test_a_message_comes_whole_or_word_by_word(api: Loopback) -> None:
    api.plan(*[Answer(text="one two", tools=[("Bash", {"command": "ls"})], input_tokens=7)] * 2)

    _, _, whole = post(api.url, "/v1/messages", HELLO)
    _, headers, stream = post(api.url, "/v1/messages", {**HELLO, "stream": True})

    found = json.loads(whole)
    text, tool = found["content"]
    assert (text["text"], tool["name"], tool["input"]) == ("one two", "Bash", {"command": "ls"})
    assert (found["stop_reason"], found["usage"]) == ("tool_use", {"input_tokens": 7, "output_tokens": 12})
    assert headers["content-type"] == "text/event-stream"
    sent = events(stream)
    assert [one["type"] for one in sent] == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"),
    ]
    assert [one["delta"].get("text") for one in sent if one["type"] == "content_block_delta"] == ["one", " two", None]
    assert json.loads(sent[6]["delta"]["partial_json"]) == {"command": "ls"}


def test_a_response_comes_whole_or_word_by_word(api: Loopback) -> None:
    api.plan(*[Answer(text="one two", tools=[("shell", {"command": ["ls"]})])] * 2)

    _, _, whole = post(api.url, "/v1/responses", HELLO, {"authorization": "Bearer sk-other"})
    _, _, stream = post(api.url, "/v1/responses", {**HELLO, "stream": True}, {"authorization": "Bearer sk-other"})

    said, call = json.loads(whole)["output"]
    assert (said["content"][0]["text"], json.loads(call["arguments"])) == ("one two", {"command": ["ls"]})
    sent = events(stream)
    assert [one["delta"] for one in sent if one["type"] == "response.output_text.delta"] == ["one", " two"]
    assert (sent[0]["type"], sent[-1]["type"]) == ("response.created", "response.completed")
    assert sent[-1]["response"]["usage"]["output_tokens"] == 12
    assert api.tally("sk-other").requests == 2


def test_errors_are_those_that_were_planned_and_then_it_answers_again(api: Loopback) -> None:
    api.plan(Failure(status=429, retry_after_s=3, headers={"x-more": "1"}), Failure(status=529))

    limited, overloaded, well = (post(api.url, "/v1/messages", HELLO) for _ in range(3))

    assert (limited[0], limited[1]["retry-after"], limited[1]["x-more"]) == (429, "3", "1")
    assert json.loads(limited[2])["error"]["type"] == "rate_limit_error"
    assert (overloaded[0], json.loads(overloaded[2])["error"]["type"]) == (529, "overloaded_error")
    assert "retry-after" not in overloaded[1]
    assert well[0] == 200
    assert api.tally("sk-dummy") == Tally(requests=1, input_tokens=21, output_tokens=3, limited=1, failed=1)
    assert [one.status for one in api.requests("/v1/messages")] == [429, 529, 200]


def test_what_is_said_may_depend_on_what_is_asked() -> None:
    def echo(body: Mapping[str, Any]) -> Answer:
        return Answer(text=body["messages"][0]["content"])

    with Loopback(respond=echo) as api:
        assert json.loads(post(api.url, "/v1/messages", HELLO)[2])["content"][0]["text"] == "hello"


@pytest.mark.parametrize(("shared", "other"), [(False, 200), (True, 429)])
def test_a_limit_is_for_each_credential_or_for_all_together(shared: bool, other: int) -> None:
    with Loopback(limit=RateLimit(requests=2, output_tokens=1000), shared_limit=shared) as api:
        first, second, third = (post(api.url, "/v1/messages", HELLO) for _ in range(3))
        someone_else = post(api.url, "/v1/messages", HELLO, {"x-api-key": "sk-else"})

    assert (first[0], second[0], third[0], someone_else[0]) == (200, 200, 429, other)
    assert first[1]["anthropic-ratelimit-requests-limit"] == "2"
    assert [one[1]["anthropic-ratelimit-requests-remaining"] for one in (first, second, third)] == ["1", "0", "0"]
    assert 1 <= int(third[1]["retry-after"]) <= 30
    assert third[1]["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert first[1]["anthropic-ratelimit-output-tokens-limit"] == "1000"
    assert api.tally("sk-dummy").limited == 1


def test_what_was_marked_and_read_before_is_free_until_it_is_another() -> None:
    def asking(system: str, *said: str) -> dict[str, Any]:
        marked = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        return {**HELLO, "system": marked, "messages": [{"role": "user", "content": text} for text in said]}

    with Loopback(caches=True, limit=RateLimit(input_tokens=6000), shared_limit=True) as api:
        bodies = [asking("x" * 16000, "a" * 400), asking("x" * 16000, "b" * 800), asking("y" * 16000, "a" * 400)]
        answers = [post(api.url, "/v1/messages", body) for body in bodies]
        small = post(api.url, "/v1/messages", asking("small", "hello"))

    first, second = (json.loads(one[2])["usage"] for one in answers[:2])
    assert (first["cache_read_input_tokens"], second["cache_read_input_tokens"]) == (
        0,
        first["cache_creation_input_tokens"],
    )
    assert 4000 <= first["cache_creation_input_tokens"] < 4100
    assert second["cache_creation_input_tokens"] == 0
    assert 190 <= second["input_tokens"] < 300
    # The third has nothing in common with them, and the limit has no room for all of it.
    assert [one[0] for one in answers] == [200, 200, 429]
    assert "cache_read_input_tokens" not in json.loads(small[2])["usage"]
    tally = api.tally("sk-dummy")
    assert (tally.cache_read_tokens, tally.cache_creation_tokens) == (second["cache_read_input_tokens"],) * 2


# -- tokens ----------------------------------------------------------------------------------


def ask_with(api: Loopback, token: str) -> int:
    """The status of a message with a token."""
    return post(api.url, "/v1/messages", HELLO, {"authorization": f"Bearer {token}"})[0]


def test_a_refresh_token_works_once_however_many_use_it_at_once(api: Loopback) -> None:
    login = api.accounts.login()
    body = {"grant_type": "refresh_token", "refresh_token": login.refresh}

    tried = at_once([lambda: post(api.url, "/v1/oauth/token", body)] * 8)

    assert sorted(status for status, _, _ in tried) == [200, *[400] * 7]
    (new,) = (json.loads(text) for status, _, text in tried if status == 200)
    assert {json.loads(text)["error"] for status, _, text in tried if status == 400} == {"invalid_grant"}
    assert (ask_with(api, new["access_token"]), ask_with(api, login.access)) == (200, 200)
    assert (api.accounts.refreshes, api.accounts.refused) == (8, 7)
    assert api.tally("someone").requests == 2


def test_tokens_end_by_time_by_revocation_and_not_for_others(api: Loopback) -> None:
    mine, again, long, others = (
        api.accounts.login(),
        api.accounts.login(),
        api.accounts.long_lived(),
        api.accounts.login("other"),
    )

    api.accounts.expire()
    after_expiry = [ask_with(api, token) for token in (mine.access, again.access, long, others.access)]
    refreshed = api.accounts.refresh(mine.refresh)
    post(api.url, "/v1/oauth/revoke", {"token": long})
    after_one = [ask_with(api, token) for token in (refreshed.access if refreshed else "", long, others.access)]
    api.accounts.revoke("someone")
    after_all = [ask_with(api, token) for token in (refreshed.access if refreshed else "", others.access)]

    assert after_expiry == [401, 401, 200, 200]
    assert after_one == [200, 401, 200]
    assert after_all == [401, 200]
    assert api.accounts.refresh(again.refresh) is None


def test_a_key_is_good_until_it_is_revoked_and_no_key_is_none(api: Loopback) -> None:
    assert post(api.url, "/v1/messages", HELLO)[0] == 200

    api.accounts.revoke("sk-dummy")

    assert post(api.url, "/v1/messages", HELLO)[0] == 401
    assert post(api.url, "/v1/messages", HELLO, {})[0] == 401


# -- nothing but loopback --------------------------------------------------------------------


def test_a_program_that_follows_the_environment_reaches_no_other_host(api: Loopback) -> None:
    proxy = api.environment()["HTTPS_PROXY"]
    through_tls = http.client.HTTPSConnection(urlsplit(proxy).netloc, timeout=60)
    through_tls.set_tunnel("example.invalid", 443)
    with pytest.raises(OSError, match="403"):
        through_tls.connect()
    plain = http.client.HTTPConnection(urlsplit(proxy).netloc, timeout=60)
    plain.request("GET", "http://example.invalid/x")

    assert plain.getresponse().status == 403
    assert list(api.refused_hosts) == ["example.invalid", "example.invalid"]
    assert urlsplit(proxy).hostname == "127.0.0.1"


def test_a_fixed_host_is_answered_where_its_certificate_is_trusted(api: Loopback, tmp_path: Path) -> None:
    import ssl

    api.serve_hosts(tmp_path)
    trusting = ssl.create_default_context(cafile=api.environment()["NODE_EXTRA_CA_CERTS"])
    login = api.accounts.login()
    connection = http.client.HTTPSConnection(urlsplit(api.url).netloc, timeout=60, context=trusting)
    connection.set_tunnel("platform.claude.com", 443)

    connection.request("POST", "/v1/oauth/token", json.dumps({"refresh_token": login.refresh}))

    assert connection.getresponse().status == 200
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0


# -- the fake agent --------------------------------------------------------------------------


def start(program: Path, api: Loopback, cwd: Path, *words: str, **variables: object) -> subprocess.Popen[str]:
    """The fake agent, running."""
    environment = {**os.environ, **api.environment(), **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(
        [program, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that it said."""
    out, err = running.communicate(timeout=120)
    return running.returncode, out + err


def several(program: Path, api: Loopback, folder: Path, count: int, **variables: object) -> list[tuple[int, str]]:
    """Many at once, each in a folder of its own; `{n}` in a value is its number."""
    places = [folder / f"place-{number}" for number in range(count)]
    for place in places:
        place.mkdir()
    running = [
        start(
            program,
            api,
            place,
            *("-p", "hello"),
            **{name: str(value).replace("{n}", str(number)) for name, value in variables.items()},
        )
        for number, place in enumerate(places)
    ]
    return [end(one) for one in running]


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.1)


def sessions_in(state: Path) -> int:
    """How many of the sessions that were started a config still knows."""
    return len(json.loads(state.read_bytes())["projects"])


@pytest.mark.parametrize("isolated", [False, True], ids=["shared", "isolated"])
def test_starts_at_once_lose_entries_of_a_shared_config_alone(api: Loopback, tmp_path: Path, isolated: bool) -> None:
    program = install_fake_agent(tmp_path / "bin", habits=Habits(boot_pause_s=0.5, boot_writes=1))
    config = tmp_path / "config" / ("{n}" if isolated else "all")

    done = several(program, api, tmp_path, 6, CLAUDE_CONFIG_DIR=config, ANTHROPIC_API_KEY="sk-dummy")

    assert done == [(0, "hello from loopback\n")] * 6
    known = [sessions_in(path) for path in (tmp_path / "config").glob("*/.claude.json")]
    assert (sum(known) == 6) == isolated
    assert all(path.parent.name == "projects" for path in (tmp_path / "config").glob("*/*/-*"))
    assert len(list((tmp_path / "config").glob("*/projects/*/*.jsonl"))) == 6


@pytest.mark.parametrize(
    ("version", "share", "well"),
    [("2.1.252", "store", 4), ("2.1.252", "link", 1), ("2.1.117", "link", 4), ("2.1.117", "copy", 1)],
)
def test_an_expired_login_is_refreshed_once_or_lost_by_how_it_is_shared(
    api: Loopback, tmp_path: Path, version: str, share: str, well: int
) -> None:
    program = install_fake_agent(tmp_path / "bin", habits=Habits(version=version, boot_writes=0))
    store = tmp_path / "user" / ".credentials.json"
    store.parent.mkdir()
    store.write_text(api.accounts.login().credentials(expired=True))
    for number in range(4):
        own = tmp_path / "config" / str(number) / store.name
        own.parent.mkdir(parents=True)
        if share == "link":
            own.symlink_to(store)
        elif share == "copy":
            own.write_bytes(store.read_bytes())
    named = {"CLAUDE_SECURESTORAGE_CONFIG_DIR": store.parent} if share == "store" else {}

    done = several(program, api, tmp_path, 4, CLAUDE_CONFIG_DIR=tmp_path / "config" / "{n}", **named)

    assert sorted(code for code, _ in done) == [*[0] * well, *[1] * (4 - well)]
    assert sum("could not be refreshed" in text for _, text in done) == 4 - well
    # An old version that came too late reads what the other has written through the link.
    assert api.accounts.refused in (range(4) if (version, share) == ("2.1.117", "link") else (4 - well,))


def test_it_holds_memory_talks_much_and_leaves_a_process_behind(api: Loopback, tmp_path: Path) -> None:
    habits = Habits(memory_bytes=50 << 20, output_bytes=100_000, busy_s=5, forks=True, linger_s=60)
    program = install_fake_agent(tmp_path / "bin", "agent", habits)
    config = tmp_path / "config"

    running = start(program, api, tmp_path, "-p", "hello", CLAUDE_CONFIG_DIR=config, ANTHROPIC_API_KEY="sk-dummy")
    assert running.stdout is not None
    said = running.stdout.read(100_020)
    held = psutil.Process(running.pid).memory_info().rss
    (record,) = (config / "sessions").glob("*.json")
    wait_for((config / "forked.pid").exists)
    left = psutil.Process(int((config / "forked.pid").read_text()))
    wait_for(lambda: psutil.Process(running.pid).cpu_times().user > 0.15)
    running.send_signal(signal.SIGKILL)
    running.wait(60)

    assert said == "hello from loopback\n" + 100_000 * "x"
    assert held > 50 << 20
    assert json.loads(record.read_text())["pid"] == running.pid
    assert (left.is_running(), os.getsid(left.pid) == os.getsid(0), left.ppid() == running.pid) == (True, False, False)
    (config / "forked.pid").unlink()
    left.wait(60)


def test_it_talks_to_loopback_alone(api: Loopback, tmp_path: Path) -> None:
    program = install_fake_agent(tmp_path / "bin")
    where = {"CLAUDE_CONFIG_DIR": tmp_path / "config", "ANTHROPIC_API_KEY": "sk-dummy"}

    away = end(start(program, api, tmp_path, "-p", "x", ANTHROPIC_BASE_URL="http://192.0.2.1/", **where))
    nowhere = end(start(program, api, tmp_path, "-p", "x", ANTHROPIC_BASE_URL="", **where))

    assert (away, nowhere[0]) == ((1, "192.0.2.1 is not loopback\n"), 1)
    assert api.requests() == []


# -- as the author of a plugin uses them -----------------------------------------------------


def test_the_fixtures_run_an_agent_in_a_clone(
    khlone_command: KhloneCommand,
    make_clone: MakeClone,
    khlone_loopback: Loopback,
    khlone_fake_agent: Callable[..., Path],
) -> None:
    khlone_fake_agent("claude", Habits(version="2.1.252"))
    store = Path(os.environ["HOME"], ".claude")
    store.mkdir()
    (store / ".credentials.json").write_text(khlone_loopback.accounts.login("me").credentials(expired=True))
    clone = make_clone("one", "--agent", "claude")

    done = khlone_command("exec", "one", "--", "claude", "-p", "hello")

    assert (done.code, done.out) == (0, "hello from loopback\n")
    assert clone.config_dir is not None
    assert len(list(clone.config_dir.glob("projects/*/*.jsonl"))) == 1
    assert (khlone_loopback.accounts.refreshes, khlone_loopback.tally("me").requests) == (1, 1)
    assert [path.name for path in store.iterdir()] == [".credentials.json"]


def test_a_server_knows_no_account_before_a_login() -> None:
    accounts = Accounts()

    assert accounts.refresh("sk-ant-ort01-loopback-x") is None
    assert accounts.owner("sk-ant-oat01-loopback-x") is None
