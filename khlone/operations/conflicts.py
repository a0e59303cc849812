"""Which clones would conflict with each other or with their target, and in which order do they land best?

Every merge that can conflict at all is made by one `merge-tree` process. Its objects, and those
of uncommitted work, go to a folder that is gone at the end: neither a ref, a clone nor the
object database of the repository is changed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence

from khlone import ref_files
from khlone.app import App
from khlone.errors import GitFailed
from khlone.model import MERGEABLE, CloneRecord, natural
from khlone.operations import aside, names, touched
from khlone.values import dataclass

#: So many merges are made without a look at which of them need to be.
_FEW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRequest:
    """What `conflicts` was asked for: no names are all clones, `into` is in the place of every target."""

    names: Sequence[str] = ()
    into: str | None = None
    uncommitted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictPair:
    """Two that do not merge cleanly: clone `a` and clone `b`, or clone `a` and the branch `b` that is its target."""

    a: str
    b: str
    paths: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What would conflict, and every clone that was looked at in the order in which most of them land."""

    pairs: Sequence[ConflictPair]
    order: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One clone: the commit it would land, on which branch."""

    name: str
    oid: str
    target: str | None


def predict(app: App, request: ForecastRequest) -> Forecast:
    """Every pair of clones, and every clone with its target, that `git merge-tree` finds conflicts in.

    A clone that has no branch to look at is left out, and said on `app.told`; so is a
    target that is gone. Raises NoSuchClone for a name, NoSuchRef for `into`.
    """
    clones = _chosen(app, request)
    into = None if request.into is None else _branch(app, request.into)
    tips = _tips(app, clones, into)
    with aside.own_objects(app) as environment:
        sides = []
        for clone in clones:
            tip = tips.get(clone.ref)
            if tip is None:
                app.told(f"not looked at: {clone.name}, whose branch {names.shown(clone.branch)} is gone")
                continue
            if request.uncommitted:
                tip = _as_it_is(app, clone, tip, environment)
            sides.append(_Side(name=clone.name, oid=tip, target=into or clone.target))
        # What the oldest began at is what all have in common, in most repositories.
        likely = min(((clone.created_at, clone.base) for clone in clones), default=("", None))[1]
        return _forecast(app, sides, tips, environment, likely)


def _branch(app: App, name: str) -> str:
    from khlone.operations import landing

    return landing.require_branch(app, name)[0]


def _as_it_is(app: App, clone: CloneRecord, tip: str, environment: Mapping[str, str]) -> str:
    from khlone.operations import as_it_is

    return as_it_is.commit(app, clone, tip, environment)


def _chosen(app: App, request: ForecastRequest) -> list[CloneRecord]:
    if request.names:
        named = {clone.id: clone for clone in map(app.require_clone, request.names)}
        return sorted(named.values(), key=lambda clone: natural(clone.name))
    found = app.registry.clones() if app.has_registry else []
    return sorted((clone for clone in found if clone.state in MERGEABLE), key=lambda clone: natural(clone.name))


def _tips(app: App, clones: Sequence[CloneRecord], into: str | None) -> dict[str, str]:
    """The oids of the branches of clones and of their targets, by ref."""
    targets = [into or clone.target for clone in clones]
    wanted = {clone.ref for clone in clones} | {f"refs/heads/{target}" for target in targets if target}
    if app.repository.has_ref_files:
        found = ref_files.read_all(app.location.common_dir, wanted)
        if ref_files.ASK_GIT not in found.values():
            return found
    listed = app.repository.git("for-each-ref", "--format=%(objectname) %(refname)", "--", *sorted(wanted))
    pairs = (line.partition(" ") for line in listed.text.splitlines())
    return {ref: oid for oid, _, ref in pairs if ref in wanted}


def _forecast(
    app: App,
    sides: Sequence[_Side],
    tips: Mapping[str, str],
    environment: Mapping[str, str],
    likely: str | None,
) -> Forecast:
    asked: list[tuple[_Side, str, str]] = []
    for side in sides:
        tip = tips.get(f"refs/heads/{side.target}") if side.target else None
        if tip is not None:
            asked.append((side, str(side.target), tip))
        elif side.target:
            app.told(f"not compared with its target: {side.name}, whose target {names.shown(side.target)} is gone")
    against = len(asked)
    asked += [(one, other.name, other.oid) for one, other in itertools.combinations(sides, 2)]
    merges = [(oid, side.oid) for side, _, oid in asked[:against]] + [
        (side.oid, oid) for side, _, oid in asked[against:]
    ]
    answers = _merged(app, merges, environment, likely)
    pairs = [
        ConflictPair(a=side.name, b=other, paths=paths)
        for (side, other, _), paths in zip(asked, answers, strict=True)
        if paths is not None
    ]
    blocked = {side.name for (side, _, _), paths in zip(asked[:against], answers, strict=False) if paths is not None}
    targets = {side.name: side.target for side in sides}
    foes: dict[str, set[str]] = {side.name: set() for side in sides}
    for (side, other, _), paths in zip(asked[against:], answers[against:], strict=True):
        # Two that go to different branches are not in each other's way.
        if paths is not None and targets[side.name] == targets[other]:
            foes[side.name].add(other)
            foes[other].add(side.name)
    return Forecast(pairs=pairs, order=landing_order(foes, blocked))


def landing_order(foes: Mapping[str, Collection[str]], blocked: Collection[str] = ()) -> list[str]:
    """All names, first many of which no two are foes, then the rest in the same way, at last the blocked ones.

    Greedy by the fewest foes among those that are left, then by name: finding the most
    that go together is NP-hard, and this is within (d + 2) / 3 of it where nobody has
    more than d foes (Halldorsson and Radhakrishnan, 1997).
    """
    order: list[str] = []
    for group in (set(foes) - set(blocked), set(foes) & set(blocked)):
        waiting = sorted(group, key=natural)
        while waiting:
            free = set(waiting)
            while free:
                best = min(filter(free.__contains__, waiting), key=lambda name: len(free.intersection(foes[name])))
                order.append(best)
                free -= {best, *foes[best]}
            waiting = [name for name in waiting if name not in set(order)]
    return order


def _merged(
    app: App, merges: Sequence[tuple[str, str]], environment: Mapping[str, str], likely: str | None
) -> list[tuple[str, ...] | None]:
    """For each (ours, theirs): the paths in conflict, `None` where they merge cleanly. Of equal merges one is made."""
    wanted = [pair for pair in dict.fromkeys(merges) if pair[0] != pair[1]]
    if len(wanted) > _FEW:
        oids = sorted({oid for pair in wanted for oid in pair})
        parting = touched.since_parting(app.repository, oids, environment, likely=likely)
        if parting is not None:
            wanted = [pair for pair in wanted if parting.may_conflict(*pair)]
    found: dict[tuple[str, str], tuple[str, ...] | None] = {}
    if wanted:
        done = app.repository.git(
            *("merge-tree", "--write-tree", "--stdin", "-z", "--name-only", "--no-messages"),
            # One pair without a shared history would end the process for all.
            "--allow-unrelated-histories",
            stdin="".join(f"{ours} {theirs}\n" for ours, theirs in wanted).encode(),
            environment=environment,
        )
        answers = _parsed(done.stdout)
        if len(answers) != len(wanted):
            raise GitFailed(["merge-tree"], done.status, f"{len(wanted)} merges asked for, {len(answers)} answered")
        found = dict(zip(wanted, answers, strict=True))
    return [found.get(pair) for pair in merges]


def _parsed(output: bytes) -> list[tuple[str, ...] | None]:
    """Read what `merge-tree --stdin -z` says of each merge: `1` or `0`, a tree, paths in conflict, an empty field."""
    answers: list[tuple[str, ...] | None] = []
    fields = output.split(b"\0")
    at = 0
    while at + 1 < len(fields):
        end = fields.index(b"", at + 2)
        paths = tuple(dict.fromkeys(os.fsdecode(path) for path in fields[at + 2 : end]))
        answers.append(None if fields[at] == b"1" else paths)
        at = end + 1
    return answers
