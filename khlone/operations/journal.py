"""How does an operation say what it is about to do, so that another process can finish or undo it?

The whole plan is written in the commit that reserves the clone; the commit that publishes
the effect ends the operation. In between the clone's operation lock is held: whoever gets
that lock knows that the last owner, and every git it had started, is dead.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from khlone import port_leases, sessions
from khlone.app import App
from khlone.errors import CloneBusy
from khlone.locks import HeldLock
from khlone.model import Clone, CloneRecord, CloneState, Isolation, OperationKind, Session, utc_now
from khlone.registry import Operation


def new_operation_id() -> str:
    """An id that sorts by time: milliseconds since the epoch and four random letters, in hex."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(2).hex()}"


def new_clone_id() -> str:
    """A random id for a clone: sixteen letters of hex."""
    return os.urandom(8).hex()


@contextlib.contextmanager
def held(app: App, clone_id: str, name: str) -> Iterator[HeldLock]:
    """Hold a clone's operation lock for the length of the block; raises CloneBusy at once."""
    lock = app.locks.try_operation(clone_id)
    if lock is None:
        orphans = [orphan for one in app.registry.open_operations() for orphan in orphans_of(app, one, clone_id)]
        raise CloneBusy(name, shown_orphans(orphans) if orphans else app.locks.operation_holder(clone_id))
    try:
        yield lock
    finally:
        lock.release()


def orphans_of(app: App, operation: Operation, clone_id: str) -> list[sessions.FoundProcess]:
    """What holds the operation lock of a clone after the khlone that began an operation on it has died.

    Nothing while that khlone may live, or where another one has taken the operation up.
    """
    if operation.clone_id != clone_id or sessions.may_live(operation.owner):
        return []
    found = sessions.processes_with_open(app.locks.operation_path(clone_id))
    taken_up = app.locks.operation_holder_pid(clone_id)
    if taken_up != operation.owner.pid and any(process.pid == taken_up for process in found):
        return []
    return found


def shown_orphans(orphans: Sequence[sessions.FoundProcess]) -> str:
    """Such processes, for people."""
    listed = ", ".join(f"{process.name} (pid {process.pid})" for process in orphans[:3])
    return f"{listed}{' and others' if len(orphans) > 3 else ''}, left running by a khlone that was killed"


def operation(kind: OperationKind, clone: CloneRecord, plan: Mapping[str, object], *, step: str = "") -> Operation:
    """A journal entry of this process for one clone."""
    return Operation(
        id=str(plan["operation"]),
        kind=kind,
        clone_id=clone.id,
        name=clone.name,
        plan=plan,
        owner=sessions.identity(),
        started_at=utc_now(),
        step=step,
    )


def to_json(clone: CloneRecord) -> dict[str, object]:
    """A clone record as it stands in plans, markers and trash; `from_json` reads it back."""
    return {
        "id": clone.id,
        "name": clone.name,
        "branch": clone.branch,
        "branch_owned": clone.branch_owned,
        "target": clone.target,
        "base": clone.base,
        "path": os.fspath(clone.path),
        "admin": clone.admin,
        "agent": clone.agent,
        "isolation": clone.isolation.value,
        "config_dir": None if clone.config_dir is None else os.fspath(clone.config_dir),
        "created_at": clone.created_at,
        "merged_head": clone.merged_head,
    }


def from_json(found: Mapping[str, object], state: CloneState) -> CloneRecord:
    """The clone record that `to_json` wrote; raises KeyError or ValueError for anything else."""
    config_dir = cast("str | None", found["config_dir"])
    return CloneRecord(
        id=str(found["id"]),
        name=str(found["name"]),
        branch=str(found["branch"]),
        branch_owned=bool(found["branch_owned"]),
        target=cast("str | None", found["target"]),
        base=str(found["base"]),
        path=Path(str(found["path"])),
        admin=str(found["admin"]),
        state=state,
        agent=cast("str | None", found["agent"]),
        isolation=Isolation(str(found["isolation"])),
        config_dir=None if config_dir is None else Path(config_dir),
        created_at=str(found["created_at"]),
        merged_head=cast("str | None", found.get("merged_head")),
    )


def as_clone(record: CloneRecord, *, head: str | None = None, sessions: tuple[Session, ...] = ()) -> Clone:
    """A clone as plugins see it: the record and its ports, without facts that would need a look at its worktree."""
    lease = None if record.config_dir is None else port_leases.read(port_leases.private_folder(record.config_dir))
    return Clone(
        id=record.id,
        name=record.name,
        branch=record.branch,
        target=record.target,
        base=record.base,
        head=head or record.base,
        path=record.path,
        state=record.state,
        agent=record.agent,
        isolation=record.isolation,
        config_dir=record.config_dir,
        created_at=record.created_at,
        sessions=sessions,
        ports=None if lease is None else (lease.first, lease.count),
        reason=record.reason,
    )
