"""How much may a credential ask for in a minute? Token buckets that fill continuously, as the real ones do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from khlone.values import dataclass

_KINDS = ("requests", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """What is allowed in a minute, `None` for as much as one likes; each bucket holds a minute's worth."""

    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


#: The first tier of the real service, of one organisation: what is read from the cache is free.
TIER_1 = RateLimit(requests=50, input_tokens=30_000, output_tokens=8_000)


class Buckets:
    """The three buckets of one pool, full at first. `now` is a clock in seconds."""

    def __init__(self, limit: RateLimit, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._most = {kind: float(most) for kind in _KINDS if (most := getattr(limit, kind)) is not None}
        self._left = dict(self._most)
        self._filled_at = now()

    def take(self, input_tokens: int) -> float | None:
        """Take a request with its input, all or nothing: `None` when it may go on, else seconds to wait.

        Output is not known before; it is only asked that the bucket is not empty.
        """
        wanted = {"requests": 1.0, "input_tokens": float(input_tokens), "output_tokens": 1.0}
        with self._lock:
            self._fill()
            short = [
                (min(wanted[kind], most) - self._left[kind]) / most * 60
                for kind, most in self._most.items()
                if self._left[kind] < min(wanted[kind], most)
            ]
            if short:
                return max(short)
            for kind in ("requests", "input_tokens"):
                if kind in self._left:
                    self._left[kind] -= wanted[kind]
            return None

    def spend(self, output_tokens: int) -> None:
        """Take output that was sent; the bucket may go below nothing by it."""
        with self._lock:
            self._fill()
            if "output_tokens" in self._left:
                self._left["output_tokens"] -= output_tokens

    def headers(self) -> Mapping[str, str]:
        """The `anthropic-ratelimit-*` headers of this moment."""
        found: dict[str, str] = {}
        with self._lock:
            self._fill()
            for kind, most in self._most.items():
                name = f"anthropic-ratelimit-{kind.replace('_', '-')}"
                left = self._left[kind]
                full = datetime.now(UTC) + timedelta(seconds=(most - left) / most * 60)
                found[f"{name}-limit"] = str(int(most))
                found[f"{name}-remaining"] = str(max(0, int(left)))
                found[f"{name}-reset"] = full.strftime("%Y-%m-%dT%H:%M:%SZ")
        return found

    def _fill(self) -> None:
        passed = self._now() - self._filled_at
        self._filled_at += passed
        for kind, most in self._most.items():
            self._left[kind] = min(most, self._left[kind] + most * passed / 60)
