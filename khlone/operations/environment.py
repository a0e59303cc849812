"""Which environment does a process in a clone get?

The caller's, without what ties git to a repository, without the variables that belong to
another clone or that the agent must not inherit; plus the clone's own.
"""

from __future__ import annotations

import os

from khlone import process
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import InvalidSetting, PluginClash
from khlone.model import AgentProfile, CloneRecord
from khlone.operations import journal

_PORT_VARIABLES = ("KHLONE_PORT", "KHLONE_PORT_COUNT")


def profile_of(app: App, clone: CloneRecord) -> AgentProfile:
    """The agent profile of a clone; a bare one, with a warning, when its plugin is gone."""
    name = clone.agent or "generic"
    found = app.plugins.agents(app.settings.values, name).get(name)
    if found is None:
        app.told(f"warning: no plugin knows agent {name!r} any more; its variables are not set")
        return AgentProfile(name=name)
    return found


def additions(app: App, clone: CloneRecord, *, session_id: str | None = None) -> dict[str, str]:
    """The variables that are the clone's own; raises PluginClash when two plugins disagree."""
    return _additions(app, clone, profile_of(app, clone), session_id)


def complete(app: App, clone: CloneRecord, *, session_id: str) -> dict[str, str]:
    """The whole environment of a process that is started in the clone."""
    profile = profile_of(app, clone)
    dropped = {*profile.strip, *SESSION_VARIABLES, *_PORT_VARIABLES, "OLDPWD"}
    inherited = {name: value for name, value in process.scrubbed(app.environment).items() if name not in dropped}
    return {**inherited, **_additions(app, clone, profile, session_id), "PWD": os.fspath(clone.path)}


def _additions(app: App, clone: CloneRecord, profile: AgentProfile, session_id: str | None) -> dict[str, str]:
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
    config_dir = os.fspath(clone.config_dir) if clone.config_dir is not None else ""
    for variable in profile.config_variables:
        found[variable] = config_dir
    for variable, template in profile.environment.items():
        try:
            found[variable] = template.format(config_dir=config_dir, path=clone.path, name=clone.name)
        except (KeyError, IndexError, ValueError) as error:
            raise InvalidSetting(variable, template, f"bad template of agent {profile.name}: {error}") from error
    added = app.plugins.environment(journal.as_clone(clone))
    clash = next((name for name, value in added.items() if found.get(name, value) != value), None)
    if clash is not None:
        raise PluginClash(
            f"the variable {clash}",
            [f"agent {profile.name}" if clash in profile.environment else "khlone", "another plugin"],
        )
    return {**found, **added}
