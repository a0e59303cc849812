"""What is a merge queue at right now, for somebody who watches it being driven?

Kept by whoever drives, and read at any moment by whoever draws it: gates write to it from
threads of their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateView:
    """A commit that gates look at, or have looked at in this round; `gate` is the one that runs, since `since_s`."""

    names: Sequence[str]
    oid: str
    state: str
    gate: str | None = None
    since_s: float = 0.0

    def told(self, now_s: float) -> str:
        """What is done with it, in words."""
        return f"gate {self.gate} for {now_s - self.since_s:.0f} s" if self.gate is not None else self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A queue as it is driven: what is tested, who has landed, and who is held with whom."""

    target: str
    waiting: int
    landed: int
    candidates: Sequence[CandidateView]
    held: Sequence[tuple[str, str]]


class Watched:
    """The state of one driver; every method may be called by any thread."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._candidates: dict[str, CandidateView] = {}
        self._held: list[tuple[str, str]] = []
        self._landed = 0
        self._waiting = 0

    def begin_round(self, waiting: int) -> None:
        """So many wait now; what was tested before is told no more."""
        with self._lock:
            self._waiting = waiting
            self._candidates.clear()

    def testing(self, oid: str, names: Sequence[str]) -> None:
        """A commit is to be looked at."""
        self._set(CandidateView(oid=oid, names=names, state="waits for its gate"))

    def gate(self, oid: str, gate: str) -> None:
        """A gate begins to look at it."""
        with self._lock:
            found = self._candidates.get(oid)
            if found is not None:
                self._candidates[oid] = CandidateView(
                    oid=oid, names=found.names, state=found.state, gate=gate, since_s=time.monotonic()
                )

    def judged(self, oid: str, names: Sequence[str], failed: str | None) -> None:
        """All gates have spoken; `failed` is the one that refused."""
        self._set(CandidateView(oid=oid, names=names, state="passed" if failed is None else f"refused by {failed}"))

    def held(self, name: str, why: str) -> None:
        """An entry is held."""
        with self._lock:
            self._held.append((name, why))
            self._waiting -= 1

    def landed(self, count: int) -> None:
        """So many more have landed."""
        with self._lock:
            self._landed += count
            self._waiting -= count

    def _set(self, view: CandidateView) -> None:
        with self._lock:
            self._candidates[view.oid] = view

    def look(self) -> QueueView:
        """How things stand."""
        with self._lock:
            return QueueView(
                target=self._target,
                waiting=max(0, self._waiting),
                landed=self._landed,
                candidates=tuple(self._candidates.values()),
                held=tuple(self._held),
            )
