"""Agents that work on while their login is renewed again and again: nobody is logged out but who was revoked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.agents.test_fleet import Subscriber, api, subscriber
from tests.commands.steps import document
from tests.support import KHLONE, Khlone

__all__ = ["api", "subscriber"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS, ROTATIONS, NEW_LOGIN_AT, REVOKED_AT = 12, 20, 8, 14
_WORDS = ("claude", "-p", "--verbose", "--input-format", "stream-json", "--output-format", "stream-json")


class Client:
    """One agent in a clone that is asked again and again; it ends when the block is left."""

    def __init__(self, name: str, repository: Path, env: dict[str, str | None]) -> None:
        self.name = name
        variables = {**os.environ, **{key: value for key, value in env.items() if value is not None}}
        self._process = subprocess.Popen(
            [str(KHLONE), "exec", name, "--", *_WORDS],
            env=variables,
            cwd=repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=120)

    def end(self) -> str:
        """What the command has said until its end, but for the answers."""
        return "".join(self._process.communicate(timeout=120))

    def ask(self) -> None:
        """Put one question, and do not wait for the answer."""
        assert self._process.stdin is not None
        question = {"type": "user", "message": {"role": "user", "content": "hello"}}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["type"] == "result":
                return event
        raise AssertionError(f"{self.name} ended without an answer")


@pytest.fixture
def clients(
    khlone: Khlone, repository: Path, api: Loopback, subscriber: Subscriber, tmp_path: Path
) -> Iterator[list[Client]]:
    """Twelve that run: the first with a token of its own, the others with the user's login."""
    env = subscriber(real.CLAUDE_NEWEST)
    made = document(
        khlone("new", "c", "-n", str(CLIENTS), "--agent", "claude", "--json", cwd=repository, env=env), "new"
    )
    names = [one["name"] for one in made["clones"]]
    key = tmp_path / "token"
    key.touch(0o600)
    key.write_text(api.accounts.long_lived("somebody-else"))
    assert khlone("agents", "key", names[0], "--file", str(key), cwd=repository, env=env).code == 0
    with ExitStack() as running:
        yield [running.enter_context(Client(name, repository, env)) for name in names]


def log_in(api: Loopback) -> None:
    """What `claude /login` does: another login's tokens in the store, and the ones before it are worth nothing."""
    store = Path(os.environ["HOME"], ".claude", ".credentials.json")
    before = json.loads(store.read_bytes())["claudeAiOauth"]
    fresh = store.with_name(".credentials.new")
    fresh.touch(0o600)
    fresh.write_text(api.accounts.login().credentials())
    fresh.rename(store)
    for name in ("accessToken", "refreshToken"):
        api.accounts.revoke(before[name])


def test_twelve_that_work_through_twenty_rotations_a_new_login_and_a_revocation(
    khlone: Khlone, repository: Path, api: Loopback, clients: list[Client], tmp_path: Path
) -> None:
    asked, refused = api.accounts.refreshes, api.accounts.refused
    answers = []
    for rotation in range(ROTATIONS):
        if rotation == NEW_LOGIN_AT:
            log_in(api)
        if rotation == REVOKED_AT:
            api.accounts.revoke((tmp_path / "token").read_text())
        api.accounts.expire()
        for client in clients:
            client.ask()
        answers.append([client.answer() for client in clients])

    failed = [
        (rotation, clients[at].name, one["result"])
        for rotation, found in enumerate(answers)
        for at, one in enumerate(found)
        if one["is_error"]
    ]
    assert {name for _, name, _ in failed} == {clients[0].name}, failed
    assert [rotation for rotation, _, _ in failed] == list(range(REVOKED_AT, ROTATIONS))
    assert {one["result"] for found in answers for one in found if not one["is_error"]} == {Answer().text}
    # One refresh a rotation, whichever clone makes it; with the login linked instead, one of them is left: test_fleet.
    assert (api.accounts.refreshes - asked, api.accounts.refused - refused) == (ROTATIONS, 0)
    store = json.loads(Path(os.environ["HOME"], ".claude", ".credentials.json").read_bytes())["claudeAiOauth"]
    assert store["refreshToken"]
    told = [line for client in clients for line in client.end().splitlines() if "was refused by its API" in line]
    (refused,) = document(khlone("limits", "--json", cwd=repository), "limits")["refused"]
    (finding,) = document(khlone("doctor", "--json", cwd=repository), "doctor")["findings"]
    assert len(told) == 1, told
    assert f"(CLAUDE_CODE_OAUTH_TOKEN of {clients[0].name}) was refused by its API (401)" in told[0]
    assert (refused["name"], refused["status"]) == (clients[0].name, 401)
    assert (finding["code"], finding["clone"]) == ("login-refused", clients[0].name)
