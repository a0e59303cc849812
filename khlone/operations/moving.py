"""How does a branch go to another commit, forward or back, together with the worktree that has it checked out?

Under the landing lock of the branch, with the whole move in the journal first: whoever is
killed when, the branch and its checkout end at the old commit or at the new one. The
tip that a branch leaves behind is kept under `refs/khlone/undo/<operation>`.
"""

from __future__ import annotations

from collections.abc import Mapping

from khlone.app import App
from khlone.errors import KhloneError, TargetMoved
from khlone.locks import HeldLock
from khlone.operations import changes, landing, undo
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One branch from `old` to `new`.

    `leaves` says that `new` does not contain `old`; `worktree` is where the branch was
    checked out when the journal was written.
    """

    operation: str
    branch: str
    old: str
    new: str
    reason: str
    leaves: bool
    worktree: str | None = None

    def as_json(self) -> dict[str, object]:
        """The move as the journal keeps it; `from_plan` reads it back."""
        return {
            "operation": self.operation,
            "branch": self.branch,
            "old": self.old,
            "new": self.new,
            "reason": self.reason,
            "leaves": self.leaves,
            "worktree": self.worktree,
        }


def from_plan(plan: Mapping[str, object]) -> Move:
    """The move that a plan of the journal holds."""
    worktree = plan["worktree"]
    return Move(
        operation=str(plan["operation"]),
        branch=str(plan["branch"]),
        old=str(plan["old"]),
        new=str(plan["new"]),
        reason=str(plan["reason"]),
        leaves=bool(plan["leaves"]),
        worktree=None if worktree is None else str(worktree),
    )


def contains(app: App, later: str, earlier: str) -> bool:
    """Whether one commit is in the history of another."""
    return app.repository.git("merge-base", "--is-ancestor", earlier, later, check=False).status == 0


def require_clean(app: App, branch: str, old: str, new: str) -> landing.Checkout | None:
    """Where the branch is checked out, `None` when nowhere.

    Raises TargetDirty or TargetInProgress when its files cannot follow without touching local work.
    """
    checkout = landing.find_checkout(app, branch)
    if checkout is not None:
        landing.require_clean(app, branch, checkout, landing.path_changes(app, old, new))
    return checkout


def carry_out(app: App, move: Move, checkout: landing.Checkout | None, lock: HeldLock) -> bool:
    """Move branch and checkout; False, with nothing changed, when the branch is not at `old` any more.

    Called under the landing lock, with the journal written. What fails half way is put
    back; `is_untouched` says whether that was possible.
    """
    try:
        return _land(app, move, checkout, lock)
    except Exception as error:
        if checkout is not None and not landing.is_before_any_change(error, checkout):
            _put_back(app, move, checkout, lock)
        raise


def carry_out_kept(app: App, move: Move, checkout: landing.Checkout | None, lock: HeldLock) -> None:
    """`carry_out` after `keep`; where nothing is left of a move that failed, its operation is forgotten.

    Raises what `carry_out` raises, and TargetMoved for a branch that is not at `old` any more.
    """
    try:
        done = carry_out(app, move, checkout, lock)
    except Exception as error:
        if is_settled(app, move, checkout, error):
            _forget(app, move, lock)
        raise
    if not done:
        _forget(app, move, lock)
        raise TargetMoved(move.branch, 1)


def _forget(app: App, move: Move, lock: HeldLock) -> None:
    drop(app, move, lock)
    with app.registry.transaction() as change:
        change.forget_operation(move.operation)


def _land(app: App, move: Move, checkout: landing.Checkout | None, lock: HeldLock) -> bool:
    return landing.land(
        app,
        move.branch,
        move.old,
        move.new,
        checkout,
        lock,
        reason=move.reason,
    )


def _put_back(app: App, move: Move, checkout: landing.Checkout, lock: HeldLock) -> None:
    if _tip(app, move) != move.old or is_untouched(app, move, checkout):
        return
    try:
        landing.clear_locks_of_the_dead(app, move.branch, checkout, move.operation)
        landing.restore_half_applied(app, move.branch, move.old, move.new, checkout, lock)
    except KhloneError as problem:
        app.told(f"warning: {landing.explain(problem)}; `git khlone doctor --fix` goes on")


def is_settled(app: App, move: Move, checkout: landing.Checkout | None, error: Exception) -> bool:
    """Whether nothing is left to do after a `carry_out` that raised; else recovery must look at it."""
    if checkout is not None and not landing.is_before_any_change(error, checkout) and landing.left_its_lock(checkout):
        return False
    return is_untouched(app, move, checkout)


def is_untouched(app: App, move: Move, checkout: landing.Checkout | None) -> bool:
    """Whether branch and checkout are as if nothing had been done."""
    if _tip(app, move) != move.old:
        return False
    if checkout is None:
        return True
    touched = {change.path for change in landing.path_changes(app, move.old, move.new)}
    status = changes.read_status(app, checkout.worktree)
    return not touched & set(status.changes.uncommitted)


def resume(app: App, move: Move, lock: HeldLock) -> bool:
    """Finish a move whose process died; False when the branch moved on without it."""
    with app.locks.landing(move.branch, told=app.told):
        undo.clear_stale_locks(app, [app.location.common_dir / f"refs/heads/{move.branch}.lock"], move.operation)
        tip = _tip(app, move)
        checkout = landing.find_checkout(app, move.branch)
        here = checkout is not None and str(checkout.worktree) == move.worktree
        if checkout is not None and here:
            landing.clear_locks_of_the_dead(app, move.branch, checkout, move.operation)
        if tip == move.old:
            if checkout is not None and here:
                landing.restore_half_applied(app, move.branch, move.old, move.new, checkout, lock)
            elif checkout is not None:
                landing.require_clean(app, move.branch, checkout, landing.path_changes(app, move.old, move.new))
            done = _land(app, move, checkout, lock)
        else:
            done = tip is not None and _has_happened(app, move, tip)
            if checkout is not None and here and not done:
                landing.take_back(app, move.branch, move.old, move.new, checkout, lock)
    if done:
        landing.make_durable(app, checkout)
    return done


def _has_happened(app: App, move: Move, tip: str) -> bool:
    """Whether the branch went to `new` and from there on to where it is."""
    if tip == move.new:
        return True
    if not contains(app, tip, move.new):
        return False
    return not move.leaves or not contains(app, tip, move.old)


def _tip(app: App, move: Move) -> str | None:
    return app.repository.read_ref(f"refs/heads/{move.branch}")


# -- what is left behind ---------------------------------------------------------------------


def kept_ref(operation_id: str) -> str:
    """The ref that keeps the tip which a branch left behind."""
    return f"refs/khlone/undo/{operation_id}"


def keep(app: App, move: Move, lock: HeldLock) -> str | None:
    """Keep the commit that the branch leaves, if it does, from collection; may be repeated."""
    if not move.leaves:
        return None
    ref = kept_ref(move.operation)
    undo.clear_stale_locks(app, [app.location.common_dir / f"{ref}.lock"], move.operation)
    if app.repository.read_ref(ref) is None:
        fresh = RefUpdate(ref=ref, new=move.old, old=null_oid(move.old))
        app.repository.update_refs([fresh], reason="khlone: kept for undo", keep_open=[lock.descriptor])
    return ref


def drop(app: App, move: Move, lock: HeldLock) -> None:
    """Let what `keep` kept go again, since the branch never left it."""
    ref = kept_ref(move.operation)
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{ref}.lock", common / "packed-refs.lock"], move.operation)
    found = app.repository.read_ref(ref)
    if found is not None:
        gone = RefUpdate(ref=ref, new=null_oid(found), old=found)
        app.repository.update_refs([gone], reason="khlone: nothing to undo", keep_open=[lock.descriptor], check=False)
