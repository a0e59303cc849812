"""How is what was done last, or a named operation, taken back?

What one command did to several clones (`new -n`, `remove`, `prune`) is taken back as one.

Never a guess: an operation is taken back only while what it led to is still there as it
left it, and else refused with the reason. Nothing is lost by it: a created clone goes to
the trash, a branch that goes back leaves its tip under `refs/khlone/undo/<operation>`.
What undo did is not what the next undo takes back: that one goes further into the past.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

from khlone import faults, files, sessions
from khlone.app import App
from khlone.errors import KhloneError, NoSuchOperation, NotUndoable
from khlone.locks import HeldLock
from khlone.model import CloneRecord, CloneState, Kept, OperationKind, Outcome, Strategy, utc_now
from khlone.operations import (
    journal,
    landed,
    landing,
    moving,
    permission,
    recovery,
    remove,
    rename,
    restore,
    snapshot,
    sync,
)
from khlone.operations.moving import Move
from khlone.registry import Operation
from khlone.values import dataclass

_LANDED = frozenset({Outcome.DONE, Outcome.RECOVERED})
_LIVE = frozenset({CloneState.READY, CloneState.MERGED, CloneState.ADOPTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """One operation that was taken back.

    `by` is the operation that did it. `branch` is the one that went from `old` to `new`, if
    one did, and `kept` the ref that keeps where it was.
    """

    id: str
    kind: OperationKind
    clone: str
    by: str | None
    branch: str | None = None
    old: str | None = None
    new: str | None = None
    kept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """The operations that were taken back, newest first, and the clones whose could not be: `held`."""

    undone: Sequence[Undone]
    held: Sequence[Kept]


class Judge:
    """Says of each operation of the journal whether it can be taken back, as things are now."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.operations = app.registry.operations() if app.has_registry else []
        self._tips: dict[str, str | None] = {}

    @cached_property
    def _undone(self) -> dict[str, str]:
        """Operations that were taken back, with the one that did it; undoing that one brings them back."""
        found: dict[str, str] = {}
        for operation in self.operations:
            undoes = operation.plan.get("undoes")
            if isinstance(undoes, str) and operation.outcome in _LANDED and operation.id not in found:
                found[undoes] = operation.id
        return found

    @cached_property
    def _newest(self) -> dict[str, Operation]:
        """The last operation of each clone, those that were taken back and those that did so aside."""
        found: dict[str, Operation] = {}
        for operation in self._candidates():
            if operation.id not in self._undone:
                found.setdefault(operation.clone_id, operation)
        return found

    @cached_property
    def _clones(self) -> dict[str, CloneRecord]:
        return {clone.id: clone for clone in self._app.registry.clones()}

    @cached_property
    def _trashed(self) -> dict[str, str]:
        """The trash entry of each clone that is in the trash: the id of its last removal."""
        records = (one for one in self._app.registry.trash() if one.clone.state is CloneState.TRASHED)
        return {record.clone.id: record.id for record in records}

    def entry_of(self, removal: Operation) -> str | None:
        """The trash entry that takes a removal back; another one where the clone came back and went again by `undo`."""
        entry = self._trashed.get(removal.clone_id)
        newest = self._newest.get(removal.clone_id)
        stands = newest is not None and newest.id == removal.id
        return entry if stands or entry == removal.id else None

    def _tip(self, branch: str) -> str | None:
        if branch not in self._tips:
            self._tips[branch] = self._app.repository.read_ref(f"refs/heads/{branch}")
        return self._tips[branch]

    def find(self, operation_id: str) -> Operation:
        """The operation of that id; raises NoSuchOperation."""
        found = next((operation for operation in self.operations if operation.id == operation_id), None)
        if found is None:
            raise NoSuchOperation(operation_id)
        return found

    def last(self) -> list[Operation]:
        """The newest operation that was not taken back, those of undo itself aside, and what was done together with it.

        What cannot be taken back is never skipped for an older one that nobody meant:
        raises NotUndoable, whose hint names the next one that can be.
        """
        found = [operation for operation in self._candidates() if operation.id not in self._undone]
        if not found:
            raise NotUndoable(None, "nothing", "no operation here can be taken back")
        last, together = found[0], found[0].plan.get("together")
        group = [one for one in found if one is last or (together and one.plan.get("together") == together)]
        if all(self.obstacle(one) is not None for one in group):
            older = iter(one for one in found if one not in group)
            why = str(self.obstacle(last))
            raise NotUndoable(last.id, _shown(last), why, _other_way(last) or self._older(older))
        return group

    def _older(self, rest: Iterator[Operation]) -> str | None:
        older = next((operation for operation in rest if self.obstacle(operation) is None), None)
        return None if older is None else f"{_shown(older)} can be taken back: git khlone undo {older.id}"

    def _candidates(self) -> Iterator[Operation]:
        for operation in self.operations:
            if operation.outcome in _LANDED and not isinstance(operation.plan.get("undoes"), str):
                yield operation

    def obstacle(self, operation: Operation) -> str | None:
        """Why an operation cannot be taken back, `None` when it can."""
        if operation.outcome not in _LANDED:
            return "it has not ended" if operation.ended_at is None else "it did nothing in the end"
        if operation.id in self._undone:
            return f"it was taken back by {self._undone[operation.id]}"
        kind = operation.kind
        if kind is OperationKind.REMOVE:
            return self._obstacle_in_trash(operation)
        if kind is OperationKind.MERGE:
            target = str(operation.plan["target"])
            return None if self._tip(target) == operation.plan["new"] else f"{target} has moved on since"
        if kind in (OperationKind.CREATE, OperationKind.RESTORE, OperationKind.RENAME, OperationKind.SYNC):
            return self._obstacle_in_clone(operation)
        return f"nothing takes back what {kind.value} does"

    def _obstacle_in_trash(self, operation: Operation) -> str | None:
        if self.entry_of(operation) is not None:
            return None
        newest = self._newest.get(operation.clone_id)
        if newest is not None and newest.id > operation.id:
            return f"{_shown(newest)} ({newest.id}) came after it"
        if operation.clone_id in self._trashed:
            return f"{operation.name} is in the trash by {self._trashed[operation.clone_id]}"
        return f"{operation.name} is there again" if operation.clone_id in self._clones else "its trash was purged"

    def _obstacle_in_clone(self, operation: Operation) -> str | None:
        clone = self._clones.get(operation.clone_id)
        if clone is None:
            return "its clone is gone"
        if clone.state not in _LIVE:
            return f"its clone is {clone.state.value}"
        newest = self._newest.get(operation.clone_id)
        if newest is not None and newest.id > operation.id:
            return f"{_shown(newest)} ({newest.id}) came after it"
        tip = self._tip(clone.branch)
        if operation.kind is OperationKind.CREATE and tip != clone.base:
            return f"{clone.name} has commits of its own"
        if operation.kind is OperationKind.RESTORE and tip != operation.plan["head"]:
            return f"{clone.branch} has moved on since"
        if operation.kind is OperationKind.SYNC and tip != operation.plan["new"]:
            return f"{clone.branch} has moved on since"
        return None


def _shown(operation: Operation) -> str:
    return f"the {operation.kind.value} of {operation.name}"


def undo(app: App, wanted: Sequence[str] = (), *, dry_run: bool = False) -> TakenBack:
    """Take back what was done last, or the operations of these ids, each on its own.

    Raises NoSuchOperation, and where none can be taken back what is said of the first:
    NotUndoable, and what the way back raises: HasChanges, NotIntegrated, SessionLive,
    CloneDirty, TargetDirty, TargetInProgress.
    """
    app.prepare_state()
    if not dry_run:
        recovery.recover(app, ask=True)
    judge = Judge(app)
    operations = [judge.find(one) for one in dict.fromkeys(wanted)] if wanted else judge.last()
    undone: list[Undone] = []
    held: list[Kept] = []
    first: KhloneError | None = None
    for number, operation in enumerate(operations):
        app.progress(number, len(operations), f"taking back {_shown(operation)}")
        try:
            undone.append(_undo_one(app, Judge(app) if wanted else judge, operation, dry_run=dry_run))
        except KhloneError as error:
            first = first or error
            held.append(remove.kept(operation.name, error))
    if not undone and first is not None:
        raise first
    return TakenBack(undone=undone, held=held)


def _undo_one(app: App, judge: Judge, operation: Operation, *, dry_run: bool) -> Undone:
    why = judge.obstacle(operation)
    if why is not None:
        raise NotUndoable(operation.id, _shown(operation), why, _other_way(operation))
    if not dry_run:
        permission.require_own_id(permission.find(app), operation.clone_id, operation.name, "undo")
    ways = {
        OperationKind.CREATE: _undo_create,
        OperationKind.REMOVE: _undo_remove,
        OperationKind.RESTORE: _undo_restore,
        OperationKind.RENAME: _undo_rename,
        OperationKind.MERGE: _undo_move,
        OperationKind.SYNC: _undo_move,
    }
    return ways[operation.kind](app, operation, dry_run)


def _other_way(operation: Operation) -> str | None:
    """What else takes back a merge or an adopt."""
    if operation.kind is OperationKind.ADOPT:
        return f"git khlone remove {operation.name} moves it to the trash, git khlone uninstall leaves plain worktrees"
    if operation.kind is not OperationKind.MERGE or operation.outcome not in _LANDED:
        return None
    old, new = str(operation.plan["old"]), str(operation.plan["new"])
    strategy = operation.plan.get("strategy")
    if strategy == Strategy.MERGE:
        return f"git revert -m 1 {new}"
    return f"git revert {new}" if strategy == Strategy.SQUASH else f"git revert {old}..{new}"


def _require_clone(app: App, operation: Operation) -> CloneRecord:
    clone = app.registry.clone_by_id(operation.clone_id)
    if clone is None:
        raise NotUndoable(operation.id, _shown(operation), "its clone is gone")
    return clone


# -- clones ----------------------------------------------------------------------------------


def _undo_create(app: App, operation: Operation, dry_run: bool) -> Undone:
    clone = _require_clone(app, operation)
    removed = remove.remove_one(app, clone, force=False, dry_run=dry_run, noted={"undoes": operation.id})
    return Undone(id=operation.id, kind=operation.kind, clone=clone.name, by=None if dry_run else removed.trash)


def _undo_remove(app: App, operation: Operation, dry_run: bool) -> Undone:
    entry = Judge(app).entry_of(operation) or operation.id
    if dry_run:
        return Undone(id=operation.id, kind=operation.kind, clone=restore.find(app, entry).clone.name, by=None)
    restored = restore.restore(app, entry, undoes=operation.id)
    for note in restored.notes:
        app.told(note)
    return Undone(id=operation.id, kind=operation.kind, clone=restored.clone.name, by=restored.operation)


def _undo_restore(app: App, operation: Operation, dry_run: bool) -> Undone:
    clone = _require_clone(app, operation)
    folder = files.make_private_dir(app.state_dir / "stage")
    head, kept = str(operation.plan["head"]), str(operation.plan["snapshot"])
    if not snapshot.is_as(app, clone, head, kept, folder):
        raise NotUndoable(
            operation.id, _shown(operation), "its files have changed since", f"git khlone remove {clone.name}"
        )
    removed = remove.remove_one(app, clone, force=True, stop=False, dry_run=dry_run, noted={"undoes": operation.id})
    return Undone(id=operation.id, kind=operation.kind, clone=clone.name, by=None if dry_run else removed.trash)


def _undo_rename(app: App, operation: Operation, dry_run: bool) -> Undone:
    clone = _require_clone(app, operation)
    before = cast("Mapping[str, object]", operation.plan["old"])
    stays = before["path"] == str(clone.path)
    done = rename.rename(app, clone.name, str(before["name"]), keep_path=stays, dry_run=dry_run, undoes=operation.id)
    for note in done.notes:
        app.told(note)
    by = None if dry_run else done.operation
    return Undone(id=operation.id, kind=operation.kind, clone=done.new.name, by=by)


# -- branches --------------------------------------------------------------------------------


def _undo_move(app: App, operation: Operation, dry_run: bool) -> Undone:
    """Let the branch that a merge or a sync moved go back to where it was, while it is where they left it."""
    is_sync = operation.kind is OperationKind.SYNC
    branch = str(operation.plan["branch" if is_sync else "target"])
    old, new = str(operation.plan["new"]), str(operation.plan["old"])
    with (
        journal.held(app, operation.clone_id, operation.name) as lock,
        files.explained(app.location.common_dir),
        app.locks.landing(branch, told=app.told) as turn,
    ):
        if app.repository.read_ref(f"refs/heads/{branch}") != old:
            raise NotUndoable(operation.id, _shown(operation), f"{branch} has moved on since", _other_way(operation))
        checkout = _require_clean(app, operation, branch, old, new)
        move = Move(
            operation=journal.new_operation_id(),
            branch=branch,
            old=old,
            new=new,
            reason=f"khlone undo: {operation.kind.value} of {operation.name}",
            leaves=not moving.contains(app, new, old),
            worktree=None if checkout is None else str(checkout.worktree),
        )
        undone = Undone(
            id=operation.id,
            kind=operation.kind,
            clone=operation.name,
            by=None if dry_run else move.operation,
            branch=branch,
            old=old,
            new=new,
            kept=moving.kept_ref(move.operation) if move.leaves and not dry_run else None,
        )
        if dry_run:
            return undone
        has_it = None if is_sync else _upstream_with(app, branch, old)
        if has_it is not None:
            app.told(f"warning: {has_it} has it already: only {branch} here goes back")
        turn.verify()
        lock.verify()
        _carry_out(app, operation, move, checkout, lock, has_it)
    faults.point("undo.finished")
    return undone


def _upstream_with(app: App, branch: str, tip: str) -> str | None:
    """The branch of a remote that has the merge too: taking it back here does not take it from others."""
    there = landed.upstream_of(app, branch)
    return there[0] if there is not None and moving.contains(app, there[1], tip) else None


def _require_clean(app: App, operation: Operation, branch: str, old: str, new: str) -> landing.Checkout | None:
    if operation.kind is OperationKind.SYNC:
        clone = _require_clone(app, operation)
        sync.require_on_branch(app, clone)
        sync.require_idle(app, clone)
        return sync.require_untouched(app, clone, old, new)
    try:
        return moving.require_clean(app, branch, old, new)
    except KhloneError as error:
        error.hint = f"{error.hint.removesuffix(', then merge again')}, then undo again" if error.hint else None
        raise


def _carry_out(
    app: App, operation: Operation, move: Move, checkout: landing.Checkout | None, lock: HeldLock, has_it: str | None
) -> None:
    plan: dict[str, object] = {**move.as_json(), "undoes": operation.id, "has_it": has_it}
    entry = Operation(
        id=move.operation,
        kind=OperationKind.UNDO,
        clone_id=operation.clone_id,
        name=operation.name,
        plan=plan,
        owner=sessions.identity(),
        started_at=utc_now(),
    )
    with app.registry.transaction() as change:
        change.begin_operation(entry)
    faults.point("undo.reserved")
    moving.keep(app, move, lock)
    faults.point("undo.kept")
    moving.carry_out_kept(app, move, checkout, lock)
    faults.point("undo.moved")
    landing.make_durable(app, checkout)
    _settle(app, operation, move, lock, Outcome.DONE, has_it)


def _settle(app: App, operation: Operation, move: Move, lock: HeldLock, outcome: Outcome, has_it: str | None) -> None:
    """The commit point: the clone is again what it was before the merge or the sync.

    One whose merge a remote has too, `has_it`, stays merged: there it has landed.
    """
    before = cast("Mapping[str, object]", operation.plan["clone"])
    planned = journal.from_json(before, CloneState.READY)
    is_sync = operation.kind is OperationKind.SYNC
    clone = app.registry.clone_by_id(operation.clone_id)
    if clone is not None and is_sync and clone.base != planned.base:
        sync.mark_base(app, clone, planned.base, lock)
    lock.verify()
    with app.registry.transaction() as change:
        if clone is not None and clone.state in _LIVE:
            if is_sync:
                change.set_base(clone.id, planned.base)
                change.note_merged(clone.id, planned.merged_head)
                change.move_clone(clone, CloneState(str(operation.plan["state"])))
            elif has_it is None and clone.state is CloneState.MERGED and clone.merged_head == operation.plan["source"]:
                change.note_merged(clone.id, planned.merged_head)
                was = operation.plan.get("state")
                change.move_clone(clone, CloneState.ADOPTED if was == CloneState.ADOPTED else CloneState.READY)
        change.end_operation(move.operation, outcome)
    faults.point("undo.undone")


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish an undo whose process died: the branch ends where it was or where it goes back to."""
    move = moving.from_plan(operation.plan)
    taken_back = app.registry.operation(str(operation.plan["undoes"]))
    moving.keep(app, move, lock)
    if taken_back is not None and moving.resume(app, move, lock):
        has_it = cast("str | None", operation.plan.get("has_it"))
        _settle(app, taken_back, move, lock, Outcome.RECOVERED, has_it)
        return [f"{move.branch} is back at {move.new[:10]}"]
    moving.drop(app, move, lock)
    with app.registry.transaction() as change:
        change.end_operation(operation.id, Outcome.ROLLED_BACK, "the branch moved on without it")
    return [f"{move.branch} moved on; nothing was taken back"]
