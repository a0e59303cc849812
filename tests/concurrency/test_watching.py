"""A loop that polls is slowed down and work is not; memory pressure lets the newest idle session rest, and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from khlone import sessions
from khlone.headroom import Headroom
from khlone.machine import Machine
from khlone.operations import turns, watching
from khlone.operations.watching import Pace, Watch, Watched
from tests.agents.steps import on_path, program
from tests.commands.steps import new
from tests.commands.test_resources import wait_for
from tests.support import KHLONE, Khlone

START = """
import os, select, sys, time
folder = sys.argv[1]
def goes_on():
    return not os.path.exists(folder + "/end")
"""
#: What Node does with a timer that is always due: looks for what is ready, and wakes itself by eight bytes.
SPIN = (
    START
    + """
loop, (reads, writes) = select.epoll(), os.pipe()
loop.register(reads, select.EPOLLIN)
turn = 0
while True:
    turn += 1
    loop.poll(0)
    if turn % 200 == 0:
        os.write(writes, b"12345678")
        os.read(reads, 8)
        if turn % 20000 == 0 and not goes_on():
            break
    if turn % 2000 == 0 and os.path.exists(folder + "/work"):
        with open(folder + "/done", "a") as stream:
            stream.write("x" * 4096)
"""
)
COMPUTE = START + "\nwhile goes_on():\n    sum(number * number for number in range(200000))\n"
#: Reads and writes for real between its steps.
WORK = (
    START
    + """
with open(folder + "/written", "wb") as stream:
    while goes_on():
        sum(range(20000))
        stream.write(b"y" * 2000)
        stream.flush()
        stream.seek(0)
"""
)
#: Polls while it waits for what a child computes.
BUILD = SPIN.replace(
    "loop, (reads",
    "child = os.fork()\nif child == 0:\n    while goes_on():\n        pass\n    os._exit(0)\nloop, (reads",
)
IDLE = START + "\nwhile goes_on():\n    time.sleep(0.2)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where programs find the word to end; it is given at the end."""
    found = tmp_path / "program"
    found.mkdir()
    yield found
    (found / "end").touch()


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str], int]]:
    """Start a program; all are killed at the end."""
    running = []

    def run(code: str) -> int:
        running.append(subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True))
        return running[-1].pid

    yield run
    for one in running:
        os.killpg(one.pid, signal.SIGKILL)
        one.wait()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The machine database of the test's account."""
    found = turns.open_machine(os.environ, lambda _: None)
    yield found
    found.close()


def watch_of(machine: Machine, pid: int, folder: Path, told: list[str]) -> Watch:
    """A watch that is impatient."""
    private = folder / "private"
    (private / "run").mkdir(parents=True, exist_ok=True)
    watched = Watched(session="s", name="one", folder=private, agent="claude", transcripts="*.jsonl", pid=pid)
    pace = Pace(interval_s=0.5, busy_s=2.0, idle_s=0.0, pressure_percent=0.0)
    return Watch(machine, watched, pace, told=told.append)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pause(seconds: float) -> bool:
    """Sleep, for who may not be woken."""
    time.sleep(seconds)
    return False


def guards(pid: int) -> list[int]:
    """Every process that lets this one go on."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_guard = b"KHLONE_SUPERVISES=guard" in (place / "environ").read_bytes().split(b"\0")
            if is_guard and str(pid).encode() in (place / "cmdline").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def stops() -> int:
    """How many processes are written down as stopped, without khlone."""
    path = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3")
    with sqlite3.connect(path, timeout=60) as connection:
        return int(connection.execute("SELECT count(*) FROM stops").fetchone()[0])


def is_stopped(pid: int) -> bool:
    """Whether the kernel says that it is stopped."""
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def test_a_loop_that_polls_is_slowed_down_to_less_than_a_fifth_of_a_core(
    machine: Machine, folder: Path, start: Callable[[str], int]
) -> None:
    pid, told = start(SPIN), list[str]()
    watch = watch_of(machine, pid, folder, told)

    deadline = time.monotonic() + 100
    while watch.slowed is None and time.monotonic() < deadline:
        watch.tick()
        time.sleep(0.5)
    before, began = cpu_s(pid), time.monotonic()
    for _ in range(5):
        watch.slow_down(pause)
        watch.tick()
    share = (cpu_s(pid) - before) / (time.monotonic() - began)
    (folder / "work").touch()
    # Each round is a second: within five of them what has something to do again is let go on.
    rounds = 0
    while watch.slowed is not None and rounds < 5:
        watch.slow_down(pause)
        watch.tick()
        rounds += 1

    assert share < 0.2
    assert (watch.slowed, rounds > 0) == (None, True)
    assert told == [
        f"one: process {pid} polls without end and is slowed down",
        f"one: process {pid} has something to do and goes on",
    ]
    assert machine.stops() == []
    assert not is_stopped(pid)
    watch.close()


@pytest.mark.parametrize("code", [COMPUTE, WORK, BUILD, IDLE], ids=["compute", "work", "build", "idle"])
def test_what_works_is_left_alone(machine: Machine, folder: Path, start: Callable[[str], int], code: str) -> None:
    told: list[str] = []
    watch = watch_of(machine, start(code), folder, told)

    for _ in range(14):
        assert watch.tick()
        time.sleep(0.5)

    assert (watch.slowed, told) == (None, [])
    watch.close()


def test_a_session_that_says_something_is_left_alone(
    machine: Machine, folder: Path, start: Callable[[str], int]
) -> None:
    told: list[str] = []
    watch = watch_of(machine, start(SPIN), folder, told)
    log = folder / "private" / "logs" / "out.log"
    log.parent.mkdir()

    for number in range(14):
        log.write_text("line\n" * number)
        watch.tick()
        time.sleep(0.5)

    assert (watch.slowed, told) == (None, [])
    watch.close()


# -- through the real command -----------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path, folder: Path) -> dict[str, str]:
    """The environment in which `claude` is a program that polls."""
    programs = tmp_path / "programs"
    (programs).mkdir()
    (programs / "spin.py").write_text(SPIN)
    version = 'case "$1" in --version) echo "2.1.330 (Claude Code)"; exit;; esac'
    program(programs, "claude", f"{version}\necho $$ >{folder}/pid\nexec {sys.executable} {programs}/spin.py {folder}")
    return {**os.environ, **on_path(programs)}


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_agent_that_polls_is_slowed_down_and_never_left_behind_stopped(
    khlone: Khlone, repository: Path, folder: Path, agent: dict[str, str], is_killed: bool
) -> None:
    new(khlone, repository, "one", "--agent", "claude")
    for key, value in (("interval", "0.5"), ("busy", "2s")):
        subprocess.run(["git", "config", f"khlone.watch.{key}", value], cwd=repository, check=True)
    with subprocess.Popen(
        [KHLONE, "exec", "one", "--", "claude"],
        cwd=repository,
        env=agent,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as command:
        try:
            wait_for(lambda: (folder / "pid").exists() and bool((folder / "pid").read_text().strip()))
            pid = int((folder / "pid").read_text())
            wait_for(lambda: is_stopped(pid))
            assert len(guards(pid)) == 1
            if is_killed:
                command.kill()
                command.wait()
                # Nobody but the guard is there to let it go on.
                wait_for(lambda: not is_stopped(pid))
                wait_for(lambda: guards(pid) == [])
            else:
                (folder / "work").touch()
                wait_for(lambda: stops() == 0)
        finally:
            (folder / "end").touch()
        assert command.stderr is not None
        told = command.stderr.read().decode()

    assert f"one: process {pid} polls without end and is slowed down" in told
    assert (f"one: process {pid} has something to do and goes on" in told) != is_killed


# -- short of memory --------------------------------------------------------------------------


def test_the_newest_idle_session_rests_while_memory_is_short(
    machine: Machine, folder: Path, start: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_BETWEEN_S", 0.0)
    pids = [start(IDLE), start(IDLE), start(COMPUTE)]
    pressure, told = [0.0], list[str]()
    watches, places = [], contextlib.ExitStack()
    for number, pid in enumerate(pids):
        wish = turns.Wish(name=f"s{number}", session=f"s{number}")
        place = places.enter_context(turns.hold(machine, wish, lambda: lambda *_: None, told=told.append))
        place.started(pid)
        private = folder / f"private{number}"
        (private / "run").mkdir(parents=True)
        of = Watched(session=f"s{number}", name=f"s{number}", folder=private, agent="", transcripts="", pid=pid)
        pace = Pace(interval_s=0.5, busy_s=0.0, idle_s=0.0, pressure_percent=10.0)
        watches.append(Watch(machine, of, pace, place=place, told=told.append, room=lambda: _room(pressure[0])))

    def look(count: int) -> list[bool]:
        for _ in range(count):
            for watch in watches:
                watch.tick()
            time.sleep(0.3)
        return [is_stopped(pid) for pid in pids]

    look(3)
    pressure[0] = 50.0
    first = look(1)
    second = look(4)
    pressure[0] = 0.0
    third = look(6)

    # The newer of the two that are idle rests first; the one that works never does.
    assert told[0] == "s1 rests: memory is short, and it is idle"
    assert first == [False, True, False]
    assert second == [True, True, False]
    assert third == [False, False, False]
    assert machine.stops() == []
    for watch in watches:
        watch.close()
    places.close()


def _room(percent: float) -> Headroom:
    return Headroom(total_bytes=1 << 34, available_bytes=1 << 33, some_percent=percent, full_percent=0.0)


def test_what_a_killed_khlone_has_stopped_the_next_one_lets_go_on(
    machine: Machine, folder: Path, start: Callable[[str], int]
) -> None:
    pid = start(IDLE)
    with machine.transaction() as change:
        change.note_stop("nobody", "s", sessions.identity(pid), "memory")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(pid))

    turns.open_machine(os.environ, lambda _: None).close()

    assert not is_stopped(pid)
    assert not machine.has_forsaken_stops()
