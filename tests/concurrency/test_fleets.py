"""What has brought fleets of agents down elsewhere, built small: servers that nobody ends, runaways, one leak.

Each is survived: nothing is left, nobody else's process is touched, and the sessions beside it end well.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import document, new
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import attentive, supervisors
from tests.support import Khlone, run_git

#: Starts servers as `dev &` does, and worse: each forked twice, a session of its own, half of them with nothing left of
#: their environment. They write down who they are and where they listen, and stay for ever.
SERVERS = """
import os, socket, sys
folder, count, waits = sys.argv[1], int(sys.argv[2]), sys.argv[3]
name = os.environ["KHLONE_NAME"]
for number in range(count):
    if os.fork():
        os.wait()
        continue
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    code = '''
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", 0)) as server:
    with open(sys.argv[1] + ".new", "w") as stream:
        stream.write(f"{os.getpid()} {server.getsockname()[1]}")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    while True:
        server.accept()
'''
    words = [sys.executable, "-c", code, f"{folder}/{name}-{number}"]
    os.execve(sys.executable, words, {} if number % 2 else dict(os.environ))
while len([one for one in os.listdir(folder) if one.startswith(name + "-") and "." not in one]) < count:
    os.sched_yield()
if waits == "stay":
    while True:
        import time
        time.sleep(1)
"""
#: Turns for ever, deaf to TERM, out of the session of whoever has started it.
RUNAWAYS = SERVERS.replace("while True:\n        server.accept()", "while True:\n        pass")
LEAK = """
import time
held = []
while len(held) < 60:
    held.append(b"x" * (16 << 20))
    time.sleep(0.05)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path, khlone: Khlone, repository: Path) -> Iterator[Path]:
    """Where the processes say who they are; none of them, and no session, is left when the test ends."""
    found = tmp_path / "who"
    found.mkdir()
    yield found
    khlone("stop", "--all", "--grace", "1", cwd=repository)
    for pid in pids(found):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not supervisors())


def pids(folder: Path) -> list[int]:
    """Every process that has said who it is."""
    return [int(path.read_text().split()[0]) for path in folder.iterdir() if "." not in path.name]


def ports(folder: Path) -> list[int]:
    """Where they listen."""
    return [int(path.read_text().split()[1]) for path in folder.iterdir() if "." not in path.name]


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def start(khlone: Khlone, where: Path, names: list[str], *command: str) -> list[dict[str, Any]]:
    """A detached session of the same command in a clone of each name."""
    found = []
    for name in names:
        new(khlone, where, name)
        done = khlone("run", name, "--detach", "--json", "--", *command, cwd=where)
        found.append(dict(document(done, "run")["session"]))
    return found


@pytest.fixture
def bystander(folder: Path) -> Iterator[int]:
    """A server that is none of khlone's, started as the others are."""
    code = SERVERS.replace('name = os.environ["KHLONE_NAME"]', 'name = "bystander"')
    place = folder.with_name("bystander")
    place.mkdir()
    subprocess.run([sys.executable, "-c", code, str(place), "1", "go"], cwd=place, check=True, timeout=60)
    (pid,) = pids(place)
    yield pid
    os.kill(pid, signal.SIGKILL)


def test_servers_that_sessions_have_left_running_end_with_them(
    khlone: Khlone, repository: Path, folder: Path, bystander: int
) -> None:
    names = [f"w{number}" for number in range(5)]

    start(khlone, repository, names, sys.executable, "-c", SERVERS, str(folder), "4", "go")
    ended = document(khlone("wait", *names, "--json", cwd=repository), "wait")["sessions"]

    assert [one["exit"] for one in ended] == [0] * 5
    assert len(pids(folder)) == 20
    assert [pid for pid in pids(folder) if alive(pid)] == []
    assert [port for port in ports(folder) if is_open(port)] == []
    assert alive(bystander)
    assert khlone("remove", *names, cwd=repository).code == 0


@pytest.mark.slow
def test_servers_of_clones_that_are_removed_by_force_are_gone_and_told(
    khlone: Khlone, repository: Path, folder: Path, bystander: int
) -> None:
    names = [f"w{number}" for number in range(3)]
    start(khlone, repository, names, sys.executable, "-c", SERVERS, str(folder), "4", "stay")
    wait_for(lambda: len(pids(folder)) == 12)
    assert all(is_open(port) for port in ports(folder))

    kept = document(khlone("remove", *names, "--json", cwd=repository), "remove", 1)["kept"]
    done = khlone("remove", "--force", *names, cwd=repository)

    assert [one["code"] for one in kept] == ["session-live"] * 3
    assert done.code == 0, done
    assert [pid for pid in pids(folder) if alive(pid)] == []
    assert [port for port in ports(folder) if is_open(port)] == []
    assert all(f"({pid})" in done.err for pid in pids(folder))
    assert alive(bystander)


@pytest.mark.parametrize("way", ["stop", "supervisor", pytest.param("bound", marks=pytest.mark.slow)])
def test_runaway_processes_end_with_the_session_that_has_let_them_loose(
    khlone: Khlone, repository: Path, folder: Path, bystander: int, way: str
) -> None:
    new(khlone, repository, "one")
    bound = ("--max-time", "12") if way == "bound" else ()
    words = (sys.executable, "-c", RUNAWAYS, str(folder), "12", "stay")
    done = khlone("run", "one", "--detach", "--json", *bound, "--", *words, cwd=repository)
    session = document(done, "run")["session"]
    wait_for(lambda: len(pids(folder)) == 12)

    if way == "stop":
        assert khlone("stop", "one", "--grace", "1", cwd=repository).code == 0
    elif way == "supervisor":
        stat = Path(f"/proc/{session['pid']}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    (ended,) = khlone("wait", "one", "--json", cwd=repository).json()["sessions"]

    reasons = {"stop": "it was stopped", "supervisor": "its supervisor was killed", "bound": "it has run for 12 s .*"}
    assert re.fullmatch(reasons[way], ended["reason"])
    assert [pid for pid in pids(folder) if alive(pid)] == []
    assert alive(bystander)


def test_one_session_that_leaks_ends_alone_and_the_fleet_beside_it_ends_well(
    khlone: Khlone, repository: Path, tmp_path: Path, folder: Path
) -> None:
    run_git("config", "khlone.limits.pressure", "0", cwd=repository)
    names = [f"w{number}" for number in range(4)]
    start(khlone, repository, names, *attentive(tmp_path / "end"))
    new(khlone, repository, "leaks")

    words = ("run", "leaks", "--detach", "--max-memory", "150M", "--", sys.executable, "-c", LEAK)
    assert khlone(*words, cwd=repository).code == 0
    (leaked,) = document(khlone("wait", "leaks", "--json", cwd=repository), "wait", 143)["sessions"]
    states = {
        one["name"]: one["sessions"] for one in document(khlone("list", "--json", cwd=repository), "list")["clones"]
    }
    (tmp_path / "end").write_text("0")
    ended = document(khlone("wait", *names, "--json", cwd=repository), "wait")["sessions"]

    assert leaked["reason"].endswith("more than 150 (--max-memory)")
    assert [states[name][0]["state"] for name in names] == ["running"] * 4
    assert states["leaks"] == []
    assert [(one["exit"], one["reason"]) for one in ended] == [(0, None)] * 4


def test_when_the_machine_kills_what_takes_most_it_is_a_session_and_no_supervisor(
    khlone: Khlone, repository: Path, tmp_path: Path, folder: Path
) -> None:
    (session,) = start(khlone, repository, ["one"], *attentive(tmp_path / "end"))

    badness = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (session["pid"], *supervisors())}

    mine = int(Path("/proc/self/oom_score_adj").read_text())
    assert len(badness) == 3
    assert badness.pop(session["pid"]) == min(1000, mine + 200)
    assert set(badness.values()) == {mine}
