"""What of a worktree can git itself keep, and under which ref?

The second tier of the trash: a commit of the files as they are (tracked and untracked),
with the staged state and every commit that only this worktree's reflog, detached HEAD or
interrupted rebase knows among its parents. Taken before the folder is moved, since moved
folders are roots of no collection. Ignored files and nested repositories are not in it:
the first tier, the folder itself, has those.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import GitFailed, Locked, StateUnsafe
from khlone.locks import HeldLock
from khlone.model import Changes, CloneRecord
from khlone.operations import changes, undo
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.process import Completed
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass

_TRIES = 5
#: Seconds that a running collection is waited for before the removal is refused.
_COLLECTION_WAIT_S = 60.0
_OIDS = re.compile(rb"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")
_MOST_PARENTS = 200


def take(app: App, clone: CloneRecord, head: str, ref: str, folder: Path, lock: HeldLock) -> str:
    """Create `ref` at a commit that holds what the worktree holds; returns its oid.

    Tried again when a collection took objects of it before the ref was there to keep
    them. A worktree that git cannot read at all leaves the ref at `head`, and says so: the
    folder that is moved has everything. One that git can read is never moved without its
    snapshot, since its admin folder may be all that keeps a commit or what is staged:
    raises Locked then, with nothing moved.
    """
    why = ""
    readable = _is_readable(app, clone)
    for _ in range(_TRIES):
        try:
            oid = _build(app, clone, head, folder)
        except GitFailed as error:
            why = error.message
            continue
        done = _create(app, clone, ref, oid, lock, check=False)
        if done.status == 0:
            # One that began before the ref was there may still take what it refers to.
            _await_collection(app)
        if done.status == 0 and (oid == head or _is_whole(app, oid, head)):
            return oid
        why = done.error_text.strip() or "a collection took parts of it"
        if done.status == 0:
            gone = RefUpdate(ref=ref, new=null_oid(oid), old=oid)
            app.repository.update_refs([gone], reason="khlone: not whole", keep_open=[lock.descriptor])
    if readable:
        raise Locked(f"the snapshot of {clone.name}", f"git, which does not keep it ({why})", 0.0)
    app.told(f"warning: git could not keep a second copy of {clone.name}'s changes: {why}")
    _create(app, clone, ref, head, lock, check=True)
    return head


def _is_readable(app: App, clone: CloneRecord) -> bool:
    admin = undo.admin_path(app, clone)
    return worktrees.is_linked(clone.path, admin) and _status(app, clone, admin) is not None


def _await_collection(app: App) -> None:
    """Wait for the end of the `git gc` that runs now, if one does; a later one knows every ref of now.

    Raises Locked after `_COLLECTION_WAIT_S`.
    """
    running = app.location.common_dir / "gc.pid"
    began = time.monotonic()
    first = _mark(running)
    while first is not None and _mark(running) == first:
        if time.monotonic() - began > _COLLECTION_WAIT_S:
            raise Locked("the object database", f"git gc (see {running})", _COLLECTION_WAIT_S)
        time.sleep(0.02)


def _mark(running: Path) -> tuple[int, int] | None:
    try:
        found = os.lstat(running)
    except OSError:
        return None
    # git leaves the file of a killed one for twelve hours: it runs only while its process does.
    words = (files.read_regular(running) or b"").split()
    if len(words) == 2 and words[0].isdigit() and words[1] == os.fsencode(os.uname().nodename):
        try:
            os.kill(int(words[0]), 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
    return found.st_ino, found.st_mtime_ns


def is_as(app: App, clone: CloneRecord, head: str, snapshot: str, folder: Path) -> bool:
    """Whether branch, HEAD and files of a worktree, ignored ones aside, are as a snapshot of it has them."""
    made = _build(app, clone, head, folder)
    if made == snapshot:
        return True
    return made != head and snapshot != head and _facts(app, made) == _facts(app, snapshot)


def _facts(app: App, oid: str) -> list[str]:
    """The tree of a snapshot and the commit that HEAD was at."""
    shown = app.repository.git("rev-list", "--no-walk", "--no-commit-header", "--format=%T %P", oid).text.split()
    return shown[:2]


def _create(app: App, clone: CloneRecord, ref: str, oid: str, lock: HeldLock, *, check: bool) -> Completed:
    return app.repository.update_refs(
        [RefUpdate(ref=ref, new=oid, old=null_oid(oid))],
        reason=f"khlone: trash {clone.name}",
        keep_open=[lock.descriptor],
        check=check,
    )


def _is_whole(app: App, oid: str, head: str) -> bool:
    """Whether every object of the snapshot is there: a ref can be made at a commit without its files."""
    return app.repository.git("rev-list", "--objects", "--quiet", oid, f"^{head}", check=False).status == 0


def _build(app: App, clone: CloneRecord, head: str, folder: Path) -> str:
    admin = undo.admin_path(app, clone)
    linked = worktrees.is_linked(clone.path, admin)
    status = _status(app, clone, admin) if linked else changes.read_index(app, admin)
    at = status.head if status is not None and status.head else head
    only_here = _only_here(app, clone, admin, [head, at])
    parents = [at] if at == head else [at, head]
    if status is not None and not status.changes.uncommitted:
        if not only_here and at == head:
            return head
        return _commit(app, _tree_of(app, at), [*parents, *only_here], clone)
    index = folder / f"index-{os.urandom(4).hex()}"
    try:
        source = _Source(
            app=app,
            cwd=clone.path if linked else app.location.common_dir,
            environment={"GIT_INDEX_FILE": os.fspath(index), **_git_dir(app, clone, linked=linked and status is None)},
        )
        if files.exists(admin / "index"):
            # With its times: git compares them with those of files that changed right after it was written.
            shutil.copy2(admin / "index", index)
        staged = source.tree()
        if staged is None and status is None:
            index.unlink(missing_ok=True)
            source.git("read-tree", at)
        elif staged is not None and staged != _tree_of(app, at):
            parents.append(_commit(app, staged, [at], clone))
        if linked:
            source.add(status.changes if status is not None else None)
        tree = source.tree()
        if tree is None:
            raise GitFailed(["write-tree"], 128, "its files cannot be written as a tree")
        return _commit(app, tree, [*parents, *only_here], clone)
    finally:
        index.unlink(missing_ok=True)


def _status(app: App, clone: CloneRecord, admin: Path) -> changes.Status | None:
    try:
        return changes.read_status(app, clone.path) if files.exists(admin) else None
    except GitFailed:
        return None


def _git_dir(app: App, clone: CloneRecord, *, linked: bool) -> dict[str, str]:
    """The variables that let git read a worktree whose own admin folder it cannot use."""
    if not linked:
        return {}
    return {"GIT_DIR": os.fspath(app.location.common_dir), "GIT_WORK_TREE": os.fspath(clone.path)}


def _tree_of(app: App, oid: str) -> str:
    return app.repository.git("rev-parse", f"{oid}^{{tree}}").text.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The files of a worktree, and an index of our own to gather them in."""

    app: App
    cwd: Path
    environment: Mapping[str, str]

    def git(self, *arguments: str, stdin: bytes | None = None) -> Completed:
        return self.app.repository.git(
            *arguments,
            cwd=self.cwd,
            environment=self.environment,
            stdin=stdin,
            writes=True,
            check=False,
            configuration=["core.safecrlf=false"],
        )

    def tree(self) -> str | None:
        """The index as a tree, `None` where it has conflicts or cannot be read."""
        done = self.git("write-tree")
        return done.text.strip() if done.status == 0 else None

    def add(self, found: Changes | None) -> None:
        """Take in every change; what a filter of the repository cannot take is taken in as it is."""
        untracked = found.untracked if found is not None else ()
        nested = [f":(exclude,literal,top){name}" for name in untracked if name.endswith("/")]
        if self.git("add", "-A", "--ignore-errors", "--", ":/", *nested).status != 0 and found is not None:
            for name in found.uncommitted:
                self._add_raw(name)

    def _add_raw(self, name: str) -> None:
        path = self.cwd / name
        if not path.is_file() or path.is_symlink():
            return
        hashed = self.git("hash-object", "-w", "--no-filters", "--", name)
        if hashed.status == 0:
            mode = "100755" if os.access(path, os.X_OK) else "100644"
            line = f"{mode} {hashed.text.strip()}\t{name}\0"
            self.git("update-index", "-z", "--index-info", stdin=os.fsencode(line))


def _only_here(app: App, clone: CloneRecord, admin: Path, known: Sequence[str]) -> list[str]:
    """Commits that the admin folder or the branch's reflog mentions and that `known` does not contain."""
    mentioned: list[str] = []
    places = [app.location.common_dir / "logs" / clone.ref, admin / "logs" / "HEAD"]
    places += [*(admin / name for name in ("ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD"))]
    for folder in ("rebase-merge", "rebase-apply"):
        places += [admin / folder / name for name in ("orig-head", "onto", "stopped-sha", "rewritten-list")]
    for place in places:
        try:
            content = files.read_regular(place, most=16 << 20)
        except (StateUnsafe, OSError):
            continue
        mentioned += [match.decode() for match in _OIDS.findall(content or b"")]
    wanted = [oid for oid in dict.fromkeys(mentioned) if oid.strip("0") and oid not in known][-_MOST_PARENTS:]
    if not wanted:
        return []
    lines = "\n".join([*wanted, *(f"^{oid}" for oid in known)]) + "\n"
    done = app.repository.git("rev-list", "--ignore-missing", "--stdin", stdin=lines.encode(), check=False)
    fresh = set(done.text.split()) if done.status == 0 else set()
    return [oid for oid in wanted if oid in fresh]


def _commit(app: App, tree: str, parents: Sequence[str], clone: CloneRecord) -> str:
    arguments = [part for parent in dict.fromkeys(parents) for part in ("-p", parent)]
    done = app.repository.git(
        "commit-tree",
        *arguments,
        "-m",
        f"khlone: {clone.name} as it was removed",
        tree,
        environment=KHLONE_IDENTITY,
        writes=True,
    )
    return done.text.strip()
