"""`attach`: a session with a terminal goes on when its window is closed, and is come back to."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.commands.steps import document, refused, show
from tests.commands.test_resources import alive, wait_for
from tests.commands.test_run import processes_of, project, run, supervisors
from tests.support import KHLONE, Khlone

__all__ = ["project", "run"]
pytestmark = pytest.mark.needs_tmux

#: Says whether it has a terminal, then repeats what is typed, and ends with the code in it.
TALKER = """
import os, sys
print("terminal", os.isatty(0), os.isatty(1), flush=True)
while True:
    word = input("say: ")
    if word.isdecimal():
        sys.exit(int(word))
    print("heard", word, flush=True)
"""
WORDS = ["--", sys.executable, "-c", TALKER]


def window(project: Path, *words: str, path: str | None = None) -> pexpect.spawn:
    """A terminal in which `attach` was typed, with another PATH if it is said."""
    environment = {**os.environ, "TERM": "xterm", "PATH": path or os.environ["PATH"]}
    return pexpect.spawn(
        str(KHLONE), ["attach", "one", *words], cwd=str(project), env=environment, timeout=60, dimensions=(30, 100)
    )


def test_a_session_is_left_and_come_back_to(khlone: Khlone, project: Path) -> None:
    first = window(project, *WORDS)
    first.expect(b"terminal True True")
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


def test_it_goes_on_when_its_window_is_closed_and_stop_ends_all_of_it(khlone: Khlone, project: Path) -> None:
    first = window(project, *WORDS)
    first.expect(b"terminal True True")
    (session,) = show(khlone, project, "one")["sessions"]

    first.close(force=True)

    assert alive(session["pid"])
    assert len(processes_of(session["id"])) > 2
    refused(khlone("run", "one", "--json", "--", "true", cwd=project), "clone-busy", 75)
    (stopped,) = document(khlone("stop", "one", "--json", cwd=project), "stop")["sessions"]
    assert (stopped["kind"], stopped["reason"]) == ("attach", "it was stopped")
    assert processes_of(session["id"]) == []


def test_it_is_started_without_a_terminal_and_come_to_later(khlone: Khlone, project: Path) -> None:
    started = document(khlone("attach", "one", "--json", *WORDS, cwd=project), "attach")["session"]
    assert (started["kind"], started["state"]) == ("attach", "running")

    later = window(project)
    later.expect(b"say: ")
    later.sendline(b"3")
    later.expect(pexpect.EOF)
    later.close()

    assert later.exitstatus == 3


@pytest.fixture
def without_tmux(tmp_path: Path) -> str:
    """A PATH on which there is git and no tmux."""
    git = shutil.which("git")
    assert git is not None
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "git").symlink_to(git)
    return str(folder)


def test_without_tmux_it_has_this_terminal_and_ends_with_it(khlone: Khlone, project: Path, without_tmux: str) -> None:
    here = window(project, *WORDS, path=without_tmux)
    here.expect(b"there is no tmux: the session has this terminal, cannot be left, and ends with it")
    here.expect(b"terminal True True")
    here.sendline(b"one")
    here.expect(b"heard one")
    (session,) = show(khlone, project, "one")["sessions"]
    other = window(project, path=without_tmux)
    other.expect(b"try again when it has ended")
    other.expect(pexpect.EOF)
    other.close()
    here.sendline(b"6")
    here.expect(pexpect.EOF)
    here.close()

    assert (session["state"], other.exitstatus, here.exitstatus) == ("running", 75, 6)
    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 6)["sessions"]
    assert (ended["id"], ended["exit"]) == (session["id"], 6)

    closed = window(project, *WORDS, path=without_tmux)
    closed.expect(b"say: ")
    (session,) = show(khlone, project, "one")["sessions"]
    closed.close(force=True)
    wait_for(lambda: processes_of(session["id"]) == [])


@pytest.mark.parametrize(("program", "why"), [("nosuchcmd", "no such file"), ("./README.md", "permission denied")])
def test_a_program_that_is_not_there_is_no_session(khlone: Khlone, project: Path, program: str, why: str) -> None:
    found = refused(khlone("attach", "one", "--detach", "--json", "--", program, cwd=project), "command-not-found")

    assert why in found["message"]
    assert program.removeprefix("./") in found["message"]
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")


def test_where_it_cannot_be_it_is_refused(khlone: Khlone, project: Path, without_tmux: str) -> None:
    refused_here = khlone("attach", "one", *WORDS, cwd=project)
    no_program = {"PATH": without_tmux}

    assert (refused_here.code, "attach wants a terminal" in refused_here.err) == (2, True)
    refused(khlone("attach", "one", "--json", *WORDS, cwd=project, env=no_program), "tmux-missing")
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")
