"""Processes killed at random while every verb is used: every promise holds after one recovery.

Half of the kills take khlone alone, so that its git goes on as an orphan; half take every
process of its session. KHLONE_KILLS=100 makes it exactly so many, KHLONE_SEED=N another
run; KHLONE_TORTURE=1 alone makes it 400.
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

from tests.crash.mixed_run import MINE, MixedRun, Round
from tests.sandbox import Sandbox
from tests.support import write

KILLS = int(os.environ.get("KHLONE_KILLS") or (400 if os.environ.get("KHLONE_TORTURE") else 20))
SEED = int(os.environ.get("KHLONE_SEED") or 7)
#: Of ten kills at least so many are inside an open operation, and so many of a command that keeps a journal.
INSIDE, JOURNALLED = (8 if KILLS >= 100 else 6), 9
#: No round has taken a tenth of it, on a loaded machine.
ROUND_S = 60
#: A process is looked at so often, in seconds: a step of an operation takes some milliseconds.
LOOK_S = 0.002


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


def steps(log: Path) -> list[str]:
    """The fault points that were reached."""
    return log.read_text().split() if log.exists() else []


def is_there(round_: Round, log: Path) -> bool:
    """Whether the command is where the round wants it."""
    reached = steps(log)
    return bool(reached) if round_.point == "*" else reached.count(str(round_.point)) >= round_.occurrence


def kill_inside(box: Sandbox, chance: random.Random, round_: Round, log: Path, *, all_of_it: bool) -> bool:
    """Start a command and kill it a moment after it was where the round wants it; False when it ended before."""
    log.unlink(missing_ok=True)
    moment = chance.choice([0.0, 0.0, 0.002, 0.004, 0.012, 0.025]) * chance.random()
    if round_.point is None:
        moment = 0.4 * chance.random()
    child = box.start(*round_.words, KHLONE_FAULT_LOG=str(log))
    while round_.point is not None and child.poll() is None and not is_there(round_, log):
        time.sleep(LOOK_S)
    deadline = time.monotonic() + moment
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(min(LOOK_S, moment))
    in_time = child.poll() is None
    if in_time:
        # Finding the others takes longer than a step of an operation: khlone waits for them.
        os.kill(child.pid, signal.SIGSTOP)
        for victim in (*(session_members(child.pid) if all_of_it else ()), child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
    child.wait()
    while session_members(child.pid):
        time.sleep(LOOK_S)
    return in_time


def told(histogram: collections.Counter[str]) -> str:
    """A table of two columns."""
    return "\n".join(f"  {count:4}  {what}" for what, count in sorted(histogram.items()))


@pytest.mark.timeout(300 + ROUND_S * KILLS)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sessions are found through /proc")
def test_random_kills_in_a_mixed_run_of_all_verbs_violate_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    box, log = Sandbox(tmp_path), tmp_path / "steps"
    box.create(files=60)
    assert box.khlone("new", "first", "-n", "3").code == 0
    write(box.repository, MINE)
    run = MixedRun(box, chance)
    by_step: collections.Counter[str] = collections.Counter()
    by_verb: collections.Counter[str] = collections.Counter()
    violations: list[object] = []
    inside = damaged = tried = 0

    # Where many a kill comes too late, as on a loaded machine, there are some more.
    while by_step.total() < KILLS or inside * 10 < by_step.total() * INSIDE:
        tried += 1
        assert tried <= KILLS * 10, f"too few kills hit an open operation: {by_step}"
        few = inside * 10 < by_step.total() * INSIDE
        round_ = run.next_round(journalled=few or by_step.total() % 10 < JOURNALLED)
        if not kill_inside(box, chance, round_, log, all_of_it=tried % 2 == 0):
            run.again(round_)
        else:
            was_open, reached = bool(box.open_operations()), steps(log)
            by_step[f"{'inside, after' if was_open else 'outside, after'} {reached[-1] if reached else 'nothing'}"] += 1
            by_verb[round_.verb] += 1
            inside += was_open
            damaged += was_open and any(not one.startswith("open operation") for one in box.violations())
        done = box.khlone("doctor", "--fix")
        run.undo_own_worktrees()
        found = [*box.violations(), *run.losses(), *([] if done.code == 0 else [done])]
        violations += [(SEED, tried, round_.words, round_.point, one) for one in found]
        if found:
            break

    with capsys.disabled():
        print(f"\n{by_step.total()} random kills, {inside} of them inside an open operation; seed {SEED}")
        print(f"{damaged} left damage that recovery mended; {len(violations)} violations\nby step:\n{told(by_step)}")
        print(f"by verb:\n{told(by_verb)}")
    assert violations == []
    assert damaged * 3 >= inside, "control: without recovery most of these are violations"


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

    assert during.code == 1
    assert "create was interrupted; its clone is held by git" in during.out
    assert still_open == [("create", "one", "")]
    assert after.code == 0
    assert box.open_operations() == []
    assert not box.clone_path("one").exists()
