"""Ten branches merged at once into a checkout with local work, by khlone and by plain `git merge`."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, table

_COUNT = 10


def _local(bench: Bench, repository: Path) -> tuple[str, ...]:
    """Everything local, outside of what lands: both diffs, the index, the bytes."""
    index = [line for line in bench.ask("git", "ls-files", "-s", cwd=repository).splitlines() if "/new" not in line]
    digest = hashlib.sha256()
    for path in sorted(repository.rglob("*")):
        inside = path.relative_to(repository)
        if path.is_file() and inside.parts[0] != ".git" and not path.name.startswith("new"):
            digest.update(str(inside).encode() + path.read_bytes())
    diff = bench.ask("git", "diff", cwd=repository)
    cached = bench.ask("git", "diff", "--cached", cwd=repository)
    return diff, cached, "\n".join(index), digest.hexdigest()


def _prepare(bench: Bench, name: str) -> tuple[Path, list[str]]:
    repository = bench.repository(name, files=300)
    names = [f"w{number}" for number in range(_COUNT)]
    for number, branch in enumerate(names):
        path = Path(bench.ask(KHLONE, "new", branch, cwd=repository).splitlines()[-1])
        (path / "d0" / f"new{number}.txt").write_text(f"{number}\n")
        bench.ask("git", "add", "-A", cwd=path)
        bench.ask("git", "commit", "-q", "-m", branch, cwd=path)
    (repository / "d0" / "f0.txt").write_text("staged\n")
    bench.ask("git", "add", "d0/f0.txt", cwd=repository)
    (repository / "d0" / "f0.txt").write_text("staged, then edited\n")
    (repository / "d1" / "f100.txt").write_text("edited\n")
    (repository / "mine.txt").write_text("untracked\n")
    return repository, names


def _merge(bench: Bench, repository: Path, commands: Sequence[Sequence[str]]) -> tuple[int, int, bool]:
    before = _local(bench, repository)
    children = [
        subprocess.Popen(
            argv, cwd=repository, env=bench.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for argv in commands
    ]
    for child in children:
        child.wait()
    landed = sum((repository / "d0" / f"new{number}.txt").exists() for number in range(_COUNT))
    return sum(child.returncode == 0 for child in children), landed, _local(bench, repository) == before


def main(bench: Bench) -> None:
    """Print how many landed and whether local work is as it was."""
    rows = []
    for name, argv in (("khlone merge", (KHLONE, "merge")), ("git merge", ("git", "merge", "-q", "--no-edit"))):
        repository, names = _prepare(bench, name.replace(" ", "-"))
        said, landed, same = _merge(bench, repository, [(*argv, one) for one in names])
        rows.append((name, str(said), str(landed), "yes" if same else "no"))
    table(
        f"{_COUNT} merges at once into a checkout with staged, edited and untracked files",
        ("", "exit 0", "landed", "local work as before"),
        rows,
    )
