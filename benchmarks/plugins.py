"""What installed plugins cost at start-up: `list` and `new` with 0, 1 and 20 of them, and with `--no-plugins`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, rounds, table

_COUNTS = (0, 1, 20)
_ROUNDS = 12
#: A plugin as they are: a few imports of the standard library, three hooks.
_PLUGIN = """\
import json
import os
import re

from khlone import hookimpl


@hookimpl
def khlone_environment(clone):
    return {{"PLUGIN_{number}": clone.name}}


@hookimpl
def khlone_post_create(clone):
    pass


@hookimpl
def khlone_columns(clone):
    return {{"p{number}": "x"}}
"""


def _site(bench: Bench, count: int) -> Path:
    """A folder with that many plugins installed, unchanged for long: what changed just now is not cached."""
    site = bench.root / f"site-{count}"
    site.mkdir()
    for number in range(count):
        name = f"bench_plugin_{number}"
        (site / f"{name}.py").write_text(_PLUGIN.format(number=number))
        info = site / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[khlone]\n{name} = {name}\n")
    return site


def main(bench: Bench) -> None:
    """Print the table."""
    repository, growing = (bench.repository(name, files=50) for name in ("asked", "growing"))
    for path in (repository, growing):
        bench.ask("git", "config", "khlone.durable", "false", cwd=path)
    bench.run(KHLONE, "new", "one", cwd=repository)
    sites = {count: _site(bench, count) for count in _COUNTS}
    environments = {count: {"PYTHONPATH": str(site)} for count, site in sites.items()}
    for count, site in sites.items():
        bench.run(KHLONE, "list", cwd=repository, environment=environments[count])  # compiles them
        os.utime(site, (1_000_000_000, 1_000_000_000))
    variants: dict[str, Callable[[int], Cost]] = {}
    for count, environment in environments.items():
        # A cache for each set: one for all would be written anew by every round.
        kept = {**environment, "XDG_CACHE_HOME": str(bench.root / f"cache-{count}")}
        bench.run(KHLONE, "list", cwd=repository, environment=kept)

        def listed(_: int, kept: dict[str, str] = kept) -> Cost:
            return bench.run(KHLONE, "list", cwd=repository, environment=kept)

        def without(_: int, kept: dict[str, str] = kept) -> Cost:
            return bench.run(KHLONE, "list", "--no-plugins", cwd=repository, environment=kept)

        def made(number: int, kept: dict[str, str] = kept, count: int = count) -> Cost:
            return bench.run(KHLONE, "new", f"made-{count}-{number}", cwd=growing, environment=kept)

        variants |= {f"list {count}": listed, f"list --no-plugins {count}": without, f"new {count}": made}
    series = rounds(variants, _ROUNDS)
    rows = []
    for verb in ("list", "list --no-plugins", "new"):
        reference = series[f"{verb} 0"]
        for count in _COUNTS:
            one = series[f"{verb} {count}"]
            cpu = f"{one.ratio(reference, cpu=True):.2f}"
            rows.append((verb, str(count), f"{one.wall_ms():.0f}", f"{one.ratio(reference):.2f}", cpu))
    table(
        "start-up with plugins of third parties",
        ("", "plugins", "wall ms", "wall ratio", "CPU ratio"),
        rows,
    )
