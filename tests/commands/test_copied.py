"""A folder with a repository and its clones is copied: each has its own clones then, and none touches the other's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.merging import landed, merge
from tests.commands.steps import branches, document, new, refs, show, tree
from tests.support import Commit, Git, Khlone, write


@pytest.fixture
def original(khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path) -> Path:
    """A repository in a folder of its own, with a clone `a` that has a commit, an edit and a new file."""
    folder = tmp_path / "work"
    folder.mkdir()
    project.rename(folder / "project")
    path = new(khlone, folder / "project", "a")
    commit(path, {"a.txt": "a\n"}, "work of a")
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n"})
    return folder / "project"


def copied(original: Path) -> Path:
    """The repository in a copy of its folder."""
    copy = original.parent.with_name("copy")
    shutil.copytree(original.parent, copy, symlinks=True)
    return copy / original.name


def test_doctor_makes_the_copied_worktrees_clones_of_the_copy(
    khlone: Khlone, git: Git, commit: Commit, original: Path
) -> None:
    copy = copied(original)
    place = copy.with_name("project.clones") / "a"
    whole, before, clone = tree(place), refs(git, original), show(khlone, original, "a")

    told = document(khlone("doctor", "--json", cwd=copy), "doctor", 1)["findings"]
    fixed = document(khlone("doctor", "--fix", "--json", cwd=copy), "doctor")["findings"]

    assert [(one["code"], one["clone"]) for one in told] == [("worktree-copied", "a")]
    assert [(one["code"], one["fixed"]) for one in fixed] == [("worktree-copied", True)]
    own = show(khlone, copy, "a")
    assert (own["path"], own["state"], own["ahead"]) == (str(place), "ready", 1)
    assert own["id"] != clone["id"]
    assert own["config_dir"] != clone["config_dir"]
    assert Path(own["config_dir"]).is_dir()
    assert tree(place) == whole
    commit(place, {"new.txt": "new\n", "notes.txt": "edited\n"}, "more")
    assert landed(merge(khlone, copy, "a")) == ["a"]
    assert khlone("doctor", cwd=copy).out == "all is well\n"
    assert refs(git, original) == before
    assert show(khlone, original, "a") == clone
    assert khlone("doctor", cwd=original).out == "all is well\n"


def test_the_original_has_every_byte_that_it_had(khlone: Khlone, git: Git, original: Path) -> None:
    copy = copied(original)
    before = {name: entry for name, entry in tree(original.parent).items() if "/khlone/locks/" not in name}

    khlone("doctor", "--fix", cwd=copy)
    khlone("remove", "--force", "a", cwd=copy)

    after = {name: entry for name, entry in tree(original.parent).items() if "/khlone/locks/" not in name}
    assert after == before


def test_what_runs_in_the_original_is_not_ended_from_a_copy_without_clones(
    khlone: Khlone, git: Git, original: Path
) -> None:
    copy = original.parent.with_name("copy") / "project"
    shutil.copytree(original, copy, symlinks=True)
    path = original.with_name("project.clones") / "a"
    whole, tip = tree(path), branches(git, copy)["a"]
    script = "import sys; print(flush=True); sys.stdin.read()"
    running = subprocess.Popen([sys.executable, "-c", script], cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.readline()

    told = document(khlone("doctor", "--json", cwd=copy), "doctor", 1)["findings"]
    done = khlone("remove", "--force", "a", cwd=copy)

    assert [one["code"] for one in told] == ["worktree-foreign"]
    assert "git khlone remove --force a" in told[0]["fix"]
    assert done.code == 0, done.err
    assert running.poll() is None
    running.communicate()
    assert tree(path) == whole
    assert branches(git, copy)["a"] == tip
    assert khlone("doctor", cwd=copy).out == "all is well\n"
