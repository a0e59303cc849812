"""How is another program run? The only place that starts a process.

Argument lists, never a shell; an environment that is built, not inherited by chance; a
timeout that ends the whole process group; output that is bounded. `scrubbed` removes
what git exports to its hooks, which would send a later git to the wrong repository.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, TypeAlias, cast

from khlone.errors import CommandNotFound, GitMissing
from khlone.values import dataclass

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
) -> Completed:
    """Run a program to its end with captured output; never raises for its exit status.

    `keep_open` descriptors are inherited (the operation lock, by git children that write).
    The child leads a process group of its own, which is killed on time-out, on an
    exception and when the captured output passes `capture_bytes`.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(keep_open),
            process_group=0,
        )
    except OSError as error:
        raise CommandNotFound(argv[0], os.strerror(error.errno or 0).lower()) from error
    try:
        if capture_bytes >= CAPTURE_BYTES:
            stdout, stderr = child.communicate(stdin, timeout=timeout_s)
            return Completed(status=child.returncode, stdout=stdout, stderr=stderr)
        return _run_bounded(child, stdin, timeout_s, capture_bytes)
    except subprocess.TimeoutExpired:
        end_group(child.pid)
        stdout, stderr = child.communicate()
        return Completed(status=child.returncode, stdout=stdout, stderr=stderr, timed_out=True)
    except BaseException:
        end_group(child.pid)
        child.wait()
        raise
    finally:
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()


def _run_bounded(
    child: subprocess.Popen[bytes], stdin: bytes | None, timeout_s: float, capture_bytes: int
) -> Completed:
    """Drain both pipes to their ends, keeping the first `capture_bytes` of each."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}
    cut = threading.Event()

    def drain(name: str, stream: IO[bytes]) -> None:
        while chunk := stream.read1(65536):  # type: ignore[attr-defined]
            room = capture_bytes - len(kept[name])
            if len(chunk) > room:
                cut.set()
            kept[name] += chunk[: max(room, 0)]

    threads = [
        threading.Thread(target=drain, args=(name, cast("IO[bytes]", getattr(child, name))), daemon=True)
        for name in kept
    ]
    for thread in threads:
        thread.start()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(stdin or b"")
        child.stdin.close()
    timed_out = False
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        end_group(child.pid)
        child.wait()
    for thread in threads:
        thread.join(timeout=2.0)
    return Completed(
        status=child.returncode,
        stdout=bytes(kept["stdout"]),
        stderr=bytes(kept["stderr"]),
        timed_out=timed_out,
        truncated=cut.is_set(),
    )


def end_group(pid: int, *, grace_s: float = 2.0) -> None:
    """End the process group that `pid` leads: TERM, a grace, KILL. `pid` must be our unreaped child."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, signal_number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + grace_s
        while signal_number == signal.SIGTERM and time.monotonic() < deadline:
            try:
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
            except ChildProcessError:
                return
            time.sleep(0.01)


def start_foreground(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> Child:
    """Start a program on this terminal, in our process group; raises CommandNotFound."""
    try:
        return subprocess.Popen(list(argv), cwd=cwd, env=dict(environment))
    except OSError as error:
        raise CommandNotFound(argv[0], os.strerror(error.errno or 0).lower()) from error
