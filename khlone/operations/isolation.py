"""How far is a clone kept apart, and how does a command start there?

Each level is one object in a module of its own, behind `Level`; `of` finds it. What a level
needs of the user's is taken from what was written down when the clone was made, never from
the environment of whoever calls: that may be another clone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from khlone.app import App
from khlone.errors import NotPermitted
from khlone.model import CloneRecord, Isolation, NewRequest
from khlone.profiles import AgentProfile
from khlone.values import dataclass

#: What leads programs to the user's own files; from level `home` on a clone has its own values.
MOVED = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "GIT_CONFIG_GLOBAL")
_ORDER = tuple(Isolation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A process that is about to start in a clone.

    `command` is what was asked for, `argv` what is run, its program looked up on the
    clone's PATH; `variables` is the whole environment.
    """

    clone: CloneRecord
    command: Sequence[str]
    argv: Sequence[str]
    variables: Mapping[str, str]
    session: str
    profile: AgentProfile
    #: Whether it has this terminal.
    is_foreground: bool


class Level(Protocol):
    """One level of isolation."""

    def require(self, app: App, *, is_new: bool = False) -> None:
        """Raise IsolationMissing, or what else keeps this level from working; looked at closely for a new clone."""

    def prepare(self, app: App, clone: CloneRecord) -> None:
        """Make what the level needs in the clone's private folder, as far as it is not there."""

    def variables(self, app: App, clone: CloneRecord) -> Mapping[str, str | None]:
        """Variables of the clone's own; `None` takes one away that is inherited."""

    def wrap(self, app: App, start: Start) -> Start:
        """The process to start instead, so that `start` runs at this level; raises when it cannot."""

    def ended(self, app: App, start: Start, status: int | None) -> None:
        """Clean up after a process that `wrap` gave; `status` is negative for a signal, `None` for an unknown end."""


class _Config:
    """The config dir alone: nothing else is changed."""

    def require(self, app: App, *, is_new: bool = False) -> None:
        del app, is_new

    def prepare(self, app: App, clone: CloneRecord) -> None:
        del app, clone

    def variables(self, app: App, clone: CloneRecord) -> Mapping[str, str | None]:
        del app, clone
        return {}

    def wrap(self, app: App, start: Start) -> Start:
        del app
        return start

    def ended(self, app: App, start: Start, status: int | None) -> None:
        del app, start, status


def of(isolation: Isolation) -> Level:
    """The level of that name."""
    if isolation is Isolation.CONFIG:
        return _Config()
    if isolation is Isolation.HOME:
        from khlone.operations import isolation_home

        return isolation_home.Home()
    if isolation is Isolation.SANDBOX:
        from khlone.operations import isolation_sandbox

        return isolation_sandbox.Sandbox()
    from khlone.operations import isolation_container

    return isolation_container.Container()


def choose(app: App, request: NewRequest) -> Isolation:
    """The level of a new clone: as asked, else as the settings say; in a clone at least that clone's.

    Raises InvalidSetting, or NotPermitted for a session that asks for less than it has itself.
    """
    wanted = request.isolation or app.settings.isolation
    least = _of_session(app)
    if _ORDER.index(wanted) >= _ORDER.index(least):
        return wanted
    if request.isolation is None:
        return least
    raise NotPermitted(
        f"a session at level {least.value} may not make a clone at level {wanted.value}",
        hint=f"leave out --isolate, or use --isolate {least.value}",
        inside="session",
    )


def _of_session(app: App) -> Isolation:
    """The level of the session that this is, the least where there is none."""
    known = {clone.id: clone.isolation for clone in app.registry.clones()} if app.has_registry else {}
    if all(level is Isolation.CONFIG for level in known.values()):
        return Isolation.CONFIG
    from khlone.operations import permission

    inside = permission.find(app)
    levels = [known[one] for one in inside.clones if one in known] if inside is not None else []
    return max(levels, key=_ORDER.index, default=Isolation.CONFIG)
