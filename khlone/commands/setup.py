"""`setup`: completion, the wrapper for `cd` and the man page, in their places."""

from __future__ import annotations

import difflib
import os
import sys
from importlib.resources import files
from pathlib import Path

import click

from khlone.commands import Context, verb
from khlone.commands.completion import SHELLS, script
from khlone.errors import NotARepository, NotPermitted
from khlone.operations import permission, setup


@verb("setup")
@click.option(
    "--shell", "shells", multiple=True, type=click.Choice(SHELLS), help="For this shell; the one you use by default."
)
@click.option("--remove", is_flag=True, help="Take everything away again.")
@click.option("--dry-run", is_flag=True, help="Show what would change, change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(context: Context, *, shells: tuple[str, ...], remove: bool, dry_run: bool, yes: bool) -> None:
    """Put completion, the wrapper that follows `khlone cd`, and the man page where they work.

    Shows first what would change, and asks. Everything else in your start files stays as
    it is, and --remove takes all of it away.
    """
    chosen = shells or _own_shell(context)
    scripts = {shell: script(shell) for shell in chosen}
    changes = setup.plan(chosen, scripts, _man_page(), context.environment, remove=remove)
    for change in changes:
        _show(context, change)
    done = bool(changes) and not dry_run
    if done:
        _require_outside(context)
        _ask(context, yes=yes)
        setup.carry_out(changes)
    if context.output.as_json:
        paths = [change.path for change in changes]
        context.output.document("setup", {"changed": paths, "done": done})
    if not changes:
        context.output.tell("nothing to change")
    elif done:
        context.output.tell("done; a new shell has it" if not remove else "done; gone from the next shell on")


def _own_shell(context: Context) -> tuple[str, ...]:
    name = os.path.basename(context.environment.get("SHELL", ""))
    if name not in SHELLS:
        raise NotPermitted(
            f"the shell {name or 'in use'!r} is not one of {', '.join(SHELLS)}", hint="name it: --shell bash"
        )
    return (name,)


def _require_outside(context: Context) -> None:
    try:
        permission.require(context.plain_app(), "setup")
    except NotARepository:
        permission.require_outside(context.environment, "setup")


def _man_page() -> bytes:
    packaged = files("khlone").joinpath("man", "git-khlone.1")
    if packaged.is_file():
        return packaged.read_bytes()
    return Path(__file__).resolve().parents[2].joinpath("docs", "git-khlone.1").read_bytes()


def _show(context: Context, change: setup.FileChange) -> None:
    if change.before is None or change.after is None or len(change.after) > 4000 < len(change.before):
        what = "new" if change.before is None else "removed" if change.after is None else "renewed"
        context.output.answer(f"{change.path}: {what}")
        return
    before, after = (
        (content or b"").decode(errors="replace").splitlines(keepends=True) for content in (change.before, change.after)
    )
    shown = difflib.unified_diff(before, after, str(change.path), str(change.path), n=1)
    context.output.answer("".join(line if line.endswith("\n") else line + "\n" for line in shown).removesuffix("\n"))


def _ask(context: Context, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty() or context.output.as_json:
        raise NotPermitted("nothing is changed without being asked for", hint="say --yes, or --dry-run to look")
    if not click.confirm("change this?", default=False, err=True):
        raise NotPermitted("nothing was changed")
