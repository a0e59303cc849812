"""Can khlone keep its files where it has to, and can its locks be relied on there?

Nothing is written to find that out: a verb that needs a place refuses, and this is told before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from khlone import files, mounts
from khlone.app import App
from khlone.config_dir import state_root
from khlone.errors import KhloneError, NetworkFileSystem, RegistryNewer
from khlone.machine_schema import MIGRATIONS
from khlone.model import Finding, Severity


def examine(app: App) -> Iterator[Finding]:
    """Of the repository and of the user's state: what cannot be written to as an error, or lies on a network."""
    try:
        app.require_outside()
    except KhloneError:
        return  # In a sandbox all of it is read-only, and meant to be.
    common_dir = app.location.common_dir
    found = list(_writable(common_dir, app.state_dir))
    yield from found or _parts(common_dir)
    kind = mounts.network_type(common_dir)
    if kind is not None:
        is_allowed = app.settings.allow_network_file_system
        refusal = NetworkFileSystem(common_dir, kind)
        yield Finding(
            code=refusal.code,
            severity=Severity.WARNING if is_allowed else Severity.ERROR,
            message=refusal.message,
            fix="use it from one machine alone, as khlone.allowNetworkFileSystem says" if is_allowed else refusal.hint,
        )
    try:
        state = state_root(app.environment)
    except KhloneError as error:
        yield _error(error)
        return
    yield from _writable(state, state)
    kind = mounts.network_type(state)
    if kind is not None:
        yield Finding(
            code=NetworkFileSystem.code,
            severity=Severity.WARNING,
            message=f"{state} lies on {kind}, where locks are not reliable: it holds what sessions share of a machine",
            fix="set XDG_STATE_HOME to a folder on a local disk, before there are clones",
        )
    yield from _machine(state)


def _parts(common_dir: Path) -> Iterator[Finding]:
    """The folders that git and khlone make files in, for each clone; the first of those that are closed."""
    for name in ("refs", "refs/heads", "refs/khlone", "refs/khlone/clones", "objects", "worktrees", "logs"):
        if files.exists(common_dir / name):
            found = list(_writable(common_dir / name, common_dir / name / "none"))
            if found:
                yield from found
                return


def _machine(state: Path) -> Iterator[Finding]:
    """A machine database of a newer khlone."""
    from khlone.machine import DATABASE_FILE, version_of

    version = version_of(state / DATABASE_FILE)
    if version is not None and version > len(MIGRATIONS):
        yield _error(RegistryNewer(state / DATABASE_FILE, version, len(MIGRATIONS)))


def _writable(path: Path, private: Path) -> Iterator[Finding]:
    """What keeps khlone from making or changing files in a folder that is there, or would be made."""
    folder = path
    while not files.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        if files.exists(private):
            files.require_private_dir(private)
        if not os.path.isdir(folder):
            raise NotADirectoryError(folder)
    except KhloneError as error:
        yield _error(error)
    except OSError:
        yield _unwritable(path, f"{folder} is not a folder")
    else:
        if not os.access(folder, os.W_OK | os.X_OK):
            reason = "it is" if folder == path else f"{folder} is"
            yield _unwritable(path, f"{reason} read-only, or another user's")


def _unwritable(path: Path, why: str) -> Finding:
    return Finding(
        code="not-writable",
        severity=Severity.ERROR,
        message=f"{path} cannot be written to: {why}",
        fix="check its owner and mode, and the disk: no clone can be made or changed",
    )


def _error(error: KhloneError) -> Finding:
    return Finding(code=error.code, severity=Severity.ERROR, message=error.message, fix=error.hint)
