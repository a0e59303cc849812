"""How is a process that was started for a session, with all that it starts itself, seen to its end?

Whoever attends is its parent, and the nearest subreaper: what forks twice and leaves its
group comes back to it as a child. The session has ended when nothing of it is left: what
the process leaves behind is told to end, and killed after a grace. Other sessions that it
has started have supervisors of their own, and are left alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

from khlone import process, sessions, trees
from khlone.operations import steering
from khlone.operations.bounds import GRACE_S as GRACE_S
from khlone.operations.bounds import NO_BOUNDS, Bounds, Clock
from khlone.operations.run import SUPERVISES
from khlone.process import Apart

#: How long what a process has left behind may take to end once it was told to, in seconds.
LEFT_GRACE_S = 3.0
#: How often what is about to end is looked for, in seconds.
_POLL_S = 0.05
#: How long one that is about to end by itself is given for that, in seconds.
_SOON_S = 2.0
#: How long the output of what is out of sight is read, in seconds.
_LEFT_BEHIND_S = 1.0
_CHUNK = 64 << 10
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Signals:
    """From here on SIGTERM and SIGINT are noted, SIGHUP is not heard, and each of them, and SIGCHLD, ends a wait."""

    def __init__(self) -> None:
        self.told_to_end = False
        self.descriptor, self._end = os.pipe()
        for one in (self.descriptor, self._end):
            os.set_blocking(one, False)
        signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        # Not ignored: that would be handed down to what is started.
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _note(self, *_: object) -> None:
        self.told_to_end = True

    def wait(self, timeout_s: float) -> None:
        """Wait for the next one, for so long at most."""
        select.select([self.descriptor], [], [], timeout_s)
        self.clear()

    def clear(self) -> None:
        """Wait for the next one."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, _CHUNK):
                pass


def below(token: str, root: int | None = None) -> list[int] | None:
    """All that runs below this process, or another supervisor of that mark; `None` where that cannot be seen.

    Neither supervisors nor what is below one of another session is among it.
    """
    tree = trees.look(os.getpid() if root is None else root)
    if tree is None:
        return None
    marks = {pid: sessions.environment_of(pid).get(SUPERVISES) for pid in tree.processes}
    aside = {pid for pid, mark in marks.items() if mark not in (None, token)}
    for pid in list(aside):
        aside |= {one.pid for one in tree.below(pid)}
    # One that is just being started still has what its parent was started with.
    ours = {pid for pid, mark in marks.items() if mark == token and root is not None}
    return [pid for pid in tree.processes if pid not in aside | ours | {tree.root}]


def told_of_left(count: int) -> str:
    """What a session has left behind, for people."""
    return f"{count} {'process was' if count == 1 else 'processes were'} left behind, and ended"


class Attended:
    """One process, until it and all that it has started has ended.

    `said` gets each piece of its output, and whether it came by stdout; `given` is what it reads.
    `look` is called whenever something has happened.
    """

    def __init__(
        self,
        child: Apart,
        *,
        token: str,
        heard: Signals,
        said: Callable[[bytes, bool], None],
        given: bytes = b"",
        bounds: Bounds = NO_BOUNDS,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self.child, self._token, self._signals, self._said = child, token, heard, said
        self._clock = Clock(bounds, child.pid, lambda: below(token))
        self._look = look
        #: Why it was ended, where it was not by itself.
        self.reason: str | None = None
        #: How many processes it has left behind that were ended.
        self.left = 0
        self._end_at: float | None = None
        self._kill_at: float | None = None
        self._ended_at: float | None = None
        self._open = set(child.outputs)
        self._given = memoryview(given)
        if child.input is not None:
            os.set_blocking(child.input, False)

    def end(self, reason: str | None, *, grace_s: float = GRACE_S) -> None:
        """Begin to end it: TERM now, KILL after the grace."""
        if self._kill_at is None:
            self.reason = self.reason or reason
            self._kill_at = time.monotonic() + grace_s
            self._signal(signal.SIGTERM)

    def end_soon(self, reason: str) -> None:
        """End it, unless it ends by itself within a moment."""
        if self._kill_at is None and self._end_at is None:
            self.reason = self.reason or reason
            self._end_at = time.monotonic() + _SOON_S

    def see_out(self) -> int:
        """Wait until nothing of it is left; returns the status of the process."""
        while True:
            self._look()
            self._reap()
            now = time.monotonic()
            if self._signals.told_to_end:
                self.end("it was told to end")
            why = self._clock.passed() if self._kill_at is None and self.child.status is None else None
            if why is not None:
                self.end(why, grace_s=self._clock.grace_s)
            if self._end_at is not None and now >= self._end_at and self.child.status is None:
                self.end(self.reason)
            if self.child.status is not None and self._is_over(now):
                return self.child.status
            if self._kill_at is not None and now >= self._kill_at:
                self._signal(signal.SIGKILL)
            is_ending = any(one is not None for one in (self._end_at, self._kill_at, self._ended_at))
            self._listen(_POLL_S if is_ending else self._clock.due_s())

    def _is_over(self, now: float) -> bool:
        """Whether all has ended and all was said, once the process itself has ended."""
        if self._ended_at is None:
            self._ended_at = now
        rest = below(self._token)
        if rest is None:
            self._signal(signal.SIGKILL)
        elif rest:
            if self._kill_at is None:
                self.left = len(rest)
                self.end(None, grace_s=LEFT_GRACE_S)
            return False
        return not self._open or now >= self._ended_at + _LEFT_BEHIND_S

    def _signal(self, number: int) -> None:
        pids = below(self._token)
        if pids is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, number)
            return
        steering.send(pids, number)
        # One that is paused would not hear of it.
        steering.send(pids, signal.SIGCONT)

    def _reap(self) -> None:
        """Take note of every child that has ended, also of those that have become ours."""
        self.child.poll()
        if not hasattr(os, "waitid"):  # macOS before Python 3.13, where nothing becomes ours
            return
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid != self.child.pid:
                    os.waitpid(ended.si_pid, os.WNOHANG)
                elif self.child.poll() is None:
                    return

    def _listen(self, timeout_s: float | None) -> None:
        watched = select.poll()
        watched.register(self._signals.descriptor, select.POLLIN)
        for output in self._open:
            watched.register(output, _READABLE)
        if self.child.input is not None:
            watched.register(self.child.input, select.POLLOUT)
        for descriptor, _ in watched.poll(None if timeout_s is None else timeout_s * 1000):
            if descriptor == self._signals.descriptor:
                self._signals.clear()
                continue
            if descriptor == self.child.input:
                self._give(descriptor)
                continue
            chunk = os.read(descriptor, _CHUNK)
            if chunk:
                self._clock.heard()
                self._said(chunk, descriptor == self.child.outputs[0])
            else:
                self._open.discard(descriptor)

    def _give(self, descriptor: int) -> None:
        """Write what fits of what it is to read, and let it read an end."""
        try:
            self._given = self._given[os.write(descriptor, self._given[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._given = self._given[:0]
        if not self._given:
            self.child.close_input()


def end_marked(session: str) -> int:
    """Kill what has the mark of a session and is out of reach otherwise; how many there were."""
    return process.end_marked("KHLONE_SESSION", session)
