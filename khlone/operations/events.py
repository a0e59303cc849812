"""What has happened in the merge queues, step by step, for those who follow it?

One JSON object a line in `<common dir>/khlone/events.jsonl`, appended in one write; past
a bound the file becomes `events.jsonl.old`, which replaces the one before.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.model import utc_now

MOST_BYTES = 4 << 20
_POLL_S = 0.1
#: What an event may say; what it does not say is null.
_FACTS = ("target", "entry", "clone", "clones", "oid", "gate", "code")


def path_of(app: App) -> Path:
    """Where the events lie."""
    return app.state_dir / "events.jsonl"


def note(app: App, event: str, **facts: object) -> None:
    """Append one event; one that cannot be written stops nothing."""
    line = json.dumps({"at": utc_now(), "event": event, **dict.fromkeys(_FACTS), **facts}).encode() + b"\n"
    place = path_of(app)
    with contextlib.suppress(OSError):
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            files.write_all(descriptor, line)
            full = os.fstat(descriptor).st_size > MOST_BYTES
        finally:
            os.close(descriptor)
        if full:
            os.replace(place, place.with_name("events.jsonl.old"))


def follow(app: App, *, go_on: bool) -> Iterator[dict[str, object]]:
    """Every event that is kept, oldest first; with `go_on` also what comes, for ever."""
    place = path_of(app)
    old = place.with_name("events.jsonl.old")
    inode, position, rest = 0, 0, b""
    for line in (files.read_regular(old, most=2 * MOST_BYTES) or b"").splitlines():
        yield from _parsed(line)
    while True:
        with contextlib.suppress(FileNotFoundError), open(place, "rb") as stream:
            found = os.fstat(stream.fileno())
            if found.st_ino != inode or found.st_size < position:
                inode, position, rest = found.st_ino, 0, b""
            stream.seek(position)
            content = rest + stream.read(2 * MOST_BYTES)
            position = stream.tell()
            *lines, rest = content.split(b"\n")
            for line in lines:
                yield from _parsed(line)
        if not go_on:
            return
        time.sleep(_POLL_S)


def newest_first(app: App) -> Iterator[dict[str, object]]:
    """Every event that is kept, the newest first; only as far back as it is asked for is looked at."""
    place = path_of(app)
    for kept in (place, place.with_name("events.jsonl.old")):
        for line in reversed((files.read_regular(kept, most=2 * MOST_BYTES) or b"").splitlines()):
            yield from _parsed(line)


def _parsed(line: bytes) -> Iterator[dict[str, object]]:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            yield found
