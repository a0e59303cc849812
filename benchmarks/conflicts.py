"""Who conflicts with whom among thirty clones of a large repository: one process against one for each pair.

The reference is what a script would do: one `git merge-tree` for each of the 435 pairs, its
exit code looked at. khlone compares each clone with its target too.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, compare, rounds, table

_CLONES = 30
_FILES = 20_000
_ROUNDS = 3
#: Every so many clones one changes a line that the others of its kind change too.
_KINDS = 5


def _work(bench: Bench, repository: Path, names: list[str]) -> None:
    """A commit for each clone of five changed files, made in the object database; every fifth pair conflicts."""
    for number, name in enumerate(names):
        index = {"GIT_INDEX_FILE": str(bench.root / "index")}
        bench.run("git", "read-tree", "main", cwd=repository, environment=index)
        paths = [f"d{number}/f{number * 100 + at}.txt" for at in range(4)]
        if number < _KINDS * 2:
            paths.append(f"d100/f{10_000 + number % _KINDS}.txt")
        for path in paths:
            source = bench.root / "content"
            source.write_text(f"{name}\n")
            blob = bench.ask("git", "hash-object", "-w", str(source), cwd=repository).strip()
            cacheinfo = f"100644,{blob},{path}"
            bench.run("git", "update-index", "--add", "--cacheinfo", cacheinfo, cwd=repository, environment=index)
        bench.environment.update(index)
        tree = bench.ask("git", "write-tree", cwd=repository).strip()
        del bench.environment["GIT_INDEX_FILE"]
        made = bench.ask("git", "commit-tree", "-p", "main", "-m", name, tree, cwd=repository).strip()
        bench.ask("git", "update-ref", f"refs/heads/{name}", made, cwd=repository)


def _processes(bench: Bench, repository: Path) -> int:
    trace = bench.root / "trace"
    trace.mkdir()
    bench.ask("git", "config", "--global", "trace2.eventTarget", str(trace), cwd=repository)
    for file in trace.iterdir():
        os.unlink(file)
    bench.run(KHLONE, "conflicts", cwd=repository)
    started = len(list(trace.iterdir()))
    bench.ask("git", "config", "--global", "--unset", "trace2.eventTarget", cwd=repository)
    return started


def main(bench: Bench) -> None:
    """Print wall times, git processes and the ratio."""
    repository = bench.repository("large", files=_FILES)
    names = [f"n{number:02}" for number in range(_CLONES)]
    for name in names:
        bench.ask(KHLONE, "new", name, "--agent", "generic", cwd=repository)
    _work(bench, repository, names)
    pairs = list(itertools.combinations(names, 2))

    def ours(_: int) -> Cost:
        return bench.run(KHLONE, "conflicts", "--json", cwd=repository)

    def theirs(_: int) -> Cost:
        total = Cost(wall_s=0.0, cpu_s=0.0)
        for one, other in pairs:
            total += bench.run("git", "merge-tree", "--write-tree", one, other, cwd=repository, check=False)
        return total

    found = len(json.loads(bench.ask(KHLONE, "conflicts", "--json", cwd=repository))["pairs"])
    if found != _KINDS:
        raise SystemExit(f"benchmark: {found} pairs in conflict, not {_KINDS}")
    series = rounds({"khlone conflicts": ours, "a process for each pair": theirs}, _ROUNDS)
    compare(
        f"conflicts of {_CLONES} clones, {_FILES} files ({len(pairs)} pairs; aim 0.067)",
        series,
        {"khlone conflicts": "a process for each pair"},
    )
    counts = [("khlone conflicts", str(_processes(bench, repository))), ("a process for each pair", str(len(pairs)))]
    table("git processes", ("", "started"), counts)
