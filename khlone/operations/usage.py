"""How many tokens have the clones of a repository used, living and removed ones, and what did it cost?

What sessions that khlone read have written down, and the session files of the others, in
the folders of clones that live or lie in the trash. A session that is in both counts once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from khlone import api_rows
from khlone.api_rows import Used
from khlone.app import App
from khlone.errors import NoSuchClone
from khlone.model import Clone, natural
from khlone.operations import agents, transcripts, turns
from khlone.values import dataclass

#: How long the id of a session is that ends the name of a file.
_ID = 36
#: (clone, name, state, agent, private folder)
_Place = tuple[str, str, str, str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneUsage:
    """What the sessions of one clone have used; `state` is live, trashed or gone, `cost_usd` `None` where unknown."""

    name: str
    clone: str
    state: str
    agent: str | None
    sessions: int
    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    cost_usd: float | None


def summary(app: App, names: Sequence[str] = ()) -> list[CloneUsage]:
    """The usage of each clone, by name, or of those of these names; raises NoSuchClone for one that nobody knows."""
    places = list(_places(app))
    states = {clone: state for clone, _, state, _, _ in places}
    summed = [_summed(clone, states.get(clone, "gone"), rows) for clone, rows in _rows(app, places).items() if rows]
    unknown = set(names) - {one.name for one in summed} - {name for _, name, _, _, _ in places}
    if unknown:
        raise NoSuchClone(min(unknown))
    return sorted(
        (one for one in summed if not names or one.name in names), key=lambda one: (natural(one.name), one.clone)
    )


def of_clone(app: App, clone: Clone) -> CloneUsage | None:
    """The usage of one clone that lives; `None` where nothing is known of it."""
    place = (clone.id, clone.name, "live", clone.agent or "generic", app.config_dirs.clone_path(clone.id))
    rows = _rows(app, [place])[clone.id]
    return _summed(clone.id, "live", rows) if rows else None


def _rows(app: App, places: Sequence[_Place]) -> dict[str, list[Used]]:
    """What is known of the sessions of each clone, by its id: what was written down, and what their files say."""
    recorded = _recorded(app)
    known = {one.agent_session for one in recorded if one.agent_session}
    found: dict[str, list[Used]] = {}
    for one in recorded:
        found.setdefault(one.clone, []).append(one)
    for place in places:
        found.setdefault(place[0], []).extend(_from_files(app, place, known))
    return found


def total(found: Iterable[CloneUsage]) -> CloneUsage:
    """All of it."""
    rows = list(found)
    costs = [one.cost_usd for one in rows if one.cost_usd is not None]
    return CloneUsage(
        name="",
        clone="",
        state="",
        agent=None,
        sessions=sum(one.sessions for one in rows),
        requests=sum(one.requests for one in rows),
        input_tokens=sum(one.input_tokens for one in rows),
        output_tokens=sum(one.output_tokens for one in rows),
        cache_read_tokens=sum(one.cache_read_tokens for one in rows),
        cache_creation_tokens=sum(one.cache_creation_tokens for one in rows),
        cost_usd=sum(costs) if costs else None,
    )


def _recorded(app: App) -> Sequence[Used]:
    machine = turns.open_machine(app.environment, app.told, make=False)
    if not machine.exists:
        return []
    try:
        with machine.reading() as connection:
            return api_rows.used(connection, app.repository_id)
    finally:
        machine.close()


def _places(app: App) -> Iterator[_Place]:
    """Each clone that lives or lies in the trash."""
    if not app.has_registry:
        return
    for clone in app.registry.clones():
        yield clone.id, clone.name, "live", clone.agent or "generic", app.config_dirs.clone_path(clone.id)
    for record in app.registry.trash():
        clone = record.clone
        place = app.config_dirs.trash_path(clone.id, record.id)
        yield clone.id, clone.name, "trashed", clone.agent or "generic", place


def _from_files(app: App, place: _Place, known: set[str]) -> Iterator[Used]:
    clone, name, state, agent, folder = place
    root = folder / "config" / agent
    if not _has_any(root):
        return
    profile = agents.profiles(app, agent).get(agent)
    if profile is None or not profile.reading.transcripts:
        return
    counts = transcripts.Counts(root, folder / "run")
    for path in transcripts.matching(root, profile.reading.transcripts):
        # Its name is that of the session, or ends with it.
        if path.stem in known or path.stem[-_ID:] in known:
            continue
        counted = counts.of(path)
        if counted.requests:
            yield Used(
                repository=app.repository_id,
                clone=clone,
                name=name,
                agent=agent,
                session=path.stem,
                agent_session=path.stem,
                credential=None,
                requests=counted.requests,
                input=counted.input,
                output=counted.output,
                cache_read=counted.cache_read,
                cache_creation=counted.cache_creation,
                cost_usd=None,
            )
    if state == "live":
        counts.close()


def _has_any(folder: Path) -> bool:
    """Whether anything lies there at all: who only asks that loads no plugin."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return next(entries, None) is not None
    return False


def _summed(clone: str, state: str, rows: Sequence[Used]) -> CloneUsage:
    costs = [one.cost_usd for one in rows if one.cost_usd is not None]
    return CloneUsage(
        name=rows[-1].name,
        clone=clone,
        state=state,
        agent=rows[-1].agent or None,
        sessions=len({one.session for one in rows}),
        requests=sum(one.requests for one in rows),
        input_tokens=sum(one.input for one in rows),
        output_tokens=sum(one.output for one in rows),
        cache_read_tokens=sum(one.cache_read for one in rows),
        cache_creation_tokens=sum(one.cache_creation for one in rows),
        cost_usd=sum(costs) if costs else None,
    )
