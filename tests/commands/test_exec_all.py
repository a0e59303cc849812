"""`exec --all`: one command in every clone, so many at a time, and nobody's lines among another's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import plugin
from tests.commands.steps import document, new, refused, show
from tests.support import KHLONE, TIMEOUT_S, Khlone

CUT_BYTES = 1 << 20


@pytest.fixture
def clones(khlone: Khlone, project: Path) -> dict[str, Path]:
    """Four clones, by name."""
    found = document(khlone("new", "clone", "-n", "4", "--json", cwd=project), "new")["clones"]
    return {clone["name"]: Path(clone["path"]) for clone in found}


@pytest.fixture
def pair(khlone: Khlone, project: Path) -> dict[str, Path]:
    """Two clones, `a` and `b`."""
    return {name: new(khlone, project, name) for name in ("a", "b")}


def results(khlone: Khlone, where: Path, *words: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """What `exec --all` says of each clone."""
    found = document(khlone("exec", "--all", "--json", *words, cwd=where), "exec", code)["results"]
    return {result["name"]: result for result in found}


def not_run(name: str) -> dict[str, Any]:
    """The result of a clone in which nothing was begun."""
    return {"name": name, "exit": None, "signal": None, "stdout": "", "stderr": "", "truncated": False}


# -- results -------------------------------------------------------------------------------


def test_it_runs_in_every_clone_as_that_clone(khlone: Khlone, project: Path, clones: dict[str, Path]) -> None:
    found = results(khlone, project, "--", "sh", "-c", "echo $KHLONE_NAME; pwd -P; echo err >&2")

    assert list(found) == sorted(clones)
    for name, path in clones.items():
        assert found[name] == {
            "name": name,
            "exit": 0,
            "signal": None,
            "stdout": f"{name}\n{os.path.realpath(path)}\n",
            "stderr": "err\n",
            "truncated": False,
        }
        assert show(khlone, project, name)["sessions"] == []


def test_one_that_fails_makes_it_one_and_keeps_no_other_from_running(
    khlone: Khlone, project: Path, clones: dict[str, Path]
) -> None:
    script = "case $KHLONE_NAME in clone-1) exit 7;; clone-2) kill -9 $$;; esac"

    found = results(khlone, project, "-j", "1", "--", "sh", "-c", script, code=1)

    assert [(one["exit"], one["signal"]) for one in found.values()] == [(7, None), (None, 9), (0, None), (0, None)]


def test_the_results_stand_in_the_order_of_names_whoever_ended_first(
    khlone: Khlone, project: Path, pair: dict[str, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "order")
    script = f"case $KHLONE_NAME in a) read _ < {tmp_path}/order;; b) echo go > {tmp_path}/order;; esac"

    done = khlone("exec", "--all", "-j", "2", "--json", "--", "sh", "-c", script, cwd=project)

    assert [one["name"] for one in document(done, "exec")["results"]] == ["a", "b"]


def test_without_clones_it_is_done(khlone: Khlone, project: Path) -> None:
    assert results(khlone, project, "--", "false") == {}


def test_output_beyond_the_bound_is_cut_and_says_so(khlone: Khlone, project: Path, pair: dict[str, Path]) -> None:
    script = f"test $KHLONE_NAME = a && head -c {CUT_BYTES + 1} /dev/zero | tr '\\0' o || head -c {CUT_BYTES} /dev/zero"

    found = results(khlone, project, "--", "sh", "-c", script)

    assert (len(found["a"]["stdout"]), found["a"]["truncated"]) == (CUT_BYTES, True)
    assert (len(found["b"]["stdout"]), found["b"]["truncated"]) == (CUT_BYTES, False)


def test_the_lines_of_two_clones_that_run_at_once_never_mix(
    khlone: Khlone, project: Path, pair: dict[str, Path], tmp_path: Path
) -> None:
    """Each prints, meets the other, prints again; opening a FIFO waits for its other end."""
    for name in ("one", "two"):
        os.mkfifo(tmp_path / name)
    say = 'echo "$KHLONE_NAME $n"; echo "$KHLONE_NAME $n" >&2'
    meet = f"case $KHLONE_NAME in a) : > {tmp_path}/$n;; b) : < {tmp_path}/$n;; esac"
    script = f"for n in one two; do {say}; {meet}; done; printf '%s end' $KHLONE_NAME"

    done = khlone("exec", "--all", "-j", "2", "--", "sh", "-c", script, cwd=project)

    blocks = [f"{name} one\n{name} two\n{name} end\n" for name in ("a", "b")]
    stories = [f"khlone: {name}: exit 0\n{name} one\n{name} two\n" for name in ("a", "b")]
    assert done.code == 0
    assert done.out in ("".join(blocks), "".join(reversed(blocks)))
    assert done.err in ("".join(stories), "".join(reversed(stories)))


def test_nothing_is_read_from_the_terminal(khlone: Khlone, project: Path, pair: dict[str, Path]) -> None:
    done = khlone("exec", "--all", "--", "cat", cwd=project, input="typed\n")

    assert (done.code, done.out) == (0, "")


# -- how many at a time --------------------------------------------------------------------

#: Takes one of two places or ends with 9; says so, and leaves the place when told to go on.
PLACES = """
mkdir "$1/first" 2>/dev/null && place=first || { mkdir "$1/second" 2>/dev/null && place=second; } || exit 9
echo started > "$1/started"
read _ < "$1/go"
rmdir "$1/$place"
"""


class Places:
    """`exec --all` with `PLACES`, under way; a test lets one command after the other go on."""

    def __init__(self, where: Path, folder: Path, jobs: int) -> None:
        folder.mkdir()
        for name in ("started", "go"):
            os.mkfifo(folder / name)
        self._started = os.open(folder / "started", os.O_RDWR)
        self._go = os.open(folder / "go", os.O_RDWR)
        self._process = subprocess.Popen(
            [KHLONE, "exec", "--all", "-j", str(jobs), "--", "sh", "-c", PLACES, "sh", str(folder)],
            cwd=where,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def wait_for_starts(self, count: int) -> None:
        """Return once so many more commands have a place."""
        wanted = len("started\n") * count
        while wanted:
            wanted -= len(os.read(self._started, wanted))

    def let_go(self, count: int) -> None:
        """Let so many commands end."""
        os.write(self._go, b"\n" * count)

    def end(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, err = self._process.communicate(timeout=TIMEOUT_S)
        os.close(self._started)
        os.close(self._go)
        return self._process.returncode, err.decode()


def test_never_more_run_at_once_than_was_said(
    khlone: Khlone, project: Path, clones: dict[str, Path], tmp_path: Path
) -> None:
    two = Places(project, tmp_path / "two", jobs=2)
    two.wait_for_starts(2)
    khlone("list", cwd=project)
    for _ in range(2):
        two.let_go(1)
        two.wait_for_starts(1)
    two.let_go(2)

    assert two.end()[0] == 0


def test_control_with_more_jobs_than_places_some_find_none(
    project: Path, clones: dict[str, Path], tmp_path: Path
) -> None:
    four = Places(project, tmp_path / "four", jobs=4)
    four.wait_for_starts(2)
    told = iter(four._process.stderr or ())
    without_place = [next(told), next(told)]
    four.let_go(2)

    assert all(line.endswith(b": exit 9\n") for line in without_place)
    assert four.end()[0] == 1


def test_after_a_failure_fail_fast_begins_no_other(khlone: Khlone, project: Path, clones: dict[str, Path]) -> None:
    script = "touch ran.log; test $KHLONE_NAME != clone-2"

    found = results(khlone, project, "-j", "1", "--fail-fast", "--", "sh", "-c", script, code=1)

    assert [one["exit"] for one in found.values()] == [0, 1, None, None]
    assert [found[name] for name in ("clone-3", "clone-4")] == [not_run("clone-3"), not_run("clone-4")]
    assert [(path / "ran.log").exists() for path in clones.values()] == [True, True, False, False]


def test_fail_fast_lets_what_runs_come_to_its_end(
    khlone: Khlone, project: Path, pair: dict[str, Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "met")
    script = f"""case $KHLONE_NAME in
    a) : > {tmp_path}/met; exit 3;;
    b) : < {tmp_path}/met; touch ended.log;;
    esac"""

    found = results(khlone, project, "-j", "2", "--fail-fast", "--", "sh", "-c", script, code=1)

    assert [one["exit"] for one in found.values()] == [3, 0]
    assert (pair["b"] / "ended.log").exists()


# -- what goes wrong -----------------------------------------------------------------------


def test_a_broken_clone_is_told_of_and_stops_no_other(khlone: Khlone, project: Path, clones: dict[str, Path]) -> None:
    shutil.rmtree(clones["clone-2"])

    done = khlone("exec", "--all", "--json", "--", "touch", "ran.log", cwd=project)

    found = document(done, "exec", 1)["results"]
    assert [one["exit"] for one in found] == [0, None, 0, 0]
    assert found[1] == not_run("clone-2")
    assert "clone-2: " in done.err
    assert "broken" in done.err
    assert (clones["clone-4"] / "ran.log").exists()


def test_a_command_that_only_some_clones_have_runs_there(khlone: Khlone, project: Path, pair: dict[str, Path]) -> None:
    tool = pair["b"] / "tool.log"
    tool.write_text("#!/bin/sh\necho tool\n")
    tool.chmod(0o755)

    done = khlone("exec", "--all", "--", "./tool.log", cwd=project)

    assert (done.code, done.out) == (1, "tool\n")
    assert "khlone: a: cannot run" in done.err
    assert "khlone: a: not run" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("a", "--all", "--", "touch", "ran.log"),
        ("--all", "a", "--", "touch", "ran.log"),
        ("--all", "-j", "0", "--", "touch", "ran.log"),
        ("--all", "-j", "x", "--", "touch", "ran.log"),
        ("a", "-j", "2", "--", "touch", "ran.log"),
        ("a", "--fail-fast", "--", "touch", "ran.log"),
        ("--all",),
        ("--all", "--"),
    ],
    ids=" ".join,
)
def test_words_that_contradict_each_other_are_a_usage_error(
    khlone: Khlone, project: Path, pair: dict[str, Path], words: Sequence[str]
) -> None:
    refused(khlone("exec", "--json", *words, cwd=project), "usage", 2)

    assert not (pair["a"] / "ran.log").exists()


@pytest.fixture
def waiting(
    project: Path, pair: dict[str, Path], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """`exec --all`, and the pids of the two commands that it runs, which would never end."""
    os.mkfifo(tmp_path / "pids")
    pids = os.open(tmp_path / "pids", os.O_RDWR)
    command = ("sh", "-c", 'echo $$ > "$1"; while :; do sleep 100; done', "sh", str(tmp_path / "pids"))
    child = subprocess.Popen(
        [KHLONE, "exec", "--all", "-j", "2", "--json", "--", *command],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said = b""
    while said.count(b"\n") < 2:
        said += os.read(pids, 100)
    os.close(pids)
    found = [int(pid) for pid in said.split()]
    yield child, found
    for pid in found:
        if Path("/proc", str(pid)).exists():
            os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interruption_ends_every_command_that_runs(
    khlone: Khlone, project: Path, waiting: tuple[subprocess.Popen[bytes], list[int]], number: signal.Signals
) -> None:
    child, pids = waiting

    child.send_signal(number)
    out, err = child.communicate(timeout=TIMEOUT_S)

    assert child.returncode == 128 + number
    assert b'"code": "interrupted"' in out
    assert b"Traceback" not in err
    assert [pid for pid in pids if Path("/proc", str(pid)).exists()] == []
    assert show(khlone, project, "a")["sessions"] == show(khlone, project, "b")["sessions"] == []


def test_a_reader_that_goes_away_ends_it_quietly(project: Path, pair: dict[str, Path]) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [KHLONE, "exec", "--all", "-j", "1", "--", "echo", "out"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=False,
    )
    os.close(writer)

    assert done.returncode not in (0, 3)
    assert b"Traceback" not in done.stderr


# -- plugins -------------------------------------------------------------------------------

#: Writes down each hook; a second hook at the same moment would find the file of the first.
WATCHER = """
import os
from khlone import Refusal, hookimpl

FOLDER = os.environ["WATCHED"]

def note(*words):
    alone = os.path.join(FOLDER, "alone")
    os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
    with open(os.path.join(FOLDER, "hooks"), "a") as stream:
        print(*words, file=stream)
    os.unlink(alone)

@hookimpl
def khlone_pre_spawn(clone, command):
    if clone.name == os.environ.get("REFUSED"):
        raise Refusal("not in this one")
    note("pre_spawn", clone.name)

@hookimpl
def khlone_post_spawn(clone, session):
    note("post_spawn", clone.name, session.pid, session.state)

@hookimpl
def khlone_session_ended(clone, session):
    note("session_ended", clone.name, session.pid, session.state)
"""


@pytest.fixture
def watcher(tmp_path: Path) -> dict[str, str | None]:
    """The environment in which every spawn and session hook is written down in `tmp_path / "hooks"`."""
    return {**plugin(tmp_path / "site", WATCHER), "WATCHED": str(tmp_path)}


def hooks(tmp_path: Path, name: str) -> list[str]:
    """The hooks that were called for a clone."""
    lines = (tmp_path / "hooks").read_text().splitlines()
    return [line for line in lines if line.split()[1] == name]


@pytest.mark.parametrize("words", [("--all", "-j", "2"), ("a",), ("a", "--json")], ids=" ".join)
def test_plugins_are_told_of_each_session_by_its_own_pid(
    khlone: Khlone,
    project: Path,
    pair: dict[str, Path],
    tmp_path: Path,
    watcher: dict[str, str | None],
    words: list[str],
) -> None:
    script = "echo $$ > pid.log; test $KHLONE_NAME = b || exit 5"

    done = khlone("exec", *words, "--", "sh", "-c", script, cwd=project, env=watcher)

    assert done.code == (1 if "--all" in words else 5)
    assert "warning" not in done.err
    for name, how in (("a", "exit 5"), ("b", "exit 0")) if "--all" in words else (("a", "exit 5"),):
        pid = (pair[name] / "pid.log").read_text().strip()
        assert hooks(tmp_path, name) == [
            f"pre_spawn {name}",
            f"post_spawn {name} {pid} running",
            f"session_ended {name} {pid} {how}",
        ]


def test_a_veto_holds_one_clone_and_no_other(
    khlone: Khlone, project: Path, pair: dict[str, Path], tmp_path: Path, watcher: dict[str, str | None]
) -> None:
    done = khlone("exec", "--all", "--", "echo", "ran", cwd=project, env={**watcher, "REFUSED": "a"})

    assert (done.code, done.out) == (1, "ran\n")
    assert "khlone: a: not in this one" in done.err
    assert [line.split()[0] for line in hooks(tmp_path, "b")] == ["pre_spawn", "post_spawn", "session_ended"]
