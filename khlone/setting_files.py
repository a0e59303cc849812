"""Which keys does a settings file hold, and in which line does each stand?

The keys of a TOML file are made those of git: tables joined by dots, lower case. Lines are
looked for only when somebody is to be told of one.
"""

from __future__ import annotations

import re
from pathlib import Path

from khlone import files
from khlone.errors import KhloneError

_SECTION = re.compile(r'\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]')
_ENTRY = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*(?:=|$|[#;])")
#: A statement of more lines than this is not taken apart: each line more means reading it once more.
_MOST_LINES = 400


def flatten(document: object, prefix: str = "") -> list[tuple[str, str]]:
    """Every key of a TOML document with its value as git would write it."""
    if isinstance(document, dict):
        found: list[tuple[str, str]] = []
        for key, inner in document.items():
            found += flatten(inner, f"{prefix}.{key.lower()}" if prefix else top_level(key))
        return found
    if isinstance(document, bool):
        return [(prefix, "true" if document else "false")]
    if isinstance(document, list):
        words = [str(item) for item in document]
        import shlex

        # Words of an agent's command line may hold spaces; other lists are of plain words.
        return [(prefix, shlex.join(words) if prefix.startswith("agents.") else " ".join(words))]
    return [(prefix, str(document))]


def top_level(name: str) -> str:
    """A top-level key as git would write it: `allow-network-file-system` is `allownetworkfilesystem`."""
    return name.lower() if "." in name else name.lower().replace("_", "").replace("-", "")


def line_of(path: Path, key: str) -> int | None:
    """The line, from 1, in which a key that is in force stands in a file; `None` where that cannot be told."""
    try:
        text = (files.read_regular(path) or b"").decode(errors="surrogateescape")
    except (KhloneError, OSError):
        return None
    found = toml_lines(text) if path.suffix == ".toml" else git_lines(text)
    return found.get(key)


def toml_lines(text: str) -> dict[str, int]:
    """The line in which each key of a TOML file begins, as far as the file can be read."""
    import tomllib

    found: dict[str, int] = {}
    prefix = ""
    begun: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        begun.append(line)
        statement = "\n".join(begun)
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            # A value of several lines goes on; a header alone, or one line alone, is as good as it gets.
            if len(begun) >= _MOST_LINES:
                return found
            continue
        first = number - len(begun) + 1
        begun = []
        if statement.lstrip().startswith("["):
            prefix = _header(content)
            continue
        for key, _ in flatten(content, prefix):
            found.setdefault(key, first)
    return found


def _header(content: object) -> str:
    """The key of the table that a header opens."""
    prefix = ""
    while isinstance(content, (dict, list)) and content:
        if isinstance(content, list):
            content = content[0]
            continue
        name, content = next(iter(content.items()))
        prefix = f"{prefix}.{name.lower()}" if prefix else top_level(name)
    return prefix


def git_lines(text: str) -> dict[str, int]:
    """The last line in which each `khlone.*` key stands in a git configuration file, keys without that prefix."""
    found: dict[str, int] = {}
    prefix: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        rest = line.strip()
        section = _SECTION.match(rest)
        if section is not None:
            below = "" if section[2] is None else f".{section[2]}"
            name = f"{section[1]}{below}.".lower()
            prefix = name.removeprefix("khlone.") if name.startswith("khlone.") else None
            rest = rest[section.end() :]
        entry = _ENTRY.match(rest)
        if prefix is not None and entry is not None:
            found[prefix + entry[1].lower()] = number
    return found
