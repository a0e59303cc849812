"""`diff`: what a clone changed since it left its target, wherever the change lies, and nothing of it is touched."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import NOTES, document, edited, new, refused, tree
from tests.support import Commit, Git, Khlone, write

CHANGED = edited(NOTES, 3, "changed")


@pytest.fixture
def clone(khlone: Khlone, project: Path) -> Path:
    """A clone named `a`."""
    return new(khlone, project, "a")


def diff(khlone: Khlone, where: Path, *words: str) -> dict[str, tuple[str, int | None, int | None]]:
    """(status, added, deleted) of each path that the document names."""
    files = document(khlone("diff", *words, "--json", cwd=where), "diff")["files"]
    found = {one["path"]: (one["status"], one["added"], one["deleted"]) for one in files}
    assert len(found) == len(files), "no path twice"
    return found


def untouched(git: Git, project: Path, clone: Path) -> dict[str, object]:
    """All that a diff could leave behind, and what it must leave alone."""
    admin = Path(git("rev-parse", "--absolute-git-dir", cwd=clone).strip())
    index = admin / "index"
    return {
        "index": (index.read_bytes(), index.stat().st_mtime_ns, index.stat().st_ino),
        "files": tree(clone),
        "admin": sorted(tree(admin)),
        "state": sorted(name for name in tree(project / ".git" / "khlone")),
        "refs": git("for-each-ref", cwd=project),
    }


# -- what is shown -------------------------------------------------------------------------


def test_without_a_change_there_is_nothing_to_show(khlone: Khlone, project: Path, clone: Path) -> None:
    found = document(khlone("diff", "a", "--json", cwd=project), "diff")

    assert found == {"schema": "khlone.diff/1", "name": "a", "target": "main", "files": []}
    assert khlone("diff", "a", cwd=project).out == ""


def test_committed_staged_edited_untracked_and_deleted_work_is_shown_alike(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    commit(clone, {"committed.txt": "one\ntwo\n"}, "work")
    write(clone, {"staged.txt": "one\n", "src/app.txt": CHANGED, "untracked/deep.txt": "one\ntwo\nthree\n"})
    git("add", "staged.txt", cwd=clone)
    (clone / "src/lib/deep.txt").unlink()
    git("rm", "-q", "docs/guide.md", cwd=clone)

    found = diff(khlone, project, "a")

    assert found == {
        "committed.txt": ("A", 2, 0),
        "docs/guide.md": ("D", 0, 1),
        "src/app.txt": ("M", 1, 1),
        "src/lib/deep.txt": ("D", 0, 1),
        "staged.txt": ("A", 1, 0),
        "untracked/deep.txt": ("A", 3, 0),
    }
    assert diff(khlone, project, "a", "--committed") == {"committed.txt": ("A", 2, 0)}


def test_what_was_staged_and_changed_once_more_is_shown_as_it_is_now(
    khlone: Khlone, git: Git, project: Path, clone: Path
) -> None:
    write(clone, {"notes.txt": CHANGED, "fresh.txt": "one\n"})
    git("add", "notes.txt", "fresh.txt", cwd=clone)
    write(clone, {"notes.txt": NOTES, "fresh.txt": "one\ntwo\n"})

    assert diff(khlone, project, "a") == {"fresh.txt": ("A", 2, 0)}


def test_binary_files_modes_and_links_are_told_apart(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    write(clone, {"picture.bin": b"\0\1\2", "notes.txt": NOTES})
    (clone / "notes.txt").chmod(0o755)
    (clone / "src/app.txt").unlink()
    (clone / "src/app.txt").symlink_to("lib/deep.txt")
    (clone / "nowhere").symlink_to("no/such/file")

    found = diff(khlone, project, "a")

    assert found == {
        "notes.txt": ("M", 0, 0),
        "nowhere": ("A", 1, 0),
        "picture.bin": ("A", None, None),
        "src/app.txt": ("T", 1, 20),
    }
    text = khlone("diff", "a", cwd=project).out
    assert "new mode 100755" in text
    assert "Binary files /dev/null and b/picture.bin differ" in text


ODD = [b"line\nfeed", b"not\xff\xfetext", b":colon", b":(top)x", b"-dash", b"tab\there", b' "quoted" ', "ä".encode()]


def test_paths_may_hold_any_byte(khlone: Khlone, git: Git, project: Path, clone: Path) -> None:
    for name in ODD:
        with open(os.path.join(os.fsencode(clone), name), "w") as stream:
            stream.write("one\n")
    git("--literal-pathspecs", "add", "--", os.fsdecode(ODD[0]), os.fsdecode(ODD[2]), cwd=clone)
    git("commit", "-q", "-m", "odd", cwd=clone)

    found = diff(khlone, project, "a")

    assert found == {os.fsdecode(name): ("A", 1, 0) for name in ODD}
    assert set(diff(khlone, project, "a", "--committed")) == {os.fsdecode(ODD[0]), os.fsdecode(ODD[2])}
    assert khlone("diff", "a", cwd=project).out.count("\n+one\n") == len(ODD)


def test_ignored_files_are_not_shown(khlone: Khlone, project: Path, clone: Path) -> None:
    write(clone, {"run.log": "ignored\n", "seen.txt": "seen\n"})

    assert list(diff(khlone, project, "a")) == ["seen.txt"]


def test_a_target_that_moved_on_changes_nothing_of_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    commit(clone, {"mine.txt": "mine\n"}, "mine")
    commit(project, {"theirs.txt": "theirs\n", "notes.txt": CHANGED}, "theirs")

    assert list(diff(khlone, project, "a")) == ["mine.txt"]
    git("merge", "-q", "main", cwd=clone)
    assert list(diff(khlone, project, "a")) == ["mine.txt"]
    assert list(diff(khlone, project, "a", "--committed")) == ["mine.txt"]


@pytest.mark.parametrize("gone", ["never had one", "its branch is deleted"])
def test_without_a_target_it_counts_from_where_it_began(
    khlone: Khlone, git: Git, commit: Commit, project: Path, gone: str
) -> None:
    git("branch", "other", cwd=project)
    if gone == "never had one":
        git("checkout", "-q", "--detach", cwd=project)
    path = new(khlone, project, "free", *(("--into", "other") if gone != "never had one" else ()))
    commit(path, {"mine.txt": "mine\n"}, "mine")
    git("branch", "-D", "other", cwd=project)

    found = document(khlone("diff", "free", "--json", cwd=project), "diff")

    assert found["target"] == (None if gone == "never had one" else "other")
    assert [one["path"] for one in found["files"]] == ["mine.txt"]


def test_a_conflict_under_way_is_shown_as_the_files_are(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    commit(clone, {"notes.txt": CHANGED}, "mine")
    commit(project, {"notes.txt": edited(NOTES, 3, "theirs")}, "theirs")
    git("merge", "main", cwd=clone, check=False)

    found = diff(khlone, project, "a")

    assert found["notes.txt"][0] == "M"
    assert git("status", "--porcelain", cwd=clone).startswith("UU notes.txt")


@pytest.mark.parametrize("place", ["clone", "subfolder", "-C"])
def test_inside_a_clone_no_name_is_needed(
    khlone: Khlone, project: Path, clone: Path, tmp_path: Path, place: str
) -> None:
    write(clone, {"new.txt": "new\n"})
    where = {"clone": clone, "subfolder": clone / "src", "-C": tmp_path}[place]

    found = diff(khlone, where, *(("-C", str(clone / "src")) if place == "-C" else ()))

    assert list(found) == ["new.txt"]


def test_the_patch_for_people_can_be_applied(khlone: Khlone, git: Git, project: Path, clone: Path) -> None:
    write(clone, {"notes.txt": CHANGED, "new.txt": "new\n", "picture.bin": b"\0\1"})
    (clone / "picture.bin").unlink()

    text = khlone("diff", "a", cwd=project).out
    git("apply", cwd=project, input=text)

    assert (project / "notes.txt").read_text() == CHANGED
    assert (project / "new.txt").read_text() == "new\n"


def test_the_stat_counts_lines(khlone: Khlone, project: Path, clone: Path) -> None:
    write(clone, {"notes.txt": CHANGED, "new.txt": "new\n"})

    text = khlone("diff", "a", "--stat", cwd=project).out

    assert [line.split("|")[0].strip() for line in text.splitlines()[:-1]] == ["new.txt", "notes.txt"]
    assert "2 files changed, 2 insertions(+), 1 deletion(-)" in text


# -- repositories inside -------------------------------------------------------------------


def test_a_submodule_is_shown_as_the_commit_it_is_at(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    git("init", "-q", str(tmp_path / "part"), cwd=tmp_path)
    commit(tmp_path / "part", {"part.txt": "part\n"}, "part")
    allowed = ("-c", "protocol.file.allow=always", "submodule")
    git(*allowed, "--quiet", "add", str(tmp_path / "part"), "part", cwd=project)
    git("commit", "-q", "-m", "with a part", cwd=project)
    path = new(khlone, project, "a")
    git(*allowed, "--quiet", "update", "--init", cwd=path)
    assert diff(khlone, project, "a") == {}

    commit(path / "part", {"part.txt": "more\n"}, "more")

    assert diff(khlone, project, "a") == {"part": ("M", 1, 1)}
    git("commit", "-q", "-a", "-m", "newer part", cwd=path)
    assert diff(khlone, project, "a", "--committed") == {"part": ("M", 1, 1)}


def test_a_repository_inside_counts_as_its_commit_or_is_told_of(
    khlone: Khlone, git: Git, commit: Commit, project: Path, clone: Path
) -> None:
    """One without a commit makes `git add` fail as a whole."""
    for name in ("full", "empty"):
        git("init", "-q", name, cwd=clone)
        write(clone / name, {"inner.txt": "inner\n"})
    commit(clone / "full", {"inner.txt": "inner\n"}, "inner")
    write(clone, {"beside.txt": "beside\n"})

    done = khlone("diff", "a", "--json", cwd=project)

    found = document(done, "diff")["files"]
    assert [(one["path"], one["status"]) for one in found] == [("beside.txt", "A"), ("full", "A")]
    assert "not shown: empty/ is a repository of its own without a commit" in done.err
    assert khlone("diff", "a", cwd=project).code == 0


# -- what is left alone --------------------------------------------------------------------


@pytest.mark.parametrize("settings", [(), ("core.splitIndex=true",), ("core.untrackedCache=true",)], ids=str)
@pytest.mark.parametrize("words", [(), ("--json",), ("--stat",), ("--committed",)], ids=" ".join)
def test_nothing_of_the_clone_changes_and_nothing_is_left_behind(
    khlone: Khlone, git: Git, project: Path, clone: Path, words: Sequence[str], settings: Sequence[str]
) -> None:
    for setting in settings:
        git("config", *setting.split("="), cwd=project)
    write(clone, {"notes.txt": CHANGED, "untracked.txt": "new\n", "staged.txt": "staged\n"})
    git("add", "staged.txt", cwd=clone)
    (clone / "src/app.txt").unlink()
    status = git("status", "--porcelain", cwd=clone)
    before = untouched(git, project, clone)

    assert khlone("diff", "a", *words, cwd=project).code == 0

    assert untouched(git, project, clone) == before
    assert git("status", "--porcelain", cwd=clone) == status


def test_a_change_in_the_moment_the_index_was_written_is_seen(
    khlone: Khlone, git: Git, project: Path, clone: Path
) -> None:
    """Same size and same time as when git looked last: only the time of the index tells git to look again."""
    git("config", "core.trustctime", "false", cwd=project)
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=clone).strip())
    then = 1_500_000_000
    os.utime(clone / "notes.txt", (then, then))
    git("update-index", "--refresh", cwd=clone)
    os.utime(index, (then, then))
    with open(clone / "notes.txt", "r+") as stream:
        stream.write("LINE")
    os.utime(clone / "notes.txt", (then, then))

    assert diff(khlone, project, "a") == {"notes.txt": ("M", 1, 1)}


def test_no_program_of_the_repository_is_run(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    script = tmp_path / "program"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/ran\ncat "$1" 2>/dev/null\n')
    script.chmod(stat.S_IRWXU)
    commit(project, {".gitattributes": "*.txt diff=shown\n"}, "attributes")
    path = new(khlone, project, "a")
    for key in ("diff.external", "diff.shown.command", "diff.shown.textconv", "core.fsmonitor", "core.pager"):
        git("config", key, str(script), cwd=project)
    git("config", "pager.diff", "true", cwd=project)
    write(path, {"notes.txt": CHANGED, "new.txt": "new\n"})
    git("diff", cwd=path)
    assert (tmp_path / "ran").exists(), "control: git alone runs them"
    (tmp_path / "ran").unlink()

    for words in ((), ("--json",), ("--stat",), ("--committed",)):
        assert khlone("diff", "a", *words, cwd=project).code == 0

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("diff.noprefix", "true"),
        ("diff.renames", "copies"),
        ("diff.submodule", "log"),
        ("diff.relative", "true"),
        ("color.ui", "always"),
        ("core.quotePath", "true"),
        ("status.showUntrackedFiles", "no"),
        ("diff.ignoreSubmodules", "all"),
        ("diff.statGraphWidth", "1"),
    ],
)
def test_settings_of_the_user_do_not_change_the_document(
    khlone: Khlone, git: Git, project: Path, clone: Path, key: str, value: str
) -> None:
    git("mv", "notes.txt", "moved.txt", cwd=clone)
    write(clone, {"ä.txt": "new\n"})
    git("config", key, value, cwd=project)

    assert diff(khlone, clone / "src") == {"moved.txt": ("A", 20, 0), "notes.txt": ("D", 0, 20), "ä.txt": ("A", 1, 0)}


def test_thousands_of_files_are_no_trouble(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    write(project, {f"many/{number % 50}/file{number}.txt": f"{number}\n" for number in range(5000)})
    git("add", "many", cwd=project)
    git("commit", "-q", "-m", "many", cwd=project)
    path = new(khlone, project, "a")
    for number in range(5000):
        (path / f"many/{number % 50}/file{number}.txt").rename(path / f"many/{number % 50}/other{number}.txt")

    found = diff(khlone, project, "a")

    assert len(found) == 10000
    assert set(found.values()) == {("A", 1, 0), ("D", 0, 1)}


# -- refusals ------------------------------------------------------------------------------


def test_an_unknown_clone_is_refused(khlone: Khlone, project: Path, clone: Path) -> None:
    refused(khlone("diff", "nope", "--json", cwd=project), "no-such-clone")
    refused(khlone("diff", "--json", cwd=project), "usage", 2)


def test_a_clone_without_its_folder_still_shows_what_is_committed(
    khlone: Khlone, commit: Commit, project: Path, clone: Path
) -> None:
    commit(clone, {"mine.txt": "mine\n"}, "mine")
    shutil.rmtree(clone)

    refused(khlone("diff", "a", "--json", cwd=project), "clone-not-ready")
    assert diff(khlone, project, "a", "--committed") == {"mine.txt": ("A", 1, 0)}


def test_a_clone_without_its_branch_is_refused(khlone: Khlone, git: Git, project: Path, clone: Path) -> None:
    git("update-ref", "-d", "refs/heads/a", cwd=project)

    facts: dict[str, Any] = refused(khlone("diff", "a", "--json", cwd=project), "clone-not-ready")

    assert "its branch a is gone" in facts["message"]
