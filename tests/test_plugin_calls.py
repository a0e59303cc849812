"""One implementation of a hook: ended when its time is up, its arguments frozen, its failures written down."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

from khlone import hookimpl, plugin_log
from khlone.errors import NotAdmitted, PluginFailed, Refusal
from khlone.model import Changes, Clone, CloneState, Demand, Isolation, Landed, MergeResult, Strategy
from khlone.plugin_calls import frozen
from khlone.plugins import Plugins
from khlone.profiles import AgentProfile
from khlone.values import field_names

CLONE = Clone(
    id="c1",
    name="one",
    branch="one",
    target="main",
    base="0" * 40,
    head="0" * 40,
    path=Path("/w/one"),
    state=CloneState.READY,
    agent="generic",
    isolation=Isolation.CONFIG,
    config_dir=None,
    created_at="2026-01-01T00:00:00Z",
)
#: Short, since it has to pass; whether anything ends depends on it alone.
LIMIT_S = 0.05
#: What no test waits for: where the limit does not work, the test's own time-out ends it.
FOREVER_S = 3600.0


def plugin(name: str = "p", **hooks: Callable[..., object]) -> SimpleNamespace:
    """A plugin of that name."""
    return SimpleNamespace(__name__=name, **{f"khlone_{hook}": hookimpl(call) for hook, call in hooks.items()})


# -- the limit -----------------------------------------------------------------------------


def sleeps() -> None:
    """Waits for nothing."""
    time.sleep(FOREVER_S)


def computes() -> None:
    """Never gives the interpreter away."""
    while True:
        pass


def waits_for_a_process() -> None:
    """Waits for a process that does not end by itself."""
    subprocess.run(["sleep", str(FOREVER_S)], check=True)


def waits_for_a_lock() -> None:
    """Waits for what nobody gives."""
    threading.Event().wait()


def swallows_exceptions() -> None:
    """Goes on whatever an `except Exception` catches."""
    while True:
        try:
            time.sleep(FOREVER_S)
        except Exception:
            continue


def swallows_everything_once() -> None:
    """Swallows the first interruption, of whatever kind."""
    try:
        time.sleep(FOREVER_S)
    except BaseException:
        time.sleep(FOREVER_S)


@pytest.mark.parametrize(
    "hang",
    [sleeps, computes, waits_for_a_process, waits_for_a_lock, swallows_exceptions, swallows_everything_once],
    ids=lambda hang: hang.__name__,
)
def test_a_hook_whose_time_is_up_is_ended_and_named(hang: Callable[[], None]) -> None:
    ran: list[str] = []
    plugins = Plugins.of(
        plugin("after", post_create=lambda: ran.append("after")), plugin("hangs", post_create=hang), limit_s=LIMIT_S
    )

    problems = plugins.post_create(CLONE)

    assert problems == [
        "plugin 'hangs' failed in khlone_post_create: it took longer than 0.05 s (khlone.plugins.timeout)"
    ]
    assert ran == ["after"]


def test_a_gate_whose_time_is_up_stops_the_operation() -> None:
    plugins = Plugins.of(plugin(prepare=sleeps), limit_s=LIMIT_S)

    with pytest.raises(PluginFailed, match="took longer than"):
        plugins.prepare(CLONE)


def test_an_answer_that_comes_item_by_item_is_within_the_limit_too() -> None:
    def agents() -> Iterator[AgentProfile]:
        yield AgentProfile(name="mine")
        time.sleep(FOREVER_S)

    plugins = Plugins.of(plugin(agents=agents), limit_s=LIMIT_S)

    with pytest.raises(PluginFailed, match="khlone_agents: it took longer"):
        plugins.agents({})


def test_without_a_limit_a_slow_hook_ends_by_itself() -> None:
    ran: list[str] = []

    def slow() -> None:
        time.sleep(LIMIT_S * 3)
        ran.append("to its end")

    assert Plugins.of(plugin(post_create=slow), limit_s=0).post_create(CLONE) == []
    assert Plugins.of(plugin(post_create=slow), limit_s=LIMIT_S).post_create(CLONE) != []
    assert ran == ["to its end"]


@pytest.mark.parametrize(("own", "is_ended"), [(LIMIT_S, True), (0.0, False), (None, False), ("soon", False)])
def test_a_plugin_may_have_a_limit_of_its_own(own: object, is_ended: bool) -> None:
    slow = plugin(post_create=lambda: time.sleep(LIMIT_S * 3))
    slow.khlone_limit_s = own

    problems = Plugins.of(slow, limit_s=FOREVER_S).post_create(CLONE)

    assert bool(problems) == is_ended


def test_the_timer_and_the_handler_that_were_there_are_there_again() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    before, interval = signal.getitimer(signal.ITIMER_REAL)
    assert before > 0, "pytest-timeout has one"

    Plugins.of(plugin(post_create=sleeps), limit_s=LIMIT_S).post_create(CLONE)
    Plugins.of(plugin(post_create=lambda: None), limit_s=LIMIT_S).post_create(CLONE)

    left, still = signal.getitimer(signal.ITIMER_REAL)
    assert signal.getsignal(signal.SIGALRM) is handler
    assert 0 < left < before
    assert still == interval


def test_an_alarm_of_the_callers_own_goes_off_within_a_hook() -> None:
    class Alarm(BaseException):
        """The caller's."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Alarm

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        with pytest.raises(Alarm):
            Plugins.of(plugin(post_create=sleeps), limit_s=FOREVER_S).post_create(CLONE)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def test_a_hook_that_calls_hooks_is_still_ended_itself() -> None:
    inner = Plugins.of(plugin("inner", post_create=sleeps), limit_s=LIMIT_S)

    def calls_and_hangs() -> None:
        assert len(inner.post_create(CLONE)) == 1
        time.sleep(FOREVER_S)

    outer = Plugins.of(plugin("outer", post_create=calls_and_hangs), limit_s=LIMIT_S * 4)

    assert "it took longer than 0.2 s" in outer.post_create(CLONE)[0]


def test_outside_the_main_thread_a_late_hook_is_told_of_and_its_answer_counts() -> None:
    def late() -> dict[str, str]:
        time.sleep(LIMIT_S * 2)
        return {"LATE": "yes"}

    plugins = Plugins.of(plugin(environment=late), limit_s=LIMIT_S)
    found: list[Mapping[str, str]] = []
    thread = threading.Thread(target=lambda: found.append(plugins.environment(CLONE)))

    thread.start()
    thread.join()

    assert found == [{"LATE": "yes"}]
    assert len(plugins.warnings) == 1
    assert plugins.warnings[0].startswith("plugin 'p' took 0.")


def test_the_time_spent_is_counted_by_plugin_and_hook() -> None:
    plugins = Plugins.of(plugin("a", post_create=lambda: None), plugin("b", prepare=lambda: time.sleep(LIMIT_S)))

    plugins.post_create(CLONE)
    plugins.post_create(CLONE)
    plugins.prepare(CLONE)

    assert [(name, one.hook, one.calls) for name, one in plugins.spent] == [
        ("a", "khlone_post_create", 2),
        ("b", "khlone_prepare", 1),
    ]
    assert plugins.spent[1][1].ms >= LIMIT_S * 1000


# -- frozen arguments ----------------------------------------------------------------------


def changeable(value: object, at: str) -> Iterator[str]:
    """Where in a value something could be changed."""
    names = field_names(value)
    if names:
        for name in names:
            yield from changeable(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from changeable(item, f"{at}[{number}]")
    elif isinstance(value, types.MappingProxyType):
        for key, item in value.items():
            yield from changeable(item, f"{at}[{key!r}]")
    elif not isinstance(value, (str, int, float, bytes, Path, frozenset, type(None))):
        yield f"{at}: {type(value).__name__}"


def test_no_hook_gets_anything_that_it_could_change() -> None:
    seen: dict[str, Mapping[str, object]] = {}

    def environment(clone: object) -> None:
        seen["environment"] = {"clone": clone}

    def agents(settings: object) -> None:
        seen["agents"] = {"settings": settings}

    def populate(clone: object, agent: object, config_dir: object) -> None:
        seen["populate"] = {"clone": clone, "agent": agent, "config_dir": config_dir}

    def merged(clone: object, result: object) -> None:
        seen["merged"] = {"clone": clone, "result": result}

    def cleanup(clone: object, plan: object) -> None:
        seen["cleanup"] = {"clone": clone, "plan": plan}

    def admit(clone: object, demand: object) -> None:
        seen["admit"] = {"clone": clone, "demand": demand}

    def diagnose(clones: object) -> None:
        seen["diagnose"] = {"clones": clones}

    plugins = Plugins.of(
        plugin(
            environment=environment,
            agents=agents,
            populate_config_dir=populate,
            post_merge=merged,
            pre_cleanup=cleanup,
            admit=admit,
            diagnose=diagnose,
        )
    )
    profile = AgentProfile(name="a", config_variables=["A"], environment={"B": "b"}, strip=["C"])
    landed = [Landed(name="one", strategy=Strategy.MERGE, oid="0" * 40)]
    result = MergeResult(target="main", old="0" * 40, new="1" * 40, gated=False, landed=landed, held=[])
    changes = Changes(staged=["a"], untracked=["b"])

    plugins.environment(CLONE)
    plugins.agents({"agent": "a"})
    plugins.populate_config_dir(CLONE, profile, Path("/c"))
    plugins.post_merge(CLONE, result)
    plugins.pre_cleanup(CLONE, changes)  # type: ignore[arg-type]
    plugins.admit(CLONE, Demand(command=["make"]))
    plugins.diagnose([CLONE])

    assert set(seen) == {"environment", "agents", "populate", "merged", "cleanup", "admit", "diagnose"}
    found = [place for hook, given in seen.items() for key, value in given.items() for place in changeable(value, key)]
    assert found == []
    assert list(changeable(result, "result")) == ["result.landed: list", "result.held: list"]


def test_a_frozen_value_is_the_same_value() -> None:
    profile = AgentProfile(name="a", config_variables=("A",), environment={"B": "b"})

    assert frozen(profile) == profile
    assert frozen(CLONE) == CLONE


# -- admission -----------------------------------------------------------------------------


class TooBig(Refusal):
    """A refusal that no waiting helps against."""

    code = "too-big"
    exit_code = 1


def test_every_reason_not_to_admit_is_told_and_means_try_again() -> None:
    def raises() -> None:
        raise Refusal("too hot")

    plugins = Plugins.of(
        plugin("fine", admit=lambda: None),
        plugin("answers", admit=lambda: Refusal("too full")),
        plugin("raises", admit=raises),
    )

    with pytest.raises(NotAdmitted) as caught:
        plugins.admit(CLONE, Demand(command=("make",)))

    assert (caught.value.code, caught.value.exit_code) == ("not-admitted", 75)
    assert caught.value.message == "no session may start in one now: too hot (raises); too full (answers)"
    assert caught.value.facts["plugins"] == ["raises", "answers"]


def test_a_refusal_with_a_code_of_its_own_keeps_it() -> None:
    plugins = Plugins.of(plugin("big", admit=lambda: TooBig("never")), plugin("full", admit=lambda: Refusal("full")))

    with pytest.raises(TooBig, match="never") as caught:
        plugins.admit(CLONE, Demand(command=("make",)))

    assert caught.value.facts["plugin"] == "big"


@pytest.mark.parametrize("answer", [False, "no", 0])
def test_an_answer_that_is_no_refusal_admits_nobody(answer: object) -> None:
    plugins = Plugins.of(plugin(admit=lambda: answer))

    with pytest.raises(PluginFailed, match="instead of Refusal"):
        plugins.admit(CLONE, Demand(command=("make",)))


# -- agents, columns -----------------------------------------------------------------------


def fails() -> None:
    """A hook that raises."""
    raise RuntimeError("oops")


def test_an_agent_of_another_plugin_is_found_and_the_failure_told_once() -> None:
    plugins = Plugins.of(
        plugin("bad", agents=fails), plugin("good", agents=lambda: [AgentProfile(name="mine", strip=["A"])])
    )

    for _ in range(2):
        assert plugins.agents({}, "mine")["mine"].strip == ("A",)

    assert plugins.warnings == ["plugin 'bad' failed in khlone_agents: RuntimeError: oops"]
    with pytest.raises(PluginFailed, match="bad"):
        plugins.agents({}, "other")


def test_a_plugin_that_fails_over_one_clone_loses_its_columns_from_there_on() -> None:
    calls: list[str] = []

    def columns(clone: Clone) -> dict[str, str]:
        calls.append(clone.name)
        if len(calls) == 2:
            raise RuntimeError("oops")
        return {"size": "1"}

    plugins = Plugins.of(plugin("bad", columns=columns), plugin("good", columns=lambda: {"good": "yes"}))

    found = plugins.columns([CLONE] * 3, ["NAME"])

    assert found == {"GOOD": ["yes"] * 3, "SIZE": ["1", "-", "-"]}
    assert len(calls) == 2
    assert plugins.warnings == ["plugin 'bad' failed in khlone_columns: RuntimeError: oops"]


@pytest.mark.parametrize("answer", [{"size": 1}, {1: "size"}, {" ": "x"}, ["size"], "size"])
def test_columns_that_are_no_text_are_left_out(answer: object) -> None:
    plugins = Plugins.of(plugin(columns=lambda: answer))

    assert plugins.columns([CLONE], []) == {}
    assert len(plugins.warnings) == 1


# -- the log -------------------------------------------------------------------------------


def logging(log: Path) -> Plugins:
    """A plugin that fails, and where its trace goes."""

    def leaks() -> None:
        raise RuntimeError("GET https://user:hunter2@host/ with Bearer abc.def and sk-ant-xyz")

    return Plugins.of(plugin("bad", post_create=leaks), log=log)


def test_the_trace_of_a_failure_is_private_redacted_and_named_in_the_warning(tmp_path: Path) -> None:
    log = tmp_path / "state" / "plugins.log"

    (problem,) = logging(log).post_create(CLONE)

    text = log.read_text()
    assert problem.endswith(f"; the trace is in {log}")
    assert "plugin 'bad' in khlone_post_create, after 0." in text
    assert f'File "{__file__}"' in text
    assert "RuntimeError: GET https://[redacted]host/" in text
    assert [secret for secret in ("hunter2", "abc.def", "sk-ant-xyz") if secret in text] == []
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_the_log_stays_within_its_bound_and_keeps_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "plugins.log"
    failure = RuntimeError("x" * 100_000)

    for number in range(40):
        assert plugin_log.write(log, plugin=f"p{number}", where="khlone_gate", seconds=1.0, error=failure)

    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"plugins.log", "plugins.log.1"}
    assert max(sizes.values()) <= plugin_log.MOST_BYTES
    assert "plugin 'p39'" in log.read_text()


def links(log: Path) -> None:
    """A link to somebody's file."""
    (log.parent / "precious").write_text("precious")
    log.symlink_to("precious")


def is_a_pipe(log: Path) -> None:
    """A pipe that nobody reads."""
    os.mkfifo(log)


@pytest.mark.parametrize("trap", [links, is_a_pipe, Path.mkdir])
def test_a_log_that_cannot_be_written_is_not_named_and_harms_nothing(
    trap: Callable[[Path], None], tmp_path: Path
) -> None:
    log = tmp_path / "plugins.log"
    trap(log)

    (problem,) = logging(log).post_create(CLONE)

    assert problem.startswith("plugin 'bad' failed in khlone_post_create: RuntimeError")
    assert "the trace is in" not in problem
    assert [path.read_text() for path in tmp_path.glob("precious")] in ([], ["precious"])
