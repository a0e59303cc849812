"""How is a command measured beside others, so that the ratio means something?

Every variant runs once in each round, in turn, on the same machine state; a ratio is the
median over rounds of (variant / reference) within a round. Wall time is what a user
waits; CPU time, of the process and every child it waited for, is what a loaded machine
does not blur. Absolute times are printed for orientation only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: The console script of the environment that runs the benchmarks.
KHLONE = str(Path(sys.executable).parent / "git-khlone")
GIT = shutil.which("git") or "git"
_DEVNULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took, in seconds."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s)


@dataclass(slots=True, kw_only=True)
class Series:
    """What one variant took, round by round."""

    name: str
    costs: list[Cost] = field(default_factory=list)

    def wall_ms(self) -> float:
        """The median wall time in milliseconds."""
        return statistics.median(cost.wall_s for cost in self.costs) * 1000

    def ratio(self, reference: Series, *, cpu: bool = False) -> float:
        """The median over rounds of this variant's cost in the reference's."""
        pairs = zip(self.costs, reference.costs, strict=True)
        return statistics.median(
            (one.cpu_s / other.cpu_s) if cpu else (one.wall_s / other.wall_s) for one, other in pairs
        )


class Bench:
    """A place for repositories, with an account of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        home = root / "home"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KHLONE_", "XDG_"))}
        self.environment = {
            **kept,
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{Path(KHLONE).parent}:{kept.get('PATH', os.defpath)}",
        }
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Bench\n\temail = bench@example.invalid\n"
            "[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
        )

    def run(self, *argv: str, cwd: Path, check: bool = True, environment: Mapping[str, str] | None = None) -> Cost:
        """Run a command to its end and say what it took; a failure ends the benchmark."""
        started = time.perf_counter()
        pid = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**self.environment, **(environment or {})},
            stdin=_DEVNULL,
            stdout=_DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(pid.pid, 0)
        wall_s = time.perf_counter() - started
        pid.returncode = os.waitstatus_to_exitcode(status)
        if check and pid.returncode != 0:
            raise SystemExit(f"benchmark: {' '.join(argv[:6])} ended with {pid.returncode}")
        return Cost(wall_s=wall_s, cpu_s=usage.ru_utime + usage.ru_stime)

    def ask(self, *argv: str, cwd: Path, stdin: str | None = None) -> str:
        """What a command prints."""
        done = subprocess.run(
            argv, cwd=cwd, env=self.environment, input=stdin, capture_output=True, check=False, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"benchmark: {' '.join(argv[:6])} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def repository(self, name: str, *, files: int, size: int = 2048, folder_of: int = 100) -> Path:
        """A repository of that many files, of different content, in one commit on `main`."""
        path = self.root / name
        path.mkdir()
        self.ask("git", "init", "-q", cwd=path)
        for number in range(files):
            place = path / f"d{number // folder_of}"
            if number % folder_of == 0:
                place.mkdir()
            line = f"file {number} of {name}, a line like any other\n"
            (place / f"f{number}.txt").write_text((line * (size // len(line) + 1))[:size])
        self.ask("git", "add", "-A", cwd=path)
        self.ask("git", "commit", "-q", "-m", "files", cwd=path)
        self.ask("git", "gc", "-q", cwd=path)
        os.sync()
        return path


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """A `Bench` in a temporary folder, gone afterwards; KHLONE_BENCH_DIR says where."""
    with tempfile.TemporaryDirectory(prefix="khlone-bench-", dir=os.environ.get("KHLONE_BENCH_DIR")) as folder:
        yield Bench(Path(os.path.realpath(folder)))


def rounds(variants: Mapping[str, Callable[[int], Cost]], count: int) -> dict[str, Series]:
    """Run every variant once a round, each round beginning with another one."""
    names = list(variants)
    series = {name: Series(name=name) for name in names}
    for number in range(count):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            series[name].costs.append(variants[name](number))
    return series


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table below its title."""
    print(f"\n{title}")
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    for row in (columns, tuple("-" * width for width in widths), *rows):
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()


def compare(title: str, series: Mapping[str, Series], references: Mapping[str, str]) -> None:
    """Print each variant with its ratio to its reference."""
    rows = []
    for name, one in series.items():
        other = references.get(name)
        ratio = "1.00" if other is None else f"{one.ratio(series[other]):.2f}"
        cpu = "1.00" if other is None else f"{one.ratio(series[other], cpu=True):.2f}"
        rows.append((name, f"{one.wall_ms():.0f}", ratio, cpu, other or ""))
    table(title, ("", "wall ms", "wall ratio", "CPU ratio", "of"), rows)
