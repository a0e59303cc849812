"""`hooks`: git hooks that note and guard what clones' branches do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.operations.hook_places import Place, Report, Scope
from khlone.output import visible

if TYPE_CHECKING:
    from pathlib import Path


@verb("hooks")
@click.argument("action", type=click.Choice(("install", "remove", "status")))
@click.option("--all", "everywhere", is_flag=True, help="For every worktree of the repository.")
@click.option("--clones", is_flag=True, help="For clones alone; nothing changes elsewhere.")
@click.option("--dry-run", is_flag=True, help="Only say which files would change.")
def command(context: Context, *, action: str, everywhere: bool, clones: bool, dry_run: bool) -> None:
    """Install or remove khlone's git hooks, or show what is in force where.

    They note where clones' branches move, warn of what happens to them from outside, and keep
    them from being deleted. Hooks that are there already stay in force. Without --all or
    --clones the setting khlone.hooks says which.
    """
    from khlone.operations import githooks, hook_places, permission

    if everywhere and clones:
        raise UsageError("--all and --clones exclude each other")
    if action != "install" and (everywhere or clones):
        raise UsageError(f"{action} takes neither --all nor --clones")
    app = context.plain_app()
    if action != "status" and not dry_run:
        permission.require(app, "hooks")
    if action == "install":
        scope = Scope.ALL if everywhere else Scope.CLONES if clones else _by_setting(app.settings.hooks)
        report = githooks.install(app, scope, dry_run=dry_run)
    elif action == "remove":
        report = githooks.remove(app, dry_run=dry_run)
    else:
        report = hook_places.status(app)
    for note in report.notes:
        context.output.tell(visible(note))
    if context.output.as_json:
        names = ("scope", "folder", "hooks", "worktrees", "changed", "done")
        context.output.document("hooks", {"action": action} | {name: getattr(report, name) for name in names})
    elif action == "status":
        _show(context, report)
    else:
        _tell(context, report, action, dry_run=dry_run)


def _by_setting(value: str | None) -> Scope:
    if value is None:
        raise UsageError("for which worktrees?", hint="--clones, or --all for the whole repository")
    return Scope(value)


def _tell(context: Context, report: Report, action: str, *, dry_run: bool) -> None:
    for path in report.changed:
        context.output.answer(visible(str(path)))
    if not report.changed:
        context.output.tell("nothing to change")
    elif not dry_run:
        context.output.tell("installed; git khlone hooks remove takes it back" if action == "install" else "removed")


def _show(context: Context, report: Report) -> None:
    if report.scope is None and not any(place.installed for place in report.worktrees):
        context.output.tell("khlone's git hooks are not installed")
    context.output.table(("WORKTREE", "CLONE", "KHLONE", "HOOKS IN"), [_row(place) for place in report.worktrees])
    is_behind = any(hook.called_by is not None for hook in report.hooks)
    rows = [
        (hook.name, hook.state, *([_shown(hook.called_by)] if is_behind else []), _shown(hook.chained))
        for hook in report.hooks
    ]
    if report.folder is not None and rows:
        context.output.answer()
        context.output.table(("HOOK", "STATE", *(["CALLED BY"] if is_behind else []), "ALSO CALLS"), rows)


def _shown(path: Path | None) -> str:
    return "-" if path is None else visible(str(path))


def _row(place: Place) -> tuple[str, ...]:
    return (
        visible(str(place.path)),
        "-" if place.clone is None else visible(place.clone),
        "yes" if place.installed else "no",
        visible(str(place.folder)),
    )
