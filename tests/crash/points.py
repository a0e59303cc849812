"""What the tests of crashes know of fault points."""

from __future__ import annotations

#: Points at which nothing is open: the operation is not begun yet, or has ended.
OUTSIDE = {
    "create.ready",
    "create.finished",
    "merge.computed",
    "queue.pinned",
    "queue.added",
    "queue.built",
    "queue.landed",
    "queue.finished",
    "merge.merged",
    "merge.finished",
    "remove.trashed",
    "remove.finished",
    "restore.ready",
    "restore.finished",
    "purge.ended",
    "purge.finished",
    "adopt.adopted",
    "adopt.finished",
    "rename.renamed",
    "rename.finished",
    "sync.computed",
    "sync.synced",
    "sync.finished",
    "undo.undone",
    "undo.finished",
    "fetch.begun",
    "fetch.fetched",
    "fetch.ended",
    "push.pushed",
    "push.followed",
    "pr.pushed",
    "pr.opened",
}
