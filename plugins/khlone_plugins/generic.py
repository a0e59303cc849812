"""How is any other program kept to its clone? By settings alone.

    khlone.generic.variable        MY_HOME MY_CACHE    the variables of agent `generic` (KHLONE_CONFIG_DIR)
    khlone.agents.NAME.variable    NAME_HOME           one more agent, called NAME, with these
    khlone.agents.NAME.command     /opt/name/bin/run   its program

Each of the variables, separated by spaces, is set to the clone's own config dir. What else
a profile can say is in `_WORDS`, by the key below `agents.NAME` that says it: lists of
words, quoted as in a shell where one holds a space; docs/agents-profiles.md has them all.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import AgentProfile, AgentVersions, ConfigItem, Login, Sharing, hookimpl
from khlone.errors import InvalidSetting

DEFAULT_VARIABLE = "KHLONE_CONFIG_DIR"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Keys whose value is a list of words.
_WORDS = ("version", "interactive", "headless", "resume", "headless-resume", "locks")
#: Keys whose value is a list of variables.
_VARIABLES = ("temp", "cache", "key", "strip")
_SHARINGS = {"copy": Sharing.COPY, "link": Sharing.LINK, "never": Sharing.NEVER}
_KNOWN = ("variable", "command", "description", "home", "set", "login", "brought", *_WORDS, *_VARIABLES, *_SHARINGS)
_SETTING = re.compile(rf"agents\.(?P<agent>.+)\.(?P<what>{'|'.join(_KNOWN)})")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ITEM = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\0]+(?:/[^/\0]+)*")


@hookimpl
def khlone_agents(settings: Mapping[str, str], environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `generic` and the agents that the settings name; raises InvalidSetting."""
    generic = AgentProfile(
        name="generic",
        config_variables=_variables(settings, "generic.variable"),
        description="any command; its config dir is told by variable",
    )
    return [generic, *(_named(settings, agent, environment) for agent in sorted(_agents(settings)))]


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
        if match["what"] == "variable" or f"agents.{agent}.command" in settings:
            found.add(agent)
    return found


def _named(settings: Mapping[str, str], agent: str, environment: Mapping[str, str]) -> AgentProfile:
    key = f"agents.{agent}"
    words = {word: _words(settings, f"{key}.{word}") for word in _WORDS}
    variables = {word: _variables(settings, f"{key}.{word}", "") for word in _VARIABLES}
    return AgentProfile(
        name=agent,
        executable=settings.get(f"{key}.command", "").strip() or None,
        config_variables=_variables(settings, f"{key}.variable"),
        environment=_assignments(settings, f"{key}.set"),
        home=_home(settings, key, environment),
        items=_items(settings, key),
        versions=(_login(settings, f"{key}.login"),),
        description=settings.get(f"{key}.description", "from the settings"),
        version_words=words["version"],
        interactive=words["interactive"],
        headless=words["headless"],
        resume=words["resume"],
        headless_resume=words["headless-resume"],
        locks=words["locks"],
        temp_variables=variables["temp"],
        cache_variables=variables["cache"],
        key_variables=variables["key"],
        strip=variables["strip"],
        brought=_brought(settings, f"{key}.brought"),
    )


def _words(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    value = settings.get(key, "")
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise InvalidSetting(f"khlone.{key}", value, str(error).lower()) from error


def _variables(settings: Mapping[str, str], key: str, default: str = DEFAULT_VARIABLE) -> tuple[str, ...]:
    value = settings.get(key, default)
    names = tuple(dict.fromkeys(value.split()))
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise InvalidSetting(f"khlone.{key}", value, f"{name!r} cannot name a variable")
    return names


def _assignments(settings: Mapping[str, str], key: str) -> dict[str, str]:
    found = {}
    for word in _words(settings, key):
        name, equals, value = word.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise InvalidSetting(f"khlone.{key}", settings[key], f"{word!r} is not NAME=VALUE")
        found[name] = value
    return found


def _home(settings: Mapping[str, str], key: str, environment: Mapping[str, str]) -> Path | None:
    value = settings.get(f"{key}.home", "").strip()
    if not value:
        return None
    text = environment.get("HOME", "") + value[1:] if value.startswith("~/") else value
    if not os.path.isabs(text):
        raise InvalidSetting(f"khlone.{key}.home", value, "it must be absolute, or start with ~/")
    return Path(os.path.normpath(text))


def _items(settings: Mapping[str, str], key: str) -> Sequence[ConfigItem]:
    found: dict[str, ConfigItem] = {}
    for word, sharing in _SHARINGS.items():
        for name in _words(settings, f"{key}.{word}"):
            if not _ITEM.fullmatch(name):
                raise InvalidSetting(f"khlone.{key}.{word}", name, "it must be a path inside the config dir")
            if name in found:
                raise InvalidSetting(f"khlone.{key}.{word}", name, "it is named twice")
            if sharing is not Sharing.NEVER and f"{key}.home" not in settings:
                raise InvalidSetting(f"khlone.{key}.{word}", name, f"khlone.{key}.home must say what folder it is in")
            as_json = sharing is Sharing.COPY and name.endswith(".json")
            found[name] = ConfigItem(name=name, sharing=sharing, as_json=as_json, why="by the settings")
    return tuple(found.values())


def _brought(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    names = _words(settings, key)
    for name in names:
        if not _ITEM.fullmatch(name.removesuffix("/")):
            raise InvalidSetting(f"khlone.{key}", name, "it must be a path inside the repository")
    return names


def _login(settings: Mapping[str, str], key: str) -> AgentVersions:
    value = settings.get(key, Login.OWN.value)
    if value not in (Login.OWN, Login.KEY):
        raise InvalidSetting(f"khlone.{key}", value, "it must be own or key")
    return AgentVersions(login=Login(value), why="by the settings")
