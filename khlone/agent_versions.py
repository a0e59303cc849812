"""Which version of an agent program is installed? Asked once for each file, by path, size and mtime.

The answer is cached, since a start of the program costs up to a second. It is asked with
its own config dirs pointing into an empty folder: some programs write at `--version`.
What does not answer in time has no version, and is asked again next time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from khlone import files, process
from khlone.errors import KhloneError
from khlone.profiles import AgentProfile

CACHE_FILE = "agent-versions.json"

_TIMEOUT_S = 20.0
_MOST_OUTPUT = 64 << 10
#: How many programs are remembered.
_MOST_KNOWN = 100
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*(?:[-+][\w.+-]+)?")


def find_program(profile: AgentProfile, environment: Mapping[str, str]) -> Path | None:
    """Where the program of an agent lies, by the PATH of that environment; `None` when it is not there."""
    if profile.executable is None:
        return None
    if os.sep in profile.executable:
        return Path(profile.executable) if os.access(profile.executable, os.X_OK) else None
    found = process.find_program(profile.executable, environment)
    return None if found is None else Path(found)


def version_of(
    profile: AgentProfile, program: Path, *, environment: Mapping[str, str], cache_dir: Path | None
) -> str | None:
    """The version that a program says it is of, `None` where it says none."""
    if not profile.version_words:
        return None
    real = Path(os.path.realpath(program))
    try:
        found = os.stat(real)
    except OSError:
        return None
    facts = [found.st_size, found.st_mtime_ns]
    key = os.fspath(real)
    known = {} if cache_dir is None else _load(cache_dir / CACHE_FILE)
    entry = known.get(key)
    if isinstance(entry, dict) and entry.get("facts") == facts and isinstance(entry.get("version"), str):
        return str(entry["version"])
    version = _asked(profile, program, environment)
    if version is not None and cache_dir is not None:
        known.pop(key, None)
        known[key] = {"facts": facts, "version": version}
        _save(cache_dir, dict(list(known.items())[-_MOST_KNOWN:]))
    return version


def _asked(profile: AgentProfile, program: Path, environment: Mapping[str, str]) -> str | None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="khlone-", ignore_cleanup_errors=True) as folder:
        dropped = {*profile.strip, *profile.key_variables, *profile.token_variables}
        asked = {name: value for name, value in process.scrubbed(environment).items() if name not in dropped}
        names = (*profile.config_variables, *profile.temp_variables, *profile.cache_variables)
        asked |= dict.fromkeys(names, folder)
        try:
            done = process.run(
                [os.fspath(program), *profile.version_words],
                cwd=Path(folder),
                environment=asked,
                timeout_s=_TIMEOUT_S,
                capture_bytes=_MOST_OUTPUT,
            )
        except KhloneError:
            return None
    if done.status != 0 or done.timed_out:
        return None
    match = _VERSION.search(done.text)
    return None if match is None else match[0]


def _load(path: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError, RecursionError, KhloneError):
        found = json.loads(files.read_regular(path) or b"{}")
        if isinstance(found, dict):
            return found
    return {}


def _save(cache_dir: Path, known: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError, KhloneError):
        files.make_private_dir(cache_dir)
        files.write_atomic(cache_dir / CACHE_FILE, json.dumps(known).encode() + b"\n", durable=False)
