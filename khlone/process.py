"""How is another program run? The only place that starts a process.

Argument lists, never a shell; an environment that is built, not inherited by chance; a
timeout that ends the whole process group; output that is bounded. `scrubbed` removes
what git exports to its hooks, which would send a later git to the wrong repository.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from khlone.errors import LIMITS, CommandNotFound, GitMissing, OverLimit
from khlone.values import dataclass

if TYPE_CHECKING:
    import selectors
    import subprocess

#: `git rev-parse --local-env-vars` of git 2.39 to 2.55, plus what hooks add to it.
GIT_LOCAL_VARIABLES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_CONFIG_COUNT",
        "GIT_OBJECT_DIRECTORY",
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_GRAFT_FILE",
        "GIT_INDEX_FILE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_REPLACE_REF_BASE",
        "GIT_PREFIX",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_COMMON_DIR",
        "GIT_REF_STORAGE_FORMAT",
        "GIT_DEFAULT_HASH",
        "GIT_QUARANTINE_PATH",
        "GIT_REFLOG_ACTION",
        "GIT_CHERRY_PICK_HELP",
        "GIT_EDITOR",
        "GIT_SEQUENCE_EDITOR",
        "GIT_NAMESPACE",
        "GIT_EXTERNAL_DIFF",
        "GIT_LITERAL_PATHSPECS",
        "GIT_GLOB_PATHSPECS",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_ICASE_PATHSPECS",
        "GIT_OPTIONAL_LOCKS",
    }
)
_PREFIXES = ("GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_TRACE")

#: A program that was started on this terminal.
Child: TypeAlias = "subprocess.Popen[bytes]"

_CHUNK = 64 << 10
#: How often a child's end is looked for while its pipes are silent, and how long what it leaves running may be.
_SILENCE_S = 0.1
#: How long the output of what a child leaves running is read, in seconds.
_LEFT_BEHIND_S = 1.0
#: Captured output above this many bytes is cut; more than any answer khlone reads.
CAPTURE_BYTES = 256 << 20


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


def scrubbed(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of the environment without the variables that tie a git process to one repository."""
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if name not in GIT_LOCAL_VARIABLES and not name.startswith(_PREFIXES)
    }


@cache
def git_executable() -> str:
    """The absolute path of git, from PATH entries that are absolute; raises GitMissing."""
    entries = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    import shutil

    found = shutil.which("git", path=os.pathsep.join(entries))
    if found is None:
        raise GitMissing
    return found


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = 600.0,
    keep_open: Sequence[int] = (),
    capture_bytes: int = CAPTURE_BYTES,
    started: Callable[[int], None] | None = None,
    heard: Callable[[bytes], None] | None = None,
    given_up: Callable[[], bool] = lambda: False,
    own_stdin: bool = False,
) -> Completed:
    """Run a program to its end with captured output; never raises for its exit status.

    `keep_open` descriptors are inherited (the operation lock, by git children that write).
    The child leads a session of its own, without this terminal; its process group is ended
    on time-out and on an exception. Of each stream the first `capture_bytes` are kept, the rest is read and
    dropped (`truncated`). What the program leaves running is not waited for, even where
    it holds the output open. `started` is told the pid once it runs, `heard` all that it says on
    both streams, as it comes. Once `given_up` says so, the program is ended as on time-out. With
    `own_stdin` it reads what this process would. Raises CommandNotFound or OverLimit.
    """
    import subprocess

    try:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if environment is None else dict(environment),
            stdin=None if own_stdin else subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(keep_open),
            # Without a terminal: a program that asks there would be stopped for it, and waited for in vain.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise _not_started(argv[0], cwd, error) from error
    try:
        if started is not None:
            started(child.pid)
        return _Conversation(child, stdin or b"", capture_bytes, heard, given_up).to_end(timeout_s)
    except BaseException:
        if child.returncode is None:
            end_group(child.pid)
            child.wait()
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _not_started(program: str, cwd: Path | None, error: OSError | ValueError) -> CommandNotFound | OverLimit:
    if isinstance(error, ValueError):
        return CommandNotFound(program, str(error))
    why = os.strerror(error.errno or 0).lower()
    if error.errno in LIMITS:
        return OverLimit(f"cannot run {program!r}", why)
    if cwd is not None and error.filename == cwd:
        why = f"{why}: {cwd}"
    return CommandNotFound(program, why)


class _Conversation:
    """What goes to a child and comes from it, until it has ended and said all."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        given: bytes,
        capture_bytes: int,
        heard: Callable[[bytes], None] | None,
        given_up: Callable[[], bool],
    ) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._given = memoryview(given)
        self._most = capture_bytes
        self._heard = heard
        self._given_up = given_up
        self._kept = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
        self._input = None if child.stdin is None else child.stdin.fileno()
        self._truncated = False

    def to_end(self, timeout_s: float) -> Completed:
        """Talk until the child has ended; on time-out end it and its group first."""
        deadline = time.monotonic() + timeout_s
        timed_out = False
        import selectors
        import subprocess

        with selectors.DefaultSelector() as selector:
            for output in self._kept:
                selector.register(output, selectors.EVENT_READ)
            if self._input is not None:
                os.set_blocking(self._input, False)
                selector.register(self._input, selectors.EVENT_WRITE)
            try:
                self._talk(selector, deadline)
                self._await_end(deadline)
            except subprocess.TimeoutExpired:
                timed_out = True
                end_group(self._child.pid)
                self._child.wait()
                self._talk(selector, deadline)
        stdout, stderr = map(bytes, self._kept.values())
        return Completed(
            status=self._child.returncode,
            stdout=stdout,
            stderr=stderr,
            timed_out=timed_out,
            truncated=self._truncated,
        )

    def _await_end(self, deadline: float) -> None:
        """Wait for a child that has closed its pipes; raises TimeoutExpired when that is over or given up."""
        import subprocess

        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            try:
                self._child.wait(min(left_s, _SILENCE_S))
            except subprocess.TimeoutExpired:
                if left_s <= _SILENCE_S or self._given_up():
                    raise
            else:
                return

    def _talk(self, selector: selectors.BaseSelector, deadline: float) -> None:
        """Serve the pipes until they are closed, or the child has ended and what it left running is silent."""
        import subprocess

        ended_at: float | None = None
        while selector.get_map():
            now = time.monotonic()
            if ended_at is None and self._child.poll() is not None:
                ended_at = now
            if ended_at is None and (now >= deadline or self._given_up()):
                raise subprocess.TimeoutExpired(self._child.args, 0.0)
            if ended_at is not None and now >= ended_at + _LEFT_BEHIND_S:
                return
            ready = selector.select(_SILENCE_S if ended_at is not None else min(_SILENCE_S, deadline - now))
            if ended_at is not None and not ready:
                return
            for key, _ in ready:
                if not (self._give(key.fd) if key.fd == self._input else self._take(key.fd)):
                    selector.unregister(key.fd)

    def _give(self, descriptor: int) -> bool:
        """Write what fits; says whether there is more to come."""
        try:
            self._given = self._given[os.write(descriptor, self._given[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self._given = self._given[:0]
        if not self._given and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        return len(self._given) > 0

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


def end_group(pid: int, *, grace_s: float = 2.0) -> None:
    """End the process group that `pid` leads: TERM, a grace, KILL. `pid` must be our unreaped child."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, signal_number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + grace_s
        while signal_number == signal.SIGTERM and time.monotonic() < deadline:
            if not hasattr(os, "waitid"):  # macOS before Python 3.13
                time.sleep(grace_s)
                break
            try:
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
            except ChildProcessError:
                return
            time.sleep(0.01)


def await_foreground(child: Child) -> None:
    """Wait until a child has ended, without taking note of how: its pid stays its own until `child.wait()`.

    No signal handler may raise in the meantime.
    """
    if hasattr(os, "waitid"):  # macOS before Python 3.13 has none
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def start_foreground(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> Child:
    """Start a program on this terminal, in our process group; raises CommandNotFound or OverLimit."""
    import subprocess

    try:
        return subprocess.Popen(list(argv), cwd=cwd, env=dict(environment))
    except OSError as error:
        raise _not_started(argv[0], None, error) from error


def start_detached(argv: Sequence[str], *, environment: Mapping[str, str]) -> None:
    """Start a program that outlives this one, in a session of its own, with nothing to read or write.

    It holds no folder and no descriptor of ours. Raises CommandNotFound or OverLimit.
    """
    import subprocess

    try:
        child = subprocess.Popen(
            list(argv),
            cwd="/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise _not_started(argv[0], None, error) from error
    # Nobody waits for it: without this the end of this process would warn of it.
    child.returncode = 0


def end_marked(variable: str, value: str) -> int:
    """Kill every process that was started with this variable of this value, and return how many there were.

    What left its process group is reached too; a process that cleared its environment is
    not. Only where /proc shows environments and a process can be held (Linux).
    """
    if not hasattr(os, "pidfd_open"):
        return 0
    mark = b"\0" + f"{variable}={value}".encode() + b"\0"
    ended: set[int] = set()
    while True:
        found = {pid for pid in map(int, filter(str.isdecimal, _listed("/proc"))) if _kill_marked(pid, mark)}
        if not found - ended:
            return len(ended)
        ended |= found


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _kill_marked(pid: int, mark: bytes) -> bool:
    """Kill one process if it has the mark; held first, so that a number that is reused hits nobody."""
    if pid == os.getpid():
        return False
    try:
        held = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            if mark not in b"\0" + stream.read():
                return False
        signal.pidfd_send_signal(held, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
