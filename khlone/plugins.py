"""How are plugins found, and how is each kind of hook called?

The typed front over pluggy: one method a hook, the four disciplines of hookspecs.py
implemented once. Every implementation is called on its own, in pluggy's order, since
pluggy as a whole stops at the first exception and does not say whose it was.

What follows from that: `tryfirst` and `trylast` are obeyed; hook wrappers (`wrapper=True`,
`hookwrapper=True`) have nothing to wrap, so a plugin with one is not loaded; neither is
one with an `async` hook or with a `yield` in a hook that no one iterates over, which
would look called and never run. `SystemExit` counts as a failure of the plugin. Every
other BaseException (KeyboardInterrupt, `khlone.errors.Interrupted`) passes through.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from khlone import entry_points, hookspecs
from khlone.entry_points import EntryPoint
from khlone.errors import KhloneError, PluginClash, PluginFailed, Refusal
from khlone.model import (
    AgentProfile,
    Candidate,
    Clone,
    Finding,
    MergePlan,
    MergeResult,
    NewRequest,
    RemovePlan,
    Session,
    Severity,
    Verdict,
)

SELECTION_VARIABLE = "KHLONE_PLUGINS"

_FAILURES = (Exception, SystemExit)
_MAY_YIELD = frozenset({"khlone_agents", "khlone_diagnose"})
#: An agent's name is the name of a folder too; see config_dir.py.
_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_T = TypeVar("_T")


class Plugins:
    """The plugins of one run, in a fixed set; `warnings` gathers what people should be told."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._names: list[str] = []
        self.warnings: list[str] = []

    @classmethod
    def load(cls, *, cache_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Plugins:
        """Load the installed plugins; what is broken is left out with a warning.

        KHLONE_PLUGINS absent: all of them; empty: none; else only those in its comma
        list. `cache_dir` keeps the list of entry points, so that a warm start does not
        scan; without it, or when it cannot be used, every start scans.
        """
        plugins = cls()
        wanted = _wanted(environment)
        if wanted is not None and not wanted:
            return plugins
        installed = entry_points.installed(cache_dir, plugins.warnings)
        for entry in installed:
            if wanted is None or entry.name in wanted:
                plugins._load(entry)
        for name in sorted((wanted or set()) - {entry.name for entry in installed}):
            plugins.warnings.append(f"{SELECTION_VARIABLE} names {name!r}, which is not installed")
        return plugins

    @classmethod
    def of(cls, *plugins: object) -> Plugins:
        """These objects as plugins, named after their `__name__` or class; raises PluginFailed for an unusable one."""
        front = cls()
        for plugin in plugins:
            name = str(getattr(plugin, "__name__", None) or type(plugin).__name__)
            if name in front._names:
                name = f"{name}-{len(front._names) + 1}"
            try:
                front._register(name, plugin)
            except _Unusable as error:
                raise PluginFailed(name, "registration", str(error)) from error
        return front

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded plugins, in the order in which they were loaded."""
        return tuple(self._names)

    def has(self, hook: str) -> bool:
        """Whether any plugin implements the hook; AttributeError for a hook that does not exist."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    # -- gate: the first refusal stops

    def pre_create(self, request: NewRequest) -> None:
        """Before a clone is reserved; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_create", request=request)

    def populate_config_dir(self, clone: Clone, agent: AgentProfile, config_dir: Path) -> None:
        """Fill the fresh config dir of one agent; raises Refusal or PluginFailed."""
        self._gate("khlone_populate_config_dir", clone=clone, agent=agent, config_dir=config_dir)

    def prepare(self, clone: Clone) -> None:
        """After the checkout, before the clone is ready; raises Refusal or PluginFailed."""
        self._gate("khlone_prepare", clone=clone)

    def pre_spawn(self, clone: Clone, command: Sequence[str]) -> None:
        """Before a process is started; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_spawn", clone=clone, command=tuple(command))

    def pre_merge(self, clone: Clone, plan: MergePlan) -> None:
        """Before a merge is computed; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_merge", clone=clone, plan=plan)

    def pre_cleanup(self, clone: Clone, plan: RemovePlan) -> None:
        """Before a clone is moved to the trash; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_cleanup", clone=clone, plan=plan)

    def gate(self, clone: Clone, candidate: Candidate) -> list[Verdict]:
        """Every verdict up to the first failing one, which is included; a Refusal is a failing verdict."""
        hook = "khlone_gate"
        verdicts: list[Verdict] = []
        for plugin, call in self._calls(hook, clone=clone, candidate=candidate):
            try:
                with _guarded(plugin, hook):
                    answer = call()
                    verdict: Verdict | None = None if answer is None else _typed(answer, Verdict)
            except Refusal as refusal:
                verdict = Verdict(passed=False, gate=plugin, message=refusal.message)
            if verdict is not None:
                verdicts.append(verdict)
                if not verdict.passed:
                    break
        return verdicts

    # -- collect: all answers combined

    def agents(self, settings: Mapping[str, str]) -> dict[str, AgentProfile]:
        """Every agent profile by name; raises PluginClash or PluginFailed."""
        hook = "khlone_agents"
        profiles: dict[str, AgentProfile] = {}
        owners: dict[str, str] = {}
        for plugin, call in self._calls(hook, settings=types.MappingProxyType(dict(settings))):
            with _guarded(plugin, hook):
                offered = [_usable_profile(profile) for profile in _iterated(call())]
            for profile in offered:
                if profile.name in profiles:
                    raise PluginClash(f"the agent {profile.name!r}", [owners[profile.name], plugin])
                profiles[profile.name], owners[profile.name] = profile, plugin
        return profiles

    def environment(self, clone: Clone) -> dict[str, str]:
        """The variables of all plugins together; raises PluginClash or PluginFailed."""
        hook = "khlone_environment"
        variables: dict[str, str] = {}
        owners: dict[str, str] = {}
        for plugin, call in self._calls(hook, clone=clone):
            with _guarded(plugin, hook):
                added = _usable_variables(call())
            for name, value in added.items():
                if variables.setdefault(name, value) != value:
                    raise PluginClash(f"the variable {name}", [owners[name], plugin])
                owners.setdefault(name, plugin)
        return variables

    def diagnose(self, clones: Sequence[Clone]) -> list[Finding]:
        """The findings of all plugins; one that raises becomes a finding itself, after what it had found."""
        hook = "khlone_diagnose"
        findings: list[Finding] = []
        for plugin, call in self._calls(hook, clones=tuple(clones)):
            try:
                for item in _iterated(call()):
                    findings.append(_typed(item, Finding))
            except _FAILURES as error:
                message = PluginFailed(plugin, hook, _cause(error)).message
                findings.append(Finding(code=PluginFailed.code, severity=Severity.WARNING, message=message))
        return findings

    # -- first: the first answer that is not None

    def spawn_command(self, clone: Clone, command: Sequence[str]) -> tuple[str, ...]:
        """The command line to start: a plugin's, else `command`; raises Refusal or PluginFailed."""
        plain = tuple(command)
        return self._first("khlone_spawn_command", _command, clone=clone, command=plain) or plain

    def worktree_path(self, request: NewRequest) -> Path | None:
        """Where a plugin wants the new worktree, absolute; raises Refusal or PluginFailed."""
        return self._first("khlone_worktree_path", _absolute, request=request)

    # -- notify: every plugin runs, the change stands

    def post_create(self, clone: Clone) -> list[str]:
        """Tell every plugin that the clone is ready; returns the problems, also kept in `warnings`."""
        return self._notify("khlone_post_create", clone=clone)

    def post_spawn(self, clone: Clone, session: Session) -> list[str]:
        """Tell every plugin that a process was started; returns the problems, also kept in `warnings`."""
        return self._notify("khlone_post_spawn", clone=clone, session=session)

    def session_ended(self, clone: Clone, session: Session) -> list[str]:
        """Tell every plugin that a session has ended; returns the problems, also kept in `warnings`."""
        return self._notify("khlone_session_ended", clone=clone, session=session)

    def post_merge(self, clone: Clone, result: MergeResult) -> list[str]:
        """Tell every plugin that the clone has landed; returns the problems, also kept in `warnings`."""
        return self._notify("khlone_post_merge", clone=clone, result=result)

    def post_cleanup(self, clone: Clone) -> list[str]:
        """Tell every plugin that the clone is gone; returns the problems, also kept in `warnings`."""
        return self._notify("khlone_post_cleanup", clone=clone)

    # -- the disciplines

    def _calls(self, hook: str, **arguments: object) -> Iterator[tuple[str, Callable[[], object]]]:
        """Each implementation with its plugin's name, in the order in which pluggy would call them."""
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            positional = [arguments[name] for name in implementation.argnames]
            by_name = {name: arguments[name] for name in implementation.kwargnames if name in arguments}
            yield implementation.plugin_name, functools.partial(implementation.function, *positional, **by_name)

    def _gate(self, hook: str, **arguments: object) -> None:
        for plugin, call in self._calls(hook, **arguments):
            with _guarded(plugin, hook):
                call()

    def _first(self, hook: str, convert: Callable[[object], _T], **arguments: object) -> _T | None:
        for plugin, call in self._calls(hook, **arguments):
            with _guarded(plugin, hook):
                answer = call()
                if answer is not None:
                    return convert(answer)
        return None

    def _notify(self, hook: str, **arguments: object) -> list[str]:
        problems = []
        for plugin, call in self._calls(hook, **arguments):
            try:
                call()
            except _FAILURES as error:
                problems.append(PluginFailed(plugin, hook, _cause(error)).message)
        self.warnings += problems
        return problems

    # -- loading

    def _load(self, entry: EntryPoint) -> None:
        try:
            self._register(entry.name, _imported(entry.value))
        except _FAILURES as error:
            whose = f"{entry.name!r} of {entry.distribution} {entry.version}"
            self.warnings.append(f"plugin {whose} was left out: {_cause(error)}")

    def _register(self, name: str, plugin: object) -> None:
        """Add one plugin whole or not at all; raises _Unusable."""
        if self._manager.has_plugin(name):
            raise _Unusable("another plugin has that name")
        try:
            if self._manager.register(plugin, name) is None:
                raise _Unusable("there is no object of that name")
            self._refuse_what_would_never_run(name)
            self._warn_of_misspelt_hooks(name, plugin)
        except _FAILURES as error:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            if isinstance(error, pluggy.PluginValidationError):
                raise _Unusable(" ".join(str(error).split())) from error
            raise error if isinstance(error, _Unusable) else _Unusable(_cause(error)) from error
        self._names.append(name)

    def _refuse_what_would_never_run(self, name: str) -> None:
        for hook, implementation in self._implementations(name):
            function = implementation.function
            if implementation.wrapper or implementation.hookwrapper:
                raise _Unusable(f"{hook} is a hook wrapper, which khlone does not call")
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise _Unusable(f"{hook} is async, which khlone does not await")
            if inspect.isgeneratorfunction(function) and hook not in _MAY_YIELD:
                raise _Unusable(f"{hook} has a yield, so its body would never run")

    def _implementations(self, plugin: str) -> Iterator[tuple[str, pluggy.HookImpl]]:
        for hook, caller in vars(self._manager.hook).items():
            if isinstance(caller, pluggy.HookCaller):
                for implementation in caller.get_hookimpls():
                    if implementation.plugin_name == plugin:
                        yield hook, implementation

    def _warn_of_misspelt_hooks(self, name: str, plugin: object) -> None:
        known = [hook for hook in dir(hookspecs) if hook.startswith("khlone_")]
        for hook, implementation in self._implementations(name):
            if hook not in known and not implementation.optionalhook:
                import difflib

                near = difflib.get_close_matches(hook, known, n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                self.warnings.append(f"plugin {name!r} implements {hook}, which is no hook of khlone{meant}")
        for hook in known:
            if callable(getattr(plugin, hook, None)) and self._manager.parse_hookimpl_opts(plugin, hook) is None:
                self.warnings.append(f"plugin {name!r} defines {hook} without @hookimpl, so it is not called")


class _Unusable(Exception):
    """A plugin cannot be registered; the text says why."""


@contextlib.contextmanager
def _guarded(plugin: str, hook: str) -> Iterator[None]:
    """Name the plugin in its Refusal, let khlone's own errors pass, turn the rest into PluginFailed."""
    try:
        yield
    except Refusal as refusal:
        refusal.facts["plugin"] = plugin
        raise
    except KhloneError:
        raise
    except _FAILURES as error:
        raise PluginFailed(plugin, hook, _cause(error)) from error


def _cause(error: BaseException) -> str:
    """One line for people; survives an exception that cannot say what it is."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a plugin's __str__
        text = ""
    if isinstance(error, (KhloneError, _Unusable)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- what a plugin may answer


def _typed(answer: Any, kind: type) -> Any:
    """The answer of a plugin, whose types nobody has checked; raises TypeError for another kind."""
    if not isinstance(answer, kind):
        raise TypeError(f"it answered with {type(answer).__name__} instead of {kind.__name__}")
    return answer


def _iterated(answer: object) -> Iterator[object]:
    return iter(()) if answer is None else iter(_typed(answer, Iterable))


def _usable_profile(answer: object) -> AgentProfile:
    profile: AgentProfile = _typed(answer, AgentProfile)
    if not _AGENT_NAME.fullmatch(profile.name):
        raise ValueError(f"{profile.name!r} cannot name an agent: use letters, digits and . _ -")
    return profile


def _usable_variables(answer: object) -> dict[str, str]:
    variables: dict[str, str] = {} if answer is None else dict(_typed(answer, Mapping))
    for name, value in variables.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"variable {name!r} is not text")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"variable {name!r} cannot stand in an environment")
    return variables


def _command(answer: object) -> tuple[str, ...]:
    words = tuple(_typed(answer, Sequence))
    if isinstance(answer, str) or not words or not all(isinstance(word, str) for word in words):
        raise TypeError("a command is a list of one or more strings")
    return words


def _absolute(answer: object) -> Path:
    path: Path = _typed(answer, Path)
    if not path.is_absolute():
        raise ValueError(f"{path} is not absolute")
    return path


def _wanted(environment: Mapping[str, str]) -> set[str] | None:
    listed = environment.get(SELECTION_VARIABLE)
    return None if listed is None else {name.strip() for name in listed.split(",") if name.strip()}


def _imported(value: str) -> object:
    module, _, attributes = value.partition(":")
    found: object = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found
