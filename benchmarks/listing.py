"""The everyday verbs: `path` and `list` against their floor, `list` with status against as many `git status`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, Series, compare, rounds, table

#: Files of a worktree, and how many clones.
_SIZES = ((200, (1, 10, 50, 200)), (20_000, (1, 10, 50)), (80_000, (1, 10)))
#: How many `git status` the reference runs at a time, as many as `list` does.
_AT_ONCE = 4


def _repository(bench: Bench, files: int, clones: int) -> Path:
    repository = bench.repository(f"clones-{clones}-{files}", files=files, size=128)
    bench.ask("git", "config", "khlone.durable", "false", cwd=repository)
    bench.run(KHLONE, "new", "-n", str(clones), "work", cwd=repository)
    for number in range(1, clones + 1, 2):
        path = repository.parent / f"{repository.name}.clones" / f"work-{number}"
        (path / "d0" / "f0.txt").write_text(f"changed in {number}\n")
        bench.ask("git", "commit", "-q", "-a", "-m", f"work {number}", cwd=path)
        (path / "untracked.txt").write_text("new\n")
    return repository


def _statuses(bench: Bench, repository: Path, clones: int) -> Cost:
    folder = repository.parent / f"{repository.name}.clones"
    paths = "\n".join(os.fspath(folder / f"work-{number}") for number in range(1, clones + 1))
    listed = bench.root / "paths"
    listed.write_text(paths + "\n")
    line = f"xargs -P {_AT_ONCE} -I '{{}}' git -C '{{}}' status --porcelain=v2 --branch -z <'{listed}'"
    return bench.run("sh", "-c", line, cwd=bench.root)


def main(bench: Bench) -> None:
    """Print the tables."""
    places: dict[tuple[int, int], Path] = {}
    for files, counts in _SIZES:
        places |= {(files, clones): _repository(bench, files, clones) for clones in counts}
        _compare_statuses(bench, files, {clones: places[files, clones] for clones in counts})
    _compare_floor(bench, places[200, 50])


def _compare_statuses(bench: Bench, files: int, places: Mapping[int, Path]) -> None:
    rows = []
    for clones, repository in places.items():
        count = 12 if clones < 100 and files < 1000 else 6

        def statuses(_: int, repository: Path = repository, clones: int = clones) -> Cost:
            return _statuses(bench, repository, clones)

        def listed(_: int, repository: Path = repository) -> Cost:
            return bench.run(KHLONE, "list", cwd=repository)

        def asked(_: int, repository: Path = repository) -> Cost:
            return bench.run(KHLONE, "list", "--no-status", cwd=repository)

        series = rounds({"statuses": statuses, "list": listed, "list --no-status": asked}, count)
        rows.append(_row(str(clones), series))
    table(
        f"listing, worktrees of {files} files, {_AT_ONCE} at a time",
        ("clones", "git statuses ms", "list ms", "wall ratio", "CPU ratio", "list --no-status ms"),
        rows,
    )


def _compare_floor(bench: Bench, repository: Path) -> None:
    click = (sys.executable, "-c", "import click")
    series = rounds(
        {
            "python -c 'import click'": lambda _: bench.run(*click, cwd=repository),
            "git worktree list": lambda _: bench.run("git", "worktree", "list", cwd=repository),
            "khlone path work-7": lambda _: bench.run(KHLONE, "path", "work-7", cwd=repository),
            "khlone list --no-status": lambda _: bench.run(KHLONE, "list", "--no-status", cwd=repository),
        },
        20,
    )
    reference = "python -c 'import click'"
    compare("50 clones", series, {name: reference for name in series if name != reference})
    compare("50 clones, against git", series, {name: "git worktree list" for name in series if "khlone" in name})


def _row(name: str, series: dict[str, Series]) -> tuple[str, ...]:
    one, reference = series["list"], series["statuses"]
    return (
        name,
        f"{reference.wall_ms():.0f}",
        f"{one.wall_ms():.0f}",
        f"{one.ratio(reference):.2f}",
        f"{one.ratio(reference, cpu=True):.2f}",
        f"{series['list --no-status'].wall_ms():.0f}",
    )
