"""What did the files of a damaged admin folder say, and how sure is that?

`commondir` and `gitdir` are as the registry has them. Where HEAD was is told by the
worktree's own reflog: usually on the clone's branch, else where the reflog ends, so that
no commit beside the branch is left without a name. What a file held is set aside first.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.model import CloneRecord
from khlone.operations import journal, names, undo
from khlone.operations.create import lock_reason
from khlone.values import dataclass
from khlone.worktrees import AdminEntry

_MOST_LOG = 64 << 20
_SHORT = 10
_LINE = re.compile(rb"^[0-9a-f]+ ([0-9a-f]{40}(?:[0-9a-f]{24})?) [^\n\t]*(?:\t([^\n]*))?$", re.MULTILINE)
#: What git writes into the reflog of HEAD when HEAD goes to a branch, or leaves one for a commit.
_WENT = (
    re.compile(rb"checkout: moving from \S+ to (\S+)"),
    re.compile(rb"Branch: renamed refs/heads/\S+ to refs/heads/(\S+)"),
    re.compile(rb"rebase (?:\((?:finish|abort)\)|finished): returning to refs/heads/(\S+)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What HEAD said, as far as that can be known; `doubt` says why not for sure."""

    content: str
    doubt: str | None


def doubt(app: App, clone: CloneRecord, admin: Path) -> str | None:
    """Why it cannot be known for sure what HEAD said, `None` where it can, or where HEAD is whole."""
    return head_of(app, clone, admin).doubt if "HEAD" in worktrees.problems(admin) else None


def head_of(app: App, clone: CloneRecord, admin: Path) -> Head:
    """What HEAD said, by the reflog of the worktree, else by the registry."""
    last, place = _told_by_reflog(admin)
    if last is None or not _is_commit(app, last):
        return Head(content=f"ref: {clone.ref}", doubt=f"no reflog says where HEAD was: on {_shown(clone.branch)}?")
    branch = clone.branch if place is None else place
    ref = f"refs/heads/{branch}"
    if worktrees.in_progress(admin) == "rebase":
        return Head(content=last, doubt=None)
    if _was_at(app, ref, last) and (ref == clone.ref or not _is_held(app, ref)):
        return Head(content=f"ref: {ref}", doubt=None)
    why = f"its reflog ends at {last[:_SHORT]}, which {_shown(branch)} was never at"
    return Head(content=last, doubt=f"HEAD cannot be known for sure: {why}, so it is detached there")


def _shown(branch: str) -> str:
    return f"branch {names.shown(branch)}"


def _told_by_reflog(admin: Path) -> tuple[str | None, str | None]:
    """The last commit that HEAD was at, and the last name that it went to."""
    last = place = None
    for oid, why in _LINE.findall(_log(admin / "logs" / "HEAD")):
        last = oid.decode()
        went = next((found for form in _WENT if (found := form.match(why))), None)
        if went is not None:
            place = os.fsdecode(went[1])
    return last, place


def was_renamed_last(entry: AdminEntry) -> bool:
    """Whether HEAD of a worktree came to the branch that it is on by a renaming of that branch."""
    log = [why for _, why in _LINE.findall(_log(entry.path / "logs" / "HEAD"))]
    moves = [why for why in log if why.startswith((b"checkout: moving", b"Branch: renamed"))]
    last = moves[-1] if moves else b""
    return last.startswith(b"Branch") and entry.branch is not None and last.endswith(os.fsencode(f" to {entry.branch}"))


def _log(path: Path) -> bytes:
    try:
        return files.read_regular(path, most=_MOST_LOG) or b""
    except (StateUnsafe, OSError):
        return b""


def _is_commit(app: App, oid: str) -> bool:
    return app.repository.git("cat-file", "-e", f"{oid}^{{commit}}", check=False).status == 0


def _was_at(app: App, ref: str, oid: str) -> bool:
    """Whether a branch is at a commit, or has it, or was at it once."""
    tip = app.repository.read_ref(ref)
    if tip is None:
        return False
    known = (found[0] for found in _LINE.findall(_log(app.location.common_dir / "logs" / ref)))
    if tip == oid or oid.encode() in known:
        return True
    return app.repository.git("merge-base", "--is-ancestor", oid, tip, check=False).status == 0


def _is_held(app: App, ref: str) -> bool:
    """Whether another worktree has a branch checked out."""
    return any(held == ref for held, _, _ in app.checkouts())


def write(app: App, clone: CloneRecord) -> bool:
    """Write again what is missing or wrong in an admin folder that is ours; says whether git can use it then.

    What the damaged files held goes to quarantine; where it cannot, they stay as they are. The index stays.
    """
    admin = undo.admin_path(app, clone)
    broken = worktrees.problems(admin)
    head = head_of(app, clone, admin).content if "HEAD" in broken else None
    if not all(_set_aside(app, admin / name) for name in broken):
        return False
    if "commondir" in broken:
        files.write_atomic(admin / "commondir", b"../..\n", mode=0o666)
    worktrees.point_at(admin, clone.path, head=head)
    if not (admin / "locked").exists():
        files.write_atomic(admin / "locked", f"{lock_reason(clone)}\n".encode(), mode=0o666)
    worktrees.write_marker(admin, journal.to_json(clone))
    return not worktrees.problems(admin)


def _set_aside(app: App, path: Path) -> bool:
    """Move a damaged file to quarantine, unless there is nothing in it; says whether its name is free to write."""
    if not files.exists(path) or (path.is_file() and not path.is_symlink() and not path.stat().st_size):
        return True
    return undo.quarantine(app, path, journal.new_operation_id()) != path
