"""32 creations at once beside foreign git commands, and the same with plain `git worktree add`.

The plain side is the control: load is raised until plain git fails, else the race shows
nothing and says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, table

_AT_ONCE = 32
_ROUNDS = 10
_FILES = 200
_LOADS = (0, 2, 4, 8, 16)
_FOREIGN = (
    ("git", "worktree", "list"),
    ("git", "branch", "-a"),
    ("git", "fetch", "-q", "origin"),
    ("git", "worktree", "prune"),
)


class Foreign:
    """Foreign commands that loop until the end of the block; counts runs and failures."""

    def __init__(self, bench: Bench, repository: Path) -> None:
        self._bench, self._repository = bench, repository
        self._end = threading.Event()
        self.runs = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._loop, args=(argv,)) for argv in _FOREIGN]

    def _loop(self, argv: Sequence[str]) -> None:
        while not self._end.is_set():
            done = subprocess.run(
                argv, cwd=self._repository, env=self._bench.environment, capture_output=True, check=False, text=True
            )
            self.runs += 1
            if done.returncode != 0:
                self.failures.append(done.stderr.strip())

    def __enter__(self) -> Foreign:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


class Load:
    """Processes that do nothing but use a core, for the length of the block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Load:
        code = "while True: pass"
        self._children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
            child.wait()


def _at_once(bench: Bench, repository: Path, argv_of: Callable[[int], Sequence[str]]) -> tuple[list[str], float]:
    """Start all at once; what the failed ones said, and the wall time of all."""
    started = time.perf_counter()
    children = [
        subprocess.Popen(
            argv_of(number),
            cwd=repository,
            env=bench.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(_AT_ONCE)
    ]
    said = [(child.communicate()[1], child.returncode) for child in children]
    return [text.strip() for text, code in said if code != 0], time.perf_counter() - started


def _repository(bench: Bench, name: str) -> Path:
    repository = bench.repository(name, files=_FILES)
    bench.ask("git", "clone", "-q", "--bare", str(repository), str(bench.root / f"{name}.git"), cwd=bench.root)
    bench.ask("git", "remote", "add", "origin", str(bench.root / f"{name}.git"), cwd=repository)
    bench.ask("git", "fetch", "-q", "origin", cwd=repository)
    return repository


def _fetchable(bench: Bench, name: str, number: int) -> None:
    """Something new on the remote, so that each fetch has work."""
    origin = bench.root / f"{name}.git"
    tree = bench.ask("git", "rev-parse", "main^{tree}", cwd=origin).strip()
    commit = bench.ask("git", "commit-tree", "-m", f"upstream {number}", "-p", "main", tree, cwd=origin).strip()
    bench.ask("git", "update-ref", f"refs/heads/up{number}", commit, cwd=origin)


def _race(bench: Bench, name: str, load: int, argv_of: Callable[[int, int], Sequence[str]]) -> tuple[list[str], ...]:
    repository = _repository(bench, name)
    failed: list[str] = []
    foreign_failed: list[str] = []
    runs = 0
    walls = []
    for number in range(_ROUNDS):
        _fetchable(bench, name, number)
        with Load(load), Foreign(bench, repository) as foreign:
            said, wall_s = _at_once(bench, repository, lambda one, number=number: argv_of(number, one))  # type: ignore[misc]
        failed += said
        foreign_failed += foreign.failures
        runs += foreign.runs
        walls.append(wall_s)
    total = _AT_ONCE * _ROUNDS
    row = [
        name,
        str(load),
        f"{len(failed)} of {total}",
        f"{len(foreign_failed)} of {runs}",
        f"{sorted(walls)[len(walls) // 2]:.2f}",
    ]
    return row, failed, foreign_failed


def main(bench: Bench) -> None:
    """Raise the load until plain git fails; khlone runs under the same load."""
    rows = []
    ours_failed: list[str] = []
    inconclusive = True
    for load in _LOADS:
        plain = bench.root / f"plain-at-{load}"
        plain.mkdir()

        def add(number: int, one: int, plain: Path = plain) -> Sequence[str]:
            name = f"c{number}-{one}"
            return ("git", "worktree", "add", "-q", "-b", name, os.fspath(plain / name))

        def new(number: int, one: int) -> Sequence[str]:
            return (KHLONE, "new", f"c{number}-{one}")

        theirs, failed, foreign_failed = _race(bench, f"git worktree add, load {load}", load, add)
        ours, said, foreign_said = _race(bench, f"khlone new, load {load}", load, new)
        rows += [theirs, ours]
        ours_failed += said + foreign_said
        if failed or foreign_failed:
            inconclusive = False
            break
    table(
        f"{_AT_ONCE} at once, {_ROUNDS} rounds, beside looping worktree list, branch -a, fetch, worktree prune",
        ("", "busy processes", "creations failed", "foreign commands failed", "median s a round"),
        rows,
    )
    if inconclusive:
        print("  inconclusive: plain git did not fail under any load tried")
    for text in dict.fromkeys(ours_failed):
        print(f"  khlone's side: {text}")
