"""How do the two halves of a trashed clone, worktree and admin folder, become a working one again?

Whole halves are used as they are. A missing or unreadable admin folder is built anew, a
missing worktree is filled from the snapshot commit; a worktree that is there is never
replaced. Before a step that a crash could leave looking whole, the journal is told, so
that recovery does it again.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import journal, names, undo
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.process import Completed
from khlone.repository import failure
from khlone.values import dataclass

#: Steps of the journal: files may be missing from the worktree, entries from the index.
FILLING, REBUILDING = "filling", "rebuilding"
_CORE_WORKTREE = re.compile(r"^\s*worktree\s*=\s*(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a restoration works on."""

    app: App
    clone: CloneRecord
    head: str
    snapshot: str
    operation: str
    lock: HeldLock

    @property
    def admin(self) -> Path:
        """Where the admin folder belongs."""
        return undo.admin_path(self.app, self.clone)

    def git(self, *arguments: str, index: Path | None = None, check: bool = True) -> Completed:
        """git in the clone's worktree."""
        done = self.app.repository.git(
            *arguments,
            cwd=self.clone.path,
            environment={} if index is None else {"GIT_INDEX_FILE": os.fspath(index)},
            writes=True,
            keep_open=[self.lock.descriptor],
            check=False,
        )
        if check and done.status != 0:
            raise failure(arguments, done)
        return done

    def note(self, step: str) -> None:
        """Tell the journal what has to be done again after a crash."""
        with self.app.registry.transaction() as change:
            change.note_step(self.operation, step)


# -- the admin folder ------------------------------------------------------------------------


def move_admin(part: Part, stored: Path) -> list[str]:
    """Bring the admin folder back; its paths, and HEAD where that cannot stay, are set before git sees it."""
    clone = part.clone
    staged = undo.staged_path(part.app, clone)
    files.move_tree(stored, staged, aside=stored.with_name("admin.moving"))
    entry = worktrees.read_entry(staged)
    if entry is None:
        return []
    marker = entry.marker or {}
    was = str(marker.get("branch", clone.branch))
    head, notes = _head_to_set(part, entry.branch, was)
    if was != clone.branch:
        _rename_branch(staged, f"refs/heads/{was}", clone.ref)
    if entry.worktree is not None and entry.worktree != clone.path:
        _repoint_submodules(part, staged, entry.worktree)
    worktrees.point_at(staged, clone.path, head=head)
    worktrees.write_marker(staged, journal.to_json(clone))
    worktrees.publish(staged, part.admin, durable=True)
    return notes


def _head_to_set(part: Part, branch: str | None, was: str) -> tuple[str | None, list[str]]:
    """Another content for HEAD where the branch it names has another name now, is gone or is in use."""
    if branch is None or branch == part.clone.ref:
        return None, []
    if branch == f"refs/heads/{was}":
        return f"ref: {part.clone.ref}", []
    held = any(ref == branch for ref, _, _ in part.app.checkouts())
    if part.app.repository.read_ref(branch) is not None and not held:
        return None, []
    why = "is checked out elsewhere" if held else "is gone"
    return _commit_at(part), [f"branch {names.shown(branch.removeprefix('refs/heads/'))} {why}: HEAD is detached"]


def _commit_at(part: Part) -> str:
    """The commit that HEAD was at, by the snapshot's first parent."""
    if part.snapshot == part.head:
        return part.head
    done = part.app.repository.git("rev-parse", "--verify", "--quiet", f"{part.snapshot}^1^{{commit}}", check=False)
    return done.text.strip() if done.status == 0 else part.head


def _rename_branch(staged: Path, old: str, new: str) -> None:
    """Let an interrupted rebase or bisect go back to the branch's new name."""
    for name in ("rebase-merge/head-name", "rebase-apply/head-name"):
        place = staged / name
        with contextlib.suppress(StateUnsafe, OSError):
            if (files.read_regular(place) or b"").strip() == os.fsencode(old):
                files.write_atomic(place, os.fsencode(new) + b"\n", mode=0o666)
    start, short = staged / "BISECT_START", old.removeprefix("refs/heads/")
    with contextlib.suppress(StateUnsafe, OSError):
        if (files.read_regular(start) or b"").strip() == os.fsencode(short):
            files.write_atomic(start, os.fsencode(new.removeprefix("refs/heads/")) + b"\n", mode=0o666)


def _repoint_submodules(part: Part, staged: Path, old: Path) -> None:
    """Let the submodules' repositories, which lie in the admin folder, find their worktrees in another place."""
    modules = staged / "modules"
    for folder, _, found in os.walk(modules):
        if "config" not in found or "HEAD" not in found:
            continue
        config = Path(folder, "config")
        with contextlib.suppress(StateUnsafe, OSError):
            match = _CORE_WORKTREE.search(os.fsdecode(files.read_regular(config) or b""))
            if match is None:
                continue
            lay = part.admin / config.parent.relative_to(staged)
            place = Path(os.path.normpath(lay / match[1].strip('"')))
            if place.is_relative_to(old):
                new = os.path.relpath(part.clone.path / place.relative_to(old), lay)
                part.app.repository.git("config", "--file", os.fspath(config), "core.worktree", new, check=False)


# -- both together ---------------------------------------------------------------------------


def complete(part: Part, step: str) -> list[str]:
    """Build what is missing or cannot be read; returns what had to be done, for people."""
    notes: list[str] = []
    clone, admin = part.clone, part.admin
    if files.exists(clone.path) and not worktrees.is_linked(clone.path, admin):
        place = undo.quarantine(part.app, clone.path, part.operation)
        notes.append(f"{clone.path} is not a worktree any more and was moved to {place}")
    fill = step == FILLING or not files.exists(clone.path)
    if not fill and step != REBUILDING and _works(part):
        return notes
    part.note(FILLING if fill else REBUILDING)
    if not fill and step != REBUILDING:
        notes += _set_index_aside(part)
    entry = worktrees.read_entry(admin)
    if entry is None or entry.problem is not None or (not fill and not _readable(part)):
        notes += _new_admin(part)
    if fill:
        notes.append(f"the folder of {clone.name} is gone: restaged from its snapshot, ignored files are not in it")
        _fill(part)
    if not files.exists(admin / "index"):
        part.git("reset", "--mixed", "--quiet", check=False)
    part.git("update-index", "-q", "--refresh", check=False)
    return notes


def _works(part: Part) -> bool:
    return files.exists(part.admin / "index") and _readable(part)


def _readable(part: Part) -> bool:
    done = part.app.repository.git("status", "--porcelain", "-uno", cwd=part.clone.path, check=False)
    return done.status == 0


def _set_index_aside(part: Part) -> list[str]:
    index = part.admin / "index"
    if not files.exists(index):
        return []
    place = undo.quarantine(part.app, index, part.operation)
    return [f"the index of {part.clone.name} cannot be read and was moved to {place}: what was staged is unstaged"]


def _new_admin(part: Part) -> list[str]:
    """Build the admin folder anew, at the commit where HEAD was."""
    app, clone, admin = part.app, part.clone, part.admin
    notes = [f"the admin folder of {clone.name} is built anew: what was staged is unstaged"]
    if files.exists(admin):
        notes.append(f"{admin} could not be used and was moved to {undo.quarantine(app, admin, part.operation)}")
    at = _commit_at(part)
    staged = undo.staged_path(app, clone)
    worktrees.stage(
        staged,
        worktree=clone.path,
        head=f"ref: {clone.ref}" if at == part.head else at,
        locked=f"khlone {clone.id}: remove it with git khlone remove {clone.name}",
        marker=journal.to_json(clone),
        source_git_dir=app.location.common_dir,
        common_dir=app.location.common_dir,
        durable=True,
    )
    worktrees.publish(staged, admin, durable=True)
    return notes


def _fill(part: Part) -> None:
    """Write every file of the snapshot; the index of the worktree stays as it is."""
    clone = part.clone
    if not files.exists(clone.path):
        worktrees.link(clone.path, part.admin, durable=True)
    index = part.app.state_dir / "stage" / f"{clone.id}.index"
    index.unlink(missing_ok=True)
    try:
        part.git("read-tree", part.snapshot, index=index)
        part.git("checkout-index", "--all", "--force", "--quiet", index=index)
    finally:
        index.unlink(missing_ok=True)


def holds_more(app: App, clone: CloneRecord, snapshot: str) -> bool:
    """Whether the history of a snapshot has a commit that nothing else would keep.

    khlone's own commits in it do not count: what they hold is in the worktree again.
    """
    if snapshot == app.repository.read_ref(clone.ref):
        return False
    others = ["--exclude=refs/khlone/trash/*", "--all", "--reflog"]
    done = app.repository.git("rev-list", "--no-commit-header", "--format=%ce", snapshot, "--not", *others, check=False)
    ours = KHLONE_IDENTITY["GIT_COMMITTER_EMAIL"]
    return done.status != 0 or any(line != ours for line in done.text.splitlines())
