"""What does a coding agent do to the machine it runs on? A program with the habits of Claude Code, without a model.

It starts as `python -I -S agent.py WORDS`, on the standard library alone, and takes the
words `--version`, `-p PROMPT`, `mcp add NAME` and `auth status`. Like the real one it
changes its config by an unlocked read-modify-write, replaces its files by rename (links
too, from 2.1.118 on), refreshes a login with a refresh token that works once, under a
lock folder beside its store, and keeps a record of each session.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_LOCK_S = 30.0
_STALE_S = 60.0
_HTTP_S = 60.0
_REFRESH_EARLY_S = 300
_DEAD = "OAuth session expired and could not be refreshed"


class _Ended(Exception):
    """The run has failed, and says why."""


class _NoLogin(_Ended):
    """It has failed for its login, with a `status` where the service was asked."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


def main(words: list[str]) -> int:
    """Do what the words say; the exit code."""
    if "--version" in words:
        _say(f"{_setting('VERSION', '2.1.252')} (fake agent)")
        return 0
    try:
        if words[:2] == ["mcp", "add"]:
            return _add_server(words[2:])
        if words[:2] == ["auth", "status"]:
            return _status()
        return _run(words)
    except (_Ended, OSError, http.client.HTTPException) as error:
        _tell(words, error)
        return 1


# -- what it is asked for --------------------------------------------------------------------


def _add_server(words: list[str]) -> int:
    name = next(word for word in words if not word.startswith("-") and word not in ("local", "user", "project"))

    def change(state: dict[str, Any]) -> None:
        state.setdefault("mcpServers", {})[name] = {"type": "stdio", "command": "true", "args": [], "env": {}}

    _change(change)
    _say(f"Added stdio MCP server {name}")
    return 0


def _status() -> int:
    logged_in = bool(os.environ.get("ANTHROPIC_API_KEY") or _read(_store() / ".credentials.json").get("claudeAiOauth"))
    _say(json.dumps({"loggedIn": logged_in}))
    return 0 if logged_in else 1


def _run(words: list[str]) -> int:
    session = f"{os.getpid():08x}-{time.time_ns() & 0xFFFFFFFFFFFFFFFF:016x}"
    _boot(session)
    with _record(session):
        held = bytearray(int(_setting("MEMORY", "0")))
        held[::4096] = b"x" * len(held[::4096])
        said = _ask(_credential(), _prompt(words))
        _transcript(session, said)
        _answer(words, session, said)
        sys.stdout.write("x" * int(_setting("OUTPUT", "0")))
        sys.stdout.flush()
        if _setting("FORKS", ""):
            _leave_one_behind()
        end = time.monotonic() + float(_setting("BUSY", "0"))
        while time.monotonic() < end:
            pass
        time.sleep(float(_setting("LINGER", "0")))
    return 0


def _prompt(words: list[str]) -> str:
    plain = [word for word in words if not word.startswith("-") and word not in ("text", "json", "stream-json")]
    return plain[-1] if plain else sys.stdin.read()


def _answer(words: list[str], session: str, said: str) -> None:
    if "stream-json" not in words:
        _say(said)
        return
    _say(json.dumps({"type": "system", "subtype": "init", "session_id": session, "cwd": str(Path.cwd())}))
    _say(json.dumps(_result(session, said, failed=False)))


def _tell(words: list[str], error: Exception) -> None:
    why = str(error)
    if "stream-json" not in words:
        sys.stderr.write(f"{why}\n")
        return
    said = _result("", why, failed=True)
    if isinstance(error, _NoLogin):
        said["api_error_status"] = error.status
        _say(json.dumps({"type": "assistant", "error": "authentication_failed"}))
    _say(json.dumps(said))


def _result(session: str, text: str, *, failed: bool) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": len(text.split())}
    result = {"is_error": failed, "result": text, "session_id": session, "usage": usage, "total_cost_usd": 0}
    # The real one says success of a failure too.
    return {"type": "result", "subtype": "success", **result}


# -- its config ------------------------------------------------------------------------------


def _config_dir() -> Path:
    return Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")


def _state_path() -> Path:
    return _config_dir() / ".claude.json" if os.environ.get("CLAUDE_CONFIG_DIR") else Path.home() / ".claude.json"


def _boot(session: str) -> None:
    """Write the config, as often as the version does: each time all of it, as it was read a moment before."""
    place = str(Path.cwd())
    for number in range(int(_setting("BOOT_WRITES", "3"))):

        def change(state: dict[str, Any], number: int = number) -> None:
            state["numStartups"] = state.get("numStartups", 0) + (number == 0)
            entry = state.setdefault("projects", {}).setdefault(place, {"allowedTools": [], "history": []})
            entry["lastSessionId"] = session

        _change(change)


def _change(change: Callable[[dict[str, Any]], None]) -> None:
    path = _state_path()
    state = _read(path)
    time.sleep(float(_setting("BOOT_PAUSE", "0.05")))
    change(state)
    _replace(path, json.dumps(state, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise _Ended(f"Configuration error in {path}: fix the JSON") from error
    return found if isinstance(found, dict) else {}


def _replace(path: Path, text: str) -> None:
    """Write a file anew by rename; a link gives way to it, but to an old version's `.claude.json`."""
    target = path.resolve() if path.name == ".claude.json" or _is_old() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.tmp.{os.getpid()}.{time.monotonic_ns():x}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    beside.rename(target)


def _is_old() -> bool:
    return _version() < (2, 1, 118)


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in _setting("VERSION", "2.1.252").split(".") if part.isdecimal())


# -- its login -------------------------------------------------------------------------------


def _store() -> Path:
    named = os.environ.get("CLAUDE_SECURESTORAGE_CONFIG_DIR") if _version() >= (2, 1, 145) else None
    if named == "":
        return Path.home() / ".claude"
    return Path(named) if named else _config_dir()


def _credential() -> dict[str, str]:
    """The headers that say who asks; refreshes a login that has run out, or is about to."""
    key = os.environ.get("ANTHROPIC_API_KEY")
    if key:
        return {"x-api-key": key}
    token = os.environ.get("CLAUDE_CODE_OAUTH_TOKEN")
    if token:
        return {"authorization": f"Bearer {token}"}
    path = _store() / ".credentials.json"
    login = _login(path)
    if login["expiresAt"] / 1000 < time.time() + _REFRESH_EARLY_S:
        login = _refreshed(path)
    return {"authorization": f"Bearer {login['accessToken']}"}


def _login(path: Path) -> dict[str, Any]:
    login = _read(path).get("claudeAiOauth")
    if not isinstance(login, dict) or not login.get("refreshToken"):
        raise _NoLogin("Not logged in")
    return login


def _refreshed(path: Path) -> dict[str, Any]:
    """A fresh login, by whoever came first to the lock: the folder beside the real place of the store."""
    with _lock(Path(f"{path.parent.resolve()}.lock")):
        login = _login(path)
        if login["expiresAt"] / 1000 > time.time() + _REFRESH_EARLY_S:
            return login
        body = {"grant_type": "refresh_token", "refresh_token": login["refreshToken"], "client_id": "fake"}
        status, said = _post(os.environ["FAKE_AGENT_TOKEN_URL"], body, {})
        if status != 200:
            return _of_another(path, login)
        made = json.loads(said)
        end = int((time.time() + made["expires_in"]) * 1000)
        login = {**login, "accessToken": made["access_token"], "refreshToken": made["refresh_token"], "expiresAt": end}
        _replace(path, json.dumps({"claudeAiOauth": login}))
        return login


def _of_another(path: Path, spent: dict[str, Any]) -> dict[str, Any]:
    """The login that somebody else has refreshed meanwhile, where it can be seen; else the end of this one."""
    for _ in range(10):
        found = _login(path)
        if found["refreshToken"] != spent["refreshToken"]:
            return found
        time.sleep(0.2)
    _replace(path, json.dumps({"claudeAiOauth": {**spent, "accessToken": "", "refreshToken": "", "expiresAt": 0}}))
    raise _NoLogin(_DEAD)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    end = time.monotonic() + _LOCK_S
    while True:
        try:
            path.mkdir()
            break
        except FileExistsError:
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.rmdir()
        if time.monotonic() > end:
            raise _Ended("the lock of the login is held by another")
        time.sleep(0.1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()


# -- the service -----------------------------------------------------------------------------


def _ask(credential: dict[str, str], prompt: str) -> str:
    """What the model says; a stream is read to its end."""
    base = os.environ.get("ANTHROPIC_BASE_URL")
    if not base:
        raise _Ended("ANTHROPIC_BASE_URL is not set: this agent talks to loopback alone")
    body = {"model": "fake", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    status, said = _post(f"{base}/v1/messages", body, credential)
    if status != 200:
        why = f"API Error: {status} {said[:200].decode(errors='replace')}"
        raise _NoLogin(why, status) if status in (401, 403) else _Ended(why)
    events = [json.loads(line[6:]) for line in said.decode().splitlines() if line.startswith("data: ")]
    return "".join(one["delta"].get("text", "") for one in events if one["type"] == "content_block_delta")


def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, bytes]:
    place = urlsplit(url)
    if place.hostname != "127.0.0.1":
        raise _Ended(f"{place.hostname} is not loopback")
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=_HTTP_S)
    try:
        connection.request("POST", place.path, json.dumps(body), {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# -- what it leaves --------------------------------------------------------------------------


@contextlib.contextmanager
def _record(session: str) -> Iterator[None]:
    path = _config_dir() / "sessions" / f"{os.getpid()}.json"
    _replace(path, json.dumps({"pid": os.getpid(), "sessionId": session, "cwd": str(Path.cwd()), "status": "busy"}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _transcript(session: str, said: str) -> None:
    folder = _config_dir() / "projects" / str(Path.cwd()).replace("/", "-")
    _replace(folder / f"{session}.jsonl", json.dumps({"type": "assistant", "message": said}) + "\n")


def _leave_one_behind() -> None:
    """Fork twice: the process that stays belongs to no session, no group and no parent of this one."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    empty = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(empty, descriptor)
    note = _config_dir() / "forked.pid"
    _replace(note, str(os.getpid()))
    end = time.monotonic() + float(_setting("LINGER", "0"))
    while time.monotonic() < end and note.exists():
        time.sleep(0.1)
    os._exit(0)


def _setting(name: str, usual: str) -> str:
    return os.environ.get(f"FAKE_AGENT_{name}") or usual


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
