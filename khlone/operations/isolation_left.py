"""Which containers did a khlone that was killed leave behind, and how do they go?

    <private folder of the clone>/containers/<name>      who started it, and by which engine

Written down before a container is started, and dropped when it has ended: what is left
there tells of one that nobody sees through any more, as soon as neither who wrote it nor
its session can still live. A container says of itself whose it is: `khlone.clone`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from khlone import files, process, sessions
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import CloneRecord, Isolation, ProcessIdentity
from khlone.operations import agents, standing

_FOLDER = "containers"
_PREFIX = "khlone-"
_OWNER = ("pid", "start_ticks", "boot_id", "host", "pid_namespace")
#: What a call of an engine takes at most, in seconds.
ENGINE_S = 60.0
#: How long a container may take to go that was killed, in seconds, and how often it is looked for.
_GONE_S, _POLL_S = 10.0, 0.2


def name_of(session: str) -> str:
    """The container of a session."""
    return f"{_PREFIX}{session}"


def outside(app: App) -> dict[str, str]:
    """An engine's environment: the user's, also where an agent in a clone asks."""
    return process.scrubbed(agents.user_environment(app))


def note(app: App, clone: CloneRecord, name: str, engine: str) -> None:
    """Write down a container that is about to start."""
    place = _folder(app, clone) / name
    with files.explained(place):
        files.make_private_dir(place.parent)
        owner = sessions.identity()
        content = {"engine": engine, "owner": {name: getattr(owner, name) for name in _OWNER}}
        files.write_atomic(place, json.dumps(content).encode() + b"\n", durable=False)


def drop(app: App, clone: CloneRecord, name: str) -> None:
    """Forget a container that has ended."""
    with contextlib.suppress(OSError):
        os.unlink(_folder(app, clone) / name)


def find(app: App, clone: CloneRecord) -> Mapping[str, str]:
    """The containers that are still there of sessions that are over, with the engine of each."""
    found = {}
    for name, engine in _over(app, clone).items():
        if engine is not None and _is_there(app, engine, name):
            found[name] = engine
        else:
            drop(app, clone, name)
    return found


def end(app: App, clone: CloneRecord) -> list[str]:
    """Remove them; the names of those that have gone."""
    gone = []
    for name, engine in find(app, clone).items():
        remove(app, engine, name)
        deadline = time.monotonic() + _GONE_S
        # docker answers while it still removes what it has seen end.
        while (is_there := _is_there(app, engine, name)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not is_there:
            drop(app, clone, name)
            gone.append(name)
    return gone


def remove(app: App, engine: str, name: str) -> None:
    """Kill a container, and remove what is left of it."""
    # Killed first: to be removed alone it would be given time to end by itself.
    for words in (("kill", name), ("rm", "--force", name)):
        process.run([engine, *words], environment=outside(app), timeout_s=ENGINE_S)


def _folder(app: App, clone: CloneRecord) -> Path:
    return app.config_dirs.clone_path(clone.id) / _FOLDER


def _over(app: App, clone: CloneRecord) -> Mapping[str, str | None]:
    """What is written down of sessions that are over, with the engine of each, where that can be read."""
    if clone.isolation is not Isolation.CONTAINER:
        return {}
    try:
        names = [name for name in os.listdir(_folder(app, clone)) if re.fullmatch(r"khlone-[0-9a-z-]+", name)]
    except OSError:
        return {}
    living = {name_of(one.id) for one in app.registry.live_sessions(clone.id) if standing.may_live(one)}
    found: dict[str, str | None] = {}
    for name in sorted(set(names) - living):
        try:
            written = json.loads(files.read_regular(_folder(app, clone) / name) or b"")
            owner, engine = ProcessIdentity(**written["owner"]), str(written["engine"])
        except (KhloneError, OSError, ValueError, TypeError, KeyError):
            found[name] = None
            continue
        if not sessions.may_live(owner):
            found[name] = engine
    return found


def _is_there(app: App, engine: str, name: str) -> bool:
    """Whether an engine knows that container; one that cannot be asked may."""
    asked = [engine, "ps", "--all", "--filter", f"name={name}", "--format", "{{.Names}}"]
    try:
        done = process.run(asked, environment=outside(app), timeout_s=ENGINE_S)
    except KhloneError:
        return True
    return done.status != 0 or name in done.text.split()
