"""`agents`: which agents there are, and how each is kept to its clone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.output import visible
from khlone.profiles import ConfigItem, FoundAgent, Sharing

_HEADS = ("AGENT", "VERSION", "FOUND", "ISOLATION")


@verb("agents")
@click.argument("action", type=click.Choice(("list", "show")), default="list")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def command(context: Context, *, action: str, names: tuple[str, ...]) -> None:
    """Show which agents there are, and how each is kept to its clone.

    `show` says of some agents what of the user's config a clone shares with it, and why.
    """
    from khlone.operations import agents

    app = context.plain_app()
    if action == "list" and names:
        raise UsageError("list takes no NAME", hint="git khlone agents show NAME")
    if action == "show" and not names:
        raise UsageError("show which agent?", hint="git khlone agents show NAME")
    wanted = names if action == "show" else (None,)
    found = [one for name in wanted for one in agents.find_agents(app, name)]
    if context.output.as_json:
        shown = [_as_json(one) for one in found]
        context.output.document("agents", {"action": action, "dry_run": False, "agents": shown, "changes": []})
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
        "reading": profile.reading,
        "own_hooks": profile.own_hooks,
    }


def _item(source: Path | None, item: ConfigItem) -> Mapping[str, object]:
    return {"name": item.name, "sharing": item.sharing, "source": source, "why": item.why}
