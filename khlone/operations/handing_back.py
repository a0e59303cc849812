"""How is a conflict laid out in the clone's own worktree, for whoever works there to settle?

As git itself does it: `git merge` or `git rebase` of the target in the clone, with the
user's conflict style, filters and rerere, which stops where the two sides meet. What is
settled there is committed by the owner, never by khlone. A worktree with changes is left
alone, so that `git merge --abort` or `git rebase --abort` gives back what was there. It is
in the journal while git works: what a killed git has left half done is told, and nobody's to throw away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from khlone import faults, worktrees
from khlone.app import App
from khlone.errors import CloneDirty, KhloneError, TargetMoved
from khlone.locks import HeldLock
from khlone.model import CloneRecord, CloneState, OperationKind
from khlone.operations import advance, changes, journal, undo
from khlone.registry import Operation
from khlone.repository import failure

#: The step of an operation while git lays a conflict out.
STEP = "conflict"


def lay_out(
    app: App, clone: CloneRecord, other: str, lock: HeldLock, *, rebase: bool, without: str | None = None
) -> Sequence[str]:
    """Bring the ref `other` into the clone until git stops at a conflict; returns the paths that are left to settle.

    None are left where rerere knew every answer. The caller holds the clone's lock and has
    seen that it is on its branch, idle and without changes. `without` is what of the branch
    is not put on top in a rebase. Raises CloneDirty, with nothing changed, where an untracked
    file is in the way, TargetMoved where there is no conflict any more, or GitFailed.
    """
    written = {"operation": journal.new_operation_id(), "clone": journal.to_json(clone), "other": other}
    operation = journal.operation(OperationKind.SYNC, clone, written, step=STEP)
    with app.registry.transaction() as change:
        change.begin_operation(operation)
    faults.point("sync.conflict-noted")
    try:
        left = _lay_out(app, clone, other, lock, rebase=rebase, without=without)
    except (CloneDirty, TargetMoved):
        _forget(app, operation)
        raise
    except KhloneError as error:
        _explain(app, clone, operation, lock, error, rebase=rebase)
        raise
    faults.point("sync.conflict-laid-out")
    _forget(app, operation)
    return left


def _explain(
    app: App, clone: CloneRecord, operation: Operation, lock: HeldLock, error: KhloneError, *, rebase: bool
) -> None:
    """Say of a git that failed or was killed what it has left; the operation stays open while that is half done."""
    try:
        recover(app, operation, lock)
    except KhloneError as half:
        error.message += f"; {half.message}"
        return
    if worktrees.in_progress(undo.admin_path(app, clone)) is not None:
        error.message += f"; what it has begun waits in {clone.path}"
        error.hint = f"in {clone.path}: git {'rebase' if rebase else 'merge'} --abort takes it back"
    else:
        error.message += f"; {clone.name} is as it was"


def _forget(app: App, operation: Operation) -> None:
    with app.registry.transaction() as change:
        change.forget_operation(operation.id)


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """See what became of a conflict whose khlone died; raises CloneDirty while it is neither laid out nor gone."""
    clone = journal.from_json(cast("Mapping[str, object]", operation.plan["clone"]), CloneState.READY)
    admin = undo.admin_path(app, clone)
    undo.clear_stale_locks(app, [admin / "index.lock", admin / "HEAD.lock"], operation.id)
    what = worktrees.in_progress(admin)
    if what is None and worktrees.is_linked(clone.path, admin):
        left = changes.read_status(app, clone.path, tracked_only=True).changes.uncommitted
        if left:
            error = CloneDirty(clone.name, left)
            error.message += (
                f"; git was killed while it laid out a conflict in {clone.path}: look at it, then git reset --hard"
            )
            raise error
    lock.verify()
    with app.registry.transaction() as change:
        change.forget_operation(operation.id)
    return [f"a conflict waits in {clone.path}" if what else f"{clone.name} is as it was; it can be synced again"]


def _lay_out(
    app: App, clone: CloneRecord, other: str, lock: HeldLock, *, rebase: bool, without: str | None
) -> Sequence[str]:
    words = _rebase(other, without) if rebase else ["merge", "--no-commit", "--no-ff", "--no-autostash", other]
    done = app.repository.git(*words, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False, hooks=True)
    admin = undo.admin_path(app, clone)
    if worktrees.in_progress(admin) is None:
        in_the_way = advance.paths_in_the_way(done.error_text)
        if in_the_way:
            raise CloneDirty(clone.name, in_the_way)
        if done.status != 0:
            raise failure(words, done, where=clone.path)
        raise TargetMoved(clone.target or other, 1)
    if done.status < 0:
        raise failure(words, done, where=clone.path)
    if done.status == 0:
        _abort(app, clone.path, words[0], lock)
        raise TargetMoved(clone.target or other, 1)
    return changes.read_status(app, clone.path, tracked_only=True).changes.unmerged


def how_to_go_on(clone: CloneRecord, *, rebase: bool) -> str:
    """What the owner types next, and what takes it all back."""
    what = "rebase" if rebase else "merge"
    return (
        f"in {clone.path}: settle it, git add, git {what} --continue, then git khlone merge {clone.name}; "
        f"git {what} --abort takes it back"
    )


def _rebase(other: str, without: str | None) -> list[str]:
    words = ["rebase", "--no-autostash", "--no-update-refs"]
    return [*words, other] if without is None else [*words, "--onto", other, without]


def _abort(app: App, worktree: Path, what: str, lock: HeldLock) -> None:
    app.repository.git(what, "--abort", cwd=worktree, writes=True, keep_open=[lock.descriptor])
