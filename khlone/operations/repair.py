"""What is wrong with one clone, and how is it mended from what the registry knows?

Foreign commands remove, prune, truncate or delete what belongs to a clone. Each mending
only adds what is missing: it overwrites no file that is there, and an index or a branch
is built anew only where none is left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord, Finding, Severity
from khlone.operations import journal, undo
from khlone.operations.create import lock_reason
from khlone.repository import RefUpdate, null_oid

_LAST_OID = re.compile(rb"^[0-9a-f]+ ([0-9a-f]{40}(?:[0-9a-f]{24})?) ", re.MULTILINE)


def examine(app: App, clone: CloneRecord) -> Iterator[Finding]:
    """Everything that is wrong with a clone that no operation is working on."""
    admin = undo.admin_path(app, clone)
    entry = worktrees.read_entry(admin)
    if app.repository.read_ref(clone.ref) is None:
        yield _error(clone, "branch-missing", f"its branch {clone.branch} is gone", "create it again at its last tip")
    if app.repository.read_ref(clone.marker_ref) is None:
        yield _error(clone, "marker-missing", f"its ref {clone.marker_ref} is gone", "create it again")
    if entry is None:
        yield _error(clone, "admin-missing", f"its admin folder {admin} is gone", "build it again")
    elif entry.problem is not None:
        yield _error(clone, "broken-admin-folder", f"{admin}: {entry.problem}", "write it again from the registry")
    elif entry.worktree != clone.path:
        yield _error(clone, "admin-astray", f"its admin folder points at {entry.worktree}", "point it back")
    if not files.exists(clone.path):
        yield _error(clone, "worktree-missing", f"{clone.path} is gone", "check it out again")
    elif not worktrees.is_linked(clone.path, admin):
        yield _error(
            clone, "worktree-foreign", f"the .git file in {clone.path} does not point at {admin}", "look at it by hand"
        )


def _error(clone: CloneRecord, code: str, message: str, fix: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, clone=clone.name, message=message, fix=fix)


def mend(app: App, clone: CloneRecord, code: str, lock: HeldLock) -> bool:
    """Mend one finding of `examine`; says whether that is done now."""
    if code == "branch-missing":
        return _create_ref(app, clone.ref, _last_tip(app, clone), lock)
    if code == "marker-missing":
        return _create_ref(app, clone.marker_ref, clone.base, lock)
    if code == "admin-missing":
        return _build_admin(app, clone, lock)
    if code in ("broken-admin-folder", "admin-astray"):
        return _write_admin(app, clone)
    if code == "worktree-missing":
        return _check_out_again(app, clone, lock)
    return False


def _last_tip(app: App, clone: CloneRecord) -> str:
    """The last commit that the worktree's own reflog knows, else what landed, else the base."""
    try:
        log = files.read_regular(undo.admin_path(app, clone) / "logs" / "HEAD", most=64 << 20) or b""
    except (StateUnsafe, OSError):
        log = b""
    seen = [oid.decode() for oid in _LAST_OID.findall(log) if oid.strip(b"0")]
    for oid in [*reversed(seen[-50:]), clone.merged_head or clone.base]:
        if app.repository.git("cat-file", "-e", f"{oid}^{{commit}}", check=False).status == 0:
            return str(oid)
    return clone.base


def _create_ref(app: App, ref: str, oid: str, lock: HeldLock) -> bool:
    done = app.repository.update_refs(
        [RefUpdate(ref=ref, new=oid, old=null_oid(oid))],
        reason="khlone: doctor",
        keep_open=[lock.descriptor],
        check=False,
    )
    return done.status == 0


def _build_admin(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    staged, admin = undo.staged_path(app, clone), undo.admin_path(app, clone)
    worktrees.stage(
        staged,
        worktree=clone.path,
        head=f"ref: {clone.ref}",
        locked=lock_reason(clone),
        marker=journal.to_json(clone),
        source_git_dir=app.location.common_dir,
        common_dir=app.location.common_dir,
        durable=True,
    )
    worktrees.publish(staged, admin, durable=True)
    if worktrees.is_linked(clone.path, admin):
        done = app.repository.git(
            "reset", "--mixed", "--quiet", cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False
        )
        return done.status == 0
    return True


def _write_admin(app: App, clone: CloneRecord) -> bool:
    """Write again what is missing, empty or wrong in an admin folder that is ours; the index stays."""
    admin = undo.admin_path(app, clone)
    if not (admin / "commondir").exists() or not (admin / "commondir").read_bytes().strip():
        files.write_atomic(admin / "commondir", b"../..\n", mode=0o666)
    head = worktrees.read_head(admin)
    broken = not head or (not head.startswith("ref: ") and not head.strip("0"))
    worktrees.point_at(admin, clone.path, head=f"ref: {clone.ref}" if broken else None)
    if not (admin / "locked").exists():
        files.write_atomic(admin / "locked", f"{lock_reason(clone)}\n".encode(), mode=0o666)
    worktrees.write_marker(admin, journal.to_json(clone))
    entry = worktrees.read_entry(admin)
    return entry is not None and entry.problem is None


def _check_out_again(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    """Fill a worktree whose folder is gone: what was staged stays staged, the rest is as committed."""
    admin = undo.admin_path(app, clone)
    if not files.exists(admin):
        return False
    os.makedirs(clone.path.parent, exist_ok=True)
    worktrees.link(clone.path, admin, durable=True)
    with_index = files.exists(admin / "index")
    arguments = ("checkout-index", "--all", "-u") if with_index else ("reset", "--hard", "--quiet")
    done = app.repository.git(*arguments, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False)
    return done.status == 0
