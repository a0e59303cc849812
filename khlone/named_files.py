"""Which files of a repository does a shell command name, and which of those does it run?

The text is taken apart as `sh` would, quotes, nested texts (`sh -c '...'`) and the
variables that are known beforehand included; every part that leads to a file in one of
the given folders is one that the command names. It is a *script* when the command runs
it: where a command stands, after an interpreter or `.`, or with a slash in its name and
executable or beginning with `#!`. A script is run from a copy of the bytes that were
read, so that what was looked at is what runs; `pinned` puts the copy's path in its place.

What a named file reads or runs in its turn, files that a pattern or a folder stands for,
and files that are not there yet are not named.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from khlone.errors import Refusal
from khlone.shell_text import UNKNOWN, Mention, mentions
from khlone.values import dataclass

#: Bytes of a script, which is kept in memory; larger ones are refused.
MOST_SCRIPT_BYTES = 16 << 20
#: A path that means the same in any quotes.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """One file that a command names; the path is relative to the worktree, absolute where it lies elsewhere."""

    path: str
    sha256: str
    size: int
    script: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies at a path: `label` is what it is called, `content` is kept up to the size of a script.

    Of a link that leads out only where it leads is looked at.
    """

    label: str
    is_folder: bool = False
    leads_out: bool = False
    executable: bool = False
    sha256: str = ""
    size: int = 0
    content: bytes | None = None


class Tree(Protocol):
    """Files that a command may name: a worktree, or a commit."""

    def look(self, path: str) -> Found | None:
        """What lies at an absolute path inside; None for nothing, and for what lies elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a command names, with the scripts' bytes and where in the text each of those stands."""

    text: str
    files: Sequence[NamedFile]
    scripts: Mapping[str, bytes]
    spans: Sequence[tuple[int, int, str]]


def read(text: str, tree: Tree, folder: Path, variables: Mapping[str, str]) -> Reading:
    """Find and read the files that a command names when it is run in `folder`.

    `variables` are those whose values are known. Raises Refusal for a script that lies
    behind a link out of the tree, is too large, or is named where its copy could not stand.
    """
    parts = list(mentions(text, variables))
    bases = [os.fspath(folder)]
    for mention in parts:
        found = _look(tree, bases[0], mention.value)
        if found is not None and found.is_folder:
            bases.append(os.path.normpath(os.path.join(bases[0], mention.value)))
    files: dict[str, NamedFile] = {}
    scripts: dict[str, bytes] = {}
    spans: list[tuple[int, int, str]] = []
    interpreted: list[object] = []
    for mention in parts:
        if mention.leads and "/" not in mention.value:
            continue
        found, exact = _find(tree, bases, mention.value)
        if found is None:
            continue
        runs = mention.leads or mention.sourced or ("/" in mention.value and found.executable)
        if mention.interpreter is not None and mention.interpreter not in interpreted:
            interpreted.append(mention.interpreter)
            runs = True
        known = files.get(found.label)
        is_script = runs or (known is not None and known.script)
        files[found.label] = NamedFile(path=found.label, sha256=found.sha256, size=found.size, script=is_script)
        if runs:
            scripts[found.label] = _script(found)
            spans.append((*_span(mention, found, exact), found.label))
    return Reading(
        text=text, files=tuple(files[label] for label in sorted(files)), scripts=scripts, spans=_apart(spans)
    )


def _look(tree: Tree, base: str, value: str) -> Found | None:
    return None if UNKNOWN in value else tree.look(os.path.normpath(os.path.join(base, value)))


def _find(tree: Tree, bases: Sequence[str], value: str) -> tuple[Found | None, bool]:
    """The file that a part leads to, from one of the folders; not exactly, if what stands before it is not known."""
    for base in bases:
        found = _look(tree, base, value)
        if found is not None and not found.is_folder:
            return found, True
    rest = value.rpartition(UNKNOWN)[2]
    if rest.startswith("/"):
        for base in bases:
            found = _look(tree, base, rest.lstrip("/"))
            if found is not None and not found.is_folder:
                return found, False
    return None, True


def _script(found: Found) -> bytes:
    if found.leads_out:
        raise Refusal(
            f"the command runs {found.label}, a link that leads out of the repository", hint="name what it leads to"
        )
    if found.content is None:
        raise Refusal(f"the script {found.label} is larger than {MOST_SCRIPT_BYTES} bytes")
    return found.content


def _span(mention: Mention, found: Found, exact: bool) -> tuple[int, int]:
    if mention.span is None or not exact:
        raise Refusal(
            f"the command names the script {found.label} in a way that a copy cannot stand for",
            hint="write its path, from the worktree on, as a word of its own",
        )
    return mention.span


def _apart(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Those that overlap no longer one before them, in their order."""
    chosen: list[tuple[int, int, str]] = []
    for span in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    return chosen


def pinned(reading: Reading, place: Path) -> str:
    """The text with the copies' paths below `place` in the place of the scripts'; ValueError for an odd `place`.

    The copies are called `<number>/<name>`; `copies` says which is which.
    """
    if not can_stand(place):
        raise ValueError(f"{place} cannot stand in a command")
    where = {label: name for name, label in copies(reading).items()}
    parts, at = [], 0
    for start, end, label in reading.spans:
        parts += [reading.text[at:start], os.fspath(place / where[label])]
        at = end
    return "".join([*parts, reading.text[at:]])


def can_stand(place: Path) -> bool:
    """Whether a path means the same in any quotes of a command."""
    return _PLAIN_PATH.fullmatch(os.fspath(place)) is not None


def copies(reading: Reading) -> dict[str, str]:
    """The name of each copy, relative to their folder, and the label of the script that it is of."""
    named = {}
    for number, label in enumerate(sorted(reading.scripts)):
        last = os.path.basename(label)
        named[f"{number}/{last if _PLAIN_PATH.fullmatch(last) else 'script'}"] = label
    return named


# -- files -----------------------------------------------------------------------------------


class Worktree:
    """The files below some folders as they are now; the first one is what labels are relative to."""

    def __init__(self, *roots: Path) -> None:
        self._roots = [os.path.realpath(root) for root in roots]
        self._given = [os.path.normpath(root) for root in roots]

    def look(self, path: str) -> Found | None:
        """What lies there, links followed within all of the folders; raises Refusal for a file that cannot be read."""
        label = self._label(path)
        if label is None:
            return None
        try:
            real = os.path.realpath(path, strict=True)
        except (OSError, ValueError):
            return None
        if any(_is_below(real, root) for root in self._roots):
            return _read_found(real, label)
        digest = hashlib.sha256(b"leads to " + os.fsencode(real)).hexdigest()
        executable = os.path.isfile(real) and os.access(real, os.X_OK)
        return Found(label=label, leads_out=True, executable=executable, sha256=digest)

    def _label(self, path: str) -> str | None:
        for number, (given, root) in enumerate(zip(self._given, self._roots, strict=True)):
            for folder in (given, root):
                if _is_below(path, folder):
                    return os.path.relpath(path, folder) if number == 0 else path
        return None


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _read_found(real: str, label: str) -> Found | None:
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refusal(f"the command names {label}, which cannot be read: {(error.strerror or '').lower()}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return Found(label=label, is_folder=True) if stat.S_ISDIR(status.st_mode) else None
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(MOST_SCRIPT_BYTES + 1)
        digest = hashlib.sha256(content)
        size = len(content)
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return Found(
        label=label,
        executable=bool(status.st_mode & 0o111) or content.startswith(b"#!"),
        sha256=digest.hexdigest(),
        size=size,
        content=content if size <= MOST_SCRIPT_BYTES else None,
    )
