"""How does the branch of a clone become a pull request?

The branch is pushed first, then the open pull request of it is shown or a new one is
opened: whoever is killed in between, the same command goes on from there. Whether a program is
there that can do it is asked before anything is pushed.
"""

from __future__ import annotations

from khlone import faults
from khlone.app import App
from khlone.errors import ForgeFailed, KhloneError, NoTarget, NothingToPropose
from khlone.model import CloneRecord
from khlone.operations import forges, push, recovery, remotes
from khlone.operations.forges import Forge, Proposal, PullRequest
from khlone.operations.push import Pushed, PushRequest
from khlone.operations.remotes import Configured, Remote
from khlone.values import dataclass

#: How many commits a text that is made of them names.
_LISTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeRequest:
    """What `pr` was asked for; title and body come from the commits where they are `None`."""

    name: str | None = None
    base: str | None = None
    title: str | None = None
    body: str | None = None
    draft: bool = False
    web: bool = False
    remote: str | None = None
    verify: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """The pull request of a clone; `opened` says that it was not there before, number and url are its forge's."""

    name: str
    branch: str
    remote: str
    base: str
    number: int | None
    url: str | None
    title: str
    draft: bool
    opened: bool
    pushed: Pushed


def propose(app: App, request: ProposeRequest) -> Proposed:
    """Push a clone's branch, then open its pull request or find the one that is open.

    Raises NoSuchClone, NoTarget, NoRemote, NoForge or NothingToPropose before anything is
    pushed; what refuses the push; CredentialsMissing or ForgeFailed after it.
    """
    clone = app.require_clone(request.name)
    app.prepare_state()
    if not request.dry_run:
        recovery.recover(app)
    configured = remotes.read(app)
    asked = PushRequest(names=(clone.name,), remote=request.remote, verify=request.verify, dry_run=request.dry_run)
    plan = push.plan_push(app, clone, configured, asked)
    base, there = _base(clone, configured, plan.remote, request.base)
    forge = forges.choose(app, there, clone.name, clone.path)
    title, body = _texts(app, clone, there, base, plan.new, request)
    pushed = push.push_one(app, configured, plan, asked)
    faults.point("pr.pushed")
    if request.dry_run:
        return _proposed(pushed, base, None, title=title, draft=request.draft, opened=False)
    owner = plan.remote.owner if there.name != plan.remote.name else None
    proposal = Proposal(branch=clone.branch, base=base, title=title, body=body, draft=request.draft, owner=owner)
    found, opened = _opened(forge, proposal, asked_base=request.base)
    faults.point("pr.opened")
    if request.web:
        _show(app, forge, found)
    return _proposed(pushed, base, found, title=title, draft=request.draft, opened=opened)


def _opened(forge: Forge, proposal: Proposal, *, asked_base: str | None) -> tuple[PullRequest, bool]:
    """The pull request, and whether it is new; one that another command opened meanwhile is not."""
    base = proposal.base if asked_base is not None else None
    found = forge.find(proposal.branch, base)
    if found is not None:
        return found, False
    try:
        url = forge.open(proposal)
    except ForgeFailed:
        found = forge.find(proposal.branch, base)
        if found is None:
            raise
        return found, False
    made = PullRequest(
        number=forges.number_of(url) or 0,
        url=url,
        title=proposal.title,
        base=proposal.base,
        head=proposal.branch,
        draft=proposal.draft,
        foreign=proposal.owner is not None,
    )
    return made, True


def _show(app: App, forge: Forge, found: PullRequest) -> None:
    try:
        forge.show(found.number)
    except KhloneError as error:
        app.told(f"warning: the browser shows nothing: {error}")


def _proposed(
    pushed: Pushed, base: str, found: PullRequest | None, *, title: str, draft: bool, opened: bool
) -> Proposed:
    return Proposed(
        name=pushed.name,
        branch=pushed.branch,
        remote=pushed.remote,
        base=base if found is None else found.base,
        number=None if found is None else found.number or None,
        url=None if found is None else found.url,
        title=title if found is None else found.title,
        draft=draft if found is None else found.draft,
        opened=opened,
        pushed=pushed,
    )


# -- what it says --------------------------------------------------------------------------


def _base(clone: CloneRecord, configured: Configured, pushed_to: Remote, asked: str | None) -> tuple[str, Remote]:
    """The branch that the pull request goes to, by its name there, and the remote that has it; raises NoTarget."""
    target = asked or clone.target
    if target is None:
        raise NoTarget(clone.name)
    upstream = configured.upstream(target)
    if upstream is None:
        return target, pushed_to
    return upstream[1], configured.require(upstream[0])


def _texts(
    app: App, clone: CloneRecord, there: Remote, base: str, tip: str, request: ProposeRequest
) -> tuple[str, str]:
    """Title and body: as asked, else of the one commit, else of the first and a list of all."""
    tracking = there.tracking(f"refs/heads/{base}")
    bounds = [ref for ref in (tracking, f"refs/heads/{request.base or clone.target}") if ref]
    known = [oid for oid in map(app.repository.read_ref, bounds) if oid is not None]
    shown = app.repository.git(
        "log",
        "--reverse",
        "--topo-order",
        f"--max-count={_LISTED}",
        "-z",
        "--format=%s%n%b",
        tip,
        *(f"^{oid}" for oid in known[:1]),
        "--",
    )
    commits = [one.partition("\n") for one in shown.stdout.decode(errors="replace").split("\0") if one.strip("\n")]
    if not commits:
        raise NothingToPropose(clone.name, base)
    title = commits[0][0].strip()
    body = commits[0][2].strip() if len(commits) == 1 else "".join(f"- {subject}\n" for subject, _, _ in commits)
    return (request.title or title or clone.name), (body if request.body is None else request.body)
