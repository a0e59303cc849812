"""`agents`: which agents there are, and how each is kept to its clone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from khlone.commands import Context, verb
from khlone.errors import CloneBusy, UsageError
from khlone.output import visible
from khlone.profiles import Change, ConfigItem, FoundAgent, Sharing

#: Which actions take an option.
_OPTIONS = {
    "everywhere": ("refresh",),
    "keys": ("promote",),
    "dry_run": ("refresh", "promote", "restore"),
    **dict.fromkeys(("file", "command", "remove"), ("key",)),
}
_WORDS = {"everywhere": "all", "keys": "key", "dry_run": "dry-run"}
_HOOKS = ("install", "uninstall", "hook")
_HEADS = ("AGENT", "VERSION", "FOUND", "ISOLATION")
_MOST_EVENT_BYTES = 1 << 20
_CHECK_HEADS = ("AGENT", "VERSION", "STARTS", "LOGGED IN", "HOW, AND WHY")


@verb("agents")
@click.argument(
    "action",
    type=click.Choice(("list", "show", "refresh", "promote", "key", "restore", "check", *_HOOKS)),
    default="list",
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="refresh: every clone.")
@click.option("--key", "keys", metavar="K", multiple=True, help="promote: only this key, levels separated by dots.")
@click.option("--dry-run", is_flag=True, help="refresh, promote, restore: only say what would change.")
@click.option("--file", metavar="F", help="key: take it from this file, which must be yours alone.")
@click.option("--command", metavar="C", help="key: take it from what this command prints, without a shell.")
@click.option("--remove", is_flag=True, help="key: take it away again.")
def command(context: Context, *, action: str, names: tuple[str, ...], **options: Any) -> int | None:
    """Show which agents there are, and how each is kept to its clone.

    `show` says of some agents what of the user's config a clone shares with it, and why.
    `refresh` brings what the user has changed since into clones, `promote` what a clone has
    changed into the user's own; what both have changed stays as it is on both sides. `key`
    gives a clone a key of its own, read anew each time something is started there. `restore`
    puts the last good copy back where an agent's file of the user's was emptied or reset.
    `check` starts each installed agent in a throw-away clone, without a network, and says
    whether it is logged in there. `install` makes clones of an agent's own worktrees, by
    hooks in the user's settings for it, and `uninstall` takes those away; `hook` is what
    they call.
    """
    for option, value in options.items():
        if value and action not in _OPTIONS[option]:
            raise UsageError(f"{action} takes no --{_WORDS.get(option, option)}")
    if action == "list" and names:
        raise UsageError("list takes no NAME", hint="git khlone agents show NAME")
    if action == "show" and not names:
        raise UsageError("show which agent?", hint="git khlone agents show NAME")
    if action in ("list", "show"):
        _list(context, action, names)
    elif action == "refresh":
        return _refresh(context, names, everywhere=options["everywhere"], dry_run=options["dry_run"])
    elif action == "promote":
        return _promote(context, names, keys=options["keys"], dry_run=options["dry_run"])
    elif action in _HOOKS:
        _hooks(context, action, names)
    elif action == "check":
        return _check(context, names)
    elif action == "restore":
        return _restore(context, names, dry_run=options["dry_run"])
    else:
        _key(context, names, **{name: options[name] for name in ("file", "command", "remove")})
    return None


def _refresh(context: Context, names: tuple[str, ...], *, everywhere: bool, dry_run: bool) -> int:
    from khlone.operations import agent_changes

    if everywhere and names:
        raise UsageError("--all and NAME exclude each other")
    app = context.app()
    if everywhere:
        clones = app.registry.clones() if app.has_registry else []
    else:
        clones = [app.require_clone(name) for name in names or (None,)]
    changes: list[Change] = []
    busy = 0
    for clone in clones:
        try:
            changes += agent_changes.refresh(app, clone, dry_run=dry_run)
        except CloneBusy as error:
            if len(clones) == 1:
                raise
            busy = error.exit_code
            changes.append(Change(clone=clone.name, item="config dir", what="kept", message=error.message))
    _changes(context, "refresh", changes, dry_run=dry_run)
    return busy


def _promote(context: Context, names: tuple[str, ...], *, keys: tuple[str, ...], dry_run: bool) -> int:
    from khlone.operations import agent_changes

    if len(names) > 1:
        raise UsageError("promote takes one clone")
    app = context.app()
    clone = app.require_clone(names[0] if names else None)
    changes = agent_changes.promote(app, clone, keys=keys, dry_run=dry_run)
    _changes(context, "promote", changes, dry_run=dry_run)
    return 1 if any(one.what == "conflict" for one in changes) else 0


def _restore(context: Context, names: tuple[str, ...], *, dry_run: bool) -> int:
    from khlone.operations import agent_changes, agents

    if len(names) != 1:
        raise UsageError("restore takes one agent", hint="git khlone agents restore claude")
    app = context.plain_app()
    changes = agent_changes.put_back(app, agents.require_profile(app, names[0]), dry_run=dry_run)
    _changes(context, "restore", changes, dry_run=dry_run)
    return 1 if any(one.what == "kept" for one in changes) else 0


def _hooks(context: Context, action: str, names: tuple[str, ...]) -> None:
    from khlone.operations import agent_hooks, agents

    if len(names) != 1:
        raise UsageError(f"{action} takes one agent", hint=f"git khlone agents {action} claude")
    if action != "hook":
        app = context.plain_app()
        act = agent_hooks.install if action == "install" else agent_hooks.uninstall
        _changes(context, action, act(app, agents.require_profile(app, names[0])))
        return
    event = _event()
    cwd = event.get("cwd")
    if context.directory is None and isinstance(cwd, str) and os.path.isdir(cwd):
        context.directory = Path(cwd)
    app = context.app()
    clone = agent_hooks.answer(app, agents.require_profile(app, names[0]), event)
    if context.output.as_json:
        what = "removed" if clone is None else "ready"
        _changes(context, action, [Change(clone=None if clone is None else clone.name, item="worktree", what=what)])
    elif clone is not None:
        context.output.answer(str(clone.path))


def _event() -> Mapping[str, Any]:
    import json

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("hook is called by an agent, with an event on stdin")
    try:
        found = json.loads(sys.stdin.buffer.read(_MOST_EVENT_BYTES))
    except (ValueError, RecursionError) as error:
        raise UsageError("what is on stdin is no JSON") from error
    if not isinstance(found, dict):
        raise UsageError("what is on stdin is no JSON object")
    return found


def _check(context: Context, names: tuple[str, ...]) -> int:
    from khlone.operations import agent_check, agents

    found = agent_check.check(context.plain_app(), names)
    if context.output.as_json:
        document = {"action": "check", "dry_run": False, "agents": [], "changes": [], "checks": found}
        context.output.document("agents", document)
    if not found:
        context.output.tell("no agent is installed")
    said = {None: "-", True: "yes", False: "no"}
    rows = [
        (
            one.name,
            one.version or "-",
            said[one.started],
            said[one.logged_in],
            agents.how_it_logs_in(one) + (f": {one.why}" if one.why else ""),
        )
        for one in found
    ]
    if rows:
        context.output.table(_CHECK_HEADS, rows)
    for one in found:
        if one.message:
            context.output.tell(f"{one.name}: {visible(one.message)}")
    return 1 if any(one.started is False for one in found) else 0


def _key(context: Context, names: tuple[str, ...], *, file: str | None, command: str | None, remove: bool) -> None:
    from khlone.operations import agent_keys, environment, logins

    if len(names) > 1 or (file is not None) + (command is not None) + remove != 1:
        raise UsageError("key takes one clone, and one of --file, --command and --remove")
    app = context.app()
    clone = app.require_clone(names[0] if names else None)
    profile = environment.profile_of(app, clone)
    place = None if file is None else Path(context.directory or Path.cwd(), file)
    changed = agent_keys.assign(app, clone, profile, file=place, command=command)
    if changed:
        logins.given_another(app, clone)
    what = "removed" if remove else "assigned"
    _changes(context, "key", [Change(clone=clone.name, item="key", what=what)] if changed else [])


def _changes(context: Context, action: str, changes: Sequence[Change], *, dry_run: bool = False) -> None:
    if context.output.as_json:
        document = {"action": action, "dry_run": dry_run, "agents": [], "changes": changes, "checks": []}
        context.output.document("agents", document)
    if not changes:
        context.output.tell("nothing to change")
    for one in changes:
        where = f"{one.clone}: " if one.clone else ""
        key = f" {visible(one.key)}" if one.key else ""
        why = f": {visible(one.message)}" if one.message else ""
        context.output.answer(f"{where}{visible(one.item)}{key} {one.what}{why}")


def _list(context: Context, action: str, names: tuple[str, ...]) -> None:
    from khlone.operations import agents

    app = context.plain_app()
    wanted = names if action == "show" else (None,)
    found = [one for name in wanted for one in agents.find_agents(app, name)]
    if context.output.as_json:
        shown = [_as_json(one) for one in found]
        context.output.document(
            "agents", {"action": action, "dry_run": False, "agents": shown, "changes": [], "checks": []}
        )
    elif action == "list":
        context.output.table(_HEADS, list(map(_row, found)))
    else:
        for one in found:
            _show(context, one)


def _row(found: FoundAgent) -> tuple[str, ...]:
    from khlone.operations import agents

    profile = found.profile
    moved = ", ".join(profile.config_variables) or "nothing is moved"
    where = "not installed" if found.path is None else visible(str(found.path))
    return (
        profile.name,
        found.version or "-",
        where if profile.executable else "-",
        f"own {moved}; {agents.how_it_logs_in(found.held)}",
    )


def _show(context: Context, found: FoundAgent) -> None:
    from khlone.operations import agents

    profile, answer = found.profile, context.output.answer
    rows: list[tuple[str, str]] = [
        ("agent", f"{profile.name} ({profile.description})" if profile.description else profile.name),
        ("plugin", found.plugin),
        ("program", str(found.path) if found.path else f"{profile.executable or '-'} (not found on PATH)"),
        ("version", found.version or "not known: what holds for the newest is done"),
        ("login", agents.how_it_logs_in(found.held) + (f": {found.held.why}" if found.held.why else "")),
        ("config dir", ", ".join(profile.config_variables) or "-"),
        ("temp", ", ".join(profile.temp_variables) or "-"),
        ("sets", ", ".join(sorted({**profile.environment, **found.held.environment})) or "-"),
        ("strips", ", ".join(profile.strip) or "-"),
        ("keys", ", ".join(profile.key_variables) or "-"),
        ("headless", " ".join((profile.executable or "", *profile.headless)) if profile.headless else "-"),
        ("resume", " ".join((profile.executable or "", *profile.resume)) if profile.resume else "-"),
        ("own hooks", ", ".join(profile.own_hooks) or "-"),
        ("approval", ", ".join(profile.brought) or "-"),
    ]
    for head, text in rows:
        answer(f"{head:<11} {visible(text)}")
    if profile.items:
        answer()
        context.output.table(("ITEM", "SHARED BY", "WHY"), [_item_row(item) for item in profile.items])


def _item_row(item: ConfigItem) -> tuple[str, ...]:
    shared = "not shared" if item.sharing is Sharing.NEVER else item.sharing.value
    return (visible(item.name), shared, visible(item.why) or "-")


def _as_json(found: FoundAgent) -> Mapping[str, object]:
    profile, held = found.profile, found.held
    return {
        "name": profile.name,
        "description": profile.description,
        "plugin": found.plugin,
        "executable": profile.executable,
        "path": found.path,
        "version": found.version,
        "login": held.login,
        "why": held.why,
        "config_variables": profile.config_variables,
        "temp_variables": profile.temp_variables,
        "cache_variables": profile.cache_variables,
        "credential_variables": profile.credential_variables,
        "key_variables": profile.key_variables,
        "environment": {**profile.environment, **held.environment},
        "strip": profile.strip,
        "home": profile.home,
        "items": [_item(profile.source_of(item), item) for item in profile.items],
        "locks": profile.locks,
        "interactive": profile.interactive,
        "headless": profile.headless,
        "resume": profile.resume,
        "headless_resume": profile.headless_resume,
        "budget": profile.budget,
        "reading": profile.reading,
        "own_hooks": profile.own_hooks,
        "brought": profile.brought,
    }


def _item(source: Path | None, item: ConfigItem) -> Mapping[str, object]:
    return {"name": item.name, "sharing": item.sharing, "source": source, "why": item.why}
