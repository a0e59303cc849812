"""What was done in this repository, and what of it can be taken back?"""

from __future__ import annotations

from khlone.app import App
from khlone.model import OperationKind, Outcome
from khlone.operations.take_back import Judge
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOperation:
    """One operation as `log` shows it. `outcome` and `ended_at` are `None` while it is open."""

    id: str
    kind: OperationKind
    clone: str
    started_at: str
    ended_at: str | None
    outcome: Outcome | None
    undoable: bool


def log(app: App, *, clone: str | None = None, limit: int | None = None) -> list[LoggedOperation]:
    """The operations of the journal, newest first, of one clone's name or of all.

    Names of clones that are gone are known here too. Raises NoSuchClone for a name that
    never was, UsageError for `@` and `-` where they name none.
    """
    if clone in ("@", "-"):
        clone = app.require_clone(clone).name
    judge = Judge(app)
    found = [operation for operation in judge.operations if clone is None or operation.name == clone]
    if clone is not None and not found:
        clone = app.require_clone(clone).name
    return [
        LoggedOperation(
            id=operation.id,
            kind=operation.kind,
            clone=operation.name,
            started_at=operation.started_at,
            ended_at=operation.ended_at,
            outcome=operation.outcome,
            undoable=judge.obstacle(operation) is None,
        )
        for operation in found[:limit]
    ]
