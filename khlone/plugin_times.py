"""How long did hooks of plugins take in the last commands? Kept in a bounded file, a line for each command.

Only what took five milliseconds or more is given here, so that a command whose plugins had
nothing to do writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from khlone import files, plugin_log
from khlone.errors import KhloneError
from khlone.model import HookTime

FILE = "plugins.times"
#: The file becomes the older of two when it has grown to this.
MOST_BYTES = 64 << 10
_Row = tuple[str, str, int, float]


def note(path: Path, times: Sequence[tuple[str, HookTime]]) -> None:
    """Write down what one command has spent, by plugin; what cannot be written is no error."""
    found = [[plugin, one.hook, one.calls, round(one.ms, 1)] for plugin, one in times]
    plugin_log.append(path, json.dumps(found).encode() + b"\n", most=MOST_BYTES)


def read(path: Path) -> dict[str, list[HookTime]]:
    """What is on record, summed up by plugin, the longest first; lines that cannot be read do not count."""
    sums: dict[tuple[str, str], tuple[int, float]] = {}
    for plugin, hook, calls, ms in _rows(path):
        before_calls, before_ms = sums.get((plugin, hook), (0, 0.0))
        sums[plugin, hook] = (before_calls + calls, before_ms + ms)
    found: dict[str, list[HookTime]] = {}
    for (plugin, hook), (calls, ms) in sorted(sums.items(), key=lambda one: -one[1][1]):
        found.setdefault(plugin, []).append(HookTime(hook=hook, calls=calls, ms=round(ms, 1)))
    return found


def _rows(path: Path) -> Iterator[_Row]:
    for one in (path.with_name(f"{path.name}.1"), path):
        content = b""
        with contextlib.suppress(OSError, KhloneError):
            content = files.read_regular(one, most=2 * MOST_BYTES) or b""
        for line in content.splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                yield from map(_row, json.loads(line))


def _row(found: Any) -> _Row:
    plugin, hook, calls, ms = found
    return os.fspath(plugin), os.fspath(hook), int(calls), float(ms)
