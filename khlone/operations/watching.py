"""What does a session use while it runs, and when must it be slowed down, or rest?

One thread of whoever started the session looks at its tree every few seconds, at the cost
of reading a few files: it writes samples, reads what is new in session files, slows a
process down that polls without end, and lets the newest idle session of the machine rest
while memory is short. Nothing is ever ended. What it stops it has written down before: were
it killed then, a guard lets that process go on, and the next khlone that looks does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from khlone import headroom, process, samples, sessions, trees
from khlone.busy_poll import Detector, is_active
from khlone.errors import KhloneError
from khlone.headroom import Headroom
from khlone.machine import Machine, Stop
from khlone.operations import steering, turns
from khlone.operations.metering import Meter
from khlone.operations.run import SUPERVISES
from khlone.operations.turns import Place
from khlone.samples import Sample
from khlone.settings import Settings
from khlone.trees import Tree
from khlone.values import dataclass

#: PSS costs thirty times what the rest does: it is measured each so many looks.
_PSS_EACH = 6
#: While a process is slowed down: seconds that it runs, and that it is stopped, in turns: 15 % of a core.
_RUNS_S, _STOPPED_S = 0.15, 0.85
#: So many seconds after one session was laid to rest, or let go on, the next may be.
_BETWEEN_S = 10.0
#: A session that uses less of a core than this is idle.
_IDLE_SHARE = 0.05
_MOST_FILES = 200
_PIECE = 1 << 20
BUSY, MEMORY = "busy-poll", "memory"
#: The environment of a guard: the mark of what looks after sessions, so that it is part of none.
_GUARD = {SUPERVISES: "guard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The session to watch: the private `folder` of its clone, where its session files lie, and its root process."""

    session: str
    name: str
    folder: Path
    agent: str
    transcripts: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often is looked, how long a loop must turn and a session be idle (seconds), and how much pressure is much."""

    interval_s: float
    busy_s: float
    idle_s: float
    pressure_percent: float


def pace_of(settings: Settings) -> Pace:
    """What the settings say."""
    interval, busy, idle = (settings.value(f"watch.{name}") for name in ("interval", "busy", "idle"))
    pressure = settings.value("limits.pressure")
    assert isinstance(interval, float)
    assert isinstance(busy, float)
    assert isinstance(idle, float)
    assert isinstance(pressure, float)
    return Pace(interval_s=max(0.25, interval), busy_s=busy, idle_s=idle, pressure_percent=pressure)


class Waits(Protocol):
    """How is found out that an agent waits for a person, and who is told?"""

    def reason(self, pids: Iterable[int]) -> str | None:
        """What the agent among these processes waits for; `None` while it does not."""

    def tell(self, reason: str) -> None:
        """It has begun to wait for that."""


class Watch:
    """Looks at one session; `tick` is called by one thread alone, every `interval_s` or sooner."""

    def __init__(
        self,
        machine: Machine,
        watched: Watched,
        pace: Pace,
        *,
        place: Place = turns.NO_PLACE,
        meter: Meter | None = None,
        told: Callable[[str], None] = lambda _: None,
        waits: Waits | None = None,
        room: Callable[[], Headroom] = headroom.look,
    ) -> None:
        self._machine, self._watched, self._pace = machine, watched, pace
        self._place, self._meter, self._told, self._room = place, meter, told, room
        self._waits = waits
        self._waited_for: str | None = None
        self._detector = Detector(pace.busy_s)
        self._before: Tree | None = None
        self._looks = 0
        self._pss: int | None = None
        self._read: dict[Path, int] = {}
        self._activity = 0
        self._idle_since_s: float | None = None
        self._rests = False
        #: The process that is slowed down.
        self.slowed: int | None = None
        self._guard: process.Guard | None = None
        self._owner = os.urandom(8).hex()
        self._bell = machine.new_bell(self._owner)

    def tick(self) -> bool:
        """Look once, and do what is to be done; False when the session is gone."""
        tree = trees.look(self._watched.pid)
        if tree is None:
            return False
        grown = self._read_files()
        self._activity += grown
        before, self._before = self._before, tree
        if before is not None:
            self._note(before, tree)
            self._note_idle(before, tree, grown)
            self._mind_polling(before, tree, grown)
            self._mind_memory()
        if self._waits is not None:
            before_it, self._waited_for = self._waited_for, self._waits.reason(tree.processes)
            if self._waited_for not in (None, before_it):
                self._waits.tell(self._waited_for)
        return True

    def slow_down(self, pause: Callable[[float], bool]) -> None:
        """One second of a slowed process: stopped for most of it. `pause` waits, and says that it is to end."""
        pid = self.slowed
        if pid is None:
            return
        steering.send([pid], signal.SIGSTOP)
        try:
            pause(_STOPPED_S)
        finally:
            steering.send([pid], signal.SIGCONT)
        pause(_RUNS_S)

    def close(self) -> None:
        """Let go on what was stopped, and be done."""
        self._let_go_on()
        self._bell.close()

    # -- what it uses

    def _note(self, before: Tree, tree: Tree) -> None:
        if self._looks % _PSS_EACH == 0:
            self._pss = trees.pss_bytes(tree.processes)
        self._looks += 1
        passed_s = max(tree.at_s - before.at_s, 0.001)
        used = sum(one.cpu_s for one in tree.processes.values()) - sum(
            one.cpu_s for pid, one in before.processes.items() if pid in tree.processes
        )
        samples.add(
            self._watched.folder / "run",
            Sample(
                at_s=time.time(),
                rss_bytes=tree.rss_bytes,
                pss_bytes=self._pss,
                cpu_percent=max(0.0, 100 * used / passed_s),
                processes=len(tree.processes),
                threads=tree.threads,
            ),
        )
        with contextlib.suppress(KhloneError):
            self._place.note_usage(self._pss or tree.rss_bytes)

    def _read_files(self) -> int:
        """Read what is new in its session files; how many bytes are new there and in its logs."""
        grown = 0
        for path, is_transcript in self._files():
            try:
                size = os.stat(path, follow_symlinks=False).st_size
            except OSError:
                continue
            # What was there when the watch began is not new.
            known = self._read.setdefault(path, size if not self._looks else 0)
            if size > known and is_transcript and self._meter is not None:
                with contextlib.suppress(OSError), open(path, "rb") as stream:
                    stream.seek(known)
                    self._meter.feed_transcript(stream.read(min(size - known, _PIECE)))
            grown += abs(size - known)
            self._read[path] = size
        return grown

    def _files(self) -> Iterator[tuple[Path, bool]]:
        from khlone.operations import transcripts

        watched = self._watched
        with contextlib.suppress(OSError), os.scandir(watched.folder / "logs") as entries:
            for entry, _ in zip(entries, range(_MOST_FILES), strict=False):
                yield Path(entry.path), False
        if watched.transcripts:
            found = transcripts.matching(watched.folder / "config" / watched.agent, watched.transcripts)
            for path, _ in zip(found, range(_MOST_FILES), strict=False):
                yield path, True

    # -- a loop that polls

    def _mind_polling(self, before: Tree, tree: Tree, grown: int) -> None:
        if self.slowed is None:
            found = self._detector.see(tree, self._activity) if self._pace.busy_s else None
            if found is not None and self._write_down(found, BUSY):
                self._stand_guard([found])
                self.slowed = found
                self._told(f"{self._watched.name}: process {found} polls without end and is slowed down")
            return
        if grown or is_active(before, tree, self.slowed):
            self._told(f"{self._watched.name}: process {self.slowed} has something to do and goes on")
            self._let_go_on()

    def _stand_guard(self, pids: Sequence[int]) -> None:
        """Were this process killed, they would go on all the same."""
        self._guard = process.Guard(pids, _GUARD)

    def _let_go_on(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        pids = [one.pid for one in self._stops() if one.owner == self._owner]
        self.slowed = None
        self._rests = False
        self._detector = Detector(self._pace.busy_s)
        steering.send(pids, signal.SIGCONT)
        with contextlib.suppress(KhloneError), self._machine.transaction() as change:
            change.forget_stops(self._owner)

    def _stops(self) -> list[Stop]:
        with contextlib.suppress(KhloneError):
            return self._machine.stops()
        return []

    def _write_down(self, pid: int, why: str) -> bool:
        """Before anything is stopped: whoever finds this without its owner lets it go on."""
        try:
            with self._machine.transaction() as change:
                change.note_stop(self._owner, self._watched.session, sessions.identity(pid), why)
        except KhloneError:
            return False
        return True

    # -- short of memory

    def _note_idle(self, before: Tree, tree: Tree, grown: int) -> None:
        used = sum(one.cpu_s + one.waited_s for one in tree.processes.values())
        was = sum(one.cpu_s + one.waited_s for one in before.processes.values())
        is_idle = not grown and used - was <= _IDLE_SHARE * (tree.at_s - before.at_s)
        if self._rests:
            return
        if is_idle != (self._idle_since_s is not None):
            self._idle_since_s = tree.at_s if is_idle else None
            if self._place.id is not None:
                with contextlib.suppress(KhloneError), self._machine.transaction() as change:
                    change.note_idle(self._place.id, self._idle_since_s)

    def _mind_memory(self) -> None:
        if self._place.id is None or not self._pace.pressure_percent:
            return
        is_short = _is_short(self._room(), self._pace.pressure_percent)
        if self._rests:
            root = None if self._before is None else self._before.processes[self._before.root]
            if root is not None and root.state not in "Tt":
                self._let_go_on()  # Somebody else has.
            elif not is_short and self._is_next_to_go_on():
                self._told(f"{self._watched.name} goes on: there is memory again")
                self._let_go_on()
        elif is_short and self._idle_since_s is not None and self._is_next_to_rest():
            self._rest()

    def _is_next_to_rest(self) -> bool:
        """Whether of all sessions that are idle for long enough this one has started last."""
        now = time.monotonic()
        with contextlib.suppress(KhloneError):
            stops = [one for one in self._machine.stops() if one.why == MEMORY]
            if any(now - one.at_s < _BETWEEN_S for one in stops):
                return False
            resting = {one.session for one in stops}
            idle = [
                one
                for one in self._machine.leases()
                if one.idle_s is not None and now - one.idle_s >= self._pace.idle_s and one.session not in resting
            ]
            return bool(idle) and max(idle, key=lambda one: one.granted_s or 0.0).id == self._place.id
        return False

    def _is_next_to_go_on(self) -> bool:
        """Whether of all that rest this one has rested longest, and none was laid to rest just now."""
        now = time.monotonic()
        with contextlib.suppress(KhloneError):
            stops = [one for one in self._machine.stops() if one.why == MEMORY]
            oldest = min(stops, key=lambda one: one.at_s, default=None)
            return oldest is None or (oldest.owner == self._owner and now - oldest.at_s >= _BETWEEN_S)
        return False

    def _rest(self) -> None:
        tree = self._before
        if tree is None or not all(self._write_down(pid, MEMORY) for pid in tree.processes):
            return
        self._rests = True
        self._stand_guard(list(tree.processes))
        self._told(f"{self._watched.name} rests: memory is short, and it is idle")
        # Those above first: so that they start nothing new meanwhile.
        steering.send(list(tree.processes), signal.SIGSTOP)


def _is_short(room: Headroom, percent: float) -> bool:
    if room.some_percent is not None:
        return room.some_percent >= percent or (room.full_percent or 0.0) >= 1.0
    total, available = room.total_bytes, room.available_bytes
    return total is not None and available is not None and available < total * 0.05


@contextlib.contextmanager
def watched(
    environment: Mapping[str, str],
    settings: Settings,
    of: Watched,
    *,
    place: Place,
    meter: Callable[[Machine], Meter] | None = None,
    told: Callable[[str], None],
    waits: Waits | None = None,
) -> Iterator[None]:
    """Watch a session for the length of the block, by a thread of its own; whatever goes wrong there stays there."""
    end = threading.Event()
    pace = pace_of(settings)

    def work() -> None:
        with contextlib.suppress(KhloneError, OSError):
            machine = turns.open_machine(environment, told)
            found = None if meter is None else meter(machine)
            watch = Watch(machine, of, pace, place=place, meter=found, told=told, waits=waits)
            try:
                _look_on(watch, pace, end)
            finally:
                watch.close()
                if found is not None:
                    found.close()
                machine.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(5.0)


def _look_on(watch: Watch, pace: Pace, end: threading.Event) -> None:
    while not end.is_set() and watch.tick():
        if watch.slowed is not None:
            # Looked at each second: what has something to do again is not to wait for long.
            watch.slow_down(end.wait)
        else:
            end.wait(pace.interval_s)
