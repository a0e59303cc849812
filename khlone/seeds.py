"""Is the user's own file fit to be passed on to clones, and what is when it is not?

    <state>/khlone/agents/<agent>/<place>/<time>-<random>.json     0600, a few of each

A file that is empty, cut off or freshly reset by its program seeds no clone: the last good
one does, of which khlone keeps copies. The user's own file is never changed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from khlone import files
from khlone.errors import KhloneError, StateUnsafe
from khlone.profiles import AgentProfile, ConfigItem
from khlone.values import dataclass

#: How many good copies of one file are kept.
KEPT = 5
#: Old versions kept every prompt in their file; above this it is not the user's settings any more.
MOST_BYTES = 64 << 20

#: Copies younger than this are replaced by the next good one, not joined by it.
_SPACED_S = 3600.0
#: A larger file is passed on, and no copy of it kept.
_MOST_COPY = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What a clone is seeded with: `content` is `None` for nothing; `problem` says why it is not the file itself."""

    content: bytes | None
    problem: str | None = None
    is_copy: bool = False


class Seeds:
    """The good copies of one file of the user's."""

    def __init__(self, state_root: Path, profile: AgentProfile, item: ConfigItem, source: Path) -> None:
        place = hashlib.sha256(os.fsencode(source)).hexdigest()[:12]
        self._folder = state_root / "agents" / profile.name / place
        self._item = item
        self.source = source

    def take(self) -> Seed:
        """What to seed a clone with now; a good file is noted as such."""
        content = read_followed(self.source, MOST_BYTES)
        problem = self.problem(content)
        if problem is None:
            assert content is not None
            with contextlib.suppress(OSError, KhloneError):
                self._keep(content)
            return Seed(content=content)
        last = self.last_good()
        if content is None and last is None:
            return Seed(content=None)
        return Seed(content=last, problem=problem, is_copy=last is not None)

    def problem(self, content: bytes | None) -> str | None:
        """Why a content is not good: it is absent, empty, no JSON object, or was reset; else `None`."""
        if content is None:
            return "is not there, or cannot be read"
        if not content.strip():
            return "is empty"
        found = _parsed(content)
        if not isinstance(found, dict):
            return "is cut off or damaged"
        last = self.last_good()
        before = None if last is None else _parsed(last)
        if isinstance(before, dict) and self._sound(before) and not self._sound(found):
            gone = sorted(self._sound(before))
            return f"was reset: {', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone"
        return None

    def last_good(self) -> bytes | None:
        """The newest good copy."""
        for path in reversed(self._copies()):
            with contextlib.suppress(OSError, KhloneError):
                content = files.read_regular(path, most=_MOST_COPY)
                if content is not None and isinstance(_parsed(content), dict):
                    return content
        return None

    def _sound(self, content: dict[str, Any]) -> set[str]:
        return {key for key in self._item.sound_keys if content.get(key)}

    def _copies(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(path for path in self._folder.iterdir() if path.suffix == ".json")
        return []

    def _keep(self, content: bytes) -> None:
        """Note a good content; the older of too many go."""
        found = _parsed(content)
        copies = self._copies()
        newest = files.read_regular(copies[-1], most=_MOST_COPY) if copies else None
        if len(content) > _MOST_COPY or content == newest or not self._sound(found):
            return
        files.make_private_dir(self._folder)
        files.write_new(self._folder / f"{time.time_ns():020d}-{os.urandom(4).hex()}.json", content, durable=False)
        before = None if newest is None else _parsed(newest)
        is_recent = bool(copies) and time.time() - copies[-1].stat().st_mtime < _SPACED_S
        is_richer = isinstance(before, dict) and self._sound(before) <= self._sound(found)
        gone = [copies[-1]] if is_recent and is_richer and len(copies) > 1 else []
        for path in (*gone, *self._copies()[:-KEPT]):
            path.unlink(missing_ok=True)


def read_followed(path: Path, most: int) -> bytes | None:
    """The content of the user's file, through links of the user's; `None` when it cannot serve."""
    try:
        return files.read_regular(Path(os.path.realpath(path)), most=most)
    except (OSError, StateUnsafe):
        return None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
