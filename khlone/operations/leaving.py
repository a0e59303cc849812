"""How does a clone leave that was to go as soon as it had landed?

Whoever lands it removes it: the command that asked for it, or the one that drives the queue
for all. Both may try at once, and what became of it is the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from khlone import values
from khlone.app import App
from khlone.errors import CloneBusy, SessionLive
from khlone.model import CloneRecord, CloneState, Kept, MergeResult, Removed
from khlone.operations import remove

#: How long another command may take that is removing it right now.
_OTHER_S = 15.0
_POLL_S = 0.05


def remove_landed(app: App, landed: Sequence[CloneRecord], result: MergeResult) -> MergeResult:
    """Remove the clones that landed, each on its own, and say in the result what became of them."""
    removed: list[Removed] = []
    kept: list[Kept] = []
    for clone in landed:
        one = leave(app, clone)
        if isinstance(one, Removed):
            removed.append(one)
        else:
            kept.append(one)
    return values.replace(result, removed=removed, kept=kept)


def leave(app: App, clone: CloneRecord) -> Removed | Kept:
    """Remove one clone that has landed, unless somebody else does or something keeps it."""
    limit = time.monotonic() + _OTHER_S
    while True:
        gone = next((one for one in app.registry.trash() if one.clone.id == clone.id), None)
        if gone is not None:
            return Removed(name=clone.name, trash=gone.id, branch_deleted=gone.branch_deleted)
        found = remove.remove_each(app, [clone])
        if found.removed:
            return found.removed[0]
        kept = found.kept[0]
        now = app.registry.clone_by_id(clone.id)
        is_leaving = now is not None and now.state is CloneState.REMOVING
        if not (is_leaving or kept.code == CloneBusy.code) or time.monotonic() > limit:
            break
        time.sleep(_POLL_S)
    # What is live may be a hook that was told of this very landing.
    hint = f"when that has ended: git khlone remove {clone.name}" if kept.code == SessionLive.code else kept.hint
    return values.replace(kept, hint=hint)
