"""Thirty detached sessions of an agent that behaves like a real one share a machine with room for eight."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from khlone.loopback import Habits, Loopback, install_fake_agent
from tests.commands.steps import document, new
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import supervisors
from tests.support import Khlone, run_git, write

SESSIONS, AT_ONCE = (30, 8) if os.environ.get("KHLONE_TORTURE") else (16, 4)
EACH_MIB = 100

#: The agent, that says when it starts and ends, and does its work once so many have started as can run at once.
AGENT = """#!{python} -IS
import os, subprocess, sys, time
log, hold, real, more, total = {log!r}, {hold!r}, {real!r}, {more}, {total}
name = os.environ["KHLONE_NAME"]
def note(word):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{{word}} {{name}}\\n".encode())
    os.close(descriptor)
def starts():
    with open(log) as stream:
        return [line.split()[1] for line in stream if line.startswith("start ")]
note("start")
mine = starts().index(name) + 1
while len(starts()) < min(total, mine + more) or os.path.exists(hold):
    time.sleep(0.05)
code = subprocess.call([real, *sys.argv[1:]])
note("end")
sys.exit(code)
"""
#: What each in its turn does beside answering.
HABITS: list[Mapping[str, str]] = [
    {},
    {"FAKE_AGENT_FORKS": "1", "FAKE_AGENT_LINGER": "0.5"},
    {"FAKE_AGENT_MEMORY": str(20 << 20)},
    {"FAKE_AGENT_OUTPUT": str(1 << 20)},
    {"FAKE_AGENT_BUSY": "0.3"},
    {"FAKE_AGENT_LINGER": "0.3"},
]


class Sampler:
    """Looks at the leases of the machine again and again, without khlone: how many held, and what they reserved."""

    def __init__(self) -> None:
        self.looks = self.most = self.most_bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        path = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3")
        while not self._end.wait(0.02):
            if not path.exists():
                continue
            connection = sqlite3.connect(path, timeout=60)
            held = connection.execute("SELECT memory FROM leases WHERE state <> 'waiting'").fetchall()
            connection.close()
            self.looks += 1
            self.most = max(self.most, len(held))
            self.most_bytes = max(self.most_bytes, sum(memory for (memory,) in held))


class Fleet:
    """Sessions of the agent in clones of their own, named by their place in the order of asking."""

    def __init__(self, khlone: Khlone, repository: Path, folder: Path) -> None:
        self._khlone, self._repository = khlone, repository
        self.log, self.hold = folder / "log", folder / "hold"
        self.names = [f"w{number:02}" for number in range(SESSIONS)]
        #: Those that are asked for with a higher priority than the others.
        self.urgent = self.names[AT_ONCE::4]
        self.hold.touch()
        real = install_fake_agent(folder / "real", habits=Habits(boot_pause_s=0.01))
        written = AGENT.format(
            python=sys.executable,
            log=str(self.log),
            hold=str(self.hold),
            real=str(real),
            more=AT_ONCE - 1,
            total=SESSIONS,
        )
        write(folder / "bin", {"claude": written})
        (folder / "bin" / "claude").chmod(stat.S_IRWXU)
        os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"

    def limit(self, **limits: object) -> None:
        """Set limits of the repository."""
        for name, value in limits.items():
            run_git("config", f"khlone.limits.{name}", str(value), cwd=self._repository)

    def start(self) -> None:
        """All of them, each once the one before it is in line."""
        for number, name in enumerate(self.names):
            new(self._khlone, self._repository, name)
            priority = str(int(name in self.urgent))
            words = ("run", name, "--detach", "--priority", priority, "--", "claude", "-p", "hello")
            done = self._khlone(*words, cwd=self._repository, env=HABITS[number % len(HABITS)])
            assert done.code == 0, done

    def lines(self) -> list[tuple[str, str]]:
        """(start or end, name) in the order in which it happened."""
        return [(word, name) for word, _, name in (line.partition(" ") for line in self.log.read_text().splitlines())]

    def started(self) -> list[str]:
        """The names in the order of their starts."""
        return [name for word, name in self.lines() if word == "start"] if self.log.exists() else []

    def most(self) -> int:
        """How many ran at once at most, as they say."""
        now = most = 0
        for word, _ in self.lines():
            now += 1 if word == "start" else -1
            most = max(most, now)
        return most


@pytest.fixture
def fleet(khlone: Khlone, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet whose agents talk to loopback; nothing of it is left at the end."""
    with Loopback() as services:
        for name, value in services.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", services.accounts.long_lived())
        monkeypatch.setenv("PATH", os.environ["PATH"])
        folder = tmp_path / "fleet"
        folder.mkdir()
        yield Fleet(khlone, repository, folder)
        khlone("stop", "--all", "--grace", "1", cwd=repository)
        wait_for(lambda: not supervisors())


def marked() -> list[int]:
    """Every process that runs in some clone of this test, by its environment."""
    state = os.environ["XDG_STATE_HOME"].encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = b"XDG_STATE_HOME=" + state in environment
        if ours and any(one.startswith(b"KHLONE_ID=") for one in environment) and alive(int(place.name)):
            found.append(int(place.name))
    return found


@pytest.mark.slow
def test_all_of_many_sessions_end_well_and_never_more_run_than_may(
    khlone: Khlone, repository: Path, fleet: Fleet
) -> None:
    fleet.limit(sessions=AT_ONCE, memoryEach=f"{EACH_MIB}M", memory=f"{AT_ONCE * EACH_MIB}M", pressure=0)

    with Sampler() as seen:
        fleet.start()
        wait_for(lambda: len(fleet.started()) == AT_ONCE)
        clones = document(khlone("list", "--json", cwd=repository), "list")["clones"]
        fleet.hold.unlink()
        ended = document(khlone("wait", *fleet.names, "--json", cwd=repository), "wait")["sessions"]

    states = {one["name"]: (one["sessions"][0]["state"], one["sessions"][0]["reason"]) for one in clones}
    assert [states[name][0] for name in fleet.names] == ["running"] * AT_ONCE + ["waiting"] * (SESSIONS - AT_ONCE)
    line = fleet.urgent + [name for name in fleet.names[AT_ONCE:] if name not in fleet.urgent]
    for place, name in enumerate(line, start=1):
        assert states[name][1].startswith(f"number {place} of {SESSIONS - AT_ONCE} in line: ")
    assert {one["name"]: one["exit"] for one in ended} == dict.fromkeys(fleet.names, 0)
    assert fleet.started() == fleet.names[:AT_ONCE] + line
    assert fleet.most() == AT_ONCE
    assert (seen.most, seen.most_bytes) == (AT_ONCE, AT_ONCE * EACH_MIB << 20)
    assert seen.looks > 50
    wait_for(lambda: not supervisors())
    assert marked() == []


def test_without_limits_more_of_them_run_at_once(khlone: Khlone, repository: Path, fleet: Fleet) -> None:
    """The control: the same agents, held until more of them have started than the limit of the other test allows."""
    fleet.names = fleet.names[: AT_ONCE + 2]
    fleet.limit(pressure=0)

    fleet.start()
    wait_for(lambda: len(fleet.started()) == AT_ONCE + 2)

    assert fleet.most() == AT_ONCE + 2
