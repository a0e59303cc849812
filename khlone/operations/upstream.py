"""How does what lands on a target get to the branch of a remote that the target follows?

It gets there first: only what the remote has taken lands here, so that nothing is ever
here alone that was to be there too. A push is a compare-and-swap: onto what was last seen
there, and only of a commit that contains it. Where somebody else was faster, nothing has
happened, and the landing is computed and tested anew on top of theirs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from khlone import process
from khlone.app import App
from khlone.errors import KhloneError, NoUpstream, RemoteFailed, UpstreamGone
from khlone.operations import moving, push, remotes
from khlone.redaction import redacted
from khlone.values import dataclass

#: Set for every push to what it is made for, and what is left of one is found by.
PUSH_VARIABLE = "KHLONE_PUSH"
#: Seconds that a remote is waited for which is asked what a killed command has pushed.
ASKED_S = 30.0
#: Seconds that such a push, which goes on, is waited for.
_PUSH_S = 10.0
_POLL_S = 0.1
#: How many turns of a fetch that takes its whole time are waited for.
_TURNS = 2
_GONE = re.compile(r"couldn't find remote ref", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A branch of a remote: its ref there, and the ref here that keeps what was last seen of it."""

    remote: str
    ref: str
    tracking: str

    @property
    def shown(self) -> str:
        """The branch as git writes it."""
        return f"{self.remote}/{self.ref.removeprefix('refs/heads/')}"

    def as_json(self) -> dict[str, object]:
        """It as the journal keeps it; `from_plan` reads it back."""
        return {"remote": self.remote, "ref": self.ref, "tracking": self.tracking}


def from_plan(plan: Mapping[str, object]) -> Upstream:
    """The upstream that a plan of the journal holds."""
    return Upstream(remote=str(plan["remote"]), ref=str(plan["ref"]), tracking=str(plan["tracking"]))


def require(app: App, target: str) -> Upstream:
    """What a target follows; raises NoUpstream where that is nothing, or nothing is kept of what was seen there."""
    configured = remotes.read(app)
    follows = configured.upstream(target)
    if follows is None:
        raise NoUpstream(target, "follows no branch of a remote")
    name, branch = follows
    ref = f"refs/heads/{branch}"
    tracking = configured.require(name).tracking(ref)
    if tracking is None:
        raise NoUpstream(target, f"follows {name}/{branch}, of which no remote-tracking branch is kept")
    return Upstream(remote=name, ref=ref, tracking=tracking)


def gone(target: str, upstream: Upstream) -> UpstreamGone:
    """The error for a branch that was seen on the remote and is not there any more."""
    return UpstreamGone(target, upstream.remote, upstream.ref.removeprefix("refs/heads/"))


def last_seen(app: App, upstream: Upstream) -> str | None:
    """What was seen there last, `None` for nothing; the remote is not asked."""
    return app.repository.read_ref(upstream.tracking)


def look(app: App, upstream: Upstream, *, within_s: float | None = None) -> str | None:
    """What is there now, fetched; `None` where the branch is not. Raises RemoteFailed, CredentialsMissing or Locked."""
    limit_s = app.settings.network_timeout_s
    if within_s is not None:
        limit_s = min(limit_s or within_s, within_s)
    with app.locks.fetch(upstream.remote, wait_s=limit_s * _TURNS, told=app.told):
        done = remotes.fetch(app, upstream.remote, [f"+{upstream.ref}:{upstream.tracking}"], timeout_s=limit_s)
    if done.status == 0:
        return last_seen(app, upstream)
    if not done.timed_out and _GONE.search(done.error_text):
        return None
    raise remotes.failure(upstream.remote, done, limit_s)


def send(app: App, upstream: Upstream, target: str, old: str | None, new: str, *, mark: str) -> bool:
    """Have the remote's branch go from `old` to `new`; False where it is not at `old` any more.

    What pushes is started with `mark`, which `require_ended` looks for.

    Raises UpstreamGone, PushRejected with what the remote or a hook says, RemoteFailed or
    CredentialsMissing; then it has not gone there, or that cannot be told. The hook pre-push
    runs as for any push.
    """
    limit_s = app.settings.network_timeout_s
    done = app.repository.git(
        "push",
        "--porcelain",
        "--atomic",
        "--no-follow-tags",
        "--no-recurse-submodules",
        f"--force-with-lease={upstream.ref}:{old or ''}",
        "--",
        upstream.remote,
        f"{new}:{upstream.ref}",
        cwd=app.location.main_worktree or app.location.common_dir,
        writes=True,
        check=False,
        hooks=True,
        environment={**remotes.environment(), PUSH_VARIABLE: mark},
        timeout_s=limit_s,
    )
    words = [line.strip() for line in redacted(done.error_text).splitlines() if line.startswith("remote:")]
    for line in words[: push.MOST_WORDS]:
        app.told(line)
    if done.status == 0:
        return True
    refusal = push.refusal(upstream.shown, upstream.remote, push.answers(done).get(upstream.ref), done, limit_s, words)
    try:
        there = look(app, upstream)
    except KhloneError:
        raise refusal from None
    if there is not None and moving.contains(app, there, new):
        return True
    if there is None and old is not None:
        raise gone(target, upstream)
    if there != old:
        return False
    raise refusal


def require_ended(app: App, upstream: Upstream, mark: str) -> None:
    """Wait for what is left of a push whose khlone was killed, within a bound; raises RemoteFailed where it goes on."""
    deadline = time.monotonic() + _PUSH_S
    told = False
    while pids := _pushing(mark):
        which = f"a push to {upstream.shown} whose khlone was killed (pid {', '.join(map(str, pids))})"
        if time.monotonic() > deadline:
            raise RemoteFailed(upstream.remote, f"{which} goes on")
        if not told:
            app.told(f"waiting for {which}")
        told = True
        time.sleep(_POLL_S)


def _pushing(mark: str) -> list[int]:
    """The processes of a push, whatever it may have started to serve others aside."""
    return sorted(
        pid
        for pid, words in process.find_marked(PUSH_VARIABLE, mark).items()
        if any(word in (b"push", b"send-pack") or b"receive-pack" in word for word in words)
    )


def has(app: App, upstream: Upstream, oid: str, *, ask: bool) -> bool | None:
    """Whether a commit is in the remote's branch; `None` where only the remote could tell and is not to be asked.

    Raises RemoteFailed, CredentialsMissing or Locked where it is asked and does not answer soon.
    """
    seen = last_seen(app, upstream)
    if seen is not None and moving.contains(app, seen, oid):
        return True
    if not ask:
        return None
    there = look(app, upstream, within_s=ASKED_S)
    return there is not None and moving.contains(app, there, oid)
