"""How is one implementation of a hook called? Timed, within a limit, its prints apart, its failure named.

What can be promised about the limit: in the main thread an exception is raised inside the
implementation when its time is up, and again every second until it has ended. It cannot
be caught by `except Exception`, and it ends sleeping, waiting and Python code. Not to be
ended that way: code of another language that does not return to Python, and threads or
processes that a plugin has left behind. Outside the main thread (`exec --all`) Python has
no such means: there a late hook is only told of, and its answer counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from khlone import plugin_log, values
from khlone.errors import KhloneError, PluginFailed, Refusal
from khlone.model import HookTime

DEFAULT_LIMIT_S = 60.0
#: What counts as a plugin's failure; every other BaseException passes through.
FAILURES = (Exception, SystemExit)

#: How long after its time is up an implementation that has swallowed that is told again.
_AGAIN_S = 1.0
#: A timer and a clock may differ by this much.
_SLACK_S = 0.005

#: What took less in one command, in milliseconds, is not written down: where nothing took more, nothing is loaded.
_LEAST_MS = 5.0

_T = TypeVar("_T")


class TimeIsUp(Exception):
    """A hook took longer than it may."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it took longer than {limit_s:g} s (khlone.plugins.timeout)")


class Caller:
    """Calls implementations one by one; `warn` is told of what is no failure but should be known."""

    def __init__(self, *, limit_s: float, log: Path | None, warn: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._log = log
        self._warn = warn
        self._spent: dict[tuple[str, str], tuple[int, float]] = {}

    @property
    def spent(self) -> tuple[tuple[str, HookTime], ...]:
        """The time that each plugin has spent in each hook so far, in the order of their first calls."""
        return tuple(
            (plugin, HookTime(hook=hook, calls=calls, ms=seconds * 1000))
            for (plugin, hook), (calls, seconds) in self._spent.items()
        )

    def write_spent(self) -> None:
        """Write down what was spent since this was last called, beside the log; what cannot be written is no error."""
        long = [(plugin, one) for plugin, one in self.spent if one.ms >= _LEAST_MS]
        if self._log is not None and long:
            from khlone import plugin_times

            plugin_times.note(self._log.with_name(plugin_times.FILE), long)
        self._spent.clear()

    def written(self) -> dict[str, list[HookTime]]:
        """What the last commands have written down, by plugin."""
        from khlone import plugin_times

        return {} if self._log is None else plugin_times.read(self._log.with_name(plugin_times.FILE))

    def call(self, plugin: str, hook: str, function: Callable[[], _T], *, limit_s: float | None = None) -> _T:
        """What the function returns; `limit_s` is the plugin's own limit.

        Raises a Refusal with the plugin's name in it, khlone's own errors as they are, and
        PluginFailed for the rest, written to the log.
        """
        started = time.perf_counter()
        try:
            with prints_apart():
                return _limited(function, self._limit_s if limit_s is None else limit_s)
        except Refusal as refusal:
            refusal.facts["plugin"] = plugin
            raise
        except KhloneError:
            raise
        except FAILURES as error:
            log = self.note(plugin, hook, time.perf_counter() - started, error)
            raise PluginFailed(plugin, hook, cause(error), log=log) from error
        finally:
            self._count(plugin, hook, time.perf_counter() - started, self._limit_s if limit_s is None else limit_s)

    def note(self, plugin: str, where: str, seconds: float, error: BaseException) -> Path | None:
        """Write a failure to the log; returns where, `None` when that could not be done."""
        if self._log is None:
            return None
        written = plugin_log.write(self._log, plugin=plugin, where=where, seconds=seconds, error=error)
        return self._log if written else None

    def _count(self, plugin: str, hook: str, seconds: float, limit_s: float) -> None:
        calls, before = self._spent.get((plugin, hook), (0, 0.0))
        self._spent[plugin, hook] = (calls + 1, before + seconds)
        if 0 < limit_s < seconds and threading.current_thread() is not threading.main_thread():
            self._warn(f"plugin {plugin!r} took {seconds:.1f} s in {hook}, longer than {limit_s:g} s")


def cause(error: BaseException) -> str:
    """One line for people; survives an exception that cannot say what it is."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - a plugin's __str__
        text = ""
    if isinstance(error, (KhloneError, TimeIsUp)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def frozen(value: Any) -> Any:
    """The same value without anything in it that could be changed: one plugin must not steer the next."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(item) for item in value)
    if isinstance(value, Mapping):
        return types.MappingProxyType({key: frozen(item) for key, item in value.items()})
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    names = values.field_names(value)
    return values.replace(value, **{name: frozen(getattr(value, name)) for name in names}) if names else value


# -- within a limit ------------------------------------------------------------------------


class _TimeIsUp(BaseException):
    """Raised inside an implementation, where no `except Exception` may swallow it."""


def _limited(function: Callable[[], _T], limit_s: float) -> _T:
    """What the function returns; raises TimeIsUp. A timer and a handler that were there before are kept."""
    outer = signal.getsignal(signal.SIGALRM)
    if limit_s <= 0 or outer is None or threading.current_thread() is not threading.main_thread():
        return function()
    started = time.monotonic()
    outer_left_s, outer_interval_s = signal.getitimer(signal.ITIMER_REAL)
    has_ended = False

    def alarm(number: int, frame: FrameType | None) -> None:
        left_s = limit_s - (time.monotonic() - started)
        if has_ended:
            return
        if left_s < _SLACK_S:
            raise _TimeIsUp
        signal.setitimer(signal.ITIMER_REAL, left_s, _AGAIN_S)
        if callable(outer):
            outer(number, frame)

    def put_back() -> None:
        nonlocal has_ended
        has_ended = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
        if outer_left_s:
            left_s = outer_left_s - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, _SLACK_S), outer_interval_s)

    signal.signal(signal.SIGALRM, alarm)
    first_s = min(limit_s, outer_left_s) if outer_left_s else limit_s
    signal.setitimer(signal.ITIMER_REAL, first_s, _AGAIN_S)
    try:
        try:
            return function()
        finally:
            put_back()
    except _TimeIsUp as error:
        # Once more: it may have been raised before the first line of the putting back.
        put_back()
        raise TimeIsUp(limit_s) from error


# -- prints apart --------------------------------------------------------------------------


@contextlib.contextmanager
def prints_apart() -> Iterator[None]:
    """Keep stdout for the answer, where `print` goes to stderr already: also from what child processes say."""
    kept = _stderr_as_stdout() if sys.stdout is sys.stderr else None
    try:
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _stderr_as_stdout() -> int | None:
    """Let descriptor 1 be what 2 is; returns what it was, `None` when one of them is closed."""
    try:
        kept = os.dup(1)
    except OSError:
        return None
    try:
        os.dup2(2, 1)
    except OSError:
        os.close(kept)
        return None
    return kept
