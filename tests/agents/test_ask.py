"""`ask`: an agent is asked without a terminal, and what it prints is understood, whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from khlone.loopback import Answer, Habits, Loopback, install_fake_agent
from khlone.operations.asking import Listener
from khlone.profiles import AgentReading
from tests.agents.steps import user_settings
from tests.commands.steps import document, new, refused, show
from tests.commands.test_resources import wait_for
from tests.commands.test_run import project, run, supervisors
from tests.support import KHLONE, Khlone, write

__all__ = ["project", "run"]

SESSION = "0f6e2c1a-1111-2222-3333-444455556666"
USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_read_input_tokens": 3000,
    "cache_creation_input_tokens": 400,
}
RESULT = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "result": "done: 42",
    "session_id": SESSION,
    "usage": USAGE,
    "total_cost_usd": 0.25,
}
INIT = {"type": "system", "subtype": "init", "session_id": SESSION, "model": "m", "mcp_servers": []}
SAID = {"type": "assistant", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}, "session_id": SESSION}

#: Claude Code as it is without a terminal: reads its prompt, writes events, and keeps a record of both.
CLAUDE = """#!{python} -IS
import json, os, sys, time
if "--version" in sys.argv:
    print("2.1.330 (Claude Code)")
    sys.exit(0)
with open({record!r}, "a") as stream:
    stream.write(json.dumps([sys.argv[1:], sys.stdin.read(), os.getcwd()]) + "\\n")
for event in {events!r}:
    print(json.dumps(event), flush=True)
while os.path.exists({hold!r}):
    time.sleep(0.02)
sys.stderr.write("a word on stderr\\n")
sys.exit({code})
"""


class Claude:
    """A `claude` that is first on PATH, what it was asked, and what it will say."""

    def __init__(self, folder: Path) -> None:
        self.record, self.hold, self._folder = folder / "record", folder / "hold", folder
        self.says([INIT, SAID, RESULT])

    def says(self, events: list[dict[str, Any]], code: int = 0) -> None:
        """What it prints from now on, and how it ends."""
        facts = {"record": str(self.record), "events": events, "hold": str(self.hold), "code": code}
        write(self._folder / "bin", {"claude": CLAUDE.format(python=sys.executable, **facts)})
        (self._folder / "bin" / "claude").chmod(0o700)

    def asked(self) -> list[tuple[list[str], str, str]]:
        """(words, stdin, folder) of each call."""
        return [tuple(json.loads(line)) for line in self.record.read_text().splitlines()]


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Claude:
    """The fake, for a user who has a token."""
    monkeypatch.setenv("PATH", str(tmp_path / "claude" / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "fake")
    return Claude(tmp_path / "claude")


def answer(done: Any, code: int = 0) -> Mapping[str, Any]:
    """The answer in the document of `ask`."""
    found = document(done, "ask", code)["answer"]
    assert isinstance(found, dict)
    return found


def test_an_answer_is_printed_and_understood(khlone: Khlone, project: Path, claude: Claude) -> None:
    said = khlone("ask", "one", "what is it?", cwd=project)
    found = document(khlone("ask", "one", "-", "--json", "--", "--model", "x", cwd=project, input="and\nnow?"), "ask")

    path = show(khlone, project, "one")["path"]
    assert (said.code, said.out, said.err) == (0, "done: 42\n", "")
    words = ["-p", "--output-format", "stream-json", "--verbose"]
    assert claude.asked() == [(words, "what is it?", path), ([*words, "--model", "x"], "and\nnow?", path)]
    assert (found["session"]["kind"], found["session"]["exit"]) == ("ask", 0)
    assert found["answer"] == {
        "result": "done: 42",
        "failed": False,
        "session": SESSION,
        "cost_usd": 0.25,
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_read_tokens": 3000,
        "cache_creation_tokens": 400,
        "truncated": False,
    }
    assert '"subtype": "init"' in khlone("logs", "one", cwd=project).out


def test_what_was_used_is_counted_once(khlone: Khlone, project: Path, claude: Claude) -> None:
    for _ in range(2):
        assert khlone("ask", "one", "hello", cwd=project).code == 0

    (used,) = document(khlone("usage", "--json", cwd=project), "usage")["clones"]

    assert (used["requests"], used["input_tokens"], used["output_tokens"]) == (2, 200, 40)
    assert used["cost_usd"] == 0.5


def test_it_goes_on_with_the_session_of_the_last_answer_or_a_named_one(
    khlone: Khlone, project: Path, claude: Claude
) -> None:
    for words in (("--resume", "more"), ("--last",)):
        found = refused(khlone("ask", "one", *words, "--json", cwd=project), "no-such-session")
        assert found["hint"] == "git khlone ask one PROMPT asks its agent"
    khlone("ask", "one", "first", cwd=project)
    khlone("run", "one", "--", "true", cwd=project)

    khlone("ask", "one", "--resume", "second", cwd=project)
    khlone("ask", "one", "--session", "other", "third", cwd=project)

    resumed = [words[words.index("--resume") + 1] for words, _, _ in claude.asked() if "--resume" in words]
    assert resumed == [SESSION, "other"]
    assert [prompt for _, prompt, _ in claude.asked()] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("events", "code", "ends_with", "failed", "result"),
    [
        ([INIT, {**RESULT, "is_error": True, "result": "API Error: 401"}], 1, 1, True, "API Error: 401"),
        ([INIT, {**RESULT, "is_error": True, "result": "API Error: 529"}], 0, 1, True, "API Error: 529"),
        ([INIT, SAID], 0, 1, True, None),
        ([], 0, 1, True, None),
        ([INIT, RESULT], 3, 3, False, "done: 42"),
    ],
)
def test_only_what_the_agent_calls_a_success_is_one(
    khlone: Khlone,
    project: Path,
    claude: Claude,
    events: list[dict[str, Any]],
    code: int,
    ends_with: int,
    failed: bool,
    result: str | None,
) -> None:
    claude.says(events, code)

    found = answer(khlone("ask", "one", "hello", "--json", cwd=project), ends_with)
    plain = khlone("ask", "one", "hello", cwd=project)

    assert (found["failed"], found["result"]) == (failed, result)
    assert plain.code == ends_with
    assert plain.out == ("" if result is None else f"{result}\n")
    assert "the agent of one ended with exit" in plain.err
    assert ("says that it failed" in plain.err) == (failed and result is not None)
    assert ("gave no answer: see git khlone logs one" in plain.err) == (result is None)


def test_one_that_is_asked_detached_is_answered_later(khlone: Khlone, project: Path, claude: Claude) -> None:
    claude.hold.touch()
    asked = document(khlone("ask", "one", "hello", "--detach", "--json", cwd=project), "ask")
    wait_for(lambda: claude.record.exists())

    busy = refused(khlone("ask", "one", "again", "--json", cwd=project), "clone-busy", 75)
    run_busy = khlone("run", "one", "--", "true", cwd=project)
    claude.hold.unlink()
    last = khlone("ask", "one", "--last", cwd=project)

    assert (asked["session"]["state"], asked["answer"]) == ("running", None)
    assert f"session {asked['session']['id']}" in busy["message"]
    assert run_busy.code == 75
    assert (last.code, last.out) == (0, "done: 42\n")
    assert len(claude.asked()) == 1


def test_who_stops_waiting_for_an_answer_stops_the_agent(khlone: Khlone, project: Path, claude: Claude) -> None:
    claude.hold.touch()
    words = [str(KHLONE), "ask", "one", "hello"]
    asking = subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: claude.record.exists())

    asking.send_signal(signal.SIGINT)

    assert asking.wait(timeout=60) == 130
    wait_for(lambda: not supervisors())
    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 143)["sessions"]
    # The second where it was interrupted before it had heard that the session is there.
    assert ended["reason"] in ("it was stopped", "the command that asked for it was interrupted")


def test_a_long_prompt_goes_by_stdin_whole(khlone: Khlone, project: Path, claude: Claude) -> None:
    prompt = "".join(f"line {number}\n" for number in range(60_000))

    assert khlone("ask", "one", "-", cwd=project, input=prompt).code == 0

    assert claude.asked()[0][1] == prompt


PLAIN = """
[agents.plain]
variable = "PLAIN_HOME"
command = "plain"
headless = "--ask {prompt}"
"""


def test_an_agent_that_prints_plain_text_answers_with_that(
    khlone: Khlone, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_settings(PLAIN)
    write(tmp_path / "bin", {"plain": '#!/bin/sh\necho "asked: $1 $2"; echo told >&2; test "$2" = well'})
    (tmp_path / "bin" / "plain").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    new(khlone, project, "two", "--agent", "plain")

    well = answer(khlone("ask", "two", "well", "--json", cwd=project))
    badly = khlone("ask", "two", "it's $bad", cwd=project)
    resumed = refused(khlone("ask", "two", "--session", "x", "more", "--json", cwd=project), "no-headless-mode")

    assert (well["result"], well["failed"], well["session"]) == ("asked: --ask well\n", False, None)
    assert (badly.code, badly.out) == (1, "asked: --ask it's $bad\n")
    assert "go on with a session" in resumed["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "one"),
        ("ask", "one", ""),
        ("ask", "one", "--last", "x"),
        ("ask", "one", "-"),
        ("ask", "one", "--resume", "--session", "x", "hello"),
    ],
)
def test_a_question_that_is_none_is_refused(khlone: Khlone, project: Path, words: tuple[str, ...]) -> None:
    refused(khlone(*words, "--json", cwd=project, input=""), "usage", 2)


def test_a_clone_whose_agent_cannot_be_asked_says_so(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "two", "--agent", "generic")

    refused(khlone("ask", "two", "hello", "--json", cwd=project), "no-headless-mode")
    refused(khlone("ask", "two", "--last", "--json", cwd=project), "no-such-session")


def test_whatever_an_agent_prints_is_no_bug() -> None:
    for content in (b"", b"[]\n", b"{\n", b'{"result": {"a": 1}, "is_error": "x", "usage": 3}\n', b"\xff" * 100_000):
        listener = Listener(AgentReading(output="jsonl", result="result", failed="is_error", usage="usage"))
        for at in range(0, len(content), 7_000):
            listener.feed(content[at : at + 7_000])
        found = listener.answer()
        assert found.failed
        assert found.result in (None, '{"a": 1}')


# -- against a service on loopback ---------------------------------------------------------------


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The services of an agent, and the fake agent that talks to them."""
    with Loopback(respond=lambda body: Answer(text=f"heard: {body['messages'][0]['content']}")) as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", found.accounts.long_lived())
        install_fake_agent(tmp_path / "bin", habits=Habits(forks=True, linger_s=0.1))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        yield found


def test_an_agent_is_asked_through_its_service(khlone: Khlone, project: Path, services: Loopback) -> None:
    found = answer(khlone("ask", "one", "hello", "--json", cwd=project))

    assert len(services.requests("/v1/messages")) == 1
    assert (found["failed"], found["session"] is None, found["result"]) == (False, False, "heard: hello")
    wait_for(lambda: not supervisors())
