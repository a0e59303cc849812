"""Which processes belong to a clone, and do they live?

A process is (pid, pid namespace, start ticks, boot id, host), never a pid alone. When unsure
whether an owner lives, it lives: so on another host, and so in another pid namespace that
somebody may be in.
psutil is the source for whatever needs a look at other processes and is imported only
then; one's own identity is read without it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import procfs
from khlone.model import ProcessIdentity
from khlone.values import dataclass

if TYPE_CHECKING:
    import psutil

TERM_GRACE_S = 10.0
#: How often the end of processes is looked for, in seconds.
_POLL_S = 0.02


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


def _proc_is_anothers() -> bool:
    """Whether /proc has the numbers of another pid namespace: a new one may still see its parent's."""
    try:
        return os.readlink("/proc/self") != str(os.getpid())
    except OSError:
        return False


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, `None` where that cannot be read; a zombie has none."""
    if _proc_is_anothers():
        return None
    try:
        return _ticks(procfs.stat_fields(pid))
    except OSError:
        return None


def _ticks(fields: Sequence[bytes]) -> int | None:
    return None if len(fields) < 20 or fields[0] in (b"Z", b"X") else int(fields[19])


def identity(pid: int | None = None) -> ProcessIdentity:
    """The identity of a process, by default of this one."""
    number = os.getpid() if pid is None else pid
    return ProcessIdentity(
        pid=number,
        start_ticks=start_ticks(number),
        boot_id=boot_id(),
        host=os.uname().nodename,
        pid_namespace=procfs.pid_namespace(),
    )


def out_of_sight(owner: ProcessIdentity) -> str | None:
    """Where a process is that cannot be looked at from here, for people; `None` when it can, or is certainly gone."""
    if owner.host != os.uname().nodename:
        return f"on {owner.host}"
    if _booted_since(owner):
        return None
    ours = procfs.pid_namespace()
    known = owner.pid_namespace is not None and ours is not None
    return "in another pid namespace" if known and owner.pid_namespace != ours else None


def _booted_since(owner: ProcessIdentity) -> bool:
    return owner.boot_id is not None and boot_id() is not None and owner.boot_id != boot_id()


def may_live(owner: ProcessIdentity) -> bool:
    """Whether a process may still be alive: False only when it is certainly gone."""
    if out_of_sight(owner) is not None:
        return not _is_with_a_namespace_gone(owner)
    if _booted_since(owner) or owner.pid <= 0:
        return False
    if _proc_is_anothers():
        return _answers(owner.pid)
    try:
        ticks = _ticks(procfs.stat_fields(owner.pid))
    except OSError:
        # Gone, or not to be seen: there is no /proc, it shows one's own only, or no descriptor is free.
        return _answers(owner.pid)
    return ticks is not None and (owner.start_ticks is None or ticks == owner.start_ticks)


def _is_with_a_namespace_gone(owner: ProcessIdentity) -> bool:
    """Whether it ran under this kernel, in a container say, in a pid namespace that nobody is in any more."""
    if owner.boot_id is None or owner.boot_id != boot_id() or owner.pid_namespace is None or _proc_is_anothers():
        return False
    return procfs.is_forsaken(owner.pid_namespace)


def await_end(owner: ProcessIdentity, timeout_s: float | None) -> bool:
    """Wait until a process of this machine has ended, at most so long; says whether it has."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    held = None
    with contextlib.suppress(OSError, AttributeError):
        held = os.pidfd_open(owner.pid)
    try:
        # Held first, so that the number cannot come to mean another one in between.
        while may_live(owner):
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            if held is None:
                time.sleep(_POLL_S if left_s is None else min(_POLL_S, left_s))
            else:
                select.select((held,), (), (), left_s)
    finally:
        if held is not None:
            os.close(held)
    return True


def send(owner: ProcessIdentity, number: int) -> bool:
    """Signal a process while it is the one that was recorded; False where it is not, or is out of sight."""
    if out_of_sight(owner) is not None or _proc_is_anothers():
        return False
    try:
        if not hasattr(os, "pidfd_open"):
            if may_live(owner):
                os.kill(owner.pid, number)
            return may_live(owner)
        held = os.pidfd_open(owner.pid)
    except OSError:
        return False
    try:
        if not may_live(owner):
            return False
        signal.pidfd_send_signal(held, number)
    except OSError:
        return False
    finally:
        os.close(held)
    return True


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _all_processes(*attributes: str) -> Iterator[psutil.Process]:
    """Every process that can be seen; none where the system shows none (no /proc)."""
    import psutil

    # An empty /proc gives psutil 7 no first pid to take: IndexError.
    with contextlib.suppress(OSError, IndexError):
        yield from psutil.process_iter(attributes)


def _callers() -> set[int]:
    """The pids of the processes that started this one."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return {parent.pid for parent in psutil.Process().parents()}
    return set()


def ancestors() -> list[int]:
    """The pids of the processes that started this one, the nearest first; without psutil where /proc shows them."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.append(pid)
        if _proc_is_anothers():
            return found
        try:
            pid = int(procfs.stat_fields(pid)[1])
        except (OSError, IndexError, ValueError):
            return found if os.path.exists("/proc/self/stat") else _ancestors_elsewhere()
    return found


def _ancestors_elsewhere() -> list[int]:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return [parent.pid for parent in psutil.Process().parents()]
    return []


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where that cannot be told."""
    if _proc_is_anothers():
        return {}
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            pairs = (item.partition(b"=") for item in stream.read().split(b"\0") if item)
            return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return {}
    except OSError:
        return {}
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return dict(psutil.Process(pid).environ())
    return {}


def processes_inside(folder: Path) -> list[FoundProcess]:
    """Every process whose working folder lies in `folder`, khlone itself and its ancestors aside."""
    import psutil

    ours = {os.getpid(), *_callers()}
    root = os.path.realpath(folder)
    found = []
    for candidate in _all_processes("cwd", "name", "status", "create_time"):
        facts = candidate.info
        cwd = facts["cwd"]
        if candidate.pid in ours or not cwd or facts["status"] == psutil.STATUS_ZOMBIE:
            continue
        if cwd == root or cwd.startswith(root + os.sep):
            found.append(FoundProcess(pid=candidate.pid, name=facts["name"] or "?", created=facts["create_time"]))
    return found


def working_folders() -> list[Path]:
    """Where the processes work that can be seen, each folder once."""
    found = {facts["cwd"] for candidate in _all_processes("cwd") if (facts := candidate.info)["cwd"]}
    return [Path(cwd) for cwd in sorted(found)]


def find_process(pid: int) -> FoundProcess | None:
    """A live process by its number, to be known again by its start time; `None` when there is none."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return FoundProcess(pid=pid, name=process.name(), created=process.create_time())
    return None


def end_processes(processes: Iterable[FoundProcess], *, grace_s: float = TERM_GRACE_S) -> list[FoundProcess]:
    """TERM, a grace, then KILL; returns those that are alive all the same.

    Each is signalled only while it is the process that was found, by its start time; none
    where the numbers in /proc are not those that signals go by.
    """
    import psutil

    if _proc_is_anothers():
        return list(processes)
    wanted = []
    for found in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(found.pid)
            if process.create_time() == found.created:
                wanted.append((process, found))
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process, _ in wanted:
            with contextlib.suppress(psutil.Error, OSError):
                process.send_signal(signal_number)
                # One that is paused would not hear of it.
                process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + grace_s
        while wanted := [(process, found) for process, found in wanted if _running(process)]:
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
    return [found for _, found in wanted]


def _running(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie, whose parent may never ask for it, does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def led_by(owner: ProcessIdentity) -> list[FoundProcess]:
    """What is in the kernel's session that a process leads, khlone itself and its ancestors aside.

    Whoever clears its environment and forks twice stays in it, unless it begins one of its
    own. Nothing once the leader is gone, or another process has its pid.
    """
    if out_of_sight(owner) is not None or _proc_is_anothers() or not may_live(owner):
        return []
    ours = {os.getpid(), *_callers()}
    found = []
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.exists("/proc/self/stat") else ()):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int(procfs.stat_fields(name)[3]) == owner.pid and int(name) not in ours:
                process = find_process(int(name))
                found += [] if process is None else [process]
    return found if may_live(owner) else []


def git_processes_near(folders: Sequence[Path]) -> list[FoundProcess]:
    """Live git processes that work in one of the folders; used before a stale lock is judged dead."""
    import psutil

    roots = [os.path.realpath(folder) for folder in folders]
    callers = _callers()
    found = []
    for candidate in _all_processes("cwd", "name", "status", "create_time", "cmdline"):
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


def is_open(paths: Iterable[Path]) -> bool:
    """Whether some process has one of the files open, as far as that can be seen."""
    wanted = set()
    for path in paths:
        with contextlib.suppress(OSError):
            found = os.stat(path, follow_symlinks=False)
            wanted.add((path.name, found.st_dev, found.st_ino))
    names = {name for name, _, _ in wanted}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(folder):
                name = os.path.basename(os.readlink(folder / descriptor))
                if name in names:
                    found = os.stat(folder / descriptor)
                    if (name, found.st_dev, found.st_ino) in wanted:
                        return True
    return False


def processes_with_open(path: Path) -> list[FoundProcess]:
    """The processes that have a file open, this one aside, as far as that can be seen."""
    try:
        wanted = os.stat(path, follow_symlinks=False)
    except OSError:
        return []
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        pid = int(folder.parent.name)
        if pid != os.getpid() and _has_open(folder, path.name, wanted):
            process = find_process(pid)
            if process is not None:
                found.append(process)
    return sorted(found, key=lambda process: process.created)


def _has_open(folder: Path, name: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.path.basename(os.readlink(folder / descriptor)) == name:
                    found = os.stat(folder / descriptor)
                    if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                        return True
    return False


def session_processes(owner: ProcessIdentity, *, known: set[int]) -> list[FoundProcess]:
    """A recorded session's process and its descendants, those in `known` and khlone's ancestors aside.

    Nothing when the pid is another process's by now. A session that is out of sight is
    listed without a look, and never signalled from here.
    """
    import psutil

    place = out_of_sight(owner)
    if place is not None:
        return [FoundProcess(pid=owner.pid, name=f"a session {place}", created=-1.0)]
    if not may_live(owner):
        return []
    ours = {os.getpid(), *_callers()}
    found = []
    with contextlib.suppress(psutil.Error, OSError):
        root = psutil.Process(owner.pid)
        for process in (root, *root.children(recursive=True)):
            if process.pid not in ours | known and process.status() != psutil.STATUS_ZOMBIE:
                found.append(FoundProcess(pid=process.pid, name=process.name(), created=process.create_time()))
    return found
