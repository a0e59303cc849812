"""How is a session of a clone paused, let go on, or stopped from outside, with all that it has started?

A process is signalled only while it is the one that was looked at: it is held by a pidfd
first, and its start is compared after that. What is started between two looks is found by
the next look, until there is nothing new.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from khlone import capacity, sessions
from khlone.app import App
from khlone.errors import NoSuchClone
from khlone.model import CloneRecord

#: How often processes that were started meanwhile are looked for.
_ROUNDS = 8
_GRACE_S = 10.0
_POLL_S = 0.05


def pids_of(clone: CloneRecord, session: str | None = None) -> list[int]:
    """The processes of a clone, or of one of its sessions (`pid-N` for a foreign one), khlone's own aside."""
    members = capacity.members({clone.id: clone.path})
    if session is None:
        return [one.pid for one in members]
    roots = {one.pid for one in members if one.session == session}
    if session.startswith("pid-") and session.removeprefix("pid-").isdecimal():
        roots.add(int(session.removeprefix("pid-")))
    tree = {one.pid for one in members if one.pid in roots}
    while more := {one.pid for one in members if one.parent in tree} - tree:
        tree |= more
    return sorted(tree)


def pause(clone: CloneRecord, session: str | None = None) -> int:
    """Stop them where they are, by SIGSTOP; how many there are."""
    return _to_all(clone, session, signal.SIGSTOP)


def resume(clone: CloneRecord, session: str | None = None) -> int:
    """Let them go on, by SIGCONT; how many there are."""
    return _to_all(clone, session, signal.SIGCONT)


def stop(clone: CloneRecord, session: str | None = None, *, grace_s: float = _GRACE_S) -> list[int]:
    """End them: TERM, a grace, KILL; returns the pids of those that live all the same. A paused one goes on for it."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 2.0)):
        if not _to_all(clone, session, number):
            return []
        _to_all(clone, session, signal.SIGCONT)
        deadline = time.monotonic() + wait_s
        while pids_of(clone, session) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    return pids_of(clone, session)


def require_record(app: App, clone_id: str) -> CloneRecord:
    """A living clone by its id; raises NoSuchClone."""
    found = app.registry.clone_by_id(clone_id)
    if found is None:
        raise NoSuchClone(clone_id)
    return found


def _to_all(clone: CloneRecord, session: str | None, number: int) -> int:
    reached: set[int] = set()
    for _ in range(_ROUNDS):
        new = [pid for pid in pids_of(clone, session) if pid not in reached]
        if not new:
            break
        send(new, number)
        reached.update(new)
    return len(reached)


def send(pids: Sequence[int], number: int) -> None:
    """Signal processes that were just looked at; where the kernel can hold one (Linux) it is held and compared."""
    for pid in pids:
        before = sessions.start_ticks(pid)
        with contextlib.suppress(OSError):
            if not hasattr(os, "pidfd_open"):
                os.kill(pid, number)
                continue
            held = os.pidfd_open(pid)
            try:
                if before is not None and sessions.start_ticks(pid) == before:
                    signal.pidfd_send_signal(held, number)
            finally:
                os.close(held)
