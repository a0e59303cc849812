"""How does a clone come back from the trash?

Branch and marker, config dir, admin folder, worktree: each moved back by rename, under
another name where the old one is taken. A half that is gone is built anew, and files that
are gone come from the snapshot commit. From the journal entry on it only rolls forward.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from khlone import faults, files, values
from khlone.app import App
from khlone.errors import NameCollides, NoSuchTrash
from khlone.locks import HeldLock
from khlone.model import Clone, CloneRecord, CloneState, OperationKind, Outcome
from khlone.operations import journal, names, recovery, revive, undo
from khlone.operations.remove import trash_folder
from khlone.registry import Operation, TrashRecord, folded
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass

_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The clone that came back, and what had to be different from before."""

    clone: Clone
    notes: tuple[str, ...]
    operation: str


def restore(app: App, wanted: str, *, undoes: str | None = None) -> Restored:
    """Bring back the newest trash entry of that name, or the one of that id; raises NoSuchTrash.

    `undoes` is the operation that this takes back.
    """
    app.prepare_state()
    _ = app.config_dirs  # Refused now, where it cannot be told, and not half way.
    recovery.recover(app)
    entry = find(app, wanted)
    with journal.held(app, entry.clone.id, entry.clone.name) as lock:
        entry = find(app, entry.id)
        clone, plan, notes = _reserve(app, entry, undoes)
        with files.explained(clone.path):
            faults.point("restore.reserved")
            notes += _advance(app, plan, lock)
        faults.point("restore.finished")
    found = app.registry.clone_by_id(clone.id)
    assert found is not None
    return Restored(
        clone=journal.as_clone(found, head=app.repository.read_ref(found.ref)),
        notes=tuple(notes),
        operation=str(plan["operation"]),
    )


def find(app: App, wanted: str) -> TrashRecord:
    """The trash entry of that id, else the newest of that name; raises NoSuchTrash."""
    entries = app.registry.trash() if app.has_registry else []
    for entry in entries:
        if entry.id == wanted and entry.clone.state is CloneState.TRASHED:
            return entry
    for entry in entries:
        if entry.clone.name == wanted and entry.clone.state is CloneState.TRASHED:
            return entry
    raise NoSuchTrash(wanted)


# -- planning ------------------------------------------------------------------------------


def _reserve(app: App, entry: TrashRecord, undoes: str | None) -> tuple[CloneRecord, dict[str, object], list[str]]:
    """Write the plan, with names that nothing has; looks again when another command was faster to one."""
    for attempt in range(_TRIES):
        clone, notes = _new_place(app, entry)
        plan: dict[str, object] = {
            "operation": journal.new_operation_id(),
            "clone": journal.to_json(clone),
            "state": _state_before(app, entry).value,
            "trash": entry.id,
            "head": entry.head,
            "snapshot": entry.snapshot,
            "undoes": undoes,
        }
        try:
            with app.registry.transaction() as change:
                _require_free(clone, change.clones())
                change.rename_clone(clone.id, name=clone.name, branch=clone.branch, path=clone.path)
                change.move_clone(entry.clone, CloneState.CREATING)
                change.begin_operation(journal.operation(OperationKind.RESTORE, clone, plan))
        except NameCollides:
            if attempt == _TRIES - 1:
                raise
        else:
            return clone, plan, notes
    raise AssertionError("the last try returns or raises")


def _state_before(app: App, entry: TrashRecord) -> CloneState:
    """What the clone was when it was removed, where the journal still knows; what was damaged then is built anew."""
    removal = app.registry.operation(entry.id)
    state = removal.plan.get("state") if removal is not None else None
    if state == CloneState.ADOPTED.value:
        return CloneState.ADOPTED
    # A branch that has moved on since it landed was merged, and is not.
    return CloneState.MERGED if entry.clone.merged_head == entry.head else CloneState.READY


def _require_free(clone: CloneRecord, others: Iterable[CloneRecord]) -> None:
    for other in others:
        if _collide(clone.name, other.name) or clone.branch == other.branch or clone.path == other.path:
            raise NameCollides(clone.name, other.name)


def _collide(one: str, other: str) -> bool:
    first, second = folded(one), folded(other)
    return first == second or first.startswith(second + "/") or second.startswith(first + "/")


def _new_place(app: App, entry: TrashRecord) -> tuple[CloneRecord, list[str]]:
    """Name, branch and path for a clone that comes back, each its old one where that is free."""
    clone = entry.clone
    notes: list[str] = []
    live = app.registry.clones()
    name = _free(clone.name, lambda one: not any(_collide(one, other.name) for other in live))
    if name != clone.name:
        notes.append(f"the name {clone.name} is taken: restored as {name}")
    held = {ref for ref, _, _ in app.checkouts()}
    branches = {other.branch for other in live}

    def is_free_branch(one: str) -> bool:
        tip = app.repository.read_ref(f"refs/heads/{one}")
        fits = tip == entry.head if tip is not None else not app.repository.colliding_refs(one)
        return fits and f"refs/heads/{one}" not in held and one not in branches

    branch = _free(clone.branch, is_free_branch)
    if branch != clone.branch:
        notes.append(f"branch {names.shown(clone.branch)} is taken: restored on {names.shown(branch)}")
    paths = {other.path for other in live}

    def is_free_path(one: str) -> bool:
        place = clone.path.with_name(one)
        return place not in paths and not files.exists(place)

    path = clone.path.with_name(_free(clone.path.name, is_free_path))
    if path != clone.path:
        notes.append(f"{clone.path} is taken: restored in {path}")
    owned = clone.branch_owned or branch != clone.branch
    return values.replace(clone, name=name, branch=branch, path=path, branch_owned=owned), notes


def _free(wanted: str, is_free: Callable[[str], bool]) -> str:
    """`wanted`, else the first of wanted-restored, wanted-restored-2, ... that is free.

    A name in a folder that cannot be there any more moves out of it: a/b becomes a-b-restored.
    """
    if is_free(wanted):
        return wanted
    for number in itertools.count(1):
        suffix = "-restored" if number == 1 else f"-restored-{number}"
        for candidate in (f"{wanted}{suffix}", f"{wanted.replace('/', '-')}{suffix}"):
            if is_free(candidate):
                return candidate
    raise AssertionError("there is always another number")


# -- executing -------------------------------------------------------------------------------


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a restoration whose process died."""
    return _advance(app, operation.plan, lock, outcome=Outcome.RECOVERED, step=operation.step)


def _advance(
    app: App, plan: Mapping[str, object], lock: HeldLock, *, step: str = "", outcome: Outcome = Outcome.DONE
) -> list[str]:
    clone = journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState.CREATING)
    operation_id, trash_id, head = str(plan["operation"]), str(plan["trash"]), str(plan["head"])
    folder = trash_folder(app, clone.id, trash_id)
    _create_refs(app, clone, head, operation_id, lock)
    faults.point("restore.refs")
    notes = _restore_config_dir(app, clone, trash_id, operation_id)
    faults.point("restore.config-dir")
    part = revive.Part(
        app=app, clone=clone, head=head, snapshot=str(plan["snapshot"]), operation=operation_id, lock=lock
    )
    clone.path.parent.mkdir(parents=True, exist_ok=True)
    files.move_tree(folder / "worktree", clone.path, aside=folder / "worktree.moving")
    faults.point("restore.worktree")
    notes += revive.move_admin(part, folder / "admin")
    faults.point("restore.admin")
    notes += revive.complete(part, step)
    _drop_trash(app, clone, trash_id, folder, operation_id, lock, notes)
    faults.point("restore.trash-dropped")
    lock.verify()
    with app.registry.transaction() as change:
        change.move_clone(clone, CloneState(str(plan.get("state", CloneState.READY.value))))
        change.delete_trash(trash_id)
        change.end_operation(operation_id, outcome)
    faults.point("restore.ready")
    return notes


def _create_refs(app: App, clone: CloneRecord, head: str, operation_id: str, lock: HeldLock) -> None:
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{clone.marker_ref}.lock", common / f"{clone.ref}.lock"], operation_id)
    updates = []
    for ref, oid in ((clone.marker_ref, clone.base), (clone.ref, head)):
        if app.repository.read_ref(ref) is None:
            updates.append(RefUpdate(ref=ref, new=oid, old=null_oid(oid)))
    if updates:
        app.repository.update_refs(updates, reason=f"khlone: restore {clone.name}", keep_open=[lock.descriptor])


def _restore_config_dir(app: App, clone: CloneRecord, trash_id: str, operation_id: str) -> list[str]:
    """Bring the private folders back, or make empty ones where they are gone."""
    app.config_dirs.restore(clone.id, trash_id)
    if files.exists(app.config_dirs.clone_path(clone.id)):
        return []
    app.config_dirs.publish(clone.id, operation_id, clone.agent or "generic")
    return [f"the config dir of {clone.name} is gone: it has an empty one now"]


def _drop_trash(
    app: App, clone: CloneRecord, trash_id: str, folder: Path, operation_id: str, lock: HeldLock, notes: list[str]
) -> None:
    """The clone is back: the empty trash folder goes, and the trash ref unless it alone has a commit."""
    ref = f"refs/khlone/trash/{clone.id}/{trash_id}"
    found = app.repository.read_ref(ref)
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{ref}.lock", common / "packed-refs.lock"], operation_id)
    if found is not None and revive.holds_more(app, clone, found):
        notes.append(f"{ref} is kept: commits of {clone.name} that are on no branch are in its history")
    elif found is not None:
        app.repository.update_refs(
            [RefUpdate(ref=ref, new=null_oid(found), old=found)],
            reason=f"khlone: restored {clone.name}",
            keep_open=[lock.descriptor],
            check=False,
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / "meta.json")
    for place in (folder, folder.parent):
        try:
            os.rmdir(place)
        except OSError:
            return
