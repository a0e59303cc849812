"""Which agents run in a clone, started by whomever, and what do they say of themselves in their own session files?

An editor's extension starts the agent without asking anybody: it cannot be locked out, but
it can be seen, and is named.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from khlone import files, sessions
from khlone.errors import CloneBusy, KhloneError
from khlone.model import CloneRecord, ProcessIdentity
from khlone.operations import transcripts
from khlone.profiles import AgentProfile
from khlone.values import dataclass

_MOST_FILES = 200
_MOST_LETTERS = 60
#: Said of itself by an agent that waits for a person.
WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What an agent says of itself: `state` in its own word, and what it waits for."""

    state: str
    waiting_for: str | None


def require_none(clone: CloneRecord, profile: AgentProfile | None) -> None:
    """Raise CloneBusy where a client of that profile lives in the clone."""
    if profile is None or clone.config_dir is None or not profile.reading.sessions:
        return
    for known in _session_files(clone.config_dir, profile):
        client = _client(known)
        if client is not None and _is_of(clone, client):
            raise CloneBusy(clone.name, f"{profile.name}, pid {client.pid}, which was not started by run")


def activities(config_dir: Path, profile: AgentProfile, pids: Iterable[int]) -> Mapping[int, Activity]:
    """What the agents among some processes say of themselves, by pid.

    A process is known by its start: one in a pid namespace of its own gives itself another number.
    """
    reading = profile.reading
    if not reading.sessions or not reading.activity:
        return {}
    started: dict[int | None, list[int]] = {}
    for pid in pids:
        started.setdefault(sessions.start_ticks(pid), []).append(pid)
    found = {}
    for known in _session_files(config_dir, profile):
        state, why = known.get(reading.activity), known.get(reading.waiting_for)
        with contextlib.suppress(KeyError, ValueError, TypeError):
            those = started[int(known["procStart"])]
            pid = known["pid"] if known["pid"] in those else those[0]
            if isinstance(state, str):
                told = _short(why) if isinstance(why, str) and state == WAITING else None
                found[pid] = Activity(state=_short(state), waiting_for=told)
    return found


def _short(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_MOST_LETTERS]


def _session_files(config_dir: Path, profile: AgentProfile) -> Iterator[Mapping[str, Any]]:
    """What stands in each of them that can be read."""
    matching = transcripts.matching(config_dir, profile.reading.sessions)
    for path, _ in zip(matching, range(_MOST_FILES), strict=False):
        with contextlib.suppress(KhloneError, OSError, ValueError, RecursionError):
            known = json.loads(files.read_regular(path) or b"{}")
            if isinstance(known, dict):
                yield known


def _client(known: Mapping[str, Any]) -> ProcessIdentity | None:
    """The process that a session file is of; `None` where it does not say, or that is gone."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
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
