"""What do the verbs share that let clones land?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from khlone.commands import Context
from khlone.errors import MergeConflict, UsageError
from khlone.model import Held, Strategy
from khlone.output import paragraph, visible

_Function = TypeVar("_Function", bound=Callable[..., Any])
_STRATEGIES = {
    "merge": "Land as a merge commit (the default).",
    "squash": "Land as one commit.",
    "rebase": "Land each commit on top of the target.",
    "ff-only": "Land only as a fast-forward.",
}


def options(function: _Function) -> _Function:
    """Add the options that say how something lands."""
    chosen = [
        click.option(f"--{word}", "strategies", flag_value=word, multiple=True, help=text)
        for word, text in _STRATEGIES.items()
    ]
    others = [
        click.option("--committed", is_flag=True, help="Land what is committed, whatever else lies in the clone."),
        click.option(
            "--push",
            "pushing",
            flag_value="push",
            multiple=True,
            help="Land on the remote branch that the target follows first.",
        ),
        click.option("--no-push", "pushing", flag_value="no-push", multiple=True, help="Land here alone."),
        click.option("--no-verify", is_flag=True, help="Leave out the hooks commit-msg, pre-commit, pre-merge-commit."),
    ]
    for option in reversed([*chosen, *others]):
        function = option(function)
    return function


def strategy(words: Sequence[str]) -> Strategy:
    """The one that is meant; raises UsageError for several."""
    return Strategy(_only(words) or Strategy.MERGE)


def is_pushed(words: Sequence[str]) -> bool | None:
    """What is said of pushing, `None` for nothing; raises UsageError for both."""
    word = _only(words)
    return None if word is None else word == "push"


def _only(words: Sequence[str]) -> str | None:
    if len(set(words)) > 1:
        raise UsageError(f"--{' and --'.join(dict.fromkeys(words))} contradict each other")
    return words[0] if words else None


def tell_held(context: Context, held: Held) -> None:
    """Say why a clone did not land; its name is said first where the reason does not tell it."""
    named = held.message.startswith((f"{held.name} ", f"{held.name}:")) or f" refused {held.name}" in held.message
    who = "" if named else f"{visible(held.name)}: "
    because = (
        f"; {', '.join(held.partners)} landed before it" if held.code == MergeConflict.code and held.partners else ""
    )
    context.output.tell(f"held: {who}{paragraph(held.message)}{visible(because)}")
    if held.hint:
        context.output.tell(f"  hint: {visible(held.hint)}")
