"""How do the changes of two sides to one JSON object come together, key by key?

Against what both started from. What one side alone has changed counts; lists of plain
values are merged as sets; what both have changed differently is a conflict, in which our
side stays. How deep keys count on their own is said for each key at the top.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from khlone.values import dataclass

Path = tuple[str, ...]


class _Missing:
    """Stands for a key that is not there."""


MISSING = _Missing()
_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The merged object, the keys at which it differs from our side, and those in conflict."""

    content: Mapping[str, Any]
    changed: Sequence[Path]
    conflicts: Sequence[Path]


def merge(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], depths: Mapping[str, int]
) -> Merged:
    """Our side with what theirs has changed since the base."""
    changed: list[Path] = []
    conflicts: list[Path] = []

    def at(path: Path, was: Any, mine: Any, other: Any, depth: int) -> Any:
        is_new = isinstance(mine, _Missing) and isinstance(was, _Missing) and bool(other)
        if depth > 0 and isinstance(other, dict) and (is_new or isinstance(mine, dict)):
            return inside(path, was if isinstance(was, dict) else {}, {} if is_new else mine, other, depth)
        if same(other, was) or same(mine, other):
            return mine
        if same(mine, was):
            changed.append(path)
            return other
        both = _joined(was, mine, other)
        if both is None:
            conflicts.append(path)
            return mine
        if both != mine:
            changed.append(path)
        return both

    def inside(
        path: Path, was: dict[str, Any], mine: dict[str, Any], other: dict[str, Any], depth: int
    ) -> dict[str, Any]:
        found = {}
        for key in dict.fromkeys((*mine, *other)):
            below = depth - 1 if path else depths.get(key, 1) - 1
            value = at((*path, key), was.get(key, MISSING), mine.get(key, MISSING), other.get(key, MISSING), below)
            if not isinstance(value, _Missing):
                found[key] = value
        return found

    content = inside((), dict(base), dict(ours), dict(theirs), 1)
    return Merged(content=content, changed=changed, conflicts=conflicts)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; true and 1 are not."""
    if isinstance(one, _Missing) or isinstance(other, _Missing):
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def value_at(content: Mapping[str, Any], path: Path) -> Any:
    """What lies at a path of keys, `MISSING` where nothing does."""
    found: Any = content
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return MISSING
        found = found[key]
    return found


def with_value(content: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The object with another value at a path of keys; `MISSING` takes the key out."""
    found = dict(content)
    if len(path) > 1:
        inner = found.get(path[0])
        found[path[0]] = with_value(inner if isinstance(inner, dict) else {}, path[1:], value)
    elif isinstance(value, _Missing):
        found.pop(path[0], None)
    else:
        found[path[0]] = value
    return found


def _joined(was: Any, mine: Any, other: Any) -> list[Any] | None:
    """Both sides' additions and removals to a list of plain values, `None` where it is none."""
    before = [] if isinstance(was, _Missing) else was
    lists = (before, mine, other)
    if not all(isinstance(one, list) and all(isinstance(item, _PLAIN) for item in one) for one in lists):
        return None
    kept = [item for item in mine if item not in before or item in other]
    return [*kept, *(item for item in other if item not in before and item not in kept)]
