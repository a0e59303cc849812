"""How are khlone's git hooks put in, and taken away without a trace?

Two ways. For the whole repository the script stands in the folder where git looks for
hooks, and each hook that was there is kept beside it as NAME.khlone-chained and called.
For clones alone, `core.hooksPath` in a clone's own `config.worktree` names a folder of
khlone's whose hooks call what would be in force without it. What is about to change is
written down first; every step leaves the hooks of others in force and may be repeated.
docs/decisions/0005-git-hooks.md weighs the ways.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from khlone import files, worktrees
from khlone.app import App
from khlone.errors import HooksInTheWay, KhloneError
from khlone.model import CloneRecord, CloneState, Finding, Severity
from khlone.operations import config_edits, hook_places, undo
from khlone.operations.config_edits import Edit
from khlone.operations.hook_places import CHAINED, EXTENSION, KEY, NAMES, Hook, Record, Report, Scope
from khlone.values import replace

#: The others that a folder for clones has to stand for, whether they are there already or come later.
_PASSED_ON = (
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "commit-msg",
    "pre-rebase",
    "pre-push",
    "pre-auto-gc",
    "sendemail-validate",
)
#: Those whose mere presence costs or changes something: only where they are there already.
_IF_THERE = ("post-index-change", "pre-receive", "update", "post-receive", "post-update", "push-to-checkout")
_USABLE = (CloneState.READY, CloneState.MERGED, CloneState.ADOPTED)


# -- putting in ---------------------------------------------------------------------------------


def install(app: App, scope: Scope, *, dry_run: bool = False) -> Report:
    """Put the hooks in, or complete and renew what is there; raises HooksInTheWay before any change."""
    if not dry_run:
        app.prepare_state()
    with _alone(app, dry_run=dry_run):
        record = hook_places.load_record(app)
        if record is not None and record.scope is not scope:
            raise HooksInTheWay(
                f"hooks are installed already for {'the whole repository' if scope is Scope.CLONES else 'clones'}",
                hint="git khlone hooks remove",
            )
        put = _install_all if scope is Scope.ALL else _install_clones
        changed, notes = put(app, record, dry_run=dry_run)
    found = hook_places.status(app)
    return replace(found, scope=scope, changed=changed, done=bool(changed) and not dry_run, notes=notes)


@contextlib.contextmanager
def _alone(app: App, *, dry_run: bool) -> Iterator[None]:
    """No other khlone changes hooks meanwhile, and what a killed one left is gone."""
    if dry_run:
        yield
        return
    with app.locks.repository(told=app.told):
        config_edits.clear(_configs(app))
        yield


def _configs(app: App) -> list[Path]:
    """The configuration of the repository and of each worktree, be it there or not."""
    common = app.location.common_dir
    return [common / "config", *(path / "config.worktree" for path in (common, *common.glob("worktrees/*")))]


def _sweep(folder: Path) -> None:
    """Take away the scripts that a killed khlone had not put in place yet."""
    for name in NAMES:
        for left in folder.glob(f".{name}.*.tmp"):
            if hook_places.is_ours(left) or left.stat().st_size == 0:
                left.unlink()


def _install_all(app: App, record: Record | None, *, dry_run: bool) -> tuple[list[Path], list[str]]:
    folder = hook_places.common_folder(app)
    if record is not None and record.folder != folder:
        raise HooksInTheWay(
            f"hooks are installed in {record.folder}, but git looks in {folder} now", hint="git khlone hooks remove"
        )
    standing = [hook_places.stand(folder, name) for name in NAMES]
    for hook in standing:
        if hook.state == "unchained" or hook.path.is_dir():
            raise HooksInTheWay(
                f"{hook.path} is not khlone's, and {hook.chained or 'it'} is there too",
                hint="look at both and move one of them away",
                path=hook.path,
            )
    changed = [hook.path for hook in standing if hook.state in ("missing", "outdated")]
    if dry_run or (record is not None and not changed):
        return changed, []
    if record is None:
        _begin(app, Record(scope=Scope.ALL, folder=folder, made_folder=not files.exists(folder), clones={}))
    with files.explained(folder):
        folder.mkdir(exist_ok=True)
        _sweep(folder)
        for hook in standing:
            _put_script(hook)
    return changed, []


def _begin(app: App, record: Record) -> None:
    for part in ("hooks", "run"):
        files.make_private_dir(app.state_dir / part)
    hook_places.save_record(app, record)


def _put_script(hook: Hook) -> None:
    """Keep the hook that is there under another name, by a second link, and only then let the script replace it."""
    if hook.state not in ("missing", "outdated"):
        return
    chained = hook.path.with_name(hook.name + CHAINED)
    if hook.state == "missing" and files.exists(hook.path) and not files.exists(chained):
        try:
            os.link(hook.path, chained, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a file system without links: one moment without the hook
            os.rename(hook.path, chained)
    _write_script(hook.path)


def _write_script(path: Path) -> None:
    files.write_atomic(path, hook_places.script(), mode=0o777)


def _install_clones(app: App, record: Record | None, *, dry_run: bool) -> tuple[list[Path], list[str]]:
    folder, common = hook_places.hooks_dir(app), app.location.common_dir
    clones = [clone for clone in _clones(app) if _can_join(app, clone)]
    joining = [clone for clone in clones if _own_value(app, clone) != os.fspath(folder)]
    extended = hook_places.is_extended(app)
    if not extended:
        _require_plain_config(app)
    changed = [path for path in _script_paths(app) if not _is_current(path)]
    changed += [] if extended else [common / "config"]
    changed += [undo.admin_path(app, clone) / "config.worktree" for clone in joining]
    notes = [] if clones else ["there are no clones yet; run this again when there are, or set khlone.hooks to clones"]
    if dry_run:
        return changed, notes
    if record is None:
        record = Record(scope=Scope.CLONES, folder=folder, clones={})
        _begin(app, record)
    _fill_folder(app)
    if not extended:
        edit = config_edits.plan(app, common / "config", EXTENSION, "true")
        record = replace(record, extension=edit)
        _put_planned(app, record, common / "config", edit)
    for clone in joining:
        record = _join(app, record, clone)
    return changed, notes


def join(app: App, clone: CloneRecord) -> list[str]:
    """Let a new clone have the hooks that clones are to have here; returns what stood in the way."""
    try:
        record = hook_places.load_record(app)
        if record is None:
            install(app, Scope.CLONES)
        elif record.scope is Scope.CLONES:
            with app.locks.repository(told=app.told):
                _join(app, hook_places.load_record(app) or record, clone)
    except KhloneError as error:
        return [f"git hooks are not installed for {clone.name}: {error.message}"]
    return []


def _join(app: App, record: Record, clone: CloneRecord) -> Record:
    admin = undo.admin_path(app, clone)
    path = admin / "config.worktree"
    own = config_edits.value_in(app, path, KEY)
    if own is not None and own != os.fspath(record.folder):
        files.write_atomic(admin / "khlone-former", os.fsencode(own) + b"\n", mode=0o666)
    edit = config_edits.plan(app, path, KEY, os.fspath(record.folder))
    record = replace(record, clones={**record.clones, clone.id: edit})
    _put_planned(app, record, path, edit)
    return record


def _put_planned(app: App, record: Record, path: Path, edit: Edit) -> None:
    hook_places.save_record(app, record)
    if not config_edits.put_in(path, edit):
        raise HooksInTheWay(f"{path} was changed by another program meanwhile", hint="run the same command again")


def _clones(app: App) -> list[CloneRecord]:
    return [clone for clone in app.registry.clones() if clone.state in _USABLE] if app.has_registry else []


def _can_join(app: App, clone: CloneRecord) -> bool:
    entry = worktrees.read_entry(undo.admin_path(app, clone))
    return entry is not None and entry.problem is None


def _own_value(app: App, clone: CloneRecord) -> str | None:
    return config_edits.value_in(app, undo.admin_path(app, clone) / "config.worktree", KEY)


def _require_plain_config(app: App) -> None:
    """What `extensions.worktreeConfig` would change beside letting clones have a configuration of their own."""
    common = app.location.common_dir
    config = common / "config"
    for key, without in (("core.bare", "false"), ("core.worktree", None)):
        value = config_edits.value_in(app, config, key)
        if value is not None and value.lower() != without:
            raise HooksInTheWay(
                f"{config} sets {key}, which would reach into clones once they have a configuration of their own",
                hint="git khlone hooks install --all",
            )
    asleep = [path for path in _worktree_configs(app) if path.parent.parent.name != "trash"]
    if asleep:
        raise HooksInTheWay(
            f"{asleep[0]} would come into force with {EXTENSION}, which is off",
            hint="look at it, and set extensions.worktreeConfig yourself, or move it away",
        )


def _script_paths(app: App) -> list[Path]:
    shared = hook_places.shared_value(app)
    former = app.location.common_dir / "hooks" if shared is None else Path(shared[0])
    there = [name for name in _IF_THERE if former.is_absolute() and os.access(former / name, os.X_OK)]
    return [hook_places.hooks_dir(app) / name for name in (*NAMES, *_PASSED_ON, *there)]


def _is_current(path: Path) -> bool:
    return files.read_regular(path) == hook_places.script() and os.access(path, os.X_OK)


def _fill_folder(app: App) -> None:
    """The scripts, and what says which folder they hand over to."""
    folder = files.make_private_dir(hook_places.hooks_dir(app))
    shared = hook_places.shared_value(app)
    former, content = folder / "khlone-former", os.fsencode("" if shared is None else shared[0]) + b"\n"
    if files.read_regular(former) != content:
        files.write_atomic(former, content)
    for path in _script_paths(app):
        if not _is_current(path):
            _write_script(path)


# -- taking away --------------------------------------------------------------------------------


def remove(app: App, *, dry_run: bool = False) -> Report:
    """Take the hooks away: folders and configuration are as they were before."""
    if not app.state_dir.exists():
        return hook_places.status(app)
    with _alone(app, dry_run=dry_run):
        record = hook_places.load_record(app)
        folders = [] if record is None or record.scope is Scope.CLONES else [record.folder]
        if record is None:  # its record lost: what is ours still says so itself
            with contextlib.suppress(HooksInTheWay):
                folders = [hook_places.common_folder(app)]
        changed: list[Path] = []
        notes: list[str] = []
        for folder in folders:
            for name in NAMES:
                _remove_script(hook_places.stand(folder, name), changed, notes, dry_run=dry_run)
            if not dry_run:
                _sweep(folder)
        changed += _leave(app, record, dry_run=dry_run)
        if not dry_run and not notes:
            _remove_traces(app, record)
    found = hook_places.status(app)
    return replace(found, changed=changed, done=bool(changed) and not dry_run, notes=notes)


def _remove_script(hook: Hook, changed: list[Path], notes: list[str], *, dry_run: bool) -> None:
    chained = hook.path.with_name(hook.name + CHAINED)
    if hook.state == "unchained":
        notes.append(f"{hook.path} has replaced khlone's hook; what that had called is kept as {chained}")
        return
    if hook.state == "missing":
        if files.exists(chained):  # linked, and killed before the script was in its place
            changed.append(chained)
            if not dry_run and files.exists(hook.path):
                os.unlink(chained)
            elif not dry_run:
                os.replace(chained, hook.path)
        return
    changed.append(hook.path)
    if dry_run:
        return
    if files.exists(chained):
        os.replace(chained, hook.path)
    else:
        os.unlink(hook.path)
    files.sync_dir(hook.path.parent)


def _worktree_configs(app: App) -> list[Path]:
    """Every configuration of one worktree: of the main one, of linked ones, of those in the trash."""
    common = app.location.common_dir
    found = [common / "config.worktree", *sorted((common / "worktrees").glob("*/config.worktree"))]
    found += sorted((app.state_dir / "trash").glob("*/*/admin/config.worktree"))
    return [path for path in found if files.exists(path)]


def _leave(app: App, record: Record | None, *, dry_run: bool) -> list[Path]:
    """Take our `core.hooksPath` out of every worktree's configuration, and the extension that nothing needs then."""
    ours = os.fspath(hook_places.hooks_dir(app))
    changed = []
    for path in _worktree_configs(app):
        if config_edits.value_in(app, path, KEY) != ours:
            continue
        changed.append(path)
        if not dry_run:
            former = path.with_name("khlone-former")
            _take_out(app, path, record, files.read_regular(former))
            former.unlink(missing_ok=True)
    config = app.location.common_dir / "config"
    if record is None or record.extension is None or (not dry_run and _worktree_configs(app)):
        return changed
    if not dry_run:
        config_edits.take_out(app, config, EXTENSION, record.extension)
    return [*changed, config]


def _take_out(app: App, path: Path, record: Record | None, former: bytes | None) -> None:
    edit = _edit_of(path.parent, record)
    if former is not None and (edit is None or files.read_regular(path) != edit.after):
        value = os.fsdecode(former.removesuffix(b"\n"))
        config_edits.put_in(path, config_edits.plan(app, path, KEY, value))
        return
    config_edits.take_out(app, path, KEY, edit)


def _edit_of(admin: Path, record: Record | None) -> Edit | None:
    """What was written down for the clone of an admin folder, wherever that is now."""
    entry = worktrees.read_entry(admin)
    if entry is None or entry.marker is None or record is None:
        return None
    return record.clones.get(str(entry.marker.get("id")))


def _remove_traces(app: App, record: Record | None) -> None:
    if record is not None and record.made_folder:
        with contextlib.suppress(OSError):
            os.rmdir(record.folder)
    files.remove_tree(hook_places.hooks_dir(app))
    for pattern in ("*.moves", "*.moves.count", "*.moves.before"):
        for path in (app.state_dir / "run").glob(pattern):
            path.unlink(missing_ok=True)
    hook_places.record_path(app).unlink(missing_ok=True)
    for part in ("hooks", "run"):
        with contextlib.suppress(OSError):
            os.rmdir(app.state_dir / part)


# -- what the doctor asks -----------------------------------------------------------------------


def examine(app: App, *, fix: bool) -> Iterator[Finding]:
    """What a killed installation left, what somebody replaced, and clones whose hooks are looked for in no folder."""
    record = hook_places.load_record(app)
    if record is not None:
        folder = record.folder
        paths = _script_paths(app) if record.scope is Scope.CLONES else []
        bad = [*config_edits.dead_locks(_configs(app)), *(path for path in paths if not _is_current(path))]
        bad += [
            hook.path
            for hook in (hook_places.stand(folder, name) for name in NAMES if record.scope is Scope.ALL)
            if hook.state not in ("installed", "displaced")
        ]
        if bad:
            yield Finding(
                code="hooks-incomplete",
                severity=Severity.WARNING,
                message=f"khlone's git hooks are not all in place, for one {bad[0]}",
                fix=f"git khlone hooks install --{record.scope.value}",
                fixed=fix and _is_done(app, record.scope),
            )
    elif any(config_edits.value_in(app, path, KEY) == os.fspath(hook_places.hooks_dir(app)) for path in _suspects(app)):
        yield Finding(
            code="hooks-astray",
            severity=Severity.ERROR,
            message="core.hooksPath of a clone names a folder of khlone's that is gone: no hook runs there",
            fix="git khlone hooks remove",
            fixed=fix and remove(app).done,
        )


def _suspects(app: App) -> list[Path]:
    """Configurations of worktrees that may name our folder, without asking git about each."""
    ours = b"khlone/hooks/clones"
    return [path for path in _worktree_configs(app) if ours in (files.read_regular(path) or b"")]


def _is_done(app: App, scope: Scope) -> bool:
    with contextlib.suppress(KhloneError):
        install(app, scope)
        return True
    return False
