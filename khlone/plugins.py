"""How is each kind of hook called?

The typed front over pluggy: one method a hook, the four disciplines of hookspecs.py
implemented once. Every implementation is called on its own, in pluggy's order
(`tryfirst` and `trylast` are obeyed), since pluggy as a whole stops at the first exception
and does not say whose it was. `SystemExit` counts as a failure of the plugin. Every other
BaseException (KeyboardInterrupt, `khlone.errors.Interrupted`) passes through.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from khlone import entry_points, plugin_answers
from khlone.entry_points import Selection
from khlone.errors import KhloneError, NotAdmitted, PluginClash, PluginFailed, Refusal
from khlone.model import (
    Candidate,
    Clone,
    Conflict,
    Demand,
    Finding,
    Held,
    HookTime,
    Location,
    MergePlan,
    MergeResult,
    NewRequest,
    PluginReport,
    RemovePlan,
    Session,
    Severity,
    Verdict,
)
from khlone.plugin_calls import DEFAULT_LIMIT_S, Caller, cause, frozen
from khlone.plugin_loading import Loaded, Unusable
from khlone.profiles import AgentProfile, ConfigItem
from khlone.values import replace

_T = TypeVar("_T")


class Plugins:
    """The plugins of one run, in a fixed set; `warnings` gathers what people should be told.

    The same line is gathered once, and handed to `told` at that moment. A hook may take
    `limit_s` seconds (0: as long as it likes); traces of failures go to `log`.
    """

    def __init__(
        self,
        *,
        limit_s: float = DEFAULT_LIMIT_S,
        log: Path | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._told = told
        self._caller = Caller(limit_s=limit_s, log=log, warn=self._warn)
        self._loaded = Loaded(self._caller, self._warn)
        self.warnings: list[str] = []
        #: Which plugin has which agent, as `agents` last found it.
        self.owners: dict[str, str] = {}

    @classmethod
    def load(
        cls,
        *,
        cache_dir: Path | None,
        environment: Mapping[str, str] = os.environ,
        selection: Selection | None = None,
        limit_s: float = DEFAULT_LIMIT_S,
        log: Path | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> Plugins:
        """Load the installed plugins that are wanted; what is broken is left out with a warning.

        Without a `selection` KHLONE_PLUGINS of `environment` says which. `cache_dir` keeps
        the list of entry points, so that a warm start does not scan; without it, or when
        it cannot be used, every start scans.
        """
        plugins = cls(limit_s=limit_s, log=log, told=told)
        plugins._loaded.load(cache_dir, entry_points.selection(environment) if selection is None else selection)
        return plugins

    @classmethod
    def of(cls, *plugins: object, limit_s: float = DEFAULT_LIMIT_S, log: Path | None = None) -> Plugins:
        """These objects as plugins, named after their `__name__` or class; raises PluginFailed for an unusable one."""
        front = cls(limit_s=limit_s, log=log)
        for plugin in plugins:
            name = str(getattr(plugin, "__name__", None) or type(plugin).__name__)
            if name in front.names:
                name = f"{name}-{len(front.names) + 1}"
            try:
                front._loaded.register(name, plugin)
            except Unusable as error:
                raise PluginFailed(name, "registration", str(error)) from error
        return front

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded plugins, in the order in which they were loaded."""
        return tuple(self._loaded.names)

    @property
    def reports(self) -> tuple[PluginReport, ...]:
        """Every installed plugin, those that were left out included, sorted by name."""
        times = self._caller.written()
        return tuple(replace(one, spent=times.get(one.name, ())) for one in self._loaded.reports)

    @property
    def spent(self) -> tuple[tuple[str, HookTime], ...]:
        """The time that each plugin has spent in each hook so far."""
        return self._caller.spent

    def write_spent(self) -> None:
        """Write that down for `khlone plugins`, and begin anew; what cannot be written is no error."""
        self._caller.write_spent()

    def failed(self, plugin: str, where: str, seconds: float, error: BaseException) -> PluginFailed:
        """The error for what a plugin raised outside of its hooks, in a verb of its own; the trace is logged."""
        return PluginFailed(plugin, where, cause(error), log=self._caller.note(plugin, where, seconds, error))

    def has(self, hook: str) -> bool:
        """Whether any plugin implements the hook and has something to do; AttributeError for an unknown hook.

        A plugin that can tell that it has nothing to do says so by a method `is_idle`.
        """
        return any(not _is_idle(one.plugin) for one in self._loaded.implementations(hook))

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
        self._gate("khlone_pre_spawn", clone=clone, command=command)

    def pre_merge(self, clone: Clone, plan: MergePlan) -> None:
        """Before a merge is computed; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_merge", clone=clone, plan=plan)

    def pre_sync(self, clone: Clone) -> None:
        """Before a clone gets what its target has; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_sync", clone=clone)

    def pre_cleanup(self, clone: Clone, plan: RemovePlan) -> None:
        """Before a clone is moved to the trash; raises Refusal or PluginFailed."""
        self._gate("khlone_pre_cleanup", clone=clone, plan=plan)

    def gate(self, clone: Clone, candidate: Candidate) -> list[Verdict]:
        """Every verdict up to the first failing one, which is included; a Refusal is a failing verdict."""
        verdicts: list[Verdict] = []
        for plugin, ask in self._calls("khlone_gate", plugin_answers.verdict, clone=clone, candidate=candidate):
            try:
                verdict = ask()
            except Refusal as refusal:
                verdict = Verdict(passed=False, gate=plugin, message=refusal.message)
            if verdict is not None:
                verdicts.append(verdict)
                if not verdict.passed:
                    break
        return verdicts

    # -- collect: all answers combined

    def agents(
        self,
        settings: Mapping[str, str],
        wanted: str | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> dict[str, AgentProfile]:
        """Every agent profile by name; raises PluginClash or PluginFailed.

        With `wanted`, a plugin that fails is only warned of where that agent is another
        plugin's: it may have been the one that has it. `owners` says afterwards whose each is.
        """
        profiles: dict[str, AgentProfile] = {}
        owners = self.owners = {}
        failed: list[PluginFailed] = []
        hook = "khlone_agents"
        for plugin, ask in self._calls(hook, plugin_answers.profiles, settings=settings, environment=environment):
            try:
                offered = ask()
            except PluginFailed as error:
                failed.append(error)
                continue
            for profile in offered:
                if profile.name in profiles:
                    raise PluginClash(f"the agent {profile.name!r}", [owners[profile.name], plugin])
                profiles[profile.name], owners[profile.name] = frozen(profile), plugin
        if failed and wanted not in profiles:
            raise failed[0]
        for failure in failed:
            self._warn(_as_warning(str(failure.facts["plugin"]), hook, failure))
        return profiles

    def environment(self, clone: Clone) -> dict[str, str]:
        """The variables of all plugins together; raises PluginClash or PluginFailed."""
        variables: dict[str, str] = {}
        owners: dict[str, str] = {}
        for plugin, ask in self._calls("khlone_environment", plugin_answers.variables, clone=clone):
            for name, value in ask().items():
                if variables.setdefault(name, value) != value:
                    raise PluginClash(f"the variable {name}", [owners[name], plugin])
                owners.setdefault(name, plugin)
        return variables

    def admit(self, clone: Clone, demand: Demand) -> None:
        """Return when no plugin refuses; raises NotAdmitted with all reasons, a refusal with its own code, or more."""
        refusals: list[tuple[str, Refusal]] = []
        for plugin, ask in self._calls("khlone_admit", plugin_answers.refusal, clone=clone, demand=demand):
            try:
                refusal = ask()
            except Refusal as raised:
                refusal = raised
            if refusal is not None:
                refusal.facts["plugin"] = plugin
                refusals.append((plugin, refusal))
        for _, refusal in refusals:
            if refusal.code != Refusal.code or refusal.exit_code != Refusal.exit_code:
                raise refusal
        if refusals:
            raise NotAdmitted(clone.name, [(plugin, refusal.message) for plugin, refusal in refusals])

    def diagnose(self, clones: Sequence[Clone]) -> list[Finding]:
        """The findings of all plugins; one that raises becomes a finding itself, after what it had found."""
        findings: list[Finding] = []

        def gather(answer: object) -> None:
            for finding in plugin_answers.findings(answer):
                findings.append(finding)

        hook = "khlone_diagnose"
        for plugin, ask in self._calls(hook, gather, clones=clones):
            try:
                ask()
            except KhloneError as error:
                message = _as_warning(plugin, hook, error)
                findings.append(Finding(code=PluginFailed.code, severity=Severity.WARNING, message=message))
        return findings

    def register_commands(self, facade: Callable[[str], object]) -> None:
        """Have every plugin add its verbs to `facade(its name)`; one that raises is warned of."""
        hook = "khlone_register_commands"
        for implementation in self._loaded.implementations(hook):
            plugin = implementation.plugin_name
            try:
                self._call(implementation, hook, _nothing, {"cli": facade(plugin)})()
            except KhloneError as error:
                self._warn(_as_warning(plugin, hook, error))

    def columns(self, clones: Sequence[Clone], taken: Sequence[str]) -> dict[str, list[str]]:
        """The columns of all plugins by their heads, a cell for each clone; problems are warned of, never raised."""
        found: dict[str, list[str]] = {}
        owners = dict.fromkeys(taken, "khlone")
        out: set[str] = set()
        hook = "khlone_columns"
        for row, clone in enumerate(clones):
            for plugin, ask in self._calls(hook, plugin_answers.columns, clone=clone):
                if plugin in out:
                    continue
                try:
                    cells = ask()
                except KhloneError as error:
                    out.add(plugin)
                    self._warn(_as_warning(plugin, hook, error))
                    continue
                for head, cell in cells.items():
                    if owners.setdefault(head, plugin) != plugin:
                        self._warn(PluginClash(f"the column {head}", [owners[head], plugin]).message)
                        continue
                    found.setdefault(head, ["-"] * len(clones))[row] = cell
        return found

    # -- first: the first answer that is not None

    def spawn_command(self, clone: Clone, command: Sequence[str]) -> tuple[str, ...]:
        """The command line to start: a plugin's, else `command`; raises Refusal or PluginFailed."""
        plain = tuple(command)
        return self._first("khlone_spawn_command", plugin_answers.command, clone=clone, command=plain) or plain

    def worktree_path(self, request: NewRequest) -> Path | None:
        """Where a plugin wants the new worktree, absolute; raises Refusal or PluginFailed."""
        return self._first("khlone_worktree_path", plugin_answers.absolute, request=request)

    def agent_item(
        self, clone: Clone, agent: AgentProfile, item: ConfigItem, source: bytes | None, location: Location
    ) -> bytes | None:
        """The content of a generated item for a clone; raises Refusal or PluginFailed."""
        return self._first(
            "khlone_agent_item",
            plugin_answers.content,
            clone=clone,
            agent=agent,
            item=item,
            source=source,
            location=location,
        )

    def resolve_conflict(
        self, clone: Clone, conflict: Conflict, worktree: Path
    ) -> Iterator[tuple[str, Mapping[str, bytes | None] | bool]]:
        """Each plugin that has a resolution, with that, for as long as none is usable; one that raises is warned of."""
        hook = "khlone_resolve_conflict"
        given = {"clone": clone, "conflict": conflict, "worktree": worktree}
        for plugin, ask in self._calls(hook, plugin_answers.resolution, **given):
            try:
                answer = ask()
            except KhloneError as error:
                self._warn(_as_warning(plugin, hook, error))
                continue
            if answer is not None:
                yield plugin, answer

    # -- notify: every plugin runs, the change stands

    def opened(
        self, location: Location, settings: Mapping[str, str] | None = None, state_dir: Path | None = None
    ) -> list[str]:
        """Tell every plugin which repository was opened; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_opened", location=location, settings=settings or {}, state_dir=state_dir)

    def post_create(self, clone: Clone) -> list[str]:
        """Tell every plugin that the clone is ready; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_post_create", clone=clone)

    def post_spawn(self, clone: Clone, session: Session) -> list[str]:
        """Tell every plugin that a process was started; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_post_spawn", clone=clone, session=session)

    def session_ended(self, clone: Clone, session: Session) -> list[str]:
        """Tell every plugin that a session has ended; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_session_ended", clone=clone, session=session)

    def session_waiting(self, clone: Clone, session: Session) -> list[str]:
        """Tell every plugin that an agent waits for a person; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_session_waiting", clone=clone, session=session)

    def post_merge(self, clone: Clone, result: MergeResult) -> list[str]:
        """Tell every plugin that the clone has landed; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_post_merge", clone=clone, result=result)

    def held(self, clone: Clone, held: Held) -> list[str]:
        """Tell every plugin that the clone did not land; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_held", clone=clone, held=held)

    def renamed(self, clone: Clone, old: str) -> list[str]:
        """Tell every plugin that the clone has another name; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_renamed", clone=clone, old=old)

    def post_sync(self, clone: Clone) -> list[str]:
        """Tell every plugin that the clone has what its target has; returns the new problems, as `warnings` keeps."""
        return self._notify("khlone_post_sync", clone=clone)

    def post_cleanup(self, clone: Clone) -> list[str]:
        """Tell every plugin that the clone is gone; returns the new problems, also kept in `warnings`."""
        return self._notify("khlone_post_cleanup", clone=clone)

    # -- the disciplines

    def _calls(
        self, hook: str, usable: Callable[[object], _T], **arguments: object
    ) -> Iterator[tuple[str, Callable[[], _T]]]:
        """Each implementation with its plugin's name, in the order in which pluggy would call them."""
        implementations = self._loaded.implementations(hook)
        given = {name: frozen(value) for name, value in arguments.items()} if implementations else {}
        for implementation in implementations:
            yield implementation.plugin_name, self._call(implementation, hook, usable, given)

    def _call(
        self, implementation: Any, hook: str, usable: Callable[[object], _T], given: Mapping[str, object]
    ) -> Callable[[], _T]:
        positional = [given[name] for name in implementation.argnames]
        by_name = {name: given[name] for name in implementation.kwargnames if name in given}

        def answer() -> _T:
            return usable(implementation.function(*positional, **by_name))

        # A plugin that limits what it does by itself says so by an attribute.
        asked = getattr(implementation.plugin, "khlone_limit_s", None)
        limit_s = float(asked) if isinstance(asked, (int, float)) else None
        return functools.partial(self._caller.call, implementation.plugin_name, hook, answer, limit_s=limit_s)

    def _gate(self, hook: str, **arguments: object) -> None:
        for _, ask in self._calls(hook, _nothing, **arguments):
            ask()

    def _first(self, hook: str, usable: Callable[[object], _T | None], **arguments: object) -> _T | None:
        for _, ask in self._calls(hook, usable, **arguments):
            answer = ask()
            if answer is not None:
                return answer
        return None

    def _notify(self, hook: str, **arguments: object) -> list[str]:
        problems = []
        for plugin, ask in self._calls(hook, _nothing, **arguments):
            try:
                ask()
            except KhloneError as error:
                problems.append(_as_warning(plugin, hook, error))
        new = [problem for problem in dict.fromkeys(problems) if problem not in self.warnings]
        self.warnings += new
        return new

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self._told(text)


def _nothing(_: object) -> None:
    return


def _as_warning(plugin: str, hook: str, error: KhloneError) -> str:
    """A failure that stops nothing, in one line, with the place of its trace."""
    failed = error if isinstance(error, PluginFailed) else PluginFailed(plugin, hook, error.message)
    log = failed.facts.get("log")
    return failed.message if log is None else f"{failed.message}; the trace is in {log}"


def _is_idle(plugin: object) -> bool:
    asked = getattr(plugin, "is_idle", None)
    try:
        return bool(callable(asked) and asked() is True)
    except Exception:  # noqa: BLE001 - a plugin that cannot tell is called
        return False
