"""How does a clone come back from the trash?

Branch and marker, config dir, admin folder, worktree: each moved back by rename, under
another name where the old one is taken. When the folder itself is gone, the snapshot
commit gives back what git kept of it. From the journal entry on it only rolls forward.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from khlone import faults, files, worktrees
from khlone.app import App
from khlone.errors import GitFailed, NoSuchTrash
from khlone.locks import HeldLock
from khlone.model import Clone, CloneRecord, CloneState, OperationKind, Outcome
from khlone.operations import journal, names, recovery, undo
from khlone.operations.remove import trash_folder
from khlone.registry import Operation, TrashRecord, folded
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The clone that came back, and what had to be different from before."""

    clone: Clone
    notes: tuple[str, ...]


def restore(app: App, wanted: str) -> Restored:
    """Bring back the newest trash entry of that name, or the one of that id; raises NoSuchTrash."""
    app.prepare_state()
    recovery.recover(app)
    entry = find(app, wanted)
    with journal.held(app, entry.clone.id, entry.clone.name) as lock:
        entry = find(app, entry.id)
        clone, notes = _new_place(app, entry)
        plan: dict[str, object] = {
            "operation": journal.new_operation_id(),
            "clone": journal.to_json(clone),
            "trash": entry.id,
            "head": entry.head,
            "snapshot": entry.snapshot,
        }
        with app.registry.transaction() as change:
            change.rename_clone(clone.id, name=clone.name, branch=clone.branch, path=clone.path)
            change.move_clone(entry.clone, CloneState.CREATING)
            change.begin_operation(journal.operation(OperationKind.RESTORE, clone, plan))
        with files.explained(clone.path):
            faults.point("restore.reserved")
            notes += _advance(app, plan, lock)
        faults.point("restore.finished")
    found = app.registry.clone_by_id(clone.id)
    assert found is not None
    return Restored(clone=journal.as_clone(found, head=app.repository.read_ref(found.ref)), notes=tuple(notes))


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


def _new_place(app: App, entry: TrashRecord) -> tuple[CloneRecord, list[str]]:
    """Name, branch and path for a clone that comes back, each its old one where that is free."""
    clone = entry.clone
    notes: list[str] = []
    live = app.registry.clones()
    taken = {folded(other.name) for other in live}
    name = _free(clone.name, lambda one: folded(one) not in taken)
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
    return dataclasses.replace(clone, name=name, branch=branch, path=path, branch_owned=owned), notes


def _free(wanted: str, is_free: Callable[[str], bool]) -> str:
    """`wanted`, else the first of wanted-restored, wanted-restored-2, ... that is free."""
    candidate, number = wanted, 1
    while not is_free(candidate):
        candidate = f"{wanted}-restored" if number == 1 else f"{wanted}-restored-{number}"
        number += 1
    return candidate


# -- executing -------------------------------------------------------------------------------


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a restoration whose process died."""
    return _advance(app, operation.plan, lock)


def _advance(app: App, plan: Mapping[str, object], lock: HeldLock) -> list[str]:
    clone = journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState.CREATING)
    operation_id, trash_id, head = str(plan["operation"]), str(plan["trash"]), str(plan["head"])
    folder = trash_folder(app, clone.id, trash_id)
    notes: list[str] = []
    _create_refs(app, clone, head, operation_id, lock)
    faults.point("restore.refs")
    app.config_dirs.restore(clone.id, trash_id)
    faults.point("restore.config-dir")
    admin = undo.admin_path(app, clone)
    clone.path.parent.mkdir(parents=True, exist_ok=True)
    aside = folder / "worktree.moving"
    files.move_tree(folder / "worktree", clone.path, aside=aside)
    faults.point("restore.worktree")
    _restore_admin(clone, folder, admin)
    faults.point("restore.admin")
    if not worktrees.is_linked(clone.path, admin) or not _works(app, clone):
        notes += _from_snapshot(app, clone, admin, str(plan["snapshot"]), operation_id, lock)
    _drop_trash(app, clone, trash_id, folder, operation_id, lock)
    faults.point("restore.trash-dropped")
    lock.verify()
    with app.registry.transaction() as change:
        change.move_clone(clone, CloneState.READY)
        change.note_merged(clone.id, None)
        change.delete_trash(trash_id)
        change.end_operation(operation_id, Outcome.DONE)
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


def _restore_admin(clone: CloneRecord, folder: Path, admin: Path) -> None:
    """Bring the admin folder back; its paths, and HEAD where the branch has another name, are set first."""
    stored = folder / "admin"
    if not files.exists(stored):
        return
    head = worktrees.read_head(stored)
    old = worktrees.branch_of(head)
    entry = worktrees.read_entry(stored)
    was = str(entry.marker.get("branch")) if entry is not None and entry.marker is not None else clone.branch
    moved = old == f"refs/heads/{was}" and was != clone.branch
    worktrees.point_at(stored, clone.path, head=f"ref: {clone.ref}" if moved else None)
    worktrees.write_marker(stored, journal.to_json(clone))
    admin.parent.mkdir(exist_ok=True)
    files.rename_new(stored, admin)


def _works(app: App, clone: CloneRecord) -> bool:
    return app.repository.git("status", "--porcelain", "-uno", cwd=clone.path, check=False).status == 0


def _from_snapshot(
    app: App, clone: CloneRecord, admin: Path, snapshot: str, operation_id: str, lock: HeldLock
) -> list[str]:
    """Build worktree and admin folder anew and fill them from the snapshot commit."""
    notes = [f"the folder of {clone.name} is gone: restored from its snapshot, ignored files are not in it"]
    for leftover in (clone.path, admin):
        if files.exists(leftover):
            place = undo.quarantine(app, leftover, operation_id)
            notes.append(f"{leftover} could not be used and was moved to {place}")
    staged = undo.staged_path(app, clone)
    worktrees.stage(
        staged,
        worktree=clone.path,
        head=f"ref: {clone.ref}",
        locked=f"khlone {clone.id}: remove it with git khlone remove {clone.name}",
        marker=journal.to_json(clone),
        source_git_dir=app.location.common_dir,
        common_dir=app.location.common_dir,
        durable=True,
    )
    worktrees.publish(staged, admin, durable=True)
    worktrees.link(clone.path, admin, durable=True)
    for arguments in (("read-tree", "--reset", "-u", snapshot), ("read-tree", "--reset", clone.ref)):
        done = app.repository.git(*arguments, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False)
        if done.status != 0:
            raise GitFailed(arguments, done.status, done.error_text)
    app.repository.git("update-index", "-q", "--refresh", cwd=clone.path, check=False)
    return notes


def _drop_trash(app: App, clone: CloneRecord, trash_id: str, folder: Path, operation_id: str, lock: HeldLock) -> None:
    """The clone is back: its trash ref and the empty trash folder go."""
    ref = f"refs/khlone/trash/{clone.id}/{trash_id}"
    found = app.repository.read_ref(ref)
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{ref}.lock", common / "packed-refs.lock"], operation_id)
    if found is not None:
        app.repository.update_refs(
            [RefUpdate(ref=ref, new=null_oid(found), old=found)],
            reason=f"khlone: restored {clone.name}",
            keep_open=[lock.descriptor],
            check=False,
        )
    if files.exists(folder / "meta.json"):
        os.unlink(folder / "meta.json")
    for place in (folder, folder.parent):
        try:
            os.rmdir(place)
        except OSError:
            return
