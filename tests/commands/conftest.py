"""A repository with known files, for the tests of verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.steps import NOTES
from tests.support import Commit


@pytest.fixture
def project(repository: Path, commit: Commit) -> Path:
    """The small repository, with files whose content the tests know, and `*.log` ignored."""
    files = {".gitignore": "*.log\n", "notes.txt": NOTES, "src/app.txt": NOTES, "src/lib/deep.txt": "deep\n"}
    commit(repository, files, "known files")
    return repository
