"""What is done about operations whose process died?

At the start of every mutating command and in `doctor`: for each operation that has not
ended and whose clone's operation lock is free, create and adopt are rolled back, everything else is
rolled forward. Holding the lock is the proof that the owner and every git it had started
are dead: on this kernel, whose locks it is, and so also for another container of this
machine, whatever that calls itself. What another kernel under another name began is left
to it, unless the user says that the host is gone. Recovery may itself be killed: the next
one starts over.
"""

from __future__ import annotations

import os
import time

from khlone import sessions
from khlone.app import App
from khlone.errors import KhloneError
from khlone.locks import HeldLock
from khlone.model import CloneState, OperationKind, Outcome, ProcessIdentity
from khlone.operations import journal
from khlone.registry import Operation
from khlone.values import dataclass

#: Seconds that one recovery waits for what killed commands left running, all of them together.
ORPHANS_WAIT_S = 10.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What became of one operation that was found open."""

    operation: Operation
    outcome: Outcome | None
    messages: tuple[str, ...] = ()


def recover(app: App, *, host_gone: str | None = None, ask: bool = False) -> list[Recovered]:
    """Finish or undo every dead operation; says each on `app.told`, leaves living ones alone.

    An operation that cannot be recovered stays open and is reported, so that no other
    command is held up by it. `host_gone` names a host whose operations are dead, as the
    user knows. What a killed khlone left running is named and waited for, within a bound.
    With `ask` a remote is asked, within one too, what it has of a landing.
    """
    found = app.registry.open_operations()
    deadline = time.monotonic() + ORPHANS_WAIT_S
    done = [_recover_one(app, operation, host_gone, deadline, ask=ask) for operation in found] if found else []
    results = [result for result in done if result is not None]
    for result in results:
        name = f"{result.operation.kind} of {result.operation.name}"
        how = {Outcome.ROLLED_BACK: "taken back", Outcome.RECOVERED: "completed"}.get(
            result.outcome or Outcome.STUCK, "left as it is"
        )
        app.told(f"recovered: an interrupted {name} was {how}")
        for message in result.messages:
            app.told(f"  {message}")
    return results


def is_elsewhere(owner: ProcessIdentity) -> bool:
    """Whether a process belongs to another machine, whose locks may not be seen here.

    Containers of one machine have names of their own and one kernel; a machine that was
    booted anew keeps its name.
    """
    if owner.host == os.uname().nodename:
        return False
    return owner.boot_id is None or owner.boot_id != sessions.boot_id()


def _recover_one(
    app: App, operation: Operation, host_gone: str | None, deadline: float, *, ask: bool
) -> Recovered | None:
    host = operation.owner.host
    if is_elsewhere(operation.owner) and host != host_gone:
        app.told(
            f"warning: {operation.kind} of {operation.name} was begun on {host} and is left to it; "
            f"if that is gone for good: git khlone doctor --fix --host-gone {host}"
        )
        return None
    lock = app.locks.try_operation(operation.clone_id) or _outlast(app, operation, deadline)
    if lock is None:
        return None
    try:
        current = app.registry.operation(operation.id)
        if current is None or current.ended_at is not None:
            return None
        return _recover_locked(app, current, lock, ask=ask)
    except (KhloneError, OSError, KeyError, ValueError) as error:
        why = error.message if isinstance(error, KhloneError) else f"{error}"
        return Recovered(operation=operation, outcome=None, messages=(why,))
    finally:
        lock.release()


def _outlast(app: App, operation: Operation, deadline: float) -> HeldLock | None:
    """The lock once what a killed khlone left running has ended; `None` when it has not, or somebody works on it."""
    orphans = journal.orphans_of(app, operation, operation.clone_id)
    if not orphans:
        return None
    what = f"the interrupted {operation.kind} of {operation.name}"
    app.told(f"waiting for {journal.shown_orphans(orphans)}, to recover {what}")
    while time.monotonic() < deadline:
        lock = app.locks.try_operation(operation.clone_id)
        if lock is not None:
            return lock
        time.sleep(_POLL_S)
    pids = " ".join(str(process.pid) for process in orphans)
    app.told(f"warning: {what} is left until they have ended (or: kill {pids})")
    return None


def _recover_locked(app: App, operation: Operation, lock: HeldLock, *, ask: bool) -> Recovered:
    from khlone.operations import adopt, merge, purge, queue_recovery, remove, rename, restore, sync, take_back

    if operation.kind is OperationKind.CREATE:
        return _recover_create(app, operation, lock)
    if operation.kind is OperationKind.ADOPT:
        adopt.recover(app, operation, lock)
        return Recovered(operation=operation, outcome=Outcome.ROLLED_BACK)
    if operation.kind is OperationKind.MERGE:
        messages = merge.recover(app, operation, lock)
    elif operation.kind is OperationKind.REMOVE:
        messages = remove.recover(app, operation, lock)
    elif operation.kind is OperationKind.PURGE:
        messages = purge.recover(app, operation, lock)
    elif operation.kind is OperationKind.RENAME:
        messages = rename.recover(app, operation, lock)
    elif operation.kind is OperationKind.SYNC:
        messages = sync.recover(app, operation, lock)
    elif operation.kind is OperationKind.LAND:
        messages = queue_recovery.recover(app, operation, lock, ask=ask)
    elif operation.kind is OperationKind.UNDO:
        messages = take_back.recover(app, operation, lock)
    else:
        messages = restore.recover(app, operation, lock)
    return Recovered(operation=operation, outcome=Outcome.RECOVERED, messages=tuple(messages))


def _recover_create(app: App, operation: Operation, lock: HeldLock) -> Recovered:
    from khlone.operations import undo

    planned = operation.plan["clone"]
    assert isinstance(planned, dict)
    clone = journal.from_json(planned, CloneState.CREATING)
    kept = undo.undo_create(app, clone, operation.id, lock, certain=False)
    lock.verify()
    with app.registry.transaction() as change:
        change.end_operation(operation.id, Outcome.ROLLED_BACK, "its process ended")
        change.delete_clone(clone.id)
    app.tell_problems(app.plugins.post_cleanup(journal.as_clone(clone)))
    return Recovered(operation=operation, outcome=Outcome.ROLLED_BACK, messages=tuple(kept))
