"""A clock that is another day at every look: whatever is waited for or bounded goes by the time that has passed.

Each control runs the same command with the module that waits as if it went by the clock of the day:
then it gives up, or ends what it looks after, at once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.commands.merging import worked
from tests.commands.steps import document, new, refused
from tests.commands.test_run import processes_of
from tests.commands.test_slots import Slots, slots
from tests.faults.lab import customized, wait_until
from tests.support import KHLONE, Commit, Git, Khlone
from tests.test_locks import Holder, held_elsewhere

__all__ = ["slots"]

MOVING = """
import importlib, time, types
_now, _calls = time.time, 0

def _moved():
    global _calls
    _calls += 1
    return _now() + {days} * 86400 * _calls

time.time = _moved
time.time_ns = lambda: int(_moved() * 1_000_000_000)
_wrong = types.SimpleNamespace(**vars(time))
_wrong.monotonic = _moved
for _name in {by_the_day}:
    importlib.import_module(_name).time = _wrong
"""
#: Locks are waited for a second and not a minute.
IMPATIENT = """
from khlone.locks import Locks
Locks.landing.__wrapped__.__kwdefaults__["wait_s"] = 1.0
"""


def moving(folder: Path, *by_the_day: str, days: int = 1, more: str = "") -> dict[str, str]:
    """The variables under which every Python starts with a clock that goes so many days on at every look.

    Some modules of khlone go by it where they would go by the time that has passed.
    """
    return customized(folder, MOVING.format(days=days, by_the_day=by_the_day) + more)


@pytest.fixture
def forward(tmp_path: Path) -> dict[str, str]:
    """A clock that goes a day forward at every look."""
    return moving(tmp_path / "forward")


@pytest.fixture
def back(tmp_path: Path) -> dict[str, str]:
    """A clock that goes a day back at every look."""
    return moving(tmp_path / "back", days=-1)


# -- locks and slots -------------------------------------------------------------------------


class Waiting:
    """A khlone that was started with another clock; what it says is in a file."""

    def __init__(self, told: Path, env: Mapping[str, str], *words: str, cwd: Path) -> None:
        self._told = told
        with open(told, "wb") as stream:
            self.process = subprocess.Popen(
                ["env", *(f"{name}={value}" for name, value in env.items()), str(KHLONE), *words],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )

    def has_said(self, word: str) -> bool:
        return word in self._told.read_text()

    def end(self) -> int:
        return self.process.wait(timeout=120)


@pytest.fixture
def landing(khlone: Khlone, commit: Commit, project: Path) -> Iterator[Holder]:
    """Another process that lands on `main`, where the clone `a` is to land too."""
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    with held_elsewhere(project / ".git" / "khlone" / "locks", "landing", "main") as holder:
        yield holder


def test_a_lock_is_waited_for_though_the_clock_goes_forward(
    project: Path, tmp_path: Path, landing: Holder, forward: dict[str, str]
) -> None:
    waiting = Waiting(tmp_path / "told", forward, "merge", "a", cwd=project)
    wait_until(lambda: waiting.has_said("waiting for landing on main, held by git-khlone new"))
    still = waiting.process.poll()
    landing.kill()

    assert (still, waiting.end()) == (None, 0)
    assert (project / "a.txt").exists()


@pytest.mark.usefixtures("landing")
def test_by_the_clock_of_the_day_it_would_be_given_up_at_once(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    done = khlone("merge", "a", "--json", cwd=project, env=moving(tmp_path / "site", "khlone.locks"))

    (held,) = document(done, "merge", 75)["held"]
    assert held["code"] == "locked"
    assert "held by git-khlone new" in held["message"]


@pytest.mark.usefixtures("landing")
def test_a_lock_is_given_up_in_time_though_the_clock_goes_back(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    """By the clock of the day it would be waited for without end: a control would not end either."""
    env = moving(tmp_path / "site", days=-1, more=IMPATIENT)

    (held,) = document(khlone("merge", "a", "--json", cwd=project, env=env), "merge", 75)["held"]

    assert held["code"] == "locked"


def test_a_slot_is_waited_for_though_the_clock_goes_forward(
    khlone: Khlone, slots: Slots, forward: dict[str, str], tmp_path: Path
) -> None:
    slots.start("first")
    wait_until(lambda: slots.started() == ["first"])
    command = ("slot", "run", "--name", "build", "-n", "1")
    env = moving(tmp_path / "site", "khlone.operations.turns")

    waiting = Waiting(tmp_path / "told", forward, *command, "--", "true", cwd=slots.repository)
    wait_until(lambda: waiting.has_said("waits, number 1 of 1 in line"))
    control = khlone(*command, "--json", "--", "true", cwd=slots.repository, env=env)
    still = waiting.process.poll()
    codes = slots.end()

    refused(control, "no-room", 75)
    assert still is None
    assert (waiting.end(), codes) == (0, {"first": 0})


# -- bounds of sessions ------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--max-time", "--stall"])
def test_a_session_has_all_of_its_time_though_the_clock_goes_forward(
    khlone: Khlone,
    project: Path,
    tmp_path: Path,
    forward: dict[str, str],
    option: str,
) -> None:
    """Not detached: what looks after such a session is started with no more than Python's own path."""
    new(khlone, project, "a")
    ends = []
    for env in (forward, moving(tmp_path / "site", "khlone.operations.bounds")):
        khlone("run", "a", option, "1h", "--", "sleep", "3", cwd=project, env=env)
        waited = khlone("wait", "a", "--json", cwd=project)
        (ended,) = document(waited, "wait", waited.code)["sessions"]
        ends.append((waited.code, ended["reason"]))

    assert ends[0] == (0, None)
    assert ends[1][0] == 143, "the control: by the clock of the day its hour was over"
    assert f"({option})" in str(ends[1][1])


@pytest.mark.parametrize("option", ["--max-time", "--stall"])
def test_a_session_is_ended_in_time_though_the_clock_goes_back(
    khlone: Khlone, project: Path, back: dict[str, str], option: str
) -> None:
    new(khlone, project, "a")

    done = khlone("run", "a", "--json", option, "2", "--", "sleep", "600", cwd=project, env=back)

    session = document(done, "run", 143)["session"]
    assert session["reason"].endswith(f"for 2 s ({option})")
    assert processes_of(session["id"]) == []


# -- gates -------------------------------------------------------------------------------------


def test_a_gate_has_all_of_its_time_though_the_clock_goes_forward(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, forward: dict[str, str]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.gate.slow.command", "sleep 2", cwd=project)
    git("config", "khlone.gate.slow.timeout", "3600", cwd=project)

    control = khlone("merge", "a", "--json", cwd=project, env=moving(tmp_path / "site", "khlone.children"))
    done = khlone("merge", "a", "--json", cwd=project, env=forward)

    # git is ended in the same way as a gate, and would be so first.
    assert control.code not in (0, 3)
    assert "timed out" in control.out
    assert [one["name"] for one in document(done, "merge")["landed"]] == ["a"]


def test_a_gate_is_ended_in_time_though_the_clock_goes_back(
    khlone: Khlone, git: Git, commit: Commit, project: Path, back: dict[str, str]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.gate.slow.command", "sleep 600", cwd=project)
    git("config", "khlone.gate.slow.timeout", "1", cwd=project)

    (held,) = document(khlone("merge", "a", "--json", cwd=project, env=back), "merge", 5)["held"]

    assert held["code"] == "gate-failed"
