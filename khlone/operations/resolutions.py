"""Has a plugin a resolution for a conflicted merge, and which tree is that?

A plugin is shown which paths are in conflict, with the three sides as blobs, and a private
folder with these files as git left them. What it answers becomes a tree in the object
database only when every such path is resolved and no marker of a conflict is left in it;
anything else is told, and the merge is held as if nobody had answered. Landing it is the
business of the ordinary road.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import CloneRecord, Conflict, ConflictedFile
from khlone.operations import journal
from khlone.values import dataclass

#: A conflict in more files than this is for people.
MOST_FILES = 200
_MOST_BYTES = 64 << 20
_REGULAR = ("100644", "100755")
#: A line that git writes round the two sides of a conflict; whole lines, any size of marker.
_MARKER = re.compile(rb"^(?:<{7,}|>{7,}|\|{7,})(?: .*)?\r?$|^={7}\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The tree that a plugin has made of a conflicted one."""

    tree: str
    plugin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What `merge-tree` says of one conflicted path: mode and oid of base, ours and theirs, by stage."""

    path: str
    sides: Mapping[int, tuple[str, str]]

    @property
    def is_regular(self) -> bool:
        """Whether every side is a file, no link and no submodule."""
        return all(mode in _REGULAR for mode, _ in self.sides.values())

    @property
    def mode(self) -> str:
        """The mode of the merged file: the side that changed it, the target's where both did."""
        base, ours, theirs = (self.sides.get(stage, (None, ""))[0] for stage in (1, 2, 3))
        return (theirs if ours in (base, None) else ours) or ours or base or _REGULAR[0]


def parse_stages(fields: Sequence[str]) -> list[Stages]:
    """Read the conflicted entries of `merge-tree -z`, `mode oid stage TAB path` each, in the order of their paths."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for field in fields:
        facts, _, path = field.partition("\t")
        mode, oid, stage = facts.split(" ")
        found.setdefault(path, {})[int(stage)] = (mode, oid)
    return [Stages(path=path, sides=found[path]) for path in sorted(found)]


def resolve(
    app: App, clone: CloneRecord, target: str, old: str, source: str, tree: str, conflicted: Sequence[Stages]
) -> Resolution | None:
    """The first usable resolution of a plugin; `None` where there is none, with a word on every unusable one.

    `tree` is what `merge-tree` made, markers included. The clone's operation lock is held.
    """
    if not app.plugins.has("khlone_resolve_conflict"):
        return None
    if len(conflicted) > MOST_FILES or not all(one.is_regular for one in conflicted):
        return None
    conflict = Conflict(target=target, old=old, source=source, files=[_shown(one) for one in conflicted])
    # Named after the clone: who holds its lock may clear what a killed one has left.
    folder = app.state_dir / "stage" / f"conflict-{clone.id}"
    files.remove_tree(folder)
    try:
        files.make_private_dir(folder)
        _write_out(app, folder / "files", tree, conflicted)
        view = journal.as_clone(clone, head=source)
        for plugin, answer in app.plugins.resolve_conflict(view, conflict, folder / "files"):
            try:
                content = _content(folder / "files", conflicted, answer)
                _require_whole(app, conflicted, content)
            except _Unusable as error:
                app.told(f"warning: the resolution by plugin {plugin!r} is not used: {error}")
                continue
            made = _tree(app, folder, tree, conflicted, content)
            app.told(f"{clone.name}: plugin {plugin!r} has resolved the conflict in {', '.join(content)}")
            return Resolution(tree=made, plugin=plugin)
    finally:
        files.remove_tree(folder)
    return None


class _Unusable(Exception):
    """Why a resolution cannot be used."""


def _shown(one: Stages) -> ConflictedFile:
    base, ours, theirs = (one.sides[stage][1] if stage in one.sides else None for stage in (1, 2, 3))
    return ConflictedFile(path=one.path, base=base, ours=ours, theirs=theirs)


def _write_out(app: App, folder: Path, tree: str, conflicted: Sequence[Stages]) -> None:
    """The conflicted files as they are in the tree; a path that is not there has none."""
    folder.mkdir()
    for one in conflicted:
        content = _blob(app, f"{tree}:{one.path}")
        if content is not None:
            path = folder / one.path
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_new(path, content, durable=False)


def _blob(app: App, name: str) -> bytes | None:
    done = app.repository.git("cat-file", "blob", name, check=False)
    return done.stdout if done.status == 0 else None


def _content(folder: Path, conflicted: Sequence[Stages], answer: object) -> dict[str, bytes | None]:
    """What each conflicted path is to be, `None` for no file there."""
    if isinstance(answer, Mapping):
        return dict(answer)
    found: dict[str, bytes | None] = {}
    for one in conflicted:
        try:
            found[one.path] = files.read_regular(folder / one.path, most=_MOST_BYTES)
        except (OSError, KhloneError) as error:
            raise _Unusable(f"{one.path} cannot be read: {error}") from error
    return found


def _require_whole(app: App, conflicted: Sequence[Stages], content: Mapping[str, bytes | None]) -> None:
    """Raise _Unusable unless the conflict, all of it and nothing else, is resolved, without a marker that is new."""
    wanted = {one.path for one in conflicted}
    missing, foreign = sorted(wanted - set(content)), sorted(set(content) - wanted)
    if missing:
        raise _Unusable(f"it leaves out {', '.join(missing)}")
    if foreign:
        raise _Unusable(f"{', '.join(foreign)} is in no conflict")
    for one in conflicted:
        marked = set(_markers(content[one.path] or b""))
        if marked and marked - set(_markers_of_sides(app, one)):
            raise _Unusable(f"markers of the conflict are left in {one.path}")


def _markers(content: bytes) -> Iterator[bytes]:
    return (match[0].rstrip(b"\r") for match in _MARKER.finditer(content))


def _markers_of_sides(app: App, one: Stages) -> Iterator[bytes]:
    """Lines like markers that the file has had before: then they are none."""
    for _, oid in one.sides.values():
        yield from _markers(_blob(app, oid) or b"")


def _tree(app: App, folder: Path, tree: str, conflicted: Sequence[Stages], content: Mapping[str, bytes | None]) -> str:
    environment = {"GIT_INDEX_FILE": os.fspath(folder / "index")}
    nothing = "0" * len(tree)
    lines = []
    for one in conflicted:
        resolved = content[one.path]
        if resolved is None:
            lines.append(f"0 {nothing}\t{one.path}")
            continue
        blob = app.repository.git("hash-object", "-w", "--stdin", stdin=resolved, writes=True).text.strip()
        lines.append(f"{one.mode} {blob}\t{one.path}")
    given = os.fsencode("".join(f"{line}\0" for line in lines))
    app.repository.git("read-tree", tree, environment=environment, writes=True)
    app.repository.git("update-index", "-z", "--index-info", stdin=given, environment=environment, writes=True)
    return app.repository.git("write-tree", environment=environment, writes=True).text.strip()
