"""Which clones are done with, and which trash is old enough to go?

A clone is done with when its work is integrated, its worktree clean and nothing runs in
it: then it goes to the trash, as `remove` without force would put it there. Trash goes
by age and by total size, oldest first; see purge.py for what stays of it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from khlone.app import App
from khlone.errors import CloneLocked, InvalidSetting, KhloneError, SessionLive, Untouched, UsageError
from khlone.model import CloneRecord, CloneState, Kept, PruneResult, Removed
from khlone.operations import create, fetching, journal, permission, purge, recovery, remove, submodules, sweep, undo
from khlone.registry import TrashRecord
from khlone.setting_table import as_bytes, as_seconds
from khlone.values import dataclass
from khlone.worktrees import read_entry

#: How many trash entries are deleted at once: most of the time goes into waiting for the disk.
_AT_ONCE = 4
#: A clock that is this far ahead of the last operation is doubted before anything goes by age.
_DOUBTFUL_S = 180 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """What `prune` was asked for. With `trash` the trash is pruned instead of the clones.

    With `fetch` it is asked first what has landed on the upstreams of targets meanwhile.
    """

    trash: bool = False
    age: str | None = None
    size: str | None = None
    fetch: bool = False
    dry_run: bool = False


def prune(app: App, request: PruneRequest) -> PruneResult:
    """Remove every clone that is done with, or purge the trash.

    Raises UsageError or InvalidSetting for a bad age or size, NotPermitted inside a session, and
    with `fetch` RemoteFailed, CredentialsMissing or Locked, before anything is removed.
    """
    limits = _limits(app, request) if request.trash else None
    if not request.dry_run:
        permission.require(app, "prune")
    if not app.has_registry:
        return PruneResult(removed=(), kept=(), purged=())
    app.prepare_state()
    _ = app.config_dirs  # Refused now, where it cannot be told, and not half way.
    if not request.dry_run:
        recovery.recover(app)
    if limits is not None:
        kept, purged = _prune_trash(app, *limits, request)
        if not request.dry_run:
            _sweep(app)
            from khlone.operations import from_remote

            from_remote.drop_left_behind(app)
        return PruneResult(removed=(), kept=kept, purged=purged)
    if request.fetch:
        targets = sorted({clone.target for clone in app.registry.clones() if clone.target is not None})
        fetching.fetch_targets(app, targets, dry_run=request.dry_run)
    removed: list[Removed] = []
    left: list[Kept] = []
    clones = app.registry.clones()
    noted = {"together": journal.new_operation_id()}
    for number, clone in enumerate(clones):
        app.progress(number, len(clones), f"looking at {clone.name}")
        try:
            _require_done_with(app, clone)
            removed.append(remove.remove_one(app, clone, force=False, dry_run=request.dry_run, noted=noted))
        except KhloneError as error:
            left.append(remove.kept(clone.name, error))
    if not request.dry_run:
        _sweep(app)
    return PruneResult(removed=removed, kept=left, purged=())


def _sweep(app: App) -> None:
    sweep.sweep(app)
    submodules.forget_handed_over(app)


def _require_done_with(app: App, clone: CloneRecord) -> None:
    """Raise for what `remove` would not mind and a sweep must: a clone just made, locked by hand, or worked from."""
    if app.location.git_dir == undo.admin_path(app, clone) or _is_called_from(app, clone):
        raise SessionLive(clone.name, ["this command"])
    entry = read_entry(undo.admin_path(app, clone))
    if entry is not None and entry.locked is not None and entry.locked != create.lock_reason(clone):
        raise CloneLocked(clone.name, entry.locked)
    if clone.merged_head is None and app.repository.read_ref(clone.ref) == clone.base:
        raise Untouched(clone.name)


def _is_called_from(app: App, clone: CloneRecord) -> bool:
    """Whether a session of the clone, or somebody who stands in it, calls: `remove` leaves its callers aside."""
    if app.environment.get("KHLONE_ID") == clone.id:
        return True
    try:
        here = Path.cwd()
    except OSError:
        return False
    return here.is_relative_to(os.path.realpath(clone.path))


# -- the trash -----------------------------------------------------------------------------


def _limits(app: App, request: PruneRequest) -> tuple[float, int | None]:
    """The age in seconds and the size in bytes beyond which trash goes."""
    try:
        age_s = None if request.age is None else as_seconds("--age", request.age)
        size = None if request.size is None else as_bytes("--size", request.size)
    except InvalidSetting as error:
        option, given = ("--age", request.age) if error.facts["key"] == "--age" else ("--size", request.size)
        hint = "such as --age 12h or 30d, --size 500M or 10G"
        raise UsageError(f"{option} {given!r}: {error.facts['why']}", hint=hint) from error
    return (
        app.settings.trash_age_s if age_s is None else age_s,
        app.settings.trash_size if request.size is None else size,
    )


def _prune_trash(app: App, age_s: float, size: int | None, request: PruneRequest) -> tuple[list[Kept], list[str]]:
    entries = [entry for entry in app.registry.trash() if entry.clone.state is CloneState.TRASHED]
    by_age = request.age is not None or not _is_clock_doubtful(app)
    if not by_age:
        app.told("warning: the clock is far ahead of the last operation here: nothing goes by age (say --age AGE)")
    if by_age and not request.dry_run:
        sweep.forget_undone(app, age_s)
    going = _chosen(entries, age_s if by_age else None, size)
    if going and not request.dry_run:
        size_mib = sum(entry.bytes for entry in going) / (1 << 20)
        app.told(f"deleting {len(going)} of the trash, {size_mib:.1f} MiB")
    # Once, before threads do: what is opened when first used.
    _ = app.repository, app.config_dirs, app.locks
    kept: list[Kept] = []
    purged: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            found = pool.map(lambda entry: _purge_one(app, entry, dry_run=request.dry_run), going)
            for number, entry in enumerate(going):
                app.progress(number, len(going), f"purging {entry.clone.name}")
                error, stays = next(found)
                if error is not None:
                    kept.append(remove.kept(entry.clone.name, error))
                    continue
                purged.append(entry.id)
                if not request.dry_run:
                    what = "its files are deleted, what git has of them stays in trash" if stays else "deleted"
                    app.told(f"{entry.clone.name} ({entry.id}): {what}")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # What was not begun stays in the trash.
            raise
    return kept, purged


def _purge_one(app: App, entry: TrashRecord, *, dry_run: bool) -> tuple[KhloneError | None, bool]:
    """Purge one entry, or see whether that could be; what keeps it, and whether its snapshot stays restorable."""
    try:
        if dry_run:
            purge.require_second_copy(app, entry)
            return None, True
        return None, purge.purge(app, entry)
    except KhloneError as error:
        return error, True
    except OSError as error:
        return KhloneError(str(error)), True
    finally:
        app.registry.close()


def _chosen(entries: Sequence[TrashRecord], age_s: float | None, size: int | None) -> list[TrashRecord]:
    """Oldest first: what is too old, then what is too much. An entry without a folder has gone already."""
    oldest_first = [entry for entry in reversed(entries) if entry.bytes > 0 or entry.holds.ignored > 0]
    now = datetime.datetime.now(datetime.UTC)
    going = [entry for entry in oldest_first if age_s is not None and _age_s(entry, now) > age_s]
    if size is not None:
        left = sum(entry.bytes for entry in oldest_first) - sum(entry.bytes for entry in going)
        for entry in oldest_first:
            if left <= size:
                break
            if entry not in going:
                going.append(entry)
                left -= entry.bytes
    return going


def _age_s(entry: TrashRecord, now: datetime.datetime) -> float:
    """Never negative: a clock that was set back makes nothing young that is old, and nothing old."""
    return max(0.0, (now - datetime.datetime.fromisoformat(entry.removed_at)).total_seconds())


def _is_clock_doubtful(app: App) -> bool:
    last = app.registry.operations(limit=1)
    if not last:
        return False
    then = datetime.datetime.fromisoformat(last[0].started_at)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds() > _DOUBTFUL_S
