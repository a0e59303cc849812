"""How is a child whose output is captured started, talked to, and seen to its end?

By `posix_spawn` where it can do all that is asked for, else by `subprocess`, whose import
alone costs more than a small git takes. One loop serves any number of children.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import procfs
from khlone.values import dataclass

if TYPE_CHECKING:
    import subprocess

_CHUNK = 64 << 10
#: How often a child's end is looked for while its pipes are silent, in seconds.
_SILENCE_S = 0.1
#: How long the output of what a child leaves running is read, in seconds.
_LEFT_BEHIND_S = 1.0
#: A child that has closed its pipes is about to end: how often it is looked for at once, and after which pause.
_AT_ONCE = 10
_MOMENT_S = 0.0002
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a captured process ended. `status` is negative for a signal, as in `subprocess`."""

    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False

    @property
    def text(self) -> str:
        """stdout, undecodable bytes kept as surrogates."""
        return self.stdout.decode(errors="surrogateescape")

    @property
    def error_text(self) -> str:
        """stderr for people: undecodable bytes replaced."""
        return self.stderr.decode(errors="replace")


def end_group(pid: int, *, grace_s: float = 2.0) -> None:
    """End the process group that `pid` leads: TERM, a grace for all of it, KILL. `pid` must be our unreaped child.

    The grace is over once nobody of the group runs any more; where the system does not
    list its processes (macOS) it is waited out.
    """
    try:
        os.killpg(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and _is_alive(pid):
            time.sleep(0.03)
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _is_alive(group: int) -> bool:
    """Whether anybody of a group still runs; a dead leader that nobody has waited for does not."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return True
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, _, of = procfs.stat_fields(pid)[:3]
            if int(of) == group and state not in (b"Z", b"X"):
                return True
    return False


def abandon(child: Child) -> None:
    """End a child and its group, if it still runs, and close what is open."""
    if child.poll() is None:
        end_group(child.pid)
        child.wait()
    child.close()


# -- starting ------------------------------------------------------------------------------


class Child:
    """A child in a session of its own, and our ends of its pipes; `input` is `None` where nothing is given."""

    def __init__(self, pid: int, given: int | None, outputs: Sequence[int]) -> None:
        self.pid = pid
        self.status: int | None = None
        self.input = given
        self.outputs = outputs

    def poll(self) -> int | None:
        """Its status, `None` while it runs."""
        if self.status is None:
            self._reap(os.WNOHANG)
        return self.status

    def wait(self) -> int:
        """Wait for its end, without a bound."""
        while self.status is None:
            self._reap(0)
        return self.status

    def _reap(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # where SIGCHLD is ignored nobody learns how it ended
            self.status = 0
        else:
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)

    def close_input(self) -> None:
        """Let it read an end."""
        if self.input is not None:
            os.close(self.input)
            self.input = None

    def close(self) -> None:
        """Close what is open of the pipes."""
        self.close_input()
        for descriptor in self.outputs:
            os.close(descriptor)


class _Opened(Child):
    """A child of `subprocess`."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        given = None if child.stdin is None else child.stdin.fileno()
        super().__init__(child.pid, given, (child.stdout.fileno(), child.stderr.fileno()))
        self._child = child

    def close_input(self) -> None:
        """Let it read an end."""
        self.input = None
        if self._child.stdin is not None:
            self._child.stdin.close()

    def close(self) -> None:
        """Close what is open of the pipes."""
        self.close_input()
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()

    def _reap(self, options: int) -> None:
        self.status = self._child.poll() if options else self._child.wait()


def start(
    argv: Sequence[str],
    *,
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    has_input: bool,
    keep_open: Sequence[int] = (),
    own_stdin: bool = False,
) -> Child:
    """Start a program; raises OSError, or ValueError for an argument that no program can have."""
    # Elsewhere than on Linux a descriptor cannot be kept open by giving it its own number.
    may_keep = not keep_open or sys.platform == "linux"
    if cwd is None and may_keep and os.path.isabs(argv[0]) and hasattr(os, "posix_spawn"):
        child = _spawned(argv, os.environ if environment is None else environment, has_input, keep_open, own_stdin)
        if child is not None:
            return child
    import subprocess

    return _Opened(
        subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if environment is None else dict(environment),
            stdin=None if own_stdin else subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(keep_open),
            # Without a terminal: a program that asks there would be stopped for it, and waited for in vain.
            start_new_session=True,
        )
    )


def _spawned(
    argv: Sequence[str], environment: Mapping[str, str], has_input: bool, keep_open: Sequence[int], own_stdin: bool
) -> Child | None:
    pipes: list[int] = []
    try:
        # As many for each: where one that is given something would find too few, none before it may begin either.
        for _ in range(3):
            pipes += os.pipe()
        if not has_input:
            _close(pipes[4:])
            del pipes[4:]
        if min(pipes) <= 2:  # one of our own streams is closed: the numbers would be in each other's way
            raise NotImplementedError
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
        if not own_stdin:
            actions.append((os.POSIX_SPAWN_DUP2, pipes[4], 0) if has_input else null)
        actions += [(os.POSIX_SPAWN_DUP2, pipes[1], 1), (os.POSIX_SPAWN_DUP2, pipes[3], 2)]
        actions += [(os.POSIX_SPAWN_CLOSE, one) for one in _inherited() if one not in keep_open]
        actions += [(os.POSIX_SPAWN_DUP2, one, one) for one in keep_open]
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            environment,
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
    except BaseException as error:
        _close(pipes)
        # A system that cannot do it so; or a descriptor to be closed lies above a limit that was set since.
        if isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno == errno.EBADF):
            return None
        raise
    else:
        ours = [pipes[0], pipes[2], *pipes[5:6]]
        _close(set(pipes) - set(ours))
        return Child(pid, pipes[5] if has_input else None, (pipes[0], pipes[2]))


def _inherited() -> list[int]:
    """The descriptors above the three streams that a child would get, for whoever started us left them open.

    Raises NotImplementedError where the system does not list them.
    """
    found = []
    try:
        listed = os.listdir("/dev/fd")
    except OSError:
        raise NotImplementedError from None
    for name in listed:
        with contextlib.suppress(OSError):  # the one that lists them is closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


# -- talking -------------------------------------------------------------------------------


class Conversation:
    """What goes to a child and comes from it, until it has ended and said all."""

    def __init__(
        self,
        child: Child,
        *,
        given: bytes = b"",
        capture_bytes: int,
        timeout_s: float,
        heard: Callable[[bytes], None] | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.child = child
        self._given = memoryview(given)
        self._most = capture_bytes
        self._heard = heard
        self._given_up = given_up
        self._kept = {output: bytearray() for output in child.outputs}
        self._talks = dict.fromkeys(child.outputs, _READABLE)
        if child.input is not None:
            os.set_blocking(child.input, False)
            self._talks[child.input] = select.POLLOUT
        self._deadline = time.monotonic() + timeout_s
        self._ended_at: float | None = None
        self._timed_out = False
        self._truncated = False

    @property
    def talks(self) -> Mapping[int, int]:
        """The descriptors to watch, with the events that matter."""
        return self._talks

    def patience_s(self) -> float:
        """How long this one can be left alone while nothing is heard, in seconds."""
        if self._ended_at is not None:
            return _SILENCE_S
        return max(min(_SILENCE_S, self._deadline - time.monotonic()), 0.0)

    def go_on(self, ready: Sequence[int]) -> Completed | None:
        """Serve what is ready, look for the end; returns how it went once it is over."""
        had_ended = self._ended_at is not None
        for descriptor in ready:
            if not (self._give(descriptor) if descriptor == self.child.input else self._take(descriptor)):
                self._talks.pop(descriptor)
        now = time.monotonic()
        if had_ended and (not ready or now >= (self._ended_at or 0.0) + _LEFT_BEHIND_S):
            return self._completed()
        if not had_ended and self._has_ended():
            self._ended_at = now
        elif not had_ended and (now >= self._deadline or self._given_up()):
            self._timed_out = True
            end_group(self.child.pid)
            self.child.wait()
            self._ended_at = time.monotonic()
        return self._completed() if self._ended_at is not None and not self._talks else None

    def _has_ended(self) -> bool:
        tries = 1 if self._talks else _AT_ONCE
        for _ in range(tries - 1):
            if self.child.poll() is not None:
                return True
            time.sleep(_MOMENT_S)
        return self.child.poll() is not None

    def _completed(self) -> Completed:
        stdout, stderr = map(bytes, self._kept.values())
        return Completed(
            status=self.child.wait(),
            stdout=stdout,
            stderr=stderr,
            timed_out=self._timed_out,
            truncated=self._truncated,
        )

    def _give(self, descriptor: int) -> bool:
        """Write what fits; says whether there is more to come."""
        try:
            self._given = self._given[os.write(descriptor, self._given[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self._given = self._given[:0]
        if self._given:
            return True
        with contextlib.suppress(OSError):
            self.child.close_input()
        return False

    def _take(self, descriptor: int) -> bool:
        """Read what is there; says whether there may be more to come."""
        chunk = os.read(descriptor, _CHUNK)
        if self._heard is not None and chunk:
            self._heard(chunk)
        kept = self._kept[descriptor]
        room = self._most - len(kept)
        kept += chunk[:room]
        self._truncated = self._truncated or len(chunk) > room
        return bool(chunk)


def converse(begun: Iterator[Conversation], *, at_once: int) -> Iterator[tuple[Conversation, Completed]]:
    """See conversations to their end, `at_once` of them at a time, each begun when its turn comes.

    Yields them as they end. Whatever raises, and a consumer that goes away, ends every child that runs.
    """
    live: list[Conversation] = []
    more = True
    try:
        while True:
            while more and len(live) < at_once:
                fresh = next(begun, None)
                more = fresh is not None
                if fresh is not None:
                    live.append(fresh)
            if not live:
                return
            for one, completed in _round(live):
                live.remove(one)
                one.child.close()
                yield one, completed
    finally:
        for one in live:
            abandon(one.child)


def _round(live: Sequence[Conversation]) -> Iterator[tuple[Conversation, Completed]]:
    """Wait until anything happens to one of them, and let each go on."""
    watched = select.poll()
    for one in live:
        for descriptor, events in one.talks.items():
            watched.register(descriptor, events)
    happened = {descriptor for descriptor, _ in watched.poll(min(one.patience_s() for one in live) * 1000)}
    for one in list(live):
        completed = one.go_on([descriptor for descriptor in list(one.talks) if descriptor in happened])
        if completed is not None:
            yield one, completed
