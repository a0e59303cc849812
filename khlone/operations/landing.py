"""How does a finished commit become the tip of its target, and nothing else change?

A target that no worktree has checked out moves by compare-and-swap on its ref. A target
that is checked out is moved there together with index and files, and only when nothing
local overlaps: the ref is never moved under a checkout. What a killed landing left half applied is put
back path by path, and a path that holds anything else than the old content, the new, or
a beginning of the new is the user's: then recovery stops and says so.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from khlone import faults, files, worktrees
from khlone.app import App
from khlone.errors import KhloneError, Locked, NoSuchRef, RepositoryUnsupported, TargetDirty, TargetInProgress
from khlone.locks import HeldLock
from khlone.operations import advance, changes, names, undo
from khlone.process import Completed
from khlone.repository import RefUpdate, failure, null_oid
from khlone.values import dataclass

_MOST_LINKS = 5
_LOCK_IN_THE_WAY = re.compile(r"Unable to create '(.*\.lock)': File exists")
#: What git says before it has changed anything, when a file would be overwritten.
_WOULD_LOSE = ("would be overwritten", "overwritten by merge", "not uptodate", "would lose untracked files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """The worktree that has a target checked out."""

    worktree: Path
    git_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """One path between two commits; the mode is 0 and the oid null where it is absent."""

    path: str
    old_mode: int
    new_mode: int
    old_oid: str
    new_oid: str


def require_branch(app: App, name: str) -> tuple[str, str]:
    """The branch that a name means, behind symbolic refs, and its tip; raises NoSuchRef."""
    name = names.branch(app, name)
    ref = f"refs/heads/{name}"
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise NoSuchRef(name, is_branch=True)
    if not app.repository.has_ref_files:
        raise RepositoryUnsupported("its refs are not in files, so it cannot be told where a branch is checked out")
    real = _real_ref(app, ref)
    tip = app.repository.read_ref(real)
    if tip is None or not real.startswith("refs/heads/"):
        raise NoSuchRef(name, is_branch=True)
    return real.removeprefix("refs/heads/"), tip


def _real_ref(app: App, ref: str) -> str:
    """The ref at the end of a chain of symbolic ones; `ref` itself when it is none."""
    for _ in range(_MOST_LINKS):
        further = worktrees.read_symbolic(app.location.common_dir / ref)
        if further is None:
            return ref
        ref = further
    return ref


def find_checkout(app: App, target: str) -> Checkout | None:
    """Where a target is checked out, `None` when nowhere.

    Raises TargetInProgress, and RepositoryUnsupported where the checkout cannot be kept in
    step: it is gone, is not the only one, or cannot be told.
    """
    ref = f"refs/heads/{target}"
    found: list[Checkout] = []
    for held, worktree, git_dir in app.checkouts():
        if held != ref and _real_ref(app, held) != ref:
            continue
        if worktree == app.location.common_dir:
            raise RepositoryUnsupported(
                f"{target} is checked out in a main worktree that cannot be told from here",
                hint="merge from that worktree",
            )
        if not worktree.is_dir():
            raise RepositoryUnsupported(
                f"it is checked out in {worktree}, which is gone",
                hint="git worktree prune, or bring it back",
                what=f"nothing can land on {target}",
            )
        what = worktrees.in_progress(git_dir)
        if what is not None:
            raise TargetInProgress(target, worktree, what)
        found.append(Checkout(worktree=worktree, git_dir=git_dir))
    if len(found) > 1:
        raise RepositoryUnsupported(
            f"{target} is checked out both in {found[0].worktree} and in {found[1].worktree}",
            hint="switch one of them to another branch",
        )
    if not found and _has_hidden_checkout(app, ref):
        raise RepositoryUnsupported(
            f"{target} may be checked out in a worktree of {app.location.common_dir} that only GIT_WORK_TREE names",
            hint=f"merge with --git-dir and --work-tree given to git, or delete {app.location.common_dir / 'index'}",
        )
    return found[0] if found else None


def _has_hidden_checkout(app: App, ref: str) -> bool:
    """Whether a bare repository has an index, as when its worktree is named by a variable at each call."""
    location = app.location
    if not location.bare or location.main_worktree is not None or not files.exists(location.common_dir / "index"):
        return False
    held = worktrees.branch_of(worktrees.read_head(location.common_dir))
    return held is not None and _real_ref(app, held) == ref


def land(
    app: App,
    target: str,
    old: str,
    new: str,
    checkout: Checkout | None,
    lock: HeldLock,
    *,
    reason: str | None = None,
) -> bool:
    """Move the target from `old` to `new`; False when it is not at `old` any more.

    Raises TargetDirty when local work overlaps, Locked when another git holds the index.
    """
    why = reason or f"khlone: merge into {target}"
    if checkout is None:
        done = app.repository.update_refs(
            [RefUpdate(ref=f"refs/heads/{target}", new=new, old=old)],
            reason=why,
            keep_open=[lock.descriptor],
            check=False,
        )
        if done.status != 0 and app.repository.read_ref(f"refs/heads/{target}") == old:
            raise _failed(["update-ref"], done)
        return done.status == 0

    return _move_checkout(app, target, old, new, checkout, lock, why)


def _move_checkout(app: App, target: str, old: str, new: str, checkout: Checkout, lock: HeldLock, reason: str) -> bool:
    ref = f"refs/heads/{target}"
    with advance.locked_index(app, checkout.worktree, checkout.git_dir, lock) as index:
        if app.repository.read_ref(ref) != old:
            return False
        done = index.move_files(old, new)
        if done.status != 0:
            text = done.error_text
            if any(words in text for words in _WOULD_LOSE):
                raise TargetDirty(target, checkout.worktree, advance.paths_in_the_way(text) or ["its files"])
            raise _failed(["move", target], done)
        faults.point("landing.files-written")
        index.publish()
        faults.point("landing.index-published")
        done = index.move_ref(ref, old, new, reason)
        if done.status == 0:
            return True
        index.move_back(old, new)
    if app.repository.read_ref(ref) != old:
        take_back(app, target, old, new, checkout, lock)
        return False
    raise _failed(["update-ref"], done)


def make_durable(app: App, checkout: Checkout | None) -> None:
    """Have the files of a checkout on disk before the registry says that they landed."""
    if checkout is not None and app.settings.durable:
        files.sync_file_system(checkout.worktree)


def _failed(arguments: list[str], done: Completed) -> KhloneError:
    """The error for a landing that git could not do: Locked when a ref's lock was in the way."""
    found = _LOCK_IN_THE_WAY.search(done.error_text)
    if found is not None:
        return Locked(found[1], "another git command, or one that was killed", advance.INDEX_WAIT_S)
    return failure(arguments, done)


def left_its_lock(checkout: Checkout) -> bool:
    """Whether the index is still locked after a landing that raised: then recovery must look at it."""
    return files.exists(checkout.git_dir / "index.lock")


def is_before_any_change(error: BaseException, checkout: Checkout) -> bool:
    """Whether a landing in a checkout was refused before git had changed anything there."""
    return isinstance(error, TargetDirty) or (
        isinstance(error, Locked) and error.facts["what"] == advance.index_of(checkout.worktree)
    )


# -- before: nothing local may overlap -------------------------------------------------------


def path_changes(app: App, old: str, new: str) -> list[PathChange]:
    """Every path that differs between two commits."""
    done = app.repository.git("diff-tree", "-r", "-z", "--no-renames", "--full-index", "--raw", old, new)
    fields = done.stdout.split(b"\0")
    found = []
    for at in range(0, len(fields) - 1, 2):
        modes = fields[at].decode().lstrip(":").split(" ")
        found.append(
            PathChange(
                path=os.fsdecode(fields[at + 1]),
                old_mode=int(modes[0], 8),
                new_mode=int(modes[1], 8),
                old_oid=modes[2],
                new_oid=modes[3],
            )
        )
    return found


def require_clean(app: App, target: str, checkout: Checkout, paths: list[PathChange]) -> None:
    """Raise TargetDirty unless every path that would change is untouched in the checkout.

    Staged and unstaged edits, untracked and ignored files in the way, and local edits
    that `assume-unchanged` or `skip-worktree` hide from `git status` all count.
    """
    touched = {change.path for change in paths}
    status = changes.read_status(app, checkout.worktree, tracked_only=True)
    overlap = touched & set(status.changes.uncommitted)
    overlap |= set(_hidden_edits(app, checkout, touched))
    overlap |= {
        change.path for change in paths if change.old_mode == 0 and _is_in_the_way(checkout, change.path, paths)
    }
    if overlap:
        raise TargetDirty(target, checkout.worktree, sorted(overlap))


def _hidden_edits(app: App, checkout: Checkout, touched: set[str]) -> Iterator[str]:
    listed = app.repository.git("ls-files", "-v", "-z", "--full-name", "--", ":/", cwd=checkout.worktree)
    for item in listed.stdout.split(b"\0"):
        if item and (item[:1] == b"S" or item[:1].islower()):
            path = os.fsdecode(item[2:])
            if path in touched and files.exists(checkout.worktree / path):
                yield path


def _is_in_the_way(checkout: Checkout, path: str, paths: list[PathChange]) -> bool:
    """Whether something untracked lies where a new path, or a folder above it, will be."""
    leaving = {change.path for change in paths if change.new_mode == 0}
    place = checkout.worktree
    parts = path.split("/")
    for count, part in enumerate(parts, 1):
        place = place / part
        try:
            found = os.lstat(place)
        except OSError:
            return False
        if "/".join(parts[:count]) in leaving:
            return False
        if not stat.S_ISDIR(found.st_mode):
            return True
    return _holds_more(place, path, leaving)


def _holds_more(folder: Path, path: str, leaving: set[str]) -> bool:
    """Whether a folder has a file that is not among those that leave."""
    for parent, folders, entries in os.walk(folder):
        below = os.path.relpath(parent, folder)
        start = path if below == "." else f"{path}/{below}"
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        if any(f"{start}/{name}" not in leaving for name in (*entries, *links)):
            return True
    return False


# -- after a crash: put the old content back, then go on --------------------------------------


def clear_locks_of_the_dead(app: App, target: str, checkout: Checkout, operation_id: str) -> None:
    """Unlink the lock files that a killed fast-forward of this operation left."""
    undo.clear_stale_locks(
        app,
        [
            checkout.git_dir / "index.lock",
            checkout.git_dir / "index.khlone",
            checkout.git_dir / "index.khlone.lock",
            checkout.git_dir / "HEAD.lock",
            checkout.git_dir / "ORIG_HEAD.lock",
            app.location.common_dir / f"refs/heads/{target}.lock",
        ],
        operation_id,
    )


def restore_half_applied(app: App, target: str, old: str, new: str, checkout: Checkout, lock: HeldLock) -> None:
    """Undo a fast-forward that stopped half way, so that it can be run again.

    Every changed path was clean when it began (the journal says so). Raises TargetDirty,
    with every file as it is, when a path holds something that neither commit explains.
    """
    if files.exists(checkout.git_dir / "index.lock"):
        raise Locked(advance.index_of(checkout.worktree), "another git command (index.lock)", advance.INDEX_WAIT_S)
    paths = path_changes(app, old, new)
    entries = _index_entries(app, checkout)
    strange = {change.path for change in paths if not _is_explained(app, checkout, change)}
    strange |= {change.path for change in paths if _entry(entries, change) not in (_old(change), _new(change))}
    if strange:
        raise TargetDirty(target, checkout.worktree, sorted(strange))
    _put_back(app, checkout, paths, lock)
    faults.point("merge.recover-restored")


def take_back(app: App, target: str, old: str, new: str, checkout: Checkout, lock: HeldLock) -> None:
    """Undo a fast-forward that wrote files and index and then found the target moved from `old`.

    git writes the index before it moves the ref, and a commit may come between. Only what
    that commit did not change goes back, and only where index and file are as we wrote
    them; a file that was edited since stays, with its index entry.
    """
    tip = app.repository.read_ref(f"refs/heads/{target}")
    if tip is None:
        return
    moved = {change.path for change in path_changes(app, old, tip)}
    entries = _index_entries(app, checkout)
    left = [
        change
        for change in path_changes(app, old, new)
        if change.path not in moved and _entry(entries, change) == _new(change) and _is_explained(app, checkout, change)
    ]
    if left:
        _put_back(app, checkout, left, lock)


def _is_explained(app: App, checkout: Checkout, change: PathChange) -> bool:
    place = checkout.worktree / change.path
    try:
        found = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return True
    if stat.S_ISDIR(found.st_mode):
        return change.old_mode == 0o160000 or change.new_mode == 0o160000 or not os.listdir(place)
    if stat.S_ISLNK(found.st_mode):
        content = os.fsencode(os.readlink(place))
        return content in (_content(app, checkout, change, new=False), _content(app, checkout, change, new=True))
    if not stat.S_ISREG(found.st_mode):
        return False
    content = place.read_bytes()
    new = _content(app, checkout, change, new=True)
    return (new is not None and new.startswith(content)) or content == _content(app, checkout, change, new=False)


def _content(app: App, checkout: Checkout, change: PathChange, *, new: bool) -> bytes | None:
    """What a checkout writes for one side of a path, `None` where it is absent."""
    mode, oid = (change.new_mode, change.new_oid) if new else (change.old_mode, change.old_oid)
    if mode == 0 or mode == 0o160000:
        return None
    plain = ["cat-file", "blob", oid] if stat.S_ISLNK(mode) else ["cat-file", "--filters", f"--path={change.path}", oid]
    done = app.repository.git(*plain, cwd=checkout.worktree, check=False)
    return done.stdout if done.status == 0 else None


def _index_entries(app: App, checkout: Checkout) -> dict[str, tuple[int, str]]:
    """(mode, oid) of each path in the index; the mode is -1 for a path in conflict."""
    listed = app.repository.git("ls-files", "-s", "-z", "--full-name", "--", ":/", cwd=checkout.worktree)
    entries: dict[str, tuple[int, str]] = {}
    for item in listed.stdout.split(b"\0"):
        if item:
            facts, _, name = item.partition(b"\t")
            mode, oid, stage = facts.decode().split(" ")
            entries[os.fsdecode(name)] = (int(mode, 8), oid) if stage == "0" else (-1, oid)
    return entries


def _entry(entries: dict[str, tuple[int, str]], change: PathChange) -> tuple[int, str]:
    return entries.get(change.path, (0, null_oid(change.old_oid)))


def _old(change: PathChange) -> tuple[int, str]:
    return change.old_mode, change.old_oid


def _new(change: PathChange) -> tuple[int, str]:
    return change.new_mode, change.new_oid


def _put_back(app: App, checkout: Checkout, paths: list[PathChange], lock: HeldLock) -> None:
    lines = b"".join(
        f"{change.old_mode:06o} {change.old_oid}\t".encode() + os.fsencode(change.path) + b"\0" for change in paths
    )
    app.repository.git(
        "update-index",
        "-z",
        "--index-info",
        cwd=checkout.worktree,
        stdin=lines,
        writes=True,
        keep_open=[lock.descriptor],
    )
    for change in paths:
        place = checkout.worktree / change.path
        if change.old_mode == 0 and (place.is_symlink() or place.is_file()):
            os.unlink(place)
            _drop_empty_folders(place.parent, checkout.worktree)
    there = b"".join(os.fsencode(change.path) + b"\0" for change in paths if change.old_mode not in (0, 0o160000))
    if there:
        app.repository.git(
            "checkout-index",
            "-f",
            "-u",
            "-z",
            "--stdin",
            cwd=checkout.worktree,
            stdin=there,
            writes=True,
            keep_open=[lock.descriptor],
        )


def _drop_empty_folders(folder: Path, top: Path) -> None:
    while folder != top:
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = folder.parent


def explain(error: KhloneError) -> str:
    """What to tell about a landing that recovery had to leave as it is."""
    return f"{error.message}; nothing was changed there" + (f" ({error.hint})" if error.hint else "")
