"""What does it cost to look after many sessions that are idle: CPU of all supervisors together, and `top`?"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, compare, rounds, table

SESSIONS = 50
#: How long CPU is summed up, once so long has passed since the last start.
_MEASURED_S, _SETTLED_S = 60.0, 15.0
#: How long all of them may take to be there.
_READY_S = 300.0
#: As an agent that waits for its user: it has a session file, and its event loop wakes up now and then.
_AGENT = """#!{python} -IS
import os, sys, time
if "--version" in sys.argv:
    print("2.1.330 (Claude Code)")
    sys.exit(0)
folder = os.path.join(os.environ["CLAUDE_CONFIG_DIR"], "projects", "x")
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "s.jsonl"), "w") as stream:
    stream.write('{{"type": "user"}}\\n' * 1000)
while True:
    time.sleep(1)
"""


def main(bench: Bench) -> None:
    """Print the tables."""
    repository = bench.repository("watched", files=200, size=128)
    programs = bench.root / "programs"
    programs.mkdir()
    (programs / "claude").write_text(_AGENT.format(python=sys.executable))
    (programs / "claude").chmod(0o700)
    bench.environment |= {
        "PATH": f"{programs}:{bench.environment['PATH']}",
        "CLAUDE_CODE_OAUTH_TOKEN": "fake",
        "XDG_STATE_HOME": str(bench.root / "state"),
    }
    # What is measured is watching, not whether there is room.
    for key, value in (("durable", "false"), ("limits.memoryEach", "1M"), ("limits.pressure", "0")):
        bench.ask("git", "config", f"khlone.{key}", value, cwd=repository)
    with _sessions(bench, repository):
        _measure(bench)
        _compare(bench, repository)


@contextlib.contextmanager
def _sessions(bench: Bench, repository: Path) -> Iterator[None]:
    words = ("-n", str(SESSIONS), "work", "--agent", "claude", "--detach", "-x", "claude")
    bench.run(KHLONE, "new", *words, cwd=repository)
    try:
        deadline = time.monotonic() + _READY_S
        while len(_supervisors(bench)) < 2 * SESSIONS:
            if time.monotonic() > deadline:
                raise SystemExit(f"benchmark: {len(_supervisors(bench))} of {2 * SESSIONS} supervisors and keepers")
            time.sleep(0.2)
        time.sleep(_SETTLED_S)
        yield
    finally:
        bench.run(KHLONE, "stop", "--all", "--grace", "1", cwd=repository, check=False)


def _supervisors(bench: Bench) -> list[int]:
    """Every supervisor and keeper of this account."""
    mine = f"XDG_STATE_HOME={bench.root / 'state'}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (place / "environ").read_bytes().split(b"\0")
            if mine in variables and any(one.startswith(b"KHLONE_SUPERVISES=") for one in variables):
                found.append(int(place.name))
    return found


def _cpu_s(pids: list[int]) -> float:
    """Seconds of CPU of all threads of these processes, to the nanosecond."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(thread.read_text().split()[0])
    return total / 1e9


def _measure(bench: Bench) -> None:
    pids = _supervisors(bench)
    before, began = _cpu_s(pids), time.monotonic()
    time.sleep(_MEASURED_S)
    used_s, passed_s = _cpu_s(pids) - before, time.monotonic() - began
    memory = sum(_pss_bytes(pid) for pid in pids)
    table(
        f"watching {SESSIONS} idle sessions of an agent for {passed_s:.0f} s",
        ("", "processes", "CPU s", "% of a core", "memory MiB, shared parts by share"),
        [
            (
                "supervisors and keepers",
                str(len(pids)),
                f"{used_s:.2f}",
                f"{100 * used_s / passed_s:.2f}",
                f"{memory >> 20}",
            )
        ],
    )


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def _compare(bench: Bench, repository: Path) -> None:
    def khlone(*words: str) -> Cost:
        return bench.run(KHLONE, *words, cwd=repository)

    series = rounds(
        {
            "git worktree list": lambda _: bench.run("git", "worktree", "list", cwd=repository),
            "khlone list --no-status": lambda _: khlone("list", "--no-status"),
            "khlone list": lambda _: khlone("list"),
            "khlone top": lambda _: khlone("top"),
        },
        10,
    )
    compare(
        f"{SESSIONS} clones with a session", series, {"khlone top": "khlone list", "khlone list": "git worktree list"}
    )
