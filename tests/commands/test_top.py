"""`top` shows what sessions use, and its keys pause, let go on and stop them; `show` has the course of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from khlone import samples
from khlone.samples import INTERVAL_S, KEPT, Sample, sparkline
from tests.commands.steps import document, new, show
from tests.commands.test_resources import HOLDER, MIB, Holders, alive, wait_for
from tests.commands.test_resources import holders as holders
from tests.support import KHLONE, Khlone


@pytest.fixture
def running(khlone: Khlone, repository: Path, holders: Holders) -> Iterator[tuple[Path, int]]:
    """The repository with a session in clone `one` that holds 40 MiB, and its pid."""
    new(khlone, repository, "one")
    words = [str(KHLONE), "exec", "one", "--", sys.executable, "-c", HOLDER, *holders.arguments("held", 40 * MIB)]
    with subprocess.Popen(words, cwd=repository, stdin=subprocess.DEVNULL) as command:
        yield repository, holders.pid("held")
        holders.end()
        command.wait(timeout=60)


def is_stopped(pid: int) -> bool:
    """Whether the kernel says that it is stopped."""
    return "\nState:\tT" in Path(f"/proc/{pid}/status").read_text()


def test_a_single_look_has_every_session_with_what_it_uses(khlone: Khlone, running: tuple[Path, int]) -> None:
    repository, pid = running
    new(khlone, repository, "idle")

    (found,) = document(khlone("top", "--json", cwd=repository), "top")["sessions"]
    table = khlone("top", "--sort", "memory", cwd=repository).out.splitlines()

    assert (found["name"], found["state"], found["pid"], found["paused"]) == ("one", "running", pid, False)
    assert found["rss_bytes"] > 40 * MIB
    assert 0 < found["pss_bytes"] <= found["rss_bytes"]
    assert (found["processes"], found["threads"]) == (1, 1)
    assert found["open_files"] >= 1
    assert [line.split()[0] for line in table] == ["CLONE", "one"]


def test_keys_pause_let_go_on_and_stop_a_session(khlone: Khlone, running: tuple[Path, int]) -> None:
    repository, pid = running
    environment = {**os.environ, "TERM": "xterm-256color"}
    top = pexpect.spawn(
        str(KHLONE), ["top", "-d", "1"], cwd=str(repository), env=environment, timeout=60, dimensions=(30, 150)
    )

    top.expect(b"sorted by cpu")
    top.send(b"m")
    top.expect(b"sorted by memory")
    top.send(b"p")
    top.expect(b"1 processes of one are paused")
    assert is_stopped(pid)
    assert khlone("list", cwd=repository).out.splitlines()[1].split()[-2] == "paused"
    (shown,) = show(khlone, repository, "one")["sessions"]
    assert (shown["state"], shown["activity"]) == ("running", "paused")
    top.expect(b"paused")
    top.send(b"p")
    top.expect(b"1 processes of one go on")
    assert not is_stopped(pid)
    assert khlone("list", cwd=repository).out.splitlines()[1].split()[-2] == "running"
    top.send(b"l")
    top.expect(b"one has no log")
    top.expect(b"l back")
    top.send(b"s")
    top.expect(b"stop one [(]pid")
    assert alive(pid)
    top.send(b"y")
    top.expect(b"one is stopped")
    top.send(b"q")
    top.expect(pexpect.EOF)
    top.close()

    assert not alive(pid)
    assert top.exitstatus == 0
    assert b"\x1b[?1049l" in top.before


def test_the_session_that_is_asked_about_is_stopped_whichever_is_the_first_by_then(
    khlone: Khlone, running: tuple[Path, int], holders: Holders, tmp_path: Path
) -> None:
    """Started again on failure, and told the reason: what `top` stops is stopped as by `stop`."""
    repository, first = running
    new(khlone, repository, "a")
    words = ["run", "a", "--detach", "--restart", "on-failure", "--", sys.executable, "-c", HOLDER]
    assert khlone(*words, *holders.arguments("asked", 1), cwd=repository).code == 0
    asked = holders.pid("asked")
    top = pexpect.spawn(
        str(KHLONE),
        ["top", "-d", "1", "--sort", "name"],
        cwd=str(repository),
        env={**os.environ, "TERM": "xterm-256color"},
        timeout=60,
        dimensions=(30, 150),
    )

    top.expect(b"sorted by name")
    top.send(b"s")
    top.expect(b"stop a [(]pid %d" % asked)
    new(khlone, repository, "0")
    before = document(khlone("run", "0", "--detach", "--json", "--", "sleep", "600", cwd=repository), "run")["session"]
    top.expect(rb"\b0 +running")
    top.send(b"y")
    top.expect(b"a is stopped")
    top.send(b"p")
    top.send(b"q")
    top.expect(pexpect.EOF)
    top.close()
    states = {
        one["name"]: one["sessions"] for one in document(khlone("list", "--json", cwd=repository), "list")["clones"]
    }
    waited = document(khlone("wait", "a", "--json", cwd=repository), "wait", 143)["sessions"][0]
    is_paused = is_stopped(before["pid"])
    khlone("stop", "0", cwd=repository)

    assert not is_paused, "what was chosen is gone, and no other is in its place"
    assert {name: [one["state"] for one in of] for name, of in states.items()} == {
        "0": ["running"],
        "a": [],
        "one": ["running"],
    }
    assert (waited["signal"], waited["reason"]) == (15, "it was stopped")
    assert not alive(asked)
    assert alive(first)


#: Says that it was told to end, before it does.
ATTENTIVE = """
import os, signal, sys
def end(*_):
    open(sys.argv[2] + ".heard", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with open(sys.argv[2], "w") as stream:
    stream.write(str(os.getpid()))
while True:
    signal.pause()
"""


def test_a_paused_session_is_told_to_end_like_any_other(khlone: Khlone, repository: Path, holders: Holders) -> None:
    path = new(khlone, repository, "one")
    words = holders.arguments("paused", 0)
    child = subprocess.Popen([sys.executable, "-c", ATTENTIVE, *words], cwd=path)
    wait_for(lambda: bool((holders.folder / "paused").exists() and (holders.folder / "paused").read_text()))
    os.kill(child.pid, signal.SIGSTOP)
    wait_for(lambda: is_stopped(child.pid))

    done = khlone("remove", "--force", "one", cwd=repository)
    code = child.wait(timeout=60)

    assert done.code == 0, done
    assert (code, (holders.folder / "paused.heard").exists()) == (0, True)


def test_show_has_the_course_of_memory_and_cpu(khlone: Khlone, running: tuple[Path, int]) -> None:
    repository, _ = running
    folder = Path(show(khlone, repository, "one")["config_dir"]).parent.parent / "run"
    now = time.time()
    for step in range(10):
        samples.add(folder, sample(now - 60 + 5 * step, rss_bytes=step * 100 * MIB))

    plain = khlone("show", "one", cwd=repository, env={"PYTHONIOENCODING": "ascii"}).out
    drawn = khlone("show", "one", cwd=repository, env={"PYTHONIOENCODING": "utf-8"}).out

    assert plain.splitlines()[-2] == "memory      _.--=+**#@ at most 900.0 MiB"
    assert drawn.splitlines()[-2] == "memory      ▁▂▃▃▄▅▆▆▇█ at most 900.0 MiB"
    assert document(khlone("show", "one", "--json", cwd=repository), "show")


def test_without_a_look_show_is_as_ever(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one")

    assert "memory" not in khlone("show", "one", cwd=repository).out


# -- the samples ------------------------------------------------------------------------------


def sample(at_s: float, *, rss_bytes: int = 1, pss_bytes: int | None = None) -> Sample:
    """One sample."""
    return Sample(at_s=at_s, rss_bytes=rss_bytes, pss_bytes=pss_bytes, cpu_percent=1.5, processes=2, threads=3)


def test_samples_come_back_in_their_order_and_old_ones_go(tmp_path: Path) -> None:
    now = 1_700_000_000.0

    for step in range(KEPT + 50):
        samples.add(tmp_path, sample(now + step * INTERVAL_S, rss_bytes=step))
    end = now + (KEPT + 49) * INTERVAL_S
    found = samples.read(tmp_path, now_s=end)

    assert [one.rss_bytes for one in found] == list(range(50, KEPT + 50))
    assert found[-1] == sample(end, rss_bytes=KEPT + 49)
    assert (tmp_path / samples.FILE).stat().st_size < 20_000
    assert samples.read(tmp_path, now_s=end + 2 * KEPT * INTERVAL_S) == []


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 40_000])
def test_a_foreign_file_is_a_gap(tmp_path: Path, content: bytes) -> None:
    (tmp_path / samples.FILE).write_bytes(content)

    assert samples.read(tmp_path) == []


def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / samples.FILE).symlink_to(outside)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / samples.FILE)

    for name in ("linked", "pipe", "missing"):
        samples.add(tmp_path / name, sample(time.time()))
        assert samples.read(tmp_path / name) == []

    assert outside.read_bytes() == b""


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([0, 0], "__"), ([1, 2, 4], "-+@"), ([5], "@"), (list(range(80)), None)],
)
def test_a_sparkline_has_the_highest_of_each_part(values: list[float], drawn: str | None) -> None:
    found = sparkline(values, plain=True)

    assert len(found) == min(40, len(values))
    assert drawn in (None, found)
    assert not values or not max(values) or found[-1] == "@"
