"""Which merges of two branches cannot conflict at all, by the paths that their commits have touched?

Two sides conflict only where both touched the same path since their merge base, where one
made a file of a name that is a folder of the other's, or where one may have moved a folder
into which the other has put a file. What a side touched since the merge base was touched by
a commit that only this side has: one that both have would be a newer merge base. So one walk
over the commits since any that all sides have in common tells which pairs git need not be
asked about, also where two have several merge bases: a path that only one side touched is
the same in all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from khlone.ref_files import is_oid
from khlone.repository import Repository
from khlone.values import dataclass

#: Above as many commits since the branches parted the walk costs more than it saves.
_MOST_COMMITS = 5000
_HEAD = b"\x01"

#: A kind of change, one letter as in `--name-status`, and a path.
_Change = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Touched:
    """The paths that some commits have touched, the folders above them, whether files were made and deleted."""

    paths: frozenset[bytes]
    folders: frozenset[bytes]
    adds: bool
    deletes: bool


class Parting:
    """What some commits have touched, each on its own, since all of them parted."""

    def __init__(self, reach: Mapping[str, int], changes: Sequence[frozenset[_Change]]) -> None:
        """`reach` has, for each oid, a bit for every commit that it reaches; `changes` what each of these did."""
        self._reach = reach
        self._changes = changes
        self._known: dict[int, _Touched] = {}

    def may_conflict(self, one: str, other: str) -> bool:
        """Whether git has to be asked about two of the commits; false is a promise, true is none."""
        ours = self._touched(self._reach[one] & ~self._reach[other])
        theirs = self._touched(self._reach[other] & ~self._reach[one])
        return (
            not ours.paths.isdisjoint(theirs.paths)
            or not ours.paths.isdisjoint(theirs.folders)
            or not theirs.paths.isdisjoint(ours.folders)
            or (ours.adds and theirs.adds and (ours.deletes or theirs.deletes))
        )

    def _touched(self, commits: int) -> _Touched:
        known = self._known.get(commits)
        if known is None:
            known = self._known[commits] = _summed(change for at in _bits(commits) for change in self._changes[at])
        return known


def since_parting(
    repository: Repository, oids: Sequence[str], environment: Mapping[str, str], *, likely: str | None
) -> Parting | None:
    """What each of these commits has touched since all parted, `None` where that cannot be told cheaply.

    `likely` is a commit that they may have in common; it is checked.
    """
    for common in _common(repository, oids, environment, likely):
        walked = _walk(repository, oids, common, environment)
        if walked is None:
            return None
        parents, changes = walked
        places = {commit: place for place, commit in enumerate(parents)}
        # The last bit is the common commit's.
        reach = {common: 1 << len(parents)}
        for commit in reversed(parents):
            mask = 1 << places[commit]
            for parent in parents[commit]:
                mask |= reach.get(parent, 0)
            reach[commit] = mask
        if all(reach.get(oid, 0) >> len(parents) for oid in oids):
            return Parting(reach, [*(changes[commit] for commit in parents), frozenset()])
    return None


def _common(
    repository: Repository, oids: Sequence[str], environment: Mapping[str, str], likely: str | None
) -> Iterator[str]:
    if likely is not None:
        yield likely
    found = repository.git("merge-base", "--octopus", *oids, environment=environment, check=False).text.strip()
    if is_oid(found):
        yield found


def _walk(
    repository: Repository, oids: Sequence[str], common: str, environment: Mapping[str, str]
) -> tuple[dict[str, Sequence[str]], dict[str, frozenset[_Change]]] | None:
    """The commits since a common one, children first: their parents, and what each changed."""
    done = repository.git(
        *("log", "--stdin", "-z", "--root", "--topo-order", "--format=%x01%H %P", f"--max-count={_MOST_COMMITS + 1}"),
        *("--diff-merges=separate", "--name-status", "--no-renames", "--no-relative", "--ignore-submodules=none"),
        *("--no-show-signature", "--no-notes", "--no-decorate", "--no-mailmap"),
        stdin="\n".join([*oids, f"^{common}"]).encode(),
        environment=environment,
        check=False,
    )
    if done.status != 0:
        return None
    parents: dict[str, Sequence[str]] = {}
    changes: dict[str, set[_Change]] = {}
    fields = iter(done.stdout.split(b"\0"))
    commit = ""
    for field in fields:
        if field.startswith(_HEAD):
            commit, *above = os.fsdecode(field[1:]).split()
            parents[commit] = above
            changes.setdefault(commit, set())
        elif kind := field.lstrip(b"\n"):
            changes[commit].add((kind, next(fields)))
    if len(parents) > _MOST_COMMITS:
        return None
    return parents, {oid: frozenset(found) for oid, found in changes.items()}


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _summed(changes: Iterator[_Change]) -> _Touched:
    found = frozenset(changes)
    paths = frozenset(path for _, path in found)
    kinds = {kind for kind, _ in found}
    folders = set()
    for path in paths:
        above = path.rpartition(b"/")[0]
        while above and above not in folders:
            folders.add(above)
            above = above.rpartition(b"/")[0]
    return _Touched(paths=paths, folders=frozenset(folders), adds=b"A" in kinds, deletes=b"D" in kinds)
