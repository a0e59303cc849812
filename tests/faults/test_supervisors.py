"""Whoever of those that look after a session is killed: its state is right, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone import sessions
from tests.commands.steps import document, new, refused, show
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import Run, attentive, leaver, processes_of, project, run, supervisors
from tests.faults.lab import rows
from tests.support import Khlone, run_git

__all__ = ["leaver", "project", "run"]

OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def kept_by(pid: int) -> list[int]:
    """The keeper and the supervisor of a session, by the pid of its process."""
    supervisor = parent(pid)
    return [parent(supervisor), supervisor]


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def started(run: Run, tmp_path: Path, leaver: Callable[[str], list[str]]) -> tuple[dict[str, Any], list[int]]:
    """A session with a process that has forked twice, and the pids of both."""
    session = run("one", leaver("stays"))
    wait_for((tmp_path / "daemon").exists)
    pids = sorted(processes_of(session["id"]))
    assert pids == sorted([session["pid"], int((tmp_path / "daemon").read_text())])
    return session, pids


def places(khlone: Khlone, where: Path) -> list[str]:
    """Who has a place on the machine, or waits for one."""
    return [one["name"] for one in document(khlone("limits", "--json", cwd=where), "limits")["places"]]


def test_when_the_supervisor_is_killed_all_of_its_session_ends(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, leaver: Callable[[str], list[str]]
) -> None:
    session, pids = started(run, tmp_path, leaver)
    keeper, supervisor = kept_by(session["pid"])
    assert sorted([keeper, supervisor]) == supervisors()

    os.kill(supervisor, signal.SIGKILL)
    waited = khlone("wait", "one", "--json", cwd=project)

    (ended,) = document(waited, "wait", 128 + signal.SIGTERM)["sessions"]
    assert (ended["state"], ended["reason"]) == ("signal 15", "its supervisor was killed")
    assert not any(map(alive, pids))
    wait_for(lambda: not supervisors())
    assert places(khlone, project) == []


def test_when_the_keeper_is_killed_the_session_goes_on(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    session = run("one", attentive(tmp_path / "end"))
    keeper, _ = kept_by(session["pid"])

    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not alive(keeper))

    assert [one["state"] for one in show(khlone, project, "one")["sessions"]] == ["running"]
    (tmp_path / "end").write_text("7")
    assert khlone("wait", "one", cwd=project).code == 7
    wait_for(lambda: not supervisors())


@pytest.mark.parametrize("how", ["ends", "stop"])
def test_once_the_keeper_is_gone_the_supervisor_is_who_sees_it_through(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, how: str
) -> None:
    session = run("one", attentive(tmp_path / "end"))
    keeper, supervisor = kept_by(session["pid"])
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: rows(project, "SELECT supervisor_pid FROM sessions") == [(supervisor,)])

    # Paused, it has not recorded yet how the session has ended: that is not lost.
    os.kill(supervisor, signal.SIGSTOP)
    if how == "ends":
        (tmp_path / "end").write_text("7")
        wait_for(lambda: not alive(session["pid"]))
        states = [one["state"] for one in show(khlone, project, "one")["sessions"]]
        os.kill(supervisor, signal.SIGCONT)
        assert states == ["running"]
    else:
        assert khlone("stop", "one", cwd=project).code == 0
    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 7 if how == "ends" else 143)["sessions"]

    assert ended["reason"] == (None if how == "ends" else "it was stopped")
    assert processes_of(session["id"]) == []


def kill_both(session: dict[str, Any]) -> None:
    """Kill whoever sees a session through, and wait until they are gone."""
    pids = kept_by(session["pid"])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_a_session_that_nobody_sees_through_any_more_lives_and_can_be_ended(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, leaver: Callable[[str], list[str]], how: str
) -> None:
    session, pids = started(run, tmp_path, leaver)

    kill_both(session)

    assert [one["state"] for one in show(khlone, project, "one")["sessions"]] == ["running"]
    busy = refused(khlone("run", "one", "-d", "--json", "--", "true", cwd=project), "clone-busy", 75)
    assert session["id"] in busy["message"]
    assert all(map(alive, pids))
    words = ("stop", "one") if how == "stop" else ("remove", "--force", "one")
    assert khlone(*words, cwd=project).code == 0
    assert not any(map(alive, pids))
    assert processes_of(session["id"]) == []
    assert places(khlone, project) == []


@pytest.mark.parametrize("how", ["stop", "run"])
def test_one_that_ended_with_nobody_there_is_lost_and_what_it_left_is_ended(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, leaver: Callable[[str], list[str]], how: str
) -> None:
    session, _ = started(run, tmp_path, leaver)
    daemon = int((tmp_path / "daemon").read_text())
    kill_both(session)
    os.kill(session["pid"], signal.SIGKILL)
    wait_for(lambda: not alive(session["pid"]))

    (lost,) = [one for one in show(khlone, project, "one")["sessions"] if one["id"] == session["id"]]
    (waited,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 1)["sessions"]

    assert (lost["state"], lost["reason"]) == ("lost", "its supervisor was killed")
    assert (waited["state"], waited["reason"], waited["exit"]) == ("lost", "its supervisor was killed", None)
    assert alive(daemon)
    words = ("stop", "one") if how == "stop" else ("run", "one", "--", "true")
    assert khlone(*words, cwd=project).code == 0
    assert not alive(daemon)


#: Forks twice, clears its environment, and goes on in the kernel's session that it is of, or in one of its own.
HIDES = """
import os, signal, sys
if os.fork() == 0:
    if sys.argv[1] == "own":
        os.setsid()
    if os.fork() == 0:
        os.chdir(sys.argv[2])
        said = f"echo $$ >{sys.argv[3]}.new && mv {sys.argv[3]}.new {sys.argv[3]}"
        os.execve("/bin/sh", ["sh", "-c", f"{said}; exec sleep 600"], {})
    os._exit(0)
os.wait()
signal.pause()
"""


def hidden(run: Run, tmp_path: Path, kind: str, place: Path) -> tuple[dict[str, Any], int]:
    """A session, and the pid of a process that it has started and that bears no mark of it."""
    session = run("one", [sys.executable, "-c", HIDES, kind, str(place), str(tmp_path / "hidden")])
    wait_for((tmp_path / "hidden").exists)
    pid = int((tmp_path / "hidden").read_text())
    assert pid not in processes_of(session["id"])
    return session, pid


@pytest.mark.parametrize("keepers", ["alive", "dead"])
@pytest.mark.parametrize(
    "words", [("stop", "one", "--grace", "1"), ("remove", "--force", "one")], ids=["stop", "remove"]
)
def test_what_cleared_its_environment_ends_with_its_session(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, keepers: str, words: tuple[str, ...]
) -> None:
    session, pid = hidden(run, tmp_path, "same", tmp_path)
    if keepers == "dead":
        kill_both(session)

    done = khlone(*words, cwd=project)

    assert done.code == 0, done
    assert not alive(pid)
    assert "without the mark" not in done.err


def test_what_hid_from_everybody_is_told_while_it_works_in_the_clone(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    """It has a session of its own by now: but for its folder nothing tells it from a process of the user's."""
    place = Path(show(khlone, project, "one")["path"])
    session, pid = hidden(run, tmp_path, "own", place)
    kill_both(session)

    try:
        stopped = khlone("stop", "one", "--grace", "1", cwd=project)
        again = refused(khlone("stop", "one", "--json", cwd=project), "no-such-session")
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    afterwards = refused(khlone("stop", "one", "--json", cwd=project), "no-such-session")

    assert stopped.code == 0
    assert f"sleep ({pid}) still works in one, without the mark of a session" in stopped.err
    assert f"sleep ({pid}) works there without one" in again["message"]
    assert "works there" not in afterwards["message"], "the control: it is gone"


def test_a_process_in_the_clone_that_never_was_of_the_session_is_not_ended(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    """The control of the other kind: it has no mark either, and is the user's."""
    place = Path(show(khlone, project, "one")["path"])
    session = run("one", attentive(tmp_path / "end"))
    with subprocess.Popen(["sleep", "600"], cwd=place) as users:
        kill_both(session)

        done = khlone("stop", "one", "--grace", "1", cwd=project)
        lives = users.poll()
        users.kill()

    assert (done.code, lives) == (0, None)
    assert not alive(session["pid"])


def test_the_end_of_a_session_that_is_killed_is_told(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    session = run("one", attentive(tmp_path / "end"))

    os.kill(session["pid"], signal.SIGKILL)

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 137)["sessions"]
    assert (ended["state"], ended["signal"], ended["reason"]) == ("signal 9", 9, None)
    assert processes_of(session["id"]) == []


def test_a_supervisor_that_is_killed_in_line_leaves_it(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    for name in ("two", "three"):
        new(khlone, project, name)
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    run("one", attentive(tmp_path / "end"))
    second, third = (run(name, ["true"]) for name in ("two", "three"))
    assert [second["state"], third["state"]] == ["waiting", "waiting"]
    assert third["reason"].startswith("number 2 of 2 in line: ")

    os.kill(second["pid"], signal.SIGKILL)
    (lost,) = document(khlone("wait", "two", "--json", cwd=project), "wait", 1)["sessions"]

    assert (lost["state"], lost["reason"]) == ("lost", "its supervisor was killed")
    assert places(khlone, project) == ["one", "three"]
    (tmp_path / "end").write_text("0")
    assert khlone("wait", "three", cwd=project).code == 0


# -- pids that are others' by now ----------------------------------------------------------------


@pytest.fixture
def strangers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that have nothing to do with khlone and end at the first signal."""
    found = [subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) for _ in range(2)]
    yield found
    for one in found:
        one.kill()
        one.wait()


def hand_over(project: Path, strangers: list[subprocess.Popen[bytes]], how: str) -> None:
    """Let the pids of the session and its supervisor be those of strangers, after a reboot or by reuse."""
    process, supervisor = (one.pid for one in strangers)
    ticks = [sessions.start_ticks(pid) for pid in (process, supervisor)]
    boot, later = (OTHER_BOOT, 0) if how == "boot" else (sessions.boot_id(), 1)
    rows(
        project,
        """UPDATE sessions SET pid = ?, start_ticks = ?, supervisor_pid = ?, supervisor_ticks = ?, boot_id = ?,
        ended_at = NULL, state = 'running', status = NULL""",
        process,
        (ticks[0] or 0) - later,
        supervisor,
        (ticks[1] or 0) - later,
        boot,
    )


@pytest.mark.parametrize("how", ["boot", "ticks"])
def test_a_session_whose_pids_are_others_by_now_is_lost_and_nobody_is_signalled(
    khlone: Khlone, project: Path, run: Run, strangers: list[subprocess.Popen[bytes]], how: str
) -> None:
    run("one", ["true"])
    khlone("wait", "one", cwd=project)
    hand_over(project, strangers, how)
    why = "the machine was restarted" if how == "boot" else "its supervisor was killed"

    (shown,) = show(khlone, project, "one")["sessions"]
    refused(khlone("stop", "one", "--json", cwd=project), "no-such-session")
    (waited,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 1)["sessions"]
    hand_over(project, strangers, how)
    removed = khlone("remove", "--force", "one", cwd=project)

    assert (shown["state"], shown["reason"]) == ("lost", why)
    assert (waited["state"], waited["reason"]) == ("lost", why)
    assert removed.code == 0
    assert [one.poll() for one in strangers] == [None, None]


def test_where_they_are_still_its_own_they_are_signalled(
    khlone: Khlone, project: Path, run: Run, strangers: list[subprocess.Popen[bytes]]
) -> None:
    """The control: the same rows with the starts of these very processes."""
    run("one", ["true"])
    khlone("wait", "one", cwd=project)
    hand_over(project, strangers, "none")
    rows(project, "UPDATE sessions SET start_ticks = start_ticks + 1, supervisor_ticks = supervisor_ticks + 1")

    khlone("stop", "one", "--grace", "0", cwd=project)

    assert strangers[1].wait(timeout=60) == -signal.SIGTERM
