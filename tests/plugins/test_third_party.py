"""Distributions of third parties, built, installed and met by the real command: working ones and broken ones."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.commands.steps import clone_names, document, new, refused
from tests.distributions import installed
from tests.support import KHLONE, Commit, Git, Khlone

#: Adds an agent with a variable, vetoes merges, adds a column and a verb, and cleans up after itself.
GROVE = '''
import os
from pathlib import Path

import click

from khlone import AgentProfile, Refusal, hookimpl


def database(clone):
    return Path(os.environ["GROVE_ROOT"]) / f"{clone.name}.db"


@hookimpl
def khlone_agents():
    return [AgentProfile(name="grove", config_variables=["GROVE_HOME"])]


@hookimpl
def khlone_environment(clone):
    return {"GROVE_DATABASE": str(database(clone))}


@hookimpl
def khlone_prepare(clone):
    database(clone).write_text("made")


@hookimpl
def khlone_pre_merge(clone, plan):
    if (clone.path / "WIP").exists():
        raise Refusal("WIP is not for " + plan.target)


@hookimpl
def khlone_columns(clone):
    return {"database": "there" if database(clone).exists() else "none"}


@hookimpl
def khlone_register_commands(cli):
    @cli.command("databases")
    @click.option("--empty", is_flag=True, help="Empty them too.")
    def databases(empty):
        """Say which databases are there."""
        clones = cli.app().registry.clones()
        found = {clone.name: database(clone).read_text() for clone in clones}
        click.echo("looked at " + str(len(found)))
        for clone in clones:
            if empty:
                database(clone).write_text("")
            cli.answer(clone.name)
        cli.document({"databases": found})


@hookimpl
def khlone_post_cleanup(clone):
    database(clone).unlink(missing_ok=True)
'''

RAISES = """
from khlone import hookimpl

def broken(**given):
    raise RuntimeError("broken everywhere")
"""
#: What tells, and what only adds: none of it may keep anybody from working.
HARMLESS = {
    "khlone_agents": "settings",
    "khlone_diagnose": "clones",
    "khlone_columns": "clone",
    "khlone_register_commands": "cli",
    "khlone_post_create": "clone",
    "khlone_post_spawn": "clone, session",
    "khlone_session_ended": "clone, session",
    "khlone_post_merge": "clone, result",
    "khlone_post_cleanup": "clone",
}
RAISES += "".join(
    f"\n@hookimpl\ndef {hook}({names}):\n    raise RuntimeError('broken everywhere')\n"
    for hook, names in HARMLESS.items()
)

BROKEN = {
    "import_error": "import no_such_module_of_anybody\n",
    "exits": "raise SystemExit('not today')\n",
    "bad_signature": "from khlone import hookimpl\n\n@hookimpl\ndef khlone_prepare(clone, nonsense):\n    pass\n",
    "misspelt": "from khlone import hookimpl\n\n@hookimpl\ndef khlone_post_craete(clone):\n    pass\n",
    "raises": RAISES,
}
OTHERS = {
    "counts": """
import os
from khlone import hookimpl

@hookimpl
def khlone_agents():
    with open(os.environ["ASKED"], "a") as stream:
        stream.write("once more\\n")
""",
    "stops": """
from khlone import hookimpl

@hookimpl
def khlone_prepare(clone):
    raise OSError("disk\\non fire")
""",
    "hangs": """
import time
from khlone import hookimpl

@hookimpl
def khlone_prepare(clone):
    if clone.name == "stuck":
        time.sleep(3600)

@hookimpl
def khlone_post_create(clone):
    time.sleep(3600)
""",
    "noisy": """
import os
import subprocess
from khlone import hookimpl

def say(word):
    print(word, "by print")
    os.write(1, f"{word} by write\\n".encode())
    subprocess.run(["echo", word, "by a child"])

say("import")

@hookimpl
def khlone_prepare(clone):
    say("prepare")

@hookimpl
def khlone_columns(clone):
    say("columns")
    return {"noise": "loud\\nand long " * 20}

@hookimpl
def khlone_register_commands(cli):
    say("verbs")

    @cli.command("shout")
    def shout():
        print("inside the verb")
        cli.answer("the answer")

    @cli.command("burst")
    def burst():
        raise LookupError("in the verb")

    @cli.command("list")
    def mine():
        pass
""",
    "full": """
from khlone import Refusal, hookimpl

class Forbidden(Refusal):
    code = "forbidden"
    exit_code = 1

@hookimpl
def khlone_admit(clone, demand):
    if demand.command[0] == "make":
        return Forbidden("nobody makes here")
    if demand.live_sessions >= 1 or demand.command[0] == "false":
        return Refusal(f"{demand.live_sessions} are enough for {' '.join(demand.command)}")
""",
    "rival": """
from khlone import hookimpl

@hookimpl
def khlone_columns(clone):
    return {"Noise": "none", "state": "mine"}

@hookimpl
def khlone_register_commands(cli):
    @cli.command("shout")
    def shout():
        return 3

    @cli.command("whisper")
    def whisper():
        return 3
""",
}

Enable = Callable[..., None]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every distribution of this module, installed in one folder."""
    return installed(
        tmp_path_factory.mktemp("third-party"), {"khlone-grove": {"grove": GROVE}, "khlone-mixed": {**BROKEN, **OTHERS}}
    )


@pytest.fixture
def enable(site: Path, monkeypatch: pytest.MonkeyPatch) -> Enable:
    """`enable("grove")` makes commands see these plugins of the folder beside khlone's own, and no other."""

    def use(*names: str) -> None:
        monkeypatch.setenv("PYTHONPATH", str(site))
        monkeypatch.setenv("KHLONE_PLUGINS", ",".join(["claude", "generic", *names]))

    return use


def state(*parts: str) -> Path:
    """A place in the user's state of khlone."""
    return Path(os.environ["XDG_STATE_HOME"], "khlone", *parts)


def warnings(err: str) -> list[str]:
    """The warnings of a command."""
    return [line for line in err.splitlines() if "warning: " in line]


def test_top_asks_plugins_for_agents_once_however_often_it_looks(
    khlone: Khlone, enable: Enable, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable("counts")
    asked = tmp_path / "asked"
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("TERM", "xterm")
    new(khlone, repository, "one", "--agent", "claude")
    with subprocess.Popen([KHLONE, "exec", "one", "--", "cat"], cwd=repository, stdin=subprocess.PIPE) as session:
        top = pexpect.spawn(str(KHLONE), ["top", "-d", "1"], cwd=str(repository), timeout=60, dimensions=(30, 150))
        top.expect(b"running")
        known = asked.read_text()
        for _ in range(3):
            top.expect(b"sorted by cpu")
        top.close(force=True)
        session.communicate(timeout=60)

    assert asked.read_text() == known != ""


# -- one that works ------------------------------------------------------------------------


def test_a_third_party_plugin_adds_variables_vetoes_shows_and_cleans_up(
    khlone: Khlone, enable: Enable, repository: Path, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable("grove")
    databases = tmp_path / "databases"
    databases.mkdir()
    monkeypatch.setenv("GROVE_ROOT", str(databases))
    one, two = (new(khlone, repository, name, "--agent", "grove") for name in ("one", "two"))
    commit(one, {"WIP": "not yet\n"}, "unfinished")
    commit(two, {"two.txt": "two\n"}, "finished")

    ran = khlone("exec", "one", "--", "sh", "-c", "echo $GROVE_HOME $GROVE_DATABASE", cwd=repository)
    listed = khlone("list", cwd=repository).out.splitlines()
    merged = document(khlone("merge", "one", "two", "--json", cwd=repository), "merge", 1)
    answered = khlone("databases", "--empty", cwd=repository)
    helped = khlone("databases", "-h", cwd=repository).out
    removed = khlone("remove", "two", cwd=repository)

    home, database = ran.out.split()
    assert Path(home).is_dir()
    assert Path(home).is_relative_to(state())
    assert database == str(databases / "one.db")
    assert [line.split()[-2] for line in listed] == ["DATABASE", "there", "there"]
    assert [(held["name"], held["code"], held["message"]) for held in merged["held"]] == [
        ("one", "vetoed", "WIP is not for main")
    ]
    assert [landed["name"] for landed in merged["landed"]] == ["two"]
    assert (answered.code, answered.out) == (0, "one\ntwo\n")
    assert "looked at 2" in answered.err
    assert {"--empty", "--json", "-C"} <= set(re.findall(r"(?<![\w-])--?\w+", helped))
    assert removed.code == 0, removed.err
    assert [path.name for path in databases.iterdir()] == ["one.db"]


def test_a_verb_of_a_plugin_answers_as_json_from_anywhere(
    khlone: Khlone, enable: Enable, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable("grove")
    monkeypatch.setenv("GROVE_ROOT", str(tmp_path))
    new(khlone, repository, "one")

    before = khlone("--json", "-C", str(repository), "databases", cwd=tmp_path)
    after = khlone("databases", "--json", "-C", str(repository), cwd=tmp_path)

    assert before.json() == {"schema": "grove.databases/1", "databases": {"one": "made"}}
    assert before.out == after.out


def test_help_lists_verbs_of_plugins_in_a_section_of_their_own_outside_a_repository_too(
    khlone: Khlone, enable: Enable, tmp_path: Path
) -> None:
    enable("grove", "rival", "noisy")

    done = khlone("-h", cwd=tmp_path)

    own, _, added = done.out.partition("\nVerbs of plugins:\n")
    assert re.findall(r"^  (\w+) .*\((.*)\)$", added, re.MULTILINE) == [
        ("burst", "noisy"),
        ("databases", "grove"),
        ("shout", "rival, noisy"),
        ("whisper", "rival"),
    ]
    assert "databases" not in own
    assert done.out.startswith("Usage: ")


# -- clashes -------------------------------------------------------------------------------


def test_a_verb_of_two_plugins_names_both_and_khlones_own_stays(
    khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("noisy", "rival")

    clash = refused(khlone("shout", "--json", cwd=repository), "plugin-clash")
    other = khlone("whisper", cwd=repository)
    listed = khlone("list", "--json", cwd=repository)

    assert sorted(clash["facts"]["plugins"]) == ["noisy", "rival"]
    assert other.code == 3
    assert [line for line in other.err.splitlines() if "list" in line] == [
        "khlone: warning: plugins khlone, noisy clash over the verb 'list'; it stays khlone's"
    ]
    assert document(listed, "list")["clones"] == []


def test_a_column_of_two_plugins_is_a_warning_and_the_table_stands(
    khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("noisy", "rival")
    new(khlone, repository, "one")

    done = khlone("list", cwd=repository)

    head, row = done.out.splitlines()
    assert head.split() == [
        "NAME",
        "STATE",
        "BRANCH",
        "TARGET",
        "AHEAD",
        "BEHIND",
        "CHANGES",
        "SESSION",
        "NOISE",
        "PATH",
    ]
    assert " none " in row
    assert [line.partition("warning: ")[2] for line in warnings(done.err)] == [
        "plugins khlone, rival clash over the column STATE",
        "plugins rival, noisy clash over the column NOISE",
    ]


def test_a_verb_that_raises_names_its_plugin_and_a_mistyped_one_its_neighbour(
    khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("noisy")

    raised = refused(khlone("burst", "--json", cwd=repository), "plugin-failed")
    mistyped = refused(khlone("burts", "--json", cwd=repository), "usage", 2)

    assert raised["message"] == "plugin 'noisy' failed in its verb burst: LookupError: in the verb"
    assert "in the verb" in state("plugins.log").read_text()
    assert mistyped["hint"] == "did you mean burst?"


# -- admission -----------------------------------------------------------------------------


def test_a_session_that_is_not_admitted_ends_with_75_and_starts_nothing(
    khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("full")

    made = document(khlone("new", "one", "--json", "-x", "false", cwd=repository), "new", 75)
    inside = khlone("exec", "one", "--", str(KHLONE), "exec", "one", "--", "echo", "inner", cwd=repository)
    forbidden = refused(khlone("exec", "one", "--json", "--", "make", cwd=repository), "forbidden")
    everywhere = khlone("exec", "--all", "--", "false", cwd=repository)

    assert [clone["name"] for clone in made["clones"]] == ["one"]
    (unrun,) = made["failed"]
    assert (unrun["name"], unrun["code"]) == ("one", "not-admitted")
    assert unrun["message"] == "no session may start in one now: 0 are enough for false (full)"
    assert clone_names(khlone, repository) == ["one"], "new keeps the clone"
    assert (inside.code, inside.out) == (75, "")
    assert "1 are enough for echo inner (full)" in inside.err
    assert forbidden["facts"]["plugin"] == "full"
    assert everywhere.code == 1
    assert "one: not run" in everywhere.err


# -- stdout --------------------------------------------------------------------------------


def test_nothing_that_a_plugin_prints_reaches_stdout(khlone: Khlone, enable: Enable, repository: Path) -> None:
    enable("noisy")

    made = khlone("new", "one", "--json", cwd=repository)
    listed = khlone("list", cwd=repository)
    ran = khlone("exec", "one", "--", "echo", "from the command", cwd=repository)
    shouted = khlone("shout", cwd=repository)
    helped = khlone("-h", cwd=repository)

    assert made.out == json.dumps(made.json()) + "\n"
    for word in ("import", "prepare"):
        for means in ("print", "write", "a child"):
            assert f"{word} by {means}" in made.err
    assert len(listed.out.splitlines()) == 2
    assert "loud and long" in listed.out
    assert ran.out == "from the command\n"
    assert shouted.out == "the answer\n"
    assert "inside the verb" in shouted.err
    assert " by " not in helped.out.partition("Verbs of plugins")[2].replace("(noisy)", "")


# -- broken ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("module", BROKEN)
def test_a_broken_plugin_is_told_of_once_and_harms_nobody(
    module: str, khlone: Khlone, enable: Enable, repository: Path, commit: Commit
) -> None:
    plugin = module.replace("_", "-")
    enable(plugin)

    made = khlone("new", "one", cwd=repository)
    commit(Path(made.out.strip()), {"one.txt": "one\n"}, "one")
    done = [
        made,
        khlone("exec", "one", "--", "true", cwd=repository),
        khlone("list", cwd=repository),
        khlone("merge", "one", cwd=repository),
        khlone("remove", "one", cwd=repository),
        khlone("doctor", cwd=repository),
        khlone("-h", cwd=repository),
    ]

    assert [one.code for one in done] == [0] * len(done), [one.err for one in done]
    for one in done:
        told = warnings(one.err)
        assert len(told) == len(set(told))
        assert all(f"plugin '{plugin}'" in line for line in told), told
        assert "Traceback" not in one.err
    if module == "raises":
        hooks = [hook for one in done for hook in re.findall(r"failed in (khlone_\w+):", one.out + one.err)]
        assert set(hooks) == set(HARMLESS)
    else:
        assert [len(warnings(one.err)) for one in done] == [1] * len(done)


def test_what_the_verb_plugins_says_of_broken_ones(khlone: Khlone, enable: Enable, repository: Path) -> None:
    enable(*(module.replace("_", "-") for module in BROKEN), "grove")

    found = document(khlone("plugins", "--json", cwd=repository), "plugins")["plugins"]

    plugins = {one["name"]: one for one in found}
    assert list(plugins) == sorted(plugins)
    assert plugins["grove"]["loaded"]
    assert plugins["grove"]["distribution"] == "khlone-grove"
    assert plugins["grove"]["version"] == "2.5"
    assert "khlone_columns" in plugins["grove"]["hooks"]
    assert plugins["grove"]["import_ms"] > 0
    assert plugins["import-error"]["reason"] == "ModuleNotFoundError: No module named 'no_such_module_of_anybody'"
    assert plugins["exits"]["reason"] == "SystemExit: not today"
    assert "nonsense" in plugins["bad-signature"]["reason"]
    assert (plugins["misspelt"]["loaded"], plugins["misspelt"]["hooks"]) == (True, [])
    assert plugins["noisy"]["reason"] == "KHLONE_PLUGINS leaves it out"
    assert {one["import_ms"] for one in found if one["reason"] == "KHLONE_PLUGINS leaves it out"} == {None}


def test_a_gate_that_breaks_stops_and_rolls_back_and_its_trace_is_kept(
    khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("stops")

    found = refused(khlone("new", "one", "--json", cwd=repository), "plugin-failed")

    log = state("plugins.log")
    assert found["message"] == "plugin 'stops' failed in khlone_prepare: OSError: disk on fire"
    assert found["facts"] == {"plugin": "stops", "hook": "khlone_prepare", "log": str(log)}
    assert str(log) in found["hint"]
    assert "stops.py" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert clone_names(khlone, repository) == []


def test_a_hook_that_hangs_is_ended_named_and_rolled_back(
    khlone: Khlone, enable: Enable, git: Git, repository: Path
) -> None:
    enable("hangs")
    git("config", "khlone.plugins.timeout", "0.2", cwd=repository)

    stuck = refused(khlone("new", "stuck", "--json", cwd=repository), "plugin-failed")
    late = khlone("new", "late", cwd=repository)

    told = "failed in {}: it took longer than 0.2 s (khlone.plugins.timeout)"
    assert stuck["message"] == f"plugin 'hangs' {told.format('khlone_prepare')}"
    assert late.code == 0
    assert told.format("khlone_post_create") in late.err
    assert clone_names(khlone, repository) == ["late"]
    assert "time.sleep(3600)" in state("plugins.log").read_text()


def test_the_verb_plugins_says_what_time_hooks_have_taken_in_the_last_commands(
    khlone: Khlone, enable: Enable, git: Git, repository: Path
) -> None:
    enable("hangs")
    git("config", "khlone.plugins.timeout", "0.2", cwd=repository)
    khlone("new", "one", cwd=repository)
    khlone("new", "two", cwd=repository)
    written = state("plugins.times").read_bytes()
    with state("plugins.times").open("ab") as stream:
        stream.write(b"[[1, 2]]\nno line of ours\n")

    found = document(khlone("plugins", "--json", cwd=repository), "plugins")["plugins"]

    spent = {one["name"]: one["spent"] for one in found}
    assert [(one["hook"], one["calls"]) for one in spent["hangs"]] == [("khlone_post_create", 2)]
    assert spent["hangs"][0]["ms"] >= 400
    assert spent["codex"] == []
    (row,) = [line.split() for line in khlone("plugins", cwd=repository).out.splitlines() if line.startswith("hangs ")]
    assert int(row[5]) >= 400
    assert stat.S_IMODE(state("plugins.times").stat().st_mode) == 0o600
    assert state("plugins.times").read_bytes().startswith(written)


def test_the_time_of_hooks_is_kept_of_the_last_commands_only(khlone: Khlone, enable: Enable, repository: Path) -> None:
    enable("hangs")
    row = b'[["hangs", "khlone_post_create", 1, 7.0]]\n'
    places = state("plugins.times"), state("plugins.times.1")
    places[0].parent.mkdir(parents=True, exist_ok=True)
    places[0].write_bytes(row * ((64 << 10) // len(row)))
    places[1].write_bytes(row * 3)

    done = khlone("new", "one", env={"KHLONE_PLUGINS_TIMEOUT": "0.2"}, cwd=repository)

    assert done.code == 0
    assert places[0].stat().st_size < 1000
    assert places[1].stat().st_size > 60_000


@pytest.mark.parametrize("words", [("--no-plugins", "list"), ("list", "--no-plugins")], ids=["before", "after"])
def test_no_plugins_leaves_out_every_plugin(
    words: tuple[str, ...], khlone: Khlone, enable: Enable, repository: Path
) -> None:
    enable("import-error", "rival")
    new(khlone, repository, "one")

    done = khlone(*words, cwd=repository)
    asked = [word.replace("list", "plugins") for word in words]
    shown = document(khlone(*asked, "--json", cwd=repository), "plugins")
    verb = refused(khlone("--no-plugins", "whisper", "--json", cwd=repository), "usage", 2)

    assert (done.code, done.err) == (0, "")
    assert "NOISE" not in done.out
    assert {(one["loaded"], one["reason"]) for one in shown["plugins"]} == {(False, "--no-plugins leaves it out")}
    assert "whisper" in verb["message"]


def test_an_unknown_name_in_the_selection_is_warned_of_with_its_neighbour(
    khlone: Khlone, enable: Enable, repository: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable("grov")
    by_variable = khlone("plugins", cwd=repository)
    monkeypatch.delenv("KHLONE_PLUGINS")
    git("config", "khlone.plugins", "generic rivla", cwd=repository)
    by_setting = khlone("plugins", cwd=repository)

    told = "khlone: warning: {} names {!r}, which is not installed; did you mean {!r}?"
    assert told.format("KHLONE_PLUGINS", "grov", "grove") in by_variable.err.splitlines()
    assert told.format("khlone.plugins", "rivla", "rival") in by_setting.err.splitlines()
    assert "khlone.plugins leaves it out" in by_setting.err
