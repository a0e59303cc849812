"""Which session files has an agent in a clone, and how many tokens has it used by what they say?

A file that is as it was when it was last read is not read again: what was counted is noted
in the clone's folder of small files, from a size on at which that saves anything.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
from collections.abc import Iterator
from pathlib import Path

from khlone import agent_events, files
from khlone.agent_events import Tokens
from khlone.errors import KhloneError
from khlone.values import dataclass

#: The notes in the folder `run` of a clone; another name wherever what is counted changes.
NOTES = "transcripts-2.json"
_PIECE = 1 << 20
_MOST_DEPTH = 6
#: Smaller files are counted each time, and of no more is anything noted.
_WORTH_BYTES, _MOST_NOTES = 64 << 10, 2000
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one session file says: how many answers, and the tokens of all of them."""

    requests: int
    input: int
    output: int
    cache_read: int
    cache_creation: int


def matching(root: Path, pattern: str) -> Iterator[Path]:
    """The regular files below a folder that a pattern names, links aside."""
    depth = min(pattern.count("/"), _MOST_DEPTH)
    for folder, inner, names in os.walk(root):
        here = os.path.relpath(folder, root)
        level = 0 if here == "." else here.count(os.sep) + 1
        if level >= depth:
            inner.clear()
        for file in sorted(names):
            relative = file if here == "." else f"{here}/{file}"
            if level == depth and fnmatch.fnmatchcase(relative, pattern) and not os.path.islink(root / relative):
                yield root / relative


class Counts:
    """The session files of one clone, whose notes lie in `run`; `close` notes what was new."""

    def __init__(self, root: Path, run: Path) -> None:
        self._root, self._place = root, run / NOTES
        self._noted = _read(self._place)
        self._now: dict[str, list[int]] = {}

    def of(self, path: Path) -> Counted:
        """What one of them says."""
        name = os.path.relpath(path, self._root)
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return _count(path)
        key = [found.st_size, found.st_mtime_ns, found.st_ino]
        noted = self._noted.get(name, [])
        if noted[:3] == key:
            self._now[name] = noted
            return _counted(noted[3:])
        counted = _count(path)
        if found.st_size >= _WORTH_BYTES:
            numbers = (counted.requests, counted.input, counted.output, counted.cache_read, counted.cache_creation)
            self._now[name] = [*key, *numbers]
        return counted

    def close(self) -> None:
        """Note what was counted, where anything has changed; that it cannot be written down costs time alone."""
        if self._now == self._noted or len(self._now) > _MOST_NOTES:
            return
        with contextlib.suppress(KhloneError, OSError):
            files.write_atomic(self._place, json.dumps(self._now).encode(), durable=False)


def _read(place: Path) -> dict[str, list[int]]:
    """What was noted; nothing where it cannot be read, or is not what is written here."""
    try:
        known = json.loads(files.read_regular(place, most=_MOST_BYTES) or b"{}")
    except (KhloneError, OSError, ValueError):
        return {}
    is_whole = isinstance(known, dict) and all(
        isinstance(one, list) and len(one) == 8 and all(type(number) is int for number in one) for one in known.values()
    )
    return known if is_whole else {}


def _counted(numbers: list[int]) -> Counted:
    requests, given, said, read, made = numbers
    return Counted(requests=requests, input=given, output=said, cache_read=read, cache_creation=made)


def _count(path: Path) -> Counted:
    answers: dict[str, Tokens] = {}
    for event in _events(path):
        tokens = agent_events.tokens_of(event)
        if tokens is not None:
            answers[tokens.key] = tokens
    every = list(answers.values())
    return Counted(
        requests=len(every),
        input=sum(one.input for one in every),
        output=sum(one.output for one in every),
        cache_read=sum(one.cache_read for one in every),
        cache_creation=sum(one.cache_creation for one in every),
    )


def _events(path: Path) -> Iterator[dict[str, object]]:
    reader = agent_events.Reader()
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        while piece := stream.read(_PIECE):
            yield from map(dict, reader.feed(piece))
        yield from map(dict, reader.end())
