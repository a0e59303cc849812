"""What does a session say, from what is kept of it to its end?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from khlone import sessions
from khlone.app import App
from khlone.model import CloneRecord
from khlone.operations import standing
from khlone.registry import SessionRecord
from khlone.session_logs import Follower

#: How often a log is looked at, in seconds.
_LOOK_S = 0.2


def follow(app: App, clone: CloneRecord, record: SessionRecord, *, lines: int | None) -> Iterator[bytes]:
    """What the session has said, its last lines alone with `lines`, and what it says until it has ended."""
    if record.log is None:
        return
    with Follower(Path(record.log), lines=lines) as log:
        while True:
            has_ended = standing.find(app, clone, record.id).ended_at is not None or not standing.may_live(record)
            yield from log.read()
            if has_ended:
                return
            sessions.await_end(record.supervisor or record.owner, _LOOK_S)
