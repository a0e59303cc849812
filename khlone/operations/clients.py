"""Does the agent of a clone already run there, started by whomever, as its own session files say?

An editor's extension starts the agent without asking anybody: it cannot be locked out, but
it can be seen, and is named.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from khlone import files, sessions
from khlone.errors import CloneBusy, KhloneError
from khlone.model import CloneRecord, ProcessIdentity
from khlone.operations import usage
from khlone.profiles import AgentProfile

_MOST_FILES = 200


def require_none(clone: CloneRecord, profile: AgentProfile | None) -> None:
    """Raise CloneBusy where a client of that profile lives in the clone."""
    if profile is None or clone.config_dir is None or not profile.reading.sessions:
        return
    for path, _ in zip(usage.matching(clone.config_dir, profile.reading.sessions), range(_MOST_FILES), strict=False):
        client = _client(path)
        if client is not None and _is_of(clone, client):
            raise CloneBusy(clone.name, f"{profile.name}, pid {client.pid}, which was not started by run")


def _client(path: Path) -> ProcessIdentity | None:
    """The process that a session file is of; `None` where it does not say, or that is gone."""
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, RecursionError):
        known = json.loads(files.read_regular(path) or b"{}")
        ticks = known.get("procStart")
        found = ProcessIdentity(
            pid=int(known["pid"]),
            start_ticks=None if ticks is None else int(ticks),
            boot_id=sessions.boot_id(),
            host=os.uname().nodename,
        )
        return found if sessions.may_live(found) else None
    return None


def _is_of(clone: CloneRecord, client: ProcessIdentity) -> bool:
    """Whether it is that process, by its start or by its environment: a file stays when its client is killed."""
    return client.start_ticks is not None or sessions.environment_of(client.pid).get("KHLONE_ID") == clone.id
