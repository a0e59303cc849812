"""The repository that is meant is found from wherever git finds it, and refused where git refuses it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from khlone import discovery
from khlone.errors import NotARepository, NotPermitted, RepositoryUnsupported
from khlone.model import Location
from tests.support import Git, make_repository


def find(where: Path, **variables: str) -> Location:
    """The repository as a command there finds it."""
    return discovery.discover(where, {**os.environ, **variables})


def as_git(git: Git, where: Path) -> tuple[Path, Path, Path | None]:
    """(git dir, common dir, worktree) as git says."""
    asked = ("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
    git_dir, common = git(*asked, cwd=where).splitlines()
    top = git("rev-parse", "--show-toplevel", cwd=where, check=False).strip()
    return Path(git_dir), Path(common), Path(top) if top else None


def in_main(repository: Path, git: Git) -> Path:
    return repository


def in_a_subfolder(repository: Path, git: Git) -> Path:
    return repository / "src" / "lib"


def through_a_link(repository: Path, git: Git) -> Path:
    link = repository.parent / "link"
    link.symlink_to(repository / "src")
    return link


def in_a_linked_worktree(repository: Path, git: Git) -> Path:
    git("worktree", "add", "-q", "--detach", "../linked", cwd=repository)
    return repository.parent / "linked" / "src"


def in_a_worktree_of_a_worktree(repository: Path, git: Git) -> Path:
    git("worktree", "add", "-q", "--detach", "../second", cwd=in_a_linked_worktree(repository, git).parent)
    return repository.parent / "second"


def in_a_separate_git_dir(repository: Path, git: Git) -> Path:
    git("init", "-q", "--separate-git-dir", str(repository.parent / "apart"), cwd=repository)
    return repository


def in_a_submodule(repository: Path, git: Git) -> Path:
    make_repository(repository.parent / "other")
    git("-c", "protocol.file.allow=always", "submodule", "-q", "add", "../other", "sub", cwd=repository)
    return repository / "sub"


def in_bare(repository: Path, git: Git) -> Path:
    git("clone", "-q", "--bare", str(repository), "bare.git", cwd=repository.parent)
    return repository.parent / "bare.git"


def in_a_worktree_of_a_bare_one(repository: Path, git: Git) -> Path:
    git("worktree", "add", "-q", "../of-bare", "main", cwd=in_bare(repository, git))
    return repository.parent / "of-bare"


PLACES = [
    in_main,
    in_a_subfolder,
    through_a_link,
    in_a_linked_worktree,
    in_a_worktree_of_a_worktree,
    in_a_separate_git_dir,
    in_a_submodule,
    in_bare,
    in_a_worktree_of_a_bare_one,
]


@pytest.mark.parametrize("place", PLACES)
def test_the_repository_is_that_of_git_with_and_without_asking(
    repository: Path, git: Git, place: Callable[[Path, Git], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(repository, git)

    found = find(where)

    assert (found.git_dir, found.common_dir, found.worktree) == as_git(git, where)
    assert found.bare == (place in (in_bare, in_a_worktree_of_a_bare_one))
    monkeypatch.setattr(discovery, "_discover_plain", lambda _: None)
    asked = find(where)
    assert (asked.git_dir, asked.common_dir, asked.worktree, asked.main_worktree, asked.bare) == (
        *(found.git_dir, found.common_dir, found.worktree, found.main_worktree, found.bare),
    )


@pytest.mark.parametrize("place", [in_main, in_a_subfolder, in_a_linked_worktree, in_a_separate_git_dir])
def test_the_common_layouts_need_no_git(
    repository: Path, git: Git, place: Callable[[Path, Git], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(repository, git)
    monkeypatch.setattr(discovery, "_discover_by_git", None)

    assert find(where).main_worktree == repository


def test_inside_the_git_dir_the_main_worktree_is_meant(repository: Path) -> None:
    found = find(repository / ".git" / "refs")

    assert (found.common_dir, found.worktree) == (repository / ".git", repository)


def test_a_bare_repository_stays_bare_when_git_moves_that_word(repository: Path, git: Git) -> None:
    linked = in_a_worktree_of_a_bare_one(repository, git)
    git("sparse-checkout", "set", "docs", cwd=linked)
    common = repository.parent / "bare.git"

    found = find(linked)

    assert "bare = true" not in (common / "config").read_text(), "git has moved it"
    assert found.bare
    assert found.main_worktree is None
    assert find(common).bare


@pytest.mark.parametrize("text", ["[core] bare = true\n", "[core]\n\tBare\n", "[core]bare=yes\n"])
def test_the_word_bare_is_seen_however_it_is_written(repository: Path, git: Git, text: str) -> None:
    bare = in_bare(repository, git)
    git("worktree", "add", "-q", "../of-bare", "main", cwd=bare)
    (bare / "config").write_text(text)

    assert find(repository.parent / "of-bare").bare


# -- variables -----------------------------------------------------------------------------


def test_a_variable_names_the_repository(repository: Path, git: Git, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()

    found = find(tmp_path / "work", GIT_DIR=str(repository / ".git"), GIT_WORK_TREE=str(tmp_path / "work"))

    assert (found.common_dir, found.worktree) == (repository / ".git", tmp_path / "work")


def test_a_search_ends_where_a_variable_says(repository: Path) -> None:
    with pytest.raises(NotARepository):
        find(repository / "src", GIT_CEILING_DIRECTORIES=str(repository))


@pytest.mark.parametrize("linked", [False, True])
def test_inside_a_hook_the_repository_is_the_hooks(repository: Path, git: Git, tmp_path: Path, linked: bool) -> None:
    where = in_a_linked_worktree(repository, git).parent if linked else repository
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\nenv -0 >{tmp_path}/seen\n")
    hook.chmod(0o755)
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=where)
    seen = dict(item.split("=", 1) for item in (tmp_path / "seen").read_text().split("\0") if item)

    found = discovery.discover(where, seen)

    assert "GIT_INDEX_FILE" in seen
    assert ("GIT_DIR" in seen) == linked
    assert (found.common_dir, found.worktree) == (repository / ".git", where)


def test_inside_a_receive_hook_everything_is_refused(repository: Path) -> None:
    with pytest.raises(NotPermitted, match="receive hook"):
        find(repository, GIT_QUARANTINE_PATH=str(repository / ".git" / "objects" / "incoming"))


# -- what is refused -----------------------------------------------------------------------


def test_outside_of_every_repository_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotARepository) as caught:
        find(tmp_path)

    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere\n", "something else\n", "gitdir: \n"])
def test_a_dot_git_file_that_leads_nowhere_is_no_repository(repository: Path, content: str) -> None:
    folder = repository / "broken"
    folder.mkdir()
    (folder / ".git").write_text(content)

    with pytest.raises(Exception, match=r"(?i)git") as caught:
        find(folder)

    assert type(caught.value).__module__ == "khlone.errors"


@pytest.mark.parametrize("place", [".", "src", ".git/refs"])
@pytest.mark.parametrize("text", ["[extensions]\n\tfromTheFuture = true\n", "[Extensions] FromTheFuture\n"])
def test_an_extension_that_git_does_not_know_is_refused(repository: Path, git: Git, place: str, text: str) -> None:
    git("config", "core.repositoryFormatVersion", "1", cwd=repository)
    with (repository / ".git" / "config").open("a") as config:
        config.write(text)

    with pytest.raises(RepositoryUnsupported, match="fromthefuture"):
        find(repository / place)


def test_an_extension_that_every_git_knows_needs_no_git(
    repository: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("config", "core.repositoryFormatVersion", "1", cwd=repository)
    git("config", "extensions.worktreeConfig", "true", cwd=repository)
    monkeypatch.setattr(discovery, "_discover_by_git", None)

    assert find(repository).common_dir == repository / ".git"


def test_the_worktree_of_a_variable_alone_is_not_the_working_folder(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()

    found = find(tmp_path / "elsewhere", GIT_DIR=str(repository / ".git"))

    assert (found.common_dir, found.worktree, found.main_worktree) == (repository / ".git", repository, repository)


@pytest.mark.needs_root
@pytest.mark.parametrize("what", [".", ".git"])
def test_a_repository_of_another_user_is_refused_as_git_refuses_it(
    repository: Path, git: Git, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    subprocess.run(["chown", "-R", "65534:65534", str(repository / what)], check=True)
    own = subprocess.run(["git", "status"], cwd=repository, capture_output=True, check=False)

    if own.returncode == 0:
        assert find(repository).common_dir == repository / ".git"
        return
    with pytest.raises(NotPermitted, match="dubious ownership") as caught:
        find(repository)

    assert "safe.directory" in str(caught.value.hint)
    git("config", "--global", "safe.directory", str(repository), cwd=repository.parent)
    assert find(repository).common_dir == repository / ".git"
