"""How is any other program kept to its clone? By settings alone.

    khlone.generic.variable        MY_HOME MY_CACHE    the variables of agent `generic` (KHLONE_CONFIG_DIR)
    khlone.agents.NAME.variable    NAME_HOME           one more agent, called NAME, with these
    khlone.agents.NAME.command     /opt/name/bin/run   its program

Each of the variables, separated by spaces, is set to the clone's own config dir.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from khlone import AgentProfile, hookimpl
from khlone.errors import InvalidSetting

DEFAULT_VARIABLE = "KHLONE_CONFIG_DIR"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SETTING = re.compile(r"agents\.(?P<agent>.+)\.(?P<what>variable|command)")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@hookimpl
def khlone_agents(settings: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `generic` and the agents that the settings name; raises InvalidSetting."""
    generic = AgentProfile(
        name="generic",
        config_variables=_variables(settings, "generic.variable"),
        description="any command; its config dir is told by variable",
    )
    return [generic, *(_named(settings, agent) for agent in sorted(_agents(settings)))]


def _agents(settings: Mapping[str, str]) -> set[str]:
    found = set()
    for key, value in settings.items():
        match = _SETTING.fullmatch(key)
        if match is None:
            continue
        agent = match["agent"]
        if not _AGENT.fullmatch(agent):
            raise InvalidSetting(f"khlone.{key}", value, f"{agent!r} cannot name an agent")
        if agent == "generic":
            raise InvalidSetting(f"khlone.{key}", value, "agent generic is set with khlone.generic.variable")
        found.add(agent)
    return found


def _named(settings: Mapping[str, str], agent: str) -> AgentProfile:
    return AgentProfile(
        name=agent,
        executable=settings.get(f"agents.{agent}.command", "").strip() or None,
        config_variables=_variables(settings, f"agents.{agent}.variable"),
        description="from the settings",
    )


def _variables(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    value = settings.get(key, DEFAULT_VARIABLE)
    names = tuple(dict.fromkeys(value.split()))
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise InvalidSetting(f"khlone.{key}", value, f"{name!r} cannot name a variable")
    return names
