"""How does a clone get what its target has meanwhile?

The commit is made in the object database first, so that a conflict changes nothing; only
then the clone's branch goes there, with its worktree (moving.py). A branch all of whose
work the target has already, squashed or not, is marked merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from khlone import faults, files, worktrees
from khlone.app import App
from khlone.errors import (
    CloneDirty,
    CloneNotReady,
    KhloneError,
    MergeConflict,
    NoSuchRef,
    NoTarget,
    NothingToMerge,
    SessionLive,
    TargetDirty,
    TargetInProgress,
    TargetMoved,
    UsageError,
)
from khlone.locks import HeldLock
from khlone.model import CloneRecord, CloneState, OperationKind, Outcome
from khlone.operations import (
    candidates,
    changes,
    fetching,
    handing_back,
    integration,
    journal,
    landing,
    moving,
    recovery,
    remove,
    targets,
    undo,
)
from khlone.operations.moving import Move
from khlone.registry import Operation
from khlone.repository import RefUpdate
from khlone.values import dataclass

SYNCABLE = (CloneState.READY, CloneState.MERGED, CloneState.ADOPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """One clone whose branch has what its target has: from `old` to `new`, the same where it had it already."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsynced:
    """One clone that stays as it was, with the stable code of the reason.

    With `laid_out` the conflict has been brought into its worktree, to be settled there.
    """

    name: str
    code: str
    message: str
    paths: Sequence[str] = ()
    exit_code: int = 1
    hint: str | None = None
    laid_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The outcome of one `sync`."""

    synced: Sequence[Synced]
    kept: Sequence[Unsynced]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """What `sync` was asked for; `rebase` is `None` where the setting decides.

    With `conflict` a conflict is laid out in the clone's worktree.
    """

    names: Sequence[str | None] = ()
    everything: bool = False
    rebase: bool | None = None
    fetch: bool = False
    force: bool = False
    conflict: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The upstream of a target: the ref and its short name, and its tip."""

    ref: str
    name: str
    oid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What a sync is about to do with one clone; the two oids are the same when there is nothing to bring.

    `base` is the new base of a clone without work of its own, `merged` says that the
    target has all of its work.
    """

    target: str
    old: str
    new: str
    base: str | None
    merged: bool


def sync(app: App, request: SyncRequest) -> SyncResult:
    """Bring the target into each named clone, or into all; a refusal keeps that one and the rest goes on.

    Raises NoSuchClone, UsageError, InvalidSetting or, with `fetch`, RemoteFailed, CredentialsMissing
    or Locked before any clone is changed.
    """
    if request.everything and request.names:
        raise UsageError("--all takes every clone, so NAME cannot be given too")
    if request.everything:
        clones = app.registry.clones() if app.has_registry else []
    else:
        clones = [app.require_clone(name) for name in dict.fromkeys(request.names or (None,))]
    rebase = app.settings.sync_by_rebase if request.rebase is None else request.rebase
    app.prepare_state()
    if not request.dry_run:
        recovery.recover(app)
    upstreams = _upstreams(app, clones, dry_run=request.dry_run) if request.fetch else {}
    synced: list[Synced] = []
    kept: list[Unsynced] = []
    for clone in clones:
        try:
            with files.explained(clone.path):
                done = _sync_one(app, clone, request, upstreams, rebase=rebase)
        except KhloneError as error:
            kept.append(_as_kept(clone, error))
            continue
        synced.append(done)
        now = app.registry.clone_by_id(clone.id)
        if done.new != done.old and not request.dry_run and now is not None:
            app.tell_problems(app.plugins.post_sync(journal.as_clone(now, head=done.new)))
    return SyncResult(synced=synced, kept=kept)


def _as_kept(clone: CloneRecord, error: KhloneError) -> Unsynced:
    return Unsynced(
        name=clone.name,
        code=error.code,
        message=error.message,
        paths=error.listed("paths"),
        exit_code=error.exit_code,
        hint=error.hint,
        laid_out=isinstance(error, MergeConflict) and bool(error.facts.get("laid_out")),
    )


def _sync_one(
    app: App, clone: CloneRecord, request: SyncRequest, upstreams: Mapping[str, Upstream], *, rebase: bool
) -> Synced:
    with journal.held(app, clone.id, clone.name) as lock:
        current = app.registry.clone_by_id(clone.id)
        if current is None or current.state not in SYNCABLE:
            raise CloneNotReady(clone.name, current.state if current else "gone", current.reason if current else None)
        upstream = upstreams.get(current.target or "")
        try:
            plan = plan_sync(app, current, upstream, rebase=rebase, force=request.force)
        except MergeConflict as error:
            if request.conflict and not request.dry_run:
                _lay_out(app, current, upstream, error, lock, rebase=rebase, force=request.force)
            raise
        if plan.new != plan.old and not request.dry_run and app.plugins.has("khlone_pre_sync"):
            app.plugins.pre_sync(journal.as_clone(current, head=plan.old))
            plan = plan_sync(app, current, upstream, rebase=rebase, force=request.force)
        faults.point("sync.computed")
        if not request.dry_run:
            if plan.new != plan.old:
                _publish(app, current, plan, lock)
            elif plan.merged:
                _mark_merged(app, current, plan.old)
        return Synced(name=current.name, old=plan.old, new=plan.new)


def _lay_out(
    app: App,
    clone: CloneRecord,
    upstream: Upstream | None,
    error: MergeConflict,
    lock: HeldLock,
    *,
    rebase: bool,
    force: bool,
) -> None:
    """Bring a conflict into the clone's worktree, and say so in the error that told of it."""
    require_on_branch(app, clone)
    if not force:
        require_idle(app, clone)
    other = f"refs/heads/{clone.target}" if upstream is None else upstream.ref
    onto = app.repository.resolve_commit(other)
    # Ignored files in the way too: git would overwrite them, and its way back would delete them.
    require_untouched(app, clone, app.repository.read_ref(clone.ref) or clone.base, onto)
    squashed = candidates.squashed_before(app, clone, clone.target or "", onto)
    try:
        left = handing_back.lay_out(app, clone, other, lock, rebase=rebase, without=squashed)
    except CloneDirty as dirty:
        raise _hinted(dirty, "commit it in the clone or move it away first") from None
    error.facts |= {"paths": list(left), "laid_out": True}
    error.message += f"; it waits in {clone.path}" if left else f"; rerere has settled it in {clone.path}"
    error.hint = handing_back.how_to_go_on(clone, rebase=rebase)


# -- planning ------------------------------------------------------------------------------


def plan_sync(app: App, clone: CloneRecord, upstream: Upstream | None, *, rebase: bool, force: bool) -> SyncPlan:
    """What syncing the clone would do, which nothing stands in the way of; changes nothing."""
    if clone.target is None:
        raise _hinted(NoTarget(clone.name), "nothing is there to sync with")
    if targets.is_gone(app, clone):
        raise _hinted(NoSuchRef(str(clone.target), is_branch=True), targets.way_in(app, clone))
    target, tip = targets.require(app, [clone], clone.target)
    source = app.repository.read_ref(clone.ref)
    if source is None:
        raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
    has_work = source != clone.base
    integrated = has_work and integration.prove(app, clone, source) is not None
    onto = upstream.oid if upstream is not None else tip
    try:
        new = _brought_in(app, clone, target, upstream, onto, source, rebase=rebase)
    except MergeConflict as error:
        if not integrated:
            way = f"git khlone sync --conflict {'--rebase ' if rebase else ''}{clone.name}"
            raise _hinted(error, f"to settle it in the clone: {way}") from None
        new = source
    if new != source:
        _require_workable(app, clone, source, new, force=force)
    return SyncPlan(
        target=target,
        old=source,
        new=new,
        base=None if has_work else new,
        merged=integrated and (new in (source, onto) or integration.prove(app, clone, new) is not None),
    )


def _brought_in(
    app: App,
    clone: CloneRecord,
    target: str,
    upstream: Upstream | None,
    onto: str,
    source: str,
    *,
    rebase: bool,
) -> str:
    if moving.contains(app, source, onto):
        return source
    if moving.contains(app, onto, source):
        return onto
    name = upstream.name if upstream is not None else None
    try:
        return candidates.with_target(app, clone, target, name, onto, source, rebase=rebase)
    except NothingToMerge:
        return onto


def _hinted(error: KhloneError, hint: str) -> KhloneError:
    error.hint = hint
    return error


def _require_workable(app: App, clone: CloneRecord, old: str, new: str, *, force: bool) -> None:
    require_on_branch(app, clone)
    if not force:
        require_idle(app, clone)
    require_untouched(app, clone, old, new)


def require_on_branch(app: App, clone: CloneRecord) -> None:
    """Raise CloneNotReady unless the worktree is there and on the clone's branch, CloneDirty within a rebase."""
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree")
    what = worktrees.in_progress(admin)
    if what is not None:
        raise _hinted(CloneDirty(clone.name, under_way=what), "finish or abort it in the clone")
    if worktrees.branch_of(worktrees.read_head(admin)) != clone.ref:
        error = CloneNotReady(clone.name, "not on its branch", f"git switch {clone.branch} in {clone.path}")
        raise _hinted(error, f"in the clone: git switch {clone.branch}")


def require_idle(app: App, clone: CloneRecord) -> None:
    """Raise SessionLive when processes run in the clone."""
    found = remove.processes_in(app, clone)
    if found:
        raise _hinted(SessionLive(clone.name, found), "wait for them, or say --force")


def require_untouched(app: App, clone: CloneRecord, old: str, new: str) -> landing.Checkout | None:
    """Raise CloneDirty when the clone has changes, or something lies where the new files would."""
    found = changes.read_status(app, clone.path, tracked_only=True).changes.uncommitted
    if found:
        raise _hinted(CloneDirty(clone.name, found), "commit or stash it in the clone first")
    try:
        return moving.require_clean(app, clone.branch, old, new)
    except TargetDirty as error:
        raise _hinted(
            CloneDirty(clone.name, error.listed("paths")), "commit it in the clone or move it away first"
        ) from error
    except TargetInProgress as error:
        raise CloneDirty(clone.name, under_way=error.facts["what"]) from error


# -- the upstream --------------------------------------------------------------------------


def _upstreams(app: App, clones: Sequence[CloneRecord], *, dry_run: bool) -> dict[str, Upstream]:
    """The upstreams that targets can be fast-forwarded to, fetched once for all clones."""
    targets = sorted({clone.target for clone in clones if clone.target is not None})
    found: list[tuple[str, str]] = []
    remotes: dict[str, None] = {}
    for target in targets:
        shown = app.repository.git(
            "for-each-ref", "--format=%(upstream)%00%(upstream:remotename)", f"refs/heads/{target}"
        ).text.splitlines()
        upstream, _, remote = shown[0].partition("\0") if len(shown) == 1 else ("", "", "")
        if not upstream:
            app.told(f"{target} has no upstream: there is nothing to fetch")
            continue
        found.append((target, upstream))
        if remote != ".":
            remotes[remote] = None
    for remote in remotes:
        if dry_run:
            app.told(f"would fetch from {remote}; its branches are taken as they were fetched last")
        else:
            fetching.fetch(app, remote)
    usable = ((target, _usable(app, target, upstream)) for target, upstream in found)
    return {target: upstream for target, upstream in usable if upstream is not None}


def _usable(app: App, target: str, upstream: str) -> Upstream | None:
    """The upstream where it is ahead of the target; where the two have diverged, that is said."""
    name = upstream.removeprefix("refs/remotes/").removeprefix("refs/heads/")
    local, there = app.repository.read_ref(f"refs/heads/{target}"), app.repository.read_ref(upstream)
    if local is None or there is None or moving.contains(app, local, there):
        return None
    if not moving.contains(app, there, local):
        app.told(f"{target} and {name} have diverged: clones are synced with {target} as it is here")
        return None
    return Upstream(ref=upstream, name=name, oid=there)


# -- executing -----------------------------------------------------------------------------


def _mark_merged(app: App, clone: CloneRecord, head: str) -> None:
    if clone.state is CloneState.MERGED and clone.merged_head == head:
        return
    with app.registry.transaction() as change:
        change.move_clone(clone, CloneState.MERGED)
        change.note_merged(clone.id, head)


def _publish(app: App, clone: CloneRecord, plan: SyncPlan, lock: HeldLock) -> None:
    with app.locks.landing(clone.branch, told=app.told) as turn:
        if app.repository.read_ref(clone.ref) != plan.old:
            raise TargetMoved(clone.branch, 1)
        checkout = require_untouched(app, clone, plan.old, plan.new)
        move = Move(
            operation=journal.new_operation_id(),
            branch=clone.branch,
            old=plan.old,
            new=plan.new,
            reason=f"khlone sync: {plan.target}",
            leaves=not moving.contains(app, plan.new, plan.old),
            worktree=None if checkout is None else str(checkout.worktree),
        )
        written: dict[str, object] = {
            **move.as_json(),
            "clone": journal.to_json(clone),
            "state": clone.state.value,
            "target": plan.target,
            "base": plan.base,
            "merged": plan.merged,
        }
        turn.verify()
        lock.verify()
        with app.registry.transaction() as change:
            change.move_clone(clone, clone.state, reason=clone.reason)
            change.begin_operation(journal.operation(OperationKind.SYNC, clone, written))
        faults.point("sync.reserved")
        moving.keep(app, move, lock)
        faults.point("sync.kept")
        moving.carry_out_kept(app, move, checkout, lock)
        faults.point("sync.moved")
    landing.make_durable(app, checkout)
    _settle(app, written, lock, Outcome.DONE)
    faults.point("sync.finished")


def _settle(app: App, plan: Mapping[str, object], lock: HeldLock, outcome: Outcome) -> None:
    """The branch is there: its base, where that moved along, and the commit point."""
    clone = _planned(plan)
    base, new = plan["base"], str(plan["new"])
    if isinstance(base, str):
        mark_base(app, clone, base, lock)
    faults.point("sync.noted")
    lock.verify()
    state = CloneState(str(plan["state"]))
    with app.registry.transaction() as change:
        if isinstance(base, str):
            change.set_base(clone.id, base)
        if plan["merged"]:
            change.move_clone(clone, CloneState.MERGED, from_states=SYNCABLE)
            change.note_merged(clone.id, new)
        else:
            after = CloneState.READY if state is CloneState.MERGED else state
            change.move_clone(clone, after, from_states=SYNCABLE)
        change.end_operation(str(plan["operation"]), outcome)
    faults.point("sync.synced")


def _planned(plan: Mapping[str, object]) -> CloneRecord:
    return journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState(str(plan["state"])))


def mark_base(app: App, clone: CloneRecord, base: str, lock: HeldLock) -> None:
    """Let marker ref and marker file say where the clone's own work begins; may be repeated."""
    found = app.repository.read_ref(clone.marker_ref)
    if found is not None and found != base:
        moved = RefUpdate(ref=clone.marker_ref, new=base, old=found)
        app.repository.update_refs([moved], reason="khlone: sync", keep_open=[lock.descriptor])
    admin: Path = undo.admin_path(app, clone)
    if files.exists(admin):
        worktrees.write_marker(admin, {**journal.to_json(clone), "base": base})


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a sync whose process died: branch and worktree end at the old commit or at the new one."""
    if operation.step == handing_back.STEP:
        return handing_back.recover(app, operation, lock)
    move = moving.from_plan(operation.plan)
    moving.keep(app, move, lock)
    if moving.resume(app, move, lock):
        _settle(app, operation.plan, lock, Outcome.RECOVERED)
        return [f"{operation.name} has what {operation.plan['target']} had"]
    moving.drop(app, move, lock)
    with app.registry.transaction() as change:
        change.end_operation(operation.id, Outcome.ROLLED_BACK, "the branch moved on without it")
    return [f"{operation.name} moved on; it can be synced again"]
