"""Accounts and machines of every kind: no HOME, no terminal, odd umasks, odd PATHs, shared and foreign repositories."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, footprint, new, refused, tree
from tests.faults.lab import leftovers, open_operations, run
from tests.support import KHLONE, Commit, Git, Khlone

VERBS = (("new", "a"), ("list",), ("merge", "a"), ("remove", "a"), ("restore", "a"), ("doctor",))

# -- which git -----------------------------------------------------------------------------


def _evil(folder: Path, trace: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "git").write_text(f"#!/bin/sh\ntouch {trace}\nexit 1\n")
    (folder / "git").chmod(0o755)
    return folder


@pytest.mark.parametrize("verb", [("new", "b"), ("list",), ("doctor",), ("merge", "a")])
def test_without_git_its_absence_is_told_and_nothing_changed(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    (tmp_path / "bin").mkdir()

    refused(khlone(*verb, "--json", cwd=project, env={"PATH": str(tmp_path / "bin")}), "git-missing")

    assert footprint(git, project) == before


@pytest.mark.parametrize("path", [".:{path}", ":{path}", "bin:{path}", "{path}:", ".:bin"])
def test_a_git_of_the_repository_is_never_run(khlone: Khlone, project: Path, tmp_path: Path, path: str) -> None:
    trace = tmp_path / "trace"
    for folder in (project, project / "bin"):
        _evil(folder, trace)
    env = {"PATH": path.format(path=os.environ["PATH"])}

    done = khlone("new", "a", "--json", cwd=project, env=env)

    assert not trace.exists()
    if "{path}" in path:
        assert document(done, "new")["failed"] == []
    else:
        refused(done, "git-missing")
    assert run("./git", cwd=project).code == 1
    assert trace.exists(), "the control: that git does leave a trace"


def test_without_a_path_git_is_found_where_systems_keep_it(khlone: Khlone, project: Path) -> None:
    assert shutil.which("git", path=os.defpath) is not None

    assert khlone("new", "a", cwd=project, env={"PATH": None}).code == 0


# -- which account -------------------------------------------------------------------------

NO_XDG = {"XDG_STATE_HOME": None, "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None}


@pytest.mark.parametrize(
    "env",
    [
        NO_XDG,
        {"TERM": None},
        {"TERM": "dumb"},
        {"TERM": ""},
        {"USER": None, "LOGNAME": None},
        {"SHELL": None, "PWD": None, "LANG": None, "LC_ALL": None},
        {"PWD": "/nowhere"},
        {"CI": "true", "GITHUB_ACTIONS": "true"},
    ],
    ids=lambda env: "-".join(env),
)
def test_an_account_without_the_usual_variables_works(
    khlone: Khlone, commit: Commit, project: Path, env: Mapping[str, str | None]
) -> None:
    codes = [khlone(*verb, cwd=project, env=env).code for verb in VERBS]

    assert codes == [0] * len(VERBS)
    assert clone_names(khlone, project) == ["a"]


@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "a")])
def test_without_any_home_the_variable_is_named_and_nothing_changed(
    khlone: Khlone, git: Git, project: Path, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    done = khlone(*verb, "--json", cwd=project, env={**NO_XDG, "HOME": None})

    assert "XDG_STATE_HOME" in done.out or "HOME" in done.out
    assert done.code not in (0, 3)
    assert footprint(git, project) == before
    assert open_operations(project) == []


def test_without_any_home_one_can_look(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")
    env = {**NO_XDG, "HOME": None}

    assert khlone("list", cwd=project, env=env).code == 0
    assert khlone("path", "a", cwd=project, env=env).out == f"{path}\n"


@pytest.mark.needs_root
def test_a_home_that_is_read_only_is_told_and_a_look_works(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    home = tmp_path / "home"
    home.mkdir()
    script = 'mount -t tmpfs -o ro none "$HOME" && unset XDG_STATE_HOME XDG_CONFIG_HOME XDG_CACHE_HOME && exec "$@"'
    wrap = ("unshare", "--mount", "/bin/sh", "-c", script, "sh", str(KHLONE))

    made = run(*wrap, "new", "b", "--json", cwd=project, env={"HOME": str(home)})
    listed = run(*wrap, "list", "--json", cwd=project, env={"HOME": str(home)})

    assert str(home) in refused(made, "not-permitted", 77)["message"]
    assert [one["name"] for one in document(listed, "list")["clones"]] == ["a"]
    assert footprint(git, project) == before
    assert leftovers(project) == []


@pytest.mark.needs_root
def test_a_home_that_is_read_only_is_done_without_where_the_state_lies_elsewhere(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    script = 'mount -t tmpfs -o ro none "$HOME" && unset XDG_CONFIG_HOME XDG_CACHE_HOME && exec "$@"'

    made = run(
        "unshare",
        "--mount",
        "/bin/sh",
        "-c",
        script,
        "sh",
        str(KHLONE),
        "new",
        "b",
        cwd=project,
        env={"HOME": str(home)},
    )

    assert made.code == 0, made.err
    assert clone_names(khlone, project) == ["b"]


# -- which streams and which umask ---------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_with_streams_closed_the_work_is_done_and_no_file_gets_what_was_said(
    khlone: Khlone, git: Git, project: Path, closed: str
) -> None:
    codes = [
        run("/bin/sh", "-c", f'exec "$@" {closed}', "sh", str(KHLONE), *verb, cwd=project).code
        for verb in (("new", "a"), ("remove", "a"), ("restore", "a"))
    ]

    assert codes == [0] * 3
    assert clone_names(khlone, project) == ["a"]
    assert khlone("doctor", cwd=project).code == 0
    git("fsck", cwd=project)


@pytest.mark.parametrize("umask", ["000", "027", "077"])
def test_under_every_umask_what_is_private_is_private_and_the_rest_as_git_would_have_it(
    khlone: Khlone, git: Git, project: Path, umask: str
) -> None:
    under = ("/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh")

    codes = [
        run(*under, str(KHLONE), *verb, cwd=project).code
        for verb in (("new", "a"), ("new", "b"), ("remove", "b"), ("merge", "a"), ("remove", "a"), ("restore", "a"))
    ]
    run(*under, "git", "worktree", "add", "-q", "--detach", str(project.parent / "plain"), cwd=project)

    assert codes == [0] * 6
    private = [project / ".git" / "khlone", Path(os.environ["XDG_STATE_HOME"]) / "khlone"]
    for folder in private:
        for place in (folder, *folder.rglob("*")):
            if "trash" not in place.parts and "clones" not in place.parts:
                assert stat.S_IMODE(place.lstat().st_mode) & 0o077 == 0, place
    clone, plain = project.with_name("project.clones") / "a", project.parent / "plain"
    assert {name: mode for name, (_, mode, _) in tree(clone).items()} == {
        name: mode for name, (_, mode, _) in tree(plain).items()
    }
    assert stat.S_IMODE(clone.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# -- whose repository ----------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("verb", [("new", "b"), ("list",), ("doctor", "--fix")])
def test_a_repository_of_somebody_else_is_used_only_when_git_is_told_so(
    khlone: Khlone, git: Git, project: Path, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    for place in (project, project / ".git"):
        os.chown(place, 65534, 65534)

    found = refused(khlone(*verb, "--json", cwd=project), "not-permitted", 77)
    git("config", "--global", "--add", "safe.directory", str(project), cwd=project.parent)

    assert "safe.directory" in found["hint"]
    assert footprint(git, project) == before
    assert khlone(*verb, cwd=project).code == 0


@pytest.mark.parametrize("umask", ["022", "077"])
def test_what_is_written_in_a_repository_of_a_group_is_the_groups(
    khlone: Khlone, git: Git, commit: Commit, project: Path, umask: str
) -> None:
    git("init", "-q", "--shared=group", cwd=project)
    before = {place for place in (project / ".git").rglob("*") if "khlone" not in place.parts}

    assert run("/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh", str(KHLONE), "new", "a", cwd=project).code == 0
    commit(project.with_name("project.clones") / "a", {"one.txt": "1\n"}, "one")
    assert khlone("merge", "a", cwd=project).code == 0

    made = [
        place
        for place in (project / ".git").rglob("*")
        if "khlone" not in place.parts and place not in before and place.name != "COMMIT_EDITMSG"
    ]
    assert made
    for place in made:
        mode = stat.S_IMODE(place.lstat().st_mode)
        wanted = 0o2070 if place.is_dir() else 0o040 if "objects" in place.parts else 0o060
        assert mode & wanted == wanted, (oct(mode), place)
