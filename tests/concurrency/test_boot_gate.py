"""Agents that share one config dir start one after the other, so that none loses what another has written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.steps import program, user_settings
from tests.commands.steps import document, new
from tests.commands.test_resources import wait_for
from tests.commands.test_run import supervisors
from tests.support import KHLONE, Khlone, run_git

MANY = 6
#: Reads its config, thinks, and writes all of it with its own name in it: nothing is locked.
BOOT = """
import json, os, sys, time
folder, name = sys.argv[1], os.environ.get("KHLONE_NAME") or sys.argv[2]
path = os.path.join(folder, "config.json")
with open(os.path.join(folder, "..", "begun"), "a") as stream:
    stream.write(name + "\\n")
state = {}
if os.path.exists(path):
    with open(path) as stream:
        state = json.load(stream)
time.sleep(0.5)
# Where so many are to have begun at once, none goes on before.
while sum(1 for line in open(os.path.join(folder, "..", "begun"))) < int(sys.argv[3] or 0):
    time.sleep(0.05)
state[name] = True
with open(path + f".{os.getpid()}", "w") as stream:
    json.dump(state, stream)
os.replace(path + f".{os.getpid()}", path)
while os.path.exists(os.path.join(folder, "..", "hold-" + name)):
    with open(os.path.join(folder, "restless"), "a") as stream:
        stream.write("x")
    time.sleep(0.05)
"""
PROFILE = """
[agents.plain]
variable = "{variable}"
command = "plain"
home = "~/.plain"
"""


@pytest.fixture
def shared(tmp_path: Path, khlone: Khlone, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The config dir that all of `plain` share."""
    config = Path(os.environ["HOME"], ".plain")
    config.mkdir()
    user_settings(PROFILE.format(variable=""))
    (tmp_path / "boot.py").write_text(BOOT)
    program(tmp_path / "bin", "plain", f'exec {sys.executable} -IS {tmp_path}/boot.py {config} "$1" "$2"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    run_git("config", "khlone.limits.boot", "600", cwd=repository)
    yield config
    for path in config.parent.glob("hold-*"):
        path.unlink()
    khlone("stop", "--all", "--grace", "1", cwd=repository)
    wait_for(lambda: not supervisors())


def begun(shared: Path) -> list[str]:
    """Whose start has begun, in order."""
    path = shared.with_name("begun")
    return path.read_text().split() if path.exists() else []


def start(khlone: Khlone, where: Path, *names: str) -> None:
    """A detached session of the agent in a new clone of each name."""
    for name in names:
        new(khlone, where, name, "--agent", "plain")
        done = khlone("run", name, "--detach", "--", "plain", cwd=where)
        assert done.code == 0, done


def waiting(khlone: Khlone, where: Path, name: str) -> str | None:
    """What the session of a clone waits for, where it waits."""
    (session,) = document(khlone("show", name, "--json", cwd=where), "show")["clone"]["sessions"]
    return session["reason"] if session["state"] == "waiting" else None


def test_without_khlone_starts_at_once_lose_what_others_have_written(shared: Path) -> None:
    """The control."""
    running = [subprocess.Popen(["plain", f"w{number}", str(MANY)]) for number in range(MANY)]

    assert [one.wait(timeout=60) for one in running] == [0] * MANY

    assert len(json.loads((shared / "config.json").read_text())) == 1


@pytest.mark.slow
def test_what_shares_a_config_starts_one_after_the_other_and_nothing_is_lost(
    khlone: Khlone, repository: Path, shared: Path
) -> None:
    names = [f"w{number}" for number in range(MANY)]

    start(khlone, repository, *names)
    ended = document(khlone("wait", *names, "--json", cwd=repository), "wait")["sessions"]

    assert [one["exit"] for one in ended] == [0] * MANY
    assert begun(shared) == names
    assert sorted(json.loads((shared / "config.json").read_text())) == names


@pytest.mark.parametrize("how", ["killed", "settled"])
def test_the_next_one_starts_when_the_config_is_quiet_or_the_first_is_dead(
    khlone: Khlone, repository: Path, shared: Path, how: str
) -> None:
    shared.with_name("hold-first").touch()
    start(khlone, repository, "first")
    wait_for(lambda: begun(shared) == ["first"])
    start(khlone, repository, "second")
    why = "the start of plain in second waits, number 1 of 1 in line: that of first is under way"
    wait_for(lambda: (waiting(khlone, repository, "second") or "").startswith(why))

    assert why in khlone("logs", "second", cwd=repository).out
    assert begun(shared) == ["first"]
    if how == "killed":
        (session,) = document(khlone("show", "first", "--json", cwd=repository), "show")["clone"]["sessions"]
        os.kill(session["pid"], signal.SIGKILL)
    else:
        shared.with_name("hold-first").unlink()
    wait_for(lambda: begun(shared) == ["first", "second"])


@pytest.mark.slow
@pytest.mark.parametrize("with_json", [False, True])
def test_one_command_in_every_clone_starts_one_agent_after_the_other(
    khlone: Khlone, repository: Path, shared: Path, with_json: bool
) -> None:
    names = [f"w{number}" for number in range(4)]
    for name in names:
        new(khlone, repository, name, "--agent", "plain")

    done = khlone("exec", "--all", "--jobs", "4", *["--json"] * with_json, "--", "plain", cwd=repository)

    assert done.code == 0, done
    assert sorted(json.loads((shared / "config.json").read_text())) == names


@pytest.mark.parametrize("which", [["--all", "--jobs", "2"], ["second"]])
def test_a_command_whose_output_is_captured_waits_its_turn_to_start_and_can_be_interrupted_meanwhile(
    khlone: Khlone, repository: Path, shared: Path, which: list[str]
) -> None:
    shared.with_name("hold-first").touch()
    start(khlone, repository, "first")
    wait_for(lambda: begun(shared) == ["first"])
    new(khlone, repository, "second", "--agent", "plain")

    words = [str(KHLONE), "exec", *which, "--json", "--", "plain"]
    with subprocess.Popen(
        words, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stderr is not None
        told = second.stderr.readline()
        second.terminate()

    assert told.startswith("khlone: the start of plain in ")
    assert "in line: that of first is under way" in told
    assert (second.returncode, begun(shared)) == (128 + signal.SIGTERM, ["first"])
    assert document(khlone("show", "second", "--json", cwd=repository), "show")["clone"]["sessions"] == []


def test_nobody_waits_longer_than_is_said_for_one_that_hangs(khlone: Khlone, repository: Path, shared: Path) -> None:
    run_git("config", "khlone.limits.boot", "3", cwd=repository)
    shared.with_name("hold-first").touch()
    start(khlone, repository, "first")
    wait_for(lambda: begun(shared) == ["first"])
    (session,) = document(khlone("show", "first", "--json", cwd=repository), "show")["clone"]["sessions"]
    stat = Path(f"/proc/{session['pid']}/stat").read_text()
    supervisor = int(stat.rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGSTOP)

    try:
        start(khlone, repository, "second")
        wait_for(lambda: begun(shared) == ["first", "second"])
    finally:
        os.kill(supervisor, signal.SIGCONT)


@pytest.mark.parametrize("why", ["own config", "set to none"])
def test_one_that_shares_nothing_or_is_not_to_wait_does_not(
    khlone: Khlone, repository: Path, shared: Path, why: str
) -> None:
    if why == "own config":
        user_settings(PROFILE.format(variable="PLAIN_HOME"))
    else:
        run_git("config", "khlone.limits.boot", "0", cwd=repository)
    shared.with_name("hold-first").touch()
    start(khlone, repository, "first")
    wait_for(lambda: begun(shared) == ["first"])

    start(khlone, repository, "second")

    # The first never settles: had the second waited for it, this would fail.
    assert khlone("wait", "second", cwd=repository).code == 0
    assert begun(shared) == ["first", "second"]
