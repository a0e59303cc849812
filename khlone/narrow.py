"""How does a table fit a terminal that is too narrow for it?

The widest columns give first, and each keeps what its head needs. What somebody types
again is never cut: ids, and names as far as they are of a usual length.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

#: Columns that are cut only to this length, and last of all.
_NAMES = {"NAME": 24, "CLONE": 24, "SETTING": 40, "HOOK": 24}
#: Columns that are never cut.
_IDS = frozenset({"ID", "PID"})
#: What is left of any other column.
_LEAST = 8
_BETWEEN = 2


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, mark: str) -> list[tuple[str, ...]]:
    """The rows with cells cut so that the table is `width` letters wide, where that can be.

    Of a path the end is kept, of anything else the beginning; `mark` stands for the rest.
    """
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    over = sum(widths) + _BETWEEN * (len(columns) - 1) - width
    for names in (False, True):
        least = [_least(head, found, names=names) for head, found in zip(columns, widths, strict=True)]
        while over > 0:
            at = max(range(len(columns)), key=lambda one: (widths[one] if widths[one] > least[one] else 0, one))
            if widths[at] <= least[at]:
                break
            widths[at] -= 1
            over -= 1
    return [tuple(_cut(cell, most, mark) for cell, most in zip(row, widths, strict=True)) for row in rows]


def _least(head: str, width: int, *, names: bool) -> int:
    if head in _IDS or (head in _NAMES and not names):
        return width
    return min(width, max(len(head), _NAMES.get(head, _LEAST)))


def _cut(cell: str, most: int, mark: str) -> str:
    if len(cell) <= most:
        return cell
    kept = most - len(mark)
    return mark + cell[-kept:] if cell.startswith(os.sep) else cell[:kept] + mark
