"""Which sessions does each clone have, and what do they use of this machine?

Sessions that khlone started come from the registry; a process tree that works in a clone
without one is shown as a session too, in the state `foreign`: a clone with an editor or a
left-over server in it is not idle.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from khlone import capacity, sessions, values
from khlone.app import App
from khlone.capacity import Member, Usage
from khlone.errors import KhloneError
from khlone.model import CloneRecord, Session
from khlone.operations import standing
from khlone.registry import SessionRecord

if TYPE_CHECKING:
    from khlone.operations.clients import Activity
    from khlone.profiles import AgentProfile

FOREIGN = "foreign"
#: What a session does all of whose processes are stopped, whatever its agent has said before.
PAUSED = "paused"
#: Seconds between two looks at CPU time, where nothing else has taken as long.
_INTERVAL_S = 0.1


class Look:
    """One look at the processes of some clones, begun at once and ended by `sessions`.

    Who looks again and again says how the agent profiles are had.
    """

    def __init__(
        self,
        app: App,
        records: Sequence[CloneRecord],
        *,
        pss: bool,
        profiles: Callable[[], Mapping[str, AgentProfile]] | None = None,
    ) -> None:
        self._app, self._profiles = app, profiles
        self._recorded: dict[str, list[SessionRecord]] = {}
        for record in app.registry.live_sessions():
            self._recorded.setdefault(record.clone_id, []).append(record)
        self._records = records
        self._activities: dict[int, Activity] = {}
        self._members = capacity.members({record.id: record.path for record in records})
        self._pss = pss
        #: The pids of each session, by its id, once `sessions` was called.
        self.trees: dict[str, Sequence[int]] = {}
        self._before = capacity.measure(one.pid for one in self._members) if self._members else {}

    def sessions(self) -> Mapping[str, Sequence[Session]]:
        """The sessions of each clone, by its id, with what they use now."""
        after: dict[int, Usage] = {}
        if self._before:
            self._read_activities()
            begun = max(usage.at_s for usage in self._before.values())
            time.sleep(max(0.0, _INTERVAL_S - (time.monotonic() - begun)))
            after = capacity.measure(self._before, pss=self._pss)
        clones = {*self._recorded, *(one.clone for one in self._members)}
        return {clone: self._of_clone(clone, after) for clone in clones}

    def _read_activities(self) -> None:
        """What the agents that run say of themselves; no plugin is loaded where no agent can run."""
        busy = {one.clone for one in self._members}
        asked = [one for one in self._records if one.id in busy and one.agent and one.config_dir is not None]
        if not asked:
            return
        from khlone.operations import agents, clients

        profiles: Mapping[str, AgentProfile] = {}
        with contextlib.suppress(KhloneError):
            profiles = agents.profiles(self._app) if self._profiles is None else self._profiles()
        for record in asked:
            profile = profiles.get(record.agent or "")
            if profile is not None and record.config_dir is not None:
                pids = [one.pid for one in self._members if one.clone == record.id]
                self._activities |= clients.activities(record.config_dir, profile, pids)

    def _of_clone(self, clone: str, after: Mapping[int, Usage]) -> Sequence[Session]:
        free = {one.pid: one for one in self._members if one.clone == clone and one.pid in after}
        found = []
        for record in self._recorded.get(clone, ()):
            tree = _taken(free, {one.pid for one in free.values() if _is_of(one, record)})
            self.trees[record.id] = tree
            session = self._recorded_session(record, tree, after)
            if session is not None:
                found.append(session)
        while free:
            root = next((one for one in free.values() if one.parent not in free), next(iter(free.values())))
            tree = _taken(free, {root.pid})
            foreign = self._foreign(root, tree, after)
            self.trees[foreign.id] = tree
            found.append(foreign)
        return found

    def _recorded_session(
        self, record: SessionRecord, tree: Sequence[int], after: Mapping[int, Usage]
    ) -> Session | None:
        rss, pss, cpu = self._used(tree, after)
        found = standing.as_live(self._app, record, rss_bytes=rss, pss_bytes=pss, cpu_percent=cpu)
        if found is None:
            return None
        found = self._with_activity(found, tree)
        is_paused = bool(tree) and all(map(capacity.is_stopped, tree))
        return values.replace(found, activity=PAUSED) if is_paused else found

    def _foreign(self, root: Member, tree: Sequence[int], after: Mapping[int, Usage]) -> Session:
        rss, pss, cpu = self._used(tree, after)
        started = datetime.fromtimestamp(after[root.pid].started_s, UTC).isoformat(timespec="microseconds")
        found = Session(
            id=f"pid-{root.pid}",
            pid=root.pid,
            state=FOREIGN,
            command=after[root.pid].command,
            started_at=started.replace("+00:00", "Z"),
            rss_bytes=rss,
            pss_bytes=pss,
            cpu_percent=cpu,
        )
        return self._with_activity(found, tree)

    def _with_activity(self, session: Session, tree: Sequence[int]) -> Session:
        """With what the agent in it says of itself; of several, one that waits for a person."""
        said = [self._activities[pid] for pid in tree if pid in self._activities]
        if not said:
            return session
        chosen = next((one for one in said if one.waiting_for), said[0])
        return values.replace(session, activity=chosen.state, waiting_for=chosen.waiting_for)

    def _used(self, tree: Sequence[int], after: Mapping[int, Usage]) -> tuple[int | None, int | None, float | None]:
        """Resident bytes, proportional bytes and CPU of a whole tree."""
        if not tree:
            return None, None, None
        shares = [share for pid in tree if (share := after[pid].pss_bytes) is not None]
        rss = sum(after[pid].rss_bytes for pid in tree)
        return rss, sum(shares) if len(shares) == len(tree) else None, capacity.cpu_percent(self._before, after, tree)


def _is_of(member: Member, record: SessionRecord) -> bool:
    if member.session == record.id:
        return True
    return member.pid == record.owner.pid and sessions.out_of_sight(record.owner) is None


def _taken(free: dict[int, Member], roots: set[int]) -> Sequence[int]:
    """Take these processes and all below them out of `free`; returns their pids."""
    tree = set(roots)
    while more := {one.pid for one in free.values() if one.parent in tree and one.pid not in tree}:
        tree |= more
    for pid in tree:
        free.pop(pid, None)
    return sorted(tree)
