"""`list` and `show` carry what the processes of each clone use, whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import document, new, show
from tests.support import KHLONE, Khlone

MIB = 1 << 20
#: Holds memory, says that it is there by a file, and waits for another file to end.
HOLDER = """
import os, sys, time
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
with open(sys.argv[2] + ".tmp", "w") as stream:
    stream.write(str(os.getpid()))
os.rename(sys.argv[2] + ".tmp", sys.argv[2])
while not os.path.exists(sys.argv[3]):
    time.sleep(0.02)
"""
#: Forks twice, into a session of its own with its folder elsewhere, and is the holder there.
DAEMON = (
    """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
os.chdir("/")
if os.fork():
    os._exit(0)
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
"""
    + HOLDER
)
BURNER = """
import os, sys
with open(sys.argv[2], "w") as stream:
    stream.write(str(os.getpid()))
while not os.path.exists(sys.argv[3]):
    pass
"""


def wait_for(what: Callable[[], bool]) -> None:
    """Poll for an event, with a bound."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Holders:
    """Processes that wait for one file; `end` makes it and waits until they are gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.end_file = folder / "end"
        self._pids: list[int] = []

    def arguments(self, name: str, size: int) -> list[str]:
        """What a holder is called with."""
        return [str(size), str(self.folder / name), str(self.end_file)]

    def pid(self, name: str) -> int:
        """The pid of a holder, once it is there."""
        wait_for((self.folder / name).exists)
        found = int((self.folder / name).read_text())
        self._pids.append(found)
        return found

    def end(self) -> None:
        """Let all of them go."""
        self.end_file.touch()
        for pid in self._pids:
            wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[Holders]:
    """Processes that are gone at the end."""
    folder = tmp_path / "holders"
    folder.mkdir()
    made = Holders(folder)
    yield made
    made.end()


def smaps(pid: int, key: str) -> int:
    """Bytes of a line of smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def sessions_of(khlone: Khlone, where: Path, name: str) -> list[dict[str, Any]]:
    """The sessions that `list` tells of a clone."""
    clones = document(khlone("list", "--json", cwd=where), "list")["clones"]
    return list(next(clone for clone in clones if clone["name"] == name)["sessions"])


def test_a_double_forked_child_that_moved_away_is_found_with_its_memory(
    khlone: Khlone, repository: Path, holders: Holders
) -> None:
    new(khlone, repository, "one")
    new(khlone, repository, "other")
    words = holders.arguments("daemon", 200 * MIB)
    done = khlone("exec", "one", "--", sys.executable, "-c", DAEMON, *words, cwd=repository)
    assert done.code == 0, done
    pid = holders.pid("daemon")

    listed = sessions_of(khlone, repository, "one")
    shown = show(khlone, repository, "one")["sessions"]
    rss, pss = smaps(pid, "Rss"), smaps(pid, "Pss")

    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert [(one["pid"], one["state"]) for one in listed] == [(pid, "foreign")]
    assert abs(listed[0]["rss_bytes"] - rss) < rss * 0.1
    assert abs(shown[0]["pss_bytes"] - pss) < pss * 0.1
    assert rss > 200 * MIB
    assert sessions_of(khlone, repository, "other") == []


def test_a_process_that_somebody_started_in_the_worktree_is_shown(
    khlone: Khlone, repository: Path, holders: Holders
) -> None:
    path = new(khlone, repository, "one")
    words = holders.arguments("plain", 30 * MIB)
    child = subprocess.Popen([sys.executable, "-c", HOLDER, *words], cwd=path)
    pid = holders.pid("plain")

    found = sessions_of(khlone, repository, "one")

    assert [(one["id"], one["pid"], one["state"]) for one in found] == [(f"pid-{pid}", pid, "foreign")]
    assert found[0]["command"][0] == sys.executable
    assert found[0]["rss_bytes"] > 30 * MIB
    holders.end()
    child.wait()


def test_a_session_counts_its_whole_tree(khlone: Khlone, repository: Path, holders: Holders) -> None:
    new(khlone, repository, "one")
    script = f"{sys.executable} -c '{HOLDER}' {' '.join(holders.arguments('child', 60 * MIB))}; true"
    running = subprocess.Popen([KHLONE, "exec", "one", "--", "sh", "-c", script], cwd=repository)
    holders.pid("child")

    found = sessions_of(khlone, repository, "one")

    assert [one["state"] for one in found] == ["running"]
    assert found[0]["rss_bytes"] > 60 * MIB
    holders.end()
    assert running.wait() == 0
    assert sessions_of(khlone, repository, "one") == []


def test_cpu_is_told_as_a_share_of_one_core(khlone: Khlone, repository: Path, holders: Holders) -> None:
    path = new(khlone, repository, "one")
    idle = subprocess.Popen([sys.executable, "-c", HOLDER, *holders.arguments("idle", MIB)], cwd=path)
    busy = subprocess.Popen([sys.executable, "-c", BURNER, *holders.arguments("busy", MIB)], cwd=path)
    quiet, loud = holders.pid("idle"), holders.pid("busy")

    found = {one["pid"]: one["cpu_percent"] for one in show(khlone, repository, "one")["sessions"]}

    holders.end()
    idle.wait()
    busy.wait()
    assert found[loud] > found[quiet]
    assert found[quiet] < 20


def test_the_shell_that_asks_is_not_counted(khlone: Khlone, repository: Path) -> None:
    path = new(khlone, repository, "one")

    found = document(khlone("show", "--json", cwd=path), "show")["clone"]["sessions"]

    assert found == []


def test_a_clone_with_a_hidden_child_is_not_removed_and_with_force_the_child_ends(
    khlone: Khlone, repository: Path, holders: Holders
) -> None:
    path = new(khlone, repository, "one")
    words = holders.arguments("daemon", MIB)
    khlone("exec", "one", "--", sys.executable, "-c", DAEMON, *words, cwd=repository)
    pid = holders.pid("daemon")

    refused = khlone("remove", "one", "--json", cwd=repository)
    still = path.exists()
    forced = khlone("remove", "--force", "one", cwd=repository)

    assert [one["code"] for one in document(refused, "remove", 1)["kept"]] == ["session-live"]
    assert still
    assert forced.code == 0, forced
    assert str(pid) in forced.err
    assert not alive(pid)


def test_without_processes_psutil_is_not_loaded(repository: Path, khlone: Khlone) -> None:
    new(khlone, repository, "one")
    code = "import sys; from khlone.cli import run; run(['list']); print('psutil' in sys.modules, file=sys.__stderr__)"

    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)

    assert done.stderr.strip() == "False"
