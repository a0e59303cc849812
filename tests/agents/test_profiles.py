"""Agent profiles: which agents there are, which version is installed, and what of a profile a clone gets."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from khlone import agent_versions, config_dir
from khlone.errors import StateUnsafe
from khlone.profiles import AgentProfile, AgentVersions, Login
from tests.agents.steps import agent, environment, inside, on_path, program, user_settings
from tests.commands.steps import document, new, refused
from tests.support import ROOT, Khlone, run_git, write

DOCS = (ROOT / "docs/agents-profiles.md").read_text()
FIR = """
[agents.fir]
command = "fir"
version = ["--version"]
variable = "FIR_HOME"
temp = ["FIR_TMP"]
cache = ["FIR_CACHE"]
headless = ["run", "two words", "{prompt}"]
strip = ["FIR_SESSION"]
set = ["FIR_UPDATE=off", "FIR_LOG={config_dir}/log", "FIR_SCRATCH={temp}/x"]
"""


def block(kind: str) -> str:
    """The one code block of a kind in the page on profiles."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", DOCS, re.DOTALL)
    return str(found)


# -- versions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "login"),
    [
        ("2.0.77", Login.LINK),
        ("2.1.117", Login.LINK),
        ("2.1.118", Login.KEY),
        ("2.1.144", Login.KEY),
        ("2.1.145", Login.STORE),
        ("2.1.145-beta.9", Login.STORE),
        ("10.0.0", Login.STORE),
        (None, Login.STORE),
    ],
)
def test_claude_code_logs_in_by_its_version(
    khlone: Khlone, repository: Path, tmp_path: Path, version: str | None, login: Login
) -> None:
    says = "exit 3" if version is None else f"echo '{version} (Claude Code)'"
    program(tmp_path / "bin", "claude", says)

    found = agent(khlone, repository, "claude", on_path(tmp_path / "bin"))

    assert (found["version"], found["login"]) == (version, login.value)
    assert found["path"] == str(tmp_path / "bin/claude")


@pytest.mark.parametrize(("version", "is_named"), [("2.1.145", True), ("2.1.144", False), ("2.1.117", False)])
def test_the_users_store_is_named_to_versions_that_know_it(
    khlone: Khlone, repository: Path, tmp_path: Path, version: str, is_named: bool
) -> None:
    program(tmp_path / "bin", "claude", f"echo {version}")
    env = {**on_path(tmp_path / "bin"), "CLAUDE_CONFIG_DIR": "/odd/{name}"}
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=env).code == 0

    found = environment(khlone, repository, "one", env)

    assert found.get("CLAUDE_SECURESTORAGE_CONFIG_DIR") == ("/odd/{name}" if is_named else None)
    assert Path(found["CLAUDE_CONFIG_DIR"]).is_relative_to(os.environ["XDG_STATE_HOME"])
    assert len(found["CLAUDE_CODE_TMPDIR"]) <= 44


def test_a_range_of_versions_that_nobody_described_shares_no_login() -> None:
    profile = AgentProfile(name="a", versions=[AgentVersions(login=Login.STORE, since="2.0")])

    assert profile.of_version("1.9.9").login is Login.OWN


def test_a_version_is_asked_once_and_again_when_the_program_changes(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    bin_dir = tmp_path / "bin"
    say = f'echo asked >>"{asked}"; echo'
    program(bin_dir, "fir", f"{say} fir 1.2.3")
    user_settings(FIR)

    versions = [agent(khlone, repository, "fir", on_path(bin_dir))["version"] for _ in range(3)]
    program(bin_dir, "fir", f"{say} fir 1.2.3.4 now")
    versions.append(agent(khlone, repository, "fir", on_path(bin_dir))["version"])

    assert versions == ["1.2.3", "1.2.3", "1.2.3", "1.2.3.4"]
    assert asked.read_text().count("asked") == 2


def test_asking_for_a_version_writes_nothing_into_the_users_config(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    program(tmp_path / "bin", "fir", 'mkdir -p "$FIR_HOME/left"; env | grep -c FIR_KEY; echo 1.2')
    user_settings(FIR + 'key = ["FIR_KEY"]\n')
    mine = tmp_path / "mine"

    found = agent(khlone, repository, "fir", {**on_path(tmp_path / "bin"), "FIR_HOME": str(mine), "FIR_KEY": "secret"})

    assert found["version"] == "1.2"
    assert not mine.exists()


def test_a_damaged_cache_of_versions_is_asked_past(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "fir", "echo 1.2")
    user_settings(FIR)
    cache = Path(os.environ["XDG_CACHE_HOME"], "khlone", agent_versions.CACHE_FILE)
    cache.parent.mkdir(parents=True, mode=0o700)
    cache.write_text('{"' + str(tmp_path / "bin/fir") + '": [')

    assert agent(khlone, repository, "fir", on_path(tmp_path / "bin"))["version"] == "1.2"


# -- in TOML alone -------------------------------------------------------------------------


def test_an_agent_of_settings_gets_what_they_say(khlone: Khlone, repository: Path) -> None:
    user_settings(FIR)
    new(khlone, repository, "one", "--agent", "fir")

    shown = agent(khlone, repository, "fir")
    found = inside(khlone, repository, "one", {"FIR_SESSION": "outer", "FIR_HOME": "/mine"})

    assert shown["headless"] == ["run", "two words", "{prompt}"]
    assert "FIR_SESSION" not in found
    assert found["FIR_UPDATE"] == "off"
    assert found["FIR_LOG"] == f"{found['FIR_HOME']}/log"
    assert found["FIR_SCRATCH"] == f"{found['FIR_TMP']}/x"
    assert len(found["FIR_TMP"]) <= 44
    places = [Path(found[name]) for name in ("FIR_HOME", "FIR_TMP", "FIR_CACHE")]
    assert len(set(places)) == 3
    assert [stat.S_IMODE(place.stat().st_mode) for place in places] == [0o700] * 3


def test_the_temporary_folder_goes_with_the_trash(khlone: Khlone, repository: Path) -> None:
    user_settings(FIR)
    new(khlone, repository, "one", "--agent", "fir")
    temp = Path(environment(khlone, repository, "one")["FIR_TMP"])
    (temp / "left").write_text("scratch")

    assert khlone("remove", "one", cwd=repository).code == 0
    was_there = temp.exists()
    purged = khlone("prune", "--trash", "--age", "0d", "--json", cwd=repository)

    assert was_there
    assert len(document(purged, "prune")["purged"]) == 1
    assert not temp.exists()


def elsewhere(folder: Path) -> tuple[Path, dict[str, str]]:
    """The user's temporary folder of khlone when `folder` stands for /tmp, and the environment in which it does."""
    write(folder / "site", {"sitecustomize.py": f"from khlone import config_dir\nconfig_dir._TEMP = {str(folder)!r}\n"})
    return folder / f"khlone-{os.geteuid()}", {"PYTHONPATH": str(folder / "site")}


@pytest.mark.parametrize("kind", ["link", "file", "open to others"])
def test_a_temporary_folder_that_is_not_ours_alone_is_not_used(
    khlone: Khlone, repository: Path, tmp_path: Path, kind: str
) -> None:
    user_settings(FIR)
    new(khlone, repository, "one", "--agent", "fir")
    place, env = elsewhere(tmp_path / "tmp")
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    if kind == "link":
        place.symlink_to(theirs)
    elif kind == "file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)

    done = khlone("env", "one", "--json", cwd=repository, env=env)

    used = document(done, "env")["environment"]["FIR_TMP"]
    assert Path(used).is_relative_to(os.environ["XDG_STATE_HOME"])
    (line,) = done.err.splitlines()
    assert line.startswith(f"khlone: warning: {place} cannot be trusted: ")
    assert not any(theirs.iterdir())
    assert kind != "open to others" or not any(place.iterdir())


def test_root_uses_no_temporary_folder_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_dir, "_TEMP", str(tmp_path))
    (tmp_path / "khlone-0").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "khlone-0", 1, 1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with pytest.raises(StateUnsafe, match="it belongs to"):
        config_dir.ConfigDirs(tmp_path / "state", "r").make_temp("one")


def test_the_purge_follows_no_link_in_place_of_the_temporary_folder(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    user_settings(FIR)
    new(khlone, repository, "one", "--agent", "fir")
    place, env = elsewhere(tmp_path / "tmp")
    temp = Path(environment(khlone, repository, "one", env)["FIR_TMP"])
    (temp / "left").write_text("scratch")
    place.rename(tmp_path / "theirs")
    place.symlink_to(tmp_path / "theirs")

    removed = khlone("remove", "one", cwd=repository, env=env)
    purged = khlone("prune", "--trash", "--age", "0d", cwd=repository, env=env)

    assert (removed.code, purged.code) == (0, 0)
    assert (tmp_path / "theirs" / temp.name / "left").read_text() == "scratch"


def test_a_temporary_folder_with_nothing_in_it_goes_with_the_clone(khlone: Khlone, repository: Path) -> None:
    user_settings(FIR)
    new(khlone, repository, "one", "--agent", "fir")
    temp = Path(environment(khlone, repository, "one")["FIR_TMP"])
    was_there = temp.is_dir()

    assert khlone("remove", "one", cwd=repository).code == 0

    assert was_there
    assert not temp.exists()


@pytest.mark.parametrize(
    "line",
    [
        'set = ["1X=2"]',
        'set = ["X"]',
        'copy = ["../x"]',
        'copy = ["/etc/passwd"]',
        'copy = ["a"]\nlink = ["a"]\nhome = "~/.fir"',
        'copy = ["a"]',
        'home = "relative"',
        'login = "magic"',
        'temp = ["A-B"]',
        'headless = "an \'open quote"',
    ],
)
def test_settings_of_an_agent_that_cannot_be_meant_are_refused(khlone: Khlone, repository: Path, line: str) -> None:
    user_settings(f'[agents.fir]\nvariable = "FIR_HOME"\n{line}\n')

    found = refused(khlone("agents", "--json", cwd=repository), "invalid-setting", 2)

    assert found["facts"]["key"].startswith("khlone.agents.fir.")


def test_a_repository_cannot_define_an_agent(khlone: Khlone, repository: Path) -> None:
    (repository / ".khlone.toml").write_text(FIR)

    names = [one["name"] for one in document(khlone("agents", "--json", cwd=repository), "agents")["agents"]]

    assert "claude" in names
    assert "fir" not in names


def test_git_config_can_say_the_same(khlone: Khlone, repository: Path) -> None:
    run_git("config", "khlone.agents.fir.variable", "FIR_HOME", cwd=repository)
    run_git("config", "khlone.agents.fir.headless", "run 'two words'", cwd=repository)

    found = agent(khlone, repository, "fir")

    assert (found["config_variables"], found["headless"]) == (["FIR_HOME"], ["run", "two words"])


# -- the words -----------------------------------------------------------------------------


def test_the_table_names_every_agent_and_where_it_is(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "claude", "echo 2.1.330")

    lines = khlone("agents", cwd=repository, env=on_path(tmp_path / "bin")).out.splitlines()

    assert lines[0].split() == ["AGENT", "VERSION", "FOUND", "ISOLATION"]
    by_name = {line.split()[0]: line for line in lines[1:]}
    assert by_name["claude"].split()[:3] == ["claude", "2.1.330", str(tmp_path / "bin/claude")]
    assert "one login for all clones" in by_name["claude"]
    assert by_name["generic"].split()[:3] == ["generic", "-", "-"]


def test_one_agent_is_explained_item_by_item(khlone: Khlone, repository: Path) -> None:
    shown = khlone("agents", "show", "claude", cwd=repository).out

    assert re.search(r"^settings\.json +copy +\S+", shown, re.MULTILINE)
    assert re.search(r"^\.credentials\.json +not shared +\S+", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [(("show",), "usage", 2), (("list", "claude"), "usage", 2), (("show", "nobody"), "unknown-agent", 2)],
)
def test_words_that_name_no_agent_are_refused(
    khlone: Khlone, repository: Path, words: tuple[str, ...], code: str, exit_code: int
) -> None:
    refused(khlone("agents", *words, "--json", cwd=repository), code, exit_code)


def test_the_page_says_every_field_of_a_profile() -> None:
    named = set(re.findall(r"`(\w+)`", DOCS))

    assert set(AgentProfile.__annotations__) - named - {"description"} == set()


# -- a nested call -------------------------------------------------------------------------


def test_the_examples_are_as_short_as_promised() -> None:
    python = [line for line in block("python").splitlines() if line.strip()]
    toml = [line for line in block("toml").splitlines() if line.strip()]

    assert len(python) < 30
    assert len(toml) < 10
