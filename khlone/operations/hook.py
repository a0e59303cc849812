"""How does a user run the hooks of an event by hand?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from khlone import hook_runs, project_hooks
from khlone.app import App
from khlone.errors import NotTrusted, UsageError
from khlone.hook_runs import HookResult
from khlone.hook_table import EVENTS
from khlone.model import NewRequest
from khlone.operations import journal
from khlone.project_hooks import Hooks, Occasion
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ByHand:
    """What was run, or with a dry run would be; `approved` says whether it may run."""

    event: str
    clone: str | None
    approved: bool
    results: Sequence[HookResult]


def run(
    app: App,
    event: str,
    name: str | None,
    *,
    dry_run: bool = False,
    ended: Callable[[HookResult], None] = lambda _: None,
) -> ByHand:
    """Run the hooks of an event on a clone, and wait for them, also for those of a post- event.

    For `pre-create` NAME is that of a clone which may not be there. Raises UsageError,
    NoSuchClone or NotTrusted.
    """
    occasion = _occasion(app, event, name)
    hooks = Hooks.load(app.location, app.environment)
    approved = True
    try:
        prepared = hooks.prepare(occasion)
    except NotTrusted:
        if not dry_run:
            raise
        approved = False
        prepared = hooks.prepare(occasion, approved=False)
    if dry_run:
        results = [hook_runs.not_run(ready) for ready in prepared.all]
    else:
        results = hook_runs.run(prepared, app.environment, ended=ended)
    shown = occasion.variables.get("KHLONE_NAME")
    return ByHand(event=event, clone=shown, approved=approved, results=results)


def _occasion(app: App, event: str, name: str | None) -> Occasion:
    if event not in EVENTS:
        raise UsageError(f"there is no event {event!r}", hint=f"events are {', '.join(EVENTS)}")
    if event == "pre-create":
        if name is None:
            raise UsageError("no name is given for the clone that would be made", hint="git khlone hook run EVENT NAME")
        return project_hooks.occasion(event, app.location, None, request=NewRequest(name=name))
    return project_hooks.occasion(event, app.location, journal.as_clone(app.require_clone(name)))
