"""How does a linked worktree that khlone did not make become a clone?

git's admin folder keeps its name and its content; khlone adds its marker, a lock reason
where there is none, a marker ref and a config dir. The branch stays its owner's: khlone
never deletes it. Until the commit point each step is taken back, by this process or by
recovery. A clone whose record was lost is taken up again as what its marker says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from khlone import discovery, faults, files, values, worktrees
from khlone.app import App
from khlone.errors import (
    CloneExists,
    CloneNotReady,
    DetachedHead,
    IllegalName,
    MainWorktree,
    NotARepository,
    OtherRepository,
    RepositoryUnsupported,
    UnbornHead,
)
from khlone.locks import HeldLock
from khlone.model import Clone, CloneRecord, CloneState, Isolation, NewRequest, OperationKind, Outcome, utc_now
from khlone.operations import agent_dirs, agents, create, journal, names, recovery, undo
from khlone.profiles import AgentProfile
from khlone.ref_files import is_oid
from khlone.registry import Operation
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass
from khlone.worktrees import AdminEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptRequest:
    """What `adopt` was asked for; a name that is not given is made from the branch, else from the folder."""

    path: Path
    name: str | None = None
    target: str | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptPlan:
    """What an adoption is about to do.

    `state` is the clone's afterwards; `with_lock` says that the worktree is locked by it,
    `healed` that a clone whose record was lost is taken up again.
    """

    operation: str
    clone: CloneRecord
    profile: AgentProfile
    state: CloneState
    with_lock: bool
    healed: bool

    def as_json(self) -> dict[str, object]:
        """The plan as the journal keeps it."""
        return {
            "operation": self.operation,
            "clone": journal.to_json(self.clone),
            "state": self.state.value,
            "with_lock": self.with_lock,
            "healed": self.healed,
        }


def adopt(app: App, request: AdoptRequest) -> Clone:
    """Make a clone of an existing linked worktree, whose files, index and branch stay as they are.

    Raises NotARepository, MainWorktree, OtherRepository, DetachedHead, CloneExists and
    what `new` raises about names, targets and agents; nothing is left of a failed one.
    """
    app.prepare_state()
    recovery.recover(app)
    plan = plan_adopt(app, request)
    clone = plan.clone
    app.plugins.pre_create(NewRequest(name=clone.name, branch=clone.branch, target=clone.target, agent=clone.agent))
    with journal.held(app, clone.id, clone.name) as lock:
        with app.registry.transaction() as change:
            change.reserve_clone(clone)
            change.begin_operation(journal.operation(OperationKind.ADOPT, clone, plan.as_json()))
        try:
            with files.explained(clone.path):
                faults.point("adopt.reserved")
                _advance(app, plan, lock)
        except BaseException as error:
            _abort(app, plan, lock, error)
            raise
        faults.point("adopt.adopted")
    adopted = values.replace(clone, state=plan.state)
    app.tell_problems(app.plugins.post_create(journal.as_clone(adopted)))
    faults.point("adopt.finished")
    return journal.as_clone(adopted, head=app.repository.read_ref(clone.ref))


# -- planning ------------------------------------------------------------------------------


def plan_adopt(app: App, request: AdoptRequest) -> AdoptPlan:
    """Resolve the request into names and oids; changes nothing."""
    entry = _require_entry(app, request.path)
    path = cast("Path", entry.worktree)
    known = next((clone for clone in app.registry.clones() if clone.admin == entry.name), None)
    if known is not None:
        raise CloneExists(known.name, known.path)
    lost = _lost(app, entry)
    agent = request.agent or (lost.agent if lost is not None else None) or app.settings.agent
    profile = agents.require_profile(app, agent)
    branch, tip = _branch(app, entry, path)
    clone_id = lost.id if lost is not None else journal.new_clone_id()
    config_dir = app.config_dirs.config_path(clone_id, agent)
    if lost is not None:
        clone = values.replace(
            lost,
            name=request.name or lost.name,
            branch=branch,
            branch_owned=lost.branch_owned and lost.branch == branch,
            target=request.target or lost.target,
            path=path,
            admin=entry.name,
            agent=agent,
            config_dir=config_dir,
        )
    else:
        target = create.choose_target(app, NewRequest(name="", target=request.target), branch)
        clone = CloneRecord(
            id=clone_id,
            name=request.name or _name(branch, path),
            branch=branch,
            branch_owned=False,
            target=target,
            base=_base(app, target, tip),
            path=path,
            admin=entry.name,
            state=CloneState.CREATING,
            agent=agent,
            isolation=Isolation.CONFIG,
            config_dir=config_dir,
            created_at=utc_now(),
        )
    names.check(clone.name)
    create.require_free_name(app, clone.name)
    made_here = lost is not None and entry.name.endswith(f"-{clone_id[:8]}")
    return AdoptPlan(
        operation=journal.new_operation_id(),
        clone=clone,
        profile=profile,
        state=CloneState.READY if made_here else CloneState.ADOPTED,
        with_lock=entry.locked is None,
        healed=lost is not None,
    )


def _require_entry(app: App, path: Path) -> AdminEntry:
    """The admin folder of the linked worktree that a path lies in."""
    if not path.is_dir():
        raise NotARepository(path)
    kept = {name: value for name, value in app.environment.items() if not name.startswith("GIT_")}
    found = discovery.discover(path, kept)
    if found.common_dir != app.location.common_dir:
        raise OtherRepository(path, found.common_dir)
    if found.git_dir == found.common_dir or found.worktree is None:
        raise MainWorktree(found.worktree or path)
    entry = worktrees.read_entry(found.git_dir)
    if entry is None or entry.worktree is None:
        raise NotARepository(path)
    if entry.problem is not None:
        raise RepositoryUnsupported(f"{entry.path}: {entry.problem}", hint="git worktree repair may mend it")
    if os.path.realpath(entry.worktree) != os.fspath(found.worktree):
        raise RepositoryUnsupported(
            f"{entry.path} belongs to {entry.worktree}", hint=f"git worktree repair {found.worktree}"
        )
    return values.replace(entry, worktree=found.worktree)


def _lost(app: App, entry: AdminEntry) -> CloneRecord | None:
    """The clone that a marker tells of and that the registry does not know."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        found = journal.from_json(entry.marker or {}, CloneState.CREATING)
        if app.registry.clone_by_id(found.id) is None:
            return found
    return None


def _branch(app: App, entry: AdminEntry, path: Path) -> tuple[str, str]:
    ref = entry.branch
    if not app.repository.has_ref_files:
        ref = app.repository.git("symbolic-ref", "--quiet", "HEAD", cwd=path, check=False).text.strip() or None
    if ref is None:
        raise DetachedHead(path)
    what = worktrees.in_progress(entry.path)
    if what is not None:
        raise CloneNotReady(path.name, f"in the middle of a {what}")
    tip = app.repository.read_ref(ref)
    if tip is None:
        raise UnbornHead
    return ref.removeprefix("refs/heads/"), tip


def _name(branch: str, path: Path) -> str:
    for candidate in (branch, path.name):
        with contextlib.suppress(IllegalName):
            names.check(candidate)
            return candidate
    return branch


def _base(app: App, target: str | None, tip: str) -> str:
    """Where the branch left its target; its tip where that cannot be told, so that nothing counts as its own."""
    if target is None:
        return tip
    found = app.repository.git("merge-base", f"refs/heads/{target}", tip, check=False).text.strip()
    return found if is_oid(found) else tip


# -- executing -----------------------------------------------------------------------------


def _advance(app: App, plan: AdoptPlan, lock: HeldLock) -> None:
    clone, durable = plan.clone, app.settings.durable
    admin = undo.admin_path(app, clone)
    if app.repository.read_ref(clone.marker_ref) is None:
        fresh = RefUpdate(ref=clone.marker_ref, new=clone.base, old=null_oid(clone.base))
        app.repository.update_refs([fresh], reason=f"khlone: adopt {clone.name}", keep_open=[lock.descriptor])
    faults.point("adopt.refs")
    config_dir = app.config_dirs.config_path(clone.id, plan.profile.name)
    if not files.exists(config_dir):
        if files.exists(app.config_dirs.clone_path(clone.id)):
            files.make_private_dir(config_dir)
        else:
            app.config_dirs.publish(clone.id, plan.operation, plan.profile.name, durable=durable)
        faults.point("adopt.config-dir")
        agent_dirs.fill(app, clone, plan.profile, config_dir)
    if not worktrees.is_linked(clone.path, admin):
        # The link is a relative one: everything else here compares it with the whole path.
        files.write_atomic(clone.path / ".git", worktrees.link_content(admin), mode=0o666, durable=durable)
    worktrees.write_marker(admin, journal.to_json(clone), durable=durable)
    if plan.with_lock:
        files.write_atomic(admin / "locked", f"{create.lock_reason(clone)}\n".encode(), mode=0o666, durable=durable)
    faults.point("adopt.admin")
    lock.verify()
    with app.registry.transaction() as change:
        change.move_clone(clone, plan.state)
        change.end_operation(plan.operation, Outcome.DONE)


def _abort(app: App, plan: AdoptPlan, lock: HeldLock, error: BaseException) -> None:
    try:
        _take_back(app, plan.as_json(), lock, str(error)[:500])
    except Exception as second:  # noqa: BLE001 - the first error is the one to report
        app.told(f"warning: {plan.clone.name} could not be let go yet: {second}; `git khlone doctor --fix` goes on")


def _take_back(app: App, plan: Mapping[str, object], lock: HeldLock, why: str) -> None:
    """Leave the worktree as it was found: what a lost clone had made itself known by stays."""
    clone = journal.from_json(cast("Mapping[str, object]", plan["clone"]), CloneState.CREATING)
    admin, operation = undo.admin_path(app, clone), str(plan["operation"])
    app.config_dirs.discard(clone.id, operation)
    if not plan["healed"]:
        entry = worktrees.read_entry(admin)
        if entry is not None and entry.marker is not None and entry.marker.get("id") == clone.id:
            (admin / worktrees.MARKER).unlink(missing_ok=True)
        if entry is not None and plan["with_lock"] and entry.locked == create.lock_reason(clone):
            (admin / "locked").unlink(missing_ok=True)
        _drop_marker_ref(app, clone, operation, lock)
    faults.point("adopt.undo")
    lock.verify()
    with app.registry.transaction() as change:
        change.end_operation(operation, Outcome.ROLLED_BACK, why)
        change.delete_clone(clone.id)
    app.tell_problems(app.plugins.post_cleanup(journal.as_clone(clone)))


def _drop_marker_ref(app: App, clone: CloneRecord, operation: str, lock: HeldLock) -> None:
    common = app.location.common_dir
    undo.clear_stale_locks(app, [common / f"{clone.marker_ref}.lock", common / "packed-refs.lock"], operation)
    if app.repository.read_ref(clone.marker_ref) == clone.base:
        gone = RefUpdate(ref=clone.marker_ref, new=null_oid(clone.base), old=clone.base)
        app.repository.update_refs([gone], reason="khlone: undo adopt", keep_open=[lock.descriptor])


def recover(app: App, operation: Operation, lock: HeldLock) -> None:
    """Take back an adoption whose process died."""
    _take_back(app, operation.plan, lock, "its process ended")
