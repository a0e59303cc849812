"""How do the branches of clones come back to their target, one after the other?

Computed in the object database, gated on the exact commit, landed by compare-and-swap;
a target that moved meanwhile means computing again. Nobody's checkout is where a merge is
computed, and the clone's own branch and worktree never change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import cast

from khlone import faults, files, values
from khlone.app import App
from khlone.errors import GitFailed, KhloneError, MergeConflict, NothingToMerge, QueuePaused, TargetMoved
from khlone.locks import HeldLock
from khlone.model import (
    Candidate,
    CloneRecord,
    CloneState,
    Held,
    Landed,
    MergeResult,
    OperationKind,
    Outcome,
    Strategy,
)
from khlone.operations import (
    candidates,
    changes,
    commit_hooks,
    journal,
    landing,
    leaving,
    offer,
    queue,
    queue_recovery,
    recovery,
    submodules,
    targets,
    undo,
    upstream,
)
from khlone.operations import landed as landings
from khlone.operations.gates import Gates, required_but_missing
from khlone.operations.offer import MergeRequest
from khlone.records import QueueEntry, QueueState
from khlone.registry import Operation
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass

#: Each lost race means that somebody else landed, so this many at once still all land.
MOST_TRIES = 200
MOST_TIME_S = 120.0
#: A candidate that took longer to build than this is not built while others wait for their turn.
MOST_IN_TURN_S = 2.0

#: A clone that did not land, and why.
_Left = tuple[CloneRecord, Held]


def merge(app: App, request: MergeRequest) -> MergeResult:
    """Land each named clone in turn; one that cannot is held, and the rest goes on.

    Raises NoSuchClone, NoTarget, NoSuchRef, TargetMismatch or UsageError before anything
    is changed.
    """
    clones = [app.require_clone(name) for name in dict.fromkeys(request.names)]
    if not clones:
        return _nothing(app, request.into)
    target, old = targets.require(app, clones, offer.common_target(clones, request.into))
    app.prepare_state()
    gates = Gates(app) if request.gate and not request.dry_run else None
    completed: list[queue_recovery.Completed] = []
    if not request.dry_run:
        found = recovery.recover(app, ask=True)
        queue_recovery.require_settled(app, target)
        completed = queue_recovery.completed(app, [one.operation for one in found if one.outcome is not None])
    pushed = not request.dry_run and offer.is_pushed(app, request)
    if pushed:
        upstream.require(app, target)
    clones, done = queue_recovery.without(app, clones, completed)
    result = _land_all(app, clones, target, old, request, gates, pushed=pushed)
    return queue_recovery.with_completed(app, result, done, remove=request.remove)


def _land_all(
    app: App,
    clones: Sequence[CloneRecord],
    target: str,
    old: str,
    request: MergeRequest,
    gates: Gates | None,
    *,
    pushed: bool,
) -> MergeResult:
    if (gates is not None and (gates.is_there or app.settings.gate_required)) or request.detach or pushed:
        return _through_the_queue(app, clones, target, old, request, gates or Gates(app))
    landed: list[_Landing] = []
    left: list[_Left] = []
    for number, clone in enumerate(clones):
        app.progress(number, len(clones), f"merging {clone.name}")
        try:
            with files.explained(app.location.common_dir):
                if request.dry_run:
                    tip = landed[-1].candidate.oid if landed else None
                    landed.append(_try_one(app, clone, target, tip, request))
                else:
                    landed.append(_merge_one(app, clone, target, request))
        except KhloneError as error:
            if isinstance(error, MergeConflict):
                before = [(one.candidate.clone, one.candidate.source) for one in landed]
                error.facts["partners"] = candidates.clashing(app, clone.ref, before)
            left.append((clone, _as_held(clone, error)))
            if isinstance(error, NothingToMerge) and not request.dry_run:
                landings.note(app, clone.id, target)
    result = _result(app, target, old, [one.told() for one in landed], [one for _, one in left], gated=False)
    if not request.dry_run:
        _after(app, landed, left, result)
        if request.remove:
            result = leaving.remove_landed(app, [one.clone for one in landed], result)
    return result


def _nothing(app: App, into: str | None) -> MergeResult:
    """The answer where no clone is ready."""
    target, old = landing.require_branch(app, into or app.settings.target or app.repository.default_branch() or "HEAD")
    return _result(app, target, old, [], [], gated=False)


def _result(
    app: App, target: str, old: str, landed: Sequence[Landed], held: Sequence[Held], *, gated: bool
) -> MergeResult:
    new = app.repository.read_ref(f"refs/heads/{target}") or old
    return MergeResult(target=target, old=old, new=new, gated=gated, landed=landed, held=held)


def _through_the_queue(
    app: App, clones: Sequence[CloneRecord], target: str, old: str, request: MergeRequest, gates: Gates
) -> MergeResult:
    """Put them all in line and see to it that they land, together with whatever waits there."""
    entries: list[tuple[QueueEntry, bool]] = []
    held: list[Held] = []
    for clone in clones:
        try:
            with files.explained(app.location.common_dir):
                entries.append(queue.add(app, clone, target, request))
        except KhloneError as error:
            held.append(_as_held(clone, error))
    done = [] if request.detach or not entries else _settled(app, target, entries, gates)
    landed = [entry for entry in done if entry.state is QueueState.LANDED]
    held += [_held_in_queue(entry) for entry in done if entry.ended_at and entry.state is not QueueState.LANDED]
    held += [_as_held(entry, QueuePaused(target)) for entry in done if entry.ended_at is None]
    order = [clone.name for clone in clones]
    held.sort(key=lambda one: order.index(one.name))
    by_name = {clone.name: clone for clone in clones}
    tell_held(app, [(by_name[one.name], one) for one in held])
    told = [
        Landed(name=entry.name, strategy=entry.strategy, oid=entry.oid or "", resolved_by=entry.resolved_by)
        for entry in landed
    ]
    result = values.replace(
        _result(app, target, old, told, held, gated=bool(landed) and all(entry.gated for entry in landed)),
        pushed=upstream.require(app, target).shown if landed and all(entry.push for entry in landed) else None,
        notes=tuple(dict.fromkeys(note for entry in done for note in entry.notes)),
    )
    return leaving.remove_landed(app, [by_name[one.name] for one in landed], result) if request.remove else result


def _settled(app: App, target: str, entries: Sequence[tuple[QueueEntry, bool]], gates: Gates) -> list[QueueEntry]:
    """What became of entries; those of a queue that rests are still in line."""
    try:
        return queue.settle(app, target, entries, gates)
    except QueuePaused:
        return queue.by_id(app, [entry.id for entry, _ in entries])


def _held_in_queue(entry: QueueEntry) -> Held:
    if entry.state is QueueState.HELD:
        return Held(
            name=entry.name,
            code=entry.code or "",
            message=entry.message or "",
            paths=entry.paths,
            partners=entry.partners,
            exit_code=1 if entry.exit_code is None else entry.exit_code,
            hint=entry.hint,
        )
    how = "a newer entry took its place" if entry.state is QueueState.SUPERSEDED else "it was taken out of the queue"
    return Held(name=entry.name, code="not-queued", message=f"{entry.name} did not land: {how}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Landing:
    """One clone that has landed, or would."""

    clone: CloneRecord
    candidate: Candidate

    def told(self) -> Landed:
        made = self.candidate
        return Landed(name=self.clone.name, strategy=made.strategy, oid=made.oid, resolved_by=made.resolved_by)


def _after(app: App, landed: Sequence[_Landing], left: Sequence[_Left], result: MergeResult) -> None:
    for one in landed:
        merged = values.replace(one.clone, state=CloneState.MERGED, merged_head=one.candidate.source)
        app.tell_problems(app.plugins.post_merge(journal.as_clone(merged, head=one.candidate.source), result))
    tell_held(app, left)


def tell_held(app: App, left: Sequence[_Left]) -> None:
    """Tell plugins who did not land."""
    if left and app.plugins.has("khlone_held"):
        for clone, held in left:
            now = app.registry.clone_by_id(clone.id) or clone
            app.tell_problems(app.plugins.held(journal.as_clone(now, head=app.repository.read_ref(now.ref)), held))


def _as_held(clone: CloneRecord | QueueEntry, error: KhloneError) -> Held:
    return Held(
        name=clone.name,
        code=error.code,
        message=error.message,
        paths=error.listed("paths"),
        partners=error.listed("partners"),
        exit_code=error.exit_code,
        hint=error.hint,
    )


# -- one clone -------------------------------------------------------------------------------


def _merge_one(app: App, clone: CloneRecord, target: str, request: MergeRequest) -> _Landing:
    if app.settings.gate_required:
        raise required_but_missing(clone.name, left_out=not request.gate)
    with journal.held(app, clone.id, clone.name) as lock:
        current, source = offer.prepare(app, clone, target, None, request)
        return _land_one(app, current, target, source, request, lock)


def _try_one(app: App, clone: CloneRecord, target: str, tip: str | None, request: MergeRequest) -> _Landing:
    """What would land, on `tip` where others would have landed before; nothing is changed."""
    with journal.held(app, clone.id, clone.name):
        current, source = offer.prepare(app, clone, target, tip, request)
        old = tip or offer.tip_of(app, target)
        candidate = candidates.build(app, current, target, old, source, request.strategy, verify=request.verify)
        checkout = landing.find_checkout(app, target)
        if checkout is not None:
            landing.require_clean(app, target, checkout, landing.path_changes(app, old, candidate.oid))
        return _Landing(clone=current, candidate=candidate)


def _land_one(
    app: App, clone: CloneRecord, target: str, source: str, request: MergeRequest, lock: HeldLock
) -> _Landing:
    attempt = Attempt(app=app, clone=clone, lock=lock, operation_id=journal.new_operation_id())
    started = time.monotonic()
    tries = 0
    in_turn = False
    while tries < MOST_TRIES and time.monotonic() - started < MOST_TIME_S:
        tries += 1
        try:
            tried = _try_to_land(attempt, target, source, request, in_turn=in_turn)
        except Exception:
            attempt.give_up()
            raise
        if isinstance(tried, _Landing):
            faults.point("merge.finished")
            return tried
        attempt.give_up()
        in_turn = tried < MOST_IN_TURN_S and not app.settings.gpg_sign and not commit_hooks.are_there(app)
    raise TargetMoved(target, tries)


def _try_to_land(
    attempt: Attempt, target: str, source: str, request: MergeRequest, *, in_turn: bool
) -> _Landing | float:
    """Build a candidate and land it; how many seconds building took, when the target moved meanwhile.

    With `in_turn` it is built while nobody else lands: who lost a race once does not
    build commits in vain again.
    """
    app, clone = attempt.app, attempt.clone
    with contextlib.ExitStack() as held:
        turn = held.enter_context(app.locks.landing(target, told=app.told)) if in_turn else None
        started = time.monotonic()
        tip = offer.tip_of(app, target)
        candidate = candidates.build(app, clone, target, tip, source, request.strategy, verify=request.verify)
        took_s = time.monotonic() - started
        if turn is None:
            faults.point("merge.computed")
        if turn is None:
            submodules.hand_over(app, clone, attempt.lock)
            turn = held.enter_context(app.locks.landing(target, told=app.told))
        checkout = landing.find_checkout(app, target)
        if not _publish(attempt, candidate, checkout, turn):
            return took_s
    landing.make_durable(app, checkout)
    attempt.close(candidate)
    faults.point("merge.merged")
    return _Landing(clone=clone, candidate=candidate)


@dataclasses.dataclass(slots=True, kw_only=True)
class Attempt:
    """One try to land one clone: its journal entry is open from the gate, or the publishing, on."""

    app: App
    clone: CloneRecord
    lock: HeldLock
    operation_id: str
    is_open: bool = False
    stuck: bool = False

    def enter(self, candidate: Candidate, checkout: landing.Checkout | None) -> None:
        """Write the plan: the clone is MERGING from here on."""
        written: dict[str, object] = {
            "operation": self.operation_id,
            "clone": journal.to_json(self.clone),
            "target": candidate.target,
            "strategy": candidate.strategy.value,
            "old": candidate.old,
            "new": candidate.oid,
            "source": candidate.source,
            "verify": candidate.verify,
            "state": self.clone.state.value,
            "worktree": None if checkout is None else str(checkout.worktree),
        }
        self.lock.verify()
        with self.app.registry.transaction() as change:
            change.move_clone(self.clone, CloneState.MERGING)
            change.begin_operation(journal.operation(OperationKind.MERGE, self.clone, written, step="publishing"))
        self.is_open = True

    def close(self, candidate: Candidate) -> None:
        """The commit point: it has landed."""
        with self.app.registry.transaction() as change:
            change.move_clone(self.clone, CloneState.MERGED, from_states=(CloneState.MERGING,))
            change.note_merged(self.clone.id, candidate.source)
            change.end_operation(self.operation_id, Outcome.DONE)
        self.is_open = False

    def give_up(self) -> None:
        """Nothing landed: the clone is what it was, and the journal forgets the attempt."""
        if not self.is_open or self.stuck:
            return
        with self.app.registry.transaction() as change:
            change.move_clone(self.clone, self.clone.state, from_states=(CloneState.MERGING,))
            change.forget_operation(self.operation_id)
        self.is_open = False


def _publish(attempt: Attempt, candidate: Candidate, checkout: landing.Checkout | None, turn: HeldLock) -> bool:
    """Land the candidate where its target still is at `old`; False when it moved. `turn` is the landing lock."""
    app = attempt.app
    if app.repository.read_ref(f"refs/heads/{candidate.target}") != candidate.old:
        return False
    if checkout is not None:
        paths = landing.path_changes(app, candidate.old, candidate.oid)
        landing.require_clean(app, candidate.target, checkout, paths)
    turn.verify()
    attempt.enter(candidate, checkout)
    faults.point("merge.publishing")
    try:
        done = landing.land(app, candidate.target, candidate.old, candidate.oid, checkout, attempt.lock)
    except Exception as error:
        is_lost = _is_lost(app, candidate.old, candidate.oid)
        if is_lost:
            candidate = _made_again(app, attempt.clone, candidate)
        attempt.stuck = not _put_back(attempt, candidate, checkout, error)
        if is_lost and not attempt.stuck:
            return False
        raise
    except BaseException:
        attempt.stuck = True
        raise
    attempt.stuck = done
    if done:
        faults.point("merge.published")
    return done


def _is_lost(app: App, old: str, new: str) -> bool:
    """Whether a collection took what was to land, since nothing points at it yet."""
    return app.repository.git("diff-tree", "-r", "--quiet", old, new, check=False).status not in (0, 1)


def _made_again(app: App, clone: CloneRecord, lost: Candidate) -> Candidate:
    """A candidate of the very same content."""
    return candidates.build(app, clone, lost.target, lost.old, lost.source, lost.strategy, verify=lost.verify)


def _put_back(attempt: Attempt, candidate: Candidate, checkout: landing.Checkout | None, error: BaseException) -> bool:
    """After a landing that raised: undo what a failed git left half applied; False leaves it to recovery."""
    app = attempt.app
    if app.repository.read_ref(f"refs/heads/{candidate.target}") != candidate.old:
        return False
    if checkout is None or landing.is_before_any_change(error, checkout):
        return True
    if landing.left_its_lock(checkout):
        return False
    try:
        if isinstance(error, GitFailed) and _was_killed(error):
            landing.clear_locks_of_the_dead(app, candidate.target, checkout, attempt.operation_id)
        if _is_half_applied(app, checkout, candidate):
            landing.restore_half_applied(app, candidate.target, candidate.old, candidate.oid, checkout, attempt.lock)
    except KhloneError as problem:
        app.told(f"warning: {landing.explain(problem)}; `git khlone doctor --fix` goes on")
        return False
    return True


def _is_half_applied(app: App, checkout: landing.Checkout, candidate: Candidate) -> bool:
    status = changes.read_status(app, checkout.worktree, tracked_only=True)
    touched = {change.path for change in landing.path_changes(app, candidate.old, candidate.oid)}
    return bool(touched & set(status.changes.uncommitted))


def _was_killed(error: GitFailed) -> bool:
    status = error.facts["exit"]
    return isinstance(status, int) and status < 0


# -- recovery --------------------------------------------------------------------------------


def recover(app: App, operation: Operation, lock: HeldLock) -> list[str]:
    """Finish a landing whose process died: the target ends at `old` or at `new`, never between."""
    plan = operation.plan
    clone = journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState.MERGING)
    target, old, new = str(plan["target"]), str(plan["old"]), str(plan["new"])
    _drop_pin(app, operation.id, lock)
    before = CloneState(str(plan.get("state", CloneState.READY)))
    if operation.step == "gating":
        with app.registry.transaction() as change:
            change.move_clone(clone, before)
            change.end_operation(operation.id, Outcome.ROLLED_BACK, "its process ended while gates ran")
        return [f"{clone.name} was not landed; it can be merged again"]
    with app.locks.landing(target, told=app.told):
        undo.clear_stale_locks(app, [app.location.common_dir / f"refs/heads/{target}.lock"], operation.id)
        if app.repository.read_ref(f"refs/heads/{target}") == old and _is_lost(app, old, new):
            strategy, verify = Strategy(str(plan["strategy"])), plan.get("verify") is not False
            new = candidates.build(app, clone, target, old, str(plan["source"]), strategy, verify=verify).oid
        landed = _finish_landing(app, plan, target, old, new, operation.id, lock)
    if landed:
        landing.make_durable(app, landing.find_checkout(app, target))
    lock.verify()
    with app.registry.transaction() as change:
        if landed:
            change.move_clone(clone, CloneState.MERGED)
            change.note_merged(clone.id, str(plan["source"]))
            change.end_operation(operation.id, Outcome.RECOVERED)
        else:
            change.move_clone(clone, before)
            change.end_operation(operation.id, Outcome.ROLLED_BACK, "the target moved on without it")
    return [f"{clone.name} landed on {target}" if landed else f"{target} moved on; {clone.name} can be merged again"]


def _finish_landing(
    app: App, plan: Mapping[str, object], target: str, old: str, new: str, operation_id: str, lock: HeldLock
) -> bool:
    tip = app.repository.read_ref(f"refs/heads/{target}")
    checkout = landing.find_checkout(app, target)
    if tip == old:
        if checkout is not None and str(checkout.worktree) == plan["worktree"]:
            landing.clear_locks_of_the_dead(app, target, checkout, operation_id)
            landing.restore_half_applied(app, target, old, new, checkout, lock)
        elif checkout is not None:
            landing.require_clean(app, target, checkout, landing.path_changes(app, old, new))
        return landing.land(app, target, old, new, checkout, lock)
    if tip is None:
        return False
    contained = app.repository.git("merge-base", "--is-ancestor", new, tip, check=False)
    if checkout is not None:
        landing.clear_locks_of_the_dead(app, target, checkout, operation_id)
        if contained.status != 0 and str(checkout.worktree) == plan["worktree"]:
            landing.take_back(app, target, old, new, checkout, lock)
    return contained.status == 0


def _drop_pin(app: App, operation_id: str, lock: HeldLock) -> None:
    ref = f"refs/khlone/ops/{operation_id}"
    pinned = app.repository.read_ref(ref)
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{ref}.lock"], operation_id)
    if pinned is not None:
        undo.clear_stale_locks(app, [common / "packed-refs.lock"], operation_id)
        app.repository.update_refs(
            [RefUpdate(ref=ref, new=null_oid(pinned), old=pinned)],
            reason="khlone: gate",
            keep_open=[lock.descriptor],
            check=False,
        )
