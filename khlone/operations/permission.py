"""What does khlone refuse from inside a session, because only the user decides it?

A process is inside when its environment says so, or when a recorded session is it, or is
among the processes that started it, whatever became of the variables since. What the user allows all
the same (`khlone.session.allow`) is read as the process that began the outermost session
would read it, never by the environment of this one: an agent writes that itself. All of
it is a rail, no wall: a session runs with the user's rights.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping

from khlone import sessions, settings
from khlone.app import App
from khlone.errors import KhloneError, NotPermitted
from khlone.model import CloneRecord
from khlone.values import dataclass

#: What can be allowed, and how its refusal begins.
ACTIONS = {
    "trust": "approve hooks or take approvals back",
    "approve": "approve what is to land",
    "remove": "remove the clone of another",
    "stop": "stop the session of another",
    "rename": "rename the clone of another",
    "undo": "take back what was done with the clone of another",
    "setup": "change your shells",
    "prune": "prune",
    "hooks": "install or remove git hooks",
    "force": "use --force",
    "uninstall": "uninstall khlone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """The sessions that a process is in: the ids of their clones, and the environment that the outermost began with."""

    clones: frozenset[str]
    outside: Mapping[str, str]


def find(app: App) -> Inside | None:
    """The session that this process is in, `None` outside of every one."""
    named = app.environment.get("KHLONE_ID", "")
    clones = {named} if named else set()
    above = [os.getpid(), *sessions.ancestors()]
    outermost = -1
    # Without a registry that can be read the environment alone can tell.
    with contextlib.suppress(KhloneError):
        for session in app.registry.live_sessions() if app.has_registry else ():
            owner = session.owner
            if owner.pid in above and sessions.out_of_sight(owner) is None and sessions.may_live(owner):
                clones.add(session.clone_id)
                outermost = max(outermost, above.index(owner.pid))
    if not clones and "KHLONE_SESSION" not in app.environment:
        return None
    began = above[outermost + 1 : outermost + 2] if outermost >= 0 else []
    outside = sessions.environment_of(began[0]) if began else {}
    return Inside(clones=frozenset(clones), outside=outside or _of_account())


def require(app: App, action: str) -> None:
    """Raise NotPermitted inside a session that the user has not allowed this; outside of one nothing is asked."""
    inside = find(app)
    if inside is not None and not allows(inside, action):
        raise _refusal(action)


def require_own(inside: Inside | None, clone: CloneRecord, action: str = "remove") -> None:
    """Raise NotPermitted for the clone of another, inside a session that the user has not allowed to do that."""
    require_own_id(inside, clone.id, clone.name, action)


def require_own_id(inside: Inside | None, clone_id: str, name: str, action: str) -> None:
    """`require_own` for a clone that may be gone."""
    if inside is not None and inside.clones != {clone_id} and not allows(inside, action):
        raise _refusal(action, clone=name)


def require_outside(environment: Mapping[str, str], action: str) -> None:
    """Raise NotPermitted where there is no repository, and the environment alone tells of a session."""
    if any(name in environment for name in ("KHLONE_ID", "KHLONE_SESSION")):
        raise _refusal(action)


def allows(inside: Inside, action: str) -> bool:
    """Whether the user lets sessions do this; raises InvalidSetting for a word that is none of `ACTIONS`."""
    return action in settings.allowed_in_sessions(inside.outside, ACTIONS)


def _refusal(action: str, **facts: object) -> NotPermitted:
    return NotPermitted(
        f"a session may not {ACTIONS[action]}",
        # Not the command that allows it: whoever is refused would run that next.
        hint=f"ask the user to do it; outside of sessions, khlone.session.allow can let them {action}",
        inside="session",
        action=action,
        **facts,
    )


def _of_account() -> dict[str, str]:
    """Where the account has its home, whatever a variable says."""
    return {"HOME": pwd.getpwuid(os.geteuid()).pw_dir}
