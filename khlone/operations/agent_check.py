"""Does each installed agent start in a clone on this machine, and is it logged in there?

In a throw-away clone, filled from the user's own config as any other, whose environment
leads every connection to a port where nobody listens: nothing is asked of a service, so a
login that was revoked there is still one here, unless a session was refused with it.
Nothing of the user's is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from khlone import process, values
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import KhloneError
from khlone.login_rows import RefusedLogin
from khlone.operations import agents, logins
from khlone.operations.throw_away import ThrowAway
from khlone.profiles import FoundAgent, Login
from khlone.values import dataclass

_START_S = 60.0
_CLONE = "check"
#: The port of `discard`: a program that insists on a network is told so at once.
_NOWHERE = "http://127.0.0.1:9"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_DIRECT = "NO_PROXY"
_SHOWN_LETTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCheck:
    """What became of one agent.

    `started` is `None` where nothing says how to start it for a moment, `logged_in` where its
    version cannot say it without a network; `refused` where an API did not take a login of it
    when a session last asked, and nothing has changed since. `login` is how clones log in with that version,
    `why` the reason; `message` what went wrong.
    """

    name: str
    path: Path | None
    version: str | None
    started: bool | None
    logged_in: bool | None
    login: Login
    why: str
    message: str | None
    refused: bool = False


def check(app: App, names: Sequence[str] = ()) -> list[AgentCheck]:
    """Try the named agents, or every one that is installed; raises UnknownAgent."""
    refused = logins.refused(app.environment)
    if names:
        found = [one for name in dict.fromkeys(names) for one in agents.find_agents(app, name)]
    else:
        found = [one for one in agents.find_agents(app) if one.path is not None]
    return [_with_refusals(_checked(app, one), refused) for one in found]


def _with_refusals(found: AgentCheck, refused: Sequence[RefusedLogin]) -> AgentCheck:
    """What its API said of a login when it was last asked: here it is not."""
    said = [f"{logins.said_of(one)}; {logins.remedy_of(one)}" for one in refused if one.agent == found.name]
    own = [] if found.message is None else [found.message]
    return values.replace(found, message="; ".join((*own, *said)) or None, refused=bool(said))


def _checked(app: App, found: FoundAgent) -> AgentCheck:
    if found.path is None:
        what = found.profile.executable
        return _result(found, message=f"{what} is not found on PATH" if what else "it names no program")
    place = Path(tempfile.mkdtemp(prefix="khlone-a-")).resolve()
    away = ThrowAway(place, _environment(app, found, place), found.profile.name)
    made: list[str] = []
    try:
        away.make()
        made.append(_CLONE)
        away.require(away.khlone("new", _CLONE, "--agent", found.profile.name, "--quiet"))
        return _tried(away, found, found.path)
    except KhloneError as error:
        return _result(found, message=error.message)
    finally:
        away.clear(made)
        shutil.rmtree(place, ignore_errors=True)


def _environment(app: App, found: FoundAgent, place: Path) -> Mapping[str, str]:
    """The user's, without a session's and without a way out; khlone keeps what it notes to the folder."""
    kept = process.scrubbed(agents.user_environment(app))
    for name in (*SESSION_VARIABLES, "KHLONE_ISOLATION", "KHLONE_SLOTS"):
        kept.pop(name, None)
    for name in _PROXIES:
        kept[name] = kept[name.lower()] = _NOWHERE
    kept[_DIRECT] = kept[_DIRECT.lower()] = ""
    # Hooks and what else plugins do at a new clone are not what is tried.
    return {**kept, "XDG_STATE_HOME": os.fspath(place / "state"), "KHLONE_PLUGINS": found.plugin}


def _tried(away: ThrowAway, found: FoundAgent, path: Path) -> AgentCheck:
    if not found.profile.version_words:
        return _result(found, started=None, message="no words make it print its version, so it was not started")
    status, said = _exec(away, path, found.profile.version_words)
    if status != 0:
        return _result(found, message=said)
    if not found.held.status:
        return _result(found, started=True)
    status, said = _exec(away, path, found.held.status)
    is_clear = status in (0, 1)
    return _result(found, started=True, logged_in=status == 0 if is_clear else None, message=None if is_clear else said)


def _exec(away: ThrowAway, path: Path, words: Sequence[str]) -> tuple[int | None, str]:
    """How the program ended in the clone, `None` where it did not come to that, and what it or khlone said."""
    done = away.run(away.khlone("exec", _CLONE, "--json", "--no-wait", "--", str(path), *words), timeout_s=_START_S)
    if done.timed_out:
        return None, f"it took longer than {_START_S:.0f} s"
    document: dict[str, Any] = {}
    try:
        document = json.loads(done.stdout)
        if document["schema"] == "khlone.error/1":
            return None, str(document["message"])
        result = document["results"][0]
        said = f"{result['stderr']}\n{result['stdout']}"
        code = result["exit"] if result["signal"] is None else -int(result["signal"])
    except (ValueError, LookupError, TypeError):
        return None, done.error_text.strip()[-_SHOWN_LETTERS:] or f"exit {done.status}"
    return code, " ".join(said.split())[:_SHOWN_LETTERS] or f"it ended with {code}"


def _result(
    found: FoundAgent, *, started: bool | None = False, logged_in: bool | None = None, message: str | None = None
) -> AgentCheck:
    return AgentCheck(
        name=found.profile.name,
        path=found.path,
        version=found.version,
        started=started,
        logged_in=logged_in,
        login=found.held.login,
        why=found.held.why,
        message=message,
    )
