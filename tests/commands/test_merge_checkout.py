"""`merge` into a target that is checked out: it follows there, and nothing local is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.merging import Stopping, held, landed, merge, oid, parents, shown, worked
from tests.commands.steps import NOTES, document, edited, local_state, new, refs, refused, show, tree
from tests.support import KHLONE, Commit, Git, Khlone, make_commit, write


def snapshot(git: Git, worktree: Path) -> tuple[object, ...]:
    """All that a refused merge must leave alone: files, index to the byte, refs, stashes."""
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=worktree).strip())
    return tree(worktree), index.read_bytes(), refs(git, worktree), git("stash", "list", cwd=worktree)


def make_dirty(git: Git, worktree: Path) -> None:
    """Local work of every kind, in paths that no clone of these tests touches."""
    write(worktree, {"src/app.txt": edited(NOTES, 5, "staged"), "staged.txt": "new and staged\n"})
    git("add", "src/app.txt", "staged.txt", cwd=worktree)
    write(worktree, {"src/app.txt": edited(NOTES, 7, "unstaged above"), "docs/guide.md": "unstaged\n"})
    write(worktree, {"scratch.txt": "untracked\n", "a folder/untracked too": "u\n", "build.log": "ignored\n"})
    os.unlink(worktree / "src/lib/deep.txt")
    git("rm", "-q", "--cached", "README.md", cwd=worktree)


# -- where it is checked out ---------------------------------------------------------------


def in_main(khlone: Khlone, git: Git, project: Path) -> Path:
    """The main worktree has the target."""
    return project


def in_linked(khlone: Khlone, git: Git, project: Path) -> Path:
    """A linked worktree has the target, at a path with a space."""
    git("checkout", "-q", "--detach", cwd=project)
    git("worktree", "add", "-q", "../linked here", "main", cwd=project)
    return project.parent / "linked here"


def in_clone(khlone: Khlone, git: Git, project: Path) -> Path:
    """Another clone has the target as its branch."""
    git("checkout", "-q", "--detach", cwd=project)
    return new(khlone, project, "mainly", "--branch", "main")


@pytest.mark.parametrize("strategy", ["--merge", "--squash", "--ff-only"])
@pytest.mark.parametrize("place", [in_main, in_linked, in_clone])
def test_the_checkout_follows_and_local_work_elsewhere_in_it_stays_to_the_byte(
    khlone: Khlone,
    git: Git,
    commit: Commit,
    project: Path,
    place: Callable[[Khlone, Git, Path], Path],
    strategy: str,
) -> None:
    path = worked(
        khlone,
        commit,
        project,
        "a",
        {"notes.txt": edited(NOTES, 0, "landed"), "fresh/new.txt": "new\n"},
        "--into",
        "main",
    )
    checkout = place(khlone, git, project)
    make_dirty(git, checkout)
    changed = ("notes.txt", "fresh", "fresh/new.txt")
    before = local_state(git, checkout, without=changed)

    found = merge(khlone, project, "a", strategy)

    assert landed(found) == ["a"]
    assert local_state(git, checkout, without=changed) == before
    assert (checkout / "notes.txt").read_bytes() == (path / "notes.txt").read_bytes()
    assert (checkout / "fresh/new.txt").read_text() == "new\n"
    assert git("diff", "HEAD", "--", "notes.txt", "fresh", cwd=checkout) == ""
    assert oid(git, checkout, "HEAD") == oid(git, project, "main")
    assert git("symbolic-ref", "HEAD", cwd=checkout).strip() == "refs/heads/main"
    assert git("stash", "list", cwd=checkout) == ""


def test_a_detached_head_at_the_target_is_left_alone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n"})
    git("checkout", "-q", "--detach", cwd=project)
    before = tree(project), oid(git, project, "HEAD"), git("status", "--porcelain", cwd=project)

    merge(khlone, project, "a")

    assert (tree(project), oid(git, project, "HEAD"), git("status", "--porcelain", cwd=project)) == before


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_odd_names_modes_links_and_swaps_arrive_in_the_checkout(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    commit(project, {"folder/one.txt": "1\n", "folder/two.txt": "2\n"}, "a folder")
    path = new(khlone, project, "a")
    os.unlink(path / "README.md")
    os.chmod(path / "notes.txt", 0o755)
    git("rm", "-q", "-r", "folder", cwd=path)
    (path / "folder").write_text("a file now\n")
    os.unlink(path / "src/app.txt")
    write(path, {"src/app.txt/inner.txt": "a folder now\n", "with space": "1", "new\nline": "2", "odd-\udcff": "3"})
    (path / "link").symlink_to("no/such/place")
    git("add", "--all", cwd=path)
    git("commit", "-q", "-m", "odd", cwd=path)
    (project / "scratch.txt").write_text("untracked\n")

    merge(khlone, project, "a", strategy)

    os.unlink(project / "scratch.txt")
    assert tree(project) == tree(path)
    assert git("status", "--porcelain", cwd=project) == ""


def test_a_sparse_checkout_stays_sparse(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"docs/guide.md": "changed\n", "src/app.txt": "changed\n"})
    git("sparse-checkout", "set", "src", cwd=project)

    merge(khlone, project, "a")

    assert (project / "src/app.txt").read_text() == "changed\n"
    assert not (project / "docs").exists()
    assert git("status", "--porcelain", cwd=project) == ""


def test_a_head_on_a_symbolic_branch_follows_too(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("symbolic-ref", "refs/heads/trunk", "refs/heads/main", cwd=project)
    git("symbolic-ref", "HEAD", "refs/heads/trunk", cwd=project)

    merge(khlone, project, "a", "--into", "main")

    assert (project / "a.txt").read_text() == "a\n"
    assert git("status", "--porcelain", cwd=project) == ""


# -- local work in the way -----------------------------------------------------------------


def unstaged(git: Git, project: Path) -> str:
    """An edit of a file that changes."""
    (project / "notes.txt").write_text("mine\n")
    return "notes.txt"


def staged(git: Git, project: Path) -> str:
    """A staged edit, the file itself as committed."""
    (project / "notes.txt").write_text("mine\n")
    git("add", "notes.txt", cwd=project)
    (project / "notes.txt").write_text(NOTES)
    return "notes.txt"


def deleted(git: Git, project: Path) -> str:
    """A file that changes was deleted."""
    os.unlink(project / "notes.txt")
    return "notes.txt"


def untracked(git: Git, project: Path) -> str:
    """An untracked file where a new one comes."""
    write(project, {"fresh/new.txt": "mine\n"})
    return "fresh/new.txt"


def untracked_alike(git: Git, project: Path) -> str:
    """An untracked file of the same content, which is still nobody's but the user's."""
    write(project, {"fresh/new.txt": "new\n"})
    return "fresh/new.txt"


def added(git: Git, project: Path) -> str:
    """A staged new file where a new one comes."""
    write(project, {"fresh/new.txt": "mine\n"})
    git("add", "fresh/new.txt", cwd=project)
    os.unlink(project / "fresh/new.txt")
    return "fresh/new.txt"


def ignored(git: Git, project: Path) -> str:
    """An ignored file where a new one comes."""
    write(project, {"trace.log": "mine\n"})
    return "trace.log"


def file_for_folder(git: Git, project: Path) -> str:
    """A file where a folder has to be made."""
    write(project, {"fresh": "mine\n"})
    return "fresh/new.txt"


def link_for_folder(git: Git, project: Path) -> str:
    """A link to a folder of the user's where a folder has to be made."""
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (project / "fresh").symlink_to(elsewhere)
    return "fresh/new.txt"


def folder_for_file(git: Git, project: Path) -> str:
    """A folder with an untracked file where a file comes."""
    write(project, {"plain/mine.txt": "mine\n"})
    return "plain"


def ignored_folder_for_file(git: Git, project: Path) -> str:
    """A folder with an ignored file alone where a file comes."""
    write(project, {"plain/mine.log": "mine\n"})
    return "plain"


def untracked_in_a_folder_that_leaves(git: Git, project: Path) -> str:
    """An untracked file in a folder that a file replaces."""
    write(project, {"folder/mine.txt": "mine\n"})
    return "folder"


def ignored_in_a_folder_that_leaves(git: Git, project: Path) -> str:
    """An ignored file in a folder that a file replaces."""
    write(project, {"folder/mine.log": "mine\n"})
    return "folder"


def assumed_unchanged(git: Git, project: Path) -> str:
    """An edit that `git status` was told not to look for."""
    git("update-index", "--assume-unchanged", "notes.txt", cwd=project)
    (project / "notes.txt").write_text("mine\n")
    return "notes.txt"


def skipped(git: Git, project: Path) -> str:
    """An edit of a file that is said to be outside the sparse checkout."""
    git("update-index", "--skip-worktree", "notes.txt", cwd=project)
    (project / "notes.txt").write_text("mine\n")
    return "notes.txt"


OVERLAPS = [
    unstaged,
    staged,
    deleted,
    untracked,
    untracked_alike,
    added,
    ignored,
    file_for_folder,
    link_for_folder,
    folder_for_file,
    ignored_folder_for_file,
    untracked_in_a_folder_that_leaves,
    ignored_in_a_folder_that_leaves,
    assumed_unchanged,
    skipped,
]


def overlapping_clone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    """A clone `a` whose work changes, adds, and puts a file in the place of a folder."""
    commit(project, {"folder/one.txt": "1\n"}, "a folder")
    path = worked(
        khlone,
        commit,
        project,
        "a",
        {"notes.txt": "landed\n", "fresh/new.txt": "new\n", "plain": "plain\n", "trace.log": "landed\n"},
    )
    git("rm", "-q", "-r", "folder", cwd=path)
    commit(path, {"folder": "a file now\n"}, "the folder becomes a file")


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("dry", [False, True], ids=["merge", "dry-run"])
def test_local_work_in_a_path_that_would_change_holds_the_clone_and_stays_to_the_byte(
    khlone: Khlone, git: Git, commit: Commit, project: Path, overlap: Callable[[Git, Path], str], dry: bool
) -> None:
    overlapping_clone(khlone, git, commit, project)
    named = overlap(git, project)
    before = snapshot(git, project)

    found = merge(khlone, project, "a", *(["--dry-run"] if dry else []), code=1)

    assert held(found) == [("a", "target-dirty")]
    assert found["held"][0]["paths"] == [named]
    assert snapshot(git, project) == before
    assert show(khlone, project, "a")["state"] == "ready"


@pytest.mark.parametrize("overlap", [ignored, ignored_in_a_folder_that_leaves])
def test_a_plain_merge_overwrites_what_is_ignored(
    khlone: Khlone, git: Git, commit: Commit, project: Path, overlap: Callable[[Git, Path], str]
) -> None:
    """The control: git alone, in the same checkout."""
    overlapping_clone(khlone, git, commit, project)
    overlap(git, project)
    mine = {name for name, entry in tree(project).items() if entry[2] == b"mine\n"}

    git("merge", "-q", "--ff-only", "a", cwd=project, check=False)

    assert mine
    assert mine - {name for name, entry in tree(project).items() if entry[2] == b"mine\n"}


def test_a_held_clone_lands_when_the_work_is_out_of_the_way(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 0, "landed")})
    (project / "notes.txt").write_text(edited(NOTES, 19, "mine"))
    merge(khlone, project, "a", code=1)

    git("stash", "-q", cwd=project)
    merge(khlone, project, "a")
    git("stash", "pop", "-q", cwd=project)

    assert (project / "notes.txt").read_text() == edited(edited(NOTES, 0, "landed"), 19, "mine")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("merge.autoStash", "true"),
        ("branch.main.mergeOptions", "--autostash"),
        ("branch.main.mergeOptions", "--squash"),
        ("branch.main.mergeOptions", "--no-commit --no-ff"),
        ("branch.main.mergeOptions", "-s ours"),
        ("merge.ff", "false"),
    ],
)
def test_settings_for_merges_do_not_make_another_thing_of_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path, key: str, value: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", key, value, cwd=project)
    make_dirty(git, project)
    before = local_state(git, project)

    found = merge(khlone, project, "a")

    assert parents(git, project, "main") == [found["old"], oid(git, project, "a")]
    assert (project / "a.txt").read_text() == "a\n"
    assert local_state(git, project, without=["a.txt"]) == before
    assert not (project / ".git/SQUASH_MSG").exists()


def test_a_merge_with_autostash_unstages_what_was_staged(git: Git, commit: Commit, project: Path) -> None:
    """The control: git alone, with the same setting and the same local work."""
    git("checkout", "-q", "-b", "a", cwd=project)
    commit(project, {"a.txt": "a\n"}, "work")
    git("checkout", "-q", "main", cwd=project)
    git("config", "merge.autoStash", "true", cwd=project)
    (project / "notes.txt").write_text("staged\n")
    git("add", "notes.txt", cwd=project)
    before = local_state(git, project)

    git("merge", "-q", "--ff-only", "a", cwd=project)

    assert local_state(git, project, without=["a.txt"]) != before


# -- something under way there -------------------------------------------------------------


def rebasing(git: Git, commit: Commit, project: Path) -> None:
    """A rebase that stopped at a conflict; HEAD is detached."""
    _clash(git, commit, project)
    git("rebase", "-q", "theirs", cwd=project, check=False)


def applying(git: Git, commit: Commit, project: Path) -> None:
    """`git am` that stopped at a patch that does not apply."""
    _clash(git, commit, project)
    git("am", "-q", cwd=project, check=False, input=git("format-patch", "-1", "--stdout", "theirs", cwd=project))


def merging(git: Git, commit: Commit, project: Path) -> None:
    """A merge that waits for its commit."""
    _clash(git, commit, project)
    git("merge", "-q", "theirs", cwd=project, check=False)


def picking(git: Git, commit: Commit, project: Path) -> None:
    """A cherry-pick that stopped at a conflict."""
    _clash(git, commit, project)
    git("cherry-pick", "theirs", cwd=project, check=False)


def between_picks(git: Git, commit: Commit, project: Path) -> None:
    """A cherry-pick of two whose first was committed by hand: the second still waits."""
    _clash(git, commit, project)
    git("cherry-pick", "theirs", "theirs~1", cwd=project, check=False)
    git("checkout", "-q", "--theirs", "notes.txt", cwd=project)
    git("commit", "-q", "-a", "-m", "by hand", cwd=project)


def reverting(git: Git, commit: Commit, project: Path) -> None:
    """A revert that waits for its commit."""
    _clash(git, commit, project)
    git("revert", "--no-edit", "HEAD~1", cwd=project, check=False)


def bisecting(git: Git, commit: Commit, project: Path) -> None:
    """A bisect that has checked out a commit between; HEAD is detached."""
    _clash(git, commit, project)
    git("bisect", "start", "HEAD", "HEAD~4", cwd=project)


def _clash(git: Git, commit: Commit, project: Path) -> None:
    commit(project, {"notes.txt": "one\n"}, "one")
    git("checkout", "-q", "-b", "theirs", cwd=project)
    commit(project, {"other.txt": "other\n"}, "other")
    commit(project, {"notes.txt": "theirs\n"}, "theirs")
    git("checkout", "-q", "main", cwd=project)
    commit(project, {"notes.txt": "ours\n"}, "ours")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (rebasing, "rebase"),
        (applying, "rebase"),
        (merging, "merge"),
        (picking, "cherry-pick"),
        (between_picks, "cherry-pick or revert"),
        (reverting, "revert"),
        (bisecting, "bisect"),
    ],
)
def test_what_is_under_way_in_the_checkout_is_not_disturbed(
    khlone: Khlone,
    git: Git,
    commit: Commit,
    project: Path,
    start: Callable[[Git, Commit, Path], None],
    what: str,
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    start(git, commit, project)
    before = snapshot(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "target-in-progress")]
    assert f"a {what} is under way" in found["held"][0]["message"]
    assert snapshot(git, project) == before


@pytest.mark.parametrize("name", ["index.lock", "refs/heads/main.lock"])
def test_a_lock_of_another_git_is_waited_for_and_then_left_where_it_is(
    khlone: Khlone, git: Git, commit: Commit, project: Path, name: str
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n", "a.txt": "a\n"})
    before = snapshot(git, project)
    lock = project / ".git" / name
    lock.write_bytes(b"of somebody else")

    found = merge(khlone, project, "a", code=75)

    assert held(found) == [("a", "locked")]
    assert lock.read_bytes() == b"of somebody else"
    lock.unlink()
    assert (before[0], before[2]) == (tree(project), refs(git, project))
    assert git("status", "--porcelain", cwd=project) == ""
    assert show(khlone, project, "a")["state"] == "ready"
    assert landed(merge(khlone, project, "a")) == ["a"]


def test_a_lock_that_is_given_up_in_time_is_waited_for(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    lock = project / ".git/index.lock"
    running = Stopping(project, "merge.publishing", "a")
    assert running.wait()
    lock.touch()
    running.go_on()
    threading.Timer(1.0, lock.unlink).start()

    found = document(running.end(), "merge")

    assert landed(found) == ["a"]
    assert git("status", "--porcelain", cwd=project) == ""


# -- a checkout that cannot be kept in step ------------------------------------------------


def test_a_target_that_is_checked_out_twice_is_not_moved_under_either(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    second = project.parent / "second"
    git("worktree", "add", "-q", "--force", str(second), "main", cwd=project)
    before = snapshot(git, project), snapshot(git, second)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "repository-unsupported")]
    assert all(str(path) in found["held"][0]["message"] for path in (project, second))
    assert (snapshot(git, project), snapshot(git, second)) == before


def test_a_checkout_that_is_gone_is_named_and_its_branch_not_moved(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    linked = in_linked(khlone, git, project)
    linked.rename(linked.with_name("taken away"))
    before = refs(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "repository-unsupported")]
    assert str(linked) in found["held"][0]["message"]
    assert refs(git, project) == before

    git("worktree", "prune", cwd=project)

    assert landed(merge(khlone, project, "a")) == ["a"]


# -- the target moves ----------------------------------------------------------------------


@pytest.mark.parametrize("point", ["merge.computed", "merge.publishing"])
def test_a_commit_made_in_the_checkout_meanwhile_is_kept(
    khlone: Khlone, git: Git, commit: Commit, project: Path, point: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    (project / "docs/guide.md").write_text("unstaged\n")
    running = Stopping(project, point, "a")
    assert running.wait()
    moved = commit(project, {"moved.txt": "moved\n"}, "meanwhile")

    running.go_on()
    found = document(running.end(), "merge")

    assert landed(found) == ["a"]
    assert parents(git, project, "main") == [moved, oid(git, path, "HEAD")]
    assert git("status", "--porcelain", cwd=project) == " M docs/guide.md\n"


def test_work_begun_in_the_checkout_meanwhile_is_kept(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n", "new.txt": "landed\n"})
    running = Stopping(project, "merge.publishing", "a")
    assert running.wait()
    write(project, {"notes.txt": "mine\n", "new.txt": "mine too\n"})
    before = snapshot(git, project)

    running.go_on()
    done = running.end()

    assert held(document(done, "merge", 1)) == [("a", "target-dirty")]
    assert snapshot(git, project)[0] == before[0]
    assert git("status", "--porcelain", cwd=project) == " M notes.txt\n?? new.txt\n"
    assert oid(git, project, "main") == oid(git, project, "a~1")
    assert show(khlone, project, "a")["state"] == "ready"


@pytest.mark.parametrize(
    ("adds", "lands"),
    [
        ("git update-index --add --cacheinfo 100644,$(echo theirs | git hash-object -w --stdin),moved.txt", False),
        (":", True),
    ],
    ids=["with the same path", "with no path"],
)
def test_a_ref_that_moves_under_the_landing_leaves_no_half_of_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, adds: str, lands: bool
) -> None:
    path = worked(khlone, commit, project, "a", {"notes.txt": "landed\n", "fresh/a.txt": "a\n", "moved.txt": "a\n"})
    os.unlink(path / "README.md")
    git("commit", "-q", "-a", "-m", "without", cwd=path)
    (project / "docs/guide.md").write_text("unstaged\n")
    moves = f"""
        export GIT_INDEX_FILE={tmp_path}/other
        git read-tree HEAD
        {adds}
        git update-ref HEAD $(git commit-tree $(git write-tree) -p HEAD -m between)
    """
    environment = _interrupted_git(git, tmp_path, project, "update-ref", moves)

    found = merge(khlone, project, "a", code=0 if lands else 4, env=environment)

    assert (tmp_path / "once").exists()
    assert landed(found) == (["a"] if lands else [])
    # Who moves a ref under a checkout has the difference staged there: theirs, and no part of ours.
    staged = "" if lands else "D  moved.txt\n"
    assert git("status", "--porcelain", cwd=project) == f" M docs/guide.md\n{staged}"
    assert git("log", "-1", "--format=%s", "HEAD^1" if lands else "HEAD", cwd=project) == "between\n"
    assert (project / "fresh").exists() is lands


@pytest.mark.parametrize("step", ["read-tree", "update-ref"])
def test_nothing_is_staged_or_committed_in_the_midst_of_a_landing(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, step: str
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n", "a.txt": "a\n"})
    write(project, {"mine.txt": "mine\n"})
    said = tmp_path / "said"
    mine = f"git add mine.txt 2>>{said}; git commit -q -a -m between 2>>{said}"
    environment = _interrupted_git(git, tmp_path, project, step, mine)

    found = merge(khlone, project, "a", env=environment)

    assert landed(found) == ["a"]
    assert said.read_text().count("index.lock': File exists") == 2
    assert git("log", "--format=%s", "--first-parent", cwd=project).count("between") == 0
    git("add", "mine.txt", cwd=project)
    assert git("status", "--porcelain", cwd=project) == "A  mine.txt\n"


def test_a_file_that_was_only_touched_does_not_hold_a_landing(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n"})
    os.utime(project / "notes.txt", (1, 1))

    found = merge(khlone, project, "a")

    assert landed(found) == ["a"]
    assert git("status", "--porcelain", cwd=project) == ""
    assert git("rev-parse", "ORIG_HEAD", "HEAD^1", cwd=project).split()[0] == oid(git, project, "main^1")


def _interrupted_git(git: Git, folder: Path, project: Path, step: str, commands: str) -> dict[str, str | None]:
    """A `git` that lets somebody else run these commands right before one step of a landing in a checkout."""
    real = f"{git('--exec-path', cwd=project).strip()}/git"
    shim = folder / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(
        f"""#!/bin/sh
case " $* " in
*" {step} "*)
    if [ -e "{project}/.git/index.lock" ] && mkdir "{folder}/once" 2>/dev/null; then
        (
            unset GIT_INDEX_FILE
            cd "{project}" || exit
            git() {{ "{real}" "$@"; }}
            {commands}
        ) </dev/null
    fi ;;
esac
exec "{real}" "$@"
"""
    )
    shim.chmod(0o755)
    return {"PATH": f"{shim.parent}:{os.environ['PATH']}"}


def test_a_user_who_goes_on_committing_loses_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    names = ("a", "b", "c")
    for name in names:
        worked(khlone, commit, project, name, {f"{name}.txt": f"{name}\n"})
    (project / "docs/guide.md").write_text("unstaged\n")
    mine: list[str] = []
    refusals: list[str] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            number = len(mine)
            try:
                make_commit(project, {f"mine{number}.txt": f"{number}\n"}, f"mine {number}")
            except AssertionError as error:
                refusals.append(str(error))
            else:
                mine.append(f"mine {number}")
            ended.wait(0.1)

    user = threading.Thread(target=go_on)
    user.start()
    try:
        found = merge(khlone, project, *names)
    finally:
        ended.set()
        user.join()

    subjects = git("log", "--format=%s", "main", cwd=project).splitlines()
    assert landed(found) == list(names)
    assert mine
    assert [text for text in refusals if "lock" not in text] == []
    assert set(mine) <= set(subjects)
    assert {f"Merge branch '{name}'" for name in names} <= set(subjects)
    # The user's last commit may have been refused the lock: what was added for it stays added.
    refused_last = {f"A  mine{len(mine)}.txt"}
    status = set(git("status", "--porcelain", "--untracked-files=no", cwd=project).splitlines())
    assert status - refused_last == {" M docs/guide.md"}
    assert all(shown(git, project, f"{name}.txt") == f"{name}\n" for name in names)


def test_inside_a_hook_of_the_checkout_the_index_stays_whole(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    told = tmp_path / "told"
    hook = project / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\nexec "{KHLONE}" merge a --json > "{told}" 2>&1\n')
    hook.chmod(0o755)

    subprocess.run(
        ["git", "commit", "-q", "--allow-empty", "-m", "mine"],
        cwd=project,
        env={**os.environ, "GIT_DIR": str(project / ".git"), "GIT_INDEX_FILE": str(project / ".git/index")},
        check=True,
    )

    assert landed(json.loads(told.read_text())) == ["a"]
    assert git("log", "--first-parent", "--format=%s", "-2", cwd=project).splitlines() == ["Merge branch 'a'", "mine"]
    assert git("status", "--porcelain", cwd=project) == git("status", "--porcelain", cwd=path) == ""


def test_a_dirty_target_in_text_says_where_and_what_to_do(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "landed\n"})
    (project / "notes.txt").write_text("mine\n")

    done = khlone("merge", "a", cwd=project)

    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"khlone: held: a: main is checked out in {project} with local work in notes.txt\n"
        "khlone:   hint: commit or stash it there, then merge again\n"
    )


def test_merging_a_clone_into_its_own_branch_is_nothing(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    assert held(merge(khlone, project, "a", "--into", "a")) == [("a", "nothing-to-merge")]
    refused(khlone("merge", "a", "--into", "b", "--json", cwd=project), "no-such-ref")


def test_a_target_whose_worktree_is_gone_is_told_as_such_and_the_hint_helps(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", "-b", "release", str(tmp_path / "release"), cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"}, "--into", "release")
    shutil.rmtree(tmp_path / "release")

    done = khlone("merge", "a", cwd=project)

    assert done.code == 1
    assert f"nothing can land on release: it is checked out in {tmp_path / 'release'}, which is gone" in done.err
    assert "hint: git worktree prune" in done.err
    git("worktree", "prune", cwd=project)
    assert khlone("merge", "a", cwd=project).code == 0
