"""Where may a crash be provoked on purpose? At every named fault point.

Each step of an operation calls `point("create.refs")` right after its durable effect.
Without the environment variable KHLONE_FAULT that costs one comparison. With it:

    KHLONE_FAULT=create.refs           kill -9 at that point
    KHLONE_FAULT=create.refs:kill      the same
    KHLONE_FAULT=create.refs:raise:ENOSPC   raise that OSError
    KHLONE_FAULT=create.refs:stop      SIGSTOP the process there
    KHLONE_FAULT=7                     the seventh point reached, whatever its name

KHLONE_FAULT_LOG=FILE appends the name of every point reached, one a line, so that a
test can enumerate them. `POINTS` is the whole list; `point` refuses any other name.
"""

from __future__ import annotations

import errno
import os
import signal

#: Every fault point, by operation, in the order in which a run reaches them (`landing` is inside others).
POINTS: tuple[str, ...] = (
    "create.reserved",
    "create.refs",
    "create.config-dir",
    "create.admin-staged",
    "create.admin-published",
    "create.worktree-linked",
    "create.checked-out",
    "create.included",
    "create.prepared",
    "create.synced",
    "create.ready",
    "create.finished",
    "create.undo-worktree",
    "create.undo-admin",
    "create.undo-config-dir",
    "create.undo-refs",
    "merge.computed",
    "merge.publishing",
    "merge.published",
    "merge.merged",
    "merge.finished",
    "landing.index-locked",
    "landing.files-written",
    "landing.index-published",
    "merge.recover-restored",
    "queue.added",
    "queue.pinned",
    "queue.built",
    "queue.candidate-pinned",
    "queue.pushing",
    "queue.pushed",
    "queue.publishing",
    "queue.published",
    "queue.landed",
    "queue.finished",
    "remove.reserved",
    "remove.snapshot",
    "remove.worktree-moved",
    "remove.admin-moved",
    "remove.config-moved",
    "remove.refs",
    "remove.trashed",
    "remove.finished",
    "restore.reserved",
    "restore.refs",
    "restore.config-dir",
    "restore.worktree",
    "restore.admin",
    "restore.trash-dropped",
    "restore.ready",
    "restore.finished",
    "purge.reserved",
    "purge.worktree",
    "purge.admin",
    "purge.config-dir",
    "purge.refs",
    "purge.ended",
    "purge.finished",
    "adopt.reserved",
    "adopt.refs",
    "adopt.config-dir",
    "adopt.admin",
    "adopt.adopted",
    "adopt.finished",
    "adopt.undo",
    "rename.reserved",
    "rename.branch-made",
    "rename.head",
    "rename.branch-gone",
    "rename.configured",
    "rename.worktree",
    "rename.admin",
    "rename.renamed",
    "rename.finished",
    "sync.computed",
    "sync.reserved",
    "sync.kept",
    "sync.moved",
    "sync.noted",
    "sync.synced",
    "sync.finished",
    "sync.conflict-noted",
    "sync.conflict-laid-out",
    "undo.reserved",
    "undo.kept",
    "undo.moved",
    "undo.undone",
    "undo.finished",
    "uninstall.hooks",
    "uninstall.clones",
    "uninstall.refs",
    "uninstall.trash",
    "uninstall.shell",
    "uninstall.private",
    "uninstall.state",
    "uninstall.account",
    "uninstall.finished",
    "fetch.begun",
    "fetch.fetched",
    "fetch.ended",
    "push.pushed",
    "push.followed",
    "pr.pushed",
    "pr.opened",
    "pull.fetched",
    "pull.dropped",
)

_known = frozenset(POINTS)
_wanted = os.environ.get("KHLONE_FAULT", "")
_log = os.environ.get("KHLONE_FAULT_LOG", "")
_reached = 0


def point(name: str) -> None:
    """Do nothing, unless the environment asks for a fault at this very point."""
    if not _wanted and not _log:
        return
    _provoke(name)


def _provoke(name: str) -> None:
    global _reached
    if name not in _known:
        raise AssertionError(f"{name!r} is not listed in khlone.faults.POINTS")
    _reached += 1
    if _log:
        descriptor = os.open(_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(descriptor, f"{name}\n".encode())
        os.close(descriptor)
    where, _, what = _wanted.partition(":")
    if where not in (name, str(_reached)):
        return
    action, _, detail = what.partition(":")
    if action == "raise":
        number = getattr(errno, detail, errno.EIO)
        raise OSError(number, os.strerror(number), f"fault point {name}")
    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
