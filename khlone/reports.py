"""Where does the trace of a bug go? Into a private file that the user can look at and send.

It holds khlone's version, the Python and git in use and the trace; no arguments and no
environment, since those may hold secrets.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from khlone import __version__, files
from khlone.errors import KhloneError
from khlone.model import utc_now
from khlone.redaction import redacted

_KEPT = 20


def write(environment: Mapping[str, str], trace: str) -> Path | None:
    """Write a report and return its path, `None` when that cannot be done; old ones are dropped."""
    from khlone.config_dir import state_root

    try:
        folder = files.make_private_dir(state_root(environment) / "reports")
        path = folder / f"report-{utc_now().replace(':', '')}.txt"
        head = f"khlone {__version__}\nPython {platform.python_version()} on {platform.platform()}\n\n"
        files.write_new(path, (head + redacted(trace)).encode(errors="replace"), durable=False)
        for old in sorted(folder.glob("report-*.txt"))[:-_KEPT]:
            old.unlink()
    except (OSError, KhloneError):
        return None
    return path
