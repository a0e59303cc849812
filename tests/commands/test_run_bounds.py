"""A session that has had its time, or in which nothing happens any more, is ended with the reason."""

from __future__ import annotations

import re
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


#: Takes so many MiB more every tenth of a second, itself or by a process that it has forked twice.
LEAK = """
import os, sys, time
if sys.argv[1] == "below":
    if os.fork():
        time.sleep(600)
    os.setsid()
    if os.fork():
        os._exit(0)
held = []
while True:
    held.append(b"x" * (16 << 20))
    time.sleep(0.1)
    # So that a bound that is not kept to fails the test and not the machine.
    if len(held) == 64:
        time.sleep(600)
"""


@pytest.mark.parametrize("where", ["itself", "below"])
@pytest.mark.parametrize("words", [("--detach",), ()])
def test_a_session_that_takes_more_memory_than_it_may_is_ended_with_the_reason(
    khlone: Khlone, project: Path, words: tuple[str, ...], where: str
) -> None:
    leak = [sys.executable, "-c", LEAK, where]

    started = khlone("run", "one", *words, "--max-memory", "200M", "--", *leak, cwd=project)
    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 143)["sessions"]

    assert started.code == (0 if words else 143)
    assert re.fullmatch(r"it takes \d+ MiB of memory, more than 200 \(--max-memory\)", ended["reason"]), ended
    assert processes_of(ended["id"]) == []


def test_one_that_takes_less_memory_goes_on(khlone: Khlone, project: Path, run: Run) -> None:
    holding = "import time\nheld = b'x' * (50 << 20)\ntime.sleep(2)"
    run("one", [sys.executable, "-c", holding], "--max-memory", "200M")

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 0)["sessions"]

    assert (ended["exit"], ended["reason"]) == (0, None)


def test_within_its_bounds_a_session_ends_by_itself(khlone: Khlone, project: Path, run: Run) -> None:
    run("one", ["sh", "-c", "exit 4"], "--max-time", "1h", "--stall", "1h")

    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", 4)["sessions"]

    assert ended["reason"] is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-time", "0"),
        ("--stall", "soon"),
        ("--max-time", "-1"),
        ("--max-memory", "0"),
        ("--max-memory", "much"),
        ("--max-memory", "1K"),
        ("--max-memory", "1025T"),
    ],
)
def test_a_bound_that_is_none_is_refused(khlone: Khlone, project: Path, option: str, value: str) -> None:
    refused(khlone("run", "one", "--json", option, value, "--", "true", cwd=project), "usage", 2)
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")
