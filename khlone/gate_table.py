"""Which gates do the settings define?

    khlone.gate.test = make test                a command, for `sh -c`
    khlone.gate.test.timeout = 600              seconds, 1800 unless said
    khlone.gate.test.needed = false             advisory: what it says holds nothing
    khlone.gate.test.paths = src/** *.toml      asked only where one of these changes
    khlone.gate.test.retries = 1                asked again when it failed; passing then is noted as flaky

or, in a TOML file, `[gate] test = "make test"` and `[gate.test] command = "..."`, `timeout = 600`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from khlone.errors import InvalidSetting
from khlone.values import dataclass

DEFAULT_TIMEOUT_S = 1800.0
LONGEST_TIMEOUT_S = 7 * 24 * 3600.0
MOST_RETRIES = 10
#: Keys below `gate.` that are no gate.
SETTINGS = frozenset({"required", "jobs"})
_OPTIONS = frozenset({"command", "timeout", "needed", "paths", "retries"})
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One command that judges a candidate. `paths` are git's glob pathspecs; none means every candidate."""

    name: str
    command: str
    source: str
    timeout_s: float = DEFAULT_TIMEOUT_S
    needed: bool = True
    paths: tuple[str, ...] = ()
    retries: int = 0

    @property
    def key(self) -> str:
        """What a result is kept under, beside the tree: whatever could change the verdict."""
        facts = [self.name, self.command, self.timeout_s, self.source]
        return hashlib.sha256(json.dumps(facts).encode(errors="surrogateescape")).hexdigest()


def parse(values: Mapping[str, str], source: str) -> list[Gate]:
    """The gates among flat settings (`gate.<name>`, `gate.<name>.<option>`), by name; raises InvalidSetting."""
    found: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        parts = key.split(".")
        if parts[0] != "gate" or len(parts) < 2 or (len(parts) == 2 and parts[1] in SETTINGS):
            continue
        name, option = parts[1], ".".join(parts[2:]) or "command"
        if not _NAME.match(name) or name in SETTINGS:
            raise _wrong(key, value, "a gate's name has lower-case letters, digits, - and _", source)
        if option not in _OPTIONS:
            raise _wrong(key, value, f"a gate has {', '.join(sorted(_OPTIONS))} alone", source)
        found.setdefault(name, {})[option] = value
    return [_gate(name, options, source) for name, options in sorted(found.items())]


def _gate(name: str, options: Mapping[str, str], source: str) -> Gate:
    key = f"gate.{name}"
    command = options.get("command", "")
    if not command.strip() or "\0" in command:
        raise _wrong(key, command, "it must be the text of a command", source)
    return Gate(
        name=name,
        command=command,
        source=source,
        timeout_s=_number(f"{key}.timeout", options.get("timeout"), DEFAULT_TIMEOUT_S, LONGEST_TIMEOUT_S, source),
        needed=_flag(f"{key}.needed", options.get("needed", "true"), source),
        paths=tuple(options.get("paths", "").split()),
        retries=int(_number(f"{key}.retries", options.get("retries"), 0.0, MOST_RETRIES, source)),
    )


def _number(key: str, value: str | None, default: float, most: float, source: str) -> float:
    if value is None:
        return default
    if re.fullmatch(r"\d{1,7}(\.\d{1,3})?", value) is None or not 0 <= float(value) <= most:
        raise _wrong(key, value, f"it must be a number up to {most:.0f}", source)
    return float(value)


def _flag(key: str, value: str, source: str) -> bool:
    if value.lower() not in _FLAGS:
        raise _wrong(key, value, "it must be true or false", source)
    return _FLAGS[value.lower()]


def _wrong(key: str, value: str, why: str, source: str) -> InvalidSetting:
    where = "" if source == "user" else f" in {source}"
    return InvalidSetting(f"khlone.{key}{where}", value, why)
