"""A repository whose main follows that of a bare one beside it, and a count of what asks that for objects."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.support import Git


@pytest.fixture
def remote(git: Git, repository: Path, tmp_path: Path) -> Path:
    """The bare repository `origin` of `repository`, which has its main; the repository's main follows it."""
    path = tmp_path / "origin.git"
    git("init", "-q", "--bare", "-b", "main", str(path), cwd=tmp_path)
    git("remote", "add", "origin", str(path), cwd=repository)
    git("push", "-q", "-u", "origin", "main", cwd=repository)
    return path


class Fetches:
    """Stands before git-upload-pack: one line in `log` for each fetch, then what `script` says."""

    def __init__(self, git: Git, repository: Path, folder: Path) -> None:
        self._wrapper = folder / "upload-pack"
        self.log = folder / "fetches"
        self.let_pass('exec git-upload-pack "$@"')
        git("config", "remote.origin.uploadpack", str(self._wrapper), cwd=repository)

    def let_pass(self, script: str) -> None:
        """What happens to fetches from now on."""
        self._wrapper.write_text(f'#!/bin/sh\necho fetch >>"{self.log}"\n{script}\n')
        self._wrapper.chmod(self._wrapper.stat().st_mode | stat.S_IXUSR)

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def fetches(git: Git, repository: Path, remote: Path, tmp_path: Path) -> Fetches:
    """The count of fetches from `remote`."""
    assert remote.exists()
    return Fetches(git, repository, tmp_path)
