"""What is wrong with one clone, and how is it mended from what the registry knows?

Foreign commands remove, prune, rename, move, truncate or delete what belongs to a clone.
Each mending only adds what is missing or follows what moved: it overwrites no file of a
user's, and an index or a branch is built anew only where none that can be read is left.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from khlone import files, sessions, values, worktrees
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord, Finding, Severity
from khlone.operations import admin_files, astray, copied, journal, names, targets, undo, whereabouts
from khlone.operations.create import lock_reason
from khlone.repository import RefUpdate, null_oid
from khlone.worktrees import AdminEntry

_LAST_OID = re.compile(rb"^[0-9a-f]+ ([0-9a-f]{40}(?:[0-9a-f]{24})?) ", re.MULTILINE)
_RENAMED = re.compile(rb"\tBranch: renamed (\S+) to (\S+)$", re.MULTILINE)


def examine(app: App, clone: CloneRecord) -> Iterator[Finding]:
    """Everything that is wrong with a clone that no operation is working on."""
    admin = undo.admin_path(app, clone)
    entry = worktrees.read_entry(admin)
    renamed = _renamed_to(app, clone, entry)
    if renamed is not None:
        yield _error(clone, "branch-renamed", f"its branch {clone.branch} is called {renamed} now", "follow it")
    elif app.repository.read_ref(clone.ref) is None:
        message = f"its branch {clone.branch} is gone"
        yield _error(clone, "branch-missing", message, "create it again at its last tip")
    if app.repository.read_ref(clone.marker_ref) is None:
        yield _error(clone, "marker-missing", f"its ref {clone.marker_ref} is gone", "create it again")
    if targets.is_gone(app, clone):
        yield Finding(
            code="target-missing",
            severity=Severity.WARNING,
            clone=clone.name,
            message=targets.told(str(clone.target)),
            fix=targets.way_out(app, [clone]),
        )
    if renamed is None:
        yield from _examine_head(app, clone, entry)
    place = whereabouts.find(app, clone, admin, entry)
    if entry is None:
        yield _error(clone, "admin-missing", f"its admin folder {admin} is gone", "build it again")
    elif entry.problem is not None:
        doubt = admin_files.doubt(app, clone, admin)
        message = f"{admin}: {entry.problem}" + (f"; {doubt}" if doubt else "")
        yield _error(clone, "broken-admin-folder", message, "write it again from the registry")
    elif entry.worktree != clone.path and place is None:
        yield _error(clone, "admin-astray", f"its admin folder points at {entry.worktree}", "point it back")
    if place is not None:
        yield _error(clone, "worktree-moved", f"its worktree was moved to {place}", "follow it")
        return
    yield from _examine_worktree(app, clone, admin)


def _examine_head(app: App, clone: CloneRecord, entry: AdminEntry | None) -> Iterator[Finding]:
    """What HEAD is at instead of the clone's branch, and whether another worktree has that checked out too."""
    beside = astray.find(app, clone, entry)
    if beside is None or entry is None:
        return
    also = [path for ref, path, _ in app.checkouts() if ref == entry.branch and path != clone.path]
    yield Finding(
        code="head-elsewhere",
        severity=Severity.ERROR if also else Severity.WARNING,
        clone=clone.name,
        message=f"its worktree {beside.told}" + (f"; {also[0]} has that one checked out too" if also else ""),
        fix=astray.way_back(clone, beside) if beside.commits else astray.way_home(clone),
    )


def _examine_worktree(app: App, clone: CloneRecord, admin: Path) -> Iterator[Finding]:
    here = app.location.worktree
    if here is not None and worktrees.is_linked(here, admin) and _are_two(here, clone.path):
        yield Finding(
            code="worktree-twice",
            severity=Severity.WARNING,
            clone=clone.name,
            message=f"{here} shares HEAD and index with {clone.path}, which is its worktree",
            fix=f"bring what is wanted of its files to {clone.path}, then delete {here}",
        )
    if not files.exists(clone.path) or whereabouts.is_empty_dir(clone.path):
        left = [str(process) for process in sessions.processes_inside(clone.path)]
        told = f"; still at work where it was: {names.listed(left)}" if left else ""
        way = "check it out again; where it was only moved: git khlone doctor --fix in it, wherever it is"
        way += f"; {names.listed(left)} will not see the new one" if left else ""
        yield _error(clone, "worktree-missing", f"{clone.path} is gone{told}", way)
    elif not worktrees.is_linked(clone.path, admin):
        message = f"the .git file in {clone.path} does not point at {admin}"
        copy = copied.find(app, clone, admin)
        if copy is not None:
            message = f"this repository is a copy, and its copied worktree {copy} still belongs to the original"
            yield _error(clone, "worktree-copied", message, "make it a clone of its own: git khlone doctor --fix")
        elif copied.original_admin(clone, admin) is not None:
            message = f"this repository is a copy, and {clone.path} belongs to the original"
            let_go = f"git khlone remove --force {clone.name} (branch and that folder stay as they are)"
            yield _error(clone, "worktree-foreign", message, let_go)
        elif _may_link(clone.path, admin):
            yield _error(clone, "worktree-unlinked", message, "write it again")
        else:
            yield _error(clone, "worktree-foreign", message, "look at it by hand")
    elif _is_whole(admin) and not _is_whole_index(admin / "index"):
        yield _error(clone, "index-damaged", "its index is missing or damaged", "set it aside and read it from HEAD")


def _are_two(here: Path, there: Path) -> bool:
    """Whether these are two folders, both of them there."""
    try:
        return not os.path.samefile(here, there)
    except OSError:
        return False


def _is_whole(admin: Path) -> bool:
    entry = worktrees.read_entry(admin)
    return entry is not None and entry.problem is None


def _is_whole_index(index: Path) -> bool:
    """Whether the checksum at the end of an index is right, or none was written (`index.skipHash`)."""
    try:
        content = files.read_regular(index, most=1 << 30)
    except (StateUnsafe, OSError):
        return False
    if content is None or not content.startswith(b"DIRC"):
        return False
    for kind in (hashlib.sha1, hashlib.sha256):
        size = kind().digest_size
        if content[-size:] in (bytes(size), kind(content[:-size], usedforsecurity=False).digest()):
            return True
    return False


def _renamed_to(app: App, clone: CloneRecord, entry: AdminEntry | None) -> str | None:
    """The name that git's own reflog says the branch was given, if it is checked out and nobody else's.

    Where a branch has the old name again, that of the worktree has to say so too, and to have been nowhere since.
    """
    if entry is not None and "HEAD" in worktrees.problems(entry.path):
        entry = values.replace(entry, head=admin_files.head_of(app, clone, entry.path).content)
    if entry is None or entry.branch in (None, clone.ref) or app.repository.read_ref(entry.branch) is None:
        return None
    if app.repository.read_ref(clone.ref) is not None and not admin_files.was_renamed_last(entry):
        return None
    try:
        log = files.read_regular(app.location.common_dir / "logs" / entry.branch, most=64 << 20) or b""
    except (StateUnsafe, OSError):
        return None
    called = os.fsencode(clone.ref)
    for old, new in _RENAMED.findall(log):
        called = new if old == called else called
    if called != os.fsencode(entry.branch):
        return None
    name = entry.branch.removeprefix("refs/heads/")
    return None if any(other.branch == name for other in app.registry.clones()) else name


def _may_link(worktree: Path, admin: Path) -> bool:
    """Whether a `.git` file may be written there: none, an empty one, or one that names the admin folder."""
    link = worktree / ".git"
    if not worktree.is_dir() or not files.exists(link):
        return worktree.is_dir()
    return link.is_file() and not link.is_symlink() and (not link.stat().st_size or whereabouts.says(worktree, admin))


def _error(clone: CloneRecord, code: str, message: str, fix: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, clone=clone.name, message=message, fix=fix)


def mend(app: App, clone: CloneRecord, code: str, lock: HeldLock) -> bool:
    """Mend one finding of `examine`; says whether that is done now."""
    clone = app.registry.clone_by_id(clone.id) or clone
    admin = undo.admin_path(app, clone)
    if code == "branch-renamed":
        name = _renamed_to(app, clone, worktrees.read_entry(admin))
        return name is not None and _note(app, clone, values.replace(clone, branch=name))
    if code == "branch-missing":
        return _create_ref(app, clone.ref, _last_tip(app, clone), lock)
    if code == "marker-missing":
        return _create_ref(app, clone.marker_ref, clone.base, lock)
    if code == "admin-missing":
        return _build_admin(app, clone, lock)
    if code in ("broken-admin-folder", "admin-astray"):
        return admin_files.write(app, clone)
    if code == "worktree-moved":
        return _follow(app, clone)
    if code == "worktree-copied":
        return copied.make_own(app, clone, lock)
    if code == "worktree-missing":
        return _check_out_again(app, clone, lock)
    if code == "worktree-unlinked":
        files.write_atomic(clone.path / ".git", worktrees.link_content(admin), mode=0o666)
        return files.exists(admin)
    return code == "index-damaged" and _renew_index(app, clone, lock)


def _note(app: App, old: CloneRecord, new: CloneRecord) -> bool:
    """Write another branch or folder of a clone into the registry and the marker."""
    with app.registry.transaction() as change:
        change.rename_clone(old.id, name=new.name, branch=new.branch, path=new.path)
    worktrees.write_marker(undo.admin_path(app, new), journal.to_json(new))
    return True


def _follow(app: App, clone: CloneRecord) -> bool:
    """Let registry and admin folder point at where the worktree is now, and its `.git` file at the admin folder."""
    admin = undo.admin_path(app, clone)
    place = whereabouts.find(app, clone, admin, worktrees.read_entry(admin))
    if place is None or any(other.path == place for other in app.registry.clones()):
        return False
    if not worktrees.is_linked(place, admin):
        files.write_atomic(place / ".git", worktrees.link_content(admin), mode=0o666)
    worktrees.point_at(admin, place)
    return _note(app, clone, values.replace(clone, path=place))


def _renew_index(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    index = undo.admin_path(app, clone) / "index"
    if files.exists(index):
        undo.quarantine(app, index, journal.new_operation_id())
    return _read_index(app, clone, lock)


def _read_index(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    """Read HEAD into the index; the files stay as they are."""
    arguments = ("reset", "--mixed", "--quiet")
    done = app.repository.git(*arguments, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False)
    return done.status == 0


def _last_tip(app: App, clone: CloneRecord) -> str:
    """The branch's last commit by the worktree's own reflog, else what landed, else the base."""
    admin = undo.admin_path(app, clone)
    try:
        log = files.read_regular(admin / "logs" / "HEAD", most=64 << 20) or b""
        original = files.read_regular(admin / "rebase-merge" / "orig-head") or b""
    except (StateUnsafe, OSError):
        log = original = b""
    if worktrees.branch_of(worktrees.read_head(admin)) == clone.ref:
        seen = _LAST_OID.findall(log)
    else:
        left = rb"^([0-9a-f]{40,64}) .*\tcheckout: moving from " + re.escape(os.fsencode(clone.branch)) + rb" to "
        seen = [*re.findall(left, log, re.MULTILINE), original.strip()]
    known = [oid.decode() for oid in seen[-50:] if oid.strip(b"0")]
    for oid in [*reversed(known), clone.merged_head or clone.base]:
        if app.repository.git("cat-file", "-e", f"{oid}^{{commit}}", check=False).status == 0:
            return str(oid)
    return clone.base


def _create_ref(app: App, ref: str, oid: str, lock: HeldLock) -> bool:
    loose = app.location.common_dir / ref
    if loose.is_file():  # empty or torn, or there would be nothing to create
        undo.quarantine(app, loose, journal.new_operation_id())
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
    return _read_index(app, clone, lock) if worktrees.is_linked(clone.path, admin) else True


def _check_out_again(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    """Fill a worktree whose folder is gone: what was staged stays staged, the rest is as committed."""
    admin = undo.admin_path(app, clone)
    if not files.exists(admin):
        return False
    os.makedirs(clone.path.parent, exist_ok=True)
    if whereabouts.is_empty_dir(clone.path):
        os.rmdir(clone.path)
    worktrees.link(clone.path, admin, durable=True)
    with_index = files.exists(admin / "index")
    arguments = ("checkout-index", "--all", "-u") if with_index else ("reset", "--hard", "--quiet")
    done = app.repository.git(*arguments, cwd=clone.path, writes=True, keep_open=[lock.descriptor], check=False)
    return done.status == 0
