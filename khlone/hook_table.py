"""Which shell commands does a `[hooks]` table hold, for which event, in which order?

    [hooks]
    post-create = "npm ci"                                        one command
    pre-merge = ["make lint", "make test"]                        steps, one after the other
    pre-cleanup = { stop = "make stop", save = "make save" }      by name, at the same time
    post-merge = { notify = "bin/notify", timeout = 300, secrets = true }

A step of a list may be such a table, and a named command may be one too, with `command`,
`timeout` (seconds) and `secrets`. Nothing is filled in: a command is text for `sh -c`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone.errors import InvalidSetting
from khlone.values import dataclass

EVENTS = tuple(f"{when}-{what}" for what in ("create", "spawn", "merge", "cleanup", "sync") for when in ("pre", "post"))
DEFAULT_TIMEOUT_S = 60.0
#: No hook may take longer, in seconds: what it leaves behind is cleared away after twice that.
LONGEST_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCommand:
    """One shell command of an event; `name` is None for the only one."""

    event: str
    name: str | None
    text: str
    timeout_s: float = DEFAULT_TIMEOUT_S
    secrets: bool = False

    @property
    def title(self) -> str:
        """What people are told it is called."""
        return self.event if self.name is None else f"{self.event} ({self.name})"


#: One after the other; those of one step at the same time.
Steps = Sequence[Sequence[HookCommand]]


def parse(content: bytes, source: Path) -> dict[str, Steps]:
    """The steps of each event in a settings file; raises InvalidSetting for one that cannot be understood."""
    if b"hooks" not in content:
        return {}
    import tomllib

    try:
        table = tomllib.loads(content.decode()).get("hooks", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting.of_file(source, error) from error
    reader = _Reader(source)
    if not isinstance(table, dict):
        raise reader.wrong("hooks", table, "it must be a table")
    return {event: steps for event, value in table.items() if (steps := reader.steps(event, value))}


class _Reader:
    """Reads the values of one file's table."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def wrong(self, key: str, value: object, why: str) -> InvalidSetting:
        """The error for a value that cannot be used."""
        return InvalidSetting(f"{key} in {self._source}", str(value), why)

    def steps(self, event: str, value: object) -> Steps:
        """The steps of one event."""
        if event not in EVENTS:
            raise self.wrong("hooks", event, f"there is no such event; known are {', '.join(EVENTS)}")
        if not isinstance(value, list):
            return (self._step(event, None, value),)
        numbered = [(None if len(value) == 1 else str(number), step) for number, step in enumerate(value, start=1)]
        return tuple(self._step(event, name, step) for name, step in numbered)

    def _step(self, event: str, name: str | None, value: object) -> Sequence[HookCommand]:
        if isinstance(value, dict):
            shared = {
                key: value[key] for key in ("timeout", "secrets") if not isinstance(value.get(key, ""), (str, dict))
            }
            named = {key: inner for key, inner in value.items() if key not in shared}
            if not named:
                raise self.wrong(f"hooks.{event}", value, "it holds no command")
            prefix = "" if name is None else f"{name}."
            return tuple(self._command(event, prefix + key, inner, shared) for key, inner in named.items())
        return (self._command(event, name, value, {}),)

    def _command(self, event: str, name: str | None, value: object, shared: Mapping[str, object]) -> HookCommand:
        options: Mapping[str, object] = value if isinstance(value, dict) else {"command": value}
        key = f"hooks.{event}" if name is None else f"hooks.{event}.{name}"
        unknown = sorted(set(options) - {"command", "timeout", "secrets"})
        if unknown:
            raise self.wrong(key, unknown[0], "a command has command, timeout and secrets alone")
        text = options.get("command")
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            raise self.wrong(key, text, "it must be the text of a command")
        merged = {**shared, **options}
        secrets, timeout = merged.get("secrets", False), merged.get("timeout", DEFAULT_TIMEOUT_S)
        if not isinstance(secrets, bool):
            raise self.wrong(f"{key}.secrets", secrets, "it must be true or false")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= LONGEST_TIMEOUT_S:
            raise self.wrong(f"{key}.timeout", timeout, f"it must be a number of seconds up to {LONGEST_TIMEOUT_S:.0f}")
        return HookCommand(event=event, name=name, text=text, timeout_s=float(timeout), secrets=secrets)
