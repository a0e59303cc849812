"""Which answers of a plugin can be used? Each is checked here, since nobody has checked a plugin's types.

Every function takes what an implementation returned and gives it back as the type that
the hook promises, or raises TypeError or ValueError with a line that says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from khlone.errors import Refusal
from khlone.model import Finding, Verdict
from khlone.profiles import AgentProfile

#: An agent's name is the name of a folder too; see config_dir.py.
_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: A column wider than this would push the others off the screen.
_MOST_COLUMN = 60


def profiles(answer: object) -> list[AgentProfile]:
    """Agent profiles whose names can be those of folders."""
    found = [_typed(profile, AgentProfile) for profile in _iterated(answer)]
    for profile in found:
        if not _AGENT_NAME.fullmatch(profile.name):
            raise ValueError(f"{profile.name!r} cannot name an agent: use letters, digits and . _ -")
    return found


def variables(answer: object) -> dict[str, str]:
    """Variables that a process can get."""
    found: dict[str, str] = {} if answer is None else dict(_typed(answer, Mapping))
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"variable {name!r} is not text")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"variable {name!r} cannot stand in an environment")
    return found


def columns(answer: object) -> dict[str, str]:
    """Column heads in capitals and one line each, cut where it is too long for a table."""
    found: dict[str, str] = {} if answer is None else dict(_typed(answer, Mapping))
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"column {name!r} is not text")
        if not name.strip():
            raise ValueError("a column has no name")
    return {_line(name).upper(): _line(value) for name, value in found.items()}


def refusal(answer: object) -> Refusal | None:
    """A Refusal or nothing."""
    found: Refusal | None = None if answer is None else _typed(answer, Refusal)
    return found


def verdict(answer: object) -> Verdict | None:
    """A Verdict or nothing."""
    found: Verdict | None = None if answer is None else _typed(answer, Verdict)
    return found


def findings(answer: object) -> Iterator[Finding]:
    """One finding after the other, as far as they come."""
    for item in _iterated(answer):
        yield _typed(item, Finding)


def command(answer: object) -> tuple[str, ...] | None:
    """The words of a command line, or nothing."""
    if answer is None:
        return None
    words = tuple(_typed(answer, Sequence))
    if isinstance(answer, str) or not words or not all(isinstance(word, str) for word in words):
        raise TypeError("a command is a list of one or more strings")
    return words


def content(answer: object) -> bytes | None:
    """The bytes of a file, or nothing."""
    found: bytes | None = None if answer is None else _typed(answer, bytes)
    return found


def resolution(answer: object) -> Mapping[str, bytes | None] | bool | None:
    """True, the content of each path, or nothing; False is nothing."""
    if answer is None or isinstance(answer, bool):
        return answer or None
    found: dict[str, bytes | None] = dict(_typed(answer, Mapping))
    for path, content in found.items():
        _typed(path, str)
        if content is not None:
            _typed(content, bytes)
    return found


def absolute(answer: object) -> Path | None:
    """An absolute path, or nothing."""
    if answer is None:
        return None
    path: Path = _typed(answer, Path)
    if not path.is_absolute():
        raise ValueError(f"{path} is not absolute")
    return path


def _typed(answer: Any, kind: type) -> Any:
    """The answer, if it is of that kind; raises TypeError for another one."""
    if not isinstance(answer, kind):
        raise TypeError(f"it answered with {type(answer).__name__} instead of {kind.__name__}")
    return answer


def _iterated(answer: object) -> Iterator[object]:
    return iter(()) if answer is None else iter(_typed(answer, Iterable))


def _line(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= _MOST_COLUMN else f"{joined[: _MOST_COLUMN - 3]}..."
