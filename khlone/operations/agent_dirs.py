"""How is the config dir of an agent in a clone filled from the user's own, and kept to it?

Item by item, as the profile says. What each was when it came is written down beside the
config dir, together with what the variables that move the user's config were: by this
`agents refresh` and `agents promote` tell who has changed what since, and a khlone that is
called inside the clone still knows the user's own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khlone import agent_items, config_dir, files
from khlone.agent_items import Entry
from khlone.app import App
from khlone.errors import StateUnsafe
from khlone.model import CloneRecord, Isolation
from khlone.operations import agents, isolation, journal
from khlone.profiles import AgentProfile, AgentVersions, ConfigItem, Login, Sharing
from khlone.seeds import Seed, Seeds


def fill(app: App, clone: CloneRecord, profile: AgentProfile, place: Path) -> None:
    """Fill the fresh config dir of a clone; raises Refusal or PluginFailed."""
    entries: dict[str, Entry] = {}
    for item in profile.items:
        entry = bring(app, clone, profile, item, place / item.name)
        if entry is not None:
            entries[item.name] = entry
    write_record(app, clone, profile, entries)
    app.plugins.populate_config_dir(journal.as_clone(clone), profile, place)


def bring(app: App, clone: CloneRecord, profile: AgentProfile, item: ConfigItem, place: Path) -> Entry | None:
    """Bring one item into a config dir; `None` when there is nothing to bring, which is told where it is odd."""
    source = profile.source_of(item)
    try:
        if item.sharing is Sharing.GENERATE:
            content = generated(app, clone, profile, item)
            return None if content is None else agent_items.write(item, content, place)
        if source is None or item.sharing is Sharing.NEVER:
            return None
        return (
            agent_items.link(source, place) if item.sharing is Sharing.LINK else agent_items.copy(item, source, place)
        )
    except StateUnsafe as error:
        app.told(f"warning: {item.name} of agent {profile.name} is left out: {error.message}")
        return None


def generated(app: App, clone: CloneRecord, profile: AgentProfile, item: ConfigItem) -> bytes | None:
    """What the plugin makes of the user's file, or of the last good copy of it, for a clone."""
    seed = seed_of(app, profile, item)
    if seed.problem is not None:
        instead = "the last good copy is used" if seed.is_copy else "clones start without it"
        app.told(f"warning: {profile.source_of(item)} {seed.problem}; {instead}; see git khlone doctor")
    return app.plugins.agent_item(journal.as_clone(clone), profile, item, seed.content, app.location)


def seed_of(app: App, profile: AgentProfile, item: ConfigItem) -> Seed:
    """What clones are seeded with now for an item that is generated."""
    source = profile.source_of(item)
    return Seed(content=None) if source is None else seeds_of(app, profile, item, source).take()


def seeds_of(app: App, profile: AgentProfile, item: ConfigItem, source: Path) -> Seeds:
    """The good copies of the user's file."""
    return Seeds(config_dir.state_root(app.environment), profile, item, source)


# -- what is written down ------------------------------------------------------------------


def write_record(app: App, clone: CloneRecord, profile: AgentProfile, entries: Mapping[str, Entry]) -> None:
    """Write down what a config dir was filled with, and under which variables of the user's."""
    user = agents.user_environment(app)
    names = [*profile.config_variables, *profile.credential_variables]
    names += isolation.MOVED if clone.isolation is not Isolation.CONFIG else ()
    record = {"environment": {name: user.get(name) for name in names}, "items": entries}
    path = app.config_dirs.base_path(clone.id, profile.name)
    files.make_private_dir(path.parent)
    files.write_atomic(path, json.dumps(record).encode() + b"\n", durable=app.settings.durable)


def read_record(app: App, clone: CloneRecord, profile: AgentProfile) -> dict[str, Entry]:
    """The entries that were written down; empty where nothing was, or nothing can be read."""
    path = app.config_dirs.base_path(clone.id, profile.name)
    found: Any = agent_items.parsed(files.read_regular(path, most=agents.MOST_RECORD_BYTES))
    entries = {} if found is None else found.get("items")
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)} if entries else {}


# -- credentials ---------------------------------------------------------------------------


def assert_credentials(app: App, clone: CloneRecord, profile: AgentProfile, held: AgentVersions) -> None:
    """Let credential files be links to the user's where that is how the version logs in, and else no such links.

    A file that has taken a link's place is kept beside it.
    """
    for item in profile.items:
        source = profile.source_of(item)
        if not item.is_credential or source is None or clone.config_dir is None:
            continue
        place, target = clone.config_dir / item.name, os.path.realpath(source)
        if not os.path.isdir(os.path.dirname(target)):
            continue  # The program could write nothing through such a link.
        is_ours = place.is_symlink() and os.readlink(place) == target
        if is_ours and held.login is not Login.LINK:
            place.unlink(missing_ok=True)
        elif held.login is Login.LINK and not is_ours:
            _link_again(app, clone, place, target)


def _link_again(app: App, clone: CloneRecord, place: Path, target: str) -> None:
    if place.is_symlink():
        place.unlink(missing_ok=True)
    elif files.exists(place):
        kept = place.with_name(f"{place.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}")
        files.rename_new(place, kept)
        app.told(f"warning: {clone.name} had credentials of its own, which are in {kept} now")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.symlink(target, place)
    except FileExistsError:
        if not place.is_symlink():
            raise
