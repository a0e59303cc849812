"""What is each of many clones to be asked? A file of JSON lines says it, one question a clone.

All of it is understood before anything is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import KhloneError, NoHeadlessMode, UsageError
from khlone.model import Clone, NewRequest
from khlone.operations import agents, asking, run
from khlone.operations.standing import SessionReport

#: Bytes of a file of questions.
MOST_BYTES = 16 << 20
#: As many as `new -n` makes at most.
_MOST_LINES = 1000
_HINT = 'each line is a JSON text, or {"prompt": TEXT}'


def parsed(content: bytes, shown: str) -> list[str]:
    """The questions of a file's lines, empty lines aside; raises UsageError that names the first line that is bad."""
    if len(content) > MOST_BYTES:
        raise UsageError(f"{shown} is larger than {MOST_BYTES >> 20} MiB")
    found: list[str] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        why = None
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said, why = None, "it is no JSON"
        prompt = said.get("prompt") if isinstance(said, dict) and set(said) <= {"prompt"} else said
        if why is None and not (isinstance(prompt, str) and prompt.strip()):
            why = "there is no prompt in it" if not isinstance(said, dict) or "prompt" in said else _unknown(said)
        if why is None and "\0" in str(prompt):
            why = "there is a NUL in it"
        if why is not None or len(found) == _MOST_LINES:
            reason = why or f"there are more than {_MOST_LINES}"
            raise UsageError(f"{shown}, line {number}: {reason}", hint=_HINT)
        found.append(str(prompt))
    if not found:
        raise UsageError(f"{shown} asks nothing", hint=_HINT)
    return found


def _unknown(said: dict[str, object]) -> str:
    others = sorted(set(said) - {"prompt"})
    return f"nothing is known by the name {others[0]!r}" if others else "there is no prompt in it"


def load(path: Path) -> list[str]:
    """The questions of a file; raises UsageError for one that cannot be read too."""
    place = Path(os.path.realpath(path))
    try:
        content = files.read_regular(place, most=MOST_BYTES)
    except (KhloneError, OSError) as error:
        if place.exists() and not place.is_file():
            raise UsageError(f"{path} is no regular file", hint="- reads the questions from stdin") from error
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if content is None:
        raise UsageError(f"{path} is not there")
    return parsed(content, str(path))


def require_askable(app: App, request: NewRequest) -> None:
    """Raise NoHeadlessMode, or UnknownAgent, where the clones that are to be made could not be asked."""
    profile = agents.require_profile(app, request.agent or app.settings.agent)
    if not profile.executable or not profile.headless:
        raise NoHeadlessMode(request.name, profile.name, resuming=False)


def ask_each(
    app: App, name: str, made: Sequence[Clone], prompts: Sequence[str]
) -> Iterator[tuple[Clone, SessionReport | KhloneError]]:
    """Ask each clone that is there of NAME-1 and so on its own question, detached; how each session stands."""
    places = {f"{name}-{number}": prompt for number, prompt in enumerate(prompts, start=1)}
    for clone in made:
        try:
            record = app.require_clone(clone.name)
            yield clone, run.detach(app, asking.request(app, record, places[clone.name]))
        except KhloneError as error:
            yield clone, error
