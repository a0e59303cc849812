"""`run` on this terminal, `logs --follow`, places in line, and clients that were started past khlone."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from khlone import sessions
from tests.agents.steps import on_path, program
from tests.commands.steps import document, new, refused, show
from tests.commands.test_resources import DAEMON, alive, wait_for
from tests.commands.test_run import ESCAPES, Run, attentive, leaver, processes_of, project, run
from tests.support import KHLONE, Khlone, run_git, write

__all__ = ["leaver", "project", "run"]


def states(khlone: Khlone, where: Path, name: str) -> list[str]:
    """The states of the sessions of a clone."""
    return [one["state"] for one in show(khlone, where, name)["sessions"]]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)])
def test_it_ends_as_the_session_did(khlone: Khlone, project: Path, script: str, code: int) -> None:
    done = khlone("run", "one", "--", "sh", "-c", f"cat; echo out; echo err >&2; {script}", cwd=project, input="in\n")

    assert (done.code, done.out, done.err) == (code, "in\nout\n", "err\n")
    assert khlone("wait", "one", cwd=project).code == code
    assert states(khlone, project, "one") == []
    logs = khlone("logs", "one", cwd=project)
    assert (logs.code, logs.out, "had a terminal: what was said there is kept nowhere" in logs.err) == (0, "", True)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_command_that_is_not_there_leaves_no_session(khlone: Khlone, project: Path, verb: str) -> None:
    (project.with_name("project.clones") / "one").joinpath("plain.txt").write_text("no program\n")
    for name, why in (("no-such-program", "no such file"), ("./plain.txt", "permission denied")):
        done = khlone(verb, "one", "--", name, cwd=project)

        assert (done.code, done.out) == (1, "")
        assert f"cannot run '{name}'" in done.err.replace(str(project.with_name("project.clones") / "one"), ".")
        assert why in done.err

    refused(khlone("logs", "one", "--json", cwd=project), "no-such-session")
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")
    assert states(khlone, project, "one") == []
    assert khlone("run", "one", "--", "true", cwd=project).code == 0


def test_as_json_it_waits_for_the_end_and_keeps_the_output_in_the_log(khlone: Khlone, project: Path) -> None:
    done = khlone("run", "one", "--json", "--", "sh", "-c", "echo out; exit 7", cwd=project)

    assert document(done, "run", 7)["session"]["exit"] == 7
    assert khlone("logs", "one", cwd=project).out == "out\n"


#: Says how often it was interrupted, and ends at the second time.
INTERRUPTED = """
import os, signal, sys
count = 0
def heard(*_):
    global count
    count += 1
    print("heard", count, flush=True)
    if count == 2:
        sys.exit(9)
signal.signal(signal.SIGINT, heard)
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_an_interruption_by_the_terminal_is_the_sessions_to_answer(khlone: Khlone, project: Path) -> None:
    words = ["run", "one", "--", sys.executable, "-c", INTERRUPTED]
    terminal = pexpect.spawn(str(KHLONE), words, cwd=str(project), timeout=60)

    terminal.expect(b"ready")
    assert states(khlone, project, "one") == ["running"]
    terminal.sendintr()
    terminal.expect(b"heard 1")
    terminal.sendintr()
    terminal.expect(b"heard 2")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 9
    assert khlone("wait", "one", cwd=project).code == 9


def test_when_the_terminal_closes_its_session_ends_and_a_detached_one_goes_on(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    new(khlone, project, "two")
    terminal = pexpect.spawn("/bin/sh", cwd=str(project), timeout=60, encoding="utf-8")
    for name, words in (("two", ["--detach"]), ("one", [])):
        command = shlex.join(["run", name, *words, "--", *attentive(tmp_path / f"end-{name}")])
        terminal.sendline(f"{KHLONE} {command}")
        wait_for(lambda name=name: states(khlone, project, name) == ["running"])  # type: ignore[misc]
    (here,), (detached,) = (show(khlone, project, name)["sessions"] for name in ("one", "two"))

    terminal.close(force=False)

    wait_for(lambda: not alive(here["pid"]))
    assert khlone("wait", "one", cwd=project).code == 128 + signal.SIGHUP
    assert processes_of(here["id"]) == []
    assert alive(detached["pid"])
    (tmp_path / "end-two").write_text("3")
    assert khlone("wait", "two", cwd=project).code == 3


def test_what_a_session_on_the_terminal_leaves_behind_is_ended(
    khlone: Khlone, project: Path, tmp_path: Path, leaver: Callable[[str], list[str]]
) -> None:
    done = khlone("run", "one", "--", *leaver("goes"), cwd=project)

    assert done.code == 0
    assert "1 process was left behind, and ended" in done.err
    assert not alive(int((tmp_path / "daemon").read_text()))


def test_what_has_escaped_from_a_session_on_the_terminal_ends_with_it(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    places = [tmp_path / "marked", tmp_path / "bare"]
    words = [sys.executable, "-c", ESCAPES, DAEMON, *map(str, places), str(tmp_path / "end")]
    here = subprocess.Popen([str(KHLONE), "run", "one", "--", *words], cwd=project, stdout=subprocess.PIPE)
    assert here.stdout is not None
    assert here.stdout.readline() == b"ready\n"
    escaped = [int(place.read_text()) for place in places]
    assert all(map(alive, escaped))

    assert khlone("stop", "one", cwd=project).code == 0

    assert here.wait(timeout=60) == 143
    here.stdout.close()
    assert not any(map(alive, escaped))


def test_a_command_on_the_terminal_may_leave_something_behind(
    khlone: Khlone, project: Path, tmp_path: Path, leaver: Callable[[str], list[str]]
) -> None:
    """The control: what `exec` runs is not looked after."""
    assert khlone("exec", "one", "--", *leaver("goes"), cwd=project).code == 0

    daemon = int((tmp_path / "daemon").read_text())
    assert alive(daemon)
    (tmp_path / "end").touch()
    wait_for(lambda: not alive(daemon))
    assert DAEMON


def test_stop_ends_a_session_on_a_terminal_from_another_one(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    words = [str(KHLONE), "run", "one", "--", *attentive(tmp_path / "end")]
    here = subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: states(khlone, project, "one") == ["running"])

    (stopped,) = document(khlone("stop", "one", "--json", cwd=project), "stop")["sessions"]

    assert (stopped["signal"], stopped["reason"]) == (15, "it was stopped")
    assert here.wait(timeout=60) == 143


@pytest.mark.parametrize("words", [(), ("--detach",)])
def test_a_second_one_gets_75_and_who_has_the_clone(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    first = run("one", attentive(tmp_path / "end"))

    done = khlone("run", "one", *words, "--", "true", cwd=project)

    assert done.code == 75
    assert f"session {first['id']}, running, pid {first['pid']}" in done.err


@pytest.mark.parametrize("words", [(), ("--detach",), ("--json",)])
def test_what_may_not_wait_gets_75_and_leaves_nothing(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    new(khlone, project, "two")
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    run("one", attentive(tmp_path / "end"))

    done = khlone("run", "two", "--no-wait", *words, "--", "touch", str(tmp_path / "ran"), cwd=project)

    assert done.code == 75
    assert "1 of 1 sessions run (khlone.limits.sessions)" in done.out + done.err
    assert states(khlone, project, "two") == []
    refused(khlone("wait", "two", "--json", cwd=project), "no-such-session")
    assert not (tmp_path / "ran").exists()


def test_one_that_waits_in_line_is_interrupted_and_stopped_like_any_other(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    new(khlone, project, "two")
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    run("one", attentive(tmp_path / "end"))
    words = [str(KHLONE), "run", "two", "--", "touch", str(tmp_path / "ran")]
    here = subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: states(khlone, project, "two") == ["waiting"])

    here.send_signal(signal.SIGINT)
    _, said = here.communicate(timeout=60)
    assert here.returncode == 130
    assert b"two waits, number 1 of 1 in line" in said
    assert states(khlone, project, "two") == []
    run("two", ["touch", str(tmp_path / "ran")])
    assert states(khlone, project, "two") == ["waiting"]
    (stopped,) = document(khlone("stop", "two", "--json", cwd=project), "stop")["sessions"]

    assert (stopped["state"], stopped["exit"], stopped["signal"]) == ("failed", None, None)
    assert khlone("wait", "two", cwd=project).code == 1
    assert document(khlone("limits", "--json", cwd=project), "limits")["places"][1:] == []
    assert not (tmp_path / "ran").exists()


def test_a_log_is_followed_to_the_end_of_its_session(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    script = 'seq 1 9; while [ ! -e "$0" ]; do sleep 0.02; done; echo more; exit 3'
    run("one", ["sh", "-c", script, str(tmp_path / "go")])
    words = [str(KHLONE), "logs", "one", "--follow", "-n", "2"]

    with subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert [following.stdout.readline() for _ in range(2)] == [b"8\n", b"9\n"]
        (tmp_path / "go").touch()
        rest = following.stdout.read()

    assert rest == b"more\n"
    assert following.returncode == 0


# -- clients that khlone has not started ---------------------------------------------------------

CLIENT = """
printf '{"pid": %s, "procStart": "%s"}' $$ "$(cut -d' ' -f22 /proc/$$/stat)" >"$CLAUDE_CONFIG_DIR/sessions/$$.json"
echo here
read _
"""


@pytest.fixture
def claude(tmp_path: Path) -> dict[str, str]:
    """An agent program that keeps a record of its session, first on PATH; it logs in by a token."""
    program(tmp_path / "programs", "claude", f'mkdir -p "$CLAUDE_CONFIG_DIR/sessions"\n{CLIENT}')
    return {**on_path(tmp_path / "programs"), "CLAUDE_CODE_OAUTH_TOKEN": "fake"}


def test_a_client_that_was_started_past_run_has_the_clone(
    khlone: Khlone, project: Path, claude: dict[str, str], tmp_path: Path
) -> None:
    words = [str(KHLONE), "exec", "one", "--", "claude"]
    with subprocess.Popen(
        words, cwd=project, env={**os.environ, **claude}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n"
        (found,) = show(khlone, project, "one")["sessions"]

        done = khlone("run", "one", "-d", "--json", "--", "claude", cwd=project, env=claude)
        other = khlone("run", "one", "--", "true", cwd=project, env=claude)
        client.communicate(b"\n")

    assert f"claude, pid {found['pid']}, which was not started by run" in refused(done, "clone-busy", 75)["message"]
    assert other.code == 0


def test_a_file_that_a_killed_client_has_left_is_no_client(
    khlone: Khlone, project: Path, claude: dict[str, str]
) -> None:
    folder = Path(show(khlone, project, "one")["config_dir"]) / "sessions"
    ours = sessions.identity()
    assert ours.start_ticks is not None
    write(
        folder,
        {
            "1.json": f'{{"pid": {ours.pid}, "procStart": "{ours.start_ticks + 1}"}}',
            "2.json": f'{{"pid": {ours.pid}}}',
            "3.json": "[",
        },
    )

    done = khlone("run", "one", "--", "claude", cwd=project, env=claude, input="\n")
    assert done.code == 0, done
    write(folder, {"4.json": f'{{"pid": {ours.pid}, "procStart": "{ours.start_ticks}"}}'})
    again = khlone("run", "one", "--json", "--", "claude", cwd=project, env=claude)

    assert f"pid {ours.pid}" in refused(again, "clone-busy", 75)["message"]
