"""`attach`: a session with a terminal goes on when its window is closed, and is come back to."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from khlone.config_dir import ConfigDirs
from tests.commands.steps import document, refused, show
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import processes_of, project, run, supervisors
from tests.support import KHLONE, Khlone

__all__ = ["project", "run"]

#: Says whether it has a terminal, then repeats what is typed, and ends with the code in it.
TALKER = """
import os, signal, sys
def size(*_):
    about = os.get_terminal_size()
    print("resized" if _ else "size", about.lines, about.columns, flush=True)
signal.signal(signal.SIGWINCH, size)
print("terminal", os.isatty(0), os.isatty(1), flush=True)
while True:
    word = input("say: ")
    if word.isdecimal():
        sys.exit(int(word))
    if word == "size":
        size()
    elif word == "kill":
        os.kill(os.getpid(), 9)
    elif word == "much":
        print(*(f"line {number}\\x1b[6n" for number in range(60000)), "the last line", sep="\\n", flush=True)
    else:
        print("\\x1b[?1049h\\x1b[?25l" * (word == "full"), "heard", word, flush=True)
"""
#: Before a test has another one.
FULL_PATH = os.environ["PATH"]
WORDS = ["--", sys.executable, "-c", TALKER]


@pytest.fixture(params=[pytest.param("tmux", marks=pytest.mark.needs_tmux), "own"])
def held(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who holds terminals: tmux, or khlone where there is git and no tmux on PATH."""
    if request.param == "own":
        git = shutil.which("git")
        assert git is not None
        folder = tmp_path / "few"
        folder.mkdir()
        (folder / "git").symlink_to(git)
        monkeypatch.setenv("PATH", str(folder))
    return str(request.param)


def window(project: Path, *words: str) -> pexpect.spawn:
    """A terminal in which `attach` was typed."""
    environment = {**os.environ, "TERM": "xterm"}
    return pexpect.spawn(
        str(KHLONE), ["attach", "one", *words], cwd=str(project), env=environment, timeout=60, dimensions=(30, 100)
    )


def test_a_session_is_left_and_come_back_to(khlone: Khlone, project: Path, held: str) -> None:
    first = window(project, *WORDS)
    # tmux may move its cursor over a blank.
    first.expect(rb"terminal.{1,12}True.{1,12}True")
    first.sendline(b"one")
    first.expect(b"heard one")
    (session,) = show(khlone, project, "one")["sessions"]
    first.send(b"\x02d")
    first.expect(b"the session of one goes on")
    first.expect(pexpect.EOF)
    first.close()
    assert first.exitstatus == 0
    assert alive(session["pid"])

    second = window(project)
    second.expect(b"heard one")
    second.sendline(b"two")
    second.expect(b"heard two")
    assert [one["id"] for one in show(khlone, project, "one")["sessions"]] == [session["id"]]
    second.sendline(b"5")
    second.expect(b"one: exit 5")
    second.expect(pexpect.EOF)
    second.close()

    assert second.exitstatus == 5
    assert khlone("wait", "one", cwd=project).code == 5
    assert processes_of(session["id"]) == []
    wait_for(lambda: not supervisors())


def test_it_goes_on_when_its_window_is_closed_and_stop_ends_all_of_it(khlone: Khlone, project: Path, held: str) -> None:
    first = window(project, *WORDS)
    first.expect(b"terminal True True")
    (session,) = show(khlone, project, "one")["sessions"]

    first.close(force=True)

    assert alive(session["pid"])
    assert len(processes_of(session["id"])) > 1
    refused(khlone("run", "one", "--json", "--", "true", cwd=project), "clone-busy", 75)
    (stopped,) = document(khlone("stop", "one", "--json", cwd=project), "stop")["sessions"]
    assert (stopped["kind"], stopped["reason"]) == ("attach", "it was stopped")
    assert processes_of(session["id"]) == []


def test_it_is_started_without_a_terminal_and_come_to_later(khlone: Khlone, project: Path, held: str) -> None:
    started = document(khlone("attach", "one", "--json", *WORDS, cwd=project), "attach")["session"]
    assert (started["kind"], started["state"]) == ("attach", "running")

    later = window(project)
    later.expect(b"say: ")
    later.sendline(b"3")
    later.expect(pexpect.EOF)
    later.close()

    assert later.exitstatus == 3


def test_what_was_said_before_anybody_looked_is_in_the_log(khlone: Khlone, project: Path, held: str) -> None:
    words = ["--", sys.executable, "-c", "print('first', '', 'the last', sep='\\n'); raise SystemExit(4)"]
    assert khlone("attach", "one", "--detach", *words, cwd=project).code == 0

    waited = khlone("wait", "one", cwd=project)
    said = khlone("logs", "one", cwd=project)

    assert waited.code == 4
    assert [line.rstrip() for line in said.out.splitlines()] == ["first", "", "the last"]


#: In a mount namespace with a single terminal, which it takes: khlone is called with none left.
WITHOUT = """
import os, subprocess, sys
mount, *words = sys.argv[1:]
new = "newinstance,ptmxmode=0666,mode=0620,max=1"
subprocess.run([mount, "-t", "devpts", "-o", new, "devpts", "/dev/pts"], check=True)
subprocess.run([mount, "--bind", "/dev/pts/ptmx", "/dev/ptmx"], check=True)
taken = os.openpty()
subprocess.run(words, check=True)
sys.exit(subprocess.run([words[0], "wait", "one"]).returncode)
"""


@pytest.mark.needs_root
def test_where_no_terminal_is_to_be_had_the_session_ends_and_says_so(khlone: Khlone, project: Path, held: str) -> None:
    unshare, mount = (str(shutil.which(name, path=FULL_PATH)) for name in ("unshare", "mount"))
    inside = [unshare, "--mount", "--propagation", "private", sys.executable, "-c", WITHOUT, mount]

    done = subprocess.run(
        [*inside, str(KHLONE), "attach", "one", "--detach", "--", sys.executable, "-c", "print(1)"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = khlone("logs", "one", cwd=project).out

    assert done.returncode == 1, done
    assert "khlone: " in said
    assert " no terminal" in said
    assert "Traceback" not in said


def test_of_what_was_looked_at_no_log_is_kept_and_that_is_said(khlone: Khlone, project: Path, held: str) -> None:
    seen = window(project, *WORDS)
    seen.expect(b"say: ")
    seen.sendline(b"3")
    seen.expect(pexpect.EOF)
    seen.close()

    said = khlone("logs", "one", cwd=project)

    assert seen.exitstatus == 3
    assert (said.code, said.out) == (0, "")
    assert "of one had a terminal: what was said there is kept nowhere" in said.err


@pytest.mark.parametrize(("program", "why"), [("nosuchcmd", "no such file"), ("./README.md", "permission denied")])
def test_a_program_that_is_not_there_is_no_session(khlone: Khlone, project: Path, program: str, why: str) -> None:
    found = refused(khlone("attach", "one", "--detach", "--json", "--", program, cwd=project), "command-not-found")

    assert why in found["message"]
    assert program.removeprefix("./") in found["message"]
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")


def test_where_it_cannot_be_it_is_refused(khlone: Khlone, project: Path) -> None:
    refused_here = khlone("attach", "one", *WORDS, cwd=project)

    assert (refused_here.code, "attach wants a terminal" in refused_here.err) == (2, True)
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")


@pytest.mark.needs_tmux
def test_a_terminal_that_tmux_holds_is_come_to_by_tmux_alone(
    khlone: Khlone, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = window(project, *WORDS)
    first.expect(b"say: ")
    few = tmp_path / "few"
    few.mkdir()
    (few / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(few))

    second = window(project)
    second.expect(b"there is no tmux on PATH")
    second.expect(pexpect.EOF)
    second.close()

    assert second.exitstatus == 1
    first.close(force=True)


def terminals_of(clone: str) -> list[Path]:
    """The sockets of terminals that khlone holds in a clone."""
    return list(ConfigDirs(Path(), "none").temp_path(clone).glob("terminal"))


class TestWithoutTmux:
    """What khlone's own terminals are to do that nobody else does for them."""

    @pytest.fixture(autouse=True)
    def own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        few = tmp_path / "few"
        few.mkdir()
        (few / "git").symlink_to(str(shutil.which("git")))
        monkeypatch.setenv("PATH", str(few))

    def test_two_windows_see_one_session_and_it_has_the_size_of_the_last_that_said_one(self, project: Path) -> None:
        first = window(project, *WORDS)
        first.expect(b"say: ")
        second = window(project)
        second.expect(b"say: ")

        first.sendline(b"size")
        first.expect(b"size 30 100")
        second.expect(b"size 30 100")
        second.setwinsize(40, 120)
        first.expect(b"resized 40 120")
        second.expect(b"resized 40 120")

        second.sendline(b"7")
        for one in (first, second):
            one.expect(b"one: exit 7")
            one.expect(pexpect.EOF)
            one.close()
        assert (first.exitstatus, second.exitstatus) == (7, 7)

    def test_what_nobody_was_quick_enough_to_see_is_in_the_log(self, khlone: Khlone, project: Path) -> None:
        argv = [sys.executable, "-c", "print('why it ended'); raise SystemExit(3)"]

        assert khlone("attach", "one", "--detach", "--", *argv, cwd=project).code == 0

        assert khlone("wait", "one", cwd=project).code == 3
        assert "why it ended" in khlone("logs", "one", cwd=project).out

    def test_what_ends_at_once_is_seen_or_its_words_are_said_to_be_in_the_log(
        self, khlone: Khlone, project: Path
    ) -> None:
        here = window(project, "--", sys.executable, "-c", "print('why it ended'); raise SystemExit(3)")
        here.expect(pexpect.EOF)
        here.close()

        assert here.exitstatus == 3
        if b"why it ended" not in here.before:
            assert b"git khlone logs one" in here.before
            assert "why it ended" in khlone("logs", "one", cwd=project).out

    def test_a_program_that_is_killed_ends_the_session_by_that_signal(self, khlone: Khlone, project: Path) -> None:
        here = window(project, *WORDS)
        here.expect(b"say: ")

        here.sendline(b"kill")

        here.expect(b"one: signal 9")
        here.expect(pexpect.EOF)
        here.close()
        assert here.exitstatus == 128 + 9
        (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 137)["sessions"]
        assert ended["signal"] == 9

    def test_nobody_else_may_reach_it_and_nothing_of_it_is_left(self, khlone: Khlone, project: Path) -> None:
        document(khlone("attach", "one", "--json", *WORDS, cwd=project), "attach")
        clone = show(khlone, project, "one")["id"]
        wait_for(lambda: terminals_of(clone) != [])
        (socket,) = terminals_of(clone)

        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        here = window(project)
        here.expect(b"say: ")
        here.sendline(b"0")
        here.expect(pexpect.EOF)
        assert terminals_of(clone) == []

    def test_who_comes_later_sees_the_end_of_what_was_said_and_is_asked_nothing_again(self, project: Path) -> None:
        first = window(project, *WORDS)
        first.expect(b"say: ")
        first.sendline(b"much")
        first.expect(b"the last line")
        first.send(b"\x1b[98;5ud")
        first.expect(b"the session of one goes on")
        first.expect(pexpect.EOF)

        second = window(project)
        second.expect(b"the last line")

        said = second.before
        assert b"line 59999" in said
        assert b"line 1\r" not in said
        assert b"\x1b[6n" not in said
        assert 150_000 < len(said) < 256 << 10
        second.sendline(b"5")
        second.expect(pexpect.EOF)

    def test_one_that_has_the_whole_screen_draws_it_anew_and_the_terminal_is_given_back(self, project: Path) -> None:
        first = window(project, *WORDS)
        first.expect(b"say: ")
        first.sendline(b"full")
        first.expect(b"heard full")
        first.send(b"\x02d")
        first.expect_exact(b"\x1b[?1049l")
        first.expect_exact(b"\x1b[?25h")
        first.expect(b"the session of one goes on")
        first.expect(pexpect.EOF)

        second = window(project)
        second.expect_exact(b"\x1b[?1049h")
        second.expect(b"resized 30 100")
        second.send(b"\x02\x02")
        second.expect_exact(b"^B")
        second.close(force=True)

    def test_this_terminal_is_as_it_was_when_the_session_is_left(self, project: Path) -> None:
        words = ["-c", f"stty > before; {KHLONE} attach one; stty > after; echo all done", *WORDS[1:]]
        start = window(project, *WORDS)
        start.expect(b"say: ")
        here = pexpect.spawn("/bin/sh", words[:2], cwd=str(project), env={**os.environ, "PATH": FULL_PATH}, timeout=60)
        here.expect(b"say: ")
        here.send(b"\x02d")
        here.expect(b"all done")
        here.expect(pexpect.EOF)

        assert (project / "before").read_text() == (project / "after").read_text() != ""
        start.close(force=True)

    def test_a_window_that_is_stopped_does_not_stop_the_program(self, khlone: Khlone, project: Path) -> None:
        first = window(project, *WORDS)
        first.expect(b"say: ")
        os.kill(first.pid, signal.SIGSTOP)
        second = window(project)
        second.expect(b"say: ")

        try:
            second.sendline(b"much")
            second.expect(b"the last line")
        finally:
            os.kill(first.pid, signal.SIGCONT)
        # It was left behind; the session was not.
        first.expect(b"the session of one goes on")
        second.sendline(b"4")
        second.expect(b"one: exit 4")
        for one in (first, second):
            one.expect(pexpect.EOF)
