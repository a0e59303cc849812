"""Where would hooks be written down, and is there anything at all?

Asked by every command that calls plugins, so nothing is read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import settings
from khlone.model import Location

PROJECT_FILE = settings.PROJECT_FILE


def project_file(location: Location) -> Path | None:
    """The repository's file: that of the main worktree, which no clone changes; a bare repository has none."""
    return None if location.main_worktree is None else location.main_worktree / PROJECT_FILE


def user_file(environment: Mapping[str, str]) -> Path | None:
    """The user's own file."""
    return settings.user_file(environment)


def exist(location: Location, environment: Mapping[str, str]) -> bool:
    """Whether one of the two is there."""
    return any(path is not None and os.path.lexists(path) for path in (project_file(location), user_file(environment)))
