"""How does one item of the user's config come into a config dir, and what was it when it came?

Links lead to the real place; copies are private, bounded, and hold no link out of what was
copied but to the real place. Every function says what it did as an entry: plain JSON, by
which a later look tells what the clone, and what the user, has changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from khlone import files
from khlone.errors import StateUnsafe
from khlone.profiles import ConfigItem

#: A single file above this is no setting.
MOST_FILE_BYTES = 1 << 20
#: A copied folder is at most this large, in bytes and in entries.
MOST_FOLDER_BYTES = 512 << 20
MOST_ENTRIES = 50_000

Entry = dict[str, Any]


def link(source: Path, place: Path) -> Entry | None:
    """Link to the real place of the user's; `None` when nothing usable is there."""
    target = os.path.realpath(source)
    if not os.path.isdir(target) and not os.path.isfile(target):
        return None
    if os.path.islink(place) and os.readlink(place) != target:
        os.unlink(place)
    if not files.exists(place):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.symlink(target, place)
    return {"target": target}


def copy(item: ConfigItem, source: Path, place: Path) -> Entry | None:
    """Copy a file or a folder; `None` when nothing usable is there, StateUnsafe when it is too large."""
    real = Path(os.path.realpath(source))
    if real.is_dir():
        return _copy_folder(real, place, {source, real} if item.moves_paths else set())
    content = None
    with contextlib.suppress(OSError, StateUnsafe):
        content = files.read_regular(real, most=MOST_FILE_BYTES)
    return None if content is None else write(item, content, place)


def write(item: ConfigItem, content: bytes, place: Path) -> Entry:
    """Write a file that is the clone's own."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_atomic(place, content, durable=False)
    return entry_of(item, content)


def entry_of(item: ConfigItem, content: bytes) -> Entry:
    """What is noted of a file's content: the object itself where it is merged by key."""
    found = parsed(content) if item.as_json else None
    return {"digest": hashlib.sha256(content).hexdigest()} | ({} if found is None else {"content": found})


def parsed(content: bytes | None) -> dict[str, Any] | None:
    """The JSON object that a content is, else `None`."""
    try:
        found = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def digest(path: Path) -> str | None:
    """What a file or a folder is like now: its bytes, or the names, sizes and times in it; `None` for none."""
    if path.is_dir():
        return _folder_digest(path)
    with contextlib.suppress(OSError, StateUnsafe):
        content = files.read_regular(path, most=MOST_FILE_BYTES)
        return None if content is None else hashlib.sha256(content).hexdigest()
    return None


# -- folders -------------------------------------------------------------------------------


def _copy_folder(source: Path, place: Path, called: Collection[Path]) -> Entry:
    """Copy a folder aside and put it in place by one rename; what was there before goes.

    `called` are the paths by which JSON files in it name the folder itself.
    """
    import shutil

    _require_bounded(source)
    aside = place.with_name(f".{place.name}.{os.urandom(4).hex()}.tmp")
    was = _folder_digest(source)
    os.mkdir(aside, 0o700)
    try:
        for path, found in _entries(source):
            copied = aside / path.relative_to(source)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(copied, 0o700)
            elif stat.S_ISLNK(found.st_mode):
                os.symlink(_link_text(path, source), copied)
            elif stat.S_ISREG(found.st_mode):
                shutil.copyfile(path, copied, follow_symlinks=False)
                os.chmod(copied, stat.S_IMODE(found.st_mode) & 0o700 | 0o600)
                os.utime(copied, ns=(found.st_atime_ns, found.st_mtime_ns))
        _move_paths([os.fspath(path) for path in called], aside, place)
        if files.exists(place):
            old = place.with_name(f".{place.name}.{os.urandom(4).hex()}.old")
            os.rename(place, old)
            os.rename(aside, place)
            files.remove_tree(old)
        else:
            files.rename_new(aside, place, durable=False)
    except BaseException:
        with contextlib.suppress(OSError, StateUnsafe):
            files.remove_tree(aside)
        raise
    return {"digest": _folder_digest(place), "source": was}


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder, folders before what is in them, in one order; no link is followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(parent, name)
            with contextlib.suppress(FileNotFoundError):
                yield path, os.lstat(path)


def _require_bounded(folder: Path) -> None:
    entries = size = 0
    for _, found in _entries(folder):
        entries, size = entries + 1, size + found.st_size
        if entries > MOST_ENTRIES or size > MOST_FOLDER_BYTES:
            raise StateUnsafe(folder, f"it is larger than {MOST_FOLDER_BYTES >> 20} MiB or {MOST_ENTRIES} entries")


def _folder_digest(folder: Path) -> str:
    known = hashlib.sha256()
    for path, found in _entries(folder):
        is_file = stat.S_ISREG(found.st_mode)
        facts = (stat.S_IFMT(found.st_mode), found.st_size if is_file else 0, found.st_mtime_ns if is_file else 0)
        known.update(f"{path.relative_to(folder)}\0{facts}\n".encode(errors="surrogateescape"))
    return known.hexdigest()


def _link_text(path: Path, top: Path) -> str:
    """A link's text in the copy: as it is inside of what is copied, else to the real place."""
    text = os.readlink(path)
    target = os.path.realpath(path)
    return text if not os.path.isabs(text) and Path(target).is_relative_to(top) else target


def _move_paths(called: Sequence[str], aside: Path, place: Path) -> None:
    """Let absolute paths into the folder, in JSON files at its top, lead into the copy."""
    new = os.fspath(place)

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [moved(inner) for inner in value]
        for old in called if isinstance(value, str) else ():
            if value == old or value.startswith(old + os.sep):
                return new + value[len(old) :]
        return value

    for path in aside.glob("*.json") if called else ():
        found = parsed(files.read_regular(path, most=MOST_FILE_BYTES) if not path.is_symlink() else None)
        if found is not None and moved(found) != found:
            files.write_atomic(path, json.dumps(moved(found), indent=2).encode() + b"\n", durable=False)
