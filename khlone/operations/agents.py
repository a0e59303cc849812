"""Which agents are there, which of them are installed, and how is each kept to its clone?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from khlone import config_dir, files
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import KhloneError, UnknownAgent
from khlone.model import CloneRecord
from khlone.profiles import AgentProfile, FoundAgent, Login

#: What an agent's config dir was filled with is written down in no more than this.
MOST_RECORD_BYTES = 64 << 20


def profiles(app: App, wanted: str | None = None, *, clone: CloneRecord | None = None) -> dict[str, AgentProfile]:
    """Every agent profile by name, as it is for the user also where an agent in a clone asks.

    With `clone`, as it was for the user when that was made. Raises PluginClash or
    PluginFailed; with `wanted` only where that agent is not there.
    """
    environment = user_environment(app, None if clone is None else app.config_dirs.clone_path(clone.id))
    return app.plugins.agents(app.settings.values, wanted, environment=environment)


def require_profile(app: App, name: str) -> AgentProfile:
    """The profile of that name; raises UnknownAgent."""
    found = profiles(app, name)
    if name not in found:
        raise UnknownAgent(name, sorted(found))
    return found[name]


def find_agents(app: App, name: str | None = None) -> list[FoundAgent]:
    """Every agent, or the one of that name, with the program and version that are installed."""
    known = profiles(app) if name is None else {name: require_profile(app, name)}
    return [find(app, profile) for _, profile in sorted(known.items())]


def find(app: App, profile: AgentProfile, program: Path | None = None) -> FoundAgent:
    """The installed program of a profile, or that very one, with its version."""
    from khlone import agent_versions

    path = agent_versions.find_program(profile, app.environment) if program is None else program
    version = None
    if path is not None:
        cache = None
        with contextlib.suppress(KhloneError):
            cache = config_dir.cache_root(app.environment)
        version = agent_versions.version_of(profile, path, environment=app.environment, cache_dir=cache)
    return FoundAgent(profile=profile, plugin=app.plugins.owners.get(profile.name, ""), path=path, version=version)


class _LogsIn(Protocol):
    @property
    def login(self) -> Login: ...


def how_it_logs_in(held: _LogsIn) -> str:
    """One line for people."""
    return {
        Login.STORE: "one login for all clones, in the user's own store",
        Login.LINK: "one login for all clones, by a link to the user's",
        Login.KEY: "only with a token or key in a variable",
        Login.OWN: "each clone logs in by itself",
    }[held.login]


# -- the user, seen from inside a clone ----------------------------------------------------


def user_environment(app: App, clone: Path | None = None) -> Mapping[str, str]:
    """The environment as the user has it: in a clone, the variables that move an agent's config are the clone's.

    What they were for the user was written down when the clone was made, and is taken from
    there; from the private folder `clone` at last.
    """
    environment = dict(app.environment)
    try:
        root = config_dir.state_root(environment)
    except KhloneError:
        return environment
    places = {config_dir.clone_of(root, value) for value in environment.values() if value.startswith(str(root))}
    places.discard(None)
    for place in (*places, clone):
        if place is None:
            continue
        if place is not clone:
            for name in SESSION_VARIABLES:
                environment.pop(name, None)
        for name, value in _outer(place).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
    return environment


def _outer(place: Path) -> dict[str, str | None]:
    """The user's values of the variables that agents in a clone have for themselves, `None` where there was none."""
    found: dict[str, str | None] = {}
    with contextlib.suppress(OSError):
        for record in sorted((place / "base").iterdir()):
            with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError, KhloneError):
                outer = json.loads(files.read_regular(record, most=MOST_RECORD_BYTES) or b"{}")["environment"]
                found |= {str(name): value if value is None else str(value) for name, value in outer.items()}
    return found
