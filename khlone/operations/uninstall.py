"""How does a repository, and an account, get rid of khlone again?

What acts is taken away: git hooks, refs, the lock on clones' worktrees, what `setup` put in
the user's start files. With `everything` the records go too: registry, trash and private
folders. Worktrees and branches stay as they are, plain ones of git. Nothing that is the only
copy of anything goes: a ref whose commits no branch has, a trash entry with more than that,
a config dir that an agent wrote to. Such things are named with their place.

Every step does nothing where it is done already: after a kill the same command goes on. The
state folder goes last and by one rename, when nothing is left in it that anybody needs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import faults, files, plugin_log, plugin_times, trust, worktrees
from khlone.app import App
from khlone.config_dir import MARKER as CONFIG_MARKER
from khlone.config_dir import cache_root, state_root
from khlone.errors import CloneBusy, KhloneError, SessionLive
from khlone.generated import RECORD_FILE
from khlone.machine import DATABASE_FILE
from khlone.model import CloneRecord, CloneState
from khlone.operations import create, githooks, hook_places, journal, permission, purge, recovery, setup, standing
from khlone.operations.setup import FileChange
from khlone.operations.undo import admin_path
from khlone.port_leases import LEASE_FILE, LOCK_FILE
from khlone.registry import TrashRecord
from khlone.repository import RefUpdate, null_oid
from khlone.trust import Approvals
from khlone.values import dataclass

#: Beside the state folder: what it is called while it is deleted.
ASIDE = "khlone-leaving"
#: Beside an agent's seeds: what its settings were before `agents install`.
_AGENT_HOOKS = "hooks.json"
_WHERE_REFS_STAY = ("refs/heads", "refs/tags", "refs/remotes")
#: What is the whole account's, and goes with the last repository.
_LOGS = tuple(f"{name}{older}" for name in (plugin_log.LOG_FILE, plugin_times.FILE) for older in ("", ".1"))
_OF_ACCOUNT = (trust.FILE, "trust.lock", *_LOGS, LOCK_FILE, "plugins/deps", "hooks", "reports")
#: Places, slots, limits and usage.
_OF_MACHINE = (DATABASE_FILE, f"{DATABASE_FILE}-journal", "machine.lock", "leases")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that went, or stays and why; `asked` says that it stays although it was asked for."""

    kind: str
    what: str
    why: str | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What went, or in a dry run would go, and what stays."""

    removed: Sequence[Part]
    kept: Sequence[Part]
    done: bool


def uninstall(app: App, shell: Sequence[FileChange], *, everything: bool = False, dry_run: bool = False) -> Report:
    """Take khlone out of the repository and carry out the changes to the user's start files.

    Raises NotPermitted inside a session, and with `everything` SessionLive while one runs
    and CloneBusy while a command works on a clone, all before anything is changed.
    """
    leaving = _Leaving(everything=everything, dry_run=dry_run)
    if not dry_run:
        permission.require(app, "uninstall")
        if app.has_registry:
            recovery.recover(app)
    if everything:
        _require_idle(app)
    if app.state_dir.exists():
        _leave_repository(app, leaving)
    leaving.shell(shell)
    _leave_agents(app, leaving)
    if everything:
        _finish_state(app, leaving)
        _leave_account(app, leaving)
    if not dry_run:
        faults.point("uninstall.finished")
    return Report(removed=leaving.removed, kept=leaving.kept, done=bool(leaving.removed) and not dry_run)


class _Leaving:
    """What went and what stays, as it is found."""

    def __init__(self, *, everything: bool, dry_run: bool) -> None:
        self.everything, self.dry_run = everything, dry_run
        self.removed: list[Part] = []
        self.kept: list[Part] = []

    def remove(self, kind: str, what: object) -> bool:
        """Note that something goes; says whether to do it."""
        self.removed.append(Part(kind=kind, what=str(what)))
        return not self.dry_run

    def keep(self, kind: str, what: object, why: str, *, asked: bool = True) -> None:
        """Note that something stays."""
        self.kept.append(Part(kind=kind, what=str(what), why=why, asked=asked))

    def point(self, name: str) -> None:
        """A fault point of a step that was taken."""
        if not self.dry_run:
            faults.point(name)

    def shell(self, changes: Sequence[FileChange]) -> None:
        """Take away what `setup` has put in the user's files."""
        for change in changes:
            self.remove("shell", change.path)
        if not self.dry_run:
            setup.carry_out(changes)
        self.point("uninstall.shell")


def _require_idle(app: App) -> None:
    if not app.has_registry:
        return
    names = {clone.id: clone.name for clone in app.registry.clones()}
    for session in app.registry.live_sessions():
        if standing.may_live(session):
            raise SessionLive(names.get(session.clone_id, session.clone_id), [f"pid {session.owner.pid}"])
    for operation in app.registry.open_operations():
        raise CloneBusy(operation.name, f"{operation.kind} {operation.id}")


# -- the repository ------------------------------------------------------------------------------


def _leave_repository(app: App, leaving: _Leaving) -> None:
    hooks = githooks.remove(app, dry_run=leaving.dry_run)
    for path in hooks.changed:
        leaving.remove("git-hook", path)
    for note in hooks.notes:
        leaving.keep("git-hook", hook_places.hooks_dir(app), note)
    leaving.point("uninstall.hooks")
    for clone in app.registry.clones() if app.has_registry else ():
        try:
            _leave_clone(app, clone, leaving)
        except KhloneError as error:
            leaving.keep("clone", clone.name, error.message)
    leaving.point("uninstall.clones")
    _drop_refs(app, leaving)
    leaving.point("uninstall.refs")
    entries = app.registry.trash() if app.has_registry else []
    for entry in entries:
        _leave_trash(app, entry, leaving)
    if not leaving.dry_run:
        for folder in ("refs/khlone", "logs/refs/khlone"):
            _drop_empty_folders(app.location.common_dir / folder)
        _drop_empty(app.location.common_dir / "worktrees")  # as git does behind the last one
    leaving.point("uninstall.trash")
    if not leaving.everything:
        leaving.keep("registry", app.state_dir, "the record of clones, and the trash; --all deletes them", asked=False)


def _leave_clone(app: App, clone: CloneRecord, leaving: _Leaving) -> None:
    """Make a plain worktree of a clone; with everything its record goes too."""
    with journal.held(app, clone.id, clone.name) if not leaving.dry_run else contextlib.nullcontext():
        admin = admin_path(app, clone)
        entry = worktrees.read_entry(admin)
        if entry is not None and entry.locked == create.lock_reason(clone) and leaving.remove("lock", admin / "locked"):
            (admin / "locked").unlink()
        if not leaving.everything:
            return
        _drop_config_dir(app, clone, leaving)
        is_marked = entry is not None and entry.marker is not None and entry.marker.get("id") == clone.id
        if is_marked and leaving.remove("marker", admin / worktrees.MARKER):
            (admin / worktrees.MARKER).unlink()
        if leaving.remove("record", clone.name):
            with app.registry.transaction() as change:
                change.delete_clone(clone.id)


def _drop_config_dir(app: App, clone: CloneRecord, leaving: _Leaving) -> None:
    place = app.config_dirs.clone_path(clone.id)
    if not files.exists(place):
        return
    if _holds_files(place):
        leaving.keep("config-dir", place, f"what the agent of {clone.name} wrote; delete it when nobody wants it")
    elif leaving.remove("config-dir", place):
        files.remove_tree(place)


def _holds_files(place: Path) -> bool:
    """Whether anything lies in a clone's private folder beside what khlone itself keeps there."""
    own = {CONFIG_MARKER, LEASE_FILE, RECORD_FILE, "base", "cache", "keys", "logs", "run"}
    rest = [place / name for name in os.listdir(place) if name not in own]
    return any(not path.is_dir() or any(names for _, _, names in os.walk(path)) for path in rest)


def _drop_refs(app: App, leaving: _Leaving) -> None:
    """Delete every ref of khlone's whose commits some branch, tag or remote branch has."""
    listed = app.repository.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/khlone")
    gone: list[RefUpdate] = []
    busy = {
        word for one in (app.registry.open_operations() if app.has_registry else ()) for word in (one.id, one.clone_id)
    }
    for line in listed.text.splitlines():
        oid, _, ref = line.partition(" ")
        if ref.startswith("refs/khlone/trash/"):
            continue  # with its entry
        if busy.intersection(ref.split("/")):
            leaving.keep("ref", ref, "another command works with it")
        elif not _is_elsewhere(app, oid):
            leaving.keep("ref", ref, f"no branch has its commit: git branch NAME {ref}, or git update-ref -d {ref}")
        elif leaving.remove("ref", ref):
            gone.append(RefUpdate(ref=ref, new=null_oid(oid), old=oid))
    if gone:
        app.repository.update_refs(gone, reason="khlone: uninstall")


def _is_elsewhere(app: App, oid: str) -> bool:
    asked = ("for-each-ref", "--count=1", f"--contains={oid}", *_WHERE_REFS_STAY)
    done = app.repository.git(*asked, check=False)
    return done.status == 0 and bool(done.text.strip())


def _leave_trash(app: App, entry: TrashRecord, leaving: _Leaving) -> None:
    """Purge a trash entry that holds nothing which is not in a branch; anything else stays where it is."""
    name, hint = f"{entry.clone.name} ({entry.id})", f"git khlone restore {entry.id}"
    if not leaving.everything:
        return
    if entry.clone.state is not CloneState.TRASHED:
        leaving.keep("trash", name, "another command works on it")
    elif entry.holds.ignored:
        leaving.keep("trash", name, f"it has ignored files; {hint}, or git khlone prune --trash --age 0s deletes them")
    elif not _is_elsewhere(app, entry.snapshot):
        leaving.keep("trash", name, f"no branch has all of it; {hint}")
    else:
        try:
            purge.require_second_copy(app, entry)
            if leaving.remove("trash", name):
                purge.purge(app, entry)
        except KhloneError as error:
            leaving.keep("trash", name, error.message)


# -- what is left when nobody needs it -------------------------------------------------------------


def _finish_state(app: App, leaving: _Leaving) -> None:
    """Withdraw approvals, delete the private folders and at last the state folder, where nothing holds them."""
    aside = app.location.common_dir / ASIDE
    if not app.state_dir.exists():
        if files.exists(aside) and leaving.remove("registry", aside):
            files.remove_tree(aside)
        return
    _withdraw(app, leaving)
    private = state_root(app.environment) / "repositories" / app.repository_id
    if not leaving.dry_run:
        _drop_empty_folders(private)
        leaving.point("uninstall.private")
    if not leaving.dry_run and files.exists(private) and not any(one.kind == "config-dir" for one in leaving.kept):
        leaving.keep("config-dir", private, "it has files of clones that nothing here tells of")
    why = next(_needs(app, leaving), None)
    if why is not None:
        leaving.keep("registry", app.state_dir, why)
    elif leaving.remove("registry", app.state_dir):
        files.remove_tree(aside)
        with app.locks.repository(told=app.told):
            _rename_aside(app, aside)
        leaving.point("uninstall.state")
        app.registry.close()
        files.remove_tree(aside)


def _needs(app: App, leaving: _Leaving) -> Iterator[str]:
    """Why the state folder has to stay."""
    staying = [part.what for part in leaving.kept if part.kind in ("trash", "clone")]
    if staying:
        yield f"it holds {', '.join(staying)}"
    quarantine = app.state_dir / "quarantine"
    if quarantine.is_dir() and any(quarantine.iterdir()):
        yield f"{quarantine} holds what could not be judged; look at it and delete what is not needed"
    trash = app.state_dir / "trash"
    if not leaving.dry_run and trash.is_dir() and any(names for _, _, names in os.walk(trash)):
        yield f"{trash} holds files that no trash entry tells of"


def _rename_aside(app: App, aside: Path) -> None:
    """Let the state folder vanish at once: whoever works with it meanwhile finds its lock lost and takes back."""
    if not app.has_registry:
        files.rename_new(app.state_dir, aside)
        return
    with app.registry.transaction() as change:
        if change.clones() or app.registry.trash() or app.registry.open_operations():
            raise CloneBusy("this repository", "a command that began meanwhile")
        files.rename_new(app.state_dir, aside)


def _withdraw(app: App, leaving: _Leaving) -> None:
    """Forget what was approved in this repository."""
    approvals = Approvals.of_user(app.environment)
    here = trust.identity(app.location)
    own = [one for one in approvals.load().values() if trust.is_of(one, here)]
    for one in own:
        leaving.remove("approval", one.event if one.name is None else f"{one.event} ({one.name})")
    if own and not leaving.dry_run:
        approvals.withdraw(here)


def _leave_agents(app: App, leaving: _Leaving) -> None:
    """Take the hooks out of the user's settings of agents, where `agents install` has put them."""
    records = sorted((state_root(app.environment) / "agents").glob(f"*/{_AGENT_HOOKS}"))
    if not records:
        return
    from khlone.operations import agent_hooks, agents

    known = agents.profiles(app)
    for record in records:
        name = record.parent.name
        if name not in known:
            leaving.keep("agent-hooks", record, f"no plugin knows agent {name} any more", asked=False)
            continue
        try:
            if not leaving.dry_run:
                agent_hooks.uninstall(app, known[name])
        except KhloneError as error:
            leaving.keep("agent-hooks", name, error.message)
        else:
            leaving.remove("agent-hooks", name)
        if not leaving.dry_run:
            _drop_empty(record.parent)


def _leave_account(app: App, leaving: _Leaving) -> None:
    """Delete what khlone keeps for the account, with the last repository that it was used in."""
    root, cache = state_root(app.environment), cache_root(app.environment)
    if leaving.dry_run:
        return
    _drop_empty_folders(root / "repositories")
    if files.exists(root / "repositories") or Approvals(root / trust.FILE).load():
        if files.exists(root):
            leaving.keep("account", root, "other repositories, or what stays of this one, use it", asked=False)
        return
    for path in (*(root / name for name in (*_OF_ACCOUNT, *_OF_MACHINE)), cache):
        if files.exists(path) and leaving.remove("account", path):
            files.remove_tree(path)
    _drop_empty(root / "plugins")
    _drop_empty(root)
    if files.exists(root):
        leaving.keep("account", root, "it holds what khlone cannot judge", asked=False)
    leaving.point("uninstall.account")


def _drop_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _drop_empty_folders(folder: Path) -> None:
    """Delete the folders below and the folder itself, as far as they hold no file."""
    for parent, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(parent)
