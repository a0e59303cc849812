"""`run --restart`: a session that has failed by itself is started again, a bounded number of times, and says so."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.commands.steps import document, refused, show
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import Run, processes_of, project, run, supervisors
from tests.support import Khlone, run_git

__all__ = ["project", "run"]

#: Notes each start, and ends with the code that the file of that number holds, else with 1.
FAILS = """
import os, sys, time
folder = sys.argv[1]
starts = len(os.listdir(folder)) + 1
open(os.path.join(folder, str(starts)), "w").close()
print("start", starts, flush=True)
sys.exit(0 if starts == int(sys.argv[2]) else 7)
"""


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """A folder with a file for each start."""
    found = tmp_path / "starts"
    found.mkdir()
    return found


def failing(starts: Path, until: int = 0) -> list[str]:
    """The argv of `FAILS`, which succeeds at that start."""
    return [sys.executable, "-c", FAILS, str(starts), str(until)]


def test_one_that_fails_is_started_again_until_it_succeeds(
    khlone: Khlone, project: Path, run: Run, starts: Path
) -> None:
    session = run("one", failing(starts, until=3), "--restart", "on-failure")

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait")["sessions"]

    assert (ended["id"], ended["exit"], ended["reason"]) == (session["id"], 0, "it was started again 2 times")
    assert len(list(starts.iterdir())) == 3
    log = khlone("logs", "one", cwd=project).out
    assert [line for line in log.splitlines() if line.startswith("start ")] == ["start 1", "start 2", "start 3"]
    assert "it ended with exit 7 and starts again in 1 s (1 of 3)" in log
    assert "it ended with exit 7 and starts again in 2 s (2 of 3)" in log
    wait_for(lambda: not supervisors())


def test_it_is_started_again_as_often_as_was_said_and_no_more(khlone: Khlone, project: Path, starts: Path) -> None:
    words = ("run", "one", "--json", "--restart", "on-failure:1", "--", *failing(starts))

    ended = document(khlone(*words, cwd=project), "run", 7)["session"]

    assert (ended["exit"], ended["reason"]) == (7, "it was started again once")
    assert len(list(starts.iterdir())) == 2


def test_without_the_option_it_is_started_once(khlone: Khlone, project: Path, run: Run, starts: Path) -> None:
    run("one", failing(starts))
    assert khlone("wait", "one", cwd=project).code == 7

    run("one", failing(starts, until=2), "--restart", "no")
    assert khlone("wait", "one", cwd=project).code == 0

    assert len(list(starts.iterdir())) == 2


def test_between_two_starts_it_waits_and_can_be_stopped(khlone: Khlone, project: Path, run: Run, starts: Path) -> None:
    # So long that the third is not there before the test has seen the pause: 1, 2, 4, 8 seconds.
    session = run("one", failing(starts), "--restart", "on-failure:9")
    wait_for(lambda: len(list(starts.iterdir())) == 3)
    wait_for(lambda: show(khlone, project, "one")["sessions"][0]["state"] == "waiting")

    (waiting,) = show(khlone, project, "one")["sessions"]
    busy = refused(khlone("run", "one", "--json", "--", "true", cwd=project), "clone-busy", 75)
    (stopped,) = document(khlone("stop", "one", "--json", cwd=project), "stop")["sessions"]

    assert (waiting["id"], waiting["reason"]) == (
        session["id"],
        "it ended with exit 7 and starts again in 4 s (3 of 9)",
    )
    assert session["id"] in busy["message"]
    assert (stopped["exit"], stopped["reason"]) == (7, "it was stopped while it waited to be started again")
    assert len(list(starts.iterdir())) == 3
    wait_for(lambda: not supervisors())


@pytest.mark.parametrize("how", ["stop", "bound", "supervisor"])
def test_one_that_was_ended_is_not_started_again(
    khlone: Khlone, project: Path, run: Run, starts: Path, how: str
) -> None:
    bound = ("--max-time", "2") if how == "bound" else ()
    code = f"import time, os\nopen({str(starts)!r} + '/' + str(os.getpid()), 'w').close()\ntime.sleep(600)"
    session = run("one", [sys.executable, "-c", code], "--restart", "on-failure", *bound)
    wait_for(lambda: len(list(starts.iterdir())) == 1)

    if how == "stop":
        khlone("stop", "one", cwd=project)
    if how == "supervisor":
        stat = Path(f"/proc/{session['pid']}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    khlone("wait", "one", cwd=project)
    wait_for(lambda: not supervisors())

    assert len(list(starts.iterdir())) == 1
    assert processes_of(session["id"]) == []


def test_one_that_is_killed_from_outside_has_failed(khlone: Khlone, project: Path, run: Run, starts: Path) -> None:
    code = f"import time, os\nopen({str(starts)!r} + '/' + str(os.getpid()), 'w').close()\ntime.sleep(600)"
    session = run("one", [sys.executable, "-c", code], "--restart", "on-failure")
    wait_for(lambda: len(list(starts.iterdir())) == 1)

    os.kill(session["pid"], signal.SIGKILL)
    wait_for(lambda: len(list(starts.iterdir())) == 2)

    (again,) = show(khlone, project, "one")["sessions"]
    assert (again["id"], alive(again["pid"]), again["pid"] == session["pid"]) == (session["id"], True, False)


def test_each_start_asks_for_its_place_anew(khlone: Khlone, project: Path, run: Run, starts: Path) -> None:
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    run("one", failing(starts, until=3), "--restart", "on-failure")
    assert khlone("wait", "one", cwd=project).code == 0

    assert document(khlone("limits", "--json", cwd=project), "limits")["places"] == []
    assert khlone("run", "one", "--no-wait", "--", "true", cwd=project).code == 0


@pytest.mark.parametrize("policy", ["always", "on-failure:0", "on-failure:", "on-failure:x", "on-failure:1001", ""])
def test_what_is_no_policy_is_refused(khlone: Khlone, project: Path, starts: Path, policy: str) -> None:
    words = ("run", "one", "-d", "--restart", policy, "--json", "--", *failing(starts))

    refused(khlone(*words, cwd=project), "usage", 2)

    assert list(starts.iterdir()) == []


def test_on_a_terminal_it_is_not_started_again(khlone: Khlone, project: Path, starts: Path) -> None:
    done = khlone("run", "one", "--restart", "on-failure", "--", *failing(starts), cwd=project)

    assert (done.code, "--detach" in done.err, list(starts.iterdir())) == (2, True, [])
