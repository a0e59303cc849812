"""Which processes belong to a clone, and do they live?

A process is (pid, start ticks, boot id, host), never a pid alone. When unsure whether an
owner lives, it lives. psutil is the source for whatever needs a look at other processes
and is imported only then; one's own identity is read without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from khlone.model import ProcessIdentity
from khlone.values import dataclass

TERM_GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProcess:
    """A live process with its working folder inside a clone."""

    pid: int
    name: str
    created: float

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


@cache
def boot_id() -> str | None:
    """The kernel's id of this boot, `None` where it has none to tell."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()
    return None


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, `None` where that cannot be read; a zombie has none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if len(fields) < 20 or fields[0] == b"Z" else int(fields[19])


def identity(pid: int | None = None) -> ProcessIdentity:
    """The identity of a process, by default of this one."""
    number = os.getpid() if pid is None else pid
    return ProcessIdentity(pid=number, start_ticks=start_ticks(number), boot_id=boot_id(), host=os.uname().nodename)


def may_live(owner: ProcessIdentity) -> bool:
    """Whether a process may still be alive: False only when it is certainly gone."""
    if owner.host != os.uname().nodename:
        return True
    if owner.boot_id is not None and boot_id() is not None and owner.boot_id != boot_id():
        return False
    if owner.pid <= 0:
        return False
    if os.path.exists("/proc/self/stat"):
        ticks = start_ticks(owner.pid)
        return ticks is not None and (owner.start_ticks is None or ticks == owner.start_ticks)
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def processes_inside(folder: Path) -> list[FoundProcess]:
    """Every process whose working folder lies in `folder`, khlone itself and its ancestors aside."""
    import psutil

    ours = {os.getpid()}
    with contextlib.suppress(psutil.Error):
        ours |= {parent.pid for parent in psutil.Process().parents()}
    root = os.path.realpath(folder)
    found = []
    for candidate in psutil.process_iter(["cwd", "name", "status", "create_time"]):
        facts = candidate.info
        cwd = facts["cwd"]
        if candidate.pid in ours or not cwd or facts["status"] == psutil.STATUS_ZOMBIE:
            continue
        if cwd == root or cwd.startswith(root + os.sep):
            found.append(FoundProcess(pid=candidate.pid, name=facts["name"] or "?", created=facts["create_time"]))
    return found


def end_processes(processes: Iterable[FoundProcess], *, grace_s: float = TERM_GRACE_S) -> list[FoundProcess]:
    """TERM, a grace, then KILL; returns those that are alive all the same.

    Each is signalled only while it is the process that was found, by its start time.
    """
    import psutil

    wanted = []
    for found in processes:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(found.pid)
            if process.create_time() == found.created:
                wanted.append((process, found))
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process, _ in wanted:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal_number)
        _, alive = psutil.wait_procs([process for process, _ in wanted], timeout=grace_s)
        still = {process.pid for process in alive}
        wanted = [(process, found) for process, found in wanted if process.pid in still and _running(process)]
        if not wanted:
            break
    return [found for _, found in wanted]


def _running(process: object) -> bool:
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def git_processes_near(folders: Sequence[Path]) -> list[FoundProcess]:
    """Live git processes that work in one of the folders; used before a stale lock is judged dead."""
    import psutil

    roots = [os.path.realpath(folder) for folder in folders]
    callers: set[int] = set()
    with contextlib.suppress(psutil.Error):
        callers = {parent.pid for parent in psutil.Process().parents()}
    found = []
    for candidate in psutil.process_iter(["cwd", "name", "status", "create_time", "cmdline"]):
        facts = candidate.info
        name = facts["name"] or ""
        if not name.startswith("git") or name.startswith("git-khlone") or facts["status"] == psutil.STATUS_ZOMBIE:
            continue
        cwd = facts["cwd"]
        words = facts["cmdline"] or []
        if candidate.pid in callers and "khlone" in words:
            continue  # `git khlone ...`: git waits for this very process
        near = cwd is None or any(cwd == root or cwd.startswith(root + os.sep) for root in roots)
        named = any(word.startswith(tuple(roots)) for word in words if word.startswith("/"))
        if near or named:
            found.append(FoundProcess(pid=candidate.pid, name=name, created=facts["create_time"]))
    return found


def session_processes(owner: ProcessIdentity, *, known: set[int]) -> list[FoundProcess]:
    """A recorded session's process and its descendants, those in `known` and khlone's ancestors aside."""
    import psutil

    ours = {os.getpid()}
    found = []
    with contextlib.suppress(psutil.Error):
        ours |= {parent.pid for parent in psutil.Process().parents()}
        root = psutil.Process(owner.pid)
        for process in (root, *root.children(recursive=True)):
            if process.pid not in ours | known and process.status() != psutil.STATUS_ZOMBIE:
                found.append(FoundProcess(pid=process.pid, name=process.name(), created=process.create_time()))
    return found
