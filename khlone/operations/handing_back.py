"""How is a conflict laid out in the clone's own worktree, for whoever works there to settle?

As git itself does it: `git merge` or `git rebase` of the target in the clone, with the
user's conflict style, filters and rerere, which stops where the two sides meet. What is
settled there is committed by the owner, never by khlone. A worktree with changes is left
alone, so that `git merge --abort` or `git rebase --abort` gives back what was there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from khlone import worktrees
from khlone.app import App
from khlone.errors import CloneDirty, TargetMoved
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import advance, changes, undo
from khlone.repository import failure


def lay_out(
    app: App, clone: CloneRecord, other: str, lock: HeldLock, *, rebase: bool, without: str | None = None
) -> Sequence[str]:
    """Bring the ref `other` into the clone until git stops at a conflict; returns the paths that are left to settle.

    None are left where rerere knew every answer. The caller holds the clone's lock and has
    seen that it is on its branch, idle and without changes. `without` is what of the branch
    is not put on top in a rebase. Raises CloneDirty, with nothing changed, where an untracked
    file is in the way, TargetMoved where there is no conflict any more, or GitFailed.
    """
    words = _rebase(other, without) if rebase else ["merge", "--no-commit", "--no-ff", "--no-autostash", other]
    done = app.repository.git(*words, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False, hooks=True)
    admin = undo.admin_path(app, clone)
    if worktrees.in_progress(admin) is None:
        in_the_way = advance.paths_in_the_way(done.error_text)
        if in_the_way:
            raise CloneDirty(clone.name, in_the_way)
        if done.status != 0:
            raise failure(words, done, where=clone.path)
        raise TargetMoved(clone.target or other, 1)
    if done.status == 0:
        _abort(app, clone.path, words[0], lock)
        raise TargetMoved(clone.target or other, 1)
    return changes.read_status(app, clone.path, tracked_only=True).changes.unmerged


def how_to_go_on(clone: CloneRecord, *, rebase: bool) -> str:
    """What the owner types next, and what takes it all back."""
    what = "rebase" if rebase else "merge"
    return (
        f"in {clone.path}: settle it, git add, git {what} --continue, then git khlone merge {clone.name}; "
        f"git {what} --abort takes it back"
    )


def _rebase(other: str, without: str | None) -> list[str]:
    words = ["rebase", "--no-autostash", "--no-update-refs"]
    return [*words, other] if without is None else [*words, "--onto", other, without]


def _abort(app: App, worktree: Path, what: str, lock: HeldLock) -> None:
    app.repository.git(what, "--abort", cwd=worktree, writes=True, keep_open=[lock.descriptor])
