"""Which verbs do plugins add, and how are they called?

Plugins are asked only when the first word is none of khlone's verbs, or for help. A verb
of a plugin gets the options that every verb has; while it runs `print` and `click.echo`
go to stderr, so that stdout holds its answer alone; what it raises names its plugin.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from khlone.commands import Context, common
from khlone.errors import KhloneError, PluginClash, PluginFailed

if TYPE_CHECKING:
    from khlone.hookspecs import Commands

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PASSING = (KhloneError, click.ClickException, click.exceptions.Exit, click.Abort, SystemExit)


class ForeignVerbs:
    """The verbs of all plugins, asked for once; `own` are khlone's, which stay what they are."""

    def __init__(self, context: Context, own: Collection[str]) -> None:
        self.context = context
        self._own = own
        self._found: dict[str, list[tuple[str, click.Command]]] = {}
        self._called: str | None = None
        self._has_answered = False

    def load(self) -> None:
        """Ask every plugin, where one is installed; raises what keeps plugins from being loaded."""
        if not self.context.may_reach_foreign_plugins():
            return
        with contextlib.redirect_stdout(sys.stderr):
            self.context.plugins().register_commands(self.facade)

    def facade(self, plugin: str) -> Commands:
        """What one plugin gets to add its verbs to."""
        return _Facade(self, plugin)

    @property
    def names(self) -> list[str]:
        """Every verb, sorted."""
        return sorted(self._found)

    def rows(self) -> list[tuple[str, str]]:
        """Each verb with its line of help and whose it is."""
        return [
            (name, f"{command.get_short_help_str(60)} ({', '.join(plugin for plugin, _ in found)})".lstrip())
            for name, found in sorted(self._found.items())
            for _, command in found[:1]
        ]

    def find(self, name: str) -> click.Command | None:
        """The command of a verb; raises PluginClash where two plugins have it."""
        found = self._found.get(name, [])
        if len(found) > 1:
            raise PluginClash(f"the verb {name!r}", [plugin for plugin, _ in found])
        if not found:
            return None
        self._called = f"{found[0][0]}.{name}"
        return found[0][1]

    def add(self, plugin: str, name: str, command: click.Command) -> None:
        """Take a verb from a plugin; one of khlone's is only warned of."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a verb: use small letters, digits and -")
        if name in self._own:
            clash = PluginClash(f"the verb {name!r}", ["khlone", plugin])
            self.context.output.tell(f"warning: {clash.message}; it stays khlone's")
            return
        self._adopt(plugin, command)
        self._found.setdefault(name, []).append((plugin, command))

    def _adopt(self, plugin: str, command: click.Command) -> None:
        taken = {option for parameter in command.params for option in parameter.opts}
        command.params += [option for option in _common_options() if not taken.intersection(option.opts)]
        if command.callback is not None:
            command.callback = self._guarded(plugin, command.callback)
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                self._adopt(plugin, inner)

    def _guarded(self, plugin: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callback)
        def call(*arguments: Any, **options: Any) -> int | None:
            started = time.perf_counter()
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    code = callback(*arguments, **options)
            except _PASSING:
                raise
            except Exception as error:
                raise self._failed(plugin, time.perf_counter() - started, error) from error
            return code if isinstance(code, int) and not isinstance(code, bool) else None

        return call

    def _failed(self, plugin: str, seconds: float, error: Exception) -> PluginFailed:
        with contextlib.suppress(KhloneError):
            return self.context.plugins().failed(plugin, f"its verb {self._verb}", seconds, error)
        return PluginFailed(plugin, f"its verb {self._verb}", f"{type(error).__name__}: {error}")

    @property
    def _verb(self) -> str:
        return (self._called or "").partition(".")[2]

    # -- answers

    def document(self, content: Mapping[str, object]) -> None:
        """Print the one document of the verb that was called; nothing without `--json`, or a second time."""
        if self.context.output.as_json and self._called is not None and not self._has_answered:
            self._has_answered = True
            self.context.output.document(self._verb, content, owner=self._called.partition(".")[0])

    def finish(self) -> None:
        """Under `--json` print an empty document where the verb gave none."""
        self.document({})


class _Facade:
    """What one plugin sees: the `Commands` of hookspecs.py."""

    def __init__(self, verbs: ForeignVerbs, plugin: str) -> None:
        self._verbs = verbs
        self._plugin = plugin

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
        """A decorator like `click.command` that adds the verb."""

        def decorate(function: Callable[..., Any]) -> click.Command:
            built = cast("Callable[..., click.Command]", click.command(name, **settings))(function)
            self.add_command(built)
            return built

        return decorate

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        """Add a finished command as a verb; ValueError for a name that cannot be typed."""
        self._verbs.add(self._plugin, name or command.name or "", command)

    def app(self) -> Any:
        """The repository that was meant."""
        return self._verbs.context.app()

    def answer(self, text: str) -> None:
        """Print a line on stdout; nothing under `--json`."""
        self._verbs.context.output.answer(text)

    def document(self, content: Mapping[str, object]) -> None:
        """Under `--json` print the one document."""
        self._verbs.document(content)

    def tell(self, text: str) -> None:
        """Print a line on stderr; nothing under `--quiet`."""
        self._verbs.context.output.tell(text)


def _common_options() -> list[click.Parameter]:
    @common
    def carrier() -> None:
        """Carries the options."""

    found: list[click.Parameter] = getattr(carrier, "__click_params__", [])
    return found[::-1]
