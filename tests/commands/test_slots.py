"""`slot` shares slots for heavy commands between all clones; `limits` says what the machine has and who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused
from tests.commands.test_resources import alive, wait_for
from tests.concurrency.test_admission import Workers, in_line, leases, limit
from tests.support import KHLONE, Khlone


class Slots(Workers):
    """Workers that run in slots of the name `build`."""

    def start(self, name: str, *words: str, more: int = 0, all_of_them: int = 0) -> None:
        """One more command in a slot."""
        options = words or ("-n", "1")
        command = [str(KHLONE), "slot", "run", "--name", "build", *options, "--", *self.argv(name, more=more)]
        with open(self.folder / f"{name}.err", "wb") as told:
            self.running[name] = subprocess.Popen(
                command, cwd=self.repository, stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True
            )


@pytest.fixture
def slots(repository: Path, tmp_path: Path) -> Iterator[Slots]:
    """Commands in slots, all gone at the end."""
    folder = tmp_path / "workers"
    folder.mkdir()
    found = Slots(repository, folder)
    yield found
    found.let_go()
    for running in found.running.values():
        running.wait(timeout=60)


def test_no_more_run_than_there_are_slots_and_they_run_in_the_order_of_asking(slots: Slots) -> None:
    names = [f"w{number}" for number in range(5)]

    for place, name in enumerate(names):
        slots.start(name, "-n", "2")
        wait_for(lambda place=place: len(slots.started()) + in_line() > place)  # type: ignore[misc]
    codes = slots.end()

    assert set(codes.values()) == {0}
    assert slots.most() == 2
    assert slots.started() == names
    assert leases("id") == []


def test_who_waits_is_told_who_holds_and_the_list_shows_both(slots: Slots, khlone: Khlone) -> None:
    slots.start("holder")
    pid = slots.pid("holder")
    slots.start("waiter")
    wait_for(lambda: in_line() == 1)

    found = document(khlone("slot", "list", "--json", cwd=slots.repository), "slot")["slots"]
    shown = khlone("slot", cwd=slots.repository).out.splitlines()
    wait_for(lambda: bool(slots.told("waiter")))

    told = slots.told("waiter")
    assert told.startswith("khlone: slot build waits, number 1 of 1 in line: 1 of 1 are held: ")
    assert f"(pid {pid})" in told
    assert [(one["name"], one["waiting"], one["position"]) for one in found] == [
        ("build", False, None),
        ("build", True, 1),
    ]
    assert found[0]["pid"] == pid
    assert [line.split()[1] for line in shown[1:]] == ["held", "waits"]


@pytest.mark.parametrize("is_orphaned", [False, True])
def test_a_slot_is_free_once_its_command_is_killed(slots: Slots, is_orphaned: bool) -> None:
    slots.start("holder")
    pid = slots.pid("holder")
    slots.start("next")
    wait_for(lambda: in_line() == 1)

    if is_orphaned:
        slots.running["holder"].kill()
        slots.running["holder"].wait()
        # Its command still runs: a slot is about that.
        assert alive(pid)
        assert slots.started() == ["holder"]
    os.kill(pid, signal.SIGKILL)
    slots.pid("next")

    assert slots.running["holder"].wait() == (-9 if is_orphaned else 137)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_it_ends_as_the_command_ended(khlone: Khlone, tmp_path: Path, options: list[str]) -> None:
    script = "echo out; echo err >&2; exit 7"

    done = khlone("slot", "run", *options, "--", "sh", "-c", script, cwd=tmp_path)
    killed = khlone("slot", "run", *options, "--", "sh", "-c", "kill -9 $$", cwd=tmp_path)

    assert (done.code, killed.code) == (7, 137)
    if options:
        result = document(done, "slot", 7)["result"]
        assert (result["exit"], result["stdout"], result["stderr"]) == (7, "out\n", "err\n")
    else:
        assert (done.out, done.err) == ("out\n", "err\n")


def test_a_slot_within_a_slot_of_the_same_name_needs_no_second_one(khlone: Khlone, tmp_path: Path) -> None:
    inner = [str(KHLONE), "slot", "run", "--no-wait", "--", "printenv", "KHLONE_SLOTS"]

    done = khlone("slot", "run", "--", *inner, cwd=tmp_path)

    assert (done.code, done.out) == (0, "default default\n"), done


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run"], "usage"),
        (["run", "--name", "../x", "--", "true"], "usage"),
        (["run", "-n", "0", "--", "true"], "usage"),
        (["list", "--name", "x"], "usage"),
    ],
)
def test_what_cannot_be_meant_is_refused(khlone: Khlone, tmp_path: Path, words: list[str], code: str) -> None:
    refused(khlone("--json", "slot", *words, cwd=tmp_path), code, 2)

    assert leases("id") == []


def test_no_wait_gives_75_and_a_setting_says_how_many_there_are(slots: Slots, khlone: Khlone, tmp_path: Path) -> None:
    slots.start("holder")
    slots.pid("holder")

    words = ("slot", "run", "--name", "build", "--no-wait", "--", "true")
    first = khlone(*words, cwd=slots.repository)
    more = khlone("config", "set", "slots.build", "2", "--user", cwd=slots.repository)
    second = khlone(*words, cwd=slots.repository)

    assert (first.code, more.code, second.code) == (75, 0, 0), (first, more, second)
    assert "khlone: slot build is not free: 1 of 1 are held" in first.err
    assert "git khlone slot shows who holds what" in first.err


def test_limits_say_what_is_reserved_and_how_many_clones_the_machine_carries(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    new(khlone, repository, "one")
    folder = tmp_path / "workers"
    folder.mkdir()
    workers = Workers(repository, folder)
    limit(repository, sessions=1)
    workers.start("holder")
    pid = workers.pid("holder")
    workers.start("waiter")
    wait_for(lambda: in_line() == 1)

    found = document(khlone("limits", "--json", cwd=repository), "limits")
    text = khlone("limits", "--agent", "other", cwd=repository).out
    workers.end()

    assert [(one["name"], one["position"], one["kind"]) for one in found["places"]] == [
        ("one", None, "command"),
        ("one", 1, "command"),
    ]
    assert found["places"][0]["pid"] == pid
    assert found["places"][1]["reason"] == "1 of 1 sessions run (khlone.limits.sessions)"
    carries, machine = found["carries"], found["machine"]
    assert carries["sessions"] == 1
    assert carries["by_cores"] == max(1, int(machine["cores"] * 100 / carries["each_core_percent"]))
    kept = min(1 << 30, machine["memory_bytes"] // 10)
    assert found["limits"]["reserve_bytes"] == kept
    usable = machine["memory_bytes"] - kept
    assert carries["by_memory"] == max(1, usable // carries["each_bytes"])
    assert "the least of these: 1 active clones of other" in text


def test_memory_is_learned_from_what_sessions_were_seen_to_use(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one")
    code = """
import sys
from pathlib import Path
from khlone import App
from khlone.operations import admission
app = App.open(Path(sys.argv[1]))
for peak in (300, 100, 200):
    with admission.admit(app, admission.Request(clone="x", name="x", path=app.location.cwd, kind="claude")) as place:
        place.note_usage(peak << 20)
"""
    subprocess.run([sys.executable, "-c", code, str(repository)], check=True, timeout=60)

    found = json.loads(khlone("limits", "--json", cwd=repository).out)

    assert found["carries"]["each_bytes"] == 300 << 20
    assert found["limits"]["each_bytes"] == 780 << 20
