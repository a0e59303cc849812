"""`restore`: a clone comes back byte for byte, under another name where its own is taken."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import (
    NOTES,
    at_once,
    branches,
    clone_names,
    common_dir,
    document,
    edited,
    footprint,
    local_state,
    new,
    refused,
    show,
    trash,
    tree,
)
from tests.faults.lab import rows
from tests.support import Commit, Git, Khlone, write


def removed(khlone: Khlone, where: Path, name: str) -> str:
    """Remove a clone by force; returns the id in the trash."""
    found = document(khlone("remove", "--force", name, "--json", cwd=where), "remove")
    assert found["kept"] == []
    return str(found["removed"][0]["trash"])


def restored(khlone: Khlone, where: Path, wanted: str) -> dict[str, Any]:
    """Restore and return the CLONE."""
    found = document(khlone("restore", wanted, "--json", cwd=where), "restore")
    assert list(found) == ["schema", "clone"]
    return dict(found["clone"])


def everything(git: Git, path: Path) -> dict[str, object]:
    """All of a worktree that a user or git could tell apart."""
    return {
        **local_state(git, path),
        "status": git("status", "--porcelain=v2", "--branch", "--ignored", cwd=path),
        "index bytes": _index(git, path),
        "reflog": git("reflog", cwd=path),
        "attributes": attributes(path),
        "times": {name: (path / name).lstat().st_mtime_ns for name in tree(path)},
    }


def _index(git: Git, path: Path) -> bytes:
    return Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=path).strip()).read_bytes()


def attributes(path: Path) -> dict[str, dict[str, bytes]]:
    """The extended attributes of every file, where the file system has them."""
    found = {}
    for name in tree(path):
        place = path / name
        listed = os.listxattr(place, follow_symlinks=False)
        found[name] = {key: os.getxattr(place, key, follow_symlinks=False) for key in listed}
    return found


def fill(git: Git, commit: Commit, path: Path) -> None:
    """One of everything that a snapshot by git alone would lose."""
    commit(path, {"one.txt": "1\n"}, "one")
    write(path, {"notes.txt": edited(NOTES, 1, "staged"), "added.txt": "added\n", "gone.txt": ""})
    git("add", "-A", cwd=path)
    write(path, {"notes.txt": edited(NOTES, 2, "not staged"), "src/crlf.txt": "a\r\nb\r\n"})
    (path / "src/app.txt").unlink()
    (path / "gone.txt").unlink()
    write(path, {"new/deep/file.txt": "new\n", "keep.log": "ignored\n", "build/out.log": "ignored\n"})
    write(path, {b"odd-\xff-name".decode(errors="surrogateescape"): "odd\n", "line\nbreak": "line\n"})
    (path / "secret").write_text("secret\n")
    (path / "secret").chmod(0o600)
    (path / "empty/er").mkdir(parents=True)
    (path / "empty").chmod(0o700)
    (path / "link").symlink_to("notes.txt")
    (path / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(path / "pipe", 0o620)
    git("init", "-q", "nested/without", cwd=path)
    git("init", "-q", "nested/with", cwd=path)
    write(path / "nested/without", {"file.txt": "file\n"})
    commit(path / "nested/with", {"file.txt": "file\n"}, "inner")
    write(path / "nested/with", {"file.txt": "changed\n"})
    with contextlib.suppress(OSError):
        os.setxattr(path / "secret", "user.khlone.test", b"value")


def collect(git: Git, where: Path) -> None:
    """What git may throw away, it throws away now."""
    git("reflog", "expire", "--expire-unreachable=now", "refs/heads/main", cwd=where)
    git("gc", "-q", "--prune=now", cwd=where)


# -- byte for byte -------------------------------------------------------------------------


def test_everything_comes_back_byte_for_byte_after_a_collection(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    fill(git, commit, path)
    before, state = everything(git, path), footprint(git, project)
    removed(khlone, project, "a")
    collect(git, project)

    done = khlone("restore", "a", cwd=project)

    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(path)
    assert everything(git, path) == before
    assert footprint(git, project) == state
    assert git("fsck", "--connectivity-only", "--no-dangling", cwd=project) == ""
    assert trash(khlone, project) == []


def test_the_document_is_the_clone_as_it_was(khlone: Khlone, commit: Commit, project: Path) -> None:
    tip = commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    before = show(khlone, project, "a")
    removed(khlone, project, "a")

    clone = restored(khlone, project, "a")

    assert list(clone) == list(before)
    asked_of_git = {"dirty": None, "untracked": None, "ahead": None, "behind": None, "merged": None, "locked": None}
    assert clone == {**before, **asked_of_git}
    assert (clone["state"], clone["head"]) == ("ready", tip)
    assert show(khlone, project, "a") == before


def test_the_config_dir_comes_back_with_all_in_it(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    config = Path(show(khlone, project, "a")["config_dir"])
    write(config, {"projects/transcript.jsonl": "{}\n", "credentials": "secret\n"})
    before = tree(config)
    removed(khlone, project, "a")
    assert not config.exists()

    clone = restored(khlone, project, "a")

    assert clone["config_dir"] == str(config)
    assert tree(config) == before


def test_a_config_dir_that_is_gone_is_made_anew_and_told(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    config = Path(show(khlone, project, "a")["config_dir"])
    removed(khlone, project, "a")
    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]) / "khlone/repositories")

    done = khlone("restore", "a", cwd=project)

    assert done.code == 0, done.err
    assert "config dir" in done.err
    assert list(config.iterdir()) == []


def test_commits_of_a_detached_head_survive_a_collection(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    git("checkout", "-q", "--detach", cwd=path)
    loose = commit(path, {"loose.txt": "loose\n"}, "loose")
    removed(khlone, project, "a")
    collect(git, project)

    restored(khlone, project, "a")

    assert git("rev-parse", "HEAD", cwd=path).strip() == loose
    assert git("status", "--porcelain", "--branch", cwd=path) == "## HEAD (no branch)\n"
    collect(git, project)
    assert git("show", "HEAD:loose.txt", cwd=path) == "loose\n"


def test_commits_that_only_the_reflog_knows_survive_a_collection(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    dropped = commit(path, {"dropped.txt": "dropped\n"}, "dropped")
    git("reset", "-q", "--hard", "HEAD~1", cwd=path)
    removed(khlone, project, "a")
    collect(git, project)

    restored(khlone, project, "a")

    assert git("rev-parse", "HEAD@{1}", cwd=path).strip() == dropped
    assert git("show", f"{dropped}:dropped.txt", cwd=path) == "dropped\n"


@pytest.mark.parametrize("taken", [False, True])
def test_an_interrupted_rebase_goes_on(khlone: Khlone, git: Git, commit: Commit, project: Path, taken: bool) -> None:
    path = new(khlone, project, "a")
    commit(path, {"notes.txt": edited(NOTES, 1, "mine")}, "first of mine")
    tip = commit(path, {"more.txt": "more\n"}, "second of mine")
    commit(project, {"notes.txt": edited(NOTES, 1, "theirs")}, "theirs")
    git("rebase", "-q", "main", cwd=path, check=False)
    before = git("status", cwd=path), tree(path)
    removed(khlone, project, "a")
    if taken:
        git("update-ref", "refs/heads/a", "main", cwd=project)
    collect(git, project)

    clone = restored(khlone, project, "a")
    assert (git("status", cwd=path).replace(clone["branch"], "a"), tree(path)) == before
    write(path, {"notes.txt": edited(NOTES, 1, "both")})
    git("add", "-A", cwd=path)
    git("-c", "core.editor=true", "rebase", "--continue", cwd=path)

    assert clone["branch"] == ("a-restored" if taken else "a")
    assert git("branch", "--show-current", cwd=path).strip() == clone["branch"]
    assert git("log", "--format=%s", "main..", cwd=path).split("\n")[:2] == ["second of mine", "first of mine"]
    assert branches(git, project)[clone["branch"]] != tip
    assert not taken or branches(git, project)["a"] == branches(git, project)["main"]


def test_an_interrupted_merge_with_conflicts_comes_back(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"notes.txt": edited(NOTES, 1, "mine")}, "mine")
    commit(project, {"notes.txt": edited(NOTES, 1, "theirs")}, "theirs")
    git("merge", "-q", "main", cwd=path, check=False)
    before = everything(git, path)
    assert "UU" in git("status", "--porcelain", cwd=path)
    removed(khlone, project, "a")
    collect(git, project)

    restored(khlone, project, "a")

    assert everything(git, path) == before
    git("merge", "--abort", cwd=path)


def test_stashes_of_the_branch_stay(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "stashed\n"})
    git("stash", "push", "-q", cwd=path)
    removed(khlone, project, "a")
    collect(git, project)

    restored(khlone, project, "a")
    git("stash", "pop", "-q", cwd=path)

    assert (path / "notes.txt").read_text() == "stashed\n"


def test_what_came_back_is_a_clone_like_any_other(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    removed(khlone, project, "a")

    restored(khlone, project, "a")

    assert khlone("exec", "a", "--", "git", "status", cwd=project).code == 0
    assert khlone("merge", "a", cwd=project).code == 0
    assert (project / "one.txt").exists()
    assert khlone("doctor", cwd=project).code == 0
    assert document(khlone("remove", "a", "--json", cwd=project), "remove")["removed"][0]["branch_deleted"] is True
    git("worktree", "list", cwd=project)


def test_a_clone_that_had_landed_comes_back_as_merged_and_lands_no_commit_twice(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    """Where the last squash was is part of that: without it the second one would conflict with the first."""
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    assert khlone("merge", "--squash", "a", cwd=project).code == 0
    before = show(khlone, project, "a")
    removed(khlone, project, "a")

    document = restored(khlone, project, "a")

    assert (document["state"], before["state"]) == ("merged", "merged")
    assert show(khlone, project, "a") == before
    commit(path, {"one.txt": "2\n"}, "two")
    assert show(khlone, project, "a")["state"] == "ready"
    assert khlone("merge", "--squash", "a", cwd=project).code == 0
    assert (project / "one.txt").read_text() == "2\n"


def test_one_that_had_moved_on_since_it_landed_comes_back_as_ready(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    assert khlone("merge", "--squash", "a", cwd=project).code == 0
    commit(path, {"one.txt": "2\n"}, "two")
    removed(khlone, project, "a")

    assert restored(khlone, project, "a")["state"] == "ready"
    assert khlone("merge", "--squash", "a", cwd=project).code == 0
    assert (project / "one.txt").read_text() == "2\n"


@pytest.mark.parametrize("journal", ["known", "lost"])
def test_an_adopted_worktree_comes_back_as_one(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, journal: str
) -> None:
    """The control: where the journal forgot its removal it is ready, as any other."""
    git("worktree", "add", "-q", "-b", "mine", str(tmp_path / "mine"), cwd=project)
    assert khlone("adopt", str(tmp_path / "mine"), cwd=project).code == 0
    assert show(khlone, project, "mine")["state"] == "adopted"
    removed(khlone, project, "mine")
    if journal == "lost":
        rows(project, "DELETE FROM operations")

    assert restored(khlone, project, "mine")["state"] == ("adopted" if journal == "known" else "ready")
    assert khlone("doctor", cwd=project).code == 0


# -- which one -----------------------------------------------------------------------------


def _two_of_one_name(khlone: Khlone, commit: Commit, project: Path) -> list[str]:
    """Remove two clones named `a`, on branches of their own; returns their ids, the older one first."""
    ids = []
    for number in (1, 2):
        path = new(khlone, project, "a", "--branch", f"a{number}")
        commit(path, {"which.txt": f"{number}\n"}, "which")
        ids.append(removed(khlone, project, "a"))
    return ids


def test_a_name_means_the_newest_and_an_id_that_very_one(khlone: Khlone, commit: Commit, project: Path) -> None:
    ids = _two_of_one_name(khlone, commit, project)

    newest = restored(khlone, project, "a")
    oldest = restored(khlone, project, ids[0])

    assert (newest["name"], newest["branch"]) == ("a", "a2")
    assert (Path(newest["path"]) / "which.txt").read_text() == "2\n"
    assert (oldest["name"], oldest["branch"]) == ("a-restored", "a1")
    assert (Path(oldest["path"]) / "which.txt").read_text() == "1\n"


@pytest.mark.parametrize("wanted", ["nobody", "live", "0190000000000000"])
def test_what_is_not_in_the_trash_cannot_be_restored(khlone: Khlone, git: Git, project: Path, wanted: str) -> None:
    new(khlone, project, "live")
    new(khlone, project, "a")
    removed(khlone, project, "a")
    before = footprint(git, project)

    refused(khlone("restore", wanted, "--json", cwd=project), "no-such-trash")

    assert footprint(git, project) == before
    assert [entry["name"] for entry in trash(khlone, project)] == ["a"]


def test_without_any_clone_there_is_nothing_to_restore(khlone: Khlone, project: Path) -> None:
    refused(khlone("restore", "a", "--json", cwd=project), "no-such-trash")


def test_it_comes_back_once(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    entry = removed(khlone, project, "a")
    restored(khlone, project, entry)

    refused(khlone("restore", entry, "--json", cwd=project), "no-such-trash")

    assert clone_names(khlone, project) == ["a"]


def test_two_of_one_name_restored_at_once_both_come_back(khlone: Khlone, commit: Commit, project: Path) -> None:
    ids = _two_of_one_name(khlone, commit, project)

    found = at_once([partial(khlone, "restore", entry, "--json", cwd=project) for entry in ids])

    clones = [document(done, "restore")["clone"] for done in found]
    assert {clone["name"] for clone in clones} == {"a", "a-restored"}
    assert {(Path(clone["path"]) / "which.txt").read_text() for clone in clones} == {"1\n", "2\n"}


# -- what is taken by now --------------------------------------------------------------------


def test_a_taken_name_branch_and_folder_give_new_ones_and_say_so(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    write(path, {"mine.txt": "mine\n", "kept.log": "ignored\n"})
    before = tree(path)
    entry = removed(khlone, project, "a")
    commit(new(khlone, project, "a"), {"other.txt": "other\n"}, "other")

    done = khlone("restore", entry, cwd=project)

    place = path.with_name("a-restored")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(place)
    assert all(word in done.err for word in ("name a is taken", "branch a is taken", f"{path} is taken"))
    assert tree(place) == before
    assert git("branch", "--show-current", cwd=place).strip() == "a-restored"
    assert clone_names(khlone, project) == ["a", "a-restored"]
    assert (path / "other.txt").exists()
    git("worktree", "list", cwd=project)


def test_a_branch_that_moved_on_is_left_alone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "a")
    tip = commit(path, {"one.txt": "1\n"}, "one")
    removed(khlone, project, "a")
    git("update-ref", "refs/heads/a", "main", cwd=project)

    clone = restored(khlone, project, "a")

    assert (clone["name"], clone["branch"], clone["head"]) == ("a", "a-restored", tip)
    assert branches(git, project)["a"] == branches(git, project)["main"]


def test_a_branch_that_is_checked_out_elsewhere_is_left_alone(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    tip = commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    removed(khlone, project, "a")
    git("worktree", "add", "-q", str(tmp_path / "other"), "a", cwd=project)

    clone = restored(khlone, project, "a")

    assert (clone["branch"], clone["head"]) == ("a-restored", tip)


def test_a_folder_that_something_else_took_is_left_alone(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")
    removed(khlone, project, "a")
    write(path, {"theirs.txt": "theirs\n"})

    clone = restored(khlone, project, "a")

    assert (clone["name"], clone["branch"], clone["path"]) == ("a", "a", str(path.with_name("a-restored")))
    assert tree(path).keys() == {"theirs.txt"}


@pytest.mark.parametrize(("old", "taken"), [("a", "a/b"), ("a/b", "a"), ("a", "A"), ("a/b", "a/B")])
def test_a_name_that_would_collide_gives_way(khlone: Khlone, git: Git, project: Path, old: str, taken: str) -> None:
    new(khlone, project, old)
    entry = removed(khlone, project, old)
    new(khlone, project, taken, "--branch", "something-else")

    clone = restored(khlone, project, entry)

    assert clone["name"] not in (old, taken)
    assert len(clone_names(khlone, project)) == 2
    assert refused(khlone("new", clone["name"], "--json", cwd=project), "clone-exists")


def test_a_branch_that_khlone_did_not_make_still_is_not_its_own(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "theirs", cwd=project)
    new(khlone, project, "a", "--branch", "theirs")
    removed(khlone, project, "a")

    clone = restored(khlone, project, "a")
    removed(khlone, project, "a")

    assert clone["branch"] == "theirs"
    assert "theirs" in branches(git, project)


@pytest.mark.parametrize("fate", ["gone", "checked-out"])
def test_a_worktree_on_another_branch_is_detached_where_that_one_is_not_free(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, fate: str
) -> None:
    path = new(khlone, project, "a")
    git("switch", "-q", "-c", "by-hand", cwd=path)
    tip = commit(path, {"one.txt": "1\n"}, "one")
    removed(khlone, project, "a")
    if fate == "gone":
        git("branch", "-q", "-D", "by-hand", cwd=project)
    else:
        git("worktree", "add", "-q", str(tmp_path / "other"), "by-hand", cwd=project)
    collect(git, project)

    done = khlone("restore", "a", cwd=project)
    collect(git, project)

    assert done.code == 0, done.err
    assert "by-hand" in done.err
    assert git("rev-parse", "HEAD", cwd=path).strip() == tip
    assert git("status", "--porcelain", "--branch", cwd=path) == "## HEAD (no branch)\n"


# -- what of the trash is gone ---------------------------------------------------------------


def folder_of(git: Git, project: Path) -> Path:
    """The one folder in the trash."""
    (folder,) = (common_dir(git, project) / "khlone" / "trash").glob("*/*")
    return folder


@pytest.mark.parametrize("part", ["worktree", "."])
def test_without_its_folder_it_comes_from_the_snapshot_and_says_what_is_missing(
    khlone: Khlone, git: Git, commit: Commit, project: Path, part: str
) -> None:
    path = new(khlone, project, "a")
    tip = commit(path, {"one.txt": "1\n"}, "one")
    write(path, {"notes.txt": "staged\n"})
    git("add", "-A", cwd=path)
    write(path, {"notes.txt": "changed\n", "new/file.txt": "new\n", "kept.log": "ignored\n"})
    (path / "src/app.txt").unlink()
    status = git("status", "--porcelain", cwd=path)
    before = tree(path)
    removed(khlone, project, "a")
    shutil.rmtree(folder_of(git, project) / part)
    collect(git, project)

    done = khlone("restore", "a", cwd=project)

    assert done.code == 0, done.err
    assert "ignored files" in done.err
    assert done.out.splitlines()[-1] == str(path)
    assert {**tree(path), "kept.log": before["kept.log"]} == before
    assert git("rev-parse", "HEAD", cwd=path).strip() == tip
    assert git("branch", "--show-current", cwd=path).strip() == "a"
    assert git("status", "--porcelain", cwd=path) == (status if part == "worktree" else status.replace("MM", " M"))
    assert show(khlone, project, "a")["state"] == "ready"
    assert khlone("doctor", cwd=project).code == 0


def test_a_detached_commit_comes_back_without_its_folder(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    dropped = commit(path, {"dropped.txt": "dropped\n"}, "dropped")
    git("checkout", "-q", "--detach", "HEAD~1", cwd=path)
    git("update-ref", "refs/heads/a", "HEAD", cwd=path)
    loose = commit(path, {"loose.txt": "loose\n"}, "loose")
    removed(khlone, project, "a")
    shutil.rmtree(folder_of(git, project))

    restored(khlone, project, "a")
    collect(git, project)

    assert git("rev-parse", "HEAD", cwd=path).strip() == loose
    assert git("status", "--porcelain", cwd=path) == ""
    assert git("show", f"{dropped}:dropped.txt", cwd=project) == "dropped\n"


@pytest.mark.parametrize("damage", ["admin-gone", "index", "head", "commondir"])
def test_a_worktree_that_is_there_comes_back_whole_whatever_its_admin_folder_is_like(
    khlone: Khlone, git: Git, commit: Commit, project: Path, damage: str
) -> None:
    path = new(khlone, project, "a")
    fill(git, commit, path)
    before = tree(path)
    removed(khlone, project, "a")
    admin = folder_of(git, project) / "admin"
    if damage == "admin-gone":
        shutil.rmtree(admin)
    else:
        (admin / {"index": "index", "head": "HEAD", "commondir": "commondir"}[damage]).write_bytes(b"")

    done = khlone("restore", "a", cwd=project)

    assert done.code == 0, done.err
    assert tree(path) == before
    assert "built anew" in done.err or "index" in done.err
    assert git("branch", "--show-current", cwd=path).strip() == "a"
    assert git("diff", "--cached", "--name-only", cwd=path) == ""
    assert khlone("doctor", cwd=project).code == 0


def test_a_clone_that_was_removed_without_its_worktree_comes_back_as_staged(
    khlone: Khlone, git: Git, project: Path
) -> None:
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "staged\n"})
    git("add", "-A", cwd=path)
    shutil.rmtree(path)
    removed(khlone, project, "a")
    collect(git, project)

    restored(khlone, project, "a")

    assert (path / "notes.txt").read_text() == "staged\n"
    assert git("status", "--porcelain", cwd=path) == "M  notes.txt\n"


KILL = """#!/bin/sh
for word in "$@"; do
  if [ "$word" = {verb} ] && [ ! -e {done} ]; then : > {done}; kill -9 $PPID; exit 1; fi
done
exec {real} "$@"
"""


@pytest.mark.parametrize(
    ("part", "verb"), [(".", "read-tree"), (".", "checkout-index"), ("worktree", "read-tree"), ("admin", "reset")]
)
def test_a_kill_while_the_missing_half_is_built_loses_nothing(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, part: str, verb: str
) -> None:
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "changed\n", "new.txt": "new\n"})
    before, status = tree(path), git("status", "--porcelain", cwd=path)
    removed(khlone, project, "a")
    shutil.rmtree(folder_of(git, project) / part)
    shim, marker = tmp_path / "bin" / "git", tmp_path / "killed"
    write(shim.parent, {"git": KILL.format(verb=verb, done=marker, real=shutil.which("git"))})
    shim.chmod(0o755)

    killed = khlone("restore", "a", cwd=project, env={"PATH": f"{shim.parent}:{os.environ['PATH']}"})
    healed = khlone("doctor", "--fix", "--json", cwd=project)

    assert (killed.code, marker.exists()) == (-9, True)
    assert healed.code == 0, healed.out
    assert tree(path) == before
    assert git("status", "--porcelain", cwd=path) == status
    assert clone_names(khlone, project) == ["a"]


# -- submodules ------------------------------------------------------------------------------


@pytest.fixture
def with_submodule(khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path) -> Path:
    """A clone with a submodule that is checked out."""
    inner = tmp_path / "inner"
    git("init", "-q", str(inner), cwd=tmp_path)
    commit(inner, {"inner.txt": "inner\n"}, "inner")
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "libs/inner", cwd=project)
    git("commit", "-q", "-m", "submodule", cwd=project)
    path = new(khlone, project, "a")
    git("-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init", cwd=path)
    return path


@pytest.mark.parametrize("kind", ["modified", "untracked", "committed"])
def test_work_in_a_submodule_is_a_reason_to_refuse(
    khlone: Khlone, git: Git, commit: Commit, project: Path, with_submodule: Path, kind: str
) -> None:
    inner = with_submodule / "libs/inner"
    if kind == "committed":
        commit(inner, {"more.txt": "more\n"}, "more")
    else:
        write(inner, {"inner.txt" if kind == "modified" else "new.txt": "mine\n"})

    found = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)

    assert [one["code"] for one in found["kept"]] == ["has-changes"]


def test_a_clean_submodule_is_no_reason(khlone: Khlone, project: Path, with_submodule: Path) -> None:
    found = document(khlone("remove", "a", "--json", cwd=project), "remove")

    assert [one["name"] for one in found["removed"]] == ["a"]
    assert not with_submodule.exists()


@pytest.mark.parametrize("taken", [False, True])
def test_a_submodule_comes_back_with_its_commits_and_changes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, with_submodule: Path, taken: bool
) -> None:
    inner = with_submodule / "libs/inner"
    tip = commit(inner, {"more.txt": "more\n"}, "more")
    write(inner, {"inner.txt": "mine\n", "new.txt": "new\n"})
    files, status = tree(with_submodule), git("status", "--porcelain", cwd=with_submodule)
    removed(khlone, project, "a")
    if taken:
        new(khlone, project, "a")

    path = Path(restored(khlone, project, trash(khlone, project)[0]["trash"])["path"])

    assert (path == with_submodule) is not taken
    assert tree(path) == files
    assert git("status", "--porcelain", cwd=path) == status
    assert git("rev-parse", "HEAD", cwd=path / "libs/inner").strip() == tip
    assert git("rev-parse", "--show-toplevel", cwd=path / "libs/inner").strip() == str(path / "libs/inner")
