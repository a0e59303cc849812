"""`merge` against the three plumbing commands it cannot do without, and how many git processes it starts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, compare, rounds, table

_ROUNDS = 12
_FILES = 20_000


def _work(bench: Bench, repository: Path, count: int) -> None:
    """Clones with a commit each."""
    for number in range(count):
        path = Path(bench.ask(KHLONE, "new", f"w{number}", "--into", "target", cwd=repository).splitlines()[-1])
        (path / "d0" / f"new{number}.txt").write_text(f"{number}\n")
        bench.ask("git", "add", "-A", cwd=path)
        bench.ask("git", "commit", "-q", "-m", f"work {number}", cwd=path)


def _plumbing(bench: Bench, repository: Path, branch: str) -> Cost:
    old = bench.ask("git", "rev-parse", "target", cwd=repository).strip()
    total = bench.run("git", "merge-tree", "--write-tree", old, branch, cwd=repository)
    tree = bench.ask("git", "merge-tree", "--write-tree", old, branch, cwd=repository).strip()
    made = ("git", "commit-tree", "-p", old, "-p", branch, "-m", "merge", tree)
    total += bench.run(*made, cwd=repository)
    commit = bench.ask(*made, cwd=repository).strip()
    return total + bench.run("git", "update-ref", "refs/heads/target", commit, old, cwd=repository)


def _processes(bench: Bench, repository: Path, *arguments: str) -> int:
    """How many git processes a command starts, as git's own trace has it."""
    folder = bench.root / "trace"
    folder.mkdir()
    bench.ask("git", "config", "--global", "trace2.eventTarget", str(folder), cwd=repository)
    for file in folder.iterdir():
        os.unlink(file)
    bench.run(KHLONE, *arguments, cwd=repository)
    bench.ask("git", "config", "--global", "--unset", "trace2.eventTarget", cwd=repository)
    started = 0
    for file in folder.iterdir():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        started += any(line["event"] == "start" and "--unset" not in line["argv"] for line in lines)
        os.unlink(file)
    folder.rmdir()
    return started


def _counts(bench: Bench, repository: Path, names: Sequence[str]) -> None:
    rows = [
        ("merge, target checked out nowhere", str(_processes(bench, repository, "merge", names[0])), "5"),
        ("squash, target checked out nowhere", str(_processes(bench, repository, "merge", "--squash", names[1])), "5"),
    ]
    into = ("--into", "main")
    rows += [
        ("merge, target checked out", str(_processes(bench, repository, "merge", names[2], *into)), "10"),
        (
            "squash, target checked out",
            str(_processes(bench, repository, "merge", "--squash", names[3], *into)),
            "10",
        ),
    ]
    table("git processes of one landing", ("", "processes", "at most"), rows)


def main(bench: Bench) -> None:
    """Print the ratio and the process counts."""
    repository = bench.repository("merging", files=_FILES)
    bench.ask("git", "branch", "target", cwd=repository)
    bench.ask("git", "config", "khlone.durable", "false", cwd=repository)
    bench.ask("git", "sparse-checkout", "set", "d0", cwd=repository)
    _work(bench, repository, _ROUNDS + 4)
    for number in range(_ROUNDS):
        bench.ask("git", "branch", f"plain{number}", f"w{number}", cwd=repository)

    def plumbing(number: int) -> Cost:
        return _plumbing(bench, repository, f"plain{number}") + bench.run(KHLONE, "--version", cwd=repository)

    series = rounds(
        {
            "merge-tree, commit-tree, update-ref, khlone --version": plumbing,
            "khlone merge": lambda number: bench.run(KHLONE, "merge", f"w{number}", cwd=repository),
        },
        _ROUNDS,
    )
    compare(
        f"landing one clone, {_FILES} files, target checked out nowhere, {_ROUNDS} rounds",
        series,
        {"khlone merge": "merge-tree, commit-tree, update-ref, khlone --version"},
    )
    _counts(bench, repository, [f"w{_ROUNDS + number}" for number in range(4)])
