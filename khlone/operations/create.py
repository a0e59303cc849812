"""How does a clone come into being, whole or not at all?

Reserve name and branch in the registry with the whole plan; create branch and marker in
one ref transaction; config dir; admin folder built aside and published by one rename;
worktree folder; checkout outside any lock; hooks; sync; commit point. Until the commit
point every step is undone, by this process or by whoever recovers it (undo.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from khlone import faults, files, values, worktrees
from khlone.app import App
from khlone.errors import (
    BranchCheckedOut,
    BranchExists,
    CloneExists,
    InvalidSetting,
    KhloneError,
    NameCollides,
    NoSuchRef,
    PathTaken,
    UnbornHead,
    UsageError,
)
from khlone.locks import HeldLock
from khlone.model import Clone, CloneRecord, CloneState, NewRequest, OperationKind, Outcome, utc_now
from khlone.operations import (
    agent_dirs,
    agents,
    include,
    isolation,
    journal,
    large_files,
    names,
    recovery,
    remotes,
    submodules,
    undo,
)
from khlone.profiles import AgentProfile
from khlone.registry import folded
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass

#: Fewer files than this are written by one process.
_MANY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePlan:
    """Every name, path and oid of a clone to be made."""

    operation: str
    clone: CloneRecord
    profile: AgentProfile

    def as_json(self) -> dict[str, object]:
        """The plan as the journal keeps it."""
        return {"operation": self.operation, "clone": journal.to_json(self.clone)}


def create(app: App, request: NewRequest, *, together: str | None = None) -> Clone:
    """Make one clone and return it, ready; those with the same `together` are taken back as one.

    Raises IllegalName, CloneExists, BranchExists, BranchCheckedOut, NameCollides,
    NoSuchRef, InvalidSetting, UnbornHead, UnknownAgent, IsolationMissing, UsageError, Refusal or
    what the disk and git say; whatever was made until then is gone again.
    """
    names.check(request.name)
    if not app.state_dir.exists():
        _choose_start(app, request)  # A refusal leaves nothing behind in a repository that has no clones.
    app.prepare_state()
    recovery.recover(app)
    app.plugins.pre_create(request)
    plan = plan_create(app, request)
    clone = plan.clone
    with journal.held(app, clone.id, clone.name) as lock:
        with app.registry.transaction() as change:
            change.reserve_clone(clone)
            written = {**plan.as_json(), "together": together}
            change.begin_operation(journal.operation(OperationKind.CREATE, clone, written))
        try:
            with files.explained(clone.path):
                faults.point("create.reserved")
                clone = _build(app, plan, lock)
        except BaseException as error:
            _abort(app, plan, lock, error)
            raise
    faults.point("create.ready")
    ready = values.replace(clone, state=CloneState.READY)
    app.tell_problems(app.plugins.post_create(journal.as_clone(ready)))
    if app.settings.hooks == "clones":
        from khlone.operations import githooks

        app.tell_problems(githooks.join(app, ready))
    faults.point("create.finished")
    return journal.as_clone(ready)


def create_many(
    app: App, request: NewRequest, count: int, *, made_one: Callable[[Clone], None]
) -> tuple[list[Clone], list[tuple[str, KhloneError]]]:
    """Make NAME-1 to NAME-count; a failure rolls that one back and the rest goes on.

    `made_one` is called with each that is there: it stays, also when the rest is interrupted.
    """
    made: list[Clone] = []
    failed: list[tuple[str, KhloneError]] = []
    together = journal.new_operation_id()
    for number in range(1, count + 1):
        one = values.replace(request, name=f"{request.name}-{number}")
        app.progress(number - 1, count, f"making {one.name}")
        try:
            made.append(create(app, one, together=together))
        except KhloneError as error:
            failed.append((one.name, error))
        else:
            made_one(made[-1])
    return made, failed


# -- planning ------------------------------------------------------------------------------


def plan_create(app: App, request: NewRequest) -> CreatePlan:
    """Resolve a request into names, paths and oids; changes nothing."""
    require_free_name(app, request.name)
    level = isolation.choose(app, request)
    isolation.of(level).require(app, is_new=True)
    agent = request.agent or app.settings.agent
    profile = agents.require_profile(app, agent)
    start = _choose_start(app, request)
    if start.note is not None:
        app.told(start.note)
    branch = start.branch
    clone_id = journal.new_clone_id()
    path = choose_path(app, request, branch, clone_id)
    clone = CloneRecord(
        id=clone_id,
        name=request.name,
        branch=branch,
        branch_owned=start.owned,
        target=choose_target(app, request, branch),
        base=start.base,
        path=path,
        admin=f"{path.name}-{clone_id[:8]}",
        state=CloneState.CREATING,
        agent=agent,
        isolation=level,
        config_dir=app.config_dirs.config_path(clone_id, agent),
        created_at=utc_now(),
    )
    return CreatePlan(operation=journal.new_operation_id(), clone=clone, profile=profile)


def require_free_name(app: App, name: str) -> None:
    """Raise CloneExists or NameCollides unless the name can stand beside those of all clones."""
    wanted = folded(name)
    for other in app.registry.clones():
        there = folded(other.name)
        if other.name == name:
            raise CloneExists(name, other.path)
        if there == wanted or there.startswith(wanted + "/") or wanted.startswith(there + "/"):
            raise NameCollides(name, other.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where a clone begins: a branch, made here or not, at a commit, and what the user should know of it."""

    branch: str
    base: str
    owned: bool
    note: str | None = None


def _choose_start(app: App, request: NewRequest) -> _Start:
    repository = app.repository
    given = request.branch or request.name
    branch = names.branch(app, given)
    if request.branch is not None:
        tip = repository.read_ref(f"refs/heads/{branch}")
        if tip is not None:
            if request.start is not None:
                raise UsageError(
                    f"--branch {branch} exists and is used at its tip, so --from cannot be given too",
                    hint="leave out --from, or name a branch that does not exist",
                )
            holder = _holder(app, branch)
            if holder is not None:
                raise BranchCheckedOut(branch, holder)
            return _Start(branch=branch, base=tip, owned=False)
        _require_legal_branch(app, branch)
    if branch == given and names.is_tracking(app, branch):
        raise UsageError(
            f"{names.shown(branch)!r} is what a remote has, and cannot name a branch here",
            hint=f"start from it: --from {names.shown(branch)}",
        )
    taken, offered = repository.namesakes(branch)
    if branch in taken:
        raise BranchExists(branch, can_be_used=_holder(app, branch) is None)
    if taken:
        raise NameCollides(branch, taken[0])
    if request.start is not None:
        base = _commit_of(app, request.start)
        other = _of_remotes(app, branch, offered, must_be_one=False)
        note = None
        if other is not None and request.start.removeprefix("refs/remotes/") not in other.split(", "):
            note = f"warning: {other} is not where it starts, {names.shown(request.start)} is"
        return _Start(branch=branch, base=base, owned=True, note=note)
    found = _of_remotes(app, branch, offered, must_be_one=request.branch is not None)
    if found is None:
        return _Start(branch=branch, base=_head(app), owned=True)
    if request.branch is None:
        note = f"warning: {found} is not where it starts, HEAD is; --branch {branch} would start there"
        return _Start(branch=branch, base=_head(app), owned=True, note=note)
    base = repository.resolve_commit(f"refs/remotes/{found}")
    return _Start(branch=branch, base=base, owned=True, note=f"{branch} starts at {found}")


def _commit_of(app: App, start: str) -> str:
    """The commit that a start names; the error says where a branch of that name is, if only remotes have it."""
    try:
        return app.repository.resolve_commit(start, cwd=app.location.worktree)
    except NoSuchRef as error:
        _, offered = app.repository.namesakes(start)
        if offered:
            error.hint = f"a remote has it: --from {names.shown(offered[0])}"
        raise


def _of_remotes(app: App, branch: str, offered: Sequence[str], *, must_be_one: bool) -> str | None:
    """The one of several `REMOTE/BRANCH` that git would start at, `None` where no remote has it.

    Raises UsageError where several have it, none is preferred and `must_be_one`.
    """
    if not offered:
        return None
    known = remotes.read(app)
    holders = [name.removesuffix(f"/{branch}") for name in offered]
    holders = [name for name in holders if "/" not in name or name in known.remotes]
    if len(holders) < 2:
        return f"{holders[0]}/{branch}" if holders else None
    preferred = known.for_checkout(holders, app.settings.remote)
    if preferred is not None:
        return f"{preferred}/{branch}"
    several = names.listed([f"{name}/{branch}" for name in sorted(holders)])
    if must_be_one:
        raise UsageError(
            f"several remotes have {branch!r}: {several}",
            hint=f"say which with --branch {branch} --from REMOTE/{branch}, or set checkout.defaultRemote",
        )
    return several


def _require_legal_branch(app: App, branch: str) -> None:
    if app.repository.git("check-ref-format", f"refs/heads/{branch}", check=False).status != 0 or branch[0] == "-":
        raise UsageError(f"{branch!r} cannot name a branch", hint="see git check-ref-format(1)")


def _holder(app: App, branch: str) -> Path | None:
    """The worktree that has a branch checked out."""
    ref = f"refs/heads/{branch}"
    return next((worktree for held, worktree, _ in app.checkouts() if held == ref), None)


def _head(app: App) -> str:
    head = worktrees.read_head(app.location.git_dir)
    branch = worktrees.branch_of(head)
    if branch is not None:
        oid = app.repository.read_ref(branch)
        if oid is None:
            raise UnbornHead
        return oid
    return app.repository.resolve_commit("HEAD", cwd=app.location.worktree)


def choose_target(app: App, request: NewRequest, branch: str) -> str | None:
    """The branch that a new clone merges back into, `None` where there is none; raises NoSuchRef or InvalidSetting."""
    if request.target is not None:
        target = names.branch(app, request.target)
        if app.repository.read_ref(f"refs/heads/{target}") is None:
            raise NoSuchRef(target, is_branch=True)
        return target
    wanted = app.settings.target
    if wanted is not None and wanted != branch and app.repository.read_ref(f"refs/heads/{wanted}") is None:
        raise InvalidSetting("khlone.target", wanted, "there is no such branch; --into TARGET names another")
    return next((name for name in _possible_targets(app, request) if name != branch), None)


def _possible_targets(app: App, request: NewRequest) -> Iterator[str]:
    if app.settings.target is not None:
        yield app.settings.target
    if request.start is not None:
        local = _local_branch(app, request.start)
        if local is not None:
            yield local
    calling = app.calling_clone()
    if calling is not None and calling.target is not None:
        yield calling.target
    current = worktrees.branch_of(worktrees.read_head(app.location.git_dir))
    if current is not None and calling is None and app.repository.read_ref(current) is not None:
        yield current.removeprefix("refs/heads/")
    default = app.repository.default_branch()
    if default is not None:
        yield default


def _local_branch(app: App, start: str) -> str | None:
    """The local branch that a start names, or the local counterpart of the remote branch it names."""
    full = app.repository.full_name(start, cwd=app.location.worktree)
    if full is None:
        return None
    if full.startswith("refs/heads/"):
        return full.removeprefix("refs/heads/")
    if full.startswith("refs/remotes/"):
        _, _, local = full.removeprefix("refs/remotes/").partition("/")
        if local and app.repository.read_ref(f"refs/heads/{local}") is not None:
            return local
    return None


def choose_path(app: App, request: NewRequest, branch: str, clone_id: str) -> Path:
    """A free folder for the clone's worktree, where a plugin or the template wants it; raises PathTaken."""
    asked = app.plugins.worktree_path(request)
    if asked is not None:
        if not asked.is_absolute() or files.exists(asked):
            raise PathTaken(asked)
        return asked
    taken = {clone.path for clone in app.registry.clones()}
    for path in _template_paths(app, request, branch, clone_id):
        if path not in taken and not files.exists(path):
            return path
    raise PathTaken(path)


def is_chosen_path(app: App, clone: CloneRecord) -> bool:
    """Whether a clone lies where `choose_path` puts one of its name and branch."""
    request = NewRequest(name=clone.name, branch=clone.branch, target=clone.target, agent=clone.agent)
    if app.plugins.worktree_path(request) == clone.path:
        return True
    return clone.path in _template_paths(app, request, clone.branch, clone.id)


def _template_paths(app: App, request: NewRequest, branch: str, clone_id: str) -> list[Path]:
    folder = names.folder(request.name)
    candidates = (folder, f"{folder}-{clone_id[:4]}", f"{folder}-{clone_id}")
    return [_expand(app, request, branch, candidate) for candidate in candidates]


def _expand(app: App, request: NewRequest, branch: str, folder: str) -> Path:
    template = app.settings.worktree
    anchor = app.location.anchor
    try:
        text = template.format(
            parent=anchor.parent,
            repository=anchor.name.removesuffix(".git") or anchor.name,
            folder=folder,
            name=names.folder(request.name),
            branch=names.folder(branch),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InvalidSetting(
            "khlone.worktree", template, f"{error} is not one of parent, repository, folder, name, branch"
        ) from error
    home = app.environment.get("HOME", "")
    path = Path(os.path.normpath(anchor.joinpath(home + text[1:] if text.startswith("~/") else text)))
    path = Path(os.path.realpath(path.parent), path.name)
    if folder not in path.name:
        path = path / folder
    # The files of a bare repository may be those of a whole home folder, where anything else lies too.
    main = None if app.location.bare else app.location.main_worktree
    for private in (main, app.location.common_dir):
        if private is not None and path.is_relative_to(private):
            raise InvalidSetting("khlone.worktree", template, f"{path} lies inside {private}")
    return path


# -- building ------------------------------------------------------------------------------


def _build(app: App, plan: CreatePlan, lock: HeldLock) -> CloneRecord:
    clone = plan.clone
    durable = app.settings.durable
    zero = null_oid(clone.base)
    updates = [RefUpdate(ref=clone.marker_ref, new=clone.base, old=zero)]
    if clone.branch_owned:
        updates.append(RefUpdate(ref=clone.ref, new=clone.base, old=zero))
    app.repository.update_refs(updates, reason=f"khlone: new {clone.name}", keep_open=[lock.descriptor])
    faults.point("create.refs")

    config_dir = app.config_dirs.publish(clone.id, plan.operation, plan.profile.name, durable=durable)
    faults.point("create.config-dir")
    agent_dirs.fill(app, clone, plan.profile, config_dir)
    isolation.of(clone.isolation).prepare(app, clone)

    clone.path.parent.mkdir(parents=True, exist_ok=True)
    _publish_admin(app, plan, durable=durable)
    _check_out(app, clone, lock)
    large_files.fill(app, clone, lock)
    submodules.fill(app, clone, lock)
    faults.point("create.checked-out")
    include.include(app, clone)
    faults.point("create.included")

    app.plugins.prepare(journal.as_clone(clone))
    faults.point("create.prepared")
    if durable:
        _sync(clone.path, config_dir)
    faults.point("create.synced")
    lock.verify()
    with app.registry.transaction() as change:
        change.move_clone(clone, CloneState.READY)
        change.end_operation(plan.operation, Outcome.DONE)
    return clone


def _sync(*paths: Path) -> None:
    """Make what was written durable, once for each file system."""
    for path in {os.stat(path).st_dev: path for path in paths}.values():
        files.sync_file_system(path)


def _publish_admin(app: App, plan: CreatePlan, *, durable: bool) -> None:
    clone = plan.clone
    staged, admin = undo.staged_path(app, clone), undo.admin_path(app, clone)
    worktrees.stage(
        staged,
        worktree=clone.path,
        head=f"ref: {clone.ref}",
        locked=lock_reason(clone),
        marker=journal.to_json(clone),
        source_git_dir=app.location.git_dir,
        common_dir=app.location.common_dir,
        durable=durable,
    )
    if files.exists(staged / "config.worktree"):
        for key in ("core.bare", "core.worktree"):
            app.repository.git("config", "--file", str(staged / "config.worktree"), "--unset-all", key, check=False)
    faults.point("create.admin-staged")
    worktrees.publish(staged, admin, durable=durable)
    faults.point("create.admin-published")
    try:
        worktrees.link(clone.path, admin, durable=durable)
    except FileExistsError as error:
        raise PathTaken(clone.path) from error
    faults.point("create.worktree-linked")


def lock_reason(clone: CloneRecord) -> str:
    """What git says when somebody prunes or removes the worktree without khlone."""
    return f"khlone {clone.id}: remove it with git khlone remove {clone.name}"


def _check_out(app: App, clone: CloneRecord, lock: HeldLock) -> None:
    if not worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        raise PathTaken(clone.path)
    app.repository.git(
        "reset",
        "--hard",
        "--quiet",
        "--no-recurse-submodules",
        cwd=clone.path,
        writes=True,
        keep_open=[lock.descriptor],
        configuration=_checkout_workers(app),
        environment=large_files.POINTERS,
    )


def _checkout_workers(app: App) -> Sequence[str]:
    """Settings for how many processes write the files; none leave it to git and the user's settings.

    Several are faster for one large clone (0.5 to 0.8 of the time on two cores). For few files
    they cost more to start than they save, and of several clones at once they only take from each other.
    """
    if app.settings.has_checkout_workers:
        return ()
    making = sum(operation.kind is OperationKind.CREATE for operation in app.registry.open_operations())
    workers = min(4, 2 * (os.cpu_count() or 1))
    return (f"checkout.workers={workers}", f"checkout.thresholdForParallelism={_MANY}") if making <= 1 else ()


def _abort(app: App, plan: CreatePlan, lock: HeldLock, error: BaseException) -> None:
    """Undo a failed create; when the undo fails too, the journal keeps it for the next recovery."""
    try:
        undo.undo_create(app, plan.clone, plan.operation, lock, certain=True)
    except Exception as second:  # noqa: BLE001 - the first error is the one to report
        app.told(f"warning: {plan.clone.name} could not be undone yet: {second}; `git khlone doctor --fix` goes on")
        return
    with app.registry.transaction() as change:
        change.end_operation(plan.operation, Outcome.ROLLED_BACK, str(error)[:500])
        change.delete_clone(plan.clone.id)
    app.tell_problems(app.plugins.post_cleanup(journal.as_clone(plan.clone)))
