"""How does a clone get another name, with its branch and its folder?

The registry knows the new name, branch and folder from the journal entry on, and
everything follows, forward only: the new branch beside the old one, the HEAD that had the
old, the old branch away by compare-and-swap, its settings, the folder, the admin folder's
pointers. The reflog moves along. At no moment is HEAD on a branch that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from khlone import faults, files, values, worktrees
from khlone.app import App
from khlone.errors import (
    BranchExists,
    CloneExists,
    CloneNotReady,
    KhloneError,
    NameCollides,
    PathTaken,
    SessionLive,
    UsageError,
)
from khlone.locks import HeldLock
from khlone.model import CloneRecord, CloneState, NewRequest, OperationKind, Outcome
from khlone.operations import create, journal, landing, names, permission, recovery, remove, undo
from khlone.registry import Operation, folded
from khlone.repository import RefUpdate, failure, null_oid
from khlone.values import dataclass

RENAMABLE = (CloneState.READY, CloneState.MERGED, CloneState.ADOPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenamePlan:
    """Every name, path and oid of a rename; `tip` is the branch's, `None` where that keeps its name."""

    operation: str
    old: CloneRecord
    new: CloneRecord
    tip: str | None
    notes: tuple[str, ...] = ()

    def as_json(self, undoes: str | None) -> dict[str, object]:
        """The plan as the journal keeps it."""
        return {
            "operation": self.operation,
            "old": journal.to_json(self.old),
            "clone": journal.to_json(self.new),
            "state": self.old.state.value,
            "tip": self.tip,
            "undoes": undoes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed:
    """The clone before and after, and what had to be different from what one may expect."""

    operation: str
    old: CloneRecord
    new: CloneRecord
    notes: tuple[str, ...]


def rename(
    app: App, old: str, new: str, *, keep_path: bool = False, dry_run: bool = False, undoes: str | None = None
) -> Renamed:
    """Give a clone another name, its branch too where khlone made it under the old name.

    The folder follows where the old name gave it, unless `keep_path`. Raises IllegalName,
    NoSuchClone, CloneExists, NameCollides, BranchExists, CloneNotReady, and SessionLive
    when processes would lose their folder. `undoes` is the operation that this takes back.
    """
    clone = app.require_clone(old)
    names.check(new)
    app.prepare_state()
    if not dry_run:
        permission.require_own(permission.find(app), clone, "rename")
        recovery.recover(app)
    with journal.held(app, clone.id, clone.name) as lock:
        plan = plan_rename(app, clone.id, new, keep_path=keep_path)
        written = plan.as_json(undoes)
        notes = plan.notes
        if not dry_run:
            with app.registry.transaction() as change:
                _require_free(plan.new, change.clones())
                change.move_clone(plan.old, plan.old.state, reason=plan.old.reason)
                change.rename_clone(clone.id, name=plan.new.name, branch=plan.new.branch, path=plan.new.path)
                change.begin_operation(journal.operation(OperationKind.RENAME, plan.new, written))
            with files.explained(plan.new.path):
                faults.point("rename.reserved")
                notes += tuple(_advance(app, written, lock))
            faults.point("rename.finished")
    found = app.registry.clone_by_id(clone.id)
    after = plan.new if dry_run or found is None else found
    if not dry_run and app.plugins.has("khlone_renamed"):
        head = app.repository.read_ref(after.ref)
        app.tell_problems(app.plugins.renamed(journal.as_clone(after, head=head), plan.old.name))
    return Renamed(operation=plan.operation, old=plan.old, new=after, notes=notes)


# -- planning ------------------------------------------------------------------------------


def plan_rename(app: App, clone_id: str, name: str, *, keep_path: bool) -> RenamePlan:
    """What the rename would do; changes nothing."""
    clone = app.registry.clone_by_id(clone_id)
    if clone is None or clone.state not in RENAMABLE:
        raise CloneNotReady(clone.name if clone else clone_id, clone.state if clone else "gone")
    if clone.name == name:
        raise UsageError(f"{name} has that name already")
    create.require_free_name(app, name)
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree")
    what = worktrees.in_progress(admin)
    if what is not None:
        busy = CloneNotReady(clone.name, f"in the middle of a {what}")
        busy.hint = f"finish or abort it in {clone.path}"
        raise busy
    tip = _tip_to_rename(app, clone, name)
    branch = clone.branch if tip is None else name
    path, notes = clone.path, []
    if not keep_path and create.is_chosen_path(app, clone):
        if files.exists(admin / "modules"):
            notes.append(f"{clone.path} stays where it is: it has submodules, which know their place")
        else:
            path = _new_path(app, clone, name, branch)
    if path != clone.path:
        found = remove.processes_in(app, clone)
        if found:
            error = SessionLive(clone.name, found)
            error.hint = "end them, or leave the folder where it is with --keep-path"
            raise error
    return RenamePlan(
        operation=journal.new_operation_id(),
        old=clone,
        new=values.replace(clone, name=name, branch=branch, path=path),
        tip=tip,
        notes=tuple(notes),
    )


def _new_path(app: App, clone: CloneRecord, name: str, branch: str) -> Path:
    request = NewRequest(name=name, branch=branch, target=clone.target, agent=clone.agent)
    try:
        return create.choose_path(app, request, branch, clone.id)
    except PathTaken as error:
        if error.facts["path"] == str(clone.path):
            return clone.path  # A plugin that does not go by names.
        raise


def _tip_to_rename(app: App, clone: CloneRecord, name: str) -> str | None:
    """The tip of the branch if it goes by the clone's name and is khlone's to rename; `None` lets it keep its own."""
    if not clone.branch_owned or clone.branch != clone.name:
        return None
    landing.require_branch(app, clone.branch)
    tip = app.repository.read_ref(clone.ref)
    taken = app.repository.colliding_refs(name)
    if name in taken:
        raise BranchExists(name)
    if taken:
        raise NameCollides(name, taken[0])
    return tip


def _require_free(clone: CloneRecord, others: list[CloneRecord]) -> None:
    """Raise when another command was faster to one of the names."""
    for other in others:
        if other.id == clone.id:
            continue
        if other.name == clone.name or other.path == clone.path:
            raise CloneExists(other.name, other.path)
        if folded(other.name) == folded(clone.name) or other.branch == clone.branch:
            raise NameCollides(clone.name, other.name)


# -- executing -----------------------------------------------------------------------------


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a rename whose process died."""
    return _advance(app, operation.plan, lock, outcome=Outcome.RECOVERED)


def _advance(app: App, plan: Mapping[str, object], lock: HeldLock, *, outcome: Outcome = Outcome.DONE) -> list[str]:
    """Every step from the journal entry to the commit point; each does nothing when it is done already."""
    state = CloneState(str(plan["state"]))
    old = journal.from_json(cast("Mapping[str, object]", plan["old"]), state)
    new = journal.from_json(cast("Mapping[str, object]", plan["clone"]), state)
    operation = str(plan["operation"])
    notes: list[str] = []
    if plan["tip"] is not None:
        with app.locks.landing(old.branch, told=app.told):
            notes += _rename_branch(app, old, new, operation, lock)
        notes += _rename_settings(app, old.branch, new.branch, lock)
    faults.point("rename.configured")
    new = values.replace(new, path=_move_worktree(old, new, operation, notes))
    faults.point("rename.worktree")
    _point_admin(app, old, new)
    faults.point("rename.admin")
    lock.verify()
    with app.registry.transaction() as change:
        change.rename_clone(new.id, name=new.name, branch=new.branch, path=new.path)
        if new.branch != old.branch:
            change.retarget(old.branch, new.branch)
        change.end_operation(operation, outcome)
    faults.point("rename.renamed")
    return notes


def _rename_branch(app: App, old: CloneRecord, new: CloneRecord, operation: str, lock: HeldLock) -> list[str]:
    """What `git branch -m` does, in an order that can be repeated and that leaves no HEAD without its branch."""
    common = app.location.common_dir
    stale = [common / f"{ref}.lock" for ref in (old.ref, new.ref)]
    undo.clear_stale_locks(app, [*stale, common / "packed-refs.lock"], operation)
    tip = app.repository.read_ref(old.ref)
    reason = f"Branch: renamed {old.ref} to {new.ref}"
    if tip is not None and app.repository.read_ref(new.ref) is None:
        _copy_reflog(app, old, new)
        _update(app, new.ref, tip, null_oid(tip), reason, lock)
    faults.point("rename.branch-made")
    for _, worktree, git_dir in list(app.checkouts()):
        on_old = worktrees.branch_of(worktrees.read_head(git_dir)) == old.ref
        if on_old and worktree.is_dir() and app.repository.read_ref(new.ref) is not None:
            undo.clear_stale_locks(app, [git_dir / "HEAD.lock"], operation)
            app.repository.git("symbolic-ref", "-m", reason, "HEAD", new.ref, cwd=worktree, writes=True)
    faults.point("rename.head")
    notes = _drop_old_branch(app, old, new, reason, lock)
    faults.point("rename.branch-gone")
    return notes


def _copy_reflog(app: App, old: CloneRecord, new: CloneRecord) -> None:
    logs = app.location.common_dir / "logs"
    content = files.read_regular(logs / old.ref, most=256 << 20)
    if content is not None:
        (logs / new.ref).parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(logs / new.ref, content, mode=0o666)


def _drop_old_branch(app: App, old: CloneRecord, new: CloneRecord, reason: str, lock: HeldLock) -> list[str]:
    """Delete the old branch where the new one has all of it: a commit that came meanwhile is taken along first."""
    tip, there = app.repository.read_ref(old.ref), app.repository.read_ref(new.ref)
    if tip is None or there is None:
        return []
    contained = app.repository.git("merge-base", "--is-ancestor", tip, there, check=False).status == 0
    if not contained and app.repository.git("merge-base", "--is-ancestor", there, tip, check=False).status == 0:
        _update(app, new.ref, tip, there, reason, lock)
        contained = True
    if contained:
        gone = RefUpdate(ref=old.ref, new=null_oid(tip), old=tip)
        done = app.repository.update_refs([gone], reason=reason, keep_open=[lock.descriptor], check=False)
        if done.status == 0:
            return []
    return [f"branch {names.shown(old.branch)} is kept: it moved while it was renamed"]


def _update(app: App, ref: str, oid: str, old: str, reason: str, lock: HeldLock) -> None:
    app.repository.update_refs([RefUpdate(ref=ref, new=oid, old=old)], reason=reason, keep_open=[lock.descriptor])


def _rename_settings(app: App, old: str, new: str, lock: HeldLock) -> list[str]:
    """Let `branch.<name>.*` follow, as far as it is there; what keeps it is said, and keeps nothing else."""
    arguments = ("config", "--local", "--rename-section", f"branch.{old}", f"branch.{new}")
    done = app.repository.git(*arguments, writes=True, keep_open=[lock.descriptor], check=False)
    if done.status == 0 or "no such section" in done.error_text:
        return []
    why = names.shown(failure(arguments, done).message)
    return [f"the settings of branch.{old} stay: {why}; later: git config --rename-section branch.{old} branch.{new}"]


def _move_worktree(old: CloneRecord, new: CloneRecord, operation: str, notes: list[str]) -> Path:
    """Move the folder, and return where it is: one that cannot be moved stays, and that is said."""
    if new.path == old.path:
        return new.path
    try:
        new.path.parent.mkdir(parents=True, exist_ok=True)
        aside = old.path.with_name(f".{old.path.name}.khlone-{operation}")
        files.move_tree(old.path, new.path, aside=aside)
    except (OSError, KhloneError) as error:
        if not files.exists(old.path):
            raise
        notes.append(f"{old.path} stays where it is: {error}")
        return old.path
    undo.drop_empty_parent(old)
    return new.path


def _point_admin(app: App, old: CloneRecord, new: CloneRecord) -> None:
    admin = undo.admin_path(app, new)
    entry = worktrees.read_entry(admin)
    if entry is None:
        return
    if entry.worktree != new.path:
        worktrees.point_at(admin, new.path)
    worktrees.write_marker(admin, journal.to_json(new))
    if entry.locked == create.lock_reason(old):
        files.write_atomic(admin / "locked", os.fsencode(f"{create.lock_reason(new)}\n"), mode=0o666)
