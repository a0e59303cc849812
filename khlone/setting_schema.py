"""What may stand in a settings file, as a JSON schema that editors check it by?"""

from __future__ import annotations

from typing import Any

from khlone.hook_table import EVENTS, LONGEST_TIMEOUT_S
from khlone.setting_table import SETTINGS, Kind, Setting, Source

_NUMBERS = {"type": "number", "minimum": 0}
_TYPES: dict[Kind, dict[str, Any]] = {
    Kind.FLAG: {"type": "boolean"},
    Kind.COUNT: {"type": "integer", "minimum": 0},
    Kind.SECONDS: _NUMBERS,
    Kind.AMOUNT: _NUMBERS,
    Kind.SIZE: {
        "type": ["string", "integer"],
        "pattern": r"^\s*\d{1,12}\s*([KMGTkmgt])?([iI]?[bB])?\s*$",
        "minimum": 0,
    },
    Kind.DURATION: {"type": ["string", "integer"], "pattern": r"^\s*\d{1,9}\s*[smhdw]?\s*$", "minimum": 0},
    Kind.WORDS: {"type": ["string", "array"], "items": {"type": "string"}},
}


def schema(source: Source) -> dict[str, Any]:
    """The schema of the user's file or of a repository's own."""
    name = ".khlone.toml" if source is Source.PROJECT else "config.toml"
    root = _table(f"khlone's settings in {name}")
    # A key of the user's may be a plugin's.
    root["additionalProperties"] = source is not Source.PROJECT
    # A repository's gates are read once the user has approved them.
    found = [one for one in SETTINGS if source in one.sources or one.key.startswith("gate.*")]
    for setting in found:
        _put(root, setting, [one.key for one in found])
    root["properties"]["hooks"] = _hooks()
    return {"$schema": "http://json-schema.org/draft-07/schema#", **root}


def _table(title: str | None = None) -> dict[str, Any]:
    named = {} if title is None else {"title": title}
    return {**named, "type": "object", "additionalProperties": False, "properties": {}}


def _put(root: dict[str, Any], setting: Setting, keys: list[str]) -> None:
    """A setting under every way in which it can be written: as a dotted key in quotes, and in tables."""
    value = {"description": setting.doc, **_type(setting)}
    if setting.default is not None:
        value["default"] = _default(setting)
    parts = setting.key.split(".")
    if len(parts) > 1 and not setting.is_pattern:
        root["properties"][setting.key] = value
    # `plugins` is a value, so that it cannot be a table too.
    if any(".".join(parts[:count]) in keys for count in range(1, len(parts)) if parts[count - 1] != "*"):
        return
    at = root
    for part in parts[:-1]:
        at = _below(at, part)
    if parts[-1] == "*":
        # One with options is a table, one without just its value.
        table = at["additionalProperties"]
        at["additionalProperties"] = {"anyOf": [value, table]} if table else value
    else:
        at["properties"][parts[-1]] = value


def _below(at: dict[str, Any], part: str) -> dict[str, Any]:
    if part != "*":
        found: dict[str, Any] = at["properties"].setdefault(part, _table())
        return found
    if at["additionalProperties"] is False:
        at["additionalProperties"] = _table()
    inner: dict[str, Any] = at["additionalProperties"]
    return inner


def _type(setting: Setting) -> dict[str, Any]:
    if setting.choices:
        return {"type": "string", "enum": list(setting.choices)}
    return dict(_TYPES.get(setting.kind, {"type": "string"}))


def _default(setting: Setting) -> object:
    assert setting.default is not None
    if setting.kind is Kind.FLAG:
        return setting.default == "true"
    return int(setting.default) if setting.kind in (Kind.COUNT, Kind.SECONDS) else setting.default


def _hooks() -> dict[str, Any]:
    """The table of shell hooks, as hook_table.py reads it."""
    options = {
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_TIMEOUT_S},
        "secrets": {"type": "boolean", "description": "Run with all of the user's variables."},
    }
    text = {"type": "string", "pattern": r"\S"}
    command = {"anyOf": [text, {**_table(), "required": ["command"], "properties": {"command": text, **options}}]}
    step = {"anyOf": [text, {"type": "object", "properties": options, "additionalProperties": command}]}
    steps = {"anyOf": [*step["anyOf"], {"type": "array", "items": step}]}
    return {
        **_table(),
        "description": "Shell commands before and after what khlone does; they run once the user has approved them.",
        "properties": dict.fromkeys(EVENTS, steps),
    }
