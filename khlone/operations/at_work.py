"""What is under way in a clone's worktree, that its removal would cut off?"""

from __future__ import annotations

import time

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import CloneBusy
from khlone.model import CloneRecord
from khlone.operations import undo

#: How long a git that only refreshes the index is waited for, in seconds.
_WAIT_S = 1.0
_POLL_S = 0.05


def under_way(app: App, clone: CloneRecord) -> list[str]:
    """The rebase, merge or the like that has not ended there, for people."""
    what = worktrees.in_progress(undo.admin_path(app, clone))
    return [] if what is None else [f"a {what} that is under way"]


def require_free_index(app: App, clone: CloneRecord) -> None:
    """Raise CloneBusy while a git has locked the index for longer than one that only looks would."""
    lock = undo.admin_path(app, clone) / "index.lock"
    deadline = time.monotonic() + _WAIT_S
    while files.exists(lock):
        if time.monotonic() >= deadline:
            error = CloneBusy(clone.name, f"a git that works there, or was killed: {lock} is there")
            error.hint = f"try again when it has ended; where none runs there: git khlone remove --force {clone.name}"
            raise error
        time.sleep(_POLL_S)
