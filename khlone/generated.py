"""Which files in a clone's worktree are khlone's own making, and still what khlone wrote?

Kept as digests in the private folder of the clone, so that a file which its user has
changed, or made himself, is never taken for khlone's. An unchanged one is nobody's work:
it can be made again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from khlone import files
from khlone.errors import KhloneError

RECORD_FILE = "generated.json"

#: The last and the one before: a crash between the note and the writing leaves either.
_KEPT = 2
_MOST_BYTES = 16 << 20


def note(folder: Path, name: str, content: bytes) -> None:
    """Write down that this content is about to be written to that file of the clone with this private folder."""
    known = {path: list(digests) for path, digests in _load(folder).items()}
    digest = _sha256(content)
    kept = [one for one in known.get(name, []) if one != digest]
    known[name] = [*kept, digest][-_KEPT:]
    files.write_atomic(folder / RECORD_FILE, json.dumps({"files": known}).encode() + b"\n", durable=False)


def is_unchanged(folder: Path, worktree: Path, name: str) -> bool:
    """Whether the file is what khlone wrote there; never for a link, nor for what cannot be read."""
    return bool(unchanged(folder, worktree, [name]))


def unchanged(folder: Path, worktree: Path, names: Iterable[str]) -> set[str]:
    """Those of these files that are what khlone wrote."""
    known = _load(folder)
    return {name for name in names if name in known and _digest(worktree / name) in known[name]}


def note_folder(folder: Path, name: str) -> None:
    """Write down that a whole folder of a clone is about to be filled, before the clone is ready."""
    note(folder, f"{name}/", b"")


def made(folder: Path, worktree: Path, names: Iterable[str]) -> set[str]:
    """Those of these files that khlone wrote, or that lie in a folder it fills; for a clone that was never ready."""
    listed = list(names)
    folders = tuple(name for name in _load(folder) if name.endswith("/"))
    return unchanged(folder, worktree, listed) | {name for name in listed if name.startswith(folders)}


def _load(folder: Path) -> Mapping[str, Sequence[str]]:
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, KeyError, AttributeError):
        content = files.read_regular(folder / RECORD_FILE)
        if content is not None:
            return {str(name): [str(one) for one in digests] for name, digests in json.loads(content)["files"].items()}
    return {}


def _digest(path: Path) -> str | None:
    with contextlib.suppress(KhloneError, OSError):
        content = files.read_regular(path, most=_MOST_BYTES)
        return None if content is None else _sha256(content)
    return None


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
