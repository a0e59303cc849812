"""One module a verb: arguments in, an operation called, the answer printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from khlone.output import Output

if TYPE_CHECKING:
    from khlone.app import App

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(slots=True, kw_only=True)
class Context:
    """What every verb gets: where to print, where it was called, the command after `-x` or `--`."""

    output: Output
    environment: Mapping[str, str]
    command: list[str] | None = None
    directory: Path | None = None

    def app(self) -> App:
        """The repository that was meant; a registry that was lost is rebuilt first, and said so."""
        app = self.plain_app()
        if not app.has_registry and app.state_dir.exists():
            from khlone.operations import rebuild

            if rebuild.is_needed(app):
                app.prepare_state()
                self.output.tell("the registry was missing and is rebuilt")
                for note in rebuild.rebuild(app):
                    self.output.tell(f"  {note}")
        return app

    def plain_app(self) -> App:
        """The repository that was meant, its registry in whatever state."""
        from khlone.app import App

        self.output.keep_stdout()
        return App.open(self.directory, environment=self.environment, told=self.output.tell)


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


def common(function: _Function) -> _Function:
    """Add the options that every verb, and the command before the verb, takes."""
    for option in (
        click.option(
            "-C", "directory", metavar="DIR", expose_value=False, callback=_directory, help="Work as if in DIR."
        ),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_quiet, help="Tell less on stderr."),
        click.option("--json", is_flag=True, expose_value=False, callback=_json, help="Answer as one JSON document."),
    ):
        function = option(function)
    return function


def verb(name: str, **settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function of (Context, **arguments) the command of a verb."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @click.pass_context
        def call(ctx: click.Context, /, **arguments: Any) -> int | None:
            return function(_context(ctx), **arguments)

        call.__doc__ = function.__doc__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        built = click.command(name, context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        return cast("Callable[[object], click.Command]", built)(common(call))

    return decorate
