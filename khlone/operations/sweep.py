"""Which files did killed commands leave that nobody needs, and may they go?

Temporary files of a writer that is dead, and lock files and empty temporary folders of
clones that nobody knows any more. A file goes only when its writer cannot be writing it: by its pid, its age, and no
process having it open. How a lock file goes is in docs/decisions/0006-sweep-lock-files.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from khlone import capacity, sessions
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import ProcessIdentity
from khlone.repository import RefUpdate, null_oid

#: A temporary file younger than this is left, whoever made it: writing one takes milliseconds.
RESTED_S = 600.0
#: A temporary folder of a clone that nobody knows, and that holds nothing, is left for so long.
TEMP_RESTED_S = 86400.0
#: What files.py, app.py, database.py and rebuild.py call what they write before it has its name.
_TEMPORARY = re.compile(
    r"\.[^/]+\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp|\.registry\.sqlite3\.[0-9a-f]{8}\.tmp(-journal)?"
    r"|id\.[0-9a-f]{8}\.tmp|registry\.[0-9a-f]{8}\.new(-journal)?"
)


def leftovers(app: App) -> list[Path]:
    """Temporary files of dead writers in the repository's state, in trash entries and in admin folders."""
    found = [path for path in _temporary(app) if _is_dead(path)]
    return [path for path in found if not sessions.is_open([path])]


def sweep(app: App) -> int:
    """Delete what `leftovers` finds; how many. Lock files and empty temporary folders of unknown clones go too."""
    swept = 0
    for path in leftovers(app):
        with contextlib.suppress(OSError):
            os.unlink(path)
            swept += 1
    if app.has_registry:
        app.locks.sweep_operations(lambda clone_id: _is_unknown(app, clone_id))
        with contextlib.suppress(KhloneError, OSError):
            known = {clone.id for clone in app.registry.clones()} | {entry.clone.id for entry in app.registry.trash()}
            app.config_dirs.sweep_temp(known | capacity.marked(), rested_s=TEMP_RESTED_S)
    return swept


def forget_undone(app: App, age_s: float) -> None:
    """Drop the refs under which undo keeps where a branch was, of operations older than that.

    They hold what khlone had made of commits that their own branches have, for as long as
    git's reflog would: what is older cannot be undone, since things have moved on.
    """
    listed = app.repository.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/khlone/undo", check=False)
    gone = []
    for line in listed.text.splitlines():
        oid, _, ref = line.partition(" ")
        made = re.fullmatch(r"refs/khlone/undo/([0-9a-f]{12})[0-9a-f]{4}", ref)
        if made is not None and time.time() - int(made[1], 16) / 1000 > age_s:
            gone.append(RefUpdate(ref=ref, new=null_oid(oid), old=oid))
    if gone:
        app.repository.update_refs(gone, reason="khlone: prune", check=False)


def _is_unknown(app: App, clone_id: str) -> bool:
    if app.registry.clone_by_id(clone_id) is not None:
        return False
    return all(operation.clone_id != clone_id for operation in app.registry.open_operations())


def _temporary(app: App) -> Iterator[Path]:
    folders = [
        app.state_dir,
        *(app.state_dir / "trash").glob("*/*"),
        *(app.location.common_dir / "worktrees").glob("*"),
    ]
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from (folder / name for name in sorted(os.listdir(folder)) if _TEMPORARY.fullmatch(name))


def _is_dead(path: Path) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or not stat.S_ISREG(found.st_mode) or abs(time.time() - found.st_mtime) < RESTED_S:
        return False
    if match["pid"] is None:
        return True
    here = sessions.identity()
    writer = ProcessIdentity(pid=int(match["pid"]), start_ticks=None, boot_id=here.boot_id, host=here.host)
    return not sessions.may_live(writer)
