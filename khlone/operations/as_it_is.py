"""Which commit would a clone have if all that lies in it were committed now?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from khlone import worktrees
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import CloneRecord
from khlone.operations import aside, changes, undo
from khlone.operations.integration import KHLONE_IDENTITY


def commit(app: App, clone: CloneRecord, tip: str, environment: Mapping[str, str]) -> str:
    """A commit of what the clone's files are now, untracked ones included; its tip where nothing is changed.

    The index of the clone is not touched, and no filter runs that the repository's own configuration names.
    """
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        app.told(f"only what is committed: {clone.name}, whose worktree {clone.path} is gone")
        return tip
    try:
        status = changes.read_status(app, clone.path, filters=False)
        counted = changes.uncounted(clone, status.changes)
        if not counted.uncommitted:
            return status.head or tip
        own = set(status.changes.untracked) - set(counted.untracked)
        # A repository inside the worktree is not a file of the clone's.
        left_out = sorted(own | {name for name in counted.untracked if name.endswith("/")})
        with aside.own_index(app, admin) as index:
            return _commit_all(app, clone, status.head or tip, left_out, {**index, **environment})
    except KhloneError as error:
        app.told(f"only what is committed: {clone.name} ({error.message})")
        return tip


def _commit_all(
    app: App, clone: CloneRecord, head: str, left_out: Sequence[str], environment: Mapping[str, str]
) -> str:
    def git(*arguments: str, check: bool = True) -> tuple[int, str, str]:
        done = app.repository.git(
            *arguments,
            cwd=clone.path,
            environment=environment,
            check=check,
            configuration=["core.splitIndex=false", "core.safecrlf=false"],
            filters=False,
        )
        return done.status, done.text.strip(), done.error_text.strip()

    excluded = [f":(exclude,literal,top){name}" for name in left_out]
    status, _, why = git("add", "-A", "--ignore-errors", "--", ":/", *excluded, check=False)
    if status != 0:
        app.told(f"warning: not all changes of {clone.name} are looked at: {why}")
    _, tree, _ = git("write-tree")
    made = app.repository.git(
        *("commit-tree", "-p", head, "-m", f"khlone: {clone.name} as it is", tree),
        environment={**environment, **KHLONE_IDENTITY},
    )
    return made.text.strip()
