"""Which clone is to be merged into the branch of which, drawn as a tree?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from khlone.model import Clone
from khlone.output import visible

#: What a stream must have for the tree to be drawn with it; else it is drawn in ASCII.
LINES = "├└│─"


def arranged(clones: Sequence[Clone], rows: Sequence[Sequence[str]], *, lines: bool) -> list[tuple[str, ...]]:
    """The rows of a table of clones, each below that of its target, behind a head of its own for each other branch.

    The first cell of a row is the clone's name. Clones that are each other's targets are told as
    those without one, below `-`.
    """
    row_of = {clone.id: row for clone, row in zip(clones, rows, strict=True)}
    by_branch = {clone.branch: clone for clone in clones}
    below: dict[str, list[Clone]] = {}
    heads: dict[str, list[Clone]] = {}
    for clone in clones:
        parent = by_branch.get(clone.target or "")
        if parent is None or _is_in_circle(clone, by_branch):
            heads.setdefault("-" if parent is not None or clone.target is None else clone.target, []).append(clone)
        else:
            below.setdefault(parent.id, []).append(clone)
    marks = ("├─ ", "└─ ", "│  ") if lines else ("|- ", "`- ", "|  ")
    found: list[tuple[str, ...]] = []
    for head, members in sorted(heads.items(), key=lambda one: (one[0] == "-", one[0])):
        found.append((visible(head), *[""] * (len(rows[0]) - 1)))
        found += [
            (indent + row_of[clone.id][0], *row_of[clone.id][1:]) for indent, clone in _drawn(members, below, marks)
        ]
    return found


def _is_in_circle(clone: Clone, by_branch: dict[str, Clone]) -> bool:
    """Whether the way from target to target comes back to the clone."""
    seen: set[str] = set()
    one: Clone | None = clone
    while one is not None and one.id not in seen:
        seen.add(one.id)
        one = by_branch.get(one.target or "")
        if one is not None and one.id == clone.id:
            return True
    return False


def _drawn(
    members: Sequence[Clone], below: dict[str, list[Clone]], marks: tuple[str, str, str], indent: str = ""
) -> Iterator[tuple[str, Clone]]:
    for clone in members:
        is_last = clone is members[-1]
        yield indent + (marks[1] if is_last else marks[0]), clone
        yield from _drawn(below.get(clone.id, ()), below, marks, indent + ("   " if is_last else marks[2]))
