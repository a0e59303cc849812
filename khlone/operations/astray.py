"""Where is a clone's HEAD when it is not on the clone's branch, and what was committed there?

An agent that checks out another branch, or a commit, goes on committing where neither
`merge` nor the counts of `list` look. Such commits are told, and never passed over.
"""

from __future__ import annotations

import os
import shlex

from khlone import worktrees
from khlone.app import App
from khlone.errors import HeadElsewhere
from khlone.model import CloneRecord
from khlone.operations import names
from khlone.values import dataclass
from khlone.worktrees import AdminEntry

_SHORT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Astray:
    """HEAD of a clone that is not on its branch; `commits` are those that neither branch nor target has."""

    where: str
    source: str
    commits: int

    @property
    def told(self) -> str:
        """What is so, for people, as the end of `its worktree ...`."""
        if not self.commits:
            return self.where
        count = f"{self.commits} commit{'' if self.commits == 1 else 's'}"
        return f"{self.where} with {count} that its branch lacks"


def find(app: App, clone: CloneRecord, entry: AdminEntry | None) -> Astray | None:
    """How HEAD stands, `None` where it is on the clone's branch, cannot be told, or a rebase or the like moves it."""
    if entry is None or entry.problem is not None or entry.branch == clone.ref or entry.head is None:
        return None
    if worktrees.in_progress(entry.path) is not None:
        return None
    branch = entry.branch
    head = app.repository.read_ref(branch) if branch is not None else entry.head.strip()
    if branch is not None and branch.startswith("refs/heads/"):
        source = branch.removeprefix("refs/heads/")
        where = f"has branch {names.shown(source)} checked out, not {names.shown(clone.branch)},"
    else:
        source = branch or entry.head.strip()
        where = f"has a detached HEAD at {source[:_SHORT]}, not branch {names.shown(clone.branch)},"
    commits = _count(app, clone, head) if head is not None else 0
    return Astray(where=where if commits else where.removesuffix(","), source=source, commits=commits)


def require_none(app: App, clone: CloneRecord, entry: AdminEntry | None) -> None:
    """Raise HeadElsewhere where something was committed beside the clone's branch."""
    found = find(app, clone, entry)
    if found is not None and found.commits:
        raise HeadElsewhere(clone.name, found.told, way_back(clone, found), found.commits)


def _count(app: App, clone: CloneRecord, head: str) -> int:
    known = [clone.ref, *([f"refs/heads/{clone.target}"] if clone.target else [])]
    bounds = [f"^{oid}" for ref in known if (oid := app.repository.read_ref(ref)) is not None]
    done = app.repository.git("rev-list", "--count", head, *bounds, check=False)
    return int(done.text) if done.status == 0 else 0


def way_home(clone: CloneRecord) -> str:
    """What to type so that the clone is on its branch again."""
    return f"git -C {shlex.quote(os.fspath(clone.path))} switch {shlex.quote(clone.branch)}"


def way_back(clone: CloneRecord, found: Astray) -> str:
    """What to type so that the clone's branch has what was committed beside it."""
    inside = f"git -C {shlex.quote(os.fspath(clone.path))}"
    return f"{inside} switch {shlex.quote(clone.branch)} && {inside} merge {shlex.quote(found.source)}"
