"""What is there to say about each clone right now?

The registry says which clones there are; git says in a constant number of processes how
far their branches are, and one `git status` each, in parallel, whether they are dirty.
One broken clone never hides the others: it says so with a reason.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from khlone import sessions, values, worktrees
from khlone.app import App
from khlone.errors import KhloneError, NoSuchClone, StateUnsafe
from khlone.model import Changes, Clone, CloneRecord, CloneState, Session
from khlone.operations import (
    astray,
    changes,
    escape,
    integration,
    journal,
    names,
    resources,
    standing,
    targets,
    undo,
)
from khlone.ref_files import is_oid

if TYPE_CHECKING:
    from khlone.operations import landed

_WORKERS = 4
_USABLE = (CloneState.READY, CloneState.MERGED, CloneState.MERGING, CloneState.ADOPTED, CloneState.BROKEN)


def list_clones(app: App, *, status: bool = True) -> list[Clone]:
    """Every clone that is not in the trash, by name, with facts; without `status` no worktree is looked at."""
    records = app.registry.clones() if app.has_registry else []
    return _settled(app, records, describe(app, records, status=status), status=status)


def _settled(
    app: App, records: Sequence[CloneRecord], clones: Sequence[Clone], *, status: bool = True, pss: bool = False
) -> list[Clone]:
    """What another command works on, or has moved on, while it was looked at is neither broken nor odd by that.

    Those that look odd are looked at once more, all together, when nobody works on them.
    """
    odd = {clone.id for record, clone in zip(records, clones, strict=True) if _is_odd(record, clone)}
    if not odd:
        return list(clones)
    now, moving = _now(app)
    quiet = [record for clone_id, record in now.items() if clone_id in odd - moving]
    again = {clone.id: clone for clone in describe(app, quiet, status=status, pss=pss)}
    found = []
    for clone in clones:
        if clone.id not in odd:
            found.append(clone)
        elif clone.id in again:
            found.append(again[clone.id])
        elif clone.id in now:
            found.append(_as_recorded(clone, now[clone.id]))
    return found


def _is_odd(record: CloneRecord, clone: Clone) -> bool:
    return clone.reason != record.reason or (clone.state is CloneState.BROKEN and record.state is not clone.state)


def _as_recorded(clone: Clone, record: CloneRecord) -> Clone:
    return values.replace(
        clone, name=record.name, branch=record.branch, path=record.path, state=record.state, reason=record.reason
    )


def _now(app: App) -> tuple[dict[str, CloneRecord], set[str]]:
    """The clones as they are by now, and which of them live operations of this machine change."""
    moving = {
        one.clone_id
        for one in app.registry.open_operations()
        if sessions.may_live(one.owner) and sessions.out_of_sight(one.owner) is None
    }
    return {one.id: one for one in app.registry.clones()}, moving


def show_clone(app: App, name: str | None) -> Clone:
    """One clone with every fact, its integration proved by all six means."""
    record = app.require_clone(name)
    found = _settled(app, [record], describe(app, [record], pss=True), pss=True)
    if not found:
        raise NoSuchClone(record.name)
    clone = found[0]
    if clone.merged is False:
        proof = integration.prove(app, record, clone.head)
        clone = values.replace(clone, merged=proof is not None)
    return clone


def columns(app: App, clones: Sequence[Clone], *, taken: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The columns that plugins add to a table of these clones, by their heads; none of them is one of `taken`.

    Where no plugin but khlone's own is installed, none is loaded to find that out.
    """
    if not app.has_foreign_plugins or not app.plugins.has("khlone_columns"):
        return {}
    return app.plugins.columns(clones, taken)


def describe(app: App, records: Sequence[CloneRecord], *, status: bool = True, pss: bool = False) -> list[Clone]:
    """The given clones as users see them; `pss` asks for the proportional memory of their processes too."""
    if not records:
        return []
    with _Statuses(app, records if status else ()) as statuses:
        return _described(app, records, statuses, status=status, pss=pss)


def _described(
    app: App, records: Sequence[CloneRecord], statuses: _Statuses, *, status: bool, pss: bool
) -> list[Clone]:
    look = resources.Look(app, records, pss=pss) if status else None
    tips, trees = _tips(app, records)
    distances = _distances(app, records, tips)
    elsewhere = _landed_elsewhere(app, records, tips, distances)
    missing = _missing(app, [one for one in records if distances.get(one.id, (None, None))[0]], tips)
    upstream = {clone_id: one.told for clone_id, one in missing.items() if one.upstream is not None}
    gone = {clone_id: one.told for clone_id, one in missing.items() if one.upstream is None}
    merged = _merged(app, records, tips, trees, distances, {**elsewhere, **gone})
    elsewhere |= {clone_id: told for clone_id, told in gone.items() if not merged.get(clone_id)}
    lost = {
        one.id: targets.told(one.target) for one in records if one.target and f"refs/heads/{one.target}" not in tips
    }
    left = _left_half_done(app, records)
    clones = []
    for record in records:
        tip = tips.get(record.ref)
        ahead, behind = distances.get(record.id, (None, None))
        clone = _with_state(app, record, tip)
        about_target = [found[record.id] for found in (left, elsewhere, upstream, lost) if record.id in found]
        reason = clone.reason or "; ".join(about_target) or None
        clones.append(values.replace(clone, ahead=ahead, behind=behind, merged=merged.get(record.id), reason=reason))
    if look is None:
        return _with_sessions(clones, _recorded_sessions(app))
    found = statuses.wait()
    clones = [_with_status(clone, found.get(clone.id)) for clone in clones]
    return _with_sessions(clones, look.sessions())


def _with_sessions(clones: Sequence[Clone], running: Mapping[str, Sequence[Session]]) -> list[Clone]:
    return [
        values.replace(clone, sessions=tuple(running[clone.id])) if clone.id in running else clone for clone in clones
    ]


def _with_state(app: App, record: CloneRecord, tip: str | None) -> Clone:
    clone = journal.as_clone(record, head=tip)
    admin = undo.admin_path(app, record)
    entry = worktrees.read_entry(admin)
    reason = None
    if entry is None:
        reason = "its admin folder is gone"
    elif entry.problem is not None:
        reason = f"its admin folder is damaged: {entry.problem}"
    elif not worktrees.is_linked(record.path, admin):
        is_there = record.path.exists()
        # Behind the walls of one clone, those of others are hidden, which says nothing of them.
        if is_there or app.walls is None:
            reason = f"{record.path} is not its worktree any more" if is_there else f"{record.path} is gone"
    elif tip is None:
        reason = f"its branch {record.branch} is gone"
    if reason is not None and record.state in _USABLE:
        return values.replace(clone, state=CloneState.BROKEN, reason=reason)
    locked = entry.locked if entry is not None and not (entry.locked or "").startswith("khlone ") else None
    state = record.state
    if state is CloneState.MERGED and tip != record.merged_head:
        state = CloneState.READY
    beside = astray.find(app, record, entry) if record.state in _USABLE else None
    outside = escape.find(record) if beside is None else None
    reason = record.reason
    if beside is not None:
        reason = f"its worktree {beside.told}"
    elif outside is not None:
        reason = f"while a session ran, {outside.told}"
    return values.replace(clone, state=state, locked=locked, reason=reason)


def _missing(app: App, records: Sequence[CloneRecord], tips: Mapping[str, str]) -> Mapping[str, landed.Missing]:
    """The landings that their targets lack. What finds them is loaded only where something has landed."""
    merged = [record for record in records if record.state is CloneState.MERGED]
    if not merged:
        return {}
    from khlone.operations import landed

    return landed.missing(app, merged, tips)


def _left_half_done(app: App, records: Sequence[CloneRecord]) -> dict[str, str]:
    """What to say of clones that somebody began to make, move or remove, who is gone."""
    if all(record.state in _USABLE or record.reason for record in records):
        return {}
    return {
        one.clone_id: f"its {one.kind} was interrupted; the next command that changes something, or git khlone doctor "
        "--fix, goes on or undoes it"
        for one in app.registry.open_operations()
        if not sessions.may_live(one.owner) and sessions.out_of_sight(one.owner) is None
    }


def _tips(app: App, records: Sequence[CloneRecord]) -> tuple[dict[str, str], dict[str, str]]:
    """The commits of all branches and targets by ref, and the trees of these commits."""
    wanted = {record.ref for record in records} | {f"refs/heads/{one.target}" for one in records if one.target}
    form = "--format=%(objectname) %(tree) %(refname)"
    done = app.repository.git("for-each-ref", form, "--", *sorted(wanted), check=False)
    found, trees = {}, {}
    for line in done.text.splitlines():
        oid, tree, ref = line.split(" ", 2)
        if ref in wanted:
            found[ref], trees[oid] = oid, tree
    return found, trees


def _distances(
    app: App, records: Sequence[CloneRecord], tips: dict[str, str]
) -> dict[str, tuple[int | None, int | None]]:
    """How many commits each clone is ahead of and behind its target, from one walk over all of them."""
    pairs = {}
    for record in records:
        tip, target = tips.get(record.ref), tips.get(f"refs/heads/{record.target}") if record.target else None
        if tip is not None and target is not None:
            pairs[record.id] = (tip, target)
    if not pairs:
        return {}
    ends = sorted({oid for pair in pairs.values() for oid in pair})
    shared = (
        app.repository.git("merge-base", "--octopus", *ends, check=False).text.strip() if len(ends) > 1 else ends[0]
    )
    bounds = [f"^{shared}"] if is_oid(shared) else []
    walked = app.repository.git(
        "rev-list", "--parents", "--stdin", stdin="\n".join([*ends, *bounds]).encode(), check=False
    )
    if walked.status != 0:
        return {}
    parents = {line[0]: line[1:] for line in (text.split(" ") for text in walked.text.splitlines())}
    reach = {oid: _reachable(oid, parents) for oid in ends}
    return {
        clone_id: (len(reach[tip] - reach[target]), len(reach[target] - reach[tip]))
        for clone_id, (tip, target) in pairs.items()
    }


def _reachable(oid: str, parents: dict[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    pending = [oid]
    while pending:
        one = pending.pop()
        if one not in seen and one in parents:
            seen.add(one)
            pending += parents[one]
    return seen


def _landed_elsewhere(
    app: App,
    records: Sequence[CloneRecord],
    tips: dict[str, str],
    distances: dict[str, tuple[int | None, int | None]],
) -> dict[str, str]:
    """What to say of clones whose tip has landed, but not on the target that they have now."""
    found = {}
    for record in records:
        tip = tips.get(record.ref)
        ahead = distances.get(record.id, (None, None))[0]
        if tip is None or record.target is None or record.merged_head != tip or ahead == 0:
            continue
        landed = app.registry.landed_on(record.id, tip)
        target_tip = tips.get(f"refs/heads/{record.target}")
        if landed and record.target not in landed and not _has_any(app, target_tip, landed.values()):
            target = names.shown(record.target)
            found[record.id] = f"it has landed on {names.listed(list(landed))}, not on its target {target}"
    return found


def _has_any(app: App, tip: str | None, commits: Iterable[str]) -> bool:
    """Whether a branch has one of some commits, as when it was renamed since."""
    ask = app.repository.git
    return tip is not None and any(
        ask("merge-base", "--is-ancestor", oid, tip, check=False).status == 0 for oid in commits
    )


def _merged(
    app: App,
    records: Sequence[CloneRecord],
    tips: dict[str, str],
    trees: Mapping[str, str],
    distances: dict[str, tuple[int | None, int | None]],
    elsewhere: Mapping[str, str],
) -> dict[str, bool]:
    """Integration by content: by history, by what landed, else by one `merge-tree` process for all."""
    found: dict[str, bool] = {}
    asked: list[tuple[CloneRecord, str, str]] = []
    for record in records:
        tip = tips.get(record.ref)
        if tip is None or tip == record.base:
            continue
        target = tips.get(f"refs/heads/{record.target}") if record.target else None
        has_landed = record.merged_head == tip and record.id not in elsewhere
        if has_landed or distances.get(record.id, (None, None))[0] == 0:
            found[record.id] = True
        elif target is None:
            found[record.id] = integration.prove(app, record, tip) is not None
        else:
            asked.append((record, target, tip))
    answers = _adds_nothing(app, [one[1:] for one in asked], trees)
    for (record, _, tip), added in zip(asked, answers, strict=True):
        found[record.id] = integration.prove(app, record, tip) is not None if added is None else added
    return found


def _adds_nothing(app: App, pairs: Sequence[tuple[str, str]], trees: Mapping[str, str]) -> Iterable[bool | None]:
    """For each (target, tip): whether merging adds nothing; `None` for a conflict, which says neither."""
    if not pairs:
        return []
    lines = "".join(f"{target} {tip}\n" for target, tip in pairs).encode()
    done = app.repository.git(
        "merge-tree",
        "--write-tree",
        "--stdin",
        "--name-only",
        "--no-messages",
        "-z",
        stdin=lines,
        writes=True,
        check=False,
    )
    answers: list[bool | None] = []
    fields = done.stdout.split(b"\0")
    at = 0
    for target, _ in pairs:
        if at + 1 >= len(fields):
            answers.append(None)
            continue
        clean, tree = fields[at], os.fsdecode(fields[at + 1])
        answers.append(tree == trees.get(target) if clean == b"1" else None)
        at += 2
        while at < len(fields) and fields[at]:
            at += 1
        at += 1
    return answers


def _recorded_sessions(app: App) -> dict[str, list[Session]]:
    found: dict[str, list[Session]] = {}
    for record in app.registry.live_sessions():
        session = standing.as_live(app, record)
        if session is not None:
            found.setdefault(record.clone_id, []).append(session)
    return found


class _Statuses:
    """A look at every worktree, a few at a time, that begins at once: git's work is what takes the time.

    Whatever interrupts the block ends what still looks.
    """

    def __init__(self, app: App, records: Sequence[CloneRecord]) -> None:
        self._app = app
        self._found: dict[str, Changes | Exception] = {}
        self._asked: list[CloneRecord] = []
        _ = app.repository
        # Not `Thread.join`: interrupted, Python 3.11 takes the thread that it waited for to have ended.
        self._over, self._unwanted = threading.Event(), threading.Event()
        if records:
            threading.Thread(target=self._work, args=(records,), daemon=True).start()
        else:
            self._over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted.set()
        self._over.wait()

    def _work(self, records: Sequence[CloneRecord]) -> None:
        try:
            looked = changes.read_many(
                self._app, self._wanted(records), at_once=_WORKERS, given_up=self._unwanted.is_set
            )
            for place, found in looked:
                record = self._asked[place]
                self._found[record.id] = found if isinstance(found, KhloneError) else changes.uncounted(record, found)
        except (KhloneError, OSError) as error:
            self._found = {record.id: error for record in records} | self._found
        finally:
            self._over.set()

    def _wanted(self, records: Sequence[CloneRecord]) -> Iterator[Path]:
        for record in records:
            if self._unwanted.is_set():
                return
            admin = undo.admin_path(self._app, record)
            if record.state not in _USABLE:
                continue
            blocking = worktrees.find_blocking(record.path, admin)
            if blocking is not None:
                self._found[record.id] = StateUnsafe(blocking, "it is no file")
            elif worktrees.is_linked(record.path, admin):
                self._asked.append(record)
                yield record.path

    def wait(self) -> Mapping[str, Changes | Exception]:
        """What was found, by the id of the clone."""
        self._over.wait()
        return self._found


def _with_status(clone: Clone, found: Changes | Exception | None) -> Clone:
    if found is None or clone.state is CloneState.BROKEN:
        return clone
    if isinstance(found, Exception):
        return values.replace(clone, state=CloneState.BROKEN, reason=str(found))
    return values.replace(
        clone, dirty=bool(found.staged or found.unstaged or found.unmerged), untracked=len(found.untracked)
    )
