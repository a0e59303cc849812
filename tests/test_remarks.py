"""A setting that is misspelt, misplaced or of the wrong type is told with the line in which it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from khlone.setting_table import SETTINGS, Setting, Source, find, parse
from tests.commands.steps import new
from tests.support import Commit, Git, Khlone, write


def user_file(text: str) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"], "khlone", "config.toml")
    write(path.parent, {path.name: text})
    return path


def test_a_key_that_nobody_reads_is_told_once_with_its_line_and_a_near_one(
    khlone: Khlone, repository: Path, git: Git
) -> None:
    path = user_file('agent = "generic"\n[trash]\n# days\nagge = "1d"\n')
    git("config", "khlone.durabel", "true", cwd=repository)

    done = khlone("new", "one", cwd=repository)

    assert done.code == 0
    assert done.err.count("there is no setting") == 2
    assert f"{path}:4: there is no setting khlone.trash.agge; did you mean khlone.trash.age?" in done.err
    assert "config:" in done.err
    assert "khlone.durabel; did you mean khlone.durable?" in done.err


def test_a_key_that_a_repository_may_not_set_is_told_and_not_taken(khlone: Khlone, repository: Path) -> None:
    write(repository, {".khlone.toml": 'agent = "generic"\nworktree = "/elsewhere/{folder}"\n[hooks]\n'})

    done = khlone("new", "one", cwd=repository)

    assert done.out.strip() == str(repository.parent / "project.clones" / "one")
    assert f"{repository}/.khlone.toml:2: khlone.worktree is not taken from a repository's own file" in done.err
    assert done.err.count("warning") == 1


def test_keys_below_the_name_of_a_plugin_are_its_own(khlone: Khlone, repository: Path) -> None:
    user_file("[claude]\ncolour = 1\n[nobody]\ncolour = 1\n")

    done = khlone("new", "one", cwd=repository)

    assert "khlone.nobody.colour" in done.err
    assert "khlone.claude" not in done.err


def test_nothing_is_told_where_all_keys_are_known(khlone: Khlone, repository: Path, git: Git) -> None:
    user_file('agent = "generic"\n"plugins.timeout" = 3\n[agents.mine]\nvariable = "X"\n[gate]\ntests = "true"\n')
    write(repository, {".khlone.toml": "durable = false\n[hooks]\npost-create = 'true'\n"})
    git("config", "khlone.hooks", "clones", cwd=repository)
    git("config", "khlone.allowNetworkFileSystem", "no", cwd=repository)

    assert "warning" not in khlone("list", cwd=repository).err


#: A value, the type that is told, and a verb that needs it.
WRONG = {
    "durable": ("perhaps", "true or false", ("new", "two")),
    "sync": ("rabase", "merge or rebase", ("sync", "one")),
    "trash.age": ("old", "a number with s, m, h, d or w", ("prune", "--trash")),
    "plugins.timeout": ("soon", "a number of seconds", ("new", "two")),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_the_wrong_type_is_refused_with_its_line_and_the_type(
    khlone: Khlone, repository: Path, commit: Commit, key: str
) -> None:
    value, expected, verb = WRONG[key]
    commit(new(khlone, repository, "one"), {"new.txt": "new\n"}, "work")
    path = user_file(f'# first\n"{key}" = "{value}"\n')

    done = khlone("--json", *verb, cwd=repository)

    assert (done.code, done.json()["code"]) == (2, "invalid-setting")
    assert f"{path}:2: it must be {expected}" in done.json()["message"]
    assert f"git khlone config get khlone.{key}" in done.json()["hint"]


def test_a_variable_beats_the_files_and_a_flag_of_git_beats_the_variable(
    khlone: Khlone, repository: Path, git: Git
) -> None:
    git("config", "khlone.worktree", "{parent}/by-git/{folder}", cwd=repository)
    by_variable = {"KHLONE_WORKTREE": "{parent}/by-variable/{folder}"}
    by_flag = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "khlone.worktree",
        "GIT_CONFIG_VALUE_0": "{parent}/by-flag/{folder}",
    }

    places = [
        Path(khlone("new", f"n{number}", cwd=repository, env=variables).out.strip()).parent.name
        for number, variables in enumerate(({}, by_variable, by_variable | by_flag))
    ]

    assert places == ["by-git", "by-variable", "by-flag"]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_the_default_of_a_setting_can_be_its_value(setting: Setting) -> None:
    if setting.default is not None:
        parse(setting, setting.key, setting.default)

    assert setting.doc.endswith(".")
    assert find(setting.key.lower().replace("*", "name")) is setting
    assert Source.GIT in setting.sources
