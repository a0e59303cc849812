"""Where does a verb that only looks keep what git has to write for it?

In the stage, or, where that is closed, in a folder of its own for a moment; gone at the end.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import KhloneError

#: Seconds after which what a call has left is that of a killed one.
_LEFT_S = 86400.0


@contextlib.contextmanager
def own_index(app: App, admin: Path) -> Iterator[dict[str, str]]:
    """A copy of the worktree's index, gone at the end; what a killed one left goes after a day."""
    import shutil

    with own_room(app) as stage:
        _sweep(stage, "diff-*")
        is_for_a_moment = stage != app.state_dir / "stage"
        objects = objects_in(app, stage / "objects") if is_for_a_moment else {}
        index = stage / f"diff-{os.urandom(4).hex()}.index"
        try:
            with contextlib.suppress(FileNotFoundError):
                # With its times: git compares them with those of files that changed right after it was written.
                shutil.copy2(admin / "index", index)
            yield {"GIT_INDEX_FILE": os.fspath(index), **objects}
        finally:
            for leftover in (index, Path(f"{index}.lock")):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(leftover)


@contextlib.contextmanager
def own_room(app: App) -> Iterator[Path]:
    """Where a verb that only looks keeps its files: the stage, or, where that is closed, a folder for a moment."""
    stage = app.state_dir / "stage"
    if os.access(stage if stage.exists() else app.state_dir, os.W_OK | os.X_OK):
        yield files.make_private_dir(stage)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="khlone-") as folder:
        yield Path(folder)


def objects_in(app: App, folder: Path) -> dict[str, str]:
    """An environment in which git writes new objects to that folder, and reads those of the repository too."""
    folder.mkdir(mode=0o700)
    quoted = os.fspath(app.location.common_dir / "objects").replace("\\", "\\\\").replace('"', '\\"')
    return {"GIT_OBJECT_DIRECTORY": os.fspath(folder), "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}


@contextlib.contextmanager
def own_objects(app: App) -> Iterator[dict[str, str]]:
    """An environment in which git writes new objects to a folder of ours, gone at the end, and reads all others.

    What a killed one left goes after a day.
    """
    with own_room(app) as stage:
        _sweep(stage, "conflicts-*")
        folder = stage / f"conflicts-{os.urandom(4).hex()}"
        try:
            yield objects_in(app, folder)
        finally:
            _clear(folder)


def _sweep(stage: Path, pattern: str) -> None:
    for left in stage.glob(pattern):
        with contextlib.suppress(OSError):
            about = left.lstat()
            if time.time() - about.st_mtime <= _LEFT_S:
                continue
            if stat.S_ISDIR(about.st_mode):
                _clear(left)
            else:
                left.unlink()


def _clear(folder: Path) -> None:
    with contextlib.suppress(OSError, KhloneError):
        files.remove_tree(folder)
