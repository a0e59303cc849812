"""docs/hooks.md is what the docstrings of the hooks say, and every example in it runs and does what it says."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from khlone import hookspecs, values
from khlone.context import Context
from khlone.discovery import discover
from khlone.errors import NotAdmitted, Refusal
from khlone.model import (
    Candidate,
    Changes,
    Clone,
    CloneState,
    Conflict,
    ConflictedFile,
    Demand,
    Held,
    Isolation,
    MergePlan,
    MergeResult,
    NewRequest,
    RemovePlan,
    Session,
    Strategy,
)
from khlone.output import Output
from khlone.plugin_loading import HOOKS
from khlone.plugins import Plugins
from khlone.profiles import AgentProfile, ConfigItem, Sharing
from tests.support import ROOT, Git, Khlone, make_commit, run_git


def load_script() -> ModuleType:
    """docs/hooks.py, which is no package."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
DISCIPLINES = {"gate", "collect", "first", "notify"}


def test_the_page_of_hooks_is_up_to_date() -> None:
    shown = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")

    assert shown == SCRIPT.page(), "run .venv/bin/python docs/hooks.py"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_docstring_says_discipline_time_failure_and_example(hook: str) -> None:
    discipline, text, example = SCRIPT.parts(getattr(hookspecs, hook))

    assert discipline in DISCIPLINES
    assert "Runs " in text, "when it runs"
    assert any(word in text for word in ("raise", "Refusal", "exception")), "what it may raise, and what happens then"
    assert example.count("@hookimpl\n") == 1
    assert f"def {hook}(" in example


# -- the examples --------------------------------------------------------------------------


class Place:
    """A repository whose worktree stands for a clone's, and what hooks are given about it."""

    def __init__(self, repository: Path, old: str, new: str, config_dir: Path) -> None:
        self.repository, self.old, self.new = repository, old, new
        self.clone = Clone(
            id="0123456789abcdef",
            name="one",
            branch="one",
            target="main",
            base=old,
            head=new,
            path=repository,
            state=CloneState.READY,
            agent="trial",
            isolation=Isolation.CONFIG,
            config_dir=config_dir,
            created_at="2026-01-01T00:00:00Z",
        )
        self.session = Session(id="s", pid=7, state="exit 0", command=("true",), started_at="2026-01-01T00:00:00Z")
        self.config_dir = config_dir

    def candidate(self) -> Candidate:
        """The commit that would land."""
        return Candidate(
            clone="one", target="main", strategy=Strategy.MERGE, old=self.old, oid=self.new, source=self.new
        )

    def plan(self, target: str = "main") -> MergePlan:
        """What a merge is about to do."""
        return MergePlan(target=target, strategy=Strategy.MERGE, source=self.new, old=self.old)


@pytest.fixture
def place(repository: Path, git: Git, tmp_path: Path) -> Place:
    """Two commits, the second with a space at the end of a line."""
    old = git("rev-parse", "HEAD", cwd=repository).strip()
    new = make_commit(repository, {"space.txt": "a space \n"}, "space")
    config_dir = tmp_path / "config"
    config_dir.mkdir()
    return Place(repository, old, new, config_dir)


def example(hook: str) -> Plugins:
    """The example of a hook as the only plugin; fails when it cannot be loaded or gives a warning."""
    _, _, source = SCRIPT.parts(getattr(hookspecs, hook))
    module = types.ModuleType("example")
    exec(compile(source, f"<example of {hook}>", "exec"), vars(module))
    plugins = Plugins.of(module.Plugin() if hasattr(module, "Plugin") else module)
    assert plugins.warnings == []
    assert plugins.has(hook)
    return plugins


def opened(place: Place) -> None:
    """It notes the place."""
    assert example("khlone_opened").opened(discover(place.repository, {})) == []


def pre_create(place: Place) -> None:
    """Names that start with tmp are refused."""
    plugins = example("khlone_pre_create")
    plugins.pre_create(NewRequest(name="one"))
    with pytest.raises(Refusal, match="scratch work"):
        plugins.pre_create(NewRequest(name="tmp-1"))


def populate_config_dir(place: Place) -> None:
    """One agent gets its settings, the other nothing."""
    plugins = example("khlone_populate_config_dir")
    plugins.populate_config_dir(place.clone, AgentProfile(name="other"), place.config_dir)
    assert list(place.config_dir.iterdir()) == []
    plugins.populate_config_dir(place.clone, AgentProfile(name="mine"), place.config_dir)
    assert json.loads((place.config_dir / "settings.json").read_text()) == {}


def prepare(place: Place) -> None:
    """The worktree gets its .env."""
    example("khlone_prepare").prepare(place.clone)
    assert (place.repository / ".env").read_text() == "DATABASE=app_01234567\n"


def pre_spawn(place: Place) -> None:
    """rm is refused."""
    plugins = example("khlone_pre_spawn")
    plugins.pre_spawn(place.clone, ["ls"])
    with pytest.raises(Refusal, match="not here"):
        plugins.pre_spawn(place.clone, ["rm", "-r", "."])


def pre_merge(place: Place) -> None:
    """A trial agent lands elsewhere, not on main."""
    plugins = example("khlone_pre_merge")
    plugins.pre_merge(place.clone, place.plan("trials"))
    with pytest.raises(Refusal, match="do not land on main"):
        plugins.pre_merge(place.clone, place.plan())


def gate(place: Place) -> None:
    """The space at the end of a line fails; a commit against itself passes."""
    plugins = example("khlone_gate")
    (failing,) = plugins.gate(place.clone, place.candidate())
    assert (failing.passed, failing.gate) == (False, "whitespace")
    same = Candidate(
        clone="one", target="main", strategy=Strategy.MERGE, old=place.old, oid=place.old, source=place.old
    )
    assert [verdict.passed for verdict in plugins.gate(place.clone, same)] == [True]


def pre_cleanup(place: Place) -> None:
    """A file keeps the clone."""
    plugins = example("khlone_pre_cleanup")
    plan = RemovePlan(trash="t", head=place.new, changes=Changes(), delete_branch=False, force=False)
    plugins.pre_cleanup(place.clone, plan)
    (place.repository / "KEEP").touch()
    with pytest.raises(Refusal, match="KEEP says so"):
        plugins.pre_cleanup(place.clone, plan)


def agents(place: Place) -> None:
    """There is one more agent."""
    assert example("khlone_agents").agents({})["mine"].config_variables == ("MINE_HOME",)


def environment(place: Place) -> None:
    """There is one more variable."""
    assert example("khlone_environment").environment(place.clone) == {"DATABASE": "app_01234567"}


def admit(place: Place) -> None:
    """The fifth session has to wait."""
    plugins = example("khlone_admit")
    plugins.admit(place.clone, Demand(command=("true",), live_sessions=3))
    with pytest.raises(NotAdmitted, match="four sessions are enough"):
        plugins.admit(place.clone, Demand(command=("true",), live_sessions=4))


def diagnose(place: Place) -> None:
    """A missing .env is found, one that is there is not."""
    plugins = example("khlone_diagnose")
    assert [(finding.code, finding.clone) for finding in plugins.diagnose([place.clone])] == [("no-env", "one")]
    (place.repository / ".env").touch()
    assert plugins.diagnose([place.clone]) == []


def register_commands(place: Place) -> None:
    """The verb counts, and counts twice."""
    import click

    from khlone.commands.foreign import ForeignVerbs

    plugins = example("khlone_register_commands")
    context = Context(output=Output(), environment={})
    verbs = ForeignVerbs(context, ())
    plugins.register_commands(verbs.facade)
    assert plugins.warnings == []
    command = verbs.find("count")
    assert isinstance(command, click.Command)
    assert command.help == "Say how many clones there are."


def columns(place: Place) -> None:
    """The column says whether there is an .env."""
    plugins = example("khlone_columns")
    assert plugins.columns([place.clone], ["NAME"]) == {"ENV": ["no"]}
    (place.repository / ".env").touch()
    assert plugins.columns([place.clone], ["NAME"]) == {"ENV": ["yes"]}


def spawn_command(place: Place) -> None:
    """The command is wrapped."""
    assert example("khlone_spawn_command").spawn_command(place.clone, ["make"]) == ("nice", "-n", "5", "make")


def agent_item(place: Place) -> None:
    """One agent's file is made, nothing else."""
    plugins = example("khlone_agent_item")
    location = discover(place.repository, {})
    item = ConfigItem(name="state.json", sharing=Sharing.GENERATE)
    made = plugins.agent_item(place.clone, AgentProfile(name="mine"), item, None, location)
    assert json.loads(made or b"") == {"onboarded": True}
    assert plugins.agent_item(place.clone, AgentProfile(name="other"), item, None, location) is None


def worktree_path(place: Place) -> None:
    """The worktree lies elsewhere."""
    found = example("khlone_worktree_path").worktree_path(NewRequest(name="feature/x"))
    assert found == Path("/scratch/feature-x")


def post_create(place: Place) -> None:
    """It prints."""
    assert example("khlone_post_create").post_create(place.clone) == []


def post_spawn(place: Place) -> None:
    """It prints."""
    assert example("khlone_post_spawn").post_spawn(place.clone, place.session) == []


def session_ended(place: Place) -> None:
    """It prints."""
    assert example("khlone_session_ended").session_ended(place.clone, place.session) == []


def session_waiting(place: Place) -> None:
    """It prints."""
    waiting = values.replace(place.session, activity="waiting", waiting_for="a permission")
    assert example("khlone_session_waiting").session_waiting(place.clone, waiting) == []


def pre_sync(place: Place) -> None:
    """A frozen clone stays as it is."""
    plugins = example("khlone_pre_sync")
    plugins.pre_sync(place.clone)
    (place.clone.path / "FROZEN").touch()
    with pytest.raises(Refusal, match="FROZEN says so"):
        plugins.pre_sync(place.clone)


def post_sync(place: Place) -> None:
    """It prints."""
    assert example("khlone_post_sync").post_sync(place.clone) == []


def held(place: Place) -> None:
    """It prints."""
    one = Held(name="one", code="conflict", message="both changed a")
    assert example("khlone_held").held(place.clone, one) == []


def renamed(place: Place) -> None:
    """It prints."""
    assert example("khlone_renamed").renamed(place.clone, "zero") == []


def resolve_conflict(place: Place) -> None:
    """Both sides of the changelog are kept, other conflicts are left alone."""
    plugins = example("khlone_resolve_conflict")
    ours, theirs = (
        run_git("rev-parse", f"HEAD:{name}", cwd=place.repository).strip() for name in ("README.md", "space.txt")
    )
    for path, answers in (("other.txt", []), ("CHANGELOG.md", [{"CHANGELOG.md": b"# project\na space \n"}])):
        one = ConflictedFile(path=path, base=None, ours=ours, theirs=theirs)
        conflict = Conflict(target="main", old=place.old, source=place.new, files=[one])
        asked = plugins.resolve_conflict(place.clone, conflict, place.repository)
        assert [answer for _, answer in asked] == answers


def post_merge(place: Place) -> None:
    """It prints."""
    result = MergeResult(target="main", old=place.old, new=place.new, gated=False, landed=[], held=[])
    assert example("khlone_post_merge").post_merge(place.clone, result) == []


def post_cleanup(place: Place) -> None:
    """It prints."""
    assert example("khlone_post_cleanup").post_cleanup(place.clone) == []


PRINTED: Mapping[str, str] = {
    "khlone_post_create": "one is ready in",
    "khlone_post_spawn": "7",
    "khlone_session_ended": "one exit 0",
    "khlone_session_waiting": "one waits: a permission",
    "khlone_post_merge": "one is in main at",
    "khlone_held": "one is held (conflict): both changed a",
    "khlone_renamed": "zero is one now",
    "khlone_post_sync": "one is at",
    "khlone_post_cleanup": "one is gone",
}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_does_what_it_says(hook: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run: Callable[[Place], Any] = getattr(sys.modules[__name__], hook.removeprefix("khlone_"))

    run(place)

    assert PRINTED.get(hook, "") in capsys.readouterr().out


def test_the_example_of_a_verb_counts_through_the_real_command(
    khlone: Khlone, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, source = SCRIPT.parts(hookspecs.khlone_register_commands)
    site = tmp_path / "site"
    (site / "counting-1.dist-info").mkdir(parents=True)
    (site / "counting.py").write_text(source)
    (site / "counting-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (site / "counting-1.dist-info" / "entry_points.txt").write_text("[khlone]\ncounting = counting\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    khlone("new", "one", cwd=repository)

    done = khlone("count", "--twice", cwd=repository)
    document = khlone("count", "--json", cwd=repository).json()

    assert (done.code, done.out, done.err) == (0, "2\n", "")
    assert document == {"schema": "counting.count/1", "clones": 1}
