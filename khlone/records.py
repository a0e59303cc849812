"""What does the registry keep of an operation, a session, a removed clone and what waits to land?"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from khlone.model import CloneRecord, Holds, OperationKind, Outcome, ProcessIdentity, Strategy, TrashEntry
from khlone.values import dataclass

#: The kind of a session that is a command on its own: any number of them run in a clone.
EXEC = "exec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One journalled operation: the whole plan, written before the first step."""

    id: str
    kind: OperationKind
    clone_id: str
    name: str
    plan: Mapping[str, object]
    owner: ProcessIdentity
    started_at: str
    step: str = ""
    ended_at: str | None = None
    outcome: Outcome | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One process started in a clone, as the registry keeps it.

    `owner` is whoever starts it until it is there, then its own process; `supervisor` is the
    process that sees it through, where that is another. A clone has one session at a time
    that is not of the kind `exec`. `log` is the path of its output, `reason` why it waits
    or has ended where its state alone does not tell.
    """

    id: str
    clone_id: str
    owner: ProcessIdentity
    state: str
    command: Sequence[str]
    started_at: str
    ended_at: str | None = None
    status: int | None = None
    kind: str = EXEC
    supervisor: ProcessIdentity | None = None
    log: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashRecord:
    """What is needed to bring a removed clone back."""

    id: str
    clone: CloneRecord
    removed_at: str
    head: str
    snapshot: str
    branch_deleted: bool
    bytes: int
    holds: Holds

    def entry(self) -> TrashEntry:
        """The part of it that people and scripts see."""
        return TrashEntry(
            trash=self.id,
            name=self.clone.name,
            branch=self.clone.branch,
            oid=self.head,
            removed_at=self.removed_at,
            bytes=self.bytes,
            holds=self.holds,
        )


class QueueState(enum.StrEnum):
    """Where an entry of a merge queue is."""

    WAITING = "waiting"
    TESTING = "testing"
    LANDED = "landed"
    HELD = "held"
    REMOVED = "removed"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One commit of a clone that waits to land, or how that ended.

    `source` is pinned: what is committed later, or becomes of the clone, changes nothing;
    `record` is the clone as it was, as JSON.
    `after` names clones whose entries come first, `partners` those that it fails with.
    `oid` is the commit that brought it onto the target. With `push` that goes to the target's
    upstream first. `notes` is what gates were worth telling of, passed or not. `verify` is
    whether the commit hooks look at it that `--no-verify` leaves out.
    """

    id: str
    clone: str
    name: str
    target: str
    source: str
    strategy: Strategy
    gate: bool
    remove: bool
    priority: int
    after: Sequence[str]
    penalty: int
    state: QueueState
    queued_at: str
    ended_at: str | None = None
    oid: str | None = None
    gated: bool | None = None
    code: str | None = None
    exit_code: int | None = None
    message: str | None = None
    hint: str | None = None
    paths: Sequence[str] = ()
    partners: Sequence[str] = ()
    resolved_by: str | None = None
    record: str = "{}"
    push: bool = False
    notes: Sequence[str] = ()
    verify: bool = True
