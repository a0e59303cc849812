"""How do an agent's own worktrees become clones, on request, and how is that taken away again byte for byte?

Claude Code asks hooks in the user's settings where a worktree of its own is to lie, and
when one may go: those that are put there call khlone, which makes a clone, and removes it
only where nothing would be lost. What the settings were before is written down, so that
taking the hooks away restores them to the byte where nobody has changed them since.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from khlone import config_dir, files, json_text, process, swap
from khlone.app import App
from khlone.errors import AgentConfigUnsound, IllegalName, KhloneError, NoSuchClone, UsageError
from khlone.locks import Locks
from khlone.model import Clone, NewRequest
from khlone.operations import create, inspect, permission, recovery, remove
from khlone.profiles import AgentProfile, Change

#: The events of an agent that khlone answers.
EVENTS = ("WorktreeCreate", "WorktreeRemove")

_SETTINGS = "settings.json"
_MOST_BYTES = 4 << 20
_EMPTY = b"{}\n"
#: How long the program waits for a clone, in seconds: a checkout of a large repository takes its time.
_PATIENCE_S = 600
_ILLEGAL = re.compile(r"[^A-Za-z0-9._/-]+")


def install(app: App, profile: AgentProfile) -> list[Change]:
    """Put the hooks into the user's settings; raises UsageError, NotPermitted or AgentConfigUnsound."""
    place = _place(app, profile)
    command = _command(profile)
    record = _record(app, profile)

    def change(content: bytes | None) -> bytes | None:
        text = _text(place, profile, content)
        if _installed(text, profile) == {event: [command] for event in EVENTS}:
            return None
        bare = _without(place, text, profile)
        # An older call of ours is nothing to come back to.
        before = bare.encode() if any(_installed(text, profile).values()) else content
        hook = {"type": "command", "command": command, "timeout": _PATIENCE_S}
        with _explained(place, profile):
            for event in EVENTS:
                bare = json_text.appended(bare, ("hooks", event), {"hooks": [hook]})
        _note(record, before, bare.encode())
        return bare.encode()

    if not _update(app, place, change):
        return []
    return [Change(clone=None, item=str(place), what="installed", key=f"hooks.{event}") for event in EVENTS]


def uninstall(app: App, profile: AgentProfile) -> list[Change]:
    """Take the hooks out of the user's settings; raises as `install` does."""
    place = _place(app, profile)
    record = _record(app, profile)
    noted = _noted(record)
    gone = False

    def change(content: bytes | None) -> bytes | None:
        nonlocal gone
        gone = False
        text = _text(place, profile, content)
        with _explained(place, profile):
            json.loads(text or "{}")
        if content is None or not any(_installed(text, profile).values()):
            return None
        if noted is not None and noted.get("after") == content:
            before = noted["before"]
            gone = before is None
            return _EMPTY if before is None else before
        return _without(place, text, profile).encode()

    changed = _update(app, place, change)
    record.unlink(missing_ok=True)
    if not changed:
        return []
    if gone:
        _unlink_empty(place)
    return [Change(clone=None, item=str(place), what="removed", key=f"hooks.{event}") for event in EVENTS]


def answer(app: App, profile: AgentProfile, event: Mapping[str, Any]) -> Clone | None:
    """Do what an event asks for: the clone that was made, or was there; `None` for one that was removed.

    Raises UsageError for an event that is none of these, NoSuchClone for a worktree that is
    no clone, and what `create` raises, or why a clone stays.
    """
    kind = event.get("hook_event_name")
    if kind == "WorktreeCreate" and isinstance(event.get("name"), str):
        return _made(app, profile, event["name"])
    if kind == "WorktreeRemove" and isinstance(event.get("worktree_path"), str):
        _remove(app, event["worktree_path"])
        return None
    what = f"{kind!r} is no event" if isinstance(kind, str) else "what is on stdin names no event"
    raise UsageError(f"{what} that khlone answers", hint=f"one of {', '.join(EVENTS)}, as JSON on stdin")


def _made(app: App, profile: AgentProfile, wanted: str) -> Clone:
    name = _ILLEGAL.sub("-", wanted).strip("-./")
    if not name:
        raise IllegalName(wanted, "nothing of it is left")
    with contextlib.suppress(NoSuchClone):
        if app.require_clone(name).path.is_dir():
            return inspect.show_clone(app, name)
    return create.create(app, NewRequest(name=name, agent=profile.name))


def _remove(app: App, path: str) -> None:
    wanted = os.path.realpath(path)
    clones = app.registry.clones() if app.has_registry else []
    clone = next((one for one in clones if os.path.realpath(one.path) == wanted), None)
    if clone is None:
        raise NoSuchClone(path, [])
    app.prepare_state()
    recovery.recover(app)
    permission.require_own(permission.find(app), clone)
    remove.remove_one(app, clone, force=False, dry_run=False)


# -- the user's settings -------------------------------------------------------------------


def _place(app: App, profile: AgentProfile) -> Path:
    permission.require(app, "hooks")
    if profile.home is None or not set(EVENTS) <= set(profile.own_hooks):
        raise UsageError(f"agent {profile.name} has no hooks for worktrees", hint="git khlone agents install claude")
    if not profile.home.is_dir():
        raise UsageError(f"there is no {profile.home}", hint=f"start {profile.executable} once")
    return profile.home / _SETTINGS


def _command(profile: AgentProfile) -> str:
    """What a shell of the agent's runs: `git khlone` where that is found, else this very program."""
    found = process.find_program("git-khlone", os.environ)
    call = "git khlone" if found is not None else f"{shlex.quote(sys.executable)} -P -m khlone"
    return f"{call} {_mark(profile)}"


def _mark(profile: AgentProfile) -> str:
    return f"agents hook {profile.name}"


def _text(place: Path, profile: AgentProfile, content: bytes | None) -> str:
    try:
        return "" if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise _unsound(place, profile, "it is no text") from error


def _unsound(place: Path, profile: AgentProfile, why: str) -> AgentConfigUnsound:
    error = AgentConfigUnsound(place, f"is left as it is: {why.lower()}", profile.name)
    error.hint = "mend it, or put the hooks in by hand"
    return error


@contextlib.contextmanager
def _explained(place: Path, profile: AgentProfile) -> Iterator[None]:
    """Say of a file that is no JSON, or has something else where hooks stand, that it stays as it is."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise _unsound(place, profile, str(error)) from error


def _is_ours(profile: AgentProfile, element: object) -> bool:
    hooks = element.get("hooks") if isinstance(element, dict) else None
    return isinstance(hooks, list) and bool(hooks) and all(_calls_us(profile, one) for one in hooks)


def _calls_us(profile: AgentProfile, hook: object) -> bool:
    command = hook.get("command") if isinstance(hook, dict) else None
    return isinstance(command, str) and "khlone" in command and command.endswith(f" {_mark(profile)}")


def _installed(text: str, profile: AgentProfile) -> dict[str, list[str]]:
    """The commands of ours in a text, by event; empty for a text that is none of JSON."""
    try:
        hooks = json.loads(text)["hooks"]
        lists = {event: hooks.get(event) or [] for event in EVENTS}
        return {
            event: [
                hook["command"] for element in lists[event] if _is_ours(profile, element) for hook in element["hooks"]
            ]
            for event in EVENTS
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _without(place: Path, text: str, profile: AgentProfile) -> str:
    with _explained(place, profile):
        for event in EVENTS if text.strip() else ():
            text = json_text.without(text, ("hooks", event), lambda element: _is_ours(profile, element))
    return text


def _unlink_empty(place: Path) -> None:
    """Take away a file that khlone made, unless somebody has written to it meanwhile."""
    aside = place.with_name(f".{place.name}.{os.getpid()}.{os.urandom(4).hex()}.khlone")
    place.rename(aside)
    if files.read_regular(aside, most=_MOST_BYTES) != _EMPTY:
        with contextlib.suppress(FileExistsError):
            os.link(aside, place)
    aside.unlink()


def _update(app: App, place: Path, change: Callable[[bytes | None], bytes | None]) -> bool:
    with Locks(config_dir.state_root(app.environment) / "locks").users_file(place):
        return swap.update(place, change, most=_MOST_BYTES)


def _record(app: App, profile: AgentProfile) -> Path:
    return config_dir.state_root(app.environment) / "agents" / profile.name / "hooks.json"


def _note(record: Path, before: bytes | None, after: bytes) -> None:
    """Write down what is about to be put in, so that whoever is killed in between leaves nothing unknown."""
    files.make_private_dir(record.parent)
    noted = {"before": None if before is None else before.decode("latin-1"), "after": after.decode("latin-1")}
    files.write_atomic(record, json.dumps(noted).encode() + b"\n")


def _noted(record: Path) -> dict[str, bytes | None] | None:
    try:
        found = json.loads(files.read_regular(record, most=3 * _MOST_BYTES) or b"")
        return {name: None if found[name] is None else found[name].encode("latin-1") for name in ("before", "after")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, KhloneError):
        return None
