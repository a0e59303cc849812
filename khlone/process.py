"""How is another program run? The only place that starts a process.

Argument lists, never a shell; an environment that is built, not inherited by chance; a
timeout that ends the whole process group; output that is bounded. `scrubbed` removes
what git exports to its hooks, which would send a later git to the wrong repository.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from khlone import children
from khlone.children import Completed as Completed
from khlone.children import end_group as end_group
from khlone.errors import LIMITS, CommandNotFound, GitMissing, OverLimit

if TYPE_CHECKING:
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
#: A program that was started in a session of its own.
Apart: TypeAlias = children.Child

#: By how much a session is the kernel's choice before others when memory runs out, of 1000.
_OOM_WORSE = 200
#: Of prctl(2).
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
#: Captured output above this many bytes is cut; more than any answer khlone reads.
CAPTURE_BYTES = 256 << 20


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
    found = find_program("git", os.environ)
    if found is None:
        raise GitMissing
    return found


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """The absolute path of a program, from entries of that environment's PATH that are absolute."""
    for entry in environment.get("PATH", os.defpath).split(os.pathsep):
        found = os.path.join(entry, name)
        if os.path.isabs(entry) and os.access(found, os.X_OK) and os.path.isfile(found):
            return found
    return None


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
    child = _start(argv, cwd, environment, has_input=stdin is not None, keep_open=keep_open, own_stdin=own_stdin)
    conversation = children.Conversation(
        child,
        given=stdin or b"",
        capture_bytes=capture_bytes,
        timeout_s=timeout_s,
        heard=heard,
        given_up=given_up,
    )
    if started is not None:
        try:
            started(child.pid)
        except BaseException:
            children.abandon(child)
            raise
    ((_, completed),) = children.converse(iter((conversation,)), at_once=1)
    return completed


def run_many(
    asked: Iterable[tuple[Sequence[str], Mapping[str, str]]],
    *,
    at_once: int,
    timeout_s: float = 600.0,
    given_up: Callable[[], bool] = lambda: False,
) -> Generator[tuple[int, Completed | CommandNotFound | OverLimit]]:
    """Run programs, each given as its argument list and environment, `at_once` at a time, without input.

    Yields the place of each in the list and how it ended, as they end; `timeout_s` is for each.
    Once `given_up` says so, what runs is ended as on time-out.
    """
    failed: list[tuple[int, CommandNotFound | OverLimit]] = []
    places: dict[children.Conversation, int] = {}

    def begun() -> Iterator[children.Conversation]:
        for place, (argv, environment) in enumerate(asked):
            try:
                child = _start(argv, None, environment)
            except (CommandNotFound, OverLimit) as error:
                failed.append((place, error))
                continue
            one = children.Conversation(child, capture_bytes=CAPTURE_BYTES, timeout_s=timeout_s, given_up=given_up)
            places[one] = place
            yield one

    for one, completed in children.converse(begun(), at_once=at_once):
        yield places.pop(one), completed
    yield from failed


def _start(
    argv: Sequence[str],
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    *,
    has_input: bool = False,
    keep_open: Sequence[int] = (),
    own_stdin: bool = False,
) -> children.Child:
    try:
        return children.start(
            argv, cwd=cwd, environment=environment, has_input=has_input, keep_open=keep_open, own_stdin=own_stdin
        )
    except (OSError, ValueError) as error:
        raise _not_started(argv[0], cwd, error) from error


def _not_started(program: str, cwd: Path | None, error: OSError | ValueError) -> CommandNotFound | OverLimit:
    if isinstance(error, ValueError):
        return CommandNotFound(program, str(error))
    why = os.strerror(error.errno or 0).lower()
    if error.errno in LIMITS:
        return OverLimit(f"cannot run {program!r}", why)
    if cwd is not None and error.filename == cwd:
        why = f"{why}: {cwd}"
    return CommandNotFound(program, why)


def await_foreground(child: Child) -> None:
    """Wait until a child has ended, without taking note of how: its pid stays its own until `child.wait()`.

    No signal handler may raise in the meantime.
    """
    if hasattr(os, "waitid"):  # macOS before Python 3.13 has none
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


def hear_out(child: subprocess.Popen[bytes], *, timeout_s: float) -> bytes | None:
    """What a child that a library has started says on stdout, `None` where it takes too long; it is ended then."""
    import subprocess

    try:
        return child.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        return None
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


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


def start_apart(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str], has_input: bool = False) -> Apart:
    """Start a program in a session of its own, with pipes to read what it says; whoever calls sees it to its end.

    Without `has_input` it has nothing to read. Raises CommandNotFound or OverLimit.
    """
    return _start(argv, cwd, environment, has_input=has_input)


def start_linked(argv: Sequence[str], *, environment: Mapping[str, str], given: bytes) -> int:
    """Start a program that outlives this one, as `start_detached` does, that reads `given` and may answer.

    Returns the descriptor to read its answer from. Raises CommandNotFound or OverLimit.
    """
    import subprocess

    try:
        child = subprocess.Popen(
            list(argv),
            cwd="/",
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise _not_started(argv[0], None, error) from error
    child.returncode = 0
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin:
        child.stdin.write(given)
    return os.dup(child.stdout.fileno())


def offer_to_oom_killer(pid: int) -> None:
    """Where memory runs out, let the kernel end this process, or one that it starts from now on, before others (Linux).

    So that it is a session that ends, and not who sees sessions through.
    """
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/oom_score_adj", "rb") as stream:
            wanted = min(1000, int(stream.read()) + _OOM_WORSE)
        with open(f"/proc/{pid}/oom_score_adj", "wb") as stream:
            stream.write(str(wanted).encode())


class Guard:
    """A process that lets some others go on (SIGCONT) when this one ends, however it does; `close` ends it before.

    It has a mark of its own in its environment, so that nobody takes it for part of a session.
    """

    def __init__(self, pids: Sequence[int], environment: Mapping[str, str]) -> None:
        import subprocess

        words = ("/bin/sh", "-c", 'read -r _; kill -CONT "$@"', "sh", *map(str, pids))
        self._child: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._child = subprocess.Popen(
                words,
                cwd="/",
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End it; nobody is let go on by it any more."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()
            assert child.stdin is not None
            child.stdin.close()


def wake_at_parents_end() -> None:
    """Let this process get SIGCHLD when its parent ends (Linux)."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGCHLD, 0, 0, 0)


def become_subreaper() -> bool:
    """Let what loses its parent below this process become its child (Linux); says whether that is so."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


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


def find_marked(variable: str, value: str) -> dict[int, tuple[bytes, ...]]:
    """The command lines, by pid, of the processes that were started with this variable of this value, this one aside.

    Nothing where /proc does not show environments.
    """
    mark = b"\0" + f"{variable}={value}".encode() + b"\0"
    found = {}
    for pid in map(int, filter(str.isdecimal, _listed("/proc"))):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as stream:
                is_marked = mark in b"\0" + stream.read()
            if is_marked and pid != os.getpid():
                with open(f"/proc/{pid}/cmdline", "rb") as stream:
                    found[pid] = tuple(stream.read().split(b"\0"))
    return found


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
