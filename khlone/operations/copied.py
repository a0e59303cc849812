"""Is this repository a copy, whose clones still are those of the original, and how do they become its own?

`cp -r` of a folder with a repository and its clones copies links that lead to the original:
the copied worktrees commit into it, and the copied registry names its worktrees. A copied
worktree is linked to the copy and gets an id and a config dir of its own; the original, its
worktrees and its processes are never touched from here.
"""

from __future__ import annotations

import os
from pathlib import Path

from khlone import files, values, worktrees
from khlone.app import App
from khlone.errors import KhloneError, StateUnsafe
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import journal, undo
from khlone.operations.create import lock_reason
from khlone.repository import RefUpdate, null_oid


def original_admin(clone: CloneRecord, admin: Path) -> Path | None:
    """The admin folder, in another repository, whose worktree lies where the clone should; else `None`."""
    said = _said(clone.path)
    if said is None or said == admin or (said.name, said.parent.name) != (admin.name, "worktrees"):
        return None
    entry = worktrees.read_entry(said)
    if entry is None or entry.worktree != clone.path or os.path.realpath(said) == os.path.realpath(admin):
        return None
    return said


def find(app: App, clone: CloneRecord, admin: Path) -> Path | None:
    """The copied worktree of a clone, `None` where none lies where the copy should have it."""
    said = original_admin(clone, admin)
    if said is None:
        return None
    common = said.parent.parent
    anchor = common.parent if common.name == ".git" else common
    place = Path(os.path.normpath(app.location.anchor / os.path.relpath(clone.path, anchor)))
    if place == clone.path or not place.is_dir() or os.path.realpath(place) == os.path.realpath(clone.path):
        return None
    if _said(place) not in (said, admin) or any(other.path == place for other in app.registry.clones()):
        return None
    return place


def _said(worktree: Path) -> Path | None:
    """The admin folder that the `.git` file of a worktree names."""
    try:
        text = os.fsdecode(files.read_regular(worktree / ".git", most=1 << 16) or b"")
    except (StateUnsafe, OSError):
        return None
    if not text.startswith("gitdir: "):
        return None
    return Path(os.path.normpath(worktree / text.removeprefix("gitdir: ").rstrip("\n")))


def make_own(app: App, clone: CloneRecord, lock: HeldLock) -> bool:
    """Link the copied worktree to this repository, as a clone of its own; may be repeated after a crash."""
    admin = undo.admin_path(app, clone)
    place = find(app, clone, admin)
    if place is None:
        return False
    own = values.replace(clone, id=journal.new_clone_id(), path=place)
    if clone.agent is not None:
        own = values.replace(own, config_dir=_config_dir(app, own, clone.agent))
    fresh = RefUpdate(ref=own.marker_ref, new=own.base, old=null_oid(own.base))
    app.repository.update_refs([fresh], reason="khlone: doctor", keep_open=[lock.descriptor])
    files.write_atomic(place / ".git", worktrees.link_content(admin), mode=0o666)
    worktrees.point_at(admin, place)
    files.write_atomic(admin / "locked", f"{lock_reason(own)}\n".encode(), mode=0o666)
    worktrees.write_marker(admin, journal.to_json(own))
    with app.registry.transaction() as change:
        change.delete_clone(clone.id)
        change.insert_clone(own)
    found = app.repository.read_ref(clone.marker_ref)
    if found is not None:
        gone = RefUpdate(ref=clone.marker_ref, new=null_oid(found), old=found)
        app.repository.update_refs([gone], reason="khlone: doctor", keep_open=[lock.descriptor])
    return True


def _config_dir(app: App, clone: CloneRecord, agent: str) -> Path:
    """A config dir for the clone, filled as that of a new one: the original's is not shared."""
    place = app.config_dirs.publish(clone.id, journal.new_operation_id(), agent)
    try:
        profile = app.plugins.agents(app.settings.values, agent).get(agent)
        if profile is not None:
            app.plugins.populate_config_dir(journal.as_clone(clone), profile, place)
    except KhloneError as error:
        app.told(f"warning: the config dir of {clone.name} is empty: {error}")
    return place
