"""One module a verb: arguments in, an operation called, the answer printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from khlone import __version__, signals
from khlone.context import Context as Context
from khlone.errors import UsageError
from khlone.output import COLOURS

#: Whole numbers beyond this are a slip of the hand.
MOST = 2**31 - 1
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _directory(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    found = _context(ctx)
    target = Path(value) if found.directory is None else found.directory / value
    found.directory = Path(os.path.abspath(target))
    if not found.directory.is_dir():
        raise click.BadParameter(f"{value} is not a folder", ctx=ctx)


def _context(ctx: click.Context) -> Context:
    found = ctx.find_object(Context)
    if found is None:
        raise AssertionError("the root command sets the context")
    return found


def _json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _context(ctx).output.as_json = True


def _quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _context(ctx).output.quiet = True


def _help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output = _context(ctx).output
        if output.as_json:
            output.document("help", {"command": ctx.command_path, "text": ctx.get_help()})
        output.answer(ctx.get_help())
        ctx.exit()


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output = _context(ctx).output
        if output.as_json:
            output.document("version", {"version": __version__})
        output.answer(f"khlone, version {__version__}")
        ctx.exit()


#: `--version`, of the command before the verb alone.
version = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)


def _colour(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        _context(ctx).output.colour = value


def common(function: _Function) -> _Function:
    """Add the options that every verb, and the command before the verb, takes."""
    for option in (
        click.option(
            "-h",
            "--help",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help,
            help="Show this message and exit.",
        ),
        click.option(
            "-C", "directory", metavar="DIR", expose_value=False, callback=_directory, help="Work as if in DIR."
        ),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet, help="Tell less on stderr."),
        click.option(
            "--color",
            type=click.Choice(COLOURS),
            metavar="WHEN",
            expose_value=False,
            callback=_colour,
            help="Colours: auto, always or never.",
        ),
        # Seen by cli.run before anything is parsed: help may come before it.
        click.option("--no-plugins", is_flag=True, expose_value=False, help="Load no plugin."),
        click.option("--json", is_flag=True, expose_value=False, callback=_json, help="Answer as one JSON document."),
    ):
        function = option(function)
    return function


def _refuse_empty(ctx: click.Context, arguments: Mapping[str, Any]) -> None:
    """Nothing is not the same as an option left out; a NAME that is empty has an error of its own."""
    for parameter in ctx.command.params:
        value = arguments.get(parameter.name or "")
        if isinstance(parameter, click.Option) and (value == "" or (isinstance(value, tuple) and "" in value)):
            raise UsageError(f"{parameter.opts[-1]} is empty", hint=f"leave it out, or see {ctx.command_path} -h")


def session_options(function: _Function) -> _Function:
    """What every verb that starts a session lets the user say of its place in line and of its end."""
    for option in (
        click.option("--stall", metavar="T", help="End it when nothing was said, read or written for so long."),
        click.option("--max-memory", metavar="SIZE", help="End it when it takes more memory (500M, 4G)."),
        click.option("--max-time", metavar="T", help="End it after so long (90, 30m, 2h)."),
        click.option(
            "--priority",
            type=click.IntRange(-1000, 1000),
            default=0,
            metavar="N",
            help="A higher one goes first; 0 unless said.",
        ),
        click.option("--no-wait", is_flag=True, help="End with 75 rather than wait until there is a place for it."),
    ):
        function = option(function)
    return function


#: Of the verbs that see what an agent says it costs.
cost_option = click.option("--max-cost", metavar="USD", help="End it when it has cost more, by what the agent says.")


def verb(name: str, **settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function of (Context, **arguments) the command of a verb."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def call(ctx: click.Context, /, **arguments: Any) -> int | None:
            signals.interrupt()
            _refuse_empty(ctx, arguments)
            if arguments.get("force") and not arguments.get("dry_run"):
                from khlone.operations import permission

                permission.require(_context(ctx).plain_app(), "force")
            code = function(_context(ctx), **arguments)
            _context(ctx).tell_way_out()
            return code

        call.__doc__ = function.__doc__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        built = click.command(name, context_settings={"help_option_names": []}, **settings)
        return cast("Callable[[object], click.Command]", built)(common(call))

    return decorate
