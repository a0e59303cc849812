"""A session that has had its time, or in which nothing happens any more, is ended with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.commands.steps import document, refused
from tests.commands.test_run import Run, attentive, processes_of, project, run
from tests.support import Khlone

__all__ = ["project", "run"]

#: Each does one thing that is no stall, until a file is there; then it ends with 0.
BUSY = {
    "says": "print('x', flush=True)",
    "writes": "open(other, 'w').write('x' * 2000)",
    "reads": "open(other).read()",
    "starts": "subprocess.run(['true'])",
}
LOOP = """
import os, subprocess, sys, time
end, other = sys.argv[1:]
open(other, "w").write("x" * 2000)
began = time.monotonic()
while time.monotonic() - began < 4:
    {what}
    time.sleep(0.1)
"""


@pytest.mark.parametrize("words", [("--detach",), ()])
def test_a_session_that_has_had_its_time_is_ended_with_the_reason(
    khlone: Khlone, project: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    started = khlone("run", "one", *words, "--max-time", "1", "--", *attentive(tmp_path / "end"), cwd=project)

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 143)["sessions"]

    assert started.code == (0 if words else 143)
    assert (ended["signal"], ended["reason"]) == (15, "it has run for 1 s (--max-time)")
    told = khlone("logs", "one", cwd=project).out if words else started.err
    assert "it has run for 1 s (--max-time)" in told
    assert processes_of(ended["id"]) == []


@pytest.mark.parametrize("words", [("--detach",), ()])
def test_a_session_in_which_nothing_happens_is_ended_with_the_reason(
    khlone: Khlone, project: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    polling = "import select\nwhile True: select.select([], [], [], 0.01)"
    khlone("run", "one", *words, "--stall", "2", "--", sys.executable, "-c", polling, cwd=project)

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 143)["sessions"]

    assert (ended["signal"], ended["reason"]) == (15, "it has done nothing for 2 s (--stall)")


@pytest.mark.parametrize("what", BUSY)
def test_a_session_in_which_something_happens_goes_on(khlone: Khlone, project: Path, tmp_path: Path, what: str) -> None:
    script = LOOP.format(what=BUSY[what])
    words = [sys.executable, "-c", script, str(tmp_path / "end"), str(tmp_path / "other")]

    done = khlone("run", "one", "--json", "--stall", "2", "--", *words, cwd=project)

    assert document(done, "run", 0)["session"]["reason"] is None


def test_within_its_bounds_a_session_ends_by_itself(khlone: Khlone, project: Path, run: Run) -> None:
    run("one", ["sh", "-c", "exit 4"], "--max-time", "1h", "--stall", "1h")

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 4)["sessions"]

    assert ended["reason"] is None


@pytest.mark.parametrize(("option", "value"), [("--max-time", "0"), ("--stall", "soon"), ("--max-time", "-1")])
def test_a_bound_that_is_none_is_refused(khlone: Khlone, project: Path, option: str, value: str) -> None:
    refused(khlone("run", "one", "--json", option, value, "--", "true", cwd=project), "usage", 2)
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")
