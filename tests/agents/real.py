"""The real programs of agents, installed from their packages."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

#: The newest version that these tests are known to pass with.
CLAUDE_NEWEST = "2.1.332"
#: One of those that lose entries of a config that is shared (before 2.1.259).
CLAUDE_MIDDLE = "2.1.229"
#: One of those that write through a link to the login (up to 2.1.117), and one that can share none.
CLAUDE_OLD, CLAUDE_NO_SHARE = "2.1.112", "2.1.140"
DUMMY_KEY = "sk-ant-dummy-" + "0" * 20

_INSTALL_S = 240


def npm_install(folder: Path, package: str) -> Path:
    """The folder of a package's programs, installed once a run whoever asks."""
    place = folder / package.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            place.mkdir(exist_ok=True)
            words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), package]
            subprocess.run(words, check=True, cwd=place, timeout=_INSTALL_S)
            (place / "done").touch()
    return place / "node_modules" / ".bin"


def require_npm() -> None:
    """Skip where there is no npm, and so none of these programs."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to install the agents' programs")


def claude(folder: Path, version: str = CLAUDE_NEWEST) -> Path:
    """The folder of Claude Code's program of a version, installed once a run."""
    require_npm()
    return npm_install(folder, f"@anthropic-ai/claude-code@{version}")
