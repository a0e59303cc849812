"""What is wrong with this repository's clones, and what of it can be mended?

Scans the admin folders itself, since one broken entry makes git's own commands die.
Without `fix` nothing is changed. With it: dead operations are recovered, a damaged
registry is set aside and rebuilt, our own entries are repaired from the registry, and
what is foreign and poisons the repository is moved to quarantine, never deleted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from khlone import files, sessions, values, worktrees
from khlone.app import App
from khlone.errors import KhloneError, Locked, RegistryCorrupt
from khlone.locks import HeldLock
from khlone.login_rows import RefusedLogin
from khlone.model import GONE_STATES, CloneRecord, CloneState, Finding, Isolation, Severity
from khlone.operations import (
    agents,
    escape,
    githooks,
    inspect,
    isolation_left,
    journal,
    landed,
    names,
    places,
    queue,
    rebuild,
    recovery,
    repair,
    scratch,
    setting_faults,
    sweep,
    undo,
)
from khlone.registry import Operation
from khlone.repository import RefUpdate, null_oid
from khlone.worktrees import AdminEntry

_INITIALIZING_AFTER_S = 60.0
#: What `fix` can mend, most of the time.
MENDED = frozenset(
    {
        *("registry-missing", "registry-corrupt", "interrupted-operation", "unregistered-clone", "left-initializing"),
        *("broken-admin-folder", "admin-missing", "admin-astray", "branch-renamed", "branch-missing", "marker-missing"),
        *("worktree-moved", "worktree-missing", "worktree-copied", "worktree-unlinked", "index-damaged"),
        *("hooks-incomplete", "hooks-astray", "escaped", "leftover-files", "orphan-marker"),
    }
)
#: States that an operation gives to a clone while it works on it.
_MOVING = frozenset({CloneState.CREATING, CloneState.REMOVING, CloneState.MERGING})


def _nothing_offered(_: str) -> bool:
    return False


def diagnose(
    app: App, *, fix: bool = False, host_gone: str | None = None, offer: Callable[[str], bool] = _nothing_offered
) -> list[Finding]:
    """Every finding, most of them with what would mend it; with `fix`, mended where that is safe.

    `offer` is asked before a file of the user's own is changed. `host_gone` names a host
    that will not come back: what it began is mended too.
    """
    if not app.state_dir.exists() and not fix and not rebuild.is_needed(app):
        return [*_foreign_entries(app, fix=False), *_orphan_refs(app, fix=False), *_surroundings(app)]
    if fix:
        app.prepare_state(mending=True)
    findings = list(_registry(app, fix=fix))
    if any(not finding.fixed and finding.severity is Severity.ERROR for finding in findings):
        return [*findings, *_foreign_entries(app, fix=fix), *_surroundings(app)]
    findings += _operations(app, fix=fix, host_gone=host_gone)
    findings += _foreign_entries(app, fix=fix)
    findings += _clones(app, fix=fix)
    findings += landed.examine(app, fix=fix) if app.has_registry else ()
    findings += _escapes(app, fix=fix)
    findings += _containers(app, fix=fix)
    findings += _leftovers(app, fix=fix)
    findings += githooks.examine(app, fix=fix)
    findings += _surroundings(app)
    findings += _agents(app, offer if fix else _nothing_offered)
    findings += _logins(app)
    if app.has_registry:
        findings += app.plugins.diagnose(inspect.list_clones(app, status=False))
    return findings


def _surroundings(app: App) -> Iterator[Finding]:
    yield from _git_works(app)
    yield from setting_faults.examine(app)
    yield from places.examine(app)


def _registry(app: App, *, fix: bool) -> Iterator[Finding]:
    if not app.has_registry:
        if rebuild.is_needed(app):
            yield _rebuilt(app, "registry-missing", "the registry is missing, but clones are there", fix=fix)
        return
    try:
        problems = app.registry.check()
    except RegistryCorrupt as error:
        yield _rebuilt(app, error.code, error.message, fix=fix)
        return
    if problems:
        yield _rebuilt(app, "registry-corrupt", f"the registry is damaged: {problems[0]}", fix=fix)


def _rebuilt(app: App, code: str, message: str, *, fix: bool) -> Finding:
    if fix:
        for note in rebuild.rebuild(app):
            app.told(note)
    return Finding(
        code=code,
        severity=Severity.ERROR,
        message=message,
        fix="rebuild it from admin folders and trash",
        fixed=fix,
    )


def _operations(app: App, *, fix: bool, host_gone: str | None) -> Iterator[Finding]:
    if not app.has_registry:
        return
    if fix:
        for result in recovery.recover(app, host_gone=host_gone, ask=True):
            yield Finding(
                code="interrupted-operation",
                severity=Severity.ERROR,
                clone=result.operation.name,
                message=f"{result.operation.kind} was interrupted" + "".join(f"; {text}" for text in result.messages),
                fix="finish or undo it",
                fixed=result.outcome is not None,
            )
    for operation in app.registry.open_operations():
        if recovery.is_elsewhere(operation.owner) and operation.owner.host != host_gone:
            yield _begun_elsewhere(operation)
        else:
            yield from _interrupted(app, operation, fix=fix)


def _begun_elsewhere(operation: Operation) -> Finding:
    host = operation.owner.host
    return Finding(
        code="begun-elsewhere",
        severity=Severity.WARNING,
        clone=operation.name,
        message=f"{operation.kind} was begun on {host} and has not ended; whether it goes on cannot be told from here",
        fix=f"run khlone on {host}, or, if that is gone for good: git khlone doctor --fix --host-gone {host}",
    )


def _interrupted(app: App, operation: Operation, *, fix: bool) -> Iterator[Finding]:
    lock = app.locks.try_operation(operation.clone_id)
    if lock is None:
        orphans = journal.orphans_of(app, operation, operation.clone_id)
        if orphans:
            yield Finding(
                code="orphaned-process",
                severity=Severity.ERROR,
                clone=operation.name,
                message=f"{operation.kind} was interrupted; its clone is held by {journal.shown_orphans(orphans)}",
                fix=f"let it end, or kill {' '.join(str(one.pid) for one in orphans)}; then git khlone doctor --fix",
            )
        return
    lock.release()
    if fix:
        return
    place = sessions.out_of_sight(operation.owner)
    process = f"pid {operation.owner.pid}" + (f" {place}" if place else "")
    yield Finding(
        code="interrupted-operation",
        severity=Severity.ERROR,
        clone=operation.name,
        message=f"{operation.kind} was interrupted; its process ({process}) is gone",
        fix="finish or undo it: git khlone doctor --fix",
    )


# -- admin folders that are not (or no longer) ours -------------------------------------------


def _known_admins(app: App) -> set[str] | None:
    """The admin folders that the registry knows, `None` when it cannot tell."""
    if not app.has_registry:
        return None if rebuild.is_needed(app) else set()
    try:
        return {clone.admin for clone in app.registry.clones()}
    except KhloneError:
        return None


def _foreign_entries(app: App, *, fix: bool) -> Iterator[Finding]:
    known = _known_admins(app)
    strange = [
        entry for entry in worktrees.entries(app.location.common_dir) if known is None or entry.name not in known
    ]
    if known is not None and strange:
        # Those that came meanwhile are known by now: a clone has its row before its folder.
        known = _known_admins(app)
    for found in strange:
        entry = worktrees.read_entry(found.path)
        if entry is None or (known is not None and entry.name in known):
            continue
        may_be_ours = known is None and entry.marker is not None
        if entry.problem is not None:
            poison = "; git worktree list, branch -a, fetch and gc may fail of it" if entry.is_poison else ""
            yield Finding(
                code="broken-admin-folder",
                severity=Severity.ERROR if entry.is_poison else Severity.WARNING,
                message=f"{entry.path}: {entry.problem}{poison}",
                fix="move it to quarantine" if entry.is_poison else "mend it by hand: it is not khlone's",
                fixed=fix and entry.is_poison and not may_be_ours and _quarantined(app, entry),
            )
        elif entry.locked == "initializing" and _age_s(entry.path / "locked") > _INITIALIZING_AFTER_S:
            yield _initializing(app, entry, fix=fix)
        elif entry.marker is not None and not may_be_ours:
            yield _unregistered(app, entry, fix=fix)


def _quarantined(app: App, entry: AdminEntry) -> bool:
    """Move a poisonous entry away, unless a live git may still be building it."""
    if _age_s(entry.path) < _INITIALIZING_AFTER_S and _may_be_building(app, entry):
        return False
    with app.locks.repository(told=app.told):
        return undo.quarantine(app, entry.path, journal.new_operation_id()) != entry.path


def _may_be_building(app: App, entry: AdminEntry) -> bool:
    """Whether a git lives that may still be making a worktree, or one may that cannot be seen from here."""
    return bool(sessions.git_processes_near([entry.path, app.location.anchor])) or undo.has_unseen(app)


def _initializing(app: App, entry: AdminEntry, *, fix: bool) -> Finding:
    fixed = False
    if fix and not _may_be_building(app, entry):
        (entry.path / "locked").unlink(missing_ok=True)
        fixed = True
    return Finding(
        code="left-initializing",
        severity=Severity.WARNING,
        message=f"{entry.path} was left locked by a killed git worktree add",
        fix="unlock it, so that git worktree prune can take it",
        fixed=fixed,
    )


def _unregistered(app: App, entry: AdminEntry, *, fix: bool) -> Finding:
    fixed = False
    message = f"{entry.worktree} was made by khlone but is not in the registry"
    if fix and entry.marker is not None:
        try:
            clone = journal.from_json(entry.marker, CloneState.READY)
            lock = app.locks.try_operation(clone.id)
            if lock is not None and clone.admin == entry.name:
                with app.registry.transaction() as change:
                    if app.registry.clone_by_id(clone.id) is None:
                        change.insert_clone(clone)
                        fixed = True
                lock.release()
        except (KeyError, ValueError, KhloneError) as error:
            message += f" ({error})"
    return Finding(
        code="unregistered-clone", severity=Severity.WARNING, message=message, fix="register it", fixed=fixed
    )


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


# -- the user's own ------------------------------------------------------------------------


def _agents(app: App, offer: Callable[[str], bool]) -> Iterator[Finding]:
    """The user's files that clones are not seeded with, of the agents that clones have."""
    used = {clone.agent for clone in app.registry.clones() if clone.agent} if app.has_registry else set()
    for name in sorted(used):
        from khlone.operations import agent_changes

        profile = None
        with contextlib.suppress(KhloneError):
            profile = agents.profiles(app, name).get(name)
        if profile is None:
            continue
        for item, source, problem, has_copy in agent_changes.unsound(app, profile):
            question = f"{source} {problem}: put the last good copy back, and keep the bad one beside it?"
            fixed = has_copy and offer(question) and bool(agent_changes.put_back(app, profile))
            yield Finding(
                code="unsound-agent-config",
                severity=Severity.WARNING,
                message=f"{source} {problem}; clones get {'the last good copy' if has_copy else f'no {item.name}'}",
                fix=f"git khlone agents restore {name}" if has_copy else f"start {name} once outside of clones",
                fixed=fixed,
            )


def _logins(app: App) -> Iterator[Finding]:
    """The logins of clones here that an API has refused."""
    clones = app.registry.clones() if app.has_registry else []
    known, used = {clone.id for clone in clones}, {clone.agent for clone in clones}
    refused: list[RefusedLogin] = []
    if used - {None}:
        from khlone.operations import logins

        with contextlib.suppress(KhloneError):  # Of a damaged or newer file is told elsewhere.
            refused = logins.refused(app.environment)
    for one in refused:
        if one.agent in used and (one.variable is None or one.clone in known):
            yield Finding(
                code="login-refused",
                severity=Severity.WARNING,
                clone=one.name if one.variable else None,
                message=logins.said_of(one),
                fix=logins.remedy_of(one),
            )


# -- our clones ---------------------------------------------------------------------------------


def _clones(app: App, *, fix: bool) -> Iterator[Finding]:
    if not app.has_registry:
        return
    for clone in app.registry.clones():
        if clone.state not in _MOVING and any(True for _ in repair.examine(app, clone)):
            yield from _clone(app, clone, fix=fix)


def _clone(app: App, clone: CloneRecord, *, fix: bool) -> Iterator[Finding]:
    """What is wrong with a clone that looked wrong, unless that is the work of another command at this moment."""
    try:
        lock = app.locks.try_operation(clone.id)
    except KhloneError:  # on a disk that is read only nobody works on it
        yield from repair.examine(app, clone)
        return
    if lock is None:
        return
    try:
        current = app.registry.clone_by_id(clone.id)
        if current is None or current.state in _MOVING | GONE_STATES:
            return
        for finding in repair.examine(app, current):
            yield values.replace(finding, fixed=fix and _repaired(app, current, finding, lock))
    finally:
        lock.release()


def _repaired(app: App, clone: CloneRecord, finding: Finding, lock: HeldLock) -> bool:
    try:
        return repair.mend(app, clone, finding.code, lock)
    except (KhloneError, OSError) as error:
        app.told(f"warning: {clone.name} could not be mended: {error}")
        return False


def _escapes(app: App, *, fix: bool) -> Iterator[Finding]:
    """What landed outside of a clone while its session ran; told until somebody says that it is known."""
    for clone in app.registry.clones() if app.has_registry else []:
        found = escape.find(clone)
        if found is not None:
            yield Finding(
                code="escaped",
                severity=Severity.WARNING,
                clone=clone.name,
                message=f"while a session of {clone.name} ran, {found.told}",
                fix="look at it there; then forget it",
                fixed=fix and escape.forget(clone),
            )


def _containers(app: App, *, fix: bool) -> Iterator[Finding]:
    """Containers that nobody sees through any more."""
    for clone in app.registry.clones() if app.has_registry else []:
        if clone.isolation is not Isolation.CONTAINER:
            continue
        left = isolation_left.find(app, clone)
        if left:
            yield Finding(
                code="container-left",
                severity=Severity.WARNING,
                clone=clone.name,
                message=f"a khlone that was killed left {names.listed(list(left))} running",
                fix="remove it",
                fixed=fix and len(isolation_left.end(app, clone)) == len(left),
            )


def _leftovers(app: App, *, fix: bool) -> Iterator[Finding]:
    quarantine = app.state_dir / "quarantine"
    held = sorted(path.name for path in quarantine.iterdir()) if quarantine.is_dir() else []
    if held:
        yield Finding(
            code="quarantine",
            severity=Severity.INFO,
            message=f"{quarantine} holds {len(held)}: {names.shown(', '.join(held[:5]))}",
            fix="look at it and delete what is not needed",
        )
    left = sweep.leftovers(app)
    swept = sweep.sweep(app) if fix else 0
    if fix and app.has_registry:
        queue.mend_pins(app)
        queue.drop_left_candidates(app)
        scratch.end_left(app)
    if left:
        yield Finding(
            code="leftover-files",
            severity=Severity.INFO,
            message=f"killed commands left {names.listed([str(path) for path in left], most=3)}",
            fix="delete them: git khlone doctor --fix",
            fixed=swept >= len(left),
        )
    yield from _orphan_refs(app, fix=fix)


def _orphan_refs(app: App, *, fix: bool) -> Iterator[Finding]:
    """Refs of clones that nothing knows. Listed before the registry is read: a clone has its row before its refs."""
    listed = app.repository.git(
        "for-each-ref",
        "--format=%(objectname) %(refname)",
        "refs/khlone/clones",
        "refs/khlone/approved",
        "refs/khlone/trash",
        check=False,
    )
    known = set(_marked(app))
    if app.has_registry:
        known |= {clone.id for clone in app.registry.clones()} | {record.clone.id for record in app.registry.trash()}
        known |= {operation.clone_id for operation in app.registry.open_operations()}
    for line in listed.text.splitlines():
        oid, ref = line.split(" ", 1)
        parts = ref.split("/")
        if parts[3] in known:
            continue
        if parts[2] == "trash":
            yield Finding(
                code="orphan-trash",
                severity=Severity.WARNING,
                message=f"{ref} holds what a clone was removed with, but its trash entry is gone",
                fix=f"look at it with git log {ref}, keep it with git branch NAME {ref}",
            )
        else:
            yield Finding(
                code="orphan-marker",
                severity=Severity.WARNING,
                message=f"{ref} belongs to no clone that is known here",
                fix=f"git update-ref -d {ref}",
                fixed=fix and _dropped(app, ref, oid),
            )


def _marked(app: App) -> Iterator[str]:
    """The clones that admin folders tell of: those that nothing else knows are found as unregistered."""
    for entry in worktrees.entries(app.location.common_dir):
        if entry.marker is not None:
            yield str(entry.marker.get("id"))


def _dropped(app: App, ref: str, oid: str) -> bool:
    """Delete a marker of nothing, unless it is all that keeps its commit."""
    holders = app.repository.git("for-each-ref", f"--contains={oid}", "--format=%(refname)", check=False)
    if not any(
        not name.startswith(("refs/khlone/clones/", "refs/khlone/approved/")) for name in holders.text.splitlines()
    ):
        return False
    gone = RefUpdate(ref=ref, new=null_oid(oid), old=oid)
    return app.repository.update_refs([gone], reason="khlone: doctor", check=False).status == 0


def _git_works(app: App) -> Iterator[Finding]:
    """Whether git itself can still list the worktrees."""
    if app.location.bare and not files.exists(app.location.common_dir / "worktrees"):
        return
    entries = worktrees.entries(app.location.common_dir)
    if any(worktrees.find_blocking(entry.worktree or entry.path, entry.path) for entry in entries):
        return  # It would wait for ever, and what is wrong is told of that entry.
    try:
        status, _ = app.repository.cold("worktree", "list", "--porcelain")
    except (KhloneError, Locked) as error:
        yield Finding(code="git-fails", severity=Severity.ERROR, message=f"git worktree list fails: {error}")
        return
    if status != 0:
        yield Finding(
            code="git-fails",
            severity=Severity.ERROR,
            message=f"git worktree list fails with exit {status}",
            fix="see the other findings",
        )
