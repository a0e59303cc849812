"""What was done in this repository, and what of it can be taken back?"""

from __future__ import annotations

from khlone.app import App
from khlone.model import LoggedOperation
from khlone.operations.take_back import Judge


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
