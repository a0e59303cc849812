"""Where does a ref point, read from git's own files without starting a program?

Refs lie in files of their own or in `packed-refs`; whatever else it may be (a symbolic ref,
a link, damage) is told apart, for git to answer.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from khlone.errors import StateUnsafe
from khlone.files import read_regular

#: Told apart from an absent ref: its file holds something that only git can read.
ASK_GIT = "?"
_SMALL = 1 << 20
_PACKED = 256 << 20
_OID = r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z"


def is_oid(text: str) -> bool:
    """Whether a text is a full object name of either hash."""
    return re.match(_OID, text) is not None


def in_use(common_dir: Path) -> bool:
    """Whether a repository keeps its refs in files (not in a reftable)."""
    config = (read_regular(common_dir / "config", most=_SMALL) or b"").lower()
    return b"refstorage" not in config or re.search(rb"refstorage\s*=\s*\"?files", config) is not None


def read(common_dir: Path, ref: str) -> str:
    """The oid that a ref points at, an empty text when there is no such ref, or `ASK_GIT`."""
    for _ in range(2):
        try:
            loose = read_regular(common_dir / ref, most=_SMALL)
            packed = b"" if loose is not None else _packed(common_dir)
        except (OSError, StateUnsafe):
            is_free = (common_dir / ref).is_dir() and _line(ref) not in _packed(common_dir)
            return "" if is_free else ASK_GIT
        if loose is not None:
            text = os.fsdecode(loose).strip()
            return text if is_oid(text) else ASK_GIT
        at = packed.find(_line(ref))
        if at >= 0:
            text = os.fsdecode(packed[packed.rfind(b"\n", 0, at) + 1 : at])
            return text if is_oid(text) else ASK_GIT
    return ""


def _packed(common_dir: Path) -> bytes:
    return read_regular(common_dir / "packed-refs", most=_PACKED) or b""


def _line(ref: str) -> bytes:
    return b" " + os.fsencode(ref) + b"\n"
