"""`config`: every setting, where it comes from, and a way to change it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from khlone.app import App
from khlone.commands import Context, verb
from khlone.errors import InvalidSetting, NotARepository, UsageError
from khlone.output import visible
from khlone.setting_table import Source

ACTIONS = ("list", "get", "set", "unset", "edit", "schema")
#: How many words follow each action.
_WORDS = {"list": 0, "get": 1, "set": 2, "unset": 1, "edit": 0, "schema": 0}
_NEW = "# Settings of khlone; `git khlone config` lists them all.\n"


@verb("config")
@click.argument("action", required=False, default="list", type=click.Choice(ACTIONS))
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--user", "source", flag_value=Source.USER.value, help="In your own file, for every repository.")
@click.option("--repository", "source", flag_value=Source.GIT.value, help="In git's configuration of this repository.")
@click.option("--project", "source", flag_value=Source.PROJECT.value, help="In .khlone.toml of this worktree.")
def command(context: Context, *, action: str, key: str | None, value: str | None, source: str | None) -> None:
    """Show every setting with the file and line that it comes from, or change one.

    get KEY prints one, set KEY VALUE and unset KEY change git's configuration of the
    repository unless an option says otherwise, edit opens the editor on your own file or
    the project's. schema prints a JSON schema of .khlone.toml for editors.
    """
    given = sum(one is not None for one in (key, value))
    if given != _WORDS[action]:
        raise UsageError(f"{action} takes {_takes(action)}", hint="see git khlone config -h")
    chosen = None if source is None else Source(source)
    if action == "schema":
        _schema(context, chosen)
        return
    if action in ("list", "get") and chosen is not None:
        raise UsageError(f"{action} shows what is in force, wherever it comes from", hint="leave the option out")
    app = _app(context)
    if action == "edit":
        _edit(context, app, chosen or Source.USER)
    elif key is None:
        _list(context, app)
    elif action == "get":
        _get(context, app, key)
    else:
        _change(context, app, chosen or Source.GIT, key, value)


def _takes(action: str) -> str:
    return {0: "no further word", 1: "a KEY", 2: "a KEY and a VALUE"}[_WORDS[action]]


def _app(context: Context) -> App | None:
    try:
        return context.plain_app()
    except NotARepository:
        return None


def _here(context: Context) -> Path:
    return context.directory or Path.cwd()


def _schema(context: Context, source: Source | None) -> None:
    from khlone import setting_schema

    if source is Source.GIT:
        raise UsageError("git's configuration has no schema", hint="--project, or --user")
    # It is a document as it stands, with --json too.
    context.output.as_json = False
    context.output.answer(json.dumps(setting_schema.schema(source or Source.PROJECT), indent=2))


def _list(context: Context, app: App | None) -> None:
    from khlone.operations import configure

    rows = configure.rows(configure.load(app, _here(context), context.environment))
    if context.output.as_json:
        context.output.document("config", {"settings": rows})
        return
    shown = [(row.key, "-" if row.value is None else visible(row.value), visible(row.origin)) for row in rows]
    context.output.table(("SETTING", "VALUE", "ORIGIN"), shown)
    for row in rows:
        if row.fault is not None:
            context.output.tell(f"warning: {visible(row.origin)}: {row.key}: {row.fault}")


def _get(context: Context, app: App | None, key: str) -> None:
    from khlone.operations import configure

    plain, _ = configure.require(key, context.environment)
    row = configure.row(configure.load(app, _here(context), context.environment), plain)
    if context.output.as_json:
        context.output.document("config", {"settings": [row]})
        return
    if row.value is None:
        context.output.tell(f"{row.key} is not set, and has no default")
        return
    context.output.answer(visible(row.value))
    context.output.tell(f"{row.key}: from {visible(row.origin)}" + (f"; {row.fault}" if row.fault else ""))


def _change(context: Context, app: App | None, source: Source, key: str, value: str | None) -> None:
    """Set, or unset without a value."""
    from khlone.operations import configure

    plain, setting = configure.require(key, context.environment)
    where = configure.place(app, source, context.environment)
    configure.require_may_change(where, context.environment)
    if value is not None:
        configure.put(where, plain, setting, value)
        context.output.tell(f"khlone.{plain} is {visible(value)!r} in {where.file}")
    elif configure.drop(where, plain):
        context.output.tell(f"khlone.{plain} is gone from {where.file}")
    else:
        context.output.tell(f"khlone.{plain} is not set in {where.file}; nothing changed")
    # Read again, by an App that has not read yet.
    row = configure.row(configure.load(_app(context), _here(context), context.environment), plain)
    if value is not None and (row.source is not source or row.file != where.file):
        context.output.tell(f"warning: in force is what {visible(row.origin)} says: {visible(str(row.value))}")
    if context.output.as_json:
        context.output.document("config", {"settings": [row]})


def _edit(context: Context, app: App | None, source: Source) -> None:
    from khlone.operations import configure, setting_edits

    if source is Source.GIT:
        raise UsageError("git edits its own configuration", hint="git config --edit")
    where = configure.place(app, source, context.environment)
    configure.require_may_change(where, context.environment)
    before = setting_edits.read(where.file)
    draft = before or _NEW
    while True:
        after, copy = configure.edit(where, draft, context.environment, _here(context))
        try:
            setting_edits.check(after, where.file)
            break
        except InvalidSetting as error:
            error.hint = f"{where.file} is as it was; what you typed is in {copy}"
            if context.output.as_json or not sys.stdin.isatty():
                raise
            context.output.error(error)
            if not click.confirm("khlone: edit it again?", default=True, err=True):
                raise
            draft = after
            configure.forget(copy)
    changed = after not in (before, _NEW) and setting_edits.replace(
        where.file, before, after, mode=0o600 if source is Source.USER else 0o666
    )
    configure.forget(copy)
    context.output.tell(f"{where.file} is changed" if changed else "nothing changed")
    if context.output.as_json:
        found = configure.load(_app(context), _here(context), context.environment)
        context.output.document("config", {"settings": configure.rows(found)})
