"""How do the user's changes to shared config reach clones, and a clone's own reach the user?

Against what was written down when the clone got its items: what one side alone has changed
goes over, key by key where an item is JSON; what both have changed stays on both sides.
Both files may be written by the agent's program at that moment: swap.py has how neither
change is lost. `agents promote` holds a lock of its own round each file of the user's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from khlone import agent_items, config_dir, files, json_merge, seeds, swap
from khlone.agent_items import Entry
from khlone.app import App
from khlone.errors import AgentConfigUnsound, StateUnsafe
from khlone.json_merge import Merged
from khlone.locks import Locks
from khlone.model import CloneRecord
from khlone.operations import agent_dirs, environment, journal
from khlone.profiles import AgentProfile, Change, ConfigItem, Sharing

_Content = dict[str, Any]


def refresh(app: App, clone: CloneRecord, *, dry_run: bool = False) -> list[Change]:
    """Bring what the user has changed into the config dir of a clone, and say what; raises CloneBusy."""
    profile = environment.profile_of(app, clone)
    if clone.config_dir is None:
        return []
    with journal.held(app, clone.id, clone.name):
        known = agent_dirs.read_record(app, clone, profile)
        entries, changes = dict(known), []
        for item in profile.items:
            refresher = _Refresher(app, clone, profile, item, known.get(item.name), dry_run=dry_run)
            try:
                entry = refresher.run()
            except StateUnsafe as error:
                refresher.note("kept", message=error.message)
                entry = None
            if entry is not None:
                entries[item.name] = entry
            changes += refresher.changes
        if entries != known and not dry_run:
            agent_dirs.write_record(app, clone, profile, entries)
    return changes


class _Refresher:
    """One item of one clone."""

    def __init__(
        self,
        app: App,
        clone: CloneRecord,
        profile: AgentProfile,
        item: ConfigItem,
        entry: Entry | None,
        *,
        dry_run: bool,
    ) -> None:
        assert clone.config_dir is not None
        self._app, self._clone, self._profile, self._item = app, clone, profile, item
        self._entry, self._dry_run = entry, dry_run
        self._place = clone.config_dir / item.name
        self.changes: list[Change] = []

    def note(self, what: str, *, key: str | None = None, message: str | None = None) -> None:
        """Add to `changes`."""
        self.changes.append(Change(clone=self._clone.name, item=self._item.name, what=what, key=key, message=message))

    def run(self) -> Entry | None:
        """Bring the item up to date; returns what is to be written down of it, `None` for what was before."""
        source = self._profile.source_of(self._item)
        if source is None or self._item.sharing is Sharing.NEVER:
            return None
        if self._item.sharing is Sharing.LINK:
            return self._link(source)
        if self._item.sharing is Sharing.GENERATE:
            content = agent_dirs.generated(self._app, self._clone, self._profile, self._item)
        elif self._item.as_json:
            content = seeds.read_followed(source, agent_items.MOST_FILE_BYTES)
        else:
            return self._copy(source)
        return None if content is None else self._merge(content)

    def _link(self, source: Path) -> Entry | None:
        target = os.path.realpath(source)
        is_link = self._place.is_symlink()
        if is_link and os.readlink(self._place) == target and os.path.exists(target):
            return None
        if files.exists(self._place) and not is_link:
            self.note("kept", message="the clone has one of its own")
            return None
        if not os.path.exists(target):
            if is_link:
                self.note("removed", message="the user has none any more")
                if not self._dry_run:
                    self._place.unlink(missing_ok=True)
            return None
        self.note("linked")
        return None if self._dry_run else agent_items.link(source, self._place)

    def _copy(self, source: Path) -> Entry | None:
        theirs, mine = agent_items.digest(Path(os.path.realpath(source))), agent_items.digest(self._place)
        before = {} if self._entry is None else self._entry
        if theirs is None or theirs == before.get("source", before.get("digest")):
            return None
        if mine != before.get("digest"):
            self.note("kept", message="the clone has changed it, and so has the user")
            return None
        self.note("updated")
        return None if self._dry_run else agent_items.copy(self._item, source, self._place)

    def _merge(self, content: bytes) -> Entry | None:
        found = agent_items.parsed(content)
        if found is None:
            self.note("kept", message="the user's is damaged")
            return None
        theirs, base = self._shared(found), self._shared(self._base())
        merged = Merged(content={}, changed=(), conflicts=())

        wanted = theirs

        def change(current: bytes | None) -> bytes | None:
            nonlocal merged
            ours = agent_items.parsed(current)
            if current is not None and ours is None:
                raise StateUnsafe(self._place, "it is damaged")
            merged = json_merge.merge(base, {} if ours is None else ours, wanted, self._item.depths)
            return _as_bytes(merged.content) if merged.changed else None

        if self._dry_run:
            change(seeds.read_followed(self._place, seeds.MOST_BYTES))
        else:
            swap.update(
                self._place, change, locks=_locks(self._profile, self._item, self._place), most=seeds.MOST_BYTES
            )
        for path in merged.changed:
            self.note("updated", key=".".join(path))
        for path in merged.conflicts:
            self.note("kept", key=".".join(path), message="the clone has changed it, and so has the user")
        # Keys in conflict keep their old base: they are in conflict until one side gives in.
        for path in merged.conflicts:
            theirs = json_merge.with_value(theirs, path, json_merge.value_at(base, path))
        return agent_items.entry_of(self._item, content) | {"content": theirs}

    def _shared(self, content: _Content) -> _Content:
        """What of a content is kept the same on both sides."""
        keys = (*self._item.keys, *self._item.per_repository)
        return {key: value for key, value in content.items() if key in keys} if self._item.keys else content

    def _base(self) -> _Content:
        found = {} if self._entry is None else self._entry.get("content")
        return found if isinstance(found, dict) else {}


# -- a clone's own, for the user -----------------------------------------------------------


def promote(app: App, clone: CloneRecord, *, keys: Sequence[str] = (), dry_run: bool = False) -> list[Change]:
    """Merge what a clone has changed into the user's own files, key by key, and say what.

    With `keys` only these, and what lies below them. Raises CloneBusy, Locked or
    AgentConfigUnsound.
    """
    profile = environment.profile_of(app, clone)
    if clone.config_dir is None:
        return []
    changes: list[Change] = []
    with journal.held(app, clone.id, clone.name):
        entries = agent_dirs.read_record(app, clone, profile)
        for item in profile.items:
            source, entry = profile.source_of(item), entries.get(item.name)
            if source is None or not item.as_json or item.sharing in (Sharing.LINK, Sharing.NEVER):
                continue
            current = agent_items.parsed(seeds.read_followed(clone.config_dir / item.name, seeds.MOST_BYTES))
            base = {} if entry is None else entry.get("content")
            if current is None or not isinstance(base, dict):
                continue
            one = _Promotion(app, clone, profile, item, source, base=base, current=current, keys=keys)
            changes += one.run(dry_run=dry_run)
            if one.promoted and not dry_run and entry is not None:
                entries[item.name] = entry | {"content": one.new_base()}
                agent_dirs.write_record(app, clone, profile, entries)
    return changes


class _Promotion:
    """The changes of one clone to one item, on their way to the user's file."""

    def __init__(
        self,
        app: App,
        clone: CloneRecord,
        profile: AgentProfile,
        item: ConfigItem,
        source: Path,
        *,
        base: _Content,
        current: _Content,
        keys: Sequence[str],
    ) -> None:
        self._app, self._clone, self._profile, self._item, self._source = app, clone, profile, item, source
        self._base, self._current, self._keys = base, current, keys
        self.promoted: list[json_merge.Path] = []
        self._conflicts: list[json_merge.Path] = []

    def run(self, *, dry_run: bool) -> list[Change]:
        """Change the user's file, and say which keys of it."""
        if dry_run:
            self._change(seeds.read_followed(self._source, seeds.MOST_BYTES))
        else:
            with Locks(config_dir.state_root(self._app.environment) / "locks").users_file(self._source):
                swap.update(
                    self._source,
                    self._change,
                    locks=_locks(self._profile, self._item, self._source),
                    most=seeds.MOST_BYTES,
                )
        return [self._said("promoted", path) for path in self.promoted] + [
            self._said("conflict", path, "the user has changed it too") for path in self._conflicts
        ]

    def new_base(self) -> _Content:
        """What was written down, with what both sides have the same now."""
        found = self._base
        for path in self.promoted:
            found = json_merge.with_value(found, path, json_merge.value_at(self._current, path))
        return found

    def _said(self, what: str, path: json_merge.Path, message: str | None = None) -> Change:
        return Change(clone=self._clone.name, item=self._item.name, what=what, key=".".join(path), message=message)

    def _change(self, content: bytes | None) -> bytes | None:
        found = agent_items.parsed(content)
        if self._item.sharing is Sharing.GENERATE and content is not None:
            known = agent_dirs.seeds_of(self._app, self._profile, self._item, self._source)
            problem = known.problem(content)
            if problem is not None:
                raise AgentConfigUnsound(self._source, problem, self._profile.name)
        if content is not None and found is None:
            raise AgentConfigUnsound(self._source, "is damaged", self._profile.name)
        result = {} if found is None else found
        self.promoted, self._conflicts = [], []
        for name in self._entries():
            base, theirs = self._shared(self._base, name), self._shared(self._current, name)
            merged = json_merge.merge(base, result, theirs, self._item.depths)
            self._conflicts += [path for path in merged.conflicts if self._is_new(path)]
            for path in filter(self._is_new, merged.changed):
                if len(path) == 1 and json_merge.value_at(merged.content, path) is json_merge.MISSING:
                    # Programs tidy their files at an update: a whole setting that is gone was hardly meant.
                    continue
                self.promoted.append(path)
                result = json_merge.with_value(result, path, json_merge.value_at(merged.content, path))
        return _as_bytes(result) if self.promoted else None

    def _entries(self) -> Iterable[str]:
        """The names under which the clone may have an entry of its repository."""
        return dict.fromkeys((os.fspath(self._app.location.anchor), os.fspath(self._clone.path)))

    def _shared(self, content: _Content, name: str) -> _Content:
        """What of the clone's content may go back, with its repository's entry under the main worktree's name."""
        inner = self._item.per_repository
        kept = {
            key: value
            for key, value in content.items()
            if key not in inner and (not self._item.keys or key in self._item.keys)
        }
        for key, allowed in inner.items():
            entry = json_merge.value_at(content, (key, name))
            if isinstance(entry, dict):
                mine = {one: entry[one] for one in allowed if one in entry}
                kept |= {key: {os.fspath(self._app.location.anchor): mine}} if mine else {}
        return kept

    def _is_new(self, path: json_merge.Path) -> bool:
        """Whether a key is wanted, and was not met under another name of the repository."""
        dotted = ".".join(path)
        if path in self.promoted or path in self._conflicts:
            return False
        return not self._keys or any(dotted == key or dotted.startswith(f"{key}.") for key in self._keys)


# -- the last good copy, for the user ------------------------------------------------------


def unsound(app: App, profile: AgentProfile) -> list[tuple[ConfigItem, Path, str, bool]]:
    """The user's files that no clone is seeded with: item, path, what is wrong, and whether there is a good copy."""
    found = []
    for item in profile.items:
        source = profile.source_of(item)
        if item.sharing is not Sharing.GENERATE or source is None:
            continue
        known = agent_dirs.seeds_of(app, profile, item, source)
        last = known.last_good()
        problem = known.problem(seeds.read_followed(source, seeds.MOST_BYTES))
        if problem is not None and (last is not None or files.exists(source)):
            found.append((item, source, problem, last is not None))
    return found


def put_back(app: App, profile: AgentProfile, *, dry_run: bool = False) -> list[Change]:
    """Put the last good copy where a file of the user's is bad; the bad one is kept beside it."""
    changes = []
    for item, source, problem, has_copy in unsound(app, profile):
        known = agent_dirs.seeds_of(app, profile, item, source)
        last = known.last_good()
        if last is None or not has_copy:
            changes.append(Change(clone=None, item=item.name, what="kept", message=f"{problem}; there is no good copy"))
            continue
        kept = None if dry_run else _kept_aside(source)
        if not dry_run:
            swap.update(source, _unless_good(known, last), locks=_locks(profile, item, source), most=seeds.MOST_BYTES)
        message = None if kept is None else f"the bad one is in {kept}"
        changes.append(Change(clone=None, item=item.name, what="restored", message=message))
    return changes


def _unless_good(known: seeds.Seeds, last: bytes) -> Callable[[bytes | None], bytes | None]:
    return lambda current: None if known.problem(current) is None else last


def _kept_aside(source: Path) -> Path | None:
    """A copy of a bad file beside it, `None` where there is nothing to keep."""
    real = Path(os.path.realpath(source))
    content = seeds.read_followed(real, seeds.MOST_BYTES)
    if not content:
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = real.with_name(f"{real.name}.{stamp}-{os.urandom(2).hex()}.bad")
    files.write_new(aside, content)
    return aside


def _locks(profile: AgentProfile, item: ConfigItem, place: Path) -> Sequence[Path]:
    """The lock that the program takes on this file, wherever it lies: beside it, called like it."""
    beside = f"/{item.name}.lock"
    return [place.with_name(f"{place.name}.lock")] if any(one.endswith(beside) for one in profile.locks) else []


def _as_bytes(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
