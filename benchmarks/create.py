"""`new` against `git worktree add`, whole processes, durable and not, in a small and a large repository."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, compare, rounds


def _measure(bench: Bench, files: int, count: int) -> None:
    repository = bench.repository(f"files-{files}", files=files)
    loose = bench.repository(f"loose-{files}", files=files)
    bench.ask("git", "config", "khlone.durable", "false", cwd=loose)
    apart = bench.root / f"plain-{files}"
    apart.mkdir()

    def plain(number: int, *, sync: bool) -> Cost:
        kind = "sync" if sync else "plain"
        path = apart / f"{kind}-{number}"
        bench.ask("sync", "-f", str(bench.root), cwd=bench.root)
        cost = bench.run("git", "worktree", "add", "-q", "-b", f"{kind}-{number}", str(path), cwd=repository)
        return cost + bench.run("sync", "-f", str(path), cwd=bench.root) if sync else cost

    def new(number: int, where: Path) -> Cost:
        bench.ask("sync", "-f", str(bench.root), cwd=bench.root)
        return bench.run(KHLONE, "new", f"clone-{number}", cwd=where)

    bench.run(KHLONE, "new", "first", cwd=repository)
    bench.run(KHLONE, "new", "first", cwd=loose)
    series = rounds(
        {
            "git worktree add": lambda number: plain(number, sync=False),
            "khlone new, khlone.durable=false": lambda number: new(number, loose),
            "git worktree add; sync -f": lambda number: plain(number, sync=True),
            "khlone new": lambda number: new(number, repository),
        },
        count,
    )
    compare(
        f"creating, {files} files, {count} rounds",
        series,
        {
            "khlone new, khlone.durable=false": "git worktree add",
            "git worktree add; sync -f": "git worktree add",
            "khlone new": "git worktree add; sync -f",
        },
    )


def main(bench: Bench) -> None:
    """Print both tables."""
    _measure(bench, 300, 15)
    _measure(bench, 20_000, 5)
