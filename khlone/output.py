"""How does an answer reach the user: as one JSON document, or as text for people?

stdout carries the answer, stderr the story. Documents are written from the same values
as the tables. Names from git are escaped before they are shown.
"""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from khlone.values import field_names

if TYPE_CHECKING:
    from khlone.errors import KhloneError


class Output:
    """Where a command's words go, given its `--json` and `--quiet`."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._answers: TextIO = sys.stdout

    def keep_stdout(self) -> None:
        """From here on stdout is for answers alone: whatever else prints (a plugin) goes to stderr."""
        sys.stdout = sys.stderr

    def document(self, verb: str, content: Mapping[str, object], *, owner: str = "khlone") -> None:
        """Print the one JSON document of a verb, khlone's own or that of the plugin `owner`."""
        _write(self._answers, json.dumps({"schema": f"{owner}.{verb}/1", **_plain_mapping(content)}) + "\n")

    def answer(self, text: str = "") -> None:
        """Print a line of the answer; nothing under `--json`."""
        if not self.as_json:
            _write(self._answers, text + "\n")

    def raw_answer(self, content: bytes) -> None:
        """Print bytes of the answer as they are; nothing under `--json`."""
        if not self.as_json:
            self._answers.flush()
            self._answers.buffer.write(content)
            self._answers.flush()

    def tell(self, text: str) -> None:
        """Print a line of the story; nothing under `--quiet`."""
        if not self.quiet:
            _write(sys.stderr, f"khlone: {text}\n")

    def raw_story(self, text: str) -> None:
        """Print what another program said on its stderr; nothing under `--quiet`."""
        if text and not self.quiet:
            _write(sys.stderr, text if text.endswith("\n") else text + "\n")

    def error(self, error: KhloneError) -> None:
        """Print a refusal or failure with its hint, as the document under `--json`."""
        if self.as_json:
            self.document(
                "error",
                {"code": error.code, "message": error.message, "hint": error.hint, "facts": error.facts},
            )
        else:
            _write(sys.stderr, f"khlone: {visible(error.message)}\n")
            if error.hint:
                _write(sys.stderr, f"hint: {visible(error.hint)}\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows below column heads, each column as wide as it must be."""
        if self.as_json:
            return
        widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
        for row in (columns, *rows):
            _write(
                self._answers,
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n",
            )


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except UnicodeEncodeError:
        stream.buffer.write(text.encode(errors="surrogateescape"))
        stream.flush()


def plain(value: object) -> object:
    """A value as JSON can hold it: dataclasses as objects, paths and enums as texts."""
    names = field_names(value)
    if names:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    return value


def _plain_mapping(content: Mapping[str, object]) -> dict[str, object]:
    return {key: plain(value) for key, value in content.items()}


def visible(text: str) -> str:
    """A text that may come from git, safe for a terminal: what cannot be shown is escaped."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the last unit returns")
