"""Where does a ref point, read from git's own files without starting a program?

Refs lie in files of their own or in `packed-refs`; whatever else it may be (a symbolic ref,
a link, damage) is told apart, for git to answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
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
    return read_all(common_dir, (ref,)).get(ref, "")


def read_all(common_dir: Path, refs: Iterable[str]) -> dict[str, str]:
    """What each of the refs that there are points at, or `ASK_GIT`; `packed-refs` is read once for all."""
    found: dict[str, str] = {}
    left = list(refs)
    # Once more for those that got a file of their own, and left `packed-refs`, in between.
    for _ in range(2):
        absent = []
        for ref in left:
            loose = _loose(common_dir, ref)
            if loose:
                found[ref] = loose
            else:
                absent.append((ref, loose))
        if not absent:
            break
        try:
            packed = _packed(common_dir)
        except (OSError, StateUnsafe):
            return found | {ref: ASK_GIT for ref, _ in absent}
        left = []
        for ref, loose in absent:
            at = packed.find(_line(ref))
            if at < 0:
                left.append(ref)
                continue
            text = os.fsdecode(packed[packed.rfind(b"\n", 0, at) + 1 : at])
            found[ref] = text if loose is None and is_oid(text) else ASK_GIT
    return found


def _loose(common_dir: Path, ref: str) -> str | None:
    """What the file of a ref says, or `ASK_GIT`: `None` where there is none, an empty text where a folder is."""
    try:
        content = read_regular(common_dir / ref, most=_SMALL)
    except (OSError, StateUnsafe):
        return "" if (common_dir / ref).is_dir() else ASK_GIT
    if content is None:
        return None
    text = os.fsdecode(content).strip()
    return text if is_oid(text) else ASK_GIT


def _packed(common_dir: Path) -> bytes:
    return read_regular(common_dir / "packed-refs", most=_PACKED) or b""


def _line(ref: str) -> bytes:
    return b" " + os.fsencode(ref) + b"\n"
