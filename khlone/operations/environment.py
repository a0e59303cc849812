"""Which environment does a process in a clone get?

The caller's, without what ties git to a repository, without the variables that belong to
another clone or that the agent must not inherit; plus the clone's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from khlone import files, process
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import InvalidSetting, KhloneError, PluginClash
from khlone.model import CloneRecord, Isolation
from khlone.operations import agent_dirs, agent_keys, agents, isolation, journal
from khlone.profiles import AgentProfile, AgentVersions, FoundAgent, Login

#: What names the ports of a clone: those of another one must not be inherited.
_PORT_VARIABLE = re.compile(r"KHLONE_PORT(S|_COUNT|_\d+)?")


def profile_of(app: App, clone: CloneRecord) -> AgentProfile:
    """The agent profile of a clone; a bare one, with a warning, when its plugin is gone."""
    return profiles_of(app, clone)[0]


def profiles_of(app: App, clone: CloneRecord) -> tuple[AgentProfile, Sequence[AgentProfile]]:
    """The agent profile of a clone, and every agent's that is known."""
    name = clone.agent or "generic"
    known = agents.profiles(app, name, clone=clone)
    found = known.get(name)
    if found is None:
        app.told(f"warning: no plugin knows agent {name!r} any more; its variables are not set")
        found = AgentProfile(name=name)
    return found, tuple(known.values())


def additions(app: App, clone: CloneRecord, *, session_id: str | None = None) -> dict[str, str]:
    """The variables that are the clone's own, keys aside; raises PluginClash when two plugins disagree."""
    profile = profile_of(app, clone)
    return _additions(app, clone, profile, _installed(app, profile, ()).held, session_id)


def complete(
    app: App,
    clone: CloneRecord,
    *,
    session_id: str,
    command: Sequence[str],
    profile: AgentProfile,
    known: Sequence[AgentProfile],
) -> dict[str, str]:
    """The whole environment of a command that is started in the clone, whose agent has that profile of those `known`.

    Raises NotTrusted, AgentNeedsKey, KeyNotUsable, InvalidSetting or PluginClash.
    """
    from khlone.operations import brought

    brought.require_for(app, clone, command, known)
    found = _installed(app, profile, command)
    held = found.held
    dropped = {*profile.strip, *profile.credential_variables, *SESSION_VARIABLES, "KHLONE_ISOLATION", "OLDPWD"}
    inherited = {
        name: value
        for name, value in process.scrubbed(agents.user_environment(app)).items()
        if name not in dropped and not _PORT_VARIABLE.fullmatch(name)
    }
    taken, given = agent_keys.apply(app, clone, profile, inherited)
    level = isolation.of(clone.isolation)
    taken |= {name for name, value in level.variables(app, clone).items() if value is None}
    kept = {name: value for name, value in inherited.items() if name not in taken}
    whole = {**kept, **_additions(app, clone, profile, held, session_id), **given, "PWD": os.fspath(clone.path)}
    if is_agent(profile, command):
        agent_keys.require_login(clone, profile, held, found.version, whole)
    return whole


def is_agent(profile: AgentProfile, command: Sequence[str]) -> bool:
    """Whether a command is the program of that agent."""
    program = profile.executable
    return bool(command and program) and os.path.basename(command[0]) == os.path.basename(program or "")


def _installed(app: App, profile: AgentProfile, command: Sequence[str]) -> FoundAgent:
    """The agent that the command starts, else the one on PATH."""
    program = None
    if command and profile.executable and os.sep in command[0]:
        named = Path(command[0])
        program = named if named.name == Path(profile.executable).name and named.is_absolute() else None
    # Asking for its version is of use only where something depends on it.
    if len(profile.versions) > 1:
        return agents.find(app, profile, program)
    return FoundAgent(profile=profile, plugin="", path=program, version=None)


def _additions(
    app: App, clone: CloneRecord, profile: AgentProfile, held: AgentVersions, session_id: str | None
) -> dict[str, str]:
    found = {
        "KHLONE_NAME": clone.name,
        "KHLONE_ID": clone.id,
        "KHLONE_BRANCH": clone.branch,
        "KHLONE_PATH": os.fspath(clone.path),
        "KHLONE_REPOSITORY": os.fspath(app.location.anchor),
    }
    if clone.target is not None:
        found["KHLONE_TARGET"] = clone.target
    if session_id is not None:
        found["KHLONE_SESSION"] = session_id
    if clone.isolation is not Isolation.CONFIG:
        found["KHLONE_ISOLATION"] = clone.isolation.value
        of_level = isolation.of(clone.isolation).variables(app, clone)
        found |= {name: value for name, value in of_level.items() if value is not None}
    found |= _of_agent(app, clone, profile, held)
    added = app.plugins.environment(journal.as_clone(clone))
    clash = next((name for name, value in added.items() if found.get(name, value) != value), None)
    if clash is not None:
        is_agents = clash in profile.environment or clash in held.environment
        raise PluginClash(
            f"the variable {clash}", [f"agent {profile.name}" if is_agents else "khlone", "another plugin"]
        )
    return {**found, **added}


def _of_agent(app: App, clone: CloneRecord, profile: AgentProfile, held: AgentVersions) -> dict[str, str]:
    config_dir = os.fspath(clone.config_dir) if clone.config_dir is not None else ""
    places = {"config_dir": config_dir, "path": os.fspath(clone.path), "name": clone.name}
    templates = {**profile.environment, **held.environment}
    uses = {word for word in ("temp", "cache") if any(f"{{{word}}}" in value for value in templates.values())}
    if profile.temp_variables or "temp" in uses:
        places["temp"] = _temp(app, clone)
    if profile.cache_variables or "cache" in uses:
        cache = app.config_dirs.cache_path(clone.id, profile.name)
        with files.explained(cache):
            places["cache"] = os.fspath(files.make_private_dir(cache))
    found = dict.fromkeys(profile.config_variables, config_dir)
    found |= dict.fromkeys(profile.temp_variables, places.get("temp", ""))
    found |= dict.fromkeys(profile.cache_variables, places.get("cache", ""))
    agent_dirs.assert_credentials(app, clone, profile, held)
    if held.login is Login.STORE and profile.store is not None:
        found |= dict.fromkeys(profile.credential_variables, os.fspath(profile.store))
    for variable, template in templates.items():
        try:
            found[variable] = template.format(**places)
        except (KeyError, IndexError, ValueError) as error:
            raise InvalidSetting(variable, template, f"bad template of agent {profile.name}: {error}") from error
    return found


def _temp(app: App, clone: CloneRecord) -> str:
    """A short private folder; a longer one, which is told, where that place is not ours."""
    try:
        return os.fspath(app.config_dirs.make_temp(clone.id))
    except KhloneError as error:
        instead = app.config_dirs.run(clone.id)
        app.told(f"warning: {error.message}; {instead} is used instead")
        return os.fspath(files.make_private_dir(instead))
