"""The real programs of agents, installed from their packages."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

#: The newest version that these tests are known to pass with.
CLAUDE_NEWEST = "2.1.330"
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
