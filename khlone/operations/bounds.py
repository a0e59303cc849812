"""Has a session had its time or too much memory, or does nothing happen in it any more?

It stalls while nothing is said, nothing but the bytes that an event loop passes to itself
is read or written by any of its processes, none is started, and none is paused. Where
that cannot be seen of a process (no /proc, another user's) only what is said counts.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator

from khlone import busy_poll, trees
from khlone.errors import InvalidSetting, UsageError
from khlone.operations import steering
from khlone.setting_table import as_bytes, as_seconds
from khlone.trees import Tree
from khlone.values import dataclass

#: What happens in a session is looked at so many times in the time that it may do nothing, but no more often.
_LOOKS, _INTERVAL_S = 8, 1.0
_POLL_S = 0.05
#: How long a session that has passed a bound may take to end, and one that eats up the memory of all, in seconds.
GRACE_S, _URGENT_GRACE_S = 10.0, 2.0
#: No process takes less memory than this, and no machine has more.
_LEAST_BYTES, _MOST_BYTES = 1 << 20, 1 << 50
#: Seconds between two looks at the memory of a session that has a bound.
_WEIGH_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long a session may run, and do nothing, in seconds, and how much memory it may take; `None` for any."""

    max_time_s: float | None = None
    stall_s: float | None = None
    max_memory_bytes: int | None = None


NO_BOUNDS = Bounds()


def parsed(*, max_time: str | None, stall: str | None, max_memory: str | None = None) -> Bounds:
    """The bounds that options say; raises UsageError."""
    found: dict[str, float | None] = {}
    for option, text in (("--max-time", max_time), ("--stall", stall)):
        try:
            found[option] = None if text is None else as_seconds(option, text)
        except InvalidSetting as error:
            raise UsageError(f"{option} {text!r}: {error.facts['why']}", hint=f"such as {option} 90m or 2h") from error
        if found[option] == 0:
            raise UsageError(f"{option} is to be a second at least")
    return Bounds(max_time_s=found["--max-time"], stall_s=found["--stall"], max_memory_bytes=_bytes(max_memory))


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        found = as_bytes("--max-memory", text)
    except InvalidSetting as error:
        raise UsageError(f"--max-memory {text!r}: {error.facts['why']}", hint="such as --max-memory 4G") from error
    if not _LEAST_BYTES <= found <= _MOST_BYTES:
        raise UsageError(f"--max-memory {text!r}: it must be 1M to 1024T", hint="such as --max-memory 4G")
    return found


class Clock:
    """Looks after the bounds of one session from now on; `pid` is its process, `pids` are all of it."""

    def __init__(self, bounds: Bounds, pid: int, pids: Callable[[], Collection[int] | None] = lambda: None) -> None:
        self._bounds, self._pid, self._pids = bounds, pid, pids
        self._weighed_s = time.monotonic()
        #: How long it may take to end: less where the machine is in danger.
        self.grace_s = GRACE_S
        self._began_s = self._active_s = self._looked_s = time.monotonic()
        self._before: Tree | None = trees.look(pid) if bounds.stall_s is not None else None

    def heard(self) -> None:
        """The session has said something."""
        self._active_s = time.monotonic()

    def due_s(self) -> float | None:
        """In how many seconds `passed` is to be asked again; `None` where there is no bound."""
        now, due = time.monotonic(), []
        if self._bounds.max_time_s is not None:
            due.append(self._began_s + self._bounds.max_time_s - now)
        if self._bounds.stall_s is not None:
            due.append(self._looked_s + self._interval_s(self._bounds.stall_s) - now)
        if self._bounds.max_memory_bytes is not None:
            due.append(self._weighed_s + _WEIGH_S - now)
        return max(0.0, min(due)) if due else None

    def passed(self) -> str | None:
        """Which bound it has passed, for people."""
        now = time.monotonic()
        longest, stall = self._bounds.max_time_s, self._bounds.stall_s
        if self._bounds.max_memory_bytes is not None and now - self._weighed_s >= _WEIGH_S:
            self._weighed_s = now
            taken = self._taken(self._bounds.max_memory_bytes)
            if taken > self._bounds.max_memory_bytes:
                self.grace_s = _URGENT_GRACE_S
                most = self._bounds.max_memory_bytes
                return f"it takes {taken >> 20} MiB of memory, more than {most / (1 << 20):g} (--max-memory)"
        if longest is not None and now - self._began_s >= longest:
            return f"it has run for {longest:g} s (--max-time)"
        if stall is not None and now - self._looked_s >= self._interval_s(stall):
            self._look(now)
            if now - self._active_s >= stall:
                return f"it has done nothing for {stall:g} s (--stall)"
        return None

    def _taken(self, most: int) -> int:
        """The memory of all of it: what is shared counts by share, where it would be too much otherwise."""
        pids = self._pids()
        if pids is None:
            tree = trees.look(self._pid)
            pids = () if tree is None else tree.processes.keys()
        taken = trees.rss_bytes(pids)
        return taken if taken <= most else trees.pss_bytes(pids) or taken

    @staticmethod
    def _interval_s(stall_s: float) -> float:
        return min(stall_s, max(_INTERVAL_S, stall_s / _LOOKS))

    def _look(self, now: float) -> None:
        before, self._before, self._looked_s = self._before, trees.look(self._pid), now
        if before is not None and self._before is not None and _happens(before, self._before):
            self._active_s = now


def _happens(before: Tree, now: Tree) -> bool:
    passed_s = now.at_s - before.at_s
    for pid, new in now.processes.items():
        old = before.processes.get(pid)
        if old is None or old.start_ticks != new.start_ticks or new.state in "Tt":
            return True
        if not busy_poll.is_silent(old, new, passed_s):
            return True
    return False


@contextlib.contextmanager
def enforced(
    bounds: Bounds, pid: int, *, passed: Callable[[str], None], pids: Callable[[], Collection[int] | None]
) -> Iterator[None]:
    """Look after a session for the length of the block, by a thread of its own; `passed` is told why it is ended."""
    clock, over = Clock(bounds, pid, pids), threading.Event()

    def work() -> None:
        while (due_s := clock.due_s()) is not None and not over.wait(due_s):
            why = clock.passed()
            if why is not None:
                passed(why)
                _end(pid, over, clock.grace_s)
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _end(pid: int, over: threading.Event, grace_s: float) -> None:
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 0.0)):
        tree = trees.look(pid)
        if tree is None:
            return
        steering.send(list(tree.processes), number)
        steering.send(list(tree.processes), signal.SIGCONT)
        deadline = time.monotonic() + wait_s
        while trees.look(pid) is not None and time.monotonic() < deadline and not over.wait(_POLL_S):
            pass
