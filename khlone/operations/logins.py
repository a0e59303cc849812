"""Which logins has an API refused, and who is told of it?

A session of an agent that is refused for good writes that down for its credential, for all
repositories of the user, and who is first says so, once. It is forgotten when the
credential works again, or when there is another login in its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from khlone import agent_events, files, login_rows
from khlone.app import App
from khlone.errors import KhloneError
from khlone.login_rows import RefusedLogin
from khlone.model import CloneRecord
from khlone.operations import turns
from khlone.profiles import AgentProfile
from khlone.values import dataclass

#: Seconds between two looks whether an answer ends a refusal.
_LOOK_S = 10.0
_MOST_BYTES = 1 << 20
_MOST_FILES = 200
#: So many seconds before its end Claude Code renews an access token.
_EARLY_S = 300.0
_SECRET = re.compile(r"token|key|secret|access|refresh", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a session logs in with, as a hash: what is in a `variable`, or is kept in the file `place`."""

    credential: str
    variable: str | None = None
    place: Path | None = None


def login_of(profile: AgentProfile, variables: Mapping[str, str]) -> Login | None:
    """What a session with these variables logs in with; `None` for an agent that has no login.

    A key or a token by itself, else the user's one login by the place where it is kept.
    """
    for name in (*profile.token_variables, *profile.key_variables):
        if variables.get(name):
            return Login(credential=_hashed("secret", variables[name]), variable=name)
    item = next((one for one in profile.items if one.is_credential), None)
    for name in profile.credential_variables:
        if variables.get(name):
            folder = variables[name]
            place = None if item is None else Path(folder, item.name)
            return Login(credential=_hashed("store", folder), place=place)
    if not (profile.key_variables or profile.token_variables or profile.credential_variables) or profile.home is None:
        return None
    place = None if item is None else profile.source_of(item)
    return Login(credential=_hashed("home", os.fspath(profile.home)), place=place)


def shared_file(clone: CloneRecord, profile: AgentProfile, variables: Mapping[str, str]) -> SharedFile | None:
    """The file of a login that can run out and that the clone shares with others by a link; `None` without one."""
    login = login_of(profile, variables)
    item = next((one for one in profile.items if one.is_credential and one.expiry), None)
    if login is None or login.place is None or item is None or clone.config_dir is None:
        return None
    is_linked = (clone.config_dir / item.name).is_symlink() and profile.source_of(item) == login.place
    return SharedFile(path=Path(os.path.realpath(login.place)), expiry=item.expiry) if is_linked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """A file of credentials, by its real `path`; `expiry` is the key of its end."""

    path: Path
    expiry: str

    @property
    def is_spent(self) -> bool:
        """Whether its access token has run out, or does so soon; so it is held while the file is being written."""
        try:
            content = files.read_regular(self.path, most=_MOST_BYTES)
            found = None if content is None else json.loads(content)
        except (OSError, KhloneError, ValueError, RecursionError):
            return True
        for key in self.expiry.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return isinstance(found, int | float) and found / 1000 < time.time() + _EARLY_S


def _hashed(kind: str, text: str) -> str:
    return hashlib.sha256(f"khlone {kind}\0{text}".encode(errors="surrogateescape")).hexdigest()[:16]


def _content(place: Path | None) -> str:
    """A hash of the tokens in a file of credentials; empty where it holds none."""
    if place is None:
        return ""
    with contextlib.suppress(OSError, KhloneError, ValueError, RecursionError):
        content = files.read_regular(Path(os.path.realpath(place)), most=_MOST_BYTES)
        secrets = sorted(_secrets(json.loads(content or b"{}")))
        return _hashed("content", "\0".join(secrets)) if secrets else ""
    return ""


def _secrets(found: object) -> Sequence[str]:
    if isinstance(found, list):
        return [one for inner in found for one in _secrets(inner)]
    if not isinstance(found, dict):
        return []
    own = [value for key, value in found.items() if isinstance(value, str) and value and _SECRET.search(key)]
    return [*own, *(one for inner in found.values() for one in _secrets(inner))]


class Ear:
    """Hears what the events of one session say of its login; made before it starts, and `ended` after it.

    Nothing that goes wrong here reaches the session.
    """

    def __init__(
        self, app: App, clone: CloneRecord, agent: AgentProfile, *, session: str, variables: Mapping[str, str]
    ) -> None:
        self._app, self._clone, self._agent, self._session = app, clone, agent, session
        self._login = login_of(agent, variables)
        is_kept = self._login is not None and self._login.place is not None
        #: Without a login it is not refused, it has none.
        self._has_login = not is_kept or bool(self._login and _content(self._login.place))
        self._sizes = {path: _size(path) for path in self._transcripts()}
        self._heard_s, self._answered_s, self._looked_s = 0.0, 0.0, 0.0
        self._knows_output = False
        #: What is to be told when the session has ended: this one was first.
        self._told: RefusedLogin | None = None

    def take(self, event: Mapping[str, object], *, is_output: bool = False) -> None:
        """One event of its output, or of its session files."""
        if self._login is None:
            return
        status = agent_events.refusal_of(event)
        answered = status is None and agent_events.has_answered(event, self._agent.reading)
        if status is None and not answered:
            return
        at_s = agent_events.moment_of(event) or time.time()
        if not is_output and at_s <= self._heard_s:
            return
        self._knows_output = self._knows_output or is_output
        self._heard_s = max(self._heard_s, at_s)
        with contextlib.suppress(KhloneError):
            if answered:
                self._answered_s = at_s
                if time.monotonic() - self._looked_s >= _LOOK_S:
                    self._forget()
            elif status or self._has_login:
                self._note(self._login, status or 401)

    def ended(self) -> str | None:
        """The session has ended; what there is to tell of its login, where it is for this session to tell."""
        if self._login is None:
            return None
        with contextlib.suppress(KhloneError, OSError):
            if not self._knows_output:
                self._read_files()
            if self._answered_s:
                self._forget()
        found, self._told = self._told, None
        return None if found is None else f"{said_of(found)}; {remedy_of(found)}"

    def _note(self, login: Login, status: int) -> None:
        found = RefusedLogin(
            credential=login.credential,
            status=status,
            agent=self._agent.name,
            repository=self._app.repository_id,
            clone=self._clone.id,
            name=self._clone.name,
            session=self._session,
            variable=login.variable,
            place=None if login.place is None else os.fspath(login.place),
            content=_content(login.place),
            noted_s=time.time(),
        )
        self._answered_s, self._looked_s = 0.0, 0.0
        machine = turns.open_machine(self._app.environment, self._app.told)
        try:
            with machine.transaction() as change:
                known = login_rows.find(change.connection, login.credential)
                if known is None or not _holds(known):
                    login_rows.note(change.connection, found)
                    self._told = found
        finally:
            machine.close()

    def _forget(self) -> None:
        """An answer ends what is known of this credential, and of another key that the clone had before."""
        assert self._login is not None
        self._looked_s = time.monotonic()
        login, worked_s, self._answered_s = self._login, self._answered_s, 0.0
        machine = turns.open_machine(self._app.environment, self._app.told, make=False)
        if not machine.exists:
            return
        try:
            with machine.reading() as connection:
                known = login_rows.all_of(connection)
            if any(login.credential == one.credential or one.clone == self._clone.id for one in known):
                with machine.transaction() as change:
                    login_rows.forget(change.connection, login.credential, worked_s)
                    login_rows.forget_key(
                        change.connection, self._app.repository_id, self._clone.id, but=login.credential
                    )
        finally:
            machine.close()

    def _read_files(self) -> None:
        """Of a session whose output was not read, or said nothing, what is new in its files."""
        for path in self._transcripts():
            known = self._sizes.get(path, 0)
            if _size(path) <= known:
                continue
            reader = agent_events.Reader()
            with open(path, "rb") as stream:
                stream.seek(max(known, _size(path) - _MOST_BYTES))
                for event in (*reader.feed(stream.read(_MOST_BYTES)), *reader.end()):
                    self.take(event)

    def _transcripts(self) -> list[Path]:
        from khlone.operations import transcripts

        pattern = self._agent.reading.transcripts
        if not pattern or self._login is None:
            return []
        folder = self._app.config_dirs.clone_path(self._clone.id) / "config" / self._agent.name
        found = transcripts.matching(folder, pattern)
        return sorted(found, key=lambda path: -_changed(path))[:_MOST_FILES]


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_size
    return 0


def _changed(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    return 0


# -- what is known ---------------------------------------------------------------------------


def _holds(found: RefusedLogin) -> bool:
    """Whether it is about the login that is there now: another one has been refused by nobody."""
    return found.variable is not None or _content(Path(found.place) if found.place else None) in ("", found.content)


def refused(environment: Mapping[str, str]) -> list[RefusedLogin]:
    """Every login of the user that an API has refused, and that has neither worked nor changed since."""
    machine = turns.machine_of(environment)
    if not machine.is_current:
        return []
    try:
        with machine.reading() as connection:
            return [one for one in login_rows.all_of(connection) if _holds(one)]
    finally:
        machine.close()


def given_another(app: App, clone: CloneRecord) -> None:
    """A clone was given another key: what was refused of the one before is over."""
    machine = turns.open_machine(app.environment, app.told, make=False)
    if machine.exists:
        with machine.transaction() as change:
            login_rows.forget_key(change.connection, app.repository_id, clone.id)
    machine.close()


def said_of(found: RefusedLogin) -> str:
    """One line for people."""
    where = f" ({found.variable} of {found.name})" if found.variable else ""
    return (
        f"the login of {found.agent}{where} was refused by its API ({found.status}) at {since(found)}: "
        "it is revoked or has run out"
    )


def remedy_of(found: RefusedLogin) -> str:
    """What mends it."""
    if found.variable:
        return f"give {found.name} another: git khlone agents key {found.name} --file FILE"
    return f"log in again with {found.agent}, outside of clones"


def since(found: RefusedLogin) -> str:
    """When it was noted."""
    return datetime.fromtimestamp(found.noted_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
