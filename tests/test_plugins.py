"""The four disciplines, and the loading of plugins through entry points of real distributions."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pluggy
import pytest

import khlone
from khlone import hookimpl, hookspecs
from khlone.errors import Interrupted, InvalidSetting, PluginClash, PluginFailed, Refusal
from khlone.model import (
    Candidate,
    Clone,
    CloneState,
    Finding,
    Isolation,
    MergePlan,
    NewRequest,
    Severity,
    Strategy,
    Verdict,
)
from khlone.plugins import Plugins
from khlone.profiles import AgentProfile

ROOT = Path(__file__).resolve().parent.parent
REQUEST = NewRequest(name="x")
CLONE = Clone(
    id="c1",
    name="x",
    branch="x",
    target="main",
    base="0" * 40,
    head="0" * 40,
    path=Path("/w/x"),
    state=CloneState.READY,
    agent="claude",
    isolation=Isolation.CONFIG,
    config_dir=Path("/s/x"),
    created_at="2026-01-01T00:00:00Z",
)
CANDIDATE = Candidate(clone="x", target="main", strategy=Strategy.MERGE, old="0" * 40, oid="1" * 40, source="2" * 40)


def plugin(name: str, **hooks: Callable[..., object]) -> SimpleNamespace:
    """A plugin of that name; pluggy reads functions on an instance like those of a module."""
    marked = {hook: hookimpl(function) for hook, function in hooks.items()}
    return SimpleNamespace(__name__=name, **marked)


def noted(into: list[str], word: str) -> Callable[[], None]:
    """A hook that only leaves a trace."""

    def note() -> None:
        into.append(word)

    return note


def failing(error: BaseException) -> Callable[[], None]:
    """A hook that raises."""

    def fail() -> None:
        raise error

    return fail


# -- gate


def test_a_gate_stops_at_the_first_refusal_and_names_its_plugin() -> None:
    ran: list[str] = []
    plugins = Plugins.of(
        plugin("last", khlone_pre_create=noted(ran, "last")),
        plugin("no", khlone_pre_create=failing(Refusal("not today"))),
        plugin("first", khlone_pre_create=noted(ran, "first")),
    )

    with pytest.raises(Refusal, match="not today") as caught:
        plugins.pre_create(REQUEST)

    assert caught.value.facts["plugin"] == "no"
    assert ran == ["first"]


def test_a_gate_that_breaks_names_plugin_hook_and_cause() -> None:
    plugins = Plugins.of(plugin("bad", khlone_prepare=failing(OSError("disk\non fire"))))

    with pytest.raises(PluginFailed) as caught:
        plugins.prepare(CLONE)

    assert caught.value.facts == {"plugin": "bad", "hook": "khlone_prepare"}
    assert caught.value.message.endswith("OSError: disk on fire")
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_of_khlone_passes_a_gate_unchanged() -> None:
    error = InvalidSetting("khlone.x", "y", "why")
    plugins = Plugins.of(plugin("p", khlone_pre_create=failing(error)))

    with pytest.raises(InvalidSetting) as caught:
        plugins.pre_create(REQUEST)

    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15)])
def test_an_interruption_is_never_swallowed(error: BaseException) -> None:
    plugins = Plugins.of(
        plugin(
            "p",
            khlone_prepare=failing(error),
            khlone_post_create=failing(error),
            khlone_diagnose=failing(error),
            khlone_environment=failing(error),
            khlone_gate=failing(error),
        )
    )
    calls: list[Callable[[], object]] = [
        lambda: plugins.prepare(CLONE),
        lambda: plugins.post_create(CLONE),
        lambda: plugins.diagnose([CLONE]),
        lambda: plugins.environment(CLONE),
        lambda: plugins.gate(CLONE, CANDIDATE),
    ]

    for call in calls:
        with pytest.raises(type(error)):
            call()


def test_a_plugin_that_exits_counts_as_failed() -> None:
    plugins = Plugins.of(plugin("quitter", khlone_prepare=failing(SystemExit(0))))

    with pytest.raises(PluginFailed, match="quitter"):
        plugins.prepare(CLONE)


def test_hooks_receive_the_arguments_they_name() -> None:
    seen: list[object] = []

    def merge(plan: MergePlan) -> None:
        seen.append(plan)

    def populate(config_dir: Path, clone: Clone) -> None:
        seen.extend((config_dir, clone))

    def spawn(command: Sequence[str], clone: Clone | None = None) -> None:
        seen.append(command)

    plan = MergePlan(target="main", strategy=Strategy.MERGE, source="1" * 40, old="0" * 40)
    plugins = Plugins.of(
        plugin("p", khlone_pre_merge=merge, khlone_populate_config_dir=populate, khlone_pre_spawn=spawn)
    )

    plugins.pre_merge(CLONE, plan)
    plugins.populate_config_dir(CLONE, AgentProfile(name="a"), Path("/c"))
    plugins.pre_spawn(CLONE, ["run", "it"])

    assert seen == [plan, Path("/c"), CLONE, ("run", "it")]


def test_the_order_that_a_plugin_asks_for_is_obeyed() -> None:
    ran: list[str] = []
    eager = SimpleNamespace(__name__="eager", khlone_pre_create=hookimpl(noted(ran, "eager"), tryfirst=True))
    late = SimpleNamespace(__name__="late", khlone_pre_create=hookimpl(noted(ran, "late"), trylast=True))

    Plugins.of(eager, plugin("plain", khlone_pre_create=noted(ran, "plain")), late).pre_create(REQUEST)

    assert ran == ["eager", "plain", "late"]


def test_verdicts_are_gathered_up_to_the_first_failing_one() -> None:
    ran: list[str] = []
    good = Verdict(passed=True, gate="tests")
    bad = Verdict(passed=False, gate="lint", message="long lines")
    plugins = Plugins.of(
        plugin("never", khlone_gate=noted(ran, "never")),
        plugin("lint", khlone_gate=lambda: bad),
        plugin("silent", khlone_gate=lambda: None),
        plugin("tests", khlone_gate=lambda: good),
    )

    assert plugins.gate(CLONE, CANDIDATE) == [good, bad]
    assert ran == []


def test_a_refusal_in_a_gate_equals_a_failing_verdict() -> None:
    plugins = Plugins.of(plugin("guard", khlone_gate=failing(Refusal("no"))))

    assert plugins.gate(CLONE, CANDIDATE) == [Verdict(passed=False, gate="guard", message="no")]


@pytest.mark.parametrize("answer", [True, "passed", 0])
def test_a_gate_that_answers_with_no_verdict_never_passes(answer: object) -> None:
    plugins = Plugins.of(plugin("sloppy", khlone_gate=lambda: answer))

    with pytest.raises(PluginFailed, match="instead of Verdict"):
        plugins.gate(CLONE, CANDIDATE)


# -- collect


def test_two_plugins_with_one_agent_are_named_both() -> None:
    profile = AgentProfile(name="mine")
    plugins = Plugins.of(plugin("a", khlone_agents=lambda: [profile]), plugin("b", khlone_agents=lambda: [profile]))

    with pytest.raises(PluginClash) as caught:
        plugins.agents({})

    assert sorted(caught.value.facts["plugins"]) == ["a", "b"]  # type: ignore[call-overload]
    assert "'mine'" in caught.value.message


def test_agents_of_all_plugins_are_combined_and_settings_cannot_be_changed() -> None:
    def offers(settings: Mapping[str, str]) -> Iterator[AgentProfile]:
        yield AgentProfile(name=settings["agent"])

    def meddles(settings: dict[str, str]) -> None:
        settings["agent"] = "other"

    plugins = Plugins.of(plugin("a", khlone_agents=offers), plugin("b", khlone_agents=lambda: None))

    assert plugins.agents({"agent": "mine"}) == {"mine": AgentProfile(name="mine")}
    with pytest.raises(PluginFailed, match="TypeError"):
        Plugins.of(plugin("c", khlone_agents=meddles)).agents({"agent": "mine"})


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x", "a b", "é"])
def test_an_agent_whose_name_cannot_be_a_folder_is_refused(name: str) -> None:
    plugins = Plugins.of(plugin("p", khlone_agents=lambda: [AgentProfile(name=name)]))

    with pytest.raises(PluginFailed, match="cannot name an agent"):
        plugins.agents({})


def test_one_variable_with_two_values_names_both_plugins_and_no_value() -> None:
    plugins = Plugins.of(
        plugin("a", khlone_environment=lambda: {"URL": "secret-one"}),
        plugin("b", khlone_environment=lambda: {"URL": "secret-two"}),
    )

    with pytest.raises(PluginClash) as caught:
        plugins.environment(CLONE)

    assert sorted(caught.value.facts["plugins"]) == ["a", "b"]  # type: ignore[call-overload]
    assert "URL" in caught.value.message
    assert "secret" not in caught.value.message


def test_one_variable_with_one_value_is_no_clash() -> None:
    plugins = Plugins.of(
        plugin("a", khlone_environment=lambda: {"URL": "one", "A": "1"}),
        plugin("b", khlone_environment=lambda: {"URL": "one"}),
        plugin("c", khlone_environment=lambda: None),
    )

    assert plugins.environment(CLONE) == {"URL": "one", "A": "1"}


@pytest.mark.parametrize("answer", [{"A": 1}, {"A=B": "x"}, {"": "x"}, {"A": "nul\0"}, ["A"]])
def test_variables_that_no_process_could_get_are_refused(answer: object) -> None:
    plugins = Plugins.of(plugin("p", khlone_environment=lambda: answer))

    with pytest.raises(PluginFailed, match="khlone_environment"):
        plugins.environment(CLONE)


def test_a_raising_diagnosis_is_a_finding_beside_the_others() -> None:
    ours = Finding(code="ours", severity=Severity.INFO, message="m")

    def breaks() -> Iterator[Finding]:
        yield Finding(code="before", severity=Severity.INFO, message="m")
        raise RuntimeError("oops")

    plugins = Plugins.of(plugin("good", khlone_diagnose=lambda: [ours]), plugin("bad", khlone_diagnose=breaks))

    before, failed, good = plugins.diagnose([CLONE])

    assert (before.code, good) == ("before", ours)
    assert (failed.code, failed.severity) == ("plugin-failed", Severity.WARNING)
    assert "'bad'" in failed.message
    assert "oops" in failed.message


# -- first


def test_the_first_command_wins_and_none_leaves_the_plain_one() -> None:
    def wrap(command: Sequence[str]) -> list[str]:
        return ["nice", *command]

    assert Plugins.of().spawn_command(CLONE, ["a"]) == ("a",)
    assert Plugins.of(plugin("p", khlone_spawn_command=wrap)).spawn_command(CLONE, ["a"]) == ("nice", "a")
    loses = plugin("loses", khlone_spawn_command=lambda: ["x"])
    passes = plugin("passes", khlone_spawn_command=lambda: None)
    wins = plugin("wins", khlone_spawn_command=wrap)
    assert Plugins.of(loses, wins, passes).spawn_command(CLONE, ["a"]) == ("nice", "a")


@pytest.mark.parametrize("answer", ["ls -l", [], ["a", 1], 7])
def test_a_command_that_is_no_list_of_words_is_refused(answer: object) -> None:
    plugins = Plugins.of(plugin("p", khlone_spawn_command=lambda: answer))

    with pytest.raises(PluginFailed, match="khlone_spawn_command"):
        plugins.spawn_command(CLONE, ["a"])


def test_a_plugin_may_place_the_worktree_only_at_an_absolute_path() -> None:
    assert Plugins.of().worktree_path(REQUEST) is None
    assert Plugins.of(plugin("p", khlone_worktree_path=lambda: Path("/s/x"))).worktree_path(REQUEST) == Path("/s/x")
    with pytest.raises(PluginFailed, match="not absolute"):
        Plugins.of(plugin("p", khlone_worktree_path=lambda: Path("s/x"))).worktree_path(REQUEST)


# -- notify


def test_notify_reaches_every_plugin_when_one_raises() -> None:
    ran: list[str] = []
    plugins = Plugins.of(
        plugin("a", khlone_post_create=noted(ran, "a")),
        plugin("bad", khlone_post_create=failing(RuntimeError("oops"))),
        plugin("worse", khlone_post_create=failing(Refusal("too late"))),
        plugin("b", khlone_post_create=noted(ran, "b")),
    )

    problems = plugins.post_create(CLONE)

    assert sorted(ran) == ["a", "b"]
    assert [re.findall(r"'(\w+)' failed in (\w+)", problem) for problem in problems] == [
        [("worse", "khlone_post_create")],
        [("bad", "khlone_post_create")],
    ]
    assert plugins.warnings == problems


def test_plain_pluggy_would_stop_at_the_first_that_raises() -> None:
    ran: list[str] = []
    manager = pluggy.PluginManager("khlone")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin("after", khlone_post_create=noted(ran, "after")), "after")
    manager.register(plugin("bad", khlone_post_create=failing(RuntimeError("oops"))), "bad")

    with pytest.raises(RuntimeError):
        manager.hook.khlone_post_create(clone=CLONE)

    assert ran == []


# -- registration


def test_has_tells_implemented_hooks_from_others() -> None:
    plugins = Plugins.of(plugin("p", khlone_gate=lambda: None))

    assert plugins.has("khlone_gate")
    assert not plugins.has("khlone_pre_merge")
    with pytest.raises(AttributeError):
        plugins.has("khlone_no_such_hook")


def test_every_hook_has_a_caller_in_the_front() -> None:
    plugins = Plugins.of()
    for name in vars(hookspecs):
        if name.startswith("khlone_"):
            assert callable(getattr(plugins, name.removeprefix("khlone_"))), name


def test_a_misspelt_hook_is_warned_about_and_its_plugin_kept() -> None:
    plugins = Plugins.of(plugin("typo", khlone_post_creat=lambda: None, khlone_gate=lambda: None))

    assert plugins.names == ("typo",)
    assert plugins.has("khlone_gate")
    (warning,) = plugins.warnings
    assert "khlone_post_creat," in warning
    assert "did you mean khlone_post_create?" in warning


def test_a_hook_of_another_version_may_be_marked_optional() -> None:
    future = SimpleNamespace(__name__="future", khlone_later=hookimpl(lambda: None, optionalhook=True))

    assert Plugins.of(future).warnings == []


def test_a_hook_without_the_mark_is_warned_about() -> None:
    plugins = Plugins.of(SimpleNamespace(__name__="bare", khlone_prepare=lambda clone: None))

    assert plugins.warnings == ["plugin 'bare' defines khlone_prepare without @hookimpl, so it is not called"]


def _yields() -> Iterator[None]:
    yield


def _generates() -> Iterator[None]:
    yield


async def _awaits() -> None:
    return


@pytest.mark.parametrize(
    ("marked", "why"),
    [
        (hookimpl(lambda nonsense: None), "nonsense"),
        (hookimpl(_yields, wrapper=True), "wrapper"),
        (hookimpl(_yields, hookwrapper=True), "wrapper"),
        (hookimpl(_awaits), "async"),
        (hookimpl(_generates), "yield"),
    ],
)
def test_a_hook_that_would_never_run_keeps_its_plugin_out(marked: object, why: str) -> None:
    broken = SimpleNamespace(__name__="broken", khlone_prepare=marked)

    with pytest.raises(PluginFailed, match=why):
        Plugins.of(broken)


def test_objects_of_one_class_get_names_of_their_own() -> None:
    class Same:
        """A plugin."""

    assert Plugins.of(Same(), Same()).names == ("Same", "Same-2")


# -- loading: real distributions, in an interpreter that sees nothing else

LOAD = """
import json, os, sys
from pathlib import Path
from khlone.plugins import Plugins
cache = os.environ.get("TEST_CACHE")
plugins = Plugins.load(cache_dir=Path(cache) if cache else None)
scanned = "importlib.metadata" in sys.modules
print(json.dumps({"names": plugins.names, "warnings": plugins.warnings, "scanned": scanned}))
"""


class Site:
    """A folder of installed packages: khlone, pluggy and what a test adds."""

    def __init__(self, root: Path) -> None:
        self.path = root / "site"
        self.path.mkdir()
        self.cache = root / "cache" / "khlone"
        for package in (khlone, pluggy):
            home = Path(str(package.__file__)).parent
            (self.path / home.name).symlink_to(home)

    def install(self, name: str, source: str, *, entry: str | None = None, distribution: str | None = None) -> None:
        """A distribution with one module that is a plugin."""
        (self.path / f"{name}.py").write_text(source)
        self.declare(self.path, distribution or name, f"[khlone]\n{name} = {entry or name}\n")

    def declare(self, folder: Path, distribution: str, entry_points: str) -> None:
        """The metadata of an installed distribution."""
        info = folder / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(entry_points)

    def settle(self) -> None:
        """Make the folder look unchanged for long: what changed just now is not cached."""
        os.utime(self.path, (1_000_000_000, 1_000_000_000))

    def run(self, script: str = LOAD, *, cwd: Path | None = None, **environment: str) -> str:
        """stdout of a script run by an interpreter with this folder alone."""
        done = subprocess.run(
            [sys.executable, "-S", "-c", script],
            # A __pycache__ would change the folder, which the tests do when they mean to.
            env={
                "PYTHONPATH": str(self.path),
                "PYTHONDONTWRITEBYTECODE": "1",
                "TEST_CACHE": str(self.cache),
                **environment,
            },
            cwd=cwd or self.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, *, cwd: Path | None = None, **environment: str) -> dict[str, object]:
        """What a fresh process loads."""
        found = json.loads(self.run(cwd=cwd, **environment))
        assert isinstance(found, dict)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty set of installed plugins."""
    return Site(tmp_path)


GOOD = "from khlone import hookimpl\n@hookimpl\ndef khlone_post_create(clone): pass\n"


def test_a_broken_plugin_is_warned_about_and_the_others_load(site: Site) -> None:
    site.install("good", GOOD)
    site.install("absent", GOOD, entry="there_is_no_such_module")
    site.install("quits", "import sys\nsys.exit(3)\n")
    site.install("raises", "raise RuntimeError('half installed')\n")
    site.install("strange", GOOD.replace("(clone)", "(nonsense)"))
    site.install("objectless", GOOD, entry="objectless:plugin")

    found = site.load()

    assert found["names"] == ["good"]
    warnings = found["warnings"]
    assert isinstance(warnings, list)
    told = [re.findall(r"plugin '(\w+)' of \w+ 1\.2 was left out", warning)[0] for warning in warnings]
    assert told == ["absent", "objectless", "quits", "raises", "strange"]
    assert "half installed" in warnings[3]


def test_an_entry_point_may_name_an_object_in_a_module(site: Site) -> None:
    site.install("inner", "class plugin:\n    pass\n", entry="inner:plugin")

    assert site.load()["names"] == ["inner"]


def test_two_distributions_with_one_plugin_name_load_once_and_say_so(site: Site) -> None:
    site.install("one", GOOD)
    (site.path / "two.py").write_text(GOOD)
    site.declare(site.path, "zwei", "[khlone]\none = two\n")

    found = site.load()

    assert found["names"] == ["one"]
    assert found["warnings"] == ["plugin 'one' of zwei 1.2 was left out: another plugin has that name"]


def test_a_damaged_distribution_does_not_keep_the_others_out(site: Site) -> None:
    site.install("good", GOOD)
    site.declare(site.path, "damaged", "[khlone]\nthis is no entry\n")
    (site.path / "binary-1.2.dist-info").mkdir()
    (site.path / "binary-1.2.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[khlone]")

    found = site.load()

    assert found["names"] == ["good"]
    assert len(found["warnings"]) == 2  # type: ignore[arg-type]


def test_a_warm_start_scans_nothing(site: Site) -> None:
    site.install("good", GOOD)
    site.settle()

    cold, warm = site.load(), site.load()

    assert (cold["names"], cold["scanned"]) == (["good"], True)
    assert (warm["names"], warm["scanned"]) == (["good"], False)
    assert stat.S_IMODE((site.cache / "plugins.json").stat().st_mode) == 0o600


def test_a_start_without_a_cache_scans_every_time(site: Site) -> None:
    site.settle()

    assert [site.load(TEST_CACHE="")["scanned"] for _ in range(2)] == [True, True]


def test_the_cache_is_refreshed_when_a_plugin_is_installed_or_removed(site: Site) -> None:
    site.install("good", GOOD)
    site.settle()
    site.load()
    assert site.load()["scanned"] is False

    site.install("more", GOOD)
    assert site.load()["names"] == ["good", "more"]

    (site.path / "good-1.2.dist-info").rename(site.path / "gone")
    assert site.load()["names"] == ["more"]


def test_a_folder_that_changed_just_now_is_not_cached(site: Site) -> None:
    site.install("good", GOOD)
    os.utime(site.path)

    assert site.load()["names"] == ["good"]
    assert not (site.cache / "plugins.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_cache_is_ignored_and_written_anew(site: Site, content: bytes) -> None:
    site.install("good", GOOD)
    site.settle()
    site.cache.mkdir(parents=True)
    (site.cache / "plugins.json").write_bytes(content)

    assert site.load() == {"names": ["good"], "warnings": [], "scanned": True}
    assert site.load()["scanned"] is False


def test_cached_entries_of_the_wrong_kind_are_ignored(site: Site) -> None:
    site.install("good", GOOD)
    site.settle()
    site.load()
    cache = site.cache / "plugins.json"
    document = json.loads(cache.read_bytes())
    document["plugins"][0]["value"] = ["os"]
    cache.write_text(json.dumps(document))

    assert site.load() == {"names": ["good"], "warnings": [], "scanned": True}


def test_a_cache_that_cannot_be_written_is_done_without(site: Site) -> None:
    site.install("good", GOOD)
    site.settle()
    site.cache.parent.mkdir()
    site.cache.write_text("a file where the folder should be")

    assert site.load() == {"names": ["good"], "warnings": [], "scanned": True}


def test_a_link_in_place_of_the_cache_is_not_followed(site: Site, tmp_path: Path) -> None:
    site.install("good", GOOD)
    site.settle()
    site.load()
    elsewhere = tmp_path / "elsewhere.json"
    (site.cache / "plugins.json").rename(elsewhere)
    (site.cache / "plugins.json").symlink_to(elsewhere)

    assert site.load()["scanned"] is True


def test_the_selection_by_environment_takes_all_none_or_those_named(site: Site) -> None:
    site.install("one", GOOD)
    site.install("two", GOOD)
    site.install("broken", "raise RuntimeError\n")

    assert site.load(KHLONE_PLUGINS="") == {"names": [], "warnings": [], "scanned": False}
    assert site.load(KHLONE_PLUGINS="two, one")["names"] == ["one", "two"]
    assert site.load(KHLONE_PLUGINS="two")["warnings"] == []
    absent = "KHLONE_PLUGINS names {!r}, which is not installed"
    assert site.load(KHLONE_PLUGINS="two,three")["warnings"] == [absent.format("three")]
    assert site.load(KHLONE_PLUGINS="twoo")["warnings"] == [absent.format("twoo") + "; did you mean 'two'?"]


def test_a_repository_brings_no_plugins_along(site: Site, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "evil.py").write_text("raise SystemExit('it ran')\n")
    site.declare(repository, "evil", "[khlone]\nevil = evil\n")

    assert site.load(cwd=repository) == {"names": [], "warnings": [], "scanned": True}


def test_the_folder_of_the_script_that_was_started_brings_no_plugins_along(site: Site, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "evil.py").write_text("raise SystemExit('it ran')\n")
    site.declare(scripts, "evil", "[khlone]\nevil = evil\n")
    (scripts / "start.py").write_text(LOAD)

    started = site.run(
        f"import runpy, sys; sys.argv = [{str(scripts / 'start.py')!r}]; "
        f"sys.path.insert(0, {str(scripts)!r}); runpy.run_path(sys.argv[0])"
    )

    assert json.loads(started)["names"] == []


FOREIGN = """
import os, sys
from pathlib import Path
from khlone import entry_points
found = entry_points.may_reach_foreign(Path(os.environ["TEST_CACHE"]), entry_points.selection(os.environ))
print(found, *(set(sys.modules) & {"pluggy", "inspect", "dataclasses"}))
"""


def test_whether_a_foreign_plugin_has_a_word_is_told_without_loading_any(site: Site) -> None:
    site.declare(site.path, "khlone", "[khlone]\nclaude = no_such_module\n")
    own = site.run(FOREIGN)
    site.install("other", "raise RuntimeError\n")

    assert own == "False\n"
    assert site.run(FOREIGN) == "True\n"
    assert site.run(FOREIGN, KHLONE_PLUGINS="claude,third") == "False\n"
    assert site.run(FOREIGN, KHLONE_PLUGINS="") == "False\n"


# -- docs/plugins.md


def test_the_first_plugin_of_the_docs_works_and_is_short(site: Site) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    project, module = re.findall(r"```(?:toml|python)\n(.*?)```", text, re.DOTALL)[:2]
    declared = tomllib.loads(project)["project"]["entry-points"]["khlone"]
    ((name, value),) = declared.items()
    site.install(value, module)
    script = f"""
from khlone.plugins import Plugins
from khlone import NewRequest, Refusal
plugins = Plugins.load(cache_dir=None)
assert plugins.names == ({name!r},), plugins.names
plugins.pre_create(NewRequest(name="fine"))
try:
    plugins.pre_create(NewRequest(name="tmp"))
except Refusal as refusal:
    print(refusal.message)
"""
    (site.path / f"{value}-1.2.dist-info" / "entry_points.txt").write_text(f"[khlone]\n{name} = {value}\n")

    shown = site.run(script).strip()

    assert shown
    assert shown in text
    assert len([line for line in (project + module).splitlines() if line.strip()]) < 20


def test_the_docs_list_every_hook_with_its_discipline() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    rows = dict(re.findall(r"^\| `(khlone_\w+)\(.*?\)`[^|]*\| (\w+) \|", text, re.MULTILINE))

    disciplines = {
        name: str(spec.__doc__).split(":")[0].lower()
        for name, spec in vars(hookspecs).items()
        if name.startswith("khlone_")
    }

    assert rows == disciplines
