"""Where are the private folders of a clone, and how do they come and go?

    <state>/khlone/repositories/<repository id>/clones/<clone id>/
        khlone.json  config/<agent>/  base/<agent>.json  keys/<agent>.json  cache/<agent>/  home/  logs/  run/
    <state>/khlone/repositories/<repository id>/trash/<clone id>/<operation id>/

All of it is 0700, outside every repository, since secrets and transcripts must not travel
with a copied `.git`. A clone's folder appears and disappears by one rename, so it is there
whole or not at all; `khlone.json` says which operation made it, and only that operation
may discard it. Names on disk are ids, never names that a user chose. Callers hold the
clone's operation lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from khlone import files
from khlone.errors import NotPermitted, StateUnsafe

MARKER = "khlone.json"

#: Not TMPDIR: on macOS that alone is longer than what is left of a socket's path.
_TEMP = "/tmp"  # noqa: S108 - the folder inside is private, and refused where it is not
#: So much of a clone's id names its temporary folder.
_SHORT_ID = 12
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
#: Below the state root: some agents are kept to their clone by XDG_STATE_HOME itself, and so is a whole home.
_PRIVATE = rf"(?P<root>/(?:.*/)?khlone)/repositories/{_PART}/clones/{_PART}/(?:config|home)/.*"


def state_root(environment: Mapping[str, str]) -> Path:
    """The user's folder for khlone's state: $XDG_STATE_HOME/khlone, else ~/.local/state/khlone.

    Where that variable leads into the config dir or the home of a clone, the one that this clone is kept in.
    Raises NotPermitted when neither that variable nor HOME is an absolute path.
    """
    inside = re.fullmatch(_PRIVATE, environment.get("XDG_STATE_HOME", ""))
    return Path(inside["root"]) if inside else _user_folder(environment, "XDG_STATE_HOME", ".local/state")


def cache_root(environment: Mapping[str, str]) -> Path:
    """The user's folder for what can be made again: $XDG_CACHE_HOME/khlone, else ~/.cache/khlone.

    Raises NotPermitted when neither that variable nor HOME is an absolute path.
    """
    return _user_folder(environment, "XDG_CACHE_HOME", ".cache")


def _user_folder(environment: Mapping[str, str], variable: str, below_home: str) -> Path:
    base = environment.get(variable, "")
    if os.path.isabs(base):
        return Path(base, "khlone")
    home = environment.get("HOME", "")
    if os.path.isabs(home):
        return Path(home, below_home, "khlone")
    raise NotPermitted(
        f"there is no place for khlone's files: neither {variable} nor HOME is an absolute path",
        hint=f"set {variable} to a folder of yours",
    )


def clone_of(root: Path, path: str) -> Path | None:
    """The private folder of the clone that a path lies in, of whichever repository, `None` for other paths."""
    try:
        parts = Path(path).relative_to(root / "repositories").parts
    except ValueError:
        return None
    return root.joinpath("repositories", *parts[:3]) if len(parts) > 3 and parts[1] == "clones" else None


class ConfigDirs:
    """The private folders of one repository's clones. Ids that cannot name a folder raise ValueError."""

    def __init__(self, root: Path, repository_id: str) -> None:
        self._root = root
        self._repository_id = _part(repository_id)
        self._clones = root / "repositories" / repository_id / "clones"
        self._trash = root / "repositories" / repository_id / "trash"
        self.scratch = root / "repositories" / repository_id / "scratch"
        self.gate_logs = root / "repositories" / repository_id / "gates"

    # -- where; nothing is made or looked at

    def clone_path(self, clone_id: str) -> Path:
        """Where everything private of a clone lies."""
        return self._clones / _part(clone_id)

    def config_path(self, clone_id: str, agent: str) -> Path:
        """Where the config dir of one agent in a clone lies."""
        return self.clone_path(clone_id) / "config" / _part(agent)

    def base_path(self, clone_id: str, agent: str) -> Path:
        """Where is written down what an agent's config dir was filled with."""
        return self.clone_path(clone_id) / "base" / f"{_part(agent)}.json"

    def key_path(self, clone_id: str, agent: str) -> Path:
        """Where is written down what an agent in a clone gets its key from."""
        return self.clone_path(clone_id) / "keys" / f"{_part(agent)}.json"

    def cache_path(self, clone_id: str, agent: str) -> Path:
        """Where an agent in a clone may keep what can be made again."""
        return self.clone_path(clone_id) / "cache" / _part(agent)

    def home_path(self, clone_id: str) -> Path:
        """Where the home of a clone lies that has one of its own."""
        return self.clone_path(clone_id) / "home"

    def temp_path(self, clone_id: str) -> Path:
        """Where the programs in a clone keep what is temporary: short, since sockets lie in it."""
        return Path(_TEMP, f"khlone-{os.geteuid()}", _part(clone_id)[:_SHORT_ID])

    def make_temp(self, clone_id: str) -> Path:
        """Make the folder of `temp_path`; raises StateUnsafe where it, or the one it is in, is not ours alone."""
        place = self.temp_path(clone_id)
        with files.explained(place):
            _require_own(files.make_private_dir(place.parent))
            _require_own(files.make_private_dir(place))
        return place

    def logs(self, clone_id: str) -> Path:
        """Where the logs of a clone's sessions lie."""
        return self.clone_path(clone_id) / "logs"

    def run(self, clone_id: str) -> Path:
        """Where the small files of a clone's running sessions lie."""
        return self.clone_path(clone_id) / "run"

    def trash_path(self, clone_id: str, operation_id: str) -> Path:
        """Where the folders of a removed clone lie."""
        return self._trash / _part(clone_id) / _part(operation_id)

    # -- create, and its undo

    def publish(self, clone_id: str, operation_id: str, agent: str, *, durable: bool = True) -> Path:
        """Make a clone's folders, the agent's empty config dir among them, and return that one.

        Built aside and published by one rename. May be repeated by the same operation, which
        keeps what is in it; raises StateUnsafe when another one made it, or when something
        that is not a folder of ours is in its place.
        """
        place, config = self.clone_path(clone_id), self.config_path(clone_id, agent)
        aside = self._aside(clone_id, operation_id)
        with files.explained(place):
            if files.exists(place):
                _require_folder(place)
                if not self.is_made_by(clone_id, operation_id):
                    raise StateUnsafe(place, "another operation made it")
                _make_inside(place, agent)
                return config
            self._make_chain(self._clones)
            files.remove_tree(aside)
            os.mkdir(aside, 0o700)
            _make_inside(aside, agent)
            marker = {"clone": clone_id, "operation": operation_id, "repository": self._repository_id}
            files.write_new(aside / MARKER, json.dumps(marker).encode() + b"\n", durable=durable)
            if durable:
                files.sync_dir(aside / "config")
                files.sync_dir(aside)
            files.rename_new(aside, place, durable=False)
            if durable:
                files.sync_dir(self._clones)
        return config

    def is_made_by(self, clone_id: str, operation_id: str) -> bool:
        """Whether the clone's folder is there and says that this operation made it."""
        place = self.clone_path(clone_id)
        if not _is_folder(place):
            return False
        try:
            marker = json.loads(files.read_regular(place / MARKER) or b"")
        except (StateUnsafe, OSError, ValueError, RecursionError):
            return False
        return isinstance(marker, dict) and (marker.get("clone"), marker.get("operation")) == (clone_id, operation_id)

    def discard(self, clone_id: str, operation_id: str) -> bool:
        """Delete what this operation made and nothing else; False when something else is there.

        May be repeated after a crash. Raises StateUnsafe, with the rest kept, when another
        file system is mounted inside.
        """
        place, aside = self.clone_path(clone_id), self._aside(clone_id, operation_id)
        with files.explained(place):
            if not _is_folder(self._clones):
                return not files.exists(self._clones)
            files.remove_tree(aside)
            if not files.exists(place):
                return True
            if not self.is_made_by(clone_id, operation_id):
                return False
            self._remove_temp(clone_id)
            files.rename_new(place, aside)
            files.remove_tree(aside)
        return True

    # -- remove, restore, purge

    def trash(self, clone_id: str, operation_id: str) -> None:
        """Move a clone's folders to the trash as they are, by one rename; may be repeated after a crash.

        What is temporary stays until the purge, unless no file there holds a byte.
        """
        place, trashed = self.clone_path(clone_id), self.trash_path(clone_id, operation_id)
        with files.explained(place):
            if files.exists(place):
                _require_folder(place)
                self._make_chain(trashed.parent)
                _move(place, trashed)
            with contextlib.suppress(OSError):
                if _is_own(self.temp_path(clone_id).parent):
                    _drop_hollow(self.temp_path(clone_id))

    def restore(self, clone_id: str, operation_id: str) -> None:
        """Move a clone's folders back from the trash, by one rename; may be repeated after a crash."""
        place, trashed = self.clone_path(clone_id), self.trash_path(clone_id, operation_id)
        with files.explained(place):
            if files.exists(trashed):
                _require_folder(trashed)
                self._make_chain(self._clones)
                _move(trashed, place)
            _drop_empty(trashed.parent)

    def purge(self, clone_id: str, operation_id: str) -> None:
        """Delete a clone's folders in the trash for good; may be repeated after a crash."""
        trashed = self.trash_path(clone_id, operation_id)
        aside = trashed.with_name(f"{operation_id}.tmp")
        with files.explained(trashed):
            if not files.exists(self.clone_path(clone_id)):
                self._remove_temp(clone_id)
            if not _is_folder(trashed.parent):
                return
            files.remove_tree(aside)
            if files.exists(trashed):
                files.rename_new(trashed, aside)
                files.remove_tree(aside)
            _drop_empty(trashed.parent)

    def _remove_temp(self, clone_id: str) -> None:
        """Delete what is temporary, unless it lies in a folder that somebody else put there."""
        place = self.temp_path(clone_id)
        if _is_own(place.parent):
            files.remove_tree(place)

    def sweep_temp(self, known: Collection[str], *, rested_s: float) -> None:
        """Drop temporary folders that no repository of this user knows the clone of; `known` are more ids.

        Another state folder may know it: one that a file with a byte is in, or that was
        changed within `rested_s`, stays.
        """
        parent = self.temp_path("none").parent
        if not _is_own(parent):
            return
        kept = {clone_id[:_SHORT_ID] for clone_id in known}
        for kind in ("clones", "trash"):
            kept |= {path.name[:_SHORT_ID] for path in (self._root / "repositories").glob(f"*/{kind}/*")}
        for name in os.listdir(parent):
            if re.fullmatch(rf"[0-9a-f]{{{_SHORT_ID}}}", name) and name not in kept:
                place = parent / name
                with contextlib.suppress(OSError):
                    if time.time() - _last_change(place) > rested_s:
                        _drop_hollow(place)

    def _aside(self, clone_id: str, operation_id: str) -> Path:
        return self._clones / f"{_part(clone_id)}.{_part(operation_id)}.tmp"

    def _make_chain(self, last: Path) -> None:
        """Make every folder from the root down to `last`: `mkdir -p` would leave those between open to others."""
        files.make_private_dir(self._root)
        folder = self._root
        for part in last.relative_to(self._root).parts:
            folder = files.make_private_dir(folder / part)


def _part(text: str) -> str:
    if not re.fullmatch(_PART, text):
        raise ValueError(f"{text!r} cannot name a folder of khlone's")
    return text


def _make_inside(place: Path, agent: str) -> None:
    for part in ("config", f"config/{agent}", "logs", "run"):
        files.make_private_dir(place / part)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_own(path: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user; also root's has to be root's."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _require_own(path: Path) -> None:
    if not _is_own(path):
        raise StateUnsafe(path, f"it belongs to {files.owner_of(path)}")


def _require_folder(path: Path) -> None:
    if not _is_folder(path):
        raise StateUnsafe(path, "it is not a folder")


def _move(source: Path, destination: Path) -> None:
    try:
        files.rename_new(source, destination)
    except FileExistsError as error:
        raise StateUnsafe(destination, f"it is in the way of {source}") from error


def _last_change(folder: Path) -> float:
    """When something was last made in or taken out of a folder or one below it."""
    return max([os.lstat(folder).st_mtime, *(os.lstat(inner).st_mtime for inner, _, _ in os.walk(folder))])


def _drop_hollow(folder: Path) -> None:
    """Delete a folder in which there are folders, sockets and files of no byte alone; of any other, nothing."""
    if not _is_own(folder):
        return
    for inner, below, found in os.walk(folder):
        entries = [os.lstat(os.path.join(inner, name)) for name in (*below, *found)]
        if any(stat.S_ISLNK(one.st_mode) or (stat.S_ISREG(one.st_mode) and one.st_size) for one in entries):
            return
    for inner, _, found in os.walk(folder, topdown=False):
        for name in found:
            os.unlink(os.path.join(inner, name))
        _drop_empty(Path(inner))


def _drop_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)
