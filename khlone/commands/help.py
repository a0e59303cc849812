"""`help`: what a verb does, and how agents use khlone."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError

#: What there is help about that is no verb: where it lies in a wheel, and in a checkout.
TOPICS = {"agents": ("guide/agents.md", "docs/agents.md")}
_SKILL = ("skills/khlone/SKILL.md", "skills/khlone/SKILL.md")


@verb("help")
@click.argument("topic", required=False, metavar="[VERB|agents]")
@click.option("--skill", is_flag=True, help="With agents: the guide as the SKILL.md of a skill folder.")
def command(context: Context, *, topic: str | None, skill: bool) -> None:
    """Show what a verb does, as its --help does, or how agents work with khlone.

    `git khlone help agents >>AGENTS.md` tells the agents of a project.
    """
    if skill and topic != "agents":
        raise UsageError("--skill goes with agents", hint="git khlone help agents --skill")
    text = _text(*(_SKILL if skill else TOPICS[topic])) if topic in TOPICS else _of_verb(topic)
    if context.output.as_json:
        of = "git khlone help agents" if topic in TOPICS else f"git khlone {topic or ''}".rstrip()
        context.output.document("help", {"command": of, "text": text})
        return
    context.output.answer(text.removesuffix("\n"))


def _text(packaged: str, own: str) -> str:
    found = files("khlone").joinpath(packaged)
    if found.is_file():
        return found.read_text(encoding="utf-8")
    return Path(__file__).resolve().parents[2].joinpath(own).read_text(encoding="utf-8")


def _of_verb(name: str | None) -> str:
    root = click.get_current_context().find_root()
    if name is None:
        return root.get_help()
    group = root.command
    assert isinstance(group, click.Group)
    found = group.get_command(root, name)
    if found is None:
        near = difflib.get_close_matches(name, [*group.list_commands(root), *TOPICS], n=1)
        hint = f"did you mean {near[0]}?" if near else "see git khlone -h"
        raise UsageError(f"there is no verb {name!r}", hint=hint)
    return click.Context(found, info_name=name, parent=root).get_help()
