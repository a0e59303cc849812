"""Which plugins are installed, and which of them are wanted?

The entry points of the group in the installed distributions, from a cache while sys.path
and its folders are the same: a scan costs more than a verb. Nothing of a plugin is
imported here, so that a verb can tell cheaply that no plugin can have a word in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import files
from khlone.errors import KhloneError
from khlone.values import dataclass, field_names

if TYPE_CHECKING:
    from importlib.metadata import Distribution

GROUP = "khlone"
#: The distribution that brings khlone's own plugins.
OWN = "khlone"
CACHE_FILE = "plugins.json"
SELECTION_VARIABLE = "KHLONE_PLUGINS"

#: A folder changed less than this ago may change again without its time telling: FAT counts in 2 s.
_SETTLED_AFTER_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoint:
    """One entry of the group in an installed distribution; `value` is `module` or `module:attribute`."""

    name: str
    value: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The plugins that are wanted, `None` for all of them; `source` is what said so."""

    names: frozenset[str] | None = None
    source: str = SELECTION_VARIABLE

    def wants(self, name: str) -> bool:
        """Whether the plugin of that name is wanted."""
        return self.names is None or name in self.names


def selection(environment: Mapping[str, str], setting: str | None = None) -> Selection:
    """KHLONE_PLUGINS, a comma list, else the setting `khlone.plugins`; empty for none of them, absent for all."""
    listed = environment.get(SELECTION_VARIABLE)
    if listed is not None:
        return Selection(names=frozenset(filter(None, (name.strip() for name in listed.split(",")))))
    if setting is not None:
        return Selection(names=frozenset(setting.replace(",", " ").split()), source="khlone.plugins")
    return Selection()


def may_reach_foreign(cache_dir: Path | None, wanted: Selection) -> bool:
    """Whether a plugin that is not khlone's own is installed and wanted; imports none."""
    if wanted.names is not None and not wanted.names:
        return False
    return any(wanted.wants(entry.name) and entry.distribution.lower() != OWN for entry in installed(cache_dir, []))


def installed(cache_dir: Path | None, warnings: list[str]) -> list[EntryPoint]:
    """The entry points of the group, sorted, from the cache while sys.path and its folders are the same."""
    folders = [(entry, _changed_ns(entry)) for entry in _searched()]
    key = {"python": f"{sys.prefix} {sys.version}", "path": [list(folder) for folder in folders]}
    cache = None if cache_dir is None else cache_dir / CACHE_FILE
    if cache is not None:
        known = _read_cache(cache, key)
        if known is not None:
            return known
    now_ns = time.time_ns()
    told = len(warnings)
    found = _scan([entry for entry, _ in folders], warnings)
    settled = all(changed is None or abs(now_ns - changed) >= _SETTLED_AFTER_NS for _, changed in folders)
    if cache is not None and settled and len(warnings) == told:
        _write_cache(cache, key, found)
    return found


def _searched() -> list[str]:
    """The entries of sys.path where distributions are looked for.

    "" and relative ones mean the working folder: a repository must not bring plugins
    along. Nor must the folder of the script that was started, which Python puts first.
    """
    scripts = {os.path.dirname(sys.executable)}
    if sys.argv and os.path.isfile(sys.argv[0]):
        scripts.add(os.path.dirname(os.path.realpath(sys.argv[0])))
    return [entry for entry in sys.path if os.path.isabs(entry) and entry not in scripts]


def _changed_ns(entry: str) -> int | None:
    try:
        return os.stat(entry).st_mtime_ns
    except OSError:
        return None


def _scan(folders: list[str], warnings: list[str]) -> list[EntryPoint]:
    import re
    from importlib.metadata import distributions

    found: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in distributions(path=folders):
        try:
            declared = _declared(distribution)
        except Exception as error:  # noqa: BLE001 - whatever a damaged installation raises
            warnings.append(f"an installed plugin could not be read: {type(error).__name__}: {error}")
            continue
        # The first on sys.path hides a second copy of a distribution, as it does when imported.
        names = {re.sub(r"[-_.]+", "-", entry.distribution).lower() for entry in declared}
        found += [] if names & seen else declared
        seen |= names
    return sorted(found, key=lambda entry: (entry.name, entry.distribution, entry.value))


def _declared(distribution: Distribution) -> list[EntryPoint]:
    if GROUP not in (distribution.read_text("entry_points.txt") or ""):
        return []
    return [
        EntryPoint(
            name=entry.name,
            value=f"{entry.module}:{entry.attr}" if entry.attr else entry.module,
            distribution=distribution.metadata["Name"],
            version=distribution.version,
        )
        for entry in distribution.entry_points
        if entry.group == GROUP
    ]


def _read_cache(path: Path, key: Mapping[str, object]) -> list[EntryPoint] | None:
    """The cached list, None when it is absent, damaged, of another user or of another sys.path."""
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, KeyError, RecursionError):
        document = json.loads(files.read_regular(path) or b"{}")
        if document["key"] == key and os.lstat(path).st_uid == os.geteuid():
            entries = [EntryPoint(**item) for item in document["plugins"]]
            if all(isinstance(text, str) for entry in entries for text in _as_json(entry).values()):
                return entries
    return None


def _write_cache(path: Path, key: Mapping[str, object], entries: Sequence[EntryPoint]) -> None:
    document = {"key": key, "plugins": [_as_json(entry) for entry in entries]}
    with contextlib.suppress(KhloneError, OSError):
        files.make_private_dir(path.parent)
        files.write_atomic(path, json.dumps(document).encode() + b"\n", durable=False)


def _as_json(entry: EntryPoint) -> dict[str, str]:
    return {name: getattr(entry, name) for name in field_names(entry)}
