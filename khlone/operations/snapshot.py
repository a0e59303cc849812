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
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import GitFailed, StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import changes, undo
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.repository import RefUpdate, null_oid

_TRIES = 3
_OIDS = re.compile(rb"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")
_MOST_PARENTS = 200


def take(app: App, clone: CloneRecord, head: str, ref: str, folder: Path, lock: HeldLock) -> str:
    """Create `ref` at a commit that holds what the worktree holds; returns its oid.

    Tried again when a collection runs between making the commit and making the ref.
    """
    for attempt in range(_TRIES):
        oid = _build(app, clone, head, folder)
        done = app.repository.update_refs(
            [RefUpdate(ref=ref, new=oid, old=null_oid(oid))],
            reason=f"khlone: trash {clone.name}",
            keep_open=[lock.descriptor],
            check=attempt == _TRIES - 1,
        )
        if done.status == 0:
            return oid
    raise AssertionError("the last try raises")


def _build(app: App, clone: CloneRecord, head: str, folder: Path) -> str:
    admin = undo.admin_path(app, clone)
    if not worktrees.is_linked(clone.path, admin):
        return head
    status = changes.read_status(app, clone.path)
    at = status.head or head
    only_here = _only_here(app, admin, [head, at])
    parents = [at] if at == head else [at, head]
    if not status.changes.uncommitted:
        if not only_here and at == head:
            return head
        tree = app.repository.git("rev-parse", f"{at}^{{tree}}").text.strip()
        return _commit(app, tree, [*parents, *only_here], clone)
    index = folder / f"index-{secrets.token_hex(4)}"
    try:
        if files.exists(admin / "index"):
            shutil.copyfile(admin / "index", index)
        environment = {"GIT_INDEX_FILE": os.fspath(index)}
        staged = app.repository.git("write-tree", cwd=clone.path, environment=environment, check=False)
        if staged.status == 0:
            parents.append(_commit(app, staged.text.strip(), [at], clone))
        nested = [f":(exclude,literal,top){name}" for name in status.changes.untracked if name.endswith("/")]
        app.repository.git(
            "add", "-A", "--ignore-errors", "--", ":/", *nested, cwd=clone.path, environment=environment, check=False
        )
        written = app.repository.git("write-tree", cwd=clone.path, environment=environment, check=False)
        tree = written.text.strip() if written.status == 0 else staged.text.strip()
        if not tree:
            raise GitFailed(["write-tree"], written.status, written.error_text)
        return _commit(app, tree, [*parents, *only_here], clone)
    finally:
        if files.exists(index):
            os.unlink(index)


def _only_here(app: App, admin: Path, known: Sequence[str]) -> list[str]:
    """Commits that the admin folder mentions and that `known` does not contain."""
    mentioned: list[str] = []
    places = [admin / "logs" / "HEAD", *(admin / name for name in ("ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD"))]
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
