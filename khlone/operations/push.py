"""How do clones' branches get to their remote, without taking anything from there that they never had?

Every push is a compare-and-swap: of the very commit that was looked at, onto what was last
seen there (`--force-with-lease` with that oid, never a bare force). A lease alone is no
leave: a fetch by anybody moves what was last seen. So the tip that would be overwritten must
be one that the branch has had, by its history or its reflog.

Nothing is journalled: the remote's ref moves in one step, and what is written here afterwards
is written again by the next push. No lock of khlone's is held while git talks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence

from khlone import faults, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, KhloneError, PushRejected, UsageError
from khlone.model import CloneRecord, CloneState, Held
from khlone.operations import moving, recovery, remotes, undo
from khlone.operations.remotes import Configured, Remote
from khlone.process import Completed
from khlone.redaction import redacted
from khlone.ref_files import is_oid
from khlone.values import dataclass

PUSHABLE = (CloneState.READY, CloneState.MERGED, CloneState.MERGING, CloneState.ADOPTED)
#: How far back a branch's reflog is looked through for what the remote has.
_REFLOG = 1000
#: How many lines of the remote's own words are passed on.
MOST_WORDS = 20
#: What git says where the remote has not what was last seen there.
_STALE = ("stale info", "fetch first", "non-fast-forward", "needs force")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRequest:
    """What `push` was asked for; `remote` is `None` where settings decide, `atomic` is all or nothing."""

    names: Sequence[str | None] = ()
    remote: str | None = None
    atomic: bool = False
    force: bool = False
    verify: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """One branch that is about to be pushed: `new` there, where `old` was last seen."""

    clone: CloneRecord
    remote: Remote
    old: str | None
    new: str
    overwrites: bool

    @property
    def shown(self) -> str:
        """The branch there, as git writes it."""
        return f"{self.remote.name}/{self.clone.branch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """One branch that is at `new` on its remote; `old` is what was there, `None` for nothing."""

    name: str
    branch: str
    remote: str
    old: str | None
    new: str
    overwritten: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """The outcome of one `push`."""

    pushed: Sequence[Pushed]
    held: Sequence[Held]


def push(app: App, request: PushRequest) -> PushResult:
    """Push the branch of each named clone; a refusal holds that one and the rest goes on, unless `atomic`.

    Raises NoSuchClone, UsageError or InvalidSetting before anything is pushed.
    """
    clones = [app.require_clone(name) for name in dict.fromkeys(request.names or (None,))]
    app.prepare_state()
    if not request.dry_run:
        recovery.recover(app)
    configured = remotes.read(app)
    plans: list[PushPlan] = []
    held: list[Held] = []
    for clone in clones:
        try:
            plans.append(plan_push(app, clone, configured, request))
        except KhloneError as error:
            held.append(as_held(clone.name, error))
    if request.atomic:
        if held:
            return PushResult(pushed=(), held=[*held, *(_with_others(plan) for plan in plans)])
        if len({plan.remote.name for plan in plans}) > 1:
            raise UsageError("--atomic pushes to one remote, and these clones have several", hint="name it by --remote")
    batches = [plans] if request.atomic and plans else [[plan] for plan in plans]
    pushed: list[Pushed] = []
    for batch in batches:
        outcome = _carry_out(app, configured, batch, request)
        for plan in batch:
            refusal = outcome[plan.clone.id]
            if refusal is None:
                pushed.append(_as_pushed(plan))
            else:
                held.append(as_held(plan.clone.name, refusal))
    return PushResult(pushed=pushed, held=held)


def push_one(app: App, configured: Configured, plan: PushPlan, request: PushRequest) -> Pushed:
    """Push one branch; raises what refuses it: PushRejected, RemoteFailed or CredentialsMissing."""
    refusal = _carry_out(app, configured, [plan], request)[plan.clone.id]
    if refusal is not None:
        raise refusal
    return _as_pushed(plan)


def as_held(name: str, error: KhloneError) -> Held:
    """A refusal as an answer has it."""
    return Held(name=name, code=error.code, message=error.message, exit_code=error.exit_code, hint=error.hint)


def _as_pushed(plan: PushPlan) -> Pushed:
    return Pushed(
        name=plan.clone.name,
        branch=plan.clone.branch,
        remote=plan.remote.name,
        old=plan.old,
        new=plan.new,
        overwritten=plan.overwrites,
    )


def _with_others(plan: PushPlan) -> Held:
    why = "another one cannot be pushed, and it is all or nothing"
    return as_held(plan.clone.name, PushRejected(plan.clone.name, plan.remote.name, why, hint=None))


# -- planning ------------------------------------------------------------------------------


def plan_push(app: App, clone: CloneRecord, configured: Configured, request: PushRequest) -> PushPlan:
    """What pushing the clone would do; raises CloneNotReady, NoRemote or PushRejected, changes nothing."""
    if clone.state not in PUSHABLE:
        raise CloneNotReady(clone.name, clone.state, clone.reason)
    if not worktrees.is_linked(clone.path, undo.admin_path(app, clone)):
        raise CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree")
    tip = app.repository.read_ref(clone.ref)
    if tip is None:
        raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
    remote = configured.for_push(clone.branch, app.settings.remote, request.remote)
    seen = _last_seen(app, clone, remote)
    overwrites = seen is not None and not moving.contains(app, tip, seen)
    if overwrites and not request.force and not _has_had(app, clone, str(seen)):
        why = f"{remote.name}/{clone.branch} has commits that {clone.name} never had"
        raise PushRejected(clone.name, remote.name, why, hint=_bring_in(clone, remote))
    return PushPlan(clone=clone, remote=remote, old=seen, new=tip, overwrites=overwrites)


def _bring_in(clone: CloneRecord, remote: Remote) -> str:
    there = f"{remote.name}/{clone.branch}"
    return f"git fetch {remote.name}; in the clone: git rebase {there}, or merge it; then push again"


def _last_seen(app: App, clone: CloneRecord, remote: Remote) -> str | None:
    """What the branch was there when somebody looked last; the remote is asked where that is kept nowhere."""
    tracking = remote.tracking(clone.ref)
    return app.repository.read_ref(tracking) if tracking is not None else _there(app, clone, remote)


def _there(app: App, clone: CloneRecord, remote: Remote) -> str | None:
    """What the branch is there now; raises RemoteFailed or CredentialsMissing."""
    limit_s = app.settings.network_timeout_s
    done = app.repository.git(
        "ls-remote",
        "--quiet",
        "--",
        remote.name,
        clone.ref,
        cwd=app.location.main_worktree,
        check=False,
        environment=remotes.environment(),
        timeout_s=limit_s,
    )
    if done.status != 0:
        raise remotes.failure(remote.name, done, limit_s)
    lines = (line.partition("\t") for line in done.text.splitlines())
    return next((oid for oid, _, ref in lines if ref == clone.ref and is_oid(oid)), None)


def _has_had(app: App, clone: CloneRecord, oid: str) -> bool:
    """Whether the branch once had a commit, which some entry of its reflog reaches."""
    listed = app.repository.git("rev-list", "--walk-reflogs", f"--max-count={_REFLOG}", clone.ref, check=False)
    had = sorted(set(listed.text.split()))
    if listed.status != 0 or not had:
        return False
    asked = "\n".join([oid, *(f"^{one}" for one in had)])
    beyond = app.repository.git("rev-list", "--max-count=1", "--stdin", stdin=asked.encode() + b"\n", check=False)
    return beyond.status == 0 and not beyond.stdout.strip()


# -- executing -----------------------------------------------------------------------------


def _carry_out(
    app: App, configured: Configured, plans: Sequence[PushPlan], request: PushRequest
) -> Mapping[str, KhloneError | None]:
    """Push some branches at once to their one remote; returns what refused each, by the id of its clone."""
    outcome = _push(app, plans, request)
    faults.point("push.pushed")
    for plan in plans:
        if outcome[plan.clone.id] is None and not request.dry_run:
            _follow(app, configured, plan)
    faults.point("push.followed")
    return outcome


def _push(app: App, plans: Sequence[PushPlan], request: PushRequest) -> Mapping[str, KhloneError | None]:
    limit_s = app.settings.network_timeout_s
    first = plans[0]
    leases = [f"--force-with-lease={plan.clone.ref}:{plan.old or ''}" for plan in plans]
    runs_hooks = request.verify and not request.dry_run
    done = app.repository.git(
        "push",
        "--porcelain",
        "--no-recurse-submodules",
        *(["--atomic"] if request.atomic else []),
        *(["--dry-run"] if request.dry_run else []),
        *([] if runs_hooks else ["--no-verify"]),
        *leases,
        "--",
        first.remote.name,
        *(f"{plan.new}:{plan.clone.ref}" for plan in plans),
        cwd=first.clone.path,
        configuration=_address(app, first.remote),
        writes=True,
        check=False,
        hooks=runs_hooks,
        environment=remotes.environment(),
        timeout_s=limit_s,
    )
    words = [line.strip() for line in redacted(done.error_text).splitlines() if line.startswith("remote:")]
    for line in words[:MOST_WORDS]:
        app.told(line)
    found = answers(done)
    outcome = {plan.clone.id: _refusal(plan, found.get(plan.clone.ref), done, limit_s, words) for plan in plans}
    for plan in plans:
        refused = outcome[plan.clone.id]
        # Somebody who pushed the very same at the same time makes the remote refuse one of the two.
        if isinstance(refused, PushRejected) and plan.clone.ref in found and not request.dry_run:
            with contextlib.suppress(KhloneError):
                if _there(app, plan.clone, plan.remote) == plan.new:
                    outcome[plan.clone.id] = None
    return outcome


def _address(app: App, remote: Remote) -> tuple[str, ...]:
    """The setting that makes a relative path, which no clone could follow, an absolute one."""
    root = app.location.main_worktree or app.location.common_dir
    if not remote.is_relative or remote.has_push_url or "=" in remote.name:
        return ()
    return (f"remote.{remote.name}.pushurl={root / remote.url}",)


def answers(done: Completed) -> dict[str, tuple[str, str]]:
    """(flag, summary) of each ref, from the lines that are made for programs."""
    found = {}
    for line in done.text.splitlines():
        fields = line.split("\t")
        if len(fields) == 3 and len(fields[0]) == 1:
            found[fields[1].rpartition(":")[2]] = (fields[0], fields[2])
    return found


def _refusal(
    plan: PushPlan, answer: tuple[str, str] | None, done: Completed, limit_s: float, words: Sequence[str]
) -> KhloneError | None:
    name, remote = plan.clone.name, plan.remote.name
    if done.status == 0 if answer is None else answer[0] != "!":
        return None
    if answer is not None and _reason(answer) in _STALE:
        return PushRejected(
            name, remote, f"{plan.shown} is not what was last seen there", hint=_bring_in(plan.clone, plan.remote)
        )
    return refusal(name, remote, answer, done, limit_s, words)


def _reason(answer: tuple[str, str]) -> str:
    found = re.search(r"\((.*)\)\s*\Z", answer[1])
    return answer[1] if found is None else found[1]


def refusal(
    name: str, remote: str, answer: tuple[str, str] | None, done: Completed, limit_s: float, words: Sequence[str]
) -> KhloneError:
    """The error for a push that failed: what git answers of the ref, and the remote's own `words`."""
    if answer is None:
        if not done.timed_out and "fatal:" not in done.error_text and "failed to push some refs" in done.error_text:
            said = [line for line in redacted(done.error_text).splitlines() if not line.startswith("error: failed to")]
            last = f": {said[-1].strip()[:300]}" if said else ""
            return PushRejected(
                name, remote, f"the hook pre-push of this repository refused it{last}", hint="do what it says"
            )
        return remotes.failure(remote, done, limit_s)
    told = "; ".join(line.removeprefix("remote:").strip() for line in words[:3])
    return PushRejected(name, remote, f"{_reason(answer)}{f': {told}' if told else ''}", hint=None)


def _follow(app: App, configured: Configured, plan: PushPlan) -> None:
    """Let a branch that follows nothing follow what was pushed; the configuration is written under a lock."""
    branch = plan.clone.branch
    wanted = {"merge": plan.clone.ref, "remote": plan.remote.name}
    found = {key: configured.of_branch(branch, key) for key in wanted}
    if any(found[key] not in (None, value) for key, value in wanted.items()):
        return
    missing = [key for key in wanted if found[key] is None]
    if not missing:
        return
    try:
        with app.locks.repository(told=app.told):
            for key in missing:
                app.repository.git("config", f"branch.{branch}.{key}", wanted[key], writes=True)
    except KhloneError as error:
        app.told(f"warning: {branch} was pushed, but it could not be noted that it follows {plan.shown}: {error}")
