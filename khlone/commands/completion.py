"""`completion`: what a shell needs to complete the words of khlone, and to follow `khlone cd`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files

import click

from khlone.commands import Context, verb
from khlone.commands.config import ACTIONS
from khlone.commands.help import TOPICS
from khlone.hook_table import EVENTS
from khlone.setting_table import SETTINGS

SHELLS = ("bash", "zsh", "fish")
#: Which words a verb takes where it takes words, such as names of clones; a `;` between one word and the next.
_TAKES = {
    **dict.fromkeys(
        (
            *("show", "path", "env", "cd", "exec", "diff", "conflicts", "merge", "push", "pr", "remove", "log"),
            *("sync", "rename", "usage", "run", "ask", "attach", "logs", "stop", "wait"),
        ),
        "@clones",
    ),
    "adopt": "@dirs",
    "restore": "@trash",
    "completion": " ".join(SHELLS),
    "hook": ";".join(("run", " ".join(EVENTS), "@clones")),
    "hooks": "install remove status",
    "slot": "run list",
    "config": " ".join((*ACTIONS, *(one.key for one in SETTINGS if not one.is_pattern))),
}
#: The agents of khlone's own plugins; the repository says which others there are.
_AGENTS = "claude codex gemini generic opencode qwen"
#: What an option takes.
_VALUES = {"--from": "@refs", "--into": "@branches", "--branch": "@branches", "--agent": "@agents"}
_FISH = {
    "@clones": "(__khlone_ask khlone _names)",
    "@agents": f"{_AGENTS} (__khlone_ask khlone _names --agents)",
    "@trash": "(__khlone_ask khlone _names --trash)",
    "@branches": "(__khlone_refs heads)",
    "@refs": "(__khlone_refs heads tags remotes)",
    "@dirs": "(__fish_complete_directories)",
}
#: More words than anybody types.
_MANY = 999


@dataclass(frozen=True)
class _Verb:
    """What there is to complete after a verb; an option is (its spellings, its help)."""

    name: str
    help: str
    options: tuple[tuple[tuple[str, ...], str], ...]
    names: str

    @property
    def spellings(self) -> str:
        """Every spelling of every option, a blank between."""
        return " ".join(one for given, _ in self.options for one in given)


@verb("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(context: Context, *, shell: str) -> None:
    """Print what a shell needs to complete the words of khlone, and to follow `khlone cd`.

    `git khlone setup` puts it in its place; by hand: eval "$(khlone completion bash)".
    """
    text = script(shell)
    if context.output.as_json:
        context.output.document("completion", {"shell": shell, "script": text})
        return
    context.output.answer(text.removesuffix("\n"))


def script(shell: str) -> str:
    """The script for a shell, with the verbs and options of this version written into it."""
    ctx = click.get_current_context().find_root()
    group = ctx.command
    assert isinstance(group, click.Group)
    verbs = [_verb(ctx, group, name) for name in group.list_commands(ctx)]
    root = _options(group, ctx)
    text = files("khlone").joinpath("shell", f"khlone.{shell}").read_text(encoding="utf-8")
    cases = _fish_cases(verbs, root) if shell == "fish" else "\n".join(_case(one) for one in verbs)
    words = {
        "@AGENTS@": _AGENTS,
        "@ROOT_OPTIONS@": " ".join(one for given, _ in root for one in given),
        "@VERBS@": " ".join(one.name for one in verbs),
        "@CASES@": cases,
        "@VALUES@": "\n".join(f"\t\t*:{option}) names={shlex.quote(taken)} ;;" for option, taken in _VALUES.items()),
    }
    for mark, written in words.items():
        text = text.replace(mark, written)
    return text


def _verb(ctx: click.Context, group: click.Group, name: str) -> _Verb:
    found = group.get_command(ctx, name)
    assert found is not None
    inner = click.Context(found, info_name=name, parent=ctx)
    names = " ".join((*group.list_commands(ctx), *TOPICS)) if name == "help" else _TAKES.get(name, "")
    return _Verb(name=name, help=found.get_short_help_str(80), options=_options(found, inner), names=names)


def _options(command: click.Command, ctx: click.Context) -> tuple[tuple[tuple[str, ...], str], ...]:
    return tuple(
        ((*param.opts, *param.secondary_opts), (param.help or "").split(". ")[0].removesuffix("."))
        for param in command.get_params(ctx)
        if isinstance(param, click.Option) and not param.hidden
    )


def _case(one: _Verb) -> str:
    return f"\t{one.name}) options={shlex.quote(one.spellings)} names={shlex.quote(one.names)} ;;"


def _fish_cases(verbs: list[_Verb], root: tuple[tuple[tuple[str, ...], str], ...]) -> str:
    lines = []
    for one in verbs:
        lines.append(_fish("__khlone_needs_verb", f"-f -a {one.name}", one.help))
        lists = one.names.split(";") if one.names else []
        for at, names in enumerate(lists):
            last = _MANY if names is lists[-1] else at
            lines.append(_fish(f"'__khlone_is_at {one.name} {at} {last}'", f"-f -a {_fish_names(names)}", ""))
        is_this = f"'__khlone_is_verb {one.name}'"
        lines += [_fish(is_this, _fish_flags(given), text) for given, text in one.options]
    lines += [_fish("__khlone_needs_verb", _fish_flags(given), text) for given, text in root]
    return "\n".join(lines)


def _fish(condition: str, what: str, text: str) -> str:
    told = f" -d {_fish_quoted(text)}" if text else ""
    return f"    complete -c $__khlone_command -n {condition} {what}{told}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_names(names: str) -> str:
    return f"'{_FISH.get(names, names)}'"


def _fish_flags(given: tuple[str, ...]) -> str:
    flags = " ".join(f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in given)
    taken = [_fish_names(_VALUES[one]) for one in given if one in _VALUES]
    return f"{flags} -x -a {taken[0]}" if taken else flags
