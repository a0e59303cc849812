"""Processes killed at random inside open operations: every promise holds after one recovery.

Half of the kills take khlone alone, so that its git goes on as an orphan; half take every
process of its session. KHLONE_TORTURE=1 makes it 400 kills.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.sandbox import Sandbox

KILLS = 400 if os.environ.get("KHLONE_TORTURE") else 20
TOO_LATE = "too late"
MINE = {"notes.md": "my own edit\n", "scratch.txt": "untracked\n"}


def session_members(session: int) -> list[int]:
    """Every live process of a session that a test started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def kill_inside(box: Sandbox, chance: random.Random, arguments: list[str], *, all_of_it: bool) -> str | None:
    """Start a command, kill it once it has an operation open; returns the kind that was open, if one was.

    `TOO_LATE` when the command had ended by itself before it could be killed.
    """
    child = box.start(*arguments)
    while child.poll() is None and not box.open_operations():
        time.sleep(0.001)
    deadline = time.monotonic() + chance.choice([0.0, 0.004, 0.012, 0.025]) * chance.random()
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    victims = session_members(child.pid) if all_of_it else [child.pid]
    in_time = child.poll() is None
    if in_time:
        for victim in {child.pid, *victims}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    child.wait()
    while session_members(child.pid):
        time.sleep(0.002)
    opened = box.open_operations()
    if not in_time and not opened:
        return TOO_LATE
    return str(opened[0][0]) if opened else None


def names(box: Sandbox, state: str) -> list[str]:
    """The clones in a state, as the registry has them."""
    return [str(row[0]) for row in box.rows(f"SELECT name FROM clones WHERE state IN ({state}) ORDER BY name")]


def next_command(box: Sandbox, chance: random.Random, number: int) -> list[str]:
    """A command that has something to do in the present state."""
    live, trashed = names(box, "'ready', 'merged'"), names(box, "'trashed'")
    verb = chance.choice(["new", "merge", "merge", "remove", "restore", "prune"])
    if verb == "merge" and live:
        name = chance.choice(live)
        box.write(box.clone_path(name), {f"src/{name}-{number}.txt": f"{number}\n" * 30})
        box.commit(box.clone_path(name), f"work {number}")
        return ["merge", name, chance.choice(["--merge", "--squash"])]
    if verb == "remove" and len(live) > 1:
        name = chance.choice(live)
        box.write(box.clone_path(name), {"left.txt": f"{number}\n", "left.log": "ignored\n"})
        return ["remove", "--force", name]
    if verb == "restore" and trashed:
        return ["restore", chance.choice(trashed)]
    if verb == "prune" and trashed:
        return ["prune", "--trash", "--age", "0"]
    return ["new", f"c{number}"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sessions are found through /proc")
def test_random_kills_inside_open_operations_violate_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("KHLONE_SEED", "7"))
    chance = random.Random(seed)
    box = Sandbox(tmp_path)
    box.create(files=60)
    for number in range(4):
        assert box.khlone("new", f"first{number}").code == 0
    box.write(box.repository, MINE)
    histogram: collections.Counter[str] = collections.Counter()
    damaged = 0

    number = 0
    while histogram.total() < KILLS or histogram["outside"] * 2 >= histogram.total():
        assert number < KILLS * 5, f"too few kills hit an open operation: {dict(histogram)}"
        number += 1
        command = next_command(box, chance, number)
        opened = kill_inside(box, chance, command, all_of_it=number % 2 == 0)
        if opened == TOO_LATE:
            continue
        histogram[opened or "outside"] += 1
        damaged += bool(opened) and bool(box.violations())
        done = box.khlone("doctor", "--fix")
        assert done.code == 0, (seed, number, command, done)
        assert box.violations() == [], (seed, number, command, done)
        assert {name: (box.repository / name).read_text() for name in MINE} == MINE, (seed, number, command)
        status = box.git("status", "--porcelain")
        assert status == " M notes.md\n?? scratch.txt\n", (seed, number, command, status)

    with capsys.disabled():
        print(f"\n{histogram.total()} random kills, by what was open: {dict(histogram)}; seed {seed}")
    inside = histogram.total() - histogram["outside"]
    assert damaged == inside, "control: without recovery every one of these is a violation"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sessions are found through /proc")
def test_recovery_leaves_an_operation_alone_while_its_git_lives(tmp_path: Path) -> None:
    """An orphaned git still holds its clone's operation lock; recovery comes after it has ended."""
    box = Sandbox(tmp_path)
    box.create()
    gate, reached = tmp_path / "gate", tmp_path / "reached"
    os.mkfifo(gate)
    box.git("config", "filter.slow.smudge", f"touch {reached}; test -p {gate} && read x < {gate}; cat")
    box.write(box.repository, {".gitattributes": "notes.md filter=slow\n"})
    box.git("add", ".gitattributes")
    box.git("commit", "-q", "-m", "slow")
    child = box.start("new", "one")
    while not reached.exists():
        assert child.poll() is None
        time.sleep(0.002)

    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    during = box.khlone("doctor", "--fix")
    still_open = box.open_operations()
    with gate.open("w") as stream:
        stream.write("go\n")
    gate.unlink()
    while session_members(child.pid):
        time.sleep(0.002)
    after = box.khlone("doctor", "--fix")

    assert during.code == 0
    assert still_open == [("create", "one", "")]
    assert after.code == 0
    assert box.open_operations() == []
    assert not box.clone_path("one").exists()
