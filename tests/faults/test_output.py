"""Nobody reads the answer, or it cannot be written: one clear end, and never a trace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, new
from tests.support import KHLONE, TIMEOUT_S, Khlone

ANSWERS = [
    ("list",),
    ("list", "--json"),
    ("show", "a"),
    ("path", "a"),
    ("env", "a", "--json"),
    ("log",),
    ("diff", "a", "--stat"),
    ("doctor",),
    ("plugins",),
    ("completion", "bash"),
    ("exec", "--all", "--", "echo", "out"),
    ("exec", "--all", "-j", "1", "--json", "--", "echo", "out"),
    ("--version",),
    ("-h",),
    ("new", "-h"),
    ("--json", "-h"),
]


@pytest.fixture
def place(khlone: Khlone, project: Path) -> Path:
    """The repository with two clones, one of them changed."""
    for name in ("a", "b"):
        (new(khlone, project, name) / "notes.txt").write_text("changed\n")
    return project


def ended(where: Path, words: Sequence[str], stdout: int, **streams: int) -> tuple[int, str]:
    """The code and stderr of khlone with that stdout."""
    done = subprocess.run(
        [KHLONE, *words],
        cwd=where,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=streams.get("stderr", subprocess.PIPE),
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, (done.stderr or b"").decode()


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_a_reader_that_went_away_ends_it_as_sigpipe_would_without_a_word(place: Path, words: Sequence[str]) -> None:
    code, err = ended(place, words, closed_pipe())

    assert code == 141
    # How each clone ended has been told by then.
    assert [line for line in err.splitlines() if not line.endswith(": exit 0")] == []


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_an_answer_that_cannot_be_written_says_that_it_is_stdout(place: Path, words: Sequence[str]) -> None:
    with open("/dev/full", "wb") as full:
        code, err = ended(place, words, full.fileno())

    told = [line for line in err.splitlines() if not line.endswith(": exit 0")]
    assert code == 1
    assert told[0] == "khlone: the answer cannot be written to stdout: no space left on device"
    assert len(told) == 2
    assert told[1].startswith("hint: ")


def test_an_error_that_cannot_be_written_to_stdout_is_told_on_stderr(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        code, err = ended(place, ("show", "nosuch", "--json"), full.fileno())

    assert code == 1
    assert err.startswith("khlone: there is no clone named 'nosuch'\n")


@pytest.mark.parametrize("kind", ["closed", "full"])
def test_a_story_that_cannot_be_told_stops_nothing(khlone: Khlone, place: Path, kind: str) -> None:
    stderr = closed_pipe() if kind == "closed" else os.open("/dev/full", os.O_WRONLY)

    code, _ = ended(place, ("new", "c"), subprocess.DEVNULL, stderr=stderr)

    assert code == 0
    assert clone_names(khlone, place) == ["a", "b", "c"]
