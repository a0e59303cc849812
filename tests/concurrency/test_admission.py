"""Sessions take turns: never more at once than the limits allow, in the order of asking, whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused
from tests.commands.test_resources import alive, wait_for
from tests.support import KHLONE, Khlone, run_git

#: Says that it has started, in the order of starts, and ends once so many have: as many more as are to run at once.
WORKER = """
import os, sys, time
name, folder, more, all_of_them = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def note(word):
    descriptor = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{word} {name} {os.getpid()}\\n".encode())
def starts():
    with open(os.path.join(folder, "log")) as stream:
        return [line.split()[1] for line in stream if line.startswith("start ")]
note("start")
mine = starts().index(name) + 1
deadline = time.monotonic() + 100
while len(starts()) < min(all_of_them, mine + more) and time.monotonic() < deadline:
    time.sleep(0.1)
while os.path.exists(os.path.join(folder, "hold")):
    time.sleep(0.1)
note("end")
"""


class Workers:
    """Commands in clones that log when they start and end."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository = repository
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "hold").touch()

    def argv(self, name: str, *, more: int = 0, all_of_them: int = 0) -> list[str]:
        """What a worker is called with."""
        return [sys.executable, "-c", WORKER, name, str(self.folder), str(more), str(all_of_them)]

    def start(self, name: str, *words: str, more: int = 0, all_of_them: int = 0) -> None:
        """One more command in the clone `one`."""
        command = [str(KHLONE), "exec", "one", *words, "--", *self.argv(name, more=more, all_of_them=all_of_them)]
        with open(self.folder / f"{name}.err", "wb") as told:
            self.running[name] = subprocess.Popen(
                command, cwd=self.repository, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True
            )

    def lines(self) -> list[list[str]]:
        """(start or end, name, pid) in the order in which it happened."""
        log = self.folder / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def started(self) -> list[str]:
        """The names in the order of their starts."""
        return [name for word, name, _ in self.lines() if word == "start"]

    def most(self) -> int:
        """How many ran at once at most."""
        now = most = 0
        for word, _, _ in self.lines():
            now += 1 if word == "start" else -1
            most = max(most, now)
        return most

    def pid(self, name: str) -> int:
        """The worker itself, once it is there."""
        wait_for(lambda: name in self.started())
        return next(int(pid) for word, one, pid in self.lines() if (word, one) == ("start", name))

    def told(self, name: str) -> str:
        """What the command has said."""
        return (self.folder / f"{name}.err").read_text()

    def let_go(self) -> None:
        """Whoever holds ends."""
        (self.folder / "hold").unlink(missing_ok=True)

    def end(self) -> dict[str, int]:
        """Let all of them end; how each did."""
        self.let_go()
        return {name: running.wait(timeout=120) for name, running in self.running.items()}


@pytest.fixture
def workers(khlone: Khlone, repository: Path, tmp_path: Path) -> Iterator[Workers]:
    """Workers of the clone `one`, all gone at the end."""
    new(khlone, repository, "one")
    folder = tmp_path / "workers"
    folder.mkdir()
    found = Workers(repository, folder)
    yield found
    found.let_go()
    for running in found.running.values():
        if running.poll() is None:
            running.terminate()
        running.wait(timeout=60)


def limit(repository: Path, **limits: int | str) -> None:
    """Set limits of the repository."""
    for name, value in limits.items():
        run_git("config", f"khlone.limits.{name.replace('_', '.')}", str(value), cwd=repository)


def leases(*columns: str) -> list[tuple[object, ...]]:
    """Columns of all leases, without khlone."""
    path = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3")
    if not path.exists():
        return []
    with sqlite3.connect(path, timeout=60) as connection:
        return list(connection.execute(f"SELECT {', '.join(columns)} FROM leases ORDER BY number"))


def in_line() -> int:
    """How many wait."""
    return sum(state == "waiting" for (state,) in leases("state"))


@pytest.mark.slow
def test_thirty_at_once_run_eight_at_a_time_in_the_order_of_asking(workers: Workers) -> None:
    limit(workers.repository, sessions=8)
    workers.let_go()
    names = [f"w{number}" for number in range(30)]

    # The first eight hold until there are eight: so that each of the others finds all places taken, and queues.
    for number, name in enumerate(names):
        workers.start(name, more=7, all_of_them=30)
        wait_for(lambda number=number: len(workers.started()) + in_line() > number)  # type: ignore[misc]
    codes = workers.end()

    assert set(codes.values()) == {0}
    assert workers.most() == 8
    assert workers.started() == names
    assert leases("id") == []


def test_without_a_limit_more_than_eight_run_at_once(workers: Workers) -> None:
    workers.let_go()

    for number in range(10):
        workers.start(f"w{number}", more=10, all_of_them=10)
    workers.end()

    assert workers.most() == 10


def test_the_place_in_line_and_the_reason_are_told(workers: Workers) -> None:
    limit(workers.repository, sessions=1)
    workers.start("holder")
    workers.pid("holder")

    for number in (1, 2):
        workers.start(f"waiter{number}")
        wait_for(lambda number=number: in_line() == number)  # type: ignore[misc]
    codes = workers.end()

    assert set(codes.values()) == {0}
    reason = "1 of 1 sessions run (khlone.limits.sessions)"
    assert f"one waits, number 1 of 1 in line: {reason}\n" in workers.told("waiter1")
    assert f"one waits, number 2 of 2 in line: {reason}\n" in workers.told("waiter2")
    assert "one waits, number 1 of 1 in line: " in workers.told("waiter2")


def test_no_wait_gives_75_with_the_reason(workers: Workers, khlone: Khlone) -> None:
    limit(workers.repository, sessions=1)
    workers.start("holder")
    workers.pid("holder")

    done = khlone("exec", "one", "--no-wait", "--json", "--", "true", cwd=workers.repository)
    found = refused(done, "no-room", 75)

    assert found["facts"]["reason"] == "1 of 1 sessions run (khlone.limits.sessions)"
    assert found["facts"]["position"] == 1
    assert len(leases("id")) == 1
    workers.end()
    assert khlone("exec", "one", "--no-wait", "--", "true", cwd=workers.repository).code == 0


def kill_the_session(command: subprocess.Popen[bytes], worker: int) -> None:
    """The session alone: its supervisor sees it end."""
    os.kill(worker, signal.SIGKILL)


def kill_both(command: subprocess.Popen[bytes], worker: int) -> None:
    """The supervisor first, so that nobody gives the place back."""
    command.kill()
    command.wait()
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_the_session, kill_both])
def test_the_place_of_who_is_killed_is_free(
    workers: Workers, kill: Callable[[subprocess.Popen[bytes], int], None]
) -> None:
    limit(workers.repository, sessions=1)
    workers.start("holder")
    pid = workers.pid("holder")
    workers.start("next")
    wait_for(lambda: in_line() == 1)

    kill(workers.running["holder"], pid)
    workers.pid("next")

    assert workers.running.pop("next").poll() is None
    workers.running.pop("holder").wait(timeout=60)


def test_a_session_that_outlives_its_supervisor_keeps_its_place(workers: Workers) -> None:
    limit(workers.repository, sessions=1)
    workers.start("holder")
    pid = workers.pid("holder")
    workers.start("next")
    wait_for(lambda: in_line() == 1)

    workers.running["holder"].kill()
    workers.running.pop("holder").wait()
    done = subprocess.run([KHLONE, "exec", "one", "--no-wait", "--", "true"], cwd=workers.repository, check=False)

    assert alive(pid)
    assert (done.returncode, workers.started()) == (75, ["holder"])
    workers.let_go()
    workers.pid("next")
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_who_is_killed_or_stopped_in_line_keeps_nobody_waiting(workers: Workers, number: signal.Signals) -> None:
    limit(workers.repository, sessions=1)
    for place, name in enumerate(("holder", "gone", "next")):
        workers.start(name)
        wait_for(lambda place=place: len(leases("id")) == place + 1)  # type: ignore[misc]
    workers.pid("holder")

    workers.running["gone"].send_signal(number)
    workers.let_go()
    code = workers.running["next"].wait(timeout=60)

    assert (code, workers.started()) == (0, ["holder", "next"])
    workers.running["gone"].send_signal(signal.SIGCONT)
    ended = workers.running["gone"].wait(timeout=60)
    assert ended == {signal.SIGKILL: -9, signal.SIGSTOP: 0, signal.SIGTERM: 143}[number]
    assert leases("id") == []


@pytest.mark.parametrize("seed", range(3))
def test_whoever_is_killed_at_random_the_rest_run_within_the_limit(workers: Workers, khlone: Khlone, seed: int) -> None:
    limit(workers.repository, sessions=2)
    names, chance = [f"w{number}" for number in range(8)], random.Random(seed)
    for place, name in enumerate(names):
        workers.start(name)
        wait_for(lambda place=place: len(leases("id")) > place)  # type: ignore[misc]

    def is_settled() -> bool:
        states = [state for (state,) in leases("state")]
        running = sum(1 if word == "start" else -1 for word, _, _ in workers.lines())
        return running == 2 and states.count("running") == 2 and "starting" not in states

    wait_for(is_settled)

    for name in chance.sample(names, 4):
        workers.running[name].kill()
        workers.running.pop(name).wait()
        for word, one, pid in workers.lines():
            if (word, one) == ("start", name):
                os.kill(int(pid), signal.SIGKILL)
                wait_for(lambda pid=pid: not alive(int(pid)))  # type: ignore[misc]
                with open(workers.folder / "log", "a") as log:
                    log.write(f"end {name} {pid}\n")
        # Who is killed between the start of its process and the note of it leaves one that nobody counts.
        wait_for(is_settled)
    codes = workers.end()

    assert list(codes.values()) == [0] * 4
    assert set(codes) <= set(workers.started())
    assert workers.most() == 2
    assert khlone("exec", "one", "--no-wait", "--", "true", cwd=workers.repository).code == 0
    assert leases("id") == []


def test_reserved_memory_never_passes_its_limit(workers: Workers, khlone: Khlone) -> None:
    # A command is taken to need 128 MiB: two fit.
    limit(workers.repository, memory="300M")
    for name in ("two", "three", "four", "five"):
        new(khlone, workers.repository, name)
    workers.let_go()

    script = f'exec {sys.executable} -c "$0" $KHLONE_NAME {workers.folder} 1 5'
    done = khlone("exec", "--all", "-j", "5", "--", "sh", "-c", script, WORKER, cwd=workers.repository)

    assert done.code == 0, done
    assert workers.most() == 2
    assert len(workers.started()) == 5
    assert "khlone.limits.memory" in done.err


def test_without_a_limit_of_memory_all_of_them_run_at_once(workers: Workers, khlone: Khlone) -> None:
    for name in ("two", "three", "four", "five"):
        new(khlone, workers.repository, name)
    workers.let_go()

    script = f'exec {sys.executable} -c "$0" $KHLONE_NAME {workers.folder} 5 5'
    done = khlone("exec", "--all", "-j", "5", "--", "sh", "-c", script, WORKER, cwd=workers.repository)

    assert (done.code, workers.most()) == (0, 5), done


def test_what_never_fits_is_refused_at_once(workers: Workers, khlone: Khlone) -> None:
    limit(workers.repository, memory="100M")

    done = khlone("exec", "--all", "--", "true", cwd=workers.repository)

    assert done.code == 1
    assert "takes 128 MiB and khlone.limits.memory is 100 MiB" in done.err


def test_a_command_within_a_session_needs_no_second_place(workers: Workers, khlone: Khlone) -> None:
    limit(workers.repository, sessions=1)

    done = khlone("exec", "one", "--", str(KHLONE), "exec", "one", "--", "echo", "inside", cwd=workers.repository)

    assert (done.code, done.out) == (0, "inside\n"), done


def test_a_damaged_machine_database_is_set_aside_and_said_so(workers: Workers, khlone: Khlone) -> None:
    limit(workers.repository, sessions=1)
    folder = Path(os.environ["XDG_STATE_HOME"], "khlone")
    (folder / "machine.sqlite3").write_bytes(b"this is no database, whatever its name may say\n" * 100)

    done = khlone("exec", "one", "--", "true", cwd=workers.repository)

    assert done.code == 0, done
    assert "begun anew" in done.err
    assert [path.read_bytes()[:7] for path in folder.glob("machine.sqlite3.damaged-*")] == [b"this is"]


def test_a_limit_of_one_kind_keeps_no_other_waiting(workers: Workers, khlone: Khlone) -> None:
    limit(workers.repository, agent_command=0)

    done = khlone("exec", "one", "--no-wait", "--json", "--", "true", cwd=workers.repository)

    assert "0 of 0 of command run" in refused(done, "no-room", 75)["message"]
    assert document(khlone("list", "--json", cwd=workers.repository), "list")["clones"][0]["sessions"] == []
