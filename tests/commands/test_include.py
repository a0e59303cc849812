"""`.worktreeinclude`: a new clone gets copies of the ignored files that it names, and of nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.commands.steps import common_dir, footprint, new, tree
from tests.support import Commit, Git, Khlone, write

PATTERNS = "# what an agent needs\n.env\n/config/*.local\n!/config/never.local\nnode_modules/\n*.key\n"
IGNORED = ".env\n*.local\nnode_modules/\n*.log\n*.key\n.cache/\n"


@pytest.fixture
def prepared(repository: Path, commit: Commit) -> Path:
    """A repository with patterns, and files that are ignored, untracked or tracked."""
    commit(repository, {".gitignore": IGNORED, ".worktreeinclude": PATTERNS}, "patterns")
    write(
        repository,
        {
            ".env": "SECRET=1\n",
            "sub/deep/.env": "SECRET=2\n",
            "config/a.local": "a\n",
            "config/never.local": "not this one\n",
            "node_modules/left/pad.js": "pad\n",
            "build.log": "ignored, not named\n",
            "untracked.key.txt": "neither\n",
        },
    )
    (repository / ".env").chmod(0o600)
    return repository


def test_ignored_files_that_are_named_are_copied_and_nothing_else(khlone: Khlone, git: Git, prepared: Path) -> None:
    done = khlone("new", "one", cwd=prepared)

    path = Path(done.out.splitlines()[-1])
    found = set(git("ls-files", "--others", cwd=path).split())
    assert found == {".env", "sub/deep/.env", "config/a.local", "node_modules/left/pad.js"}
    assert (path / ".env").read_text() == "SECRET=1\n"
    assert stat.S_IMODE((path / ".env").stat().st_mode) == 0o600
    assert (path / ".env").stat().st_mtime_ns == (prepared / ".env").stat().st_mtime_ns
    assert "copied 4 files that .worktreeinclude names" in done.err
    assert git("status", "--porcelain", cwd=path) == ""


def test_a_change_of_a_copy_does_not_reach_the_original(khlone: Khlone, prepared: Path) -> None:
    path = new(khlone, prepared, "one")

    (path / ".env").write_text("changed\n")

    assert (prepared / ".env").read_text() == "SECRET=1\n"


def test_without_the_file_nothing_is_copied_and_nothing_said(khlone: Khlone, git: Git, prepared: Path) -> None:
    git("rm", "-q", ".worktreeinclude", cwd=prepared)

    done = khlone("new", "one", cwd=prepared)

    assert git("ls-files", "--others", cwd=Path(done.out.splitlines()[-1])) == ""
    assert "worktreeinclude" not in done.err


def test_a_clone_of_a_clone_gets_the_files_of_the_main_worktree(khlone: Khlone, prepared: Path) -> None:
    first = new(khlone, prepared, "one")
    (first / ".env").write_text("the clone's own\n")

    second = new(khlone, first, "two")

    assert (second / ".env").read_text() == "SECRET=1\n"


def test_what_the_clone_would_not_ignore_is_not_copied_so_that_no_secret_is_committed(
    khlone: Khlone, git: Git, commit: Commit, prepared: Path
) -> None:
    git("checkout", "-q", "-b", "older", cwd=prepared)
    commit(prepared, {".gitignore": IGNORED.replace(".env\n", "")}, "does not ignore .env")
    git("checkout", "-q", "main", cwd=prepared)

    path = new(khlone, prepared, "one", "--from", "older")

    assert not (path / ".env").exists()
    assert (path / "config/a.local").exists()


def test_a_tracked_file_is_never_overwritten(khlone: Khlone, git: Git, commit: Commit, prepared: Path) -> None:
    git("checkout", "-q", "-b", "tracks", cwd=prepared)
    (prepared / ".env").rename(prepared.parent / "kept")
    commit(prepared, {".env": "tracked\n"}, "tracks it")
    git("checkout", "-q", "main", cwd=prepared)
    (prepared.parent / "kept").rename(prepared / ".env")

    path = new(khlone, prepared, "one", "--from", "tracks")

    assert (path / ".env").read_text() == "tracked\n"
    assert git("status", "--porcelain", cwd=path) == ""


def test_links_come_along_only_where_they_stay_inside(khlone: Khlone, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside\n")
    (prepared / "out.key").symlink_to(tmp_path / "outside")
    (prepared / "up.key").symlink_to("../outside")
    (prepared / "in.key").symlink_to("config/a.local")

    done = khlone("new", "one", cwd=prepared)

    path = Path(done.out.splitlines()[-1])
    assert os.readlink(path / "in.key") == "config/a.local"
    assert not os.path.lexists(path / "out.key")
    assert not os.path.lexists(path / "up.key")
    assert "out.key, up.key" in done.err


def test_no_folder_of_the_clone_that_is_a_link_is_followed(
    khlone: Khlone, git: Git, prepared: Path, tmp_path: Path
) -> None:
    git("checkout", "-q", "-b", "trap", cwd=prepared)
    (tmp_path / "victim").mkdir()
    git("rm", "-rq", "--cached", "--ignore-unmatch", "config", cwd=prepared)
    (prepared / "config").rename(tmp_path / "aside")
    (prepared / "config").symlink_to(tmp_path / "victim")
    git("add", "config", cwd=prepared)
    git("commit", "-q", "-m", "config leads elsewhere", cwd=prepared)
    git("checkout", "-q", "main", cwd=prepared)
    (tmp_path / "aside").rename(prepared / "config")

    new(khlone, prepared, "one", "--from", "trap")

    assert list((tmp_path / "victim").iterdir()) == []


def test_more_than_the_limit_is_left_out_and_said(khlone: Khlone, git: Git, prepared: Path) -> None:
    write(prepared, {"big.key": b"x" * 5000, "small.key": "s\n"})
    git("config", "khlone.include.size", "2K", cwd=prepared)

    done = khlone("new", "one", cwd=prepared)

    path = Path(done.out.splitlines()[-1])
    assert not (path / "big.key").exists()
    assert (path / "small.key").exists()
    assert "big.key" in done.err


@pytest.mark.parametrize("point", ["create.checked-out", "create.included", "create.prepared"])
def test_a_kill_while_copying_leaves_nothing_and_quarantines_nothing(
    khlone: Khlone, git: Git, prepared: Path, point: str
) -> None:
    new(khlone, prepared, "first")
    before = footprint(git, prepared)

    killed = khlone("new", "one", cwd=prepared, env={"KHLONE_FAULT": point})
    healed = khlone("doctor", "--fix", cwd=prepared)

    assert killed.code == -9
    assert healed.code == 0, healed
    assert footprint(git, prepared) == before
    assert not (common_dir(git, prepared) / "khlone" / "quarantine").exists()


def test_a_removed_clone_keeps_its_copies_in_the_trash(khlone: Khlone, prepared: Path) -> None:
    path = new(khlone, prepared, "one")
    before = tree(path)

    assert khlone("remove", "one", cwd=prepared).code == 0
    assert khlone("restore", "one", cwd=prepared).code == 0

    assert tree(path) == before


def test_odd_names_are_copied(khlone: Khlone, prepared: Path) -> None:
    odd = ["new\nline.key", "-dash.key", "sp ace.key", "\udcff.key", "dir \n/x.key"]
    write(prepared, dict.fromkeys(odd, "odd\n"))

    path = new(khlone, prepared, "one")

    assert [(path / name).read_text() for name in odd] == ["odd\n"] * len(odd)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_list_that_is_no_regular_file_is_not_read(khlone: Khlone, git: Git, prepared: Path, kind: str) -> None:
    git("rm", "-q", ".worktreeinclude", cwd=prepared)
    if kind == "link":
        (prepared / ".worktreeinclude").symlink_to(".gitignore")
    else:
        (prepared / ".worktreeinclude").mkdir()

    done = khlone("new", "one", cwd=prepared)

    assert done.code == 0, done
    assert git("ls-files", "--others", cwd=Path(done.out.splitlines()[-1])) == ""
    assert "warning" in done.err
