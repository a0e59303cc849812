"""Which key does an agent in a clone work with, and where is it got from?

A login by subscription is what clones have: a key that is merely inherited bills by use
without saying so, and is taken away unless the settings choose it. A clone can be given
one of its own: khlone writes down the file or the command that it comes from, never the
key, and puts it into the environment of what it starts there, nowhere else.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import config_dir, files, process
from khlone.agent_items import parsed
from khlone.app import App
from khlone.errors import AgentNeedsKey, KeyNotUsable, KhloneError, UsageError
from khlone.model import CloneRecord
from khlone.profiles import AgentProfile, AgentVersions, Login

_TIMEOUT_S = 30.0
_MOST_BYTES = 16 << 10


def assign(app: App, clone: CloneRecord, profile: AgentProfile, *, file: Path | None, command: str | None) -> bool:
    """Give a clone a key from a file or a command, or take it away with neither; raises KeyNotUsable or UsageError.

    It is tried once, so that a wrong place is told now. False where there was none to take away.
    """
    if not profile.key_variables:
        raise UsageError(f"agent {profile.name} has no variable for a key", hint="see git khlone agents show")
    place = app.config_dirs.key_path(clone.id, profile.name)
    if file is None and command is None:
        was_there = files.exists(place)
        place.unlink(missing_ok=True)
        return was_there
    source: dict[str, object] = {}
    if file is not None:
        source["file"] = os.path.abspath(file)
    if command is not None:
        source["command"] = _words(command)
    _value(app, clone, source)
    files.make_private_dir(place.parent)
    files.write_atomic(place, json.dumps(source).encode() + b"\n")
    return True


def apply(
    app: App, clone: CloneRecord, profile: AgentProfile, inherited: Mapping[str, str]
) -> tuple[set[str], dict[str, str]]:
    """The variables to take away from what is inherited, and those to add; raises KeyNotUsable."""
    source = _assigned(app, clone, profile)
    if source is not None:
        key = _value(app, clone, source)
        return set(_accepted(profile)), {_variable(profile, key): key}
    if app.settings.inherits_key(profile.name):
        return set(), {}
    taken = {name for name in profile.key_variables if inherited.get(name)}
    if taken:
        _tell_once(app, profile, sorted(taken))
    return taken, {}


def require_login(
    clone: CloneRecord, profile: AgentProfile, held: AgentVersions, version: str | None, variables: Mapping[str, str]
) -> None:
    """Raise AgentNeedsKey where the version can only log in by a variable, and none is there."""
    if held.login is Login.KEY and not any(variables.get(name) for name in _accepted(profile)):
        raise AgentNeedsKey(profile.name, version, clone.name, held.why, list(profile.token_variables))


def _accepted(profile: AgentProfile) -> Sequence[str]:
    return (*profile.token_variables, *profile.key_variables)


def _assigned(app: App, clone: CloneRecord, profile: AgentProfile) -> Mapping[str, object] | None:
    if not profile.key_variables:
        return None
    place = app.config_dirs.key_path(clone.id, profile.name)
    content = files.read_regular(place)
    if content is None:
        return None
    source = parsed(content)
    if source is None:
        raise KeyNotUsable(clone.name, f"{place} is damaged")
    return source


def _variable(profile: AgentProfile, key: str) -> str:
    is_token = bool(profile.token_variables) and key.startswith(tuple(profile.token_prefixes))
    return profile.token_variables[0] if is_token else profile.key_variables[0]


def _value(app: App, clone: CloneRecord, source: Mapping[str, object]) -> str:
    """The key itself; no message has any of it."""
    found = _from_file(clone, Path(str(source["file"]))) if "file" in source else _from_command(app, clone, source)
    lines = found.decode(errors="replace").strip().splitlines()
    if len(lines) != 1:
        raise KeyNotUsable(clone.name, "what is there is " + (f"{len(lines)} lines, not one" if lines else "empty"))
    if not (lines[0].isprintable() and lines[0].isascii()):
        raise KeyNotUsable(clone.name, "what is there has characters that no key has")
    return lines[0]


def _from_file(clone: CloneRecord, path: Path) -> bytes:
    try:
        real = Path(os.path.realpath(path))
        content = files.read_regular(real, most=_MOST_BYTES)
        found = os.stat(real)
    except (OSError, KhloneError) as error:
        raise KeyNotUsable(clone.name, f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if content is None:
        raise KeyNotUsable(clone.name, f"{path} is not there")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise KeyNotUsable(clone.name, f"{path} is not yours alone", hint=f"chmod 600 {shlex.quote(str(path))}")
    return content


def _from_command(app: App, clone: CloneRecord, source: Mapping[str, object]) -> bytes:
    words = source.get("command")
    if not isinstance(words, list) or not words:
        raise KeyNotUsable(clone.name, "neither a file nor a command is written down")
    argv = [str(word) for word in words]
    done = process.run(
        argv,
        cwd=app.location.anchor,
        environment=process.scrubbed(app.environment),
        timeout_s=_TIMEOUT_S,
        capture_bytes=_MOST_BYTES,
    )
    if done.timed_out or done.status != 0:
        how = f"took longer than {_TIMEOUT_S:.0f} s" if done.timed_out else f"ended with {done.status}"
        raise KeyNotUsable(clone.name, f"{argv[0]} {how}")
    return done.stdout


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command cannot be read: {str(error).lower()}") from error
    if not words:
        raise UsageError("--command is empty")
    return words


def _tell_once(app: App, profile: AgentProfile, taken: Sequence[str]) -> None:
    """Say once an account that a key is not passed on."""
    mark = config_dir.state_root(app.environment) / "agents" / profile.name / "key-told"
    if files.exists(mark):
        return
    app.told(
        f"warning: {', '.join(taken)} is not passed on to {profile.name}: it would be billed by use; "
        f"`git config --global khlone.agents.{profile.name}.inherit-key true` passes it on, "
        "`git khlone agents key` gives a clone one of its own"
    )
    try:
        files.make_private_dir(mark.parent)
        files.write_new(mark, b"", durable=False)
    except (OSError, KhloneError):
        return
