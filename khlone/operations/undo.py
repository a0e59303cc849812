"""How is a half-made clone taken back without touching what is not provably ours?

Every step looks at what is there and acts only on proof: the worktree only when its
`.git` file is ours, the config dir only with this operation's marker, a ref only by
compare-and-swap at its recorded oid. When another process undoes what a killed one left,
files that the checkout cannot have written are kept: the folder goes to quarantine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from khlone import faults, files, sessions, worktrees
from khlone.app import App
from khlone.errors import GitFailed, StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import include
from khlone.process import Completed
from khlone.repository import RefUpdate, null_oid

#: A lock file of git younger than this may be held by a process that we cannot see.
STALE_AFTER_S = 1.0
#: How many files git is asked for in one process: what it says of them is held in memory.
_AT_ONCE = 50
#: A folder with more files than this takes long enough to be told of.
_MANY_FILES = 1000


def staged_path(app: App, clone: CloneRecord) -> Path:
    """Where the clone's admin folder is built."""
    return app.state_dir / "stage" / clone.id


def admin_path(app: App, clone: CloneRecord) -> Path:
    """Where the clone's admin folder is published."""
    return app.location.common_dir / "worktrees" / clone.admin


def undo_create(app: App, clone: CloneRecord, operation_id: str, lock: HeldLock, *, certain: bool) -> list[str]:
    """Take back every step of a create; returns what was kept and where, for people.

    `certain` says that this very process made it all and nobody was told of it yet.
    May be repeated after a crash of its own.
    """
    kept: list[str] = []
    admin = admin_path(app, clone)
    entry = _admin_of(app, clone)
    if entry is not None:
        admin = entry
    _undo_worktree(app, clone, admin, operation_id, kept, certain=certain)
    faults.point("create.undo-worktree")
    _undo_admin(app, clone, admin)
    faults.point("create.undo-admin")
    if not app.config_dirs.discard(clone.id, operation_id) and clone.config_dir is not None:
        place = app.config_dirs.config_path(clone.id, clone.agent or "generic")
        if files.exists(place):
            kept.append(f"{place} was kept: it is not of this operation")
    faults.point("create.undo-config-dir")
    _undo_refs(app, clone, operation_id, lock, kept)
    faults.point("create.undo-refs")
    return kept


def _admin_of(app: App, clone: CloneRecord) -> Path | None:
    """The admin folder that carries the clone's marker, else the one that points at its worktree."""
    found = worktrees.entries(app.location.common_dir)
    for entry in found:
        if entry.marker is not None and entry.marker.get("id") == clone.id:
            return entry.path
    return next((entry.path for entry in found if entry.worktree == clone.path), None)


def _undo_worktree(
    app: App, clone: CloneRecord, admin: Path, operation_id: str, kept: list[str], *, certain: bool
) -> None:
    aside = clone.path.with_name(f".{clone.path.name}.khlone-{operation_id}")
    if files.exists(aside):
        files.remove_tree(aside)
    if files.exists(clone.path) and _is_our_worktree(clone.path, admin):
        if not certain and _has_many_files(clone.path):
            app.told(f"taking back the interrupted new of {clone.name}, which has many files: {clone.path}")
        if certain or not _holds_more_than_the_checkout(app, clone, admin):
            files.rename_new(clone.path, aside, durable=False)
            files.remove_tree(aside)
        else:
            kept.append(f"{clone.path} holds work: moved to {quarantine(app, clone.path, operation_id)}")
    drop_empty_parent(clone)


def _has_many_files(folder: Path) -> bool:
    count = 0
    for _, _, names in os.walk(folder):
        count += len(names)
        if count > _MANY_FILES:
            return True
    return False


def drop_empty_parent(clone: CloneRecord) -> None:
    """Remove the folder of clones when the last one has left it; a folder of the user's own stays."""
    if clone.path.parent.name.endswith(".clones"):
        with contextlib.suppress(OSError):
            os.rmdir(clone.path.parent)


def _is_our_worktree(path: Path, admin: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        content = files.read_regular(path / ".git")
    except (StateUnsafe, OSError):
        return False
    if content is None:
        return not os.listdir(path)
    return worktrees.link_content(admin).startswith(content)


def _holds_more_than_the_checkout(app: App, clone: CloneRecord, admin: Path) -> bool:
    """Whether the folder has a file that an interrupted checkout of the base cannot have written."""
    if not files.exists(admin) or not files.exists(clone.path / ".git"):
        return len(os.listdir(clone.path)) > 1
    index = app.state_dir / "stage" / f"{clone.id}.index"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(index)
    environment = {
        "GIT_INDEX_FILE": os.fspath(index),
        "GIT_DIR": os.fspath(admin),
        "GIT_WORK_TREE": os.fspath(clone.path),
    }

    def ask(*arguments: str) -> Completed:
        return app.repository.git(*arguments, cwd=clone.path, environment=environment, check=False)

    try:
        if ask("read-tree", clone.base).status != 0:
            return True
        # Compares contents once, all in one process: what is whole drops out of the look below.
        if ask("update-index", "-q", "--refresh").status not in (0, 1):
            return True
        others = ask("ls-files", "--others", "-z")
        changed = ask("diff-files", "-z", "--raw", "--abbrev=64", "--diff-filter=MTUX")
        if others.status != 0 or changed.status != 0:
            return True
        names = [os.fsdecode(name) for name in others.stdout.split(b"\0") if name]
        own = _made_by_plugins(clone, names)
        if not all(name in own or include.is_copy(app, clone, name) for name in names):
            return True
        fields = changed.stdout.split(b"\0")[:-1]
        return not _are_prefixes(app, clone, list(zip(fields[::2], fields[1::2], strict=True)))
    except GitFailed:  # It says more than can be judged.
        return True
    finally:
        with contextlib.suppress(OSError):
            os.unlink(index)


def _made_by_plugins(clone: CloneRecord, names: Sequence[str]) -> set[str]:
    """What was written before the clone was ready, and said to be."""
    if clone.config_dir is None or not names:
        return set()
    from khlone import generated, port_leases

    return generated.made(port_leases.private_folder(clone.config_dir), clone.path, names)


def _are_prefixes(app: App, clone: CloneRecord, found: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether each file is the beginning of what the checkout would write there; given as `diff-files` has it."""
    for at in range(0, len(found), _AT_ONCE):
        some = found[at : at + _AT_ONCE]
        paths = [clone.path / os.fsdecode(name) for _, name in some]
        if any(path.is_symlink() or not path.is_file() for path in paths):
            return False
        # The size that git tells is the one before filters, so what comes is told apart by a word of our own.
        border = os.urandom(16).hex()
        asked = b"".join(facts.split(b" ")[2] + b" " + name + b"\0" for facts, name in some)
        arguments = ("cat-file", "--filters", "-z", f"--batch={border}%(objecttype)")
        shown = app.repository.git(*arguments, cwd=clone.path, stdin=asked, check=False)
        contents = shown.stdout.split(f"{border}blob\n".encode())[1:]
        if shown.status != 0 or len(contents) != len(some):
            return False
        if not all(whole[:-1].startswith(path.read_bytes()) for whole, path in zip(contents, paths, strict=True)):
            return False
    return True


def quarantine(app: App, path: Path, operation_id: str) -> Path:
    """Move something that cannot be judged to the quarantine, or leave it where another disk is needed."""
    folder = files.make_private_dir(app.state_dir / "quarantine")
    place = folder / f"{operation_id}-{path.name}"
    number = 1
    while files.exists(place):
        number += 1
        place = folder / f"{operation_id}-{path.name}-{number}"
    try:
        files.rename_new(path, place)
    except OSError:
        return path
    return place


def _undo_admin(app: App, clone: CloneRecord, admin: Path) -> None:
    staged = staged_path(app, clone)
    undone = staged.with_name(f"{clone.id}.undo")
    for leftover in (staged, undone):
        if files.exists(leftover):
            files.remove_tree(leftover)
    entry = worktrees.read_entry(admin)
    if entry is None:
        return
    ours = entry.marker is not None and entry.marker.get("id") == clone.id
    if ours or (entry.marker is None and entry.worktree == clone.path):
        files.rename_new(admin, undone, durable=False)
        files.remove_tree(undone)
    with contextlib.suppress(OSError):
        os.rmdir(admin.parent)


def _undo_refs(app: App, clone: CloneRecord, operation_id: str, lock: HeldLock, kept: list[str]) -> None:
    refs = [clone.marker_ref, *([clone.ref] if clone.branch_owned else [])]
    clear_stale_locks(app, [app.location.common_dir / f"{ref}.lock" for ref in refs], operation_id)
    updates = []
    for ref in refs:
        found = app.repository.read_ref(ref)
        if found == clone.base:
            updates.append(RefUpdate(ref=ref, new=null_oid(found), old=found))
        elif found is not None:
            kept.append(f"{ref} was kept: it moved to {found}")
    if updates:
        clear_stale_locks(app, [app.location.common_dir / "packed-refs.lock"], operation_id)
        app.repository.update_refs(updates, reason="khlone: undo new", keep_open=[lock.descriptor])


def clear_stale_locks(app: App, locks: Iterable[Path], operation_id: str) -> None:
    """Unlink lock files that a dead git of a dead operation left, and no others.

    The caller holds the clone's operation lock, which a living git of that operation
    would still hold too. A lock goes only when it is not older than the operation, has
    rested for a second, and no live git process works in this repository. While somebody
    works here who cannot be seen from here, only those go that none but khlone takes.
    """
    began_s = int(operation_id[:12], 16) / 1000
    present = []
    for path in locks:
        try:
            found = os.lstat(path)
        except OSError:
            continue
        if found.st_mtime >= began_s - 1.0:
            present.append(path)
    if present and has_unseen(app, besides=operation_id):
        own = app.location.common_dir / "refs" / "khlone"
        present = [path for path in present if path.is_relative_to(own)]
    if not present:
        return
    places = [app.location.common_dir, app.location.anchor]
    places += [entry.worktree for entry in worktrees.entries(app.location.common_dir) if entry.worktree is not None]
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        young = [path for path in present if _age_s(path) < STALE_AFTER_S]
        if not young and not sessions.git_processes_near(places) and not sessions.is_open(present):
            for path in present:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            return
        time.sleep(0.1)


def has_unseen(app: App, *, besides: str | None = None) -> bool:
    """Whether a session, or an operation but for that one, has processes that cannot be looked at from here."""
    if not app.has_registry:
        return False
    owners = [one.owner for one in app.registry.live_sessions()]
    owners += [one.owner for one in app.registry.open_operations() if one.id != besides]
    return any(sessions.out_of_sight(owner) is not None and sessions.may_live(owner) for owner in owners)


def _age_s(path: Path) -> float:
    try:
        return abs(time.time() - os.lstat(path).st_mtime)
    except OSError:
        return STALE_AFTER_S
