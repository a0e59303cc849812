"""How is a lost or damaged registry made anew from what lies around?

Every admin folder of a clone carries a marker with its whole record, every trash folder a
`meta.json`. The damaged file is set aside in quarantine, never thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import KhloneError, RegistryCorrupt
from khlone.model import CloneRecord, CloneState, Holds
from khlone.operations import journal
from khlone.registry import Registry, TrashRecord


def is_needed(app: App) -> bool:
    """Whether the registry is missing although something tells of clones."""
    return not app.has_registry and (any(_marked(app)) or any(_trashed(app)))


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
        if app.has_registry:
            notes.append(f"the damaged registry was set aside in {_set_aside(app)}")
        fresh = app.registry_path.with_name(f"registry.{secrets.token_hex(4)}.new")
        registry = Registry(fresh)
        with registry.transaction() as change:
            for clone in _marked(app):
                with contextlib.suppress(sqlite3.IntegrityError):
                    change.insert_clone(clone)
                    notes.append(f"found {clone.name} in {clone.path}")
            for record in _trashed(app):
                with contextlib.suppress(sqlite3.IntegrityError):
                    change.insert_clone(record.clone)
                    change.insert_trash(record)
                    notes.append(f"found {record.clone.name} in the trash")
        registry.close()
        files.rename_new(fresh, app.registry_path)
    return notes


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
