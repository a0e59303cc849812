"""What do the events that an agent writes say of limits of its API, and of what it has used?

Pure functions of one JSON object, as it stands on a line of the client's output or of its
session file. Nothing that the client says in words is kept: only numbers, times and the
few words that are known here.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from khlone.profiles import AgentReading
from khlone.values import dataclass

#: Answers of an API that say that it was too much: for this credential, or for the server.
TOO_MANY, OVERLOADED = 429, 529
#: Answers of an API that say that it does not take the login.
_REFUSED = (401, 403)
_REFUSED_WORDS = ("authentication_failed", "authentication_error")
#: Where the status of what the client has given up on stands, not that of one try.
_FINAL_KEYS = ("api_error_status", "apiErrorStatus", "status_code", "statusCode", "http_status")
#: What is taken to be meant by a limit without a time, in seconds.
_PAUSE_S = {TOO_MANY: 60.0, OVERLOADED: 30.0}
#: No limit is believed to last longer.
_LONGEST_S = 8 * 86400.0
#: Seconds since 1970 are less than this for the next thousand years; more are milliseconds.
_MILLISECONDS = 1e11
_STATUS_KEYS = ("error_status", "api_error_status", "status_code", "statusCode", "http_status", "status")
_RESET_KEYS = ("resetsAt", "resets_at", "reset_at", "reset", "anthropic-ratelimit-unified-reset")
_RETRY_KEYS = ("retry-after", "retry_after", "retryAfter", "retry_after_s")
_HEADERS = "anthropic-ratelimit-"
#: Objects inside an event that are looked into: no deeper, and no longer lists.
_INSIDE = ("error", "api_error", "rate_limit_info", "rateLimitInfo", "info", "headers", "response", "message")
#: As Codex says it (0.171.0).
_WORDS = re.compile(r"(?:unexpected status|exceeded retry limit, last status:) (?P<status>\d{3})\b")
_MOST_LINE = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The API has said that it was too much: until when (seconds since 1970; guessed unless `is_told`), and why."""

    status: int
    until_s: float
    reason: str
    is_told: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one answer has used. `key` is the answer's own name, the same wherever it is told again."""

    key: str
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_creation: int = 0


class Reader:
    """Reads the lines of one stream, however it is cut into pieces; `whole` is one object over many lines."""

    def __init__(self, *, whole: bool = False) -> None:
        self._rest = b""
        self._whole = whole

    def feed(self, piece: bytes) -> Iterator[Mapping[str, object]]:
        """The JSON objects of the lines that are complete by now; other lines are passed over."""
        lines: list[bytes] = []
        if self._whole:
            self._rest += piece
        else:
            *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MOST_LINE:
            self._rest = b""
        yield from _objects(lines)

    def end(self) -> Iterator[Mapping[str, object]]:
        """What was not complete until the end."""
        rest, self._rest = self._rest, b""
        yield from _objects([rest])


def _objects(texts: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    for text in texts:
        if text.lstrip()[:1] == b"{":
            try:
                yield json.loads(text)
            except (ValueError, RecursionError):
                continue


def evidence_of(event: Mapping[str, object], reading: AgentReading, now_s: float | None = None) -> Evidence | None:
    """What an event says of a limit that is in force, `None` for nothing."""
    now = time.time() if now_s is None else now_s
    parts = [event, *_inside(event), *_in_words(event)]
    status = next((code for part in parts if (code := _status(part)) is not None), None)
    rejected = _is_rejected(event, parts, reading)
    if status is None and not rejected:
        return None
    status = status or TOO_MANY
    untils = [until for part in parts if (until := _until(part, now)) is not None]
    until = max(untils, default=now + _PAUSE_S[status])
    why = (
        "its usage limit is reached" if rejected else {TOO_MANY: "too many requests", OVERLOADED: "overloaded"}[status]
    )
    return Evidence(
        status=status, until_s=min(until, now + _LONGEST_S), reason=f"{why} ({status})", is_told=bool(untils)
    )


def refusal_of(event: Mapping[str, object]) -> int | None:
    """The status with which an API has refused the login, once the client has given up; 0 where it says no number.

    A retry is none: by then the client may have found that another one has renewed the login.
    """
    if event.get("type") in ("system", "user"):
        return None
    parts = [event, *_inside(event), *_in_words(event)]
    codes = (part.get(key) for part in parts for key in _FINAL_KEYS)
    status = next((code for code in codes if code in _REFUSED and isinstance(code, int)), None)
    if status is not None:
        return status
    is_named = any(part.get(key) in _REFUSED_WORDS for part in parts for key in ("error", "type"))
    return 0 if is_named else None


def has_answered(event: Mapping[str, object], reading: AgentReading) -> bool:
    """Whether an event is an answer of the API's model, so that the login was good."""
    if event.get("isApiErrorMessage") is True or (reading.failed and at(event, reading.failed)):
        return False
    tokens = tokens_of(event)
    usage = at(event, reading.usage) if reading.usage else None
    if tokens is None and isinstance(usage, Mapping):
        tokens = counted("", usage)
    return tokens is not None and tokens.output > 0


def moment_of(event: Mapping[str, object]) -> float | None:
    """When an event says that it was, in seconds since 1970."""
    return _moment(event.get("timestamp"))


def tokens_of(event: Mapping[str, object]) -> Tokens | None:
    """What one answer in a session file has used, `None` for any other event."""
    # As Claude Code has it, and as Codex has.
    place, key = ("payload", "response_id") if event.get("type") == "token_usage_record" else ("message", "id")
    found = event.get(place)
    if not isinstance(found, Mapping) or not isinstance(found.get("usage"), Mapping):
        return None
    usage, name = found["usage"], found.get(key)
    if not isinstance(name, str) or event.get("isApiErrorMessage") is True:
        return None
    return counted(name, usage)


def counted(key: str, usage: Mapping[str, object]) -> Tokens:
    """The numbers of a `usage` object, by the names that the APIs give them."""
    # What OpenAI calls cached is a part of the input, with Anthropic it comes on top.
    cached, inner = _count(usage, "cached_input_tokens"), usage.get("cache")
    cache = inner if isinstance(inner, Mapping) else {}
    return Tokens(
        key=key,
        input=max(0, _count(usage, "input_tokens", "prompt_tokens", "input") - cached),
        output=_count(usage, "output_tokens", "completion_tokens", "output"),
        cache_read=_count(usage, "cache_read_input_tokens") or cached or _count(cache, "read"),
        cache_creation=_count(usage, "cache_creation_input_tokens") or _count(cache, "write"),
    )


def added(tokens: Tokens, more: Tokens, times: int = 1) -> Tokens:
    """The sum of two, or with `times` of -1 what the first has more; never less than nothing."""
    return Tokens(
        key=tokens.key,
        input=max(0, tokens.input + times * more.input),
        output=max(0, tokens.output + times * more.output),
        cache_read=max(0, tokens.cache_read + times * more.cache_read),
        cache_creation=max(0, tokens.cache_creation + times * more.cache_creation),
    )


def cost_of(event: Mapping[str, object], reading: AgentReading) -> float | None:
    """The dollars that an event says it all has cost so far, `None` where it says nothing that can be meant."""
    cost = at(event, reading.cost_usd) if reading.cost_usd else None
    if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not math.isfinite(cost) or cost < 0:
        return None
    return float(cost)


def at(event: Mapping[str, object], path: str) -> object:
    """What stands at a path of keys with dots between, `True` for `PATH=VALUE` where that does; else `None`."""
    path, is_asked, wanted = path.partition("=")
    if is_asked:
        return at(event, path) == wanted or None
    found: object = event
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _inside(event: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for name in _INSIDE:
        found = event.get(name)
        if isinstance(found, Mapping):
            yield found
            for inner in ("headers", "error", "data"):
                deeper = found.get(inner)
                if isinstance(deeper, Mapping):
                    yield deeper
                    if isinstance(deeper.get("responseHeaders"), Mapping):
                        yield deeper["responseHeaders"]


def _in_words(event: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The status that Codex has given up on, which it tells in words alone."""
    error = event.get("error")
    if event.get("type") == "turn.failed" and isinstance(error, Mapping):
        found = _WORDS.match(str(error.get("message")))
        if found is not None:
            yield {"status_code": int(found["status"])}


def _status(part: Mapping[str, object]) -> int | None:
    for key in _STATUS_KEYS:
        code = part.get(key)
        if code in (TOO_MANY, OVERLOADED) and not isinstance(code, bool):
            assert isinstance(code, int)
            return code
    kind = part.get("type")
    return {"rate_limit_error": TOO_MANY, "overloaded_error": OVERLOADED}.get(kind) if isinstance(kind, str) else None


def _is_rejected(event: Mapping[str, object], parts: list[Mapping[str, object]], reading: AgentReading) -> bool:
    if event.get("api_error") == "usage_limit_reached" or event.get("error") == "usage_limit_reached":
        return True
    if any(str(part.get(f"{_HEADERS}unified-status", "")) == "rejected" for part in parts):
        return True
    is_event = "=" in reading.rate_limit and bool(at(event, reading.rate_limit))
    return is_event and any(part.get("status") == "rejected" for part in parts)


def _until(part: Mapping[str, object], now: float) -> float | None:
    """When it lifts: the latest time that is told, of those that are about something that is used up."""
    found = [when for key in _RESET_KEYS if (when := _moment(part.get(key))) is not None]
    found += [now + wait for key in _RETRY_KEYS if (wait := _seconds(part.get(key), now)) is not None]
    delay = part.get("retry_delay_ms")
    # The client's own patience, not the API's word: it counts where it is longer than that can be.
    if isinstance(delay, (int, float)) and delay > _longest_own_ms(part.get("attempt")):
        found.append(now + delay / 1000)
    for key, value in part.items():
        if key.startswith(_HEADERS) and key.endswith("-reset"):
            left = part.get(key.removesuffix("-reset") + "-remaining")
            when = _moment(value)
            if when is not None and str(left) == "0":
                found.append(when)
    later = [when for when in found if when > now]
    return max(later, default=None)


def _longest_own_ms(attempt: object) -> float:
    """How long a client waits at most before it asks for the n-th time again where the API has not told a time."""
    if isinstance(attempt, bool) or not isinstance(attempt, int) or not 1 <= attempt <= 10:
        return 1000 * _PAUSE_S[TOO_MANY]
    # Claude Code 2.1.330: half a second, twice as long each time, and a quarter more by chance.
    return 625.0 * float(1 << (attempt - 1)) + 125.0


def _moment(value: object) -> float | None:
    """Seconds since 1970 of a number of seconds or milliseconds, or of an RFC 3339 time."""
    if isinstance(value, str):
        try:
            return float(value) if value.replace(".", "", 1).isdecimal() else datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value / 1000 if value > _MILLISECONDS else float(value)


def _seconds(value: object, now: float) -> float | None:
    """Seconds of a `retry-after`: a number, or an HTTP date."""
    if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
        from email.utils import parsedate_to_datetime

        try:
            return parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    return float(value)


def _count(usage: Mapping[str, object], *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return max(0, value)
    return 0
