"""What khlone's git hooks add to a commit, in the main worktree and in a clone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, compare, rounds

_ROUNDS = 15
#: Commits in a row for one measurement: one alone is too short to tell hooks from noise.
_COMMITS = 10
#: How the hooks are installed in each of the repositories.
_WAYS: dict[str, tuple[str, ...]] = {"no hooks": (), "--all": ("--all",), "--clones": ("--clones",)}


def _project(bench: Bench, name: str, options: tuple[str, ...]) -> tuple[Path, Path]:
    """A repository with ten clones, hooks installed as the options say; its main worktree and one clone."""
    repository = bench.repository(name, files=200)
    paths = [bench.ask(KHLONE, "new", f"w{number}", cwd=repository).splitlines()[-1] for number in range(10)]
    if options:
        bench.ask(KHLONE, "hooks", "install", *options, cwd=repository)
    return repository, Path(paths[0])


def _commits(bench: Bench, where: Path) -> Callable[[int], Cost]:
    def run(_: int) -> Cost:
        total = Cost(wall_s=0.0, cpu_s=0.0)
        for _ in range(_COMMITS):
            total += bench.run("git", "commit", "-q", "--allow-empty", "-m", "x", cwd=where)
        return total

    return run


def main(bench: Bench) -> None:
    """Print the ratios."""
    projects = {way: _project(bench, f"hooks{at}", options) for at, (way, options) in enumerate(_WAYS.items())}
    places = ("main worktree", "clone")
    variants = {
        f"{place}, {way}": _commits(bench, projects[way][at]) for at, place in enumerate(places) for way in _WAYS
    }
    series = rounds(variants, _ROUNDS)
    references = {name: f"{name.partition(',')[0]}, no hooks" for name in series if not name.endswith("no hooks")}
    compare(f"{_COMMITS} commits, {_ROUNDS} rounds", series, references)
