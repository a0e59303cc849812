"""`python -m benchmarks [NAME...]`: every comparison, or the named ones."""

from __future__ import annotations

import importlib
import platform
import sys

from benchmarks.harness import GIT, KHLONE, bench

NAMES = (
    "create",
    "race",
    "merge",
    "dirty_target",
    "listing",
    "plugins",
    "hooks",
    "queue",
    "conflicts",
    "isolation",
    "watching",
)


def main(names: list[str]) -> int:
    """Run the comparisons and print their tables."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"benchmarks: no {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    with bench() as place:
        version = place.ask(GIT, "version", cwd=place.root).strip()
        ours = place.ask(KHLONE, "--version", cwd=place.root).strip()
        print(f"{ours}; {version}; Python {platform.python_version()}; {platform.system()} {platform.machine()}")
    for name in names or NAMES:
        with bench() as place:
            importlib.import_module(f"benchmarks.{name}").main(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
