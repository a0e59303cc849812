"""What `list`, `show` and `top` say of agents: which one is busy, which is idle, and which waits for a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone import samples
from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.agents.steps import on_path, program
from tests.agents.test_fleet import Subscriber, api, subscriber
from tests.commands.steps import document, new
from tests.commands.test_resources import wait_for
from tests.support import KHLONE, Git, Khlone

__all__ = ["api", "subscriber"]

#: An agent that says what it is told to say of itself, and then ends with its stdin.
SAYS = """
import json, os, pathlib, sys
ticks = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
place = pathlib.Path(os.environ["CLAUDE_CONFIG_DIR"], "sessions")
place.mkdir(exist_ok=True)
known = {"pid": os.getpid(), "procStart": ticks} | json.loads(sys.argv[1])
(place / f"{os.getpid()}.json").write_text(json.dumps(known))
print("up", flush=True)
sys.stdin.read()
"""


class Agents:
    """Agents that run in clones until the test is over."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._running: list[subprocess.Popen[bytes]] = []

    def say(self, name: str, known: object) -> None:
        """Start one that says this of itself."""
        words = [str(KHLONE), "exec", name, "--", sys.executable, "-c", SAYS, json.dumps(known)]
        child = subprocess.Popen(words, cwd=self._project, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"

    def end(self) -> None:
        """End them all."""
        for child in self._running:
            child.communicate(timeout=60)


@pytest.fixture
def agents(repository: Path) -> Iterator[Agents]:
    """None yet."""
    found = Agents(repository)
    yield found
    found.end()


def said(khlone: Khlone, project: Path, name: str) -> list[tuple[Any, Any]]:
    """What the sessions of a clone say, by `show`."""
    clone = document(khlone("show", name, "--json", cwd=project), "show")["clone"]
    return [(one["activity"], one["waiting_for"]) for one in clone["sessions"]]


def cell(khlone: Khlone, project: Path, name: str) -> str:
    """What stands in the column SESSION of the table."""
    head, *rows = khlone("list", cwd=project).out.splitlines()
    (row,) = (one for one in rows if one.split()[0] == name)
    return row[head.index("SESSION") : head.index("PATH")].strip()


def test_who_waits_for_a_person_is_seen_in_the_list(khlone: Khlone, repository: Path, agents: Agents) -> None:
    for name in ("asks", "works", "rests", "empty"):
        new(khlone, repository, name, "--agent", "claude")
    agents.say("asks", {"status": "waiting", "waitingFor": "permission for Bash"})
    agents.say("works", {"status": "busy", "waitingFor": "an old word"})
    agents.say("rests", {"status": "idle"})
    agents.say("rests", {"status": "busy"})

    assert said(khlone, repository, "asks") == [("waiting", "permission for Bash")]
    assert said(khlone, repository, "works") == [("busy", None)]
    assert sorted(said(khlone, repository, "rests")) == [("busy", None), ("idle", None)]
    shown = {name: cell(khlone, repository, name) for name in ("asks", "works", "rests", "empty")}
    assert shown["asks"] == "asks: permission for Bash"
    assert shown["works"] == "busy"
    assert shown["rests"] in ("idle (of 2)", "busy (of 2)")
    assert shown["empty"] == "-"
    assert "(asks: permission for Bash)" in khlone("show", "asks", cwd=repository).out
    rows = document(khlone("top", "--json", cwd=repository), "top")["sessions"]
    assert {(one["name"], one["activity"], one["waiting_for"]) for one in rows} >= {
        ("asks", "waiting", "permission for Bash"),
        ("works", "busy", None),
    }


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({"status": "wait\x1b[31m" + "x" * 200}, "wait [31m" + "x" * 51),
        ({"status": 7}, None),
        ({"status": ["busy"]}, None),
        ({"status": "busy", "procStart": "1"}, None),
        ({"status": "busy", "procStart": None}, None),
        ({"status": "busy", "procStart": {}}, None),
        ({"status": "busy", "pid": 1}, "busy"),
    ],
)
def test_what_an_agent_says_is_no_more_than_its_word(
    khlone: Khlone, repository: Path, agents: Agents, known: dict[str, object], found: str | None
) -> None:
    """A process is known by its start: its own number is another one where it has a pid namespace."""
    new(khlone, repository, "one", "--agent", "claude")
    agents.say("one", known)

    assert said(khlone, repository, "one") == [(found, None)]
    assert "\x1b" not in khlone("list", cwd=repository).out


@pytest.mark.needs_bubblewrap
def test_an_agent_in_a_sandbox_is_seen_too(khlone: Khlone, repository: Path, agents: Agents) -> None:
    new(khlone, repository, "one", "--agent", "claude", "--isolate", "sandbox")
    agents.say("one", {"status": "waiting", "waitingFor": "dialog open"})

    assert ("waiting", "dialog open") in said(khlone, repository, "one")


def test_a_file_that_is_no_session_hides_nothing(khlone: Khlone, repository: Path, agents: Agents) -> None:
    new(khlone, repository, "one", "--agent", "claude")
    agents.say("one", {"status": "idle"})
    config = Path(document(khlone("show", "one", "--json", cwd=repository), "show")["clone"]["config_dir"])
    (config / "sessions" / "0.json").write_bytes(b"{")
    (config / "sessions" / "1.json").write_bytes(b"[]")
    os.mkfifo(config / "sessions" / "2.json")

    assert said(khlone, repository, "one") == [("idle", None)]


#: Works, and asks for one thing and the other, each when there is a file; ends with the last.
ASKS = """
import json, os, pathlib, time
ticks = open("/proc/self/stat").read().rpartition(")")[2].split()[19]
config = pathlib.Path(os.environ["CLAUDE_CONFIG_DIR"])
place = config / "sessions" / f"{os.getpid()}.json"
place.parent.mkdir(exist_ok=True)
def say(**known):
    aside = place.with_name("aside")
    aside.write_text(json.dumps({"pid": os.getpid(), "procStart": ticks} | known))
    aside.rename(place)
def wait_for(number):
    while not (config / str(number)).exists():
        time.sleep(0.02)
say(status="busy")
for number, why in enumerate(["a permission", "a dialog", "a permission"]):
    wait_for(number)
    say(status="waiting", waitingFor=why)
wait_for(3)
say(status="busy")
wait_for(4)
say(status="waiting", waitingFor="a permission")
wait_for(5)
"""


def test_somebody_is_told_once_each_time_that_an_agent_begins_to_wait(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    new(khlone, repository, "one", "--agent", "claude")
    told = tmp_path / "told"
    script = f'echo "$KHLONE_EVENT $KHLONE_NAME $KHLONE_MESSAGE" >>{told}'
    git("config", "khlone.notify.command", f"sh -c '{script}'", cwd=repository)
    git("config", "khlone.notify.events", "waiting", cwd=repository)
    git("config", "khlone.watch.interval", "0.3", cwd=repository)
    (tmp_path / "asks.py").write_text(ASKS)
    version = '[ "$1" != --version ] || { echo "2.1.330 (Claude Code)"; exit; }'
    program(tmp_path, "claude", f'{version}\nexec "{sys.executable}" "{tmp_path}/asks.py"')
    config = Path(document(khlone("show", "one", "--json", cwd=repository), "show")["clone"]["config_dir"])
    expected = []

    words = [str(KHLONE), "exec", "one", "--", "claude"]
    running = subprocess.Popen(words, cwd=repository, env={**os.environ, **on_path(tmp_path)})
    try:
        for number, why in ((0, "a permission"), (1, "a dialog"), (2, "a permission"), (4, "a permission")):
            if number == 4:
                (config / "3").touch()
                wait_for(lambda: said(khlone, repository, "one") == [("busy", None)])
                looked_again(config)
            (config / str(number)).touch()
            expected.append(f"waiting one claude in one waits for you: {why}")
            wait_for(lambda: told.exists() and len(told.read_text().splitlines()) >= len(expected))
        (config / "5").touch()
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        running.wait()

    assert told.read_text().splitlines() == expected


def looked_again(config: Path) -> None:
    """Wait until the watcher has looked twice more, as its samples tell: it has seen what is so by now."""
    folder = config.parent.parent / "run"

    def newest() -> float:
        return max((one.at_s for one in samples.read(folder)), default=0.0)

    for _ in range(2):
        seen = newest()
        wait_for(lambda seen=seen: newest() > seen)  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.needs_tmux
def test_the_real_claude_on_a_terminal_says_that_it_asks(
    khlone: Khlone, repository: Path, tmp_path: Path, api: Loopback, subscriber: Subscriber
) -> None:
    env = subscriber(real.CLAUDE_NEWEST)
    mine = Path(os.environ["HOME"], ".claude.json")
    known = json.loads(mine.read_bytes()) | {"projects": {str(repository): {"hasTrustDialogAccepted": True}}}
    mine.write_text(json.dumps(known))
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=env).code == 0
    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}, "TERM": "screen"}

    def tmux(*words: str) -> None:
        subprocess.run(["tmux", "-f", "/dev/null", "-S", tmp_path / "t", *words], env=variables, check=True, timeout=60)

    def states() -> list[tuple[Any, bool]]:
        return [(state, bool(why)) for state, why in said(khlone, repository, "one")]

    api.plan(Answer(tools=[("Bash", {"command": "touch /etc/khlone-test", "description": "x"})]))
    tmux("new-session", "-d", "-x", "120", "-y", "40", "-c", str(repository), f"'{KHLONE}' exec one -- claude hello")
    try:
        wait_for(lambda: states() == [("waiting", True)])
        assert cell(khlone, repository, "one").startswith("asks: ")
        tmux("send-keys", "Escape")
        wait_for(lambda: states() == [("idle", False)])
    finally:
        tmux("kill-server")
    wait_for(lambda: states() == [])
