"""Which of several changes can land together, and who is to blame for those that cannot?

Plain logic: `fails` says whether a selection, in its order, is refused. It is asked as
seldom as a binary search can; what it answered is never asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Fails = Callable[[Sequence[int]], bool]


def settle(count: int, fails: Fails, *, first_lands: bool = False) -> tuple[list[int], list[list[int]]]:
    """The numbers below `count` that pass as a whole, and minimal sets that fail together.

    Each set passes without any one of its members, as far as answers hold for larger and
    smaller selections alike. Of such a set none is left in, or with `first_lands` its first.
    """
    known: dict[tuple[int, ...], bool] = {}

    def ask(selection: Sequence[int]) -> bool:
        key = tuple(sorted(selection))
        if key not in known:
            known[key] = fails(key)
        return known[key]

    left = list(range(count))
    culprits: list[list[int]] = []
    while left and ask(left):
        found = minimal(left, ask)
        alone = [one for one in found if len(found) > 1 and ask([one])]
        if alone:
            # It fails by itself, whatever it does to others.
            found = alone[:1]
        culprits.append(found)
        dropped = found[1:] if first_lands and len(found) > 1 else found
        left = [one for one in left if one not in dropped]
    return left, culprits


def minimal(items: Sequence[int], fails: Fails) -> list[int]:
    """A minimal failing part of a failing selection (Junker's QuickXplain), in its order."""
    return sorted(_explain([], items, fails, changed=False))


def _explain(background: Sequence[int], items: Sequence[int], fails: Fails, *, changed: bool) -> list[int]:
    if changed and background and fails(background):
        return []
    if len(items) == 1:
        return list(items)
    middle = len(items) // 2
    left, right = items[:middle], items[middle:]
    of_right = _explain([*background, *left], right, fails, changed=True)
    of_left = _explain([*background, *of_right], left, fails, changed=bool(of_right))
    return [*of_left, *of_right]
