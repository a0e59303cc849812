"""Which plugins are loaded, and why not the others?

A plugin is added whole or not at all. Left out, with a warning, is what cannot be
imported, what names an argument that no hook has, and what would look called and never
run: hook wrappers (`wrapper=True`, `hookwrapper=True`) have nothing to wrap, since each
implementation is called on its own; nobody awaits an `async` hook, or iterates over a
`yield` where no list is asked for.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, MethodType, ModuleType

import pluggy

from khlone import entry_points, hookspecs
from khlone.entry_points import EntryPoint, Selection
from khlone.errors import LIMITS, OverLimit
from khlone.model import PluginReport
from khlone.plugin_calls import FAILURES, Caller, cause, prints_apart

#: Every hook of khlone, in the order of hookspecs.py.
HOOKS: tuple[str, ...] = tuple(name for name in vars(hookspecs) if name.startswith("khlone_"))

_MAY_YIELD = frozenset({"khlone_agents", "khlone_diagnose"})


class Unusable(Exception):
    """A plugin cannot be registered; the text says why."""


class _Manager(pluggy.PluginManager):
    """One that looks closely only at functions which bear a mark: `inspect` takes long over each name of a module."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """The options of an implementation, `None` for any other name."""
        if isinstance(plugin, ModuleType):
            value = vars(plugin).get(name)
            is_function = isinstance(value, FunctionType | MethodType)
            if not is_function or not hasattr(value, f"{self.project_name}_impl"):
                return None
        return super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(self, module_or_class: ModuleType | type, name: str) -> pluggy.HookspecOpts | None:
        """The options of a hook of khlone's, `None` for any other name."""
        return super().parse_hookspec_opts(module_or_class, name) if name.startswith("khlone_") else None


class Loaded:
    """A set of plugins that only grows; `warn` is told of what people should know."""

    def __init__(self, caller: Caller, warn: Callable[[str], None]) -> None:
        self._caller = caller
        self._warn = warn
        self._manager = _Manager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reports: list[PluginReport] = []
        self._left_out: tuple[Path | None, Selection] | None = None
        self.names: list[str] = []

    def implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Those of one hook in the order in which they are called; AttributeError for a hook that does not exist."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]

    @property
    def reports(self) -> tuple[PluginReport, ...]:
        """Every installed plugin; where none is wanted, they are looked for now."""
        if self._left_out is not None:
            cache_dir, selection = self._left_out
            self._left_out = None
            for entry in entry_points.installed(cache_dir, []):
                self._report(entry, f"{selection.source} leaves it out")
        return tuple(self._reports)

    def load(self, cache_dir: Path | None, selection: Selection) -> None:
        """Load what is installed and wanted; nothing is looked for where nothing is wanted."""
        if selection.names is not None and not selection.names:
            self._left_out = (cache_dir, selection)
            return
        told: list[str] = []
        installed = entry_points.installed(cache_dir, told)
        for warning in told:
            self._warn(warning)
        for entry in installed:
            if selection.wants(entry.name):
                self._load(entry)
            else:
                self._report(entry, f"{selection.source} leaves it out")
        known = [entry.name for entry in installed]
        for name in sorted((selection.names or frozenset()).difference(known)):
            self._warn(f"{selection.source} names {name!r}, which is not installed{_meant(repr, name, known)}")

    def _load(self, entry: EntryPoint) -> None:
        started = time.perf_counter()
        import_ms = None
        try:
            with prints_apart():
                plugin = _imported(entry.value)
            import_ms = round((time.perf_counter() - started) * 1000, 3)
            self.register(entry.name, plugin)
        except FAILURES as error:
            why = _why(error)
            if isinstance(error, OSError) and error.errno in LIMITS:
                # The plugin is not at fault, and what it guards must not go on without it.
                raise OverLimit(f"cannot load plugin {entry.name!r}", why) from error
            self._report(entry, why, import_ms)
            log = None
            if not isinstance(error, Unusable):
                log = self._caller.note(entry.name, "its import", time.perf_counter() - started, error)
            traced = "" if log is None else f"; the trace is in {log}"
            self._warn(f"plugin {entry.name!r} of {entry.distribution} {entry.version} was left out: {why}{traced}")
        else:
            self._report(entry, None, import_ms, self._hooks(entry.name))

    def _report(
        self, entry: EntryPoint, reason: str | None, import_ms: float | None = None, hooks: tuple[str, ...] = ()
    ) -> None:
        self._reports.append(
            PluginReport(
                name=entry.name,
                distribution=entry.distribution,
                version=entry.version,
                loaded=reason is None,
                reason=reason,
                hooks=hooks,
                import_ms=import_ms,
            )
        )

    def _hooks(self, name: str) -> tuple[str, ...]:
        mine = {hook for hook, _ in self._of(name)}
        return tuple(hook for hook in HOOKS if hook in mine)

    def register(self, name: str, plugin: object) -> None:
        """Add one plugin whole or not at all; raises Unusable."""
        if self._manager.has_plugin(name):
            raise Unusable("another plugin has that name")
        try:
            if self._manager.register(plugin, name) is None:
                raise Unusable("there is no object of that name")
            self._refuse_what_would_never_run(name)
            self._warn_of_misspelt_hooks(name, plugin)
        except FAILURES as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise error if isinstance(error, Unusable) else Unusable(_why(error)) from error
        self.names.append(name)

    def _refuse_what_would_never_run(self, name: str) -> None:
        for hook, implementation in self._of(name):
            function = implementation.function
            if implementation.wrapper or implementation.hookwrapper:
                raise Unusable(f"{hook} is a hook wrapper, which khlone does not call")
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise Unusable(f"{hook} is async, which khlone does not await")
            if inspect.isgeneratorfunction(function) and hook not in _MAY_YIELD:
                raise Unusable(f"{hook} has a yield, so its body would never run")

    def _of(self, plugin: str) -> Iterator[tuple[str, pluggy.HookImpl]]:
        for hook, caller in vars(self._manager.hook).items():
            if isinstance(caller, pluggy.HookCaller):
                for implementation in caller.get_hookimpls():
                    if implementation.plugin_name == plugin:
                        yield hook, implementation

    def _warn_of_misspelt_hooks(self, name: str, plugin: object) -> None:
        for hook, implementation in self._of(name):
            if hook not in HOOKS and not implementation.optionalhook:
                meant = _meant(str, hook, HOOKS)
                self._warn(f"plugin {name!r} implements {hook}, which is no hook of khlone{meant}")
        for hook in HOOKS:
            if callable(getattr(plugin, hook, None)) and self._manager.parse_hookimpl_opts(plugin, hook) is None:
                self._warn(f"plugin {name!r} defines {hook} without @hookimpl, so it is not called")


def _meant(show: Callable[[str], str], word: str, known: list[str] | tuple[str, ...]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {show(near[0])}?" if near else ""


def _why(error: BaseException) -> str:
    if isinstance(error, (Unusable, pluggy.PluginValidationError)):
        return " ".join(str(error).split())
    return cause(error)


def _imported(value: str) -> object:
    module, _, attributes = value.partition(":")
    found: object = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    # A class gives each run an object of its own, which may keep what it has seen.
    return found() if inspect.isclass(found) else found
