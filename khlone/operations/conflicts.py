"""Which clones would conflict with each other or with their target, and in which order do they land best?

Every merge that can conflict at all is made by one `merge-tree` process. Its objects, and those
of uncommitted work, go to a folder that is gone at the end: neither a ref, a clone nor the
object database of the repository is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from khlone import worktrees
from khlone.app import App
from khlone.errors import GitFailed, KhloneError
from khlone.model import CloneRecord
from khlone.operations import changes, diff, landing, names, touched, undo
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.operations.offer import MERGEABLE
from khlone.values import dataclass

#: Seconds after which the objects of a forecast are those of a killed one.
_LEFT_S = 86400.0
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
    into = landing.require_branch(app, request.into)[0] if request.into is not None else None
    tips = _tips(app, clones, into)
    with _scratch_objects(app) as environment:
        sides = []
        for clone in clones:
            tip = tips.get(clone.ref)
            if tip is None:
                app.told(f"not looked at: {clone.name}, whose branch {names.shown(clone.branch)} is gone")
                continue
            oid = _with_changes(app, clone, tip, environment) if request.uncommitted else tip
            sides.append(_Side(name=clone.name, oid=oid, target=into or clone.target))
        # What the oldest began at is what all have in common, in most repositories.
        likely = min(((clone.created_at, clone.base) for clone in clones), default=("", None))[1]
        return _forecast(app, sides, tips, environment, likely)


def _chosen(app: App, request: ForecastRequest) -> list[CloneRecord]:
    if request.names:
        named = {clone.id: clone for clone in map(app.require_clone, request.names)}
        return sorted(named.values(), key=lambda clone: clone.name)
    found = app.registry.clones() if app.has_registry else []
    return sorted((clone for clone in found if clone.state in MERGEABLE), key=lambda clone: clone.name)


def _tips(app: App, clones: Sequence[CloneRecord], into: str | None) -> dict[str, str]:
    """The oids of the branches of clones and of their targets, by ref, from one process."""
    targets = [into or clone.target for clone in clones]
    wanted = {clone.ref for clone in clones} | {f"refs/heads/{target}" for target in targets if target}
    if not wanted:
        return {}
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
    for waiting in (sorted(set(foes) - set(blocked)), sorted(set(foes) & set(blocked))):
        while waiting:
            free = set(waiting)
            while free:
                best = min(free, key=lambda name: (len(free.intersection(foes[name])), name))
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


@contextlib.contextmanager
def _scratch_objects(app: App) -> Iterator[dict[str, str]]:
    """An environment in which git writes new objects to a folder of ours, gone at the end, and reads all others.

    What a killed one left goes after a day.
    """
    with diff.own_room(app) as stage:
        for left in stage.glob("conflicts-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_S:
                    shutil.rmtree(left, ignore_errors=True)
        folder = stage / f"conflicts-{os.urandom(4).hex()}"
        try:
            yield diff.objects_in(app, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _with_changes(app: App, clone: CloneRecord, tip: str, environment: Mapping[str, str]) -> str:
    """A commit of what the clone's files are now, untracked ones included; its tip where nothing is changed.

    The index of the clone is not touched, and no filter runs that the repository's own configuration names.
    """
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        app.told(f"only what is committed: {clone.name}, whose worktree {clone.path} is gone")
        return tip
    try:
        status = changes.read_status(app, clone.path, filters=False)
        counted = changes.uncounted(clone, status.changes)
        if not counted.uncommitted:
            return status.head or tip
        own = set(status.changes.untracked) - set(counted.untracked)
        # A repository inside the worktree is not a file of the clone's.
        left_out = sorted(own | {name for name in counted.untracked if name.endswith("/")})
        with diff.own_index(app, admin) as index:
            return _commit_all(app, clone, status.head or tip, left_out, {**index, **environment})
    except KhloneError as error:
        app.told(f"only what is committed: {clone.name} ({error.message})")
        return tip


def _commit_all(
    app: App, clone: CloneRecord, head: str, left_out: Sequence[str], environment: Mapping[str, str]
) -> str:
    def git(*arguments: str, check: bool = True) -> tuple[int, str, str]:
        done = app.repository.git(
            *arguments,
            cwd=clone.path,
            environment=environment,
            check=check,
            configuration=["core.splitIndex=false", "core.safecrlf=false"],
            filters=False,
        )
        return done.status, done.text.strip(), done.error_text.strip()

    excluded = [f":(exclude,literal,top){name}" for name in left_out]
    status, _, why = git("add", "-A", "--ignore-errors", "--", ":/", *excluded, check=False)
    if status != 0:
        app.told(f"warning: not all changes of {clone.name} are looked at: {why}")
    _, tree, _ = git("write-tree")
    made = app.repository.git(
        *("commit-tree", "-p", head, "-m", f"khlone: {clone.name} as it is", tree),
        environment={**environment, **KHLONE_IDENTITY},
    )
    return made.text.strip()
