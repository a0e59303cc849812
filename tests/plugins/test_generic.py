"""Agents that are made of settings alone."""

from __future__ import annotations

import pytest
from khlone_plugins import generic

from khlone.errors import InvalidSetting
from khlone.plugins import Plugins
from khlone.profiles import AgentProfile


def profiles(settings: dict[str, str]) -> dict[str, AgentProfile]:
    """What the plugin offers, through the front that khlone uses."""
    return Plugins.of(generic).agents(settings)


def test_without_settings_there_is_one_agent_with_a_variable_of_khlone() -> None:
    (found,) = profiles({}).values()

    assert (found.name, found.executable, found.config_variables) == ("generic", None, ("KHLONE_CONFIG_DIR",))


def test_the_generic_agent_takes_any_variables() -> None:
    found = profiles({"generic.variable": " CODEX_HOME  _X1 CODEX_HOME "})

    assert found["generic"].config_variables == ("CODEX_HOME", "_X1")


def test_settings_name_further_agents_with_variable_and_program() -> None:
    found = profiles(
        {
            "agents.mine.variable": "MINE_HOME",
            "agents.mine.command": " /opt/mine/bin/mine ",
            "agents.v1.2.variable": "V_HOME",
            "agents.bare.command": "bare",
            "agent": "mine",
            "agents.mine.other": "ignored",
        }
    )

    assert sorted(found) == ["bare", "generic", "mine", "v1.2"]
    assert (found["mine"].executable, found["mine"].config_variables) == ("/opt/mine/bin/mine", ("MINE_HOME",))
    assert (found["v1.2"].executable, found["v1.2"].config_variables) == (None, ("V_HOME",))
    assert (found["bare"].executable, found["bare"].config_variables) == ("bare", ("KHLONE_CONFIG_DIR",))


@pytest.mark.parametrize("key", ["generic.variable", "agents.mine.variable"])
@pytest.mark.parametrize("value", ["1X", "A-B", "A=B", "GOOD bad!", "É", "A,B"])
def test_a_name_that_no_variable_can_have_is_an_invalid_setting(key: str, value: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        profiles({key: value})

    assert caught.value.facts["key"] == f"khlone.{key}"


@pytest.mark.parametrize("name", ["../x", "a b", ".x", "generic"])
def test_a_name_that_no_agent_can_have_is_an_invalid_setting(name: str) -> None:
    with pytest.raises(InvalidSetting):
        profiles({f"agents.{name}.variable": "X"})
