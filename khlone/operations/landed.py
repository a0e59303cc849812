"""Has a clone landed that its target, or the record of it, knows nothing of?

What a remote has of a target may be more than the target here has: a landing that was
pushed and then lost its place here, or was taken back here alone. And what others have
brought onto a target is not recorded as merged. Neither is ever guessed: by history alone,
and a clone that was merely brought up to its target has not landed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from khlone.app import App
from khlone.errors import CloneNotReady, LandedUpstream
from khlone.model import MERGEABLE, CloneRecord, CloneState, Finding, Severity
from khlone.operations import integration, moving
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A landing that the target does not have: `upstream` is the branch of a remote that has it, if that does."""

    target: str
    upstream: str | None

    @property
    def told(self) -> str:
        """It for people."""
        if self.upstream is None:
            return f"it had landed on {self.target}, which does not have it any more"
        return f"it has landed on {self.upstream}, and {self.target} here lacks that"


def upstream_of(app: App, branch: str) -> tuple[str, str] | None:
    """What was last seen of the branch of a remote that a branch follows: its name for people, and the commit."""
    ref = app.repository.git("for-each-ref", "--format=%(upstream)", f"refs/heads/{branch}").text.strip()
    tip = app.repository.read_ref(ref) if ref.startswith("refs/remotes/") else None
    return None if tip is None else (ref.removeprefix("refs/remotes/"), tip)


def missing(app: App, records: Sequence[CloneRecord], tips: Mapping[str, str]) -> dict[str, Missing]:
    """The landings of clones, as they are recorded, that their targets do not have, by the id of the clone.

    `tips` are the commits of branches and targets by ref. One git process a target, two
    more where something is missing.
    """
    wanted: dict[str, dict[str, str]] = {}
    for record in records:
        tip = tips.get(record.ref)
        target = f"refs/heads/{record.target}"
        if record.state is CloneState.MERGED and tip is not None and tip == record.merged_head and target in tips:
            new = app.registry.landed_on(record.id, tip).get(str(record.target))
            if new is not None:
                wanted.setdefault(str(record.target), {})[record.id] = new
    found: dict[str, Missing] = {}
    for target, landings in wanted.items():
        lacking = _lacking(app, tips[f"refs/heads/{target}"], landings)
        there = upstream_of(app, target) if lacking else None
        gone = set() if there is None else set(_lacking(app, there[1], {one: landings[one] for one in lacking}))
        for clone_id in lacking:
            has = there is not None and clone_id not in gone
            found[clone_id] = Missing(target=target, upstream=there[0] if there is not None and has else None)
    return found


def _lacking(app: App, tip: str, landings: Mapping[str, str]) -> list[str]:
    """Which of the commits a branch does not have."""
    if not landings:
        return []
    walked = app.repository.git("rev-list", *sorted(set(landings.values())), f"^{tip}", check=False)
    lacks = set(walked.text.split()) if walked.status == 0 else set()
    return [clone_id for clone_id, oid in landings.items() if oid in lacks]


def require_not_upstream(app: App, clone: CloneRecord, target: str, source: str) -> None:
    """Raise LandedUpstream where the target here lacks a landing of this very tip that its upstream has."""
    tip = app.repository.read_ref(f"refs/heads/{target}")
    new = app.registry.landed_on(clone.id, source).get(target) if clone.merged_head == source else None
    if new is None or tip is None or moving.contains(app, tip, new):
        return
    there = upstream_of(app, target)
    if there is not None and moving.contains(app, there[1], new):
        raise LandedUpstream(clone.name, target, there[0])


# -- what others have brought there ------------------------------------------------------------


def note(app: App, clone_id: str, target: str) -> None:
    """Record that a clone is merged where its target has its tip by other ways than khlone's, as one of its own."""
    clone = app.registry.clone_by_id(clone_id)
    if clone is None or clone.target != target:
        return
    source, tip = app.repository.read_ref(clone.ref), app.repository.read_ref(f"refs/heads/{target}")
    if source is None or tip is None or not _is_unrecorded(clone, source):
        return
    if moving.contains(app, tip, source) and not _is_targets(app, clone, tip, source):
        _record(app, clone, source)


def note_brought(app: App, target: str, old: str, new: str) -> None:
    """Record the clones that came onto their target as that went from `old` to `new`."""
    listed = app.repository.git(
        "for-each-ref", f"--merged={new}", f"--no-merged={old}", "--format=%(refname)", "refs/heads"
    )
    came = set(listed.text.splitlines())
    for clone in app.registry.clones() if came else []:
        if clone.ref in came:
            note(app, clone.id, target)


def _is_unrecorded(clone: CloneRecord, tip: str) -> bool:
    return clone.state in MERGEABLE and tip not in (clone.base, clone.merged_head)


def _is_targets(app: App, clone: CloneRecord, tip: str, source: str) -> bool:
    """Whether a commit is one that the target itself was at: a branch gets there without any work, by a pull."""
    line = app.repository.git("rev-list", "--first-parent", tip, f"^{clone.base}", check=False)
    return line.status != 0 or source in line.text.split()


def _record(app: App, clone: CloneRecord, source: str) -> bool:
    with contextlib.suppress(CloneNotReady), app.registry.transaction() as change:
        change.move_clone(clone, CloneState.MERGED, from_states=MERGEABLE)
        change.note_merged(clone.id, source)
        return True
    return False


def examine(app: App, *, fix: bool) -> Iterator[Finding]:
    """What the doctor says of clones that have landed where the record, or the target here, knows nothing of it."""
    clones = [one for one in app.registry.clones() if one.state in MERGEABLE and one.target is not None]
    tips = {}
    for ref in {clone.ref for clone in clones} | {f"refs/heads/{clone.target}" for clone in clones}:
        tip = app.repository.read_ref(ref)
        if tip is not None:
            tips[ref] = tip
    for clone in clones:
        tip = tips.get(clone.ref)
        if tip is not None and f"refs/heads/{clone.target}" in tips and _is_unrecorded(clone, tip):
            yield from _unrecorded(app, clone, tip, tips[f"refs/heads/{clone.target}"], fix=fix)
    lost = missing(app, clones, tips)
    for clone in clones:
        found = lost.get(clone.id)
        if found is None or (found.upstream is None and integration.prove(app, clone, tips[clone.ref]) is not None):
            continue
        if found.upstream is not None:
            yield _upstream(clone, found)
        else:
            yield Finding(
                code="landing-lost",
                severity=Severity.WARNING,
                clone=clone.name,
                message=found.told,
                fix=f"land it again: git khlone merge {clone.name}",
            )


def _upstream(clone: CloneRecord, found: Missing, *, fixed: bool = False) -> Finding:
    return Finding(
        code="landed-upstream",
        severity=Severity.WARNING,
        clone=clone.name,
        message=found.told,
        fix=f"git merge {found.upstream} where {found.target} is checked out, or the next git khlone merge --push",
        fixed=fixed,
    )


def _unrecorded(app: App, clone: CloneRecord, tip: str, target_tip: str, *, fix: bool) -> Iterator[Finding]:
    target = str(clone.target)
    if moving.contains(app, target_tip, tip):
        if not _is_targets(app, clone, target_tip, tip):
            yield Finding(
                code="unrecorded-landing",
                severity=Severity.INFO,
                clone=clone.name,
                message=f"{target} has all of {clone.name}, which is not recorded as merged",
                fix="record it: git khlone doctor --fix",
                fixed=fix and _record(app, clone, tip),
            )
        return
    there = upstream_of(app, target)
    if there is not None and moving.contains(app, there[1], tip) and not _is_targets(app, clone, there[1], tip):
        yield _upstream(clone, Missing(target=target, upstream=there[0]), fixed=False)
