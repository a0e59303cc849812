"""What do the sessions of all clones use right now, and how long is it since each has said something?"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import capacity, headroom, samples
from khlone.app import App
from khlone.model import CloneRecord, Session, natural
from khlone.operations import agents, resources, transcripts
from khlone.profiles import AgentProfile
from khlone.samples import Sample
from khlone.values import dataclass

#: Names in a folder that are looked at for the newest.
_MOST_FILES = 200
SORTS = ("cpu", "memory", "name", "age", "quiet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One session of a clone. Sizes are bytes, ages seconds; `None` is not known. `paused` while it is stopped.

    `activity` and `waiting_for` are as in Session. `output_age_s` is how long nothing was
    written to its logs and session files.
    """

    name: str
    clone: str
    session: str
    pid: int
    state: str
    activity: str | None
    waiting_for: str | None
    paused: bool
    command: Sequence[str]
    started_at: str
    rss_bytes: int | None
    pss_bytes: int | None
    cpu_percent: float | None
    processes: int
    threads: int | None
    open_files: int | None
    output_age_s: float | None


class Top:
    """Looks again and again; what it sees is written down as samples of each clone."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._known: Mapping[str, AgentProfile] | None = None

    def rows(self, *, pss: bool = False, sort: str = "cpu") -> list[Row]:
        """Every session now, the one that uses most first."""
        app = self._app
        records = app.registry.clones() if app.has_registry else []
        look = resources.Look(app, records, pss=pss, profiles=self._profiles)
        found = look.sessions()
        rows = []
        for record in records:
            of_clone = [self._row(record, session, look) for session in found.get(record.id, ())]
            if of_clone:
                samples.add(app.config_dirs.run(record.id), _sample(of_clone))
            rows += of_clone
        return sorted(rows, key=_KEYS[sort])

    def _row(self, record: CloneRecord, session: Session, look: resources.Look) -> Row:
        tree = look.trees.get(session.id, ())
        threads, open_files = capacity.count(tree)
        return Row(
            name=record.name,
            clone=record.id,
            session=session.id,
            pid=session.pid,
            state=session.state,
            activity=session.activity,
            waiting_for=session.waiting_for,
            paused=bool(tree) and all(map(capacity.is_stopped, tree)),
            command=session.command,
            started_at=session.started_at,
            rss_bytes=session.rss_bytes,
            pss_bytes=session.pss_bytes,
            cpu_percent=session.cpu_percent,
            processes=len(tree),
            threads=threads,
            open_files=open_files,
            output_age_s=self._output_age_s(record),
        )

    def _output_age_s(self, record: CloneRecord) -> float | None:
        folder = self._app.config_dirs.clone_path(record.id)
        newest = [_newest(folder / "logs")]
        profile = self._profiles().get(record.agent or "")
        if profile is not None and profile.reading.transcripts:
            newest.append(_newest_session(folder / "config" / profile.name, profile.reading.transcripts))
        known = [one for one in newest if one is not None]
        return round(max(0.0, time.time() - max(known)), 1) if known else None

    def _profiles(self) -> Mapping[str, AgentProfile]:
        """Those of the first look: plugins are asked once."""
        if self._known is None:
            self._known = agents.profiles(self._app)
        return self._known


def _newest(folder: Path) -> float | None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        times = [
            entry.stat(follow_symlinks=False).st_mtime for entry, _ in zip(entries, range(_MOST_FILES), strict=False)
        ]
        return max(times, default=None)
    return None


def _newest_session(root: Path, pattern: str) -> float | None:
    times = []
    for path, _ in zip(transcripts.matching(root, pattern), range(_MOST_FILES), strict=False):
        with contextlib.suppress(OSError):
            times.append(os.stat(path, follow_symlinks=False).st_mtime)
    return max(times, default=None)


def _sample(rows: Sequence[Row]) -> Sample:
    shares = [one.pss_bytes for one in rows if one.pss_bytes is not None]
    return Sample(
        at_s=time.time(),
        rss_bytes=sum(one.rss_bytes or 0 for one in rows),
        pss_bytes=sum(shares) if len(shares) == len(rows) else None,
        cpu_percent=sum(one.cpu_percent or 0.0 for one in rows),
        processes=sum(one.processes for one in rows),
        threads=sum(one.threads or 0 for one in rows),
    )


_KEYS = {
    "cpu": lambda row: (-(row.cpu_percent or 0.0), natural(row.name), row.pid),
    "memory": lambda row: (-(row.pss_bytes or row.rss_bytes or 0), natural(row.name), row.pid),
    "name": lambda row: (natural(row.name), row.pid),
    "age": lambda row: (row.started_at, natural(row.name), row.pid),
    "quiet": lambda row: (-(row.output_age_s or 0.0), natural(row.name), row.pid),
}


def machine() -> headroom.Headroom:
    """What the machine has left."""
    return headroom.look()
