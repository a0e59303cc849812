"""Which commit does a clone offer to its target, and may it land at all?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import CloneDirty, CloneNotReady, KhloneError, NoSuchRef, NoTarget, TargetMismatch
from khlone.model import MERGEABLE, CloneRecord, MergePlan, Strategy
from khlone.operations import approval, astray, changes, journal, undo, whereabouts
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRequest:
    """What `merge` was asked for; `push` is `None` where the setting decides."""

    names: Sequence[str | None]
    into: str | None = None
    strategy: Strategy = Strategy.MERGE
    committed: bool = False
    gate: bool = True
    dry_run: bool = False
    remove: bool = False
    priority: int = 0
    after: Sequence[str] = ()
    detach: bool = False
    push: bool | None = None
    verify: bool = True


def is_pushed(app: App, request: MergeRequest) -> bool:
    """Whether what lands is to go to the target's upstream too."""
    return app.settings.merge_push if request.push is None else request.push


def ready_names(app: App, into: str | None) -> list[str]:
    """The clones of one target, `into` or the one that all have, that have commits which it lacks."""
    found = [clone for clone in app.registry.clones() if clone.state in MERGEABLE] if app.has_registry else []
    target = into or (common_target(found, None) if found else None)
    ahead = []
    for clone in found:
        tip = app.repository.read_ref(clone.ref)
        if target is not None and clone.target == target and tip not in (None, clone.base, clone.merged_head):
            ahead.append(clone.name)
    return sorted(ahead, key=_counted)


def _counted(name: str) -> list[tuple[int, str]]:
    """What sorts names as people count: `try-2` before `try-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def common_target(clones: Sequence[CloneRecord], into: str | None) -> str:
    """The branch that all of them go to; raises NoTarget or TargetMismatch."""
    if into is not None:
        return into
    for clone in clones:
        if clone.target is None:
            raise NoTarget(clone.name)
    targets = sorted({cast("str", clone.target) for clone in clones})
    if len(targets) > 1:
        raise TargetMismatch(targets)
    return targets[0]


def prepare(
    app: App, clone: CloneRecord, target: str, tip: str | None, request: MergeRequest
) -> tuple[CloneRecord, str]:
    """The clone as it is now and the tip to merge, which no plugin vetoed."""
    current = app.registry.clone_by_id(clone.id)
    if current is None or current.state not in MERGEABLE:
        raise CloneNotReady(clone.name, current.state if current else "gone", current.reason if current else None)
    source = source_of(app, current, request)
    if current.merged_head == source and not is_pushed(app, request):
        from khlone.operations import landed

        landed.require_not_upstream(app, current, target, source)
    if app.plugins.has("khlone_pre_merge"):
        plan = MergePlan(target=target, strategy=request.strategy, source=source, old=tip or tip_of(app, target))
        app.plugins.pre_merge(journal.as_clone(current, head=source), plan)
        source = source_of(app, current, request)
    approval.require(app, current, source)
    return current, source


def tip_of(app: App, target: str) -> str:
    """Where the target is; raises NoSuchRef."""
    found = app.repository.read_ref(f"refs/heads/{target}")
    if found is None:
        raise NoSuchRef(target)
    return found


def source_of(app: App, clone: CloneRecord, request: MergeRequest) -> str:
    """The tip to merge; raises CloneDirty for work without a commit, HeadElsewhere for commits beside the branch.

    CloneNotReady where neither can be told: the folder is its worktree no more, or was moved by hand.
    """
    source = app.repository.read_ref(clone.ref)
    if source is None:
        raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
    admin = undo.admin_path(app, clone)
    if request.committed:
        return source
    if not files.exists(clone.path):
        whereabouts.require_unmoved(app, clone)
        return source
    if not worktrees.is_linked(clone.path, admin):
        error: KhloneError = CloneNotReady(clone.name, "broken", f"{clone.path} is not its worktree any more")
        error.hint = f"{error.hint}; --committed merges what is committed"
        raise error
    what = worktrees.in_progress(admin)
    if what is not None:
        error = CloneDirty(clone.name, under_way=what)
        error.hint = f"finish or abort it in {clone.path}"
        raise error
    status = changes.read_status(app, clone.path, untracked="normal")
    found = changes.uncounted(clone, status.changes).uncommitted
    if found:
        raise CloneDirty(clone.name, found)
    astray.require_none(app, clone, worktrees.read_entry(admin))
    return source
