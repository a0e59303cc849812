"""The page of settings and the schema for editors are made from the one table, and the schema says what khlone does."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft7Validator

from khlone import setting_schema
from khlone.setting_table import SETTINGS, Setting, Source, find
from tests.support import ROOT


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """docs/settings.py."""
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "docs/settings.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_is_the_one_that_is_made_of_the_table(maker: ModuleType) -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == maker.page(), "run docs/settings.py"


def test_the_schema_is_the_one_that_is_made_of_the_table(maker: ModuleType) -> None:
    assert (ROOT / "docs/schema/khlone.toml.json").read_text(encoding="utf-8") == maker.schema(), "run docs/settings.py"


def complaints(text: str, source: Source = Source.PROJECT) -> list[str]:
    """What the schema has against a file."""
    schema = setting_schema.schema(source)
    Draft7Validator.check_schema(schema)
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'agent = "a"\ntarget = "main"\ndurable = false\n',
        '[gate]\nrequired = true\n[limits]\nsessions = 3\nmemory = "4G"\n[trash]\nage = "30d"\nsize = 1000\n',
        'gate.required = true\n"trash.age" = "1w"\n',
        '[hooks]\npost-create = "npm ci"\npre-merge = ["make lint", { a = "x", b = { command = "y", timeout = 3 } }]\n',
        '[hooks]\npost-merge = { notify = "bin/notify", timeout = 300, secrets = true }\n',
    ],
)
def test_the_schema_allows_what_khlone_takes(text: str) -> None:
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        'agnet = "a"\n',
        'worktree = "/tmp"\n',
        'durable = "yes"\n',
        "[gate.tests]\ntimeouts = 3\n",
        '[trash]\nage = "old"\n',
        "[limits]\nsessions = -1\n",
        '[hooks]\npost-crate = "x"\n',
        "[hooks]\npost-create = 3\n",
        "[hooks]\npost-create = { a = 'x', timeout = 0 }\n",
    ],
)
def test_the_schema_refuses_what_khlone_does_not_take(text: str) -> None:
    assert complaints(text) != []


def test_the_users_file_may_have_gates_agents_and_the_keys_of_plugins() -> None:
    text = '[gate]\ntests = "make"\n[agents.mine]\nvariable = ["A", "B"]\ncommand = "x"\n[mine]\nbase = 1\n'

    assert complaints(text, Source.USER) == []
    assert complaints('plugins = ["a"]\n"plugins.timeout" = 3\n', Source.USER) == []
    assert complaints('sync = "never"\n[agents.mine]\nvaraible = "A"\n', Source.USER) != []


def leaves(schema: dict[str, Any]) -> set[str]:
    """Every description in a schema."""
    inner = [*schema.get("properties", {}).values(), schema.get("additionalProperties"), *schema.get("anyOf", [])]
    below = [leaves(one) for one in inner if isinstance(one, dict)]
    return {schema["description"]}.union(*below) if "description" in schema else set().union(*below)


@pytest.mark.parametrize("source", [Source.USER, Source.PROJECT])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_the_schema_has_exactly_what_may_stand_in_that_file(source: Source, setting: Setting) -> None:
    found = leaves(json.loads(json.dumps(setting_schema.schema(source))))

    # Gates of a repository are read apart, once they are approved.
    assert (setting.doc in found) == (source in setting.sources or setting.key.startswith("gate.*"))


def test_every_key_that_the_code_reads_is_in_the_table() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "khlone").rglob("*.py")]
    read = {key for text in sources for key in re.findall(r"\bvalues\.get\(\s*\"([a-z.-]+)\"", text)}

    assert "plugins" in read
    assert {key for key in read if find(key) is None} == set()
