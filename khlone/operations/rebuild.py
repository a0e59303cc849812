"""How is a lost or damaged registry made anew from what lies around?

Every admin folder of a clone carries a marker with its whole record, every trash folder a
`meta.json`. The damaged file is set aside in quarantine, never thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from khlone import files, worktrees
from khlone.app import App
from khlone.config_dir import clone_of, state_root
from khlone.errors import KhloneError, RegistryCorrupt
from khlone.model import CloneRecord, CloneState, Holds, utc_now
from khlone.operations import journal
from khlone.registry import Registry, TrashRecord


def is_needed(app: App) -> bool:
    """Whether the registry is empty, or missing although something tells of clones."""
    if app.has_registry:
        return False
    return files.exists(app.registry_path) or any(_marked(app)) or any(_trashed(app)) or any(_unfinished(app))


def rebuild(app: App) -> list[str]:
    """Set a damaged registry aside, make a new one from markers and trash; returns what was done, for people."""
    notes = []
    with app.locks.repository(told=app.told):
        try:
            if app.has_registry and not app.registry.check():
                return []
        except RegistryCorrupt:
            pass
        app.registry.close()
        if files.exists(app.registry_path):
            notes.append(f"the damaged registry was set aside in {_set_aside(app)}")
        fresh = app.registry_path.with_name(f"registry.{os.urandom(4).hex()}.new")
        _keep_identity(app)
        registry = Registry(fresh)
        with registry.transaction() as change:
            for clone in _marked(app):
                _move_back(app, clone, notes)
                try:
                    change.reserve_clone(clone)
                    notes.append(f"found {clone.name} in {clone.path}")
                except KhloneError as error:
                    notes.append(f"left out {clone.name} in {clone.path}: {error.message}")
            for record in (*_trashed(app), *_unfinished(app)):
                with contextlib.suppress(sqlite3.IntegrityError):
                    change.insert_clone(record.clone)
                    change.insert_trash(record)
                    notes.append(f"found {record.clone.name} in the trash")
        registry.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{fresh}-journal")  # Empty, since all of it is committed.
        files.rename_new(fresh, app.registry_path)
    return notes


def _keep_identity(app: App) -> None:
    """Where the repository's identity was lost too, be again who the private folders of its clones say it was."""
    root = state_root(app.environment)
    if files.exists(root / "repositories" / app.repository_id):
        return
    said = set()
    for clone in _marked(app):
        private = None if clone.config_dir is None else clone_of(root, os.fspath(clone.config_dir))
        is_here = worktrees.is_linked(clone.path, app.location.common_dir / "worktrees" / clone.admin)
        if private is not None and private.name == clone.id and private.is_dir() and is_here:
            said.add(private.parent.parent.name)
    if len(said) == 1:
        app.be_again(said.pop())


def _move_back(app: App, clone: CloneRecord, notes: list[str]) -> None:
    """Undo a removal that nothing else tells of and that had moved the worktree only."""
    for stored in sorted((app.state_dir / "trash" / clone.id).glob("*/worktree")):
        if files.exists(clone.path) or files.exists(stored.parent / "meta.json"):
            continue
        with contextlib.suppress(OSError):
            clone.path.parent.mkdir(parents=True, exist_ok=True)
            files.rename_new(stored, clone.path)
            notes.append(f"moved {clone.name} back from an unfinished removal")


def _set_aside(app: App) -> Path:
    folder = files.make_private_dir(app.state_dir / "quarantine")
    stem = f"registry-{journal.new_operation_id()}"
    for suffix in ("", "-journal", "-wal", "-shm"):
        found = Path(f"{app.registry_path}{suffix}")
        if files.exists(found):
            os.rename(found, folder / f"{stem}.sqlite3{suffix}")
    files.sync_dir(folder)
    return folder / f"{stem}.sqlite3"


def _marked(app: App) -> Iterator[CloneRecord]:
    for entry in worktrees.entries(app.location.common_dir):
        if entry.marker is None:
            continue
        with contextlib.suppress(KeyError, ValueError, TypeError):
            clone = journal.from_json(entry.marker, CloneState.READY)
            if clone.admin == entry.name:
                yield clone


def _trashed(app: App) -> Iterator[TrashRecord]:
    for path in sorted((app.state_dir / "trash").glob("*/*/meta.json")):
        with contextlib.suppress(KeyError, ValueError, TypeError, KhloneError, OSError):
            meta = cast("dict[str, object]", json.loads(files.read_regular(path) or b"{}"))
            tracked, untracked, ignored = cast("list[int]", meta["holds"])
            yield TrashRecord(
                id=str(meta["trash"]),
                clone=journal.from_json(cast("dict[str, object]", meta["clone"]), CloneState.TRASHED),
                removed_at=str(meta["removed_at"]),
                head=str(meta["head"]),
                snapshot=str(meta["snapshot"]),
                branch_deleted=bool(meta["branch_deleted"]),
                bytes=int(cast("int", meta["bytes"])),
                holds=Holds(tracked=tracked, untracked=untracked, ignored=ignored),
            )


def _unfinished(app: App) -> Iterator[TrashRecord]:
    """Removals that had moved both folders when their registry was lost, by the marker in the admin folder."""
    for stored in sorted((app.state_dir / "trash").glob("*/*/admin")):
        folder = stored.parent
        entry = worktrees.read_entry(stored)
        if entry is None or entry.marker is None or files.exists(folder / "meta.json"):
            continue
        with contextlib.suppress(KeyError, ValueError, TypeError, KhloneError):
            clone = journal.from_json(entry.marker, CloneState.TRASHED)
            snapshot = app.repository.read_ref(f"refs/khlone/trash/{clone.id}/{folder.name}")
            tip = app.repository.read_ref(clone.ref)
            yield TrashRecord(
                id=folder.name,
                clone=clone,
                removed_at=utc_now(),
                head=tip or snapshot or clone.base,
                snapshot=snapshot or tip or clone.base,
                branch_deleted=tip is None,
                bytes=files.tree_size(folder),
                holds=Holds(tracked=0, untracked=0, ignored=0),
            )
