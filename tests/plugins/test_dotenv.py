"""An `.env` for each clone: rendered whole or not at all, nobody's work while unchanged, the user's once changed."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, refused, show
from tests.support import KHLONE, Commit, Git, Khlone

TEMPLATE = """\
NAME={{ name }}
BRANCH={{branch}}
PORT={{ port }} {{ port_1 }}
DATABASE=app_{{ id }}
BRACES=\\{{ name }}
"""


@pytest.fixture
def project(repository: Path, commit: Commit) -> Path:
    """A repository with a template, whose `.env` git ignores."""
    commit(repository, {".env.khlone": TEMPLATE, ".gitignore": ".env\n"}, "a template")
    return repository


def expected(khlone: Khlone, where: Path, name: str) -> str:
    """What the template says for this clone."""
    clone = show(khlone, where, name)
    first = clone["ports"][0]
    return (
        f"NAME={name}\nBRANCH={clone['branch']}\nPORT={first} {first + 1}\n"
        f"DATABASE=app_{clone['id']}\nBRACES={{{{ name }}}}\n"
    )


def is_clean(khlone: Khlone, where: Path, name: str) -> bool:
    """Whether khlone sees no work in the clone that no commit holds."""
    clone = show(khlone, where, name)
    return (clone["dirty"], clone["untracked"]) == (False, 0)


def test_each_clone_gets_its_own_file_which_others_cannot_read(khlone: Khlone, project: Path) -> None:
    one, two = new(khlone, project, "one"), new(khlone, project, "feature/two")

    assert (one / ".env").read_text() == expected(khlone, project, "one")
    assert (two / ".env").read_text() == expected(khlone, project, "feature/two")
    assert stat.S_IMODE((one / ".env").lstat().st_mode) == 0o600
    assert not (project / ".env").exists()


def test_without_a_template_there_is_no_file(khlone: Khlone, repository: Path) -> None:
    path = new(khlone, repository, "one")

    assert not (path / ".env").exists()


def test_settings_name_template_and_file(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    commit(project, {"conf/env.in": "N={{ name }}\n", "conf/.gitignore": "*.env\n"}, "elsewhere")
    git("config", "khlone.dotenv.template", "conf/env.in", cwd=project)
    git("config", "khlone.dotenv.name", "conf/local.env", cwd=project)

    path = new(khlone, project, "one")

    assert (path / "conf" / "local.env").read_text() == "N=one\n"
    assert not (path / ".env").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("X={{ nme }}", "line 2: there is no variable 'nme'"),
        ("X={{ name", "line 2: {{ begins no variable"),
        ("X={{ name.upper }}", "line 2: {{ begins no variable"),
        ("X={{ path }}", "line 2: the value of 'path' has characters that mean something to a shell"),
    ],
    ids=["unknown", "open", "expression", "unquoted"],
)
def test_a_template_that_cannot_be_rendered_stops_the_clone_with_one_line(
    khlone: Khlone, git: Git, commit: Commit, project: Path, line: str, told: str
) -> None:
    commit(project, {".env.khlone": f"NAME={{{{ name }}}}\n{line}\n"}, "a broken template")
    git("config", "khlone.worktree", "../a $(space)/{folder}", cwd=project)
    before = footprint(git, project)

    error = refused(khlone("new", "one", "--json", cwd=project), "vetoed")

    assert told in error["message"]
    assert error["facts"]["plugin"] == "dotenv"
    assert footprint(git, project) == before
    assert not (project.parent / "a $(space)" / "one").exists()


def test_a_quoted_value_is_what_a_shell_reads(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    commit(project, {".env.khlone": "WHERE={{ path | quote }}\n"}, "quoted")
    git("config", "khlone.worktree", "../a $(touch hit) 'b'/{folder}", cwd=project)

    path = new(khlone, project, "one")

    read = subprocess.run(
        ["sh", "-c", '. ./.env; printf %s "$WHERE"'], cwd=path, capture_output=True, text=True, check=True, timeout=60
    )
    assert read.stdout == str(path)
    assert not (path / "hit").exists()


def test_it_is_rendered_again_by_rename_and_by_sync(khlone: Khlone, commit: Commit, project: Path) -> None:
    new(khlone, project, "one")
    assert khlone("rename", "one", "two", cwd=project).code == 0
    path = Path(show(khlone, project, "two")["path"])
    assert (path / ".env").read_text() == expected(khlone, project, "two")
    commit(project, {".env.khlone": "ONLY={{ name }}\n"}, "another template")

    assert khlone("sync", "two", cwd=project).code == 0

    assert (path / ".env").read_text() == "ONLY=two\n"
    assert stat.S_IMODE((path / ".env").lstat().st_mode) == 0o600


def test_a_changed_file_is_the_users_for_ever(khlone: Khlone, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "one")
    (path / ".env").write_text("MINE=1\n")
    commit(project, {".env.khlone": "ONLY={{ name }}\n"}, "another template")

    synced = khlone("sync", "one", cwd=project)

    assert synced.code == 0
    assert "stays as it is" in synced.err
    assert (path / ".env").read_text() == "MINE=1\n"
    assert khlone("remove", "one", cwd=project).code == 0
    assert khlone("restore", "one", cwd=project).code == 0
    assert (Path(show(khlone, project, "one")["path"]) / ".env").read_text() == "MINE=1\n"


def test_a_file_that_is_tracked_or_copied_from_the_user_stays(khlone: Khlone, commit: Commit, project: Path) -> None:
    (project / ".env").write_text("COPIED=1\n")
    (project / ".worktreeinclude").write_text(".env\n")
    assert (new(khlone, project, "copied") / ".env").read_text() == "COPIED=1\n"
    commit(project, {".env": "TRACKED=1\n"}, "tracked")

    path = new(khlone, project, "tracked")

    assert (path / ".env").read_text() == "TRACKED=1\n"
    assert is_clean(khlone, project, "tracked")


def test_a_link_is_neither_followed_nor_replaced(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (project / "conf").symlink_to(outside)
    git("add", "conf", cwd=project)
    git("commit", "-q", "-m", "a link", cwd=project)
    git("config", "khlone.dotenv.name", "conf/.env", cwd=project)

    error = refused(khlone("new", "one", "--json", cwd=project), "vetoed")

    assert "through a link" in error["message"]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/x", ".git/config", "a//b", "."])
def test_a_name_outside_of_the_worktree_is_an_invalid_setting(
    khlone: Khlone, git: Git, project: Path, name: str
) -> None:
    git("config", "khlone.dotenv.name", name, cwd=project)

    refused(khlone("new", "one", "--json", cwd=project), "invalid-setting", 2)


# -- where git does not ignore it ----------------------------------------------------------


@pytest.fixture
def open_project(project: Path, commit: Commit) -> Path:
    """The same, but git would show the file."""
    commit(project, {".gitignore": ""}, "nothing is ignored")
    return project


def test_an_unchanged_file_that_git_would_show_is_nobodys_work(
    khlone: Khlone, commit: Commit, git: Git, open_project: Path
) -> None:
    made = khlone("new", "one", cwd=open_project)
    path = Path(show(khlone, open_project, "one")["path"])
    commit(path, {"work.txt": "work\n"}, "work")

    assert "git does not ignore .env" in made.err
    assert git("status", "--porcelain", cwd=path) == "?? .env\n"
    assert is_clean(khlone, open_project, "one")
    found = document(khlone("merge", "one", "--json", cwd=open_project), "merge")
    assert [one["name"] for one in found["landed"]] == ["one"]
    assert khlone("remove", "one", cwd=open_project).code == 0
    assert khlone("restore", "one", cwd=open_project).code == 0
    assert (Path(show(khlone, open_project, "one")["path"]) / ".env").read_text().startswith("NAME=one\n")


def test_a_changed_file_that_git_would_show_is_work(khlone: Khlone, open_project: Path) -> None:
    path = new(khlone, open_project, "one")
    with (path / ".env").open("a") as stream:
        stream.write("SECRET=1\n")

    error = refused_entry(khlone, open_project)

    assert error == ("one", "has-changes")
    assert not is_clean(khlone, open_project, "one")


def refused_entry(khlone: Khlone, where: Path) -> tuple[str, str]:
    """What `remove` kept, and why."""
    (kept,) = document(khlone("remove", "one", "--json", cwd=where), "remove", 1)["kept"]
    return kept["name"], kept["code"]


@pytest.mark.parametrize("is_open", [False, True], ids=["ignored", "shown"])
def test_a_new_that_was_killed_leaves_no_file_behind(
    khlone: Khlone, git: Git, commit: Commit, project: Path, is_open: bool
) -> None:
    if is_open:
        commit(project, {".gitignore": ""}, "nothing is ignored")
    new(khlone, project, "warm")
    before = footprint(git, project)
    killed = subprocess.run(
        [KHLONE, "new", "lost"],
        cwd=project,
        env={**os.environ, "KHLONE_FAULT": "create.prepared"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -9

    assert khlone("doctor", "--fix", cwd=project).code == 0

    assert footprint(git, project) == before
    assert not (project.parent / "project.clones" / "lost").exists()
