"""Makes docs/settings.md and docs/schema/khlone.toml.json from khlone/setting_table.py; a test says when to do so.

.venv/bin/python docs/settings.py
"""

from __future__ import annotations

import json
from pathlib import Path

from khlone import setting_schema
from khlone.setting_table import SETTINGS, Kind, Setting, Source

PAGE = Path(__file__).with_suffix(".md")
SCHEMA = PAGE.parent / "schema" / "khlone.toml.json"
HEAD = """\
# The settings, one by one

Made from `khlone/setting_table.py` by `docs/settings.py`. `git khlone config` shows which are in force, each with the
file and line that it comes from; `config set`, `unset` and `edit` change them and keep comments and order.

Of several places the later wins:

1. the default,
2. the user's file, `$XDG_CONFIG_HOME/khlone/config.toml`, or `~/.config` in place of the variable,
3. the repository's `.khlone.toml`, that of the worktree in which the command is called; anyone may have committed it,
   so that it sets only what runs nothing and leads nowhere, and never less than the user's file demands: of
   `gate.required`, `durable`, the limits and the age and size of trash the stricter value counts,
4. `git config khlone.KEY`, of the system, the user, the repository and the worktree in git's own order,
5. the variable of the environment, where there is one,
6. `git -c khlone.KEY=VALUE khlone ...`, and the option of the verb.

In the two files a key is written without `khlone.`, and a dot may be a table: `[trash]`, `age = "7d"`. Sizes are
powers of 1024. Keys below the name of an installed plugin are that plugin's; any other key that is not listed here
is told with its file, its line and the nearest one that there is. While one of the two files cannot be read, what
only asks says so and goes on without it; what changes something, or runs something, is refused. `[hooks]` is described in
[shell-hooks.md](shell-hooks.md).

Editors that know JSON schemas check `.khlone.toml` while it is written: `git khlone config schema` prints the schema,
which is [schema/khlone.toml.json](schema/khlone.toml.json), and a first line `#:schema PATH` leads editors to it that
follow the convention of taplo.
"""
PLACES = {Source.USER: "user's file", Source.PROJECT: "repository's file", Source.GIT: "git"}


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_section, SETTINGS))


def schema() -> str:
    """The schema of the repository's file as it is stored."""
    return json.dumps(setting_schema.schema(Source.PROJECT), indent=2) + "\n"


def _section(setting: Setting) -> str:
    lines = [
        ("type", setting.expected if setting.kind is not Kind.CHOICE else " or ".join(setting.choices)),
        ("default", "none" if setting.default is None else f"`{setting.default}`"),
        ("taken from", ", ".join(PLACES[one] for one in setting.sources)),
        ("variable", None if setting.variable is None else f"`{setting.variable}`"),
        ("option", None if setting.option is None else f"`{setting.option}`"),
    ]
    listed = "".join(f"- {name}: {text}\n" for name, text in lines if text is not None)
    return f"\n## khlone.{setting.key.replace('*', 'NAME')}\n\n{setting.doc}\n\n{listed}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")
