"""How does a clone leave, so that it can come back byte for byte?

Refuse what would surprise; snapshot what git can hold under a ref, so that no collection
eats it; then move the worktree folder, its admin folder and its config dir to the trash
by rename, ignored files included. From the journal entry on it only rolls forward.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from khlone import capacity, faults, files, sessions, values, worktrees
from khlone.app import App
from khlone.errors import (
    CloneNotReady,
    GitFailed,
    HasChanges,
    KhloneError,
    NotIntegrated,
    SessionLive,
)
from khlone.locks import HeldLock
from khlone.model import (
    Changes,
    CloneRecord,
    CloneState,
    Holds,
    Kept,
    OperationKind,
    Outcome,
    Removed,
    RemovePlan,
    RemoveResult,
    utc_now,
)
from khlone.operations import (
    astray,
    at_work,
    attending,
    changes,
    copied,
    ending,
    integration,
    isolation_left,
    journal,
    names,
    permission,
    recovery,
    snapshot,
    standing,
    submodules,
    targets,
    undo,
    whereabouts,
)
from khlone.operations.run import SUPERVISES
from khlone.registry import Operation, SessionRecord, TrashRecord
from khlone.repository import RefUpdate, null_oid

#: How long a git that looks at a clone is given to be gone, in seconds.
_LOOK_S = 1.0
_POLL_S = 0.05

#: How many ignored files and folders are listed with their sizes, and after how many names in one it is big.
_LISTED = 5
_WEIGHED = 5000

REMOVABLE = (CloneState.READY, CloneState.MERGED, CloneState.BROKEN, CloneState.FAILED, CloneState.ADOPTED)


def remove(app: App, wanted: Sequence[str | None], *, force: bool = False, dry_run: bool = False) -> RemoveResult:
    """Move clones to the trash, each on its own; a refusal keeps that one and the rest goes on.

    Raises NoSuchClone before anything is changed when a name is unknown.
    """
    return remove_each(app, [app.require_clone(name) for name in dict.fromkeys(wanted)], force=force, dry_run=dry_run)


def remove_each(app: App, clones: Sequence[CloneRecord], *, force: bool = False, dry_run: bool = False) -> RemoveResult:
    """`remove`, of clones that are known already."""
    app.prepare_state()
    _ = app.config_dirs  # Refused now, where it cannot be told, and not half way.
    if not dry_run:
        recovery.recover(app)
    removed, left = [], []
    inside = None if dry_run else permission.find(app)
    noted = {"together": journal.new_operation_id()}
    for clone in clones:
        try:
            permission.require_own(inside, clone)
            removed.append(remove_one(app, clone, force=force, dry_run=dry_run, noted=noted))
        except KhloneError as error:
            left.append(kept(clone.name, error))
    return RemoveResult(removed=removed, kept=left)


def kept(name: str, error: KhloneError) -> Kept:
    """The clone of that name, which stays as it is, and why."""
    return Kept(name=name, code=error.code, message=error.message, exit_code=error.exit_code, hint=error.hint)


def remove_one(
    app: App, clone: CloneRecord, *, force: bool, dry_run: bool, stop: bool = True, noted: dict[str, str] | None = None
) -> Removed:
    """Move one clone to the trash; raises what keeps it.

    Without `stop` not even `force` ends processes. `noted` goes into the journal too, for `undo`:
    the operation that this `undoes`, and what it is done `together` with.
    """
    with journal.held(app, clone.id, clone.name) as lock:
        current = app.registry.clone_by_id(clone.id)
        if current is None or current.state not in REMOVABLE:
            state = current.state if current else "gone"
            raise CloneNotReady(clone.name, state, current.reason if current else None)
        clone = current
        _require_idle(app, clone, force=force and stop, dry_run=dry_run)
        now = plan_remove(app, clone, force=force)
        for note in _staying(clone, now.changes):
            app.told(note)
        if dry_run:
            return Removed(name=clone.name, trash=now.trash, branch_deleted=now.delete_branch)
        if app.plugins.has("khlone_pre_cleanup"):
            app.plugins.pre_cleanup(journal.as_clone(clone, head=now.head), now)
            _require_idle(app, clone, force=force and stop, dry_run=False)
            now = plan_remove(app, clone, force=force, trash=now.trash)
        written: dict[str, object] = {
            "operation": now.trash,
            "clone": journal.to_json(clone),
            "state": clone.state.value,
            "head": now.head,
            "delete_branch": now.delete_branch,
            "untracked": len(now.changes.untracked),
            "ignored": list(now.changes.ignored[:1000]),
            **(noted or {}),
        }
        with app.registry.transaction() as change:
            change.move_clone(clone, CloneState.REMOVING)
            change.begin_operation(journal.operation(OperationKind.REMOVE, clone, written))
        try:
            with files.explained(clone.path):
                faults.point("remove.reserved")
                messages = _advance(app, written, lock)
        except (KhloneError, OSError):
            if not _take_back(app, clone, now.trash, lock):
                app.told(f"warning: {clone.name} is half in the trash; the next command, or doctor --fix, goes on")
            raise
    for message in (*messages, *_kept_notes(app, clone, now)):
        app.told(message)
    app.tell_problems(app.plugins.post_cleanup(journal.as_clone(clone, head=now.head)))
    faults.point("remove.finished")
    return Removed(name=clone.name, trash=now.trash, branch_deleted=_is_gone(app, clone, now))


def _is_gone(app: App, clone: CloneRecord, plan: RemovePlan) -> bool:
    return plan.delete_branch and app.repository.read_ref(clone.ref) is None


# -- planning ------------------------------------------------------------------------------


def plan_remove(app: App, clone: CloneRecord, *, force: bool, trash: str | None = None) -> RemovePlan:
    """What removing the clone would do; raises HasChanges, NotIntegrated or CloneNotReady without `force`."""
    tip = app.repository.read_ref(clone.ref)
    status = _look(app, clone, force=force)
    stashes = changes.stashes_of(app, clone)
    if not force:
        at_work.require_free_index(app, clone)
        under_way = at_work.under_way(app, clone)
        if status.changes.uncommitted or under_way or stashes:
            error = HasChanges(clone.name, [*under_way, *status.changes.uncommitted], stashes)
            if under_way:
                error.hint = f"finish or abort it in {clone.path}, or `git khlone remove --force {clone.name}`"
            raise error
    if not force:
        whereabouts.require_known(app, clone)
    integrated = _is_integrated(app, clone, tip)
    beside = None
    if status.head not in (None, tip) and not _is_integrated(app, clone, status.head):
        beside = astray.find(app, clone, worktrees.read_entry(undo.admin_path(app, clone)))
        if not force:
            raise _not_integrated(app, clone, status.head, beside)
    if not force and not integrated:
        raise _not_integrated(app, clone, cast("str", tip))
    if beside is not None and beside.commits:
        app.told(f"the worktree of {clone.name} {beside.told}: restore brings them back")
    return RemovePlan(
        trash=trash or journal.new_operation_id(),
        head=tip or status.head or clone.base,
        changes=values.replace(status.changes, stashes=stashes),
        delete_branch=clone.branch_owned and integrated and tip is not None,
        force=force,
    )


def _staying(clone: CloneRecord, found: Changes) -> list[str]:
    """What is no reason to refuse, or is consented to, and is not in the way of a user's eyes: where it stays."""
    notes = []
    if found.ignored:
        first = found.ignored[:_LISTED]
        left = len(found.ignored) - len(first)
        listed = ", ".join(f"{names.shown(name)} ({_weight(clone.path / name)})" for name in first)
        more = f" and {left} more" if left else ""
        notes.append(f"the ignored files of {clone.name} stay with it in the trash: {listed}{more}")
    if found.stashes:
        notes.append(f"the stashes of its branch stay in git, for every worktree: {names.listed(found.stashes)}")
    return notes


def _weight(path: Path) -> str:
    """What a file or a folder takes on disk, as far as a look at it that takes no time can tell."""
    try:
        size = os.lstat(path).st_blocks * 512
    except OSError:
        return "gone"
    if path.is_symlink() or not path.is_dir():
        return names.sized(size)
    below, seen = files.measure(path, _WEIGHED)
    return f"{'more than ' if seen >= _WEIGHED else ''}{names.sized(size + below)}"


def _look(app: App, clone: CloneRecord, *, force: bool) -> changes.Status:
    """HEAD and changes of a worktree, as far as they can be told; what cannot be judged needs `force`."""
    admin = undo.admin_path(app, clone)
    unknown = changes.Status(head=None, branch=None, changes=Changes())
    why = f"{clone.path} is not its worktree any more"
    if not files.exists(clone.path):
        return changes.read_index(app, admin) if files.exists(admin) else unknown
    if worktrees.is_linked(clone.path, admin):
        try:
            status = changes.read_status(app, clone.path, ignored=True)
            return values.replace(status, changes=changes.uncounted(clone, status.changes))
        except GitFailed:
            why = f"git cannot read {clone.path}"
    if not force:
        raise CloneNotReady(clone.name, "broken", why)
    return unknown


def _is_integrated(app: App, clone: CloneRecord, oid: str | None) -> bool:
    return oid is None or oid == clone.base or integration.prove(app, clone, oid) is not None


def _not_integrated(app: App, clone: CloneRecord, tip: str, beside: astray.Astray | None = None) -> NotIntegrated:
    is_gone = targets.is_gone(app, clone)
    since = f"refs/heads/{clone.target}" if clone.target and not is_gone else clone.base
    done = app.repository.git("rev-list", "--count", f"{since}..{tip}", check=False)
    commits = int(done.text) if done.status == 0 else None
    way_out = targets.way_out(app, [clone]) if is_gone else None
    first = None if beside is None else astray.way_back(clone, beside)
    told = None if beside is None else f"its worktree {beside.told}"
    return NotIntegrated(clone.name, clone.target, commits, first=first, way_out=way_out, beside=told)


def processes_in(app: App, clone: CloneRecord) -> list[str]:
    """What runs in a clone, khlone itself and its callers aside, for people."""
    found, elsewhere = _lasting(app, clone)
    return [*(str(process) for process in found), *elsewhere]


def _lasting(app: App, clone: CloneRecord) -> tuple[list[sessions.FoundProcess], list[str]]:
    """The same without a git that only looks, as that of a `list` beside this does: it is gone in a moment."""
    found, elsewhere = _processes(app, clone)
    deadline = time.monotonic() + _LOOK_S
    while found and all(process.name == "git" for process in found) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        again, _ = _processes(app, clone)
        found = [process for process in found if process in again]
    return found, elsewhere


def _processes(app: App, clone: CloneRecord) -> tuple[list[sessions.FoundProcess], list[str]]:
    """The processes in a clone, and those out of sight, which can only be told."""
    if copied.original_admin(clone, undo.admin_path(app, clone)) is not None:
        return [], []  # What runs there runs in a clone of the repository that this one is a copy of.
    found = sessions.processes_inside(clone.path)
    elsewhere = []
    for session in app.registry.live_sessions(clone.id):
        place = sessions.out_of_sight(session.owner)
        if not standing.may_live(session):
            continue
        if place is not None:
            elsewhere.append(f"pid {session.owner.pid} {place}")
        else:
            found += sessions.session_processes(session.owner, known={process.pid for process in found})
            found += _escaped(session, known={process.pid for process in found})
            known = {process.pid for process in found}
            found += [process for process in sessions.led_by(session.owner) if process.pid not in known]
    known = {process.pid for process in found}
    # What has moved elsewhere still has the clone's mark in its environment.
    hidden = (member.pid for member in capacity.members({clone.id: clone.path}) if member.pid not in known)
    found += [process for pid in hidden if (process := sessions.find_process(pid)) is not None]
    return found, elsewhere


def _escaped(session: SessionRecord, *, known: set[int]) -> list[sessions.FoundProcess]:
    """What a session has started that has left its tree, but is still below who sees the session through."""
    if session.supervisor is None or not sessions.may_live(session.supervisor):
        return []
    token = sessions.environment_of(session.supervisor.pid).get(SUPERVISES, "")
    pids = attending.below(token, session.supervisor.pid) or [] if token else []
    return [process for pid in pids if pid not in known and (process := sessions.find_process(pid)) is not None]


def _require_idle(app: App, clone: CloneRecord, *, force: bool, dry_run: bool) -> None:
    found, elsewhere = _processes(app, clone) if force else _lasting(app, clone)
    if force:
        for far in elsewhere:
            app.told(f"warning: {far} may still work in {clone.name}; it cannot be ended from here")
        for process in found:
            app.told(f"{'would end' if dry_run else 'ending'} {process} in {clone.name}")
        if not dry_run:
            for session in ending.stop_all(app, clone):
                app.told(f"ended session {session.id} of {clone.name}: {' '.join(session.command)}")
            isolation_left.end(app, clone)
            # Those that it has started meanwhile too.
            found += [one for one in _processes(app, clone)[0] if one not in found]
        found, elsewhere = [] if dry_run else sessions.end_processes(found), []
    if found or elsewhere:
        raise SessionLive(clone.name, [*(str(process) for process in found), *elsewhere])


def _kept_notes(app: App, clone: CloneRecord, plan: RemovePlan) -> list[str]:
    """Which branch stays, and why, for people."""
    branch = names.shown(clone.branch)
    if app.repository.read_ref(clone.ref) is None:
        return []
    if not clone.branch_owned:
        return [f"branch {branch} stays: khlone did not make it"]
    where = names.shown(clone.target) if clone.target else "any other branch"
    why = "it moved or is checked out elsewhere" if plan.delete_branch else f"it has commits that are not in {where}"
    return [f"branch {branch} is kept: {why}"]


# -- executing -----------------------------------------------------------------------------


def trash_folder(app: App, clone_id: str, trash_id: str) -> Path:
    """Where the worktree and the admin folder of a removed clone lie."""
    return app.state_dir / "trash" / clone_id / trash_id


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a removal whose process died."""
    return _advance(app, operation.plan, lock, outcome=Outcome.RECOVERED)


def _advance(app: App, plan: object, lock: HeldLock, *, outcome: Outcome = Outcome.DONE) -> list[str]:
    """Every step from the journal entry to the commit point; each does nothing when it is done already."""
    written = cast("dict[str, object]", plan)
    clone = journal.from_json(cast("dict[str, object]", written["clone"]), CloneState.REMOVING)
    trash_id, head = str(written["operation"]), str(written["head"])
    messages: list[str] = []
    folder = trash_folder(app, clone.id, trash_id)
    files.make_private_dir(folder.parent)
    files.make_private_dir(folder)
    ref = f"refs/khlone/trash/{clone.id}/{trash_id}"
    undo.clear_stale_locks(app, [app.location.common_dir / f"{ref}.lock"], trash_id)
    submodules.hand_over(app, clone, lock)
    kept = app.repository.read_ref(ref) or snapshot.take(app, clone, head, ref, folder, lock)
    faults.point("remove.snapshot")

    _move_worktree(app, clone, folder, trash_id, messages)
    faults.point("remove.worktree-moved")
    moving = undo.staged_path(app, clone).with_name(f"{clone.id}.moving")
    files.move_tree(undo.admin_path(app, clone), folder / "admin", aside=moving)
    faults.point("remove.admin-moved")
    app.config_dirs.trash(clone.id, trash_id)
    faults.point("remove.config-moved")
    deleted = _delete_refs(app, clone, head, lock, trash_id, delete_branch=bool(written["delete_branch"]))
    faults.point("remove.refs")

    record = TrashRecord(
        id=trash_id,
        clone=clone,
        removed_at=utc_now(),
        head=head,
        snapshot=kept,
        branch_deleted=deleted,
        bytes=files.tree_size(folder),
        holds=_holds(app, folder, head, written),
    )
    files.write_atomic(folder / "meta.json", json.dumps(trash_meta(record)).encode() + b"\n")
    lock.verify()
    with app.registry.transaction() as change:
        change.move_clone(clone, CloneState.TRASHED)
        change.insert_trash(record)
        change.end_operation(trash_id, outcome)
    faults.point("remove.trashed")
    return messages


def _take_back(app: App, clone: CloneRecord, trash_id: str, lock: HeldLock) -> bool:
    """Put a removal that failed back to where it began; False leaves it to recovery.

    Only while the clone's refs are as they were and what was moved can be renamed back.
    """
    try:
        if app.repository.read_ref(clone.marker_ref) is None or not _move_back(app, clone, trash_id):
            return False
        folder = trash_folder(app, clone.id, trash_id)
        ref = f"refs/khlone/trash/{clone.id}/{trash_id}"
        found = app.repository.read_ref(ref)
        if found is not None:
            gone = RefUpdate(ref=ref, new=null_oid(found), old=found)
            app.repository.update_refs([gone], reason="khlone: remove failed", keep_open=[lock.descriptor])
        lock.verify()
        with app.registry.transaction() as change:
            change.move_clone(values.replace(clone, state=CloneState.REMOVING), clone.state, reason=clone.reason)
            change.end_operation(trash_id, Outcome.ROLLED_BACK, "it failed before it was done")
    except (KhloneError, OSError):
        return False
    with contextlib.suppress(KhloneError, OSError):
        files.remove_tree(folder)
        os.rmdir(folder.parent)
    return True


def _move_back(app: App, clone: CloneRecord, trash_id: str) -> bool:
    """Rename the parts of a clone back from the trash, the last first; says whether all of it is there again."""
    folder, aside = trash_folder(app, clone.id, trash_id), _aside(clone, trash_id)
    copied = files.exists(aside)
    moving = undo.staged_path(app, clone).with_name(f"{clone.id}.moving")
    if files.exists(moving) or (copied and files.exists(folder / "worktree")):
        return False  # On two file systems: a copy may be whole, and what it was made of have begun to go.
    app.config_dirs.restore(clone.id, trash_id)
    if files.exists(folder / "admin"):
        files.rename_new(folder / "admin", undo.admin_path(app, clone))
    moved = aside if copied else folder / "worktree"
    if files.exists(moved):
        clone.path.parent.mkdir(parents=True, exist_ok=True)
        files.rename_new(moved, clone.path)
    return not any(files.exists(folder / part) for part in ("worktree", "admin"))


def trash_meta(record: TrashRecord) -> dict[str, object]:
    """What lies beside a trashed worktree, so that a lost registry can be rebuilt."""
    return {
        "clone": journal.to_json(record.clone),
        "trash": record.id,
        "removed_at": record.removed_at,
        "head": record.head,
        "snapshot": record.snapshot,
        "branch_deleted": record.branch_deleted,
        "bytes": record.bytes,
        "holds": [record.holds.tracked, record.holds.untracked, record.holds.ignored],
    }


def _move_worktree(app: App, clone: CloneRecord, folder: Path, trash_id: str, messages: list[str]) -> None:
    aside = _aside(clone, trash_id)
    target = folder / "worktree"
    if files.exists(aside) or worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        files.move_tree(clone.path, target, aside=aside)
        undo.drop_empty_parent(clone)
    elif files.exists(clone.path) and not files.exists(target):
        messages.append(f"{clone.path} was left alone: it is not the worktree of {clone.name} any more")


def _aside(clone: CloneRecord, trash_id: str) -> Path:
    """Where a worktree waits while it is copied to a trash on another file system."""
    return clone.path.with_name(f".{clone.path.name}.khlone-{trash_id}")


def _delete_refs(
    app: App, clone: CloneRecord, head: str, lock: HeldLock, trash_id: str, *, delete_branch: bool
) -> bool:
    """Drop the marker, and the branch where it still is at `head`; says whether the branch is gone."""
    common = app.location.common_dir
    undo.clear_stale_locks(
        app, [common / f"{clone.marker_ref}.lock", common / f"{clone.ref}.lock", common / "packed-refs.lock"], trash_id
    )
    marker = app.repository.read_ref(clone.marker_ref)
    updates = []
    if marker is not None:
        updates.append(RefUpdate(ref=clone.marker_ref, new=null_oid(marker), old=marker))
    tip = app.repository.read_ref(clone.ref)
    if delete_branch and tip == head and not _checked_out(app, clone):
        updates.append(RefUpdate(ref=clone.ref, new=null_oid(head), old=head))
    if updates:
        app.repository.update_refs(updates, reason=f"khlone: remove {clone.name}", keep_open=[lock.descriptor])
    return delete_branch and app.repository.read_ref(clone.ref) is None


def _checked_out(app: App, clone: CloneRecord) -> bool:
    return any(ref == clone.ref for ref, _, _ in app.checkouts())


def _holds(app: App, folder: Path, head: str, written: dict[str, object]) -> Holds:
    listed = app.repository.git("ls-tree", "-r", "-z", "--name-only", head, check=False)
    ignored = 0
    for name in cast("list[str]", written["ignored"]):
        place = folder / "worktree" / name
        ignored += sum(len(found) for _, _, found in os.walk(place)) if place.is_dir() else 1
    return Holds(tracked=listed.stdout.count(b"\0"), untracked=int(cast("int", written["untracked"])), ignored=ignored)
