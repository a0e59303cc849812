"""Makes docs/hooks.md from the docstrings of khlone/hookspecs.py; a test says when that is to be done.

.venv/bin/python docs/hooks.py
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from khlone import hookspecs

PAGE = Path(__file__).with_suffix(".md")
#: The disciplines in the order of the page, and what all of their hooks have in common.
DISCIPLINES = {
    "gate": "Before a change. The first refusal stops it, and what was made is rolled back.",
    "collect": "All answers are combined. A clash names both plugins.",
    "first": "The first answer that is not `None` counts.",
    "notify": "After a change. Every plugin runs, also when one raises; the change stands.",
}
HEAD = """\
# The hooks, one by one

Made from the docstrings of `khlone/hookspecs.py` by `docs/hooks.py`. [plugins.md](plugins.md) says how a plugin is
made, and what is promised about all hooks. An implementation takes any subset of a hook's arguments, by name.
"""


def specifications() -> dict[str, Callable[..., Any]]:
    """Every hook by its name, in the order of hookspecs.py."""
    return {name: spec for name, spec in vars(hookspecs).items() if name.startswith("khlone_")}


def parts(spec: Callable[..., Any]) -> tuple[str, str, str]:
    """A hook's discipline in small letters, its text and its example."""
    first, _, rest = inspect.cleandoc(spec.__doc__ or "").partition("\n")
    discipline, _, summary = first.partition(": ")
    text, _, example = rest.partition("::\n")
    paragraphs = [" ".join(one.split()) for one in (summary[:1].upper() + summary[1:], *text.split("\n\n"))]
    body = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    return discipline.lower(), f"{body.rstrip('.')}.", textwrap.dedent(example).strip("\n")


def page() -> str:
    """The whole page."""
    found = {name: parts(spec) for name, spec in specifications().items()}
    text = HEAD
    for discipline, meaning in DISCIPLINES.items():
        text += f"\n## {discipline.capitalize()}\n\n{meaning}\n"
        for name, spec in specifications().items():
            if found[name][0] == discipline:
                text += _section(name, spec, *found[name][1:])
    return text + _facade()


def _facade() -> str:
    """What the argument `cli` of khlone_register_commands offers."""
    text = f"\n## What `cli` offers\n\n{_filled(hookspecs.Commands.__doc__ or '')}\n\n"
    for name, method in vars(hookspecs.Commands).items():
        if not name.startswith("_") and inspect.isfunction(method):
            taken = ", ".join(inspect.signature(method).parameters)
            text += textwrap.fill(
                f"- `{name}({taken.removeprefix('self').removeprefix(', ')})`: {method.__doc__}",
                118,
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
            text += "\n"
    return text


def _filled(text: str) -> str:
    paragraphs = (" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))
    return "\n\n".join(textwrap.fill(one, 118, break_long_words=False, break_on_hyphens=False) for one in paragraphs)


def _section(name: str, spec: Callable[..., Any], body: str, example: str) -> str:
    signature = str(inspect.signature(spec)).replace("'", "")
    return f"\n### {name}\n\n```\n{name}{signature}\n```\n\n{_filled(body)}\n\n```python\n{example}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
