"""Where is a clone's worktree, when it is not where it was?

A folder that was moved by hand may hold work, so that one that is missing is not taken for
deleted. It is looked for where that costs little: where git or the caller is, near the old
place, and where live processes work.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import files, sessions, worktrees
from khlone.app import App
from khlone.errors import CloneNotReady, StateUnsafe
from khlone.model import CloneRecord
from khlone.operations import undo
from khlone.worktrees import AdminEntry

_MOST_NEIGHBOURS = 2000
#: How far above its working folder the worktree of a process is looked for.
_MOST_ABOVE = 40


def find(app: App, clone: CloneRecord, admin: Path, entry: AdminEntry | None) -> Path | None:
    """Where the worktree is now; `None` while something is at its old place, or where it is not found."""
    if files.exists(clone.path) and not is_empty_dir(clone.path):
        return None
    for candidate in _near(app, clone, entry):
        if _is_file(candidate / ".git") and says(candidate, admin):
            return candidate
    # Further off only what names this very admin folder.
    return next((one for one in _far(app, clone) if worktrees.is_linked(one, admin)), None)


def require_unmoved(app: App, clone: CloneRecord) -> None:
    """Raise CloneNotReady where the folder is not at its place, and was found at another one."""
    admin = undo.admin_path(app, clone)
    place = None if files.exists(clone.path) else find(app, clone, admin, worktrees.read_entry(admin))
    if place is not None:
        error = CloneNotReady(clone.name, "broken", f"its worktree was moved to {place}")
        repair = f"git worktree repair {shlex.quote(os.fspath(place))}"
        error.hint = f"`git khlone doctor --fix` follows it (git alone: `{repair}`); or move it back to {clone.path}"
        raise error


def require_known(app: App, clone: CloneRecord) -> None:
    """Raise CloneNotReady where the folder is not at its place, and git still takes it for a worktree."""
    if files.exists(clone.path) or not files.exists(undo.admin_path(app, clone)):
        return
    require_unmoved(app, clone)
    error = CloneNotReady(clone.name, "broken", f"{clone.path} is gone, and may have been moved, work and all")
    error.hint = (
        f"moved: `git khlone doctor --fix` in it, wherever it is; deleted: `git khlone remove --force {clone.name}`"
    )
    raise error


def _near(app: App, clone: CloneRecord, entry: AdminEntry | None) -> Iterator[Path]:
    """Where git and the caller are, and what lies beside the old place."""
    if entry is not None and entry.worktree is not None:
        yield entry.worktree
    if app.location.worktree is not None:
        yield app.location.worktree
    old = clone.path.parent
    yield from _inside((old, app.location.anchor.with_name(old.name)))


def _far(app: App, clone: CloneRecord) -> Iterator[Path]:
    """What lies beside the repository and the folder of its clones, and where processes work."""
    yield from _inside((clone.path.parent.parent, app.location.anchor.parent))
    seen: set[Path] = set()
    for place in sessions.working_folders():
        for above in (place, *list(place.parents)[:_MOST_ABOVE]):
            if above in seen:
                break
            seen.add(above)
            yield above


def _inside(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in dict.fromkeys(folders):
        try:
            names = sorted(os.listdir(folder))[:_MOST_NEIGHBOURS]
        except OSError:
            continue
        yield from (folder / name for name in names)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def is_empty_dir(path: Path) -> bool:
    """Whether it is a folder, and no link to one, with nothing in it."""
    return path.is_dir() and not path.is_symlink() and not os.listdir(path)


def says(worktree: Path, admin: Path) -> bool:
    """Whether the `.git` file there names this admin folder, be it at a place where it is no more."""
    if worktrees.is_linked(worktree, admin):
        return True
    try:
        text = os.fsdecode(files.read_regular(worktree / ".git", most=1 << 16) or b"")
    except (StateUnsafe, OSError):
        return False
    if not text.startswith("gitdir: "):
        return False
    said = Path(os.path.normpath(worktree / text.removeprefix("gitdir: ").rstrip("\n")))
    there = (said.name, said.parent.name) == (admin.name, "worktrees")
    return there and (not files.exists(said) or os.path.realpath(said) == os.path.realpath(admin))
