"""What was done in this repository, and what of it can be taken back?"""

from __future__ import annotations

from khlone.app import App
from khlone.model import CloneState, LoggedOperation, OperationKind, Outcome
from khlone.registry import Operation

_LANDED = frozenset({Outcome.DONE, Outcome.RECOVERED})


def log(app: App, *, clone: str | None = None, limit: int | None = None) -> list[LoggedOperation]:
    """The operations of the journal, newest first, of one clone's name or of all.

    Names of clones that are gone are known here too; a name that never was gives nothing.
    """
    if not app.has_registry:
        return []
    found = app.registry.operations(name=clone, limit=limit)
    trashed = {record.id for record in app.registry.trash() if record.clone.state is CloneState.TRASHED}
    live = {record.id: record for record in app.registry.clones()}
    tips: dict[str, str | None] = {}

    def tip(branch: str) -> str | None:
        if branch not in tips:
            tips[branch] = app.repository.read_ref(f"refs/heads/{branch}")
        return tips[branch]

    def is_undoable(operation: Operation) -> bool:
        if operation.outcome not in _LANDED:
            return False
        if operation.kind is OperationKind.REMOVE:
            return operation.id in trashed
        if operation.kind is OperationKind.MERGE:
            return tip(str(operation.plan["target"])) == operation.plan["new"]
        if operation.kind is OperationKind.CREATE:
            return operation.clone_id in live
        return False

    return [
        LoggedOperation(
            id=operation.id,
            kind=operation.kind,
            clone=operation.name,
            started_at=operation.started_at,
            ended_at=operation.ended_at,
            outcome=operation.outcome,
            undoable=is_undoable(operation),
        )
        for operation in found
    ]
