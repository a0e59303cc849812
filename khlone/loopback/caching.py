"""Which part of a request has the service read before? Prefixes up to each `cache_control`, as in the Messages API.

What was read is not counted as input, nor by the limit of a minute; what is marked and new
is written, and counted as input that was.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from khlone.values import dataclass

#: How long a prefix is kept after it was used last, and how few tokens are not kept at all.
_KEPT_S, _FEWEST = 300.0, 1024
_MOST = 10_000
_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The input of one request, in tokens: that which is new, was read before, and is kept from now on."""

    input: int
    read: int = 0
    created: int = 0
    #: The prefixes that are kept once the request is answered.
    prefixes: tuple[str, ...] = ()


class Cache:
    """What one pool has had read. All methods may be called from any thread; `now` is a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, float] = OrderedDict()

    def split(self, body: Mapping[str, Any], tokens: int) -> Parts:
        """What of a request of so many tokens is new."""
        seen, marked, read, prefixes = 0, 0, 0, []
        running = hashlib.sha256(str(body.get("model")).encode())
        for block in _blocks(body):
            kept = {name: value for name, value in block.items() if name != "cache_control"}
            content = json.dumps(kept, sort_keys=True).encode()
            running.update(content)
            seen += len(content)
            at = min(tokens, seen // _BYTES)
            if at < _FEWEST:
                continue
            prefix = running.copy().hexdigest()
            if self._has(prefix):
                read = at
            if "cache_control" in block:
                marked = at
                prefixes.append(prefix)
        # Prefixes are found beyond the last mark only where an earlier request had its mark there.
        marked = max(marked, read)
        return Parts(input=tokens - marked, read=read, created=marked - read, prefixes=tuple(prefixes))

    def keep(self, parts: Parts) -> None:
        """The request was answered."""
        with self._lock:
            for prefix in parts.prefixes:
                self._kept[prefix] = self._now()
                self._kept.move_to_end(prefix)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def _has(self, prefix: str) -> bool:
        with self._lock:
            used_at = self._kept.get(prefix)
            return used_at is not None and self._now() - used_at < _KEPT_S


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The blocks of a request in the order in which they are read."""
    yield from (tool for tool in body.get("tools") or () if isinstance(tool, Mapping))
    system = body.get("system") or ()
    for said in ({"content": system}, *(body.get("messages") or ())):
        content = said.get("content")
        role = {"role": said.get("role")}
        if isinstance(content, str):
            yield {**role, "text": content}
        else:
            yield from ({**role, **block} for block in content or () if isinstance(block, Mapping))
