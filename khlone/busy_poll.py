"""Does a process turn round and round without doing anything, or does it work?

CPU alone cannot tell: a compile and a loop that polls look alike. A process only counts as
polling while all of this holds, for minutes: it takes most of a core, or would; its event loop turns
(it is seen looking for what is ready, or passes eight bytes to itself many times a second);
nothing but such bytes is read or written; nothing below it uses CPU; and its session files
and logs do not grow. Numbers: measured with Node, docs/limits.md.
"""

from __future__ import annotations

from khlone.trees import Process, Tree

#: A share of a core that is most of it, one that is still much where others want it too, and one that is nothing.
_MUCH, _SOME, _NOTHING = 0.6, 0.1, 0.05
#: Bytes a second beyond the eight that an event loop passes to itself with each call.
_BYTES = 100.0
_OWN_BYTES = 8
#: Calls a second from which on a loop turns.
_TURNS = 20.0
#: The share of looks that must find it looking for what is ready, where it makes no such calls.
_SEEN_SHARE = 0.5


class Detector:
    """Sees one tree again and again; `quiet_s` is how long everything must hold."""

    def __init__(self, quiet_s: float) -> None:
        self._quiet_s = quiet_s
        self._before: tuple[Tree, int] | None = None
        self._suspect: int | None = None
        self._since_s = 0.0
        self._looks = self._polling = self._turning = 0

    def see(self, tree: Tree, activity: int) -> int | None:
        """The pid of a process that polls, once that is sure; `activity` grows with what the session says."""
        before, self._before = self._before, (tree, activity)
        if before is None:
            return None
        suspect = None if before[1] != activity else _suspect(before[0], tree)
        if suspect is None:
            self._suspect = None
            return None
        if suspect.pid != self._suspect:
            self._suspect, self._since_s = suspect.pid, before[0].at_s
            self._looks = self._polling = self._turning = 0
        self._looks += 1
        self._polling += suspect.polls
        self._turning += _turns(before[0].processes[suspect.pid], suspect, tree.at_s - before[0].at_s)
        is_loop = max(self._turning, self._polling) >= self._looks * _SEEN_SHARE
        return suspect.pid if is_loop and tree.at_s - self._since_s >= self._quiet_s else None


def is_active(before: Tree, now: Tree, pid: int) -> bool:
    """Whether a process that is slowed down has something to do: bytes come or go, or something below it works."""
    old, new = before.processes.get(pid), now.processes.get(pid)
    if old is None or new is None:
        return True
    return not is_silent(old, new, now.at_s - before.at_s) or _below_works(before, now, pid)


def _suspect(before: Tree, now: Tree) -> Process | None:
    """The process that takes most of a core and does nothing with it."""
    passed_s = now.at_s - before.at_s
    if passed_s <= 0:
        return None
    for pid, new in now.processes.items():
        old = before.processes.get(pid)
        if old is None or old.start_ticks != new.start_ticks:
            continue
        # On a loaded machine it gets less than it would take.
        used = new.cpu_s - old.cpu_s
        if used < _SOME * passed_s or used + new.delayed_s - old.delayed_s < _MUCH * passed_s:
            continue
        if is_silent(old, new, passed_s) and not _below_works(before, now, pid):
            return new
    return None


def is_silent(old: Process, new: Process, passed_s: float) -> bool:
    """Whether nothing but the bytes of an event loop was read or written; False where that cannot be seen."""
    if old.read is None or new.read is None or old.written is None or new.written is None:
        return False
    allowed = _BYTES * passed_s
    read = new.read - old.read - _OWN_BYTES * (new.reads - old.reads)
    written = new.written - old.written - _OWN_BYTES * (new.writes - old.writes)
    return read <= allowed and written <= allowed


def _below_works(before: Tree, now: Tree, pid: int) -> bool:
    passed_s = now.at_s - before.at_s
    used = sum(one.cpu_s + one.waited_s for one in now.below(pid)) + now.processes[pid].waited_s
    was = sum(one.cpu_s + one.waited_s for one in before.below(pid)) + before.processes[pid].waited_s
    return used - was > _NOTHING * passed_s


def _turns(old: Process, new: Process, passed_s: float) -> bool:
    return (new.reads - old.reads) + (new.writes - old.writes) >= _TURNS * passed_s
