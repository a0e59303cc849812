"""How does a clone start from what a remote has: one of its branches, or a pull request?

A branch is fetched with all that the remote has, a pull request by a ref of its own, under
which its commits stay until the clone's branch holds them; that ref is dropped then, and
one that a killed command left behind by a later command.
"""

from __future__ import annotations

import time

from khlone import faults, values
from khlone.app import App
from khlone.errors import BranchExists, KhloneError, NoSuchRef, UsageError
from khlone.model import Clone, NewRequest
from khlone.operations import create, fetching, forges, journal, remotes
from khlone.operations.forges import PullRequest
from khlone.operations.remotes import Remote
from khlone.repository import RefUpdate, null_oid

#: Below it stands the tip of each pull request that is being made a clone of.
PREFIX = "refs/khlone/pulls/"
#: A ref that is older was left behind: no command takes this long.
_LEFT_BEHIND_S = 86400.0
_MISSING = "couldn't find remote ref"


def fetch_start(app: App, start: str | None) -> bool:
    """Fetch from the remote that a start such as `origin/x` names; False where it names none.

    Raises RemoteFailed, CredentialsMissing or Locked.
    """
    short = (start or "").removeprefix("refs/remotes/")
    known = remotes.read(app).remotes
    # The name of a remote may hold slashes too: the longest that fits is meant.
    fitting = sorted((name for name in known if short.startswith(f"{name}/")), key=len)
    if not fitting:
        return False
    fetching.fetch(app, fitting[-1])
    return True


def require_fetched(app: App, start: str | None) -> None:
    """Fetch from the remote that a start names; raises UsageError where it names none."""
    if not fetch_start(app, start):
        raise UsageError("--fetch needs --from with a branch of a remote, such as origin/main")


def create_fetched(app: App, request: NewRequest, *, asked: bool) -> Clone:
    """`create.create`, after a fetch from the remote of its start: if it is asked for, or else nothing is there.

    Raises UsageError where a fetch is asked for and the start names no remote, what a
    fetch raises, and what `create` raises.
    """
    if asked:
        require_fetched(app, request.start)
    try:
        return create.create(app, request)
    except NoSuchRef as error:
        if asked or request.start is None or error.facts["ref"] != request.start:
            raise
        if not fetch_start(app, request.start):
            raise
    return create.create(app, request)


# -- pull requests -------------------------------------------------------------------------


def create_from_pull(app: App, request: NewRequest, number: int) -> Clone:
    """Make a clone of a pull request of the main remote, its branch named as there or `pr-<number>`.

    Raises NoRemote, NoSuchRef where there is no such pull request, RemoteFailed,
    CredentialsMissing, and what `create` raises; then nothing is left of it.
    """
    if request.start is not None:
        raise UsageError("--pr says where to start, so --from cannot be given too")
    app.prepare_state()
    drop_left_behind(app)
    remote = remotes.read(app).main(app.settings.remote)
    found = _asked(app, remote, number)
    ref = f"{PREFIX}{journal.new_operation_id()}"
    oid = _fetch(app, remote, number, ref, found)
    faults.point("pull.fetched")
    try:
        return create.create(app, _as_request(app, request, number, oid, found))
    finally:
        _drop(app, ref, oid)
        faults.point("pull.dropped")


def _asked(app: App, remote: Remote, number: int) -> PullRequest | None:
    """What gh or glab knows of it, where one is there for this remote; nothing of that is needed."""
    if app.settings.forge is None and not any(word in remote.host for word in ("github", "gitlab")):
        return None
    forge = forges.find(app, remote, app.location.worktree or app.location.common_dir)
    if forge is None:
        return None
    try:
        return forge.numbered(number)
    except KhloneError as error:
        app.told(f"{forge.program} does not say what it is called: {error}")
        return None


def _fetch(app: App, remote: Remote, number: int, ref: str, found: PullRequest | None) -> str:
    """Bring its tip to a ref, and where it is a branch of this remote, what is known of that; returns the tip."""
    limit_s = app.settings.network_timeout_s
    sources = remotes.pull_refs(number)
    more: list[str] = []
    if found is not None and not found.foreign:
        branch = f"refs/heads/{found.head}"
        tracking = remote.tracking(branch)
        more = [f"+{branch}:{tracking}"] if tracking is not None else []
    for source in reversed(sources) if "gitlab" in remote.host else sources:
        for specs in ([f"+{source}:{ref}", *more], [f"+{source}:{ref}"]):
            done = remotes.fetch(app, remote.name, specs, timeout_s=limit_s)
            oid = app.repository.read_ref(ref) if done.status == 0 else None
            if oid is not None:
                return oid
            if done.status != 0 and _MISSING not in done.error_text:
                raise remotes.failure(remote.name, done, limit_s)
            if not more:
                break
    error = NoSuchRef(f"pull request {number} of {remote.name}")
    error.hint = "see whether the number is right, and khlone.remote the remote that has it"
    raise error


def _as_request(app: App, request: NewRequest, number: int, oid: str, found: PullRequest | None) -> NewRequest:
    branch, target = request.branch, request.target
    if branch is None:
        branch = f"pr-{number}"
        if found is not None and not found.foreign and not app.repository.colliding_refs(found.head):
            branch = found.head
    if app.repository.read_ref(f"refs/heads/{branch}") is not None:
        error = BranchExists(branch)
        error.hint = "name another one with --branch BRANCH"
        raise error
    if target is None and found is not None:
        has_base = app.repository.read_ref(f"refs/heads/{found.base}") is not None
        target = found.base if has_base else None
    return values.replace(request, start=oid, branch=branch, target=target)


def _drop(app: App, ref: str, oid: str) -> None:
    gone = RefUpdate(ref=ref, new=null_oid(oid), old=oid)
    app.repository.update_refs([gone], reason="khlone: new --pr", check=False)


def drop_left_behind(app: App) -> None:
    """Drop the refs of pull requests whose command was killed long ago; their names begin with the time."""
    listed = app.repository.git("for-each-ref", "--format=%(objectname) %(refname)", PREFIX, check=False)
    for line in listed.text.splitlines():
        oid, _, ref = line.partition(" ")
        begun = ref.removeprefix(PREFIX)[:12]
        try:
            age_s = time.time() - int(begun, 16) / 1000
        except ValueError:
            continue
        if age_s > _LEFT_BEHIND_S:
            _drop(app, ref, oid)
