"""Who may work on what right now? Kernel locks on files, of two kinds, in one order.

**Operation locks**, one a clone, come first (never waited for, several in id order) and
are held for a whole operation: holding one is the proof that its last owner is dead.
Git children that write inherit the descriptor, so that the lock outlives a killed
khlone until its orphaned git has ended. **State locks** nest inside, in the order
landing(target) -> repository -> registry (the registry's is SQLite's own), for
milliseconds; none spans a hook, a checkout or the network, except that landing spans the
fast-forward of a checked-out target.

A free lock is taken by one `flock`; a held one is waited for through filelock: flock only
(no soft fallback), short poll. Its inode is compared with the path after acquiring and
before every commit point. The files stay, but for operation locks of clones that nobody
knows: who holds one may unlink it (docs/decisions/0006-sweep-lock-files.md).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from khlone import procfs
from khlone.errors import Locked, LockLost, NotPermitted, StateUnsafe
from khlone.files import explained, make_private_dir
from khlone.model import utc_now

#: Seconds between tries; 0.05 starves waiters, much less wakes all of them at once (measured).
POLL_S = 0.01
#: Seconds that a state lock is waited for before the holder is named.
STATE_WAIT_S = 60.0
#: Seconds between tries where what is waited for takes seconds itself.
_LONG_POLL_S = 0.1
_HOLDER_BYTES = 200
#: What a holder writes: what it does with its pid, since when, and of which host and pid namespace that pid is.
_HOLDER = re.compile(r"(?P<does>.*\(pid (?P<pid>\d+))(?P<since>\) since \S+) at (?P<host>\S+)/(?P<namespace>\d+)")
#: The order in which state locks nest.
_ORDER = ("landing", "repository")


class HeldLock:
    """A lock that is held; `descriptor` may be inherited by children that must outlive us."""

    def __init__(self, path: Path, descriptor: int, release: Callable[[], None]) -> None:
        self.path = path
        self.descriptor = descriptor
        self._release = release

    def verify(self) -> None:
        """Raise LockLost when the file at the path is no longer the one that is locked."""
        held = os.fstat(self.descriptor)
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError:
            raise LockLost(self.path) from None
        if (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino):
            raise LockLost(self.path)

    def release(self) -> None:
        """Give the lock up; the file stays."""
        self._release()


class Locks:
    """The locks of one repository, as files in one private folder."""

    def __init__(self, folder: Path, *, command: str | None = None) -> None:
        self._folder = folder
        self._command = _own_command() if command is None else command
        self._nested = threading.local()

    def try_operation(self, clone_id: str) -> HeldLock | None:
        """The operation lock of a clone, or `None` at once when somebody holds it."""
        try:
            return self._acquire(self.operation_path(clone_id), 0.0)
        except Locked:
            return None

    def operation_path(self, clone_id: str) -> Path:
        """The file of a clone's operation lock."""
        return self._folder / f"clone-{clone_id}.lock"

    def operation_holder(self, clone_id: str) -> str:
        """Who wrote itself into the operation lock of a clone last, for people."""
        return _read_holder(self.operation_path(clone_id))

    def operation_holder_pid(self, clone_id: str) -> int | None:
        """The process that wrote itself into the operation lock of a clone last, if its number counts here."""
        found = re.search(r"\(pid (\d+)\)", self.operation_holder(clone_id))
        return int(found[1]) if found else None

    def sweep_operations(self, is_unknown: Callable[[str], bool]) -> int:
        """Unlink the operation locks of clones that are not known; how many went.

        Asked with the lock held: nobody else holds it then, and whoever has opened the file
        before finds another inode at the path, or none, and takes that one.
        """
        swept = 0
        for path in sorted(self._folder.glob("clone-*.lock")):
            clone_id = path.name.removeprefix("clone-").removesuffix(".lock")
            with contextlib.suppress(LockLost, NotPermitted, StateUnsafe, OSError):
                held = self._try(path) if is_unknown(clone_id) else None
                if held is None:
                    continue
                try:
                    held.verify()
                    if is_unknown(clone_id):
                        os.unlink(path)
                        swept += 1
                finally:
                    held.release()
        return swept

    @contextlib.contextmanager
    def landing(
        self, target: str, *, wait_s: float = STATE_WAIT_S, told: Callable[[str], None] | None = None
    ) -> Iterator[HeldLock]:
        """Only one process at a time moves one target branch."""
        path = self._folder / f"landing-{digest(target)}.lock"
        with self._state_lock("landing", path, wait_s, what=f"landing on {target}", told=told) as held:
            yield held

    @contextlib.contextmanager
    def users_file(self, path: Path, *, wait_s: float = STATE_WAIT_S) -> Iterator[HeldLock]:
        """Only one khlone at a time changes a file of the user's; nests in operation locks alone."""
        import hashlib

        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        held = self._acquire(self._folder / f"file-{digest}.lock", wait_s, what=str(path))
        try:
            yield held
        finally:
            held.release()

    @contextlib.contextmanager
    def repository(
        self, *, wait_s: float = STATE_WAIT_S, told: Callable[[str], None] | None = None
    ) -> Iterator[HeldLock]:
        """Only one process at a time changes admin folders and the like."""
        path = self._folder / "repository.lock"
        with self._state_lock("repository", path, wait_s, what="the repository", told=told) as held:
            yield held

    @contextlib.contextmanager
    def fetch(self, remote: str, *, wait_s: float, told: Callable[[str], None] | None = None) -> Iterator[HeldLock]:
        """Only one process at a time fetches from one remote.

        Neither of the two kinds: it is held round the network, nothing is waited for under
        it, and none is asked for while another lock is held.
        """
        path = self._folder / f"fetch-{digest(remote)}.lock"
        held = self._acquire(path, wait_s, what=f"the fetch from {remote}", told=told, poll_s=_LONG_POLL_S)
        try:
            yield held
        finally:
            held.release()

    @contextlib.contextmanager
    def _state_lock(
        self, kind: str, path: Path, wait_s: float, *, what: str, told: Callable[[str], None] | None
    ) -> Iterator[HeldLock]:
        """Wait for a state lock, which only nests in the one order: another one would wait for itself."""
        nested: list[str] = self._nested.__dict__.setdefault("kinds", [])
        if nested and _ORDER.index(kind) <= _ORDER.index(nested[-1]):
            raise RuntimeError(f"a {kind} lock was wanted inside a {nested[-1]} lock")
        held = self._acquire(path, wait_s, what=what, told=told)
        nested.append(kind)
        try:
            yield held
        finally:
            nested.pop()
            held.release()

    def _acquire(
        self,
        path: Path,
        wait_s: float,
        *,
        what: str = "the clone",
        told: Callable[[str], None] | None = None,
        poll_s: float = POLL_S,
    ) -> HeldLock:
        with explained(self._folder):
            make_private_dir(self._folder)
        started = time.monotonic()
        while True:
            held = self._try(path)
            if held is None:
                left = wait_s - (time.monotonic() - started)
                held = self._wait(path, left, told, what, poll_s) if left > 0 else None
            if held is None:
                raise Locked(what, _read_holder(path), time.monotonic() - started)
            told = None
            try:
                held.verify()
            except LockLost:
                held.release()
                if time.monotonic() - started >= max(wait_s, 1.0):
                    raise
                continue
            self._write_holder(held.descriptor)
            return held

    def _try(self, path: Path) -> HeldLock | None:
        """The lock, if it is free: the way of nearly every call, so that filelock is not even imported."""
        with self._explained(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise StateUnsafe(path, "it is not a regular file")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            return HeldLock(path, descriptor, lambda: _unlock(descriptor))

    def _wait(
        self, path: Path, wait_s: float, told: Callable[[str], None] | None, what: str, poll_s: float
    ) -> HeldLock | None:
        """The lock once it is free, `None` when it was not within the bound; after a second the holder is named."""
        from filelock import FileLock, Timeout

        descriptors: list[int] = []
        lock = FileLock(
            path,
            mode=0o600,
            thread_local=False,
            poll_interval=poll_s,
            fallback_to_soft=False,
            on_acquired=descriptors.append,
        )
        first = min(wait_s, 1.0)
        for bound in (first, wait_s - first):
            try:
                with self._explained(path):
                    lock.acquire(timeout=bound)
            except Timeout:
                if told is not None and bound == first < wait_s:
                    told(f"waiting for {what}, held by {_read_holder(path)}")
                continue
            return HeldLock(path, descriptors[-1], lock.release)
        return None

    def _write_holder(self, descriptor: int) -> None:
        place = f"{os.uname().nodename}/{procfs.pid_namespace() or 0}"
        line = f"{self._command} (pid {os.getpid()}) since {utc_now()} at {place}"
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, line.ljust(_HOLDER_BYTES).encode()[:_HOLDER_BYTES] + b"\n", 0)

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise StateUnsafe(path, "it is not a regular file") from error
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise NotPermitted(
                    f"the file system of {path} has no file locks", hint="keep the repository on a local disk"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise NotPermitted(f"cannot lock {path}: {os.strerror(error.errno).lower()}", path=path) from error
            raise


def digest(name: str) -> str:
    """A short name for a file, made of one that may hold any byte."""
    import hashlib

    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]


def _unlock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _own_command() -> str:
    """This program and its verb, which is all of a command line that others may see."""
    words = iter(sys.argv[1:])
    verb = ""
    for word in words:
        if word == "-C":
            next(words, None)
        elif not word.startswith("-"):
            verb = word if word.isalpha() else ""
            break
    return f"{os.path.basename(sys.argv[0]) if sys.argv else 'khlone'} {verb}".strip()


def _read_holder(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return "another process"
    try:
        text = os.pread(descriptor, _HOLDER_BYTES, 0).decode(errors="replace").strip()
    except OSError:
        text = ""
    finally:
        os.close(descriptor)
    shown = "".join(letter for letter in text if letter.isprintable())
    found = _HOLDER.fullmatch(shown)
    if found is None:
        return shown or "another process"
    return f"{found['does']}{_elsewhere(found['host'], int(found['namespace']))}{found['since']}"


def _elsewhere(host: str, namespace: int) -> str:
    """Where a pid counts, if not here: another process may have the same number here."""
    if host != os.uname().nodename:
        return f" on {host}"
    ours = procfs.pid_namespace()
    return " in another pid namespace" if namespace and ours and namespace != ours else ""
