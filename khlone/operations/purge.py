"""How is something in the trash deleted for good, without losing what nothing else holds?

The folder goes: what git keeps of it, the snapshot commit, stays with its trash entry
unless some branch, tag or remote branch contains all of it. A folder that has work which
no commit holds stays. From the journal entry on it only rolls forward; what was begun to
be deleted is first renamed, so that no restore ever finds half a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from khlone import faults, files, mounts, values
from khlone.app import App
from khlone.errors import GitFailed, KhloneError, NoSuchTrash, OnlyCopy, StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneState, Holds, Isolation, OperationKind, Outcome
from khlone.operations import approval, changes, isolation_devcontainer, journal, undo
from khlone.operations.remove import trash_folder, trash_meta
from khlone.registry import Operation, TrashRecord
from khlone.repository import RefUpdate, null_oid

#: Where files would come from that are wholly part of something that stays.
_ELSEWHERE = ("refs/heads", "refs/tags", "refs/remotes")


def purge(app: App, entry: TrashRecord) -> bool:
    """Delete a trash entry's folders; says whether its snapshot stays restorable.

    Raises what `require_second_copy` does, and CloneBusy or NoSuchTrash when another
    command was faster.
    """
    clone = entry.clone
    with journal.held(app, clone.id, clone.name) as lock:
        current = next((one for one in app.registry.trash() if one.id == entry.id), None)
        if current is None or current.clone.state is not CloneState.TRASHED:
            raise NoSuchTrash(entry.id)
        require_second_copy(app, entry)
        plan: dict[str, object] = {
            "operation": journal.new_operation_id(),
            "clone": journal.to_json(clone),
            "trash": entry.id,
            "snapshot": entry.snapshot,
            "keep": not _is_elsewhere(app, entry.snapshot),
        }
        with app.registry.transaction() as change:
            change.move_clone(current.clone, CloneState.PURGING)
            change.begin_operation(journal.operation(OperationKind.PURGE, clone, plan))
        try:
            with files.explained(app.state_dir):
                faults.point("purge.reserved")
                kept = _advance(app, plan, lock)
        except (KhloneError, OSError) as error:
            with app.registry.transaction() as change:
                change.move_clone(clone, CloneState.TRASHED, from_states=(CloneState.PURGING,))
                change.end_operation(str(plan["operation"]), Outcome.STUCK, str(error)[:500])
            raise
    faults.point("purge.finished")
    return kept


def require_second_copy(app: App, entry: TrashRecord) -> None:
    """Raise OnlyCopy while the folder has work that is not in the snapshot, StateUnsafe while it has a mount point.

    Ignored files do not count, nor do submodules; a repository inside that is neither does.
    """
    folder = trash_folder(app, entry.clone.id, entry.id)
    mounted = mounts.inside(folder)
    if mounted is not None:
        raise StateUnsafe(mounted, "another file system is mounted there")
    if not files.exists(folder / "worktree"):
        return
    try:
        found = changes.read_trashed(app, folder / "worktree", folder / "admin", entry.head)
    except GitFailed as error:
        if entry.snapshot == entry.head:
            raise OnlyCopy(entry.clone.name, entry.id, []) from error
        return
    left = [name for name in found.untracked if name.endswith("/")]
    if entry.snapshot == entry.head:
        left = list(found.uncommitted)
    if left:
        raise OnlyCopy(entry.clone.name, entry.id, left)


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a purge whose process died."""
    _advance(app, operation.plan, lock, outcome=Outcome.RECOVERED)
    return []


def _is_elsewhere(app: App, snapshot: str) -> bool:
    """Whether a ref that is not khlone's contains the whole snapshot."""
    done = app.repository.git("for-each-ref", "--count=1", f"--contains={snapshot}", *_ELSEWHERE, check=False)
    return done.status == 0 and bool(done.stdout.strip())


def _advance(app: App, plan: Mapping[str, object], lock: HeldLock, *, outcome: Outcome = Outcome.DONE) -> bool:
    clone = journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState.PURGING)
    operation_id, trash_id, keep = str(plan["operation"]), str(plan["trash"]), bool(plan["keep"])
    folder = trash_folder(app, clone.id, trash_id)
    _delete(folder, "worktree")
    faults.point("purge.worktree")
    _delete(folder, "admin")
    faults.point("purge.admin")
    if clone.isolation is Isolation.CONTAINER:
        isolation_devcontainer.forget(app, clone, app.config_dirs.trash_path(clone.id, trash_id))
    app.config_dirs.purge(clone.id, trash_id)
    faults.point("purge.config-dir")
    entry = next((one for one in app.registry.trash() if one.id == trash_id), None)
    emptied = None
    if entry is not None:
        holds = Holds(tracked=entry.holds.tracked, untracked=entry.holds.untracked, ignored=0)
        emptied = values.replace(
            entry, clone=values.replace(entry.clone, state=CloneState.TRASHED), bytes=0, holds=holds
        )
    approval.forget(app, clone)
    ref = f"refs/khlone/trash/{clone.id}/{trash_id}"
    if not keep:
        # The branch that had all of it may have gone while this lay unfinished.
        found = app.repository.read_ref(ref)
        keep = found is not None and not _is_elsewhere(app, found)
    if keep and emptied is not None:
        files.write_atomic(folder / "meta.json", json.dumps(trash_meta(emptied)).encode() + b"\n")
    else:
        _drop_ref(app, ref, operation_id, lock)
        _drop_folder(folder)
    faults.point("purge.refs")
    lock.verify()
    with app.registry.transaction() as change:
        change.end_operation(operation_id, outcome)
        if keep and emptied is not None:
            change.move_clone(clone, CloneState.TRASHED)
            change.insert_trash(emptied)
        else:
            change.delete_clone(clone.id)
    faults.point("purge.ended")
    return keep and emptied is not None


def _delete(folder: Path, name: str) -> None:
    going = folder / f"{name}.purging"
    files.remove_tree(going)
    if files.exists(folder / name):
        files.rename_new(folder / name, going)
        files.remove_tree(going)


def _drop_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / "meta.json")
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _drop_ref(app: App, ref: str, operation_id: str, lock: HeldLock) -> None:
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{ref}.lock", common / "packed-refs.lock"], operation_id)
    found = app.repository.read_ref(ref)
    if found is not None:
        gone = RefUpdate(ref=ref, new=null_oid(found), old=found)
        app.repository.update_refs([gone], reason="khlone: purge", keep_open=[lock.descriptor])
