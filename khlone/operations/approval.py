"""Which commit of a clone has somebody looked at and approved, and may another one land?

An approval is a ref, `refs/khlone/approved/<clone id>`, at the very commit that was looked
at: a later commit is not approved, and what was approved is never collected meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from khlone.app import App
from khlone.errors import CloneNotReady, NotApproved, UsageError
from khlone.model import CloneRecord
from khlone.operations import permission
from khlone.repository import RefUpdate, null_oid
from khlone.values import dataclass

REFS = "refs/khlone/approved/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A clone and its commit that was approved; it is `valid` while that is the tip of the clone's branch."""

    name: str
    oid: str
    valid: bool


def approved(app: App) -> list[Approved]:
    """Every approval of a clone that is there, by name."""
    if not app.has_registry:
        return []
    listed = app.repository.git("for-each-ref", "--format=%(objectname) %(refname)", REFS).text.splitlines()
    oids = {ref.removeprefix(REFS): oid for oid, ref in (line.split(" ", 1) for line in listed)}
    found = []
    for clone in app.registry.clones():
        oid = oids.get(clone.id)
        if oid is not None:
            found.append(Approved(name=clone.name, oid=oid, valid=app.repository.read_ref(clone.ref) == oid))
    return sorted(found, key=lambda one: one.name)


def approve(app: App, names: Sequence[str | None], *, head: str | None = None) -> list[Approved]:
    """Approve the tip of each named clone as it is now; with `head` only where that is the tip.

    Raises NoSuchClone, UsageError, NotPermitted inside a session, CloneNotReady where a branch
    is gone, or NotApproved where the tip is not `head`; then nothing is approved.
    """
    clones = [app.require_clone(name) for name in dict.fromkeys(names)]
    permission.require(app, "approve")
    if head is not None and len(clones) != 1:
        raise UsageError("--head is the commit of one clone", hint="git khlone approve NAME --head OID")
    app.prepare_state()
    wanted = None if head is None else app.repository.resolve_commit(head, cwd=app.location.worktree)
    updates, found = [], []
    for clone in clones:
        tip = app.repository.read_ref(clone.ref)
        if tip is None:
            raise CloneNotReady(clone.name, "broken", f"its branch {clone.branch} is gone")
        if wanted not in (None, tip):
            raise NotApproved(
                clone.name, tip, f"{wanted} was looked at", hint=f"look again: git khlone diff {clone.name}"
            )
        old = app.repository.read_ref(REFS + clone.id)
        updates.append(RefUpdate(ref=REFS + clone.id, new=tip, old=old or null_oid(tip)))
        found.append(Approved(name=clone.name, oid=tip, valid=True))
    app.repository.update_refs(updates, reason="khlone: approve")
    return found


def withdraw(app: App, names: Sequence[str | None]) -> list[Approved]:
    """Take approvals back, and return those that were there; raises NoSuchClone or NotPermitted."""
    clones = [app.require_clone(name) for name in dict.fromkeys(names)]
    permission.require(app, "approve")
    there = {one.name: one for one in approved(app)}
    for clone in clones:
        forget(app, clone)
    return [there[clone.name] for clone in clones if clone.name in there]


def require(app: App, clone: CloneRecord, source: str) -> None:
    """Raise NotApproved where the settings want an approval and that commit has none."""
    if app.settings.approval_required and app.repository.read_ref(REFS + clone.id) != source:
        raise NotApproved(clone.name, source, "nobody has approved it")


def forget(app: App, clone: CloneRecord) -> None:
    """Let go of the approval of a clone, if it has one."""
    oid = app.repository.read_ref(REFS + clone.id)
    if oid is not None:
        gone = RefUpdate(ref=REFS + clone.id, new=null_oid(oid), old=oid)
        app.repository.update_refs([gone], reason="khlone: approve", check=False)
