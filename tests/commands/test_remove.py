"""`remove` and `trash`: a clone leaves only where nobody is surprised, and nothing of it is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from khlone import files
from tests.commands.steps import (
    NOTES,
    branches,
    clone_names,
    common_dir,
    document,
    edited,
    footprint,
    new,
    refused,
    show,
    trash,
    tree,
)
from tests.support import KHLONE, Commit, Git, Khlone, write

Change = Callable[[Git, Commit, Path], object]


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts a process that works in a folder; ends those it started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> subprocess.Popen[bytes]:
        script = "import sys, time; print(flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def remove(khlone: Khlone, where: Path, *arguments: str, code: int = 0) -> dict[str, list[dict[str, object]]]:
    """The document of `remove`, in its exact shape."""
    found = document(khlone("remove", *arguments, "--json", cwd=where), "remove", code)
    assert list(found) == ["schema", "removed", "kept"]
    assert all(list(one) == ["name", "trash", "branch_deleted"] for one in found["removed"])
    assert all(list(one) == ["name", "code", "message"] for one in found["kept"])
    return {"removed": found["removed"], "kept": found["kept"]}


def codes(found: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    """The code of each clone that was kept."""
    return {one["name"]: one["code"] for one in found["kept"]}


# -- refusals ------------------------------------------------------------------------------


def _stash(git: Git, _: Commit, path: Path) -> None:
    write(path, {"notes.txt": "stashed\n"})
    git("stash", "push", "-q", cwd=path)


def _detach(git: Git, commit: Commit, path: Path) -> None:
    git("checkout", "-q", "--detach", cwd=path)
    commit(path, {"loose.txt": "loose\n"}, "loose")


def _elsewhere(git: Git, commit: Commit, path: Path) -> None:
    git("switch", "-q", "-c", "made-by-hand", cwd=path)
    commit(path, {"loose.txt": "loose\n"}, "loose")


def _conflict(git: Git, commit: Commit, path: Path) -> None:
    git("branch", "other", cwd=path)
    commit(path, {"notes.txt": edited(NOTES, 1, "one")}, "one")
    git("switch", "-q", "other", cwd=path)
    commit(path, {"notes.txt": edited(NOTES, 1, "two")}, "two")
    git("switch", "-q", "a", cwd=path)
    git("merge", "-q", "other", cwd=path, check=False)


def put(path: Path, content: Mapping[str, str]) -> Path:
    """Write files, as an expression."""
    write(path, content)
    return path


CHANGES: dict[str, tuple[str, Change]] = {
    "unstaged": ("has-changes", lambda git, commit, path: put(path, {"notes.txt": "changed\n"})),
    "deleted": ("has-changes", lambda git, commit, path: (path / "notes.txt").unlink()),
    "mode": ("has-changes", lambda git, commit, path: (path / "notes.txt").chmod(0o755)),
    "staged": (
        "has-changes",
        lambda git, commit, path: (put(path, {"notes.txt": "changed\n"}), git("add", "-A", cwd=path)),
    ),
    "staged-back": (
        "has-changes",
        lambda git, commit, path: (
            put(path, {"notes.txt": "changed\n"}),
            git("add", "-A", cwd=path),
            put(path, {"notes.txt": NOTES}),
        ),
    ),
    "untracked": ("has-changes", lambda git, commit, path: put(path, {"deep/er/new.txt": "new\n"})),
    "nested": ("has-changes", lambda git, commit, path: git("init", "-q", "nested", cwd=path)),
    "unmerged": ("has-changes", _conflict),
    "stash": ("has-changes", _stash),
    "commits": ("not-integrated", lambda git, commit, path: commit(path, {"one.txt": "1\n"}, "one")),
    "detached": ("not-integrated", _detach),
    "other-branch": ("not-integrated", _elsewhere),
    "renamed-branch": (
        "not-integrated",
        lambda git, commit, path: (commit(path, {"one.txt": "1\n"}, "one"), git("branch", "-m", "renamed", cwd=path)),
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_work_that_no_target_has_is_a_reason_to_refuse_and_nothing_is_changed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, kind: str
) -> None:
    path = new(khlone, project, "a")
    code, change = CHANGES[kind]
    change(git, commit, path)
    before = footprint(git, project), tree(path), git("status", "--porcelain", cwd=path)

    found = remove(khlone, project, "a", code=1)

    assert (found["removed"], codes(found)) == ([], {"a": code})
    assert (footprint(git, project), tree(path), git("status", "--porcelain", cwd=path)) == before
    assert clone_names(khlone, project) == ["a"]
    assert trash(khlone, project) == []


@pytest.mark.parametrize("kind", CHANGES)
def test_force_consents_to_each_of_them_and_every_ref_but_the_clones_own_stays(
    khlone: Khlone, git: Git, commit: Commit, project: Path, kind: str
) -> None:
    path = new(khlone, project, "a")
    CHANGES[kind][1](git, commit, path)
    before, files_before = branches(git, project), tree(path)

    found = remove(khlone, project, "--force", "a")

    after = branches(git, project)
    assert [one["name"] for one in found["removed"]] == ["a"]
    assert not path.exists()
    assert before.items() - after.items() <= {("a", before.get("a"))}
    assert found["removed"][0]["branch_deleted"] is ("a" in before and "a" not in after)
    assert tree(_trashed(git, project) / "worktree") == files_before


def _trashed(git: Git, project: Path) -> Path:
    """The one folder in the trash."""
    (folder,) = (common_dir(git, project) / "khlone" / "trash").glob("*/*")
    return folder


def test_a_stash_of_another_branch_is_no_reason(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    other = new(khlone, project, "a-b")
    write(other, {"notes.txt": "stashed\n"})
    git("stash", "push", "-q", "-m", "On a: not really", cwd=other)

    assert remove(khlone, project, "a")["kept"] == []
    assert codes(remove(khlone, project, "a-b", code=1)) == {"a-b": "has-changes"}


def test_the_message_names_the_paths_and_the_hint_the_flag(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"mine.txt": "mine\n"})

    done = khlone("remove", "a", cwd=project)

    assert (done.code, done.out) == (1, "")
    assert "mine.txt" in done.err
    assert "--force" in done.err


def test_names_of_files_are_escaped_for_the_terminal(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"bad\x1b[2J.txt": "mine\n", "ign\x1b[2J.log": "ignored\n"})

    kept, gone = khlone("remove", "a", cwd=project), khlone("remove", "--force", "a", cwd=project)

    assert (kept.code, gone.code) == (1, 0)
    assert "\x1b" not in kept.err + gone.err
    assert all(r"\x1b[2J" in done.err for done in (kept, gone))


def test_the_text_says_what_went_and_how_it_comes_back(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")

    dry, done = khlone("remove", "--dry-run", "a", cwd=project), khlone("remove", "a", cwd=project)

    assert "a would go to the trash" in dry.out
    assert "restore" not in dry.out
    assert khlone("restore", done.out.split()[-1], cwd=project).code == 0


def test_a_live_process_inside_is_a_reason_to_refuse(
    khlone: Khlone, git: Git, project: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    path = new(khlone, project, "a")
    process = sleeper(path / "src")
    before = footprint(git, project)

    found = remove(khlone, project, "a", code=1)

    assert codes(found) == {"a": "session-live"}
    assert str(process.pid) in str(found["kept"][0]["message"])
    assert process.poll() is None
    assert footprint(git, project) == before


def test_a_process_beside_the_clone_is_no_reason(
    khlone: Khlone, project: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    path = new(khlone, project, "a")
    near = path.with_name("a-and-more")
    near.mkdir()
    process = sleeper(near)

    found = remove(khlone, project, "--force", "a")

    assert found["kept"] == []
    assert process.poll() is None


def test_force_ends_the_processes_inside(
    khlone: Khlone, project: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    path = new(khlone, project, "a")
    process = sleeper(path)

    found = remove(khlone, project, "--force", "a")

    assert found["kept"] == []
    assert process.wait(timeout=60) != 0


def test_a_dry_run_with_force_ends_no_process(
    khlone: Khlone, git: Git, project: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = sleeper(new(khlone, project, "a"))
    before = footprint(git, project)

    found = remove(khlone, project, "--force", "--dry-run", "a")

    assert [one["name"] for one in found["removed"]] == ["a"]
    assert process.poll() is None
    assert footprint(git, project) == before


def test_a_session_of_another_host_ends_no_process_of_the_same_number_here(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    clone = show(khlone, project, str(new(khlone, project, "a").name))
    process = sleeper(tmp_path)
    registry = common_dir(git, project) / "khlone" / "registry.sqlite3"
    script = (
        "INSERT INTO sessions (id, clone, pid, host, state, command, started_at)"
        " VALUES ('s', ?, ?, 'elsewhere', 'running', '[]', '2020')"
    )
    _execute(registry, script, (clone["id"], process.pid))

    kept = remove(khlone, project, "a", code=1)
    forced = remove(khlone, project, "--force", "a")

    assert codes(kept) == {"a": "session-live"}
    assert "elsewhere" in str(kept["kept"][0]["message"])
    assert forced["kept"] == []
    assert process.poll() is None


def _execute(registry: Path, statement: str, values: tuple[object, ...] = ()) -> None:
    import sqlite3

    connection = sqlite3.connect(registry)
    with connection:
        connection.execute(statement, values)
    connection.close()


# -- ignored files -------------------------------------------------------------------------


def test_ignored_files_are_no_reason_and_are_told_and_kept(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    write(path, {"secret.log": "secret\n", "src/more.log": "more\n"})

    done = khlone("remove", "a", cwd=project)

    assert done.code == 0, done.err
    assert "secret.log (4 KiB)" in done.err
    folder = _trashed(git, project)
    assert (folder / "worktree/secret.log").read_text() == "secret\n"
    (entry,) = trash(khlone, project)
    assert entry["holds"]["ignored"] == 2


def test_ignored_files_are_told_with_what_each_takes_and_a_big_folder_is_not_counted_to_its_end(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    commit(project, {".gitignore": "*.log\ndeps/\ndata/\n"}, "ignored")
    path = new(khlone, project, "a")
    write(path, {"app.log": b"x" * 3_000_000, "data/rows.db": b"x" * 5_000_000, **{f"z{n}.log": "" for n in range(4)}})
    deps = path / "deps"
    deps.mkdir()
    for number in range(6000):
        (deps / f"{number}").symlink_to("nowhere")

    dry = khlone("remove", "--dry-run", "a", cwd=project).err
    done = khlone("remove", "a", cwd=project).err

    for told in (dry, done):
        (line,) = [line for line in told.splitlines() if "the ignored files of a stay with it in the trash" in line]
        assert "app.log (3 MiB), data/ (5 MiB), deps/ (more than " in line
        assert line.endswith("and 2 more")
    assert len(list((_trashed(git, project) / "worktree" / "deps").iterdir())) == 6000


def test_stashes_of_the_branch_are_named_when_it_is_refused_and_when_it_goes(
    khlone: Khlone, git: Git, project: Path
) -> None:
    path = new(khlone, project, "a")
    for number in range(2):
        write(path, {"notes.txt": f"stashed {number}\n"})
        git("stash", "push", "-q", "-m", f"idea {number}", cwd=path)
    write(project, {"notes.txt": "mine\n"})
    git("stash", "push", "-q", "-m", "not of the clone", cwd=project)
    stashes = git("stash", "list", cwd=project)

    refusal = khlone("remove", "a", cwd=project)
    forced = khlone("remove", "--force", "a", cwd=project)

    assert (refusal.code, forced.code) == (1, 0)
    assert "2 stashes of its branch (stash@{1}: On a: idea 1, stash@{2}: On a: idea 0)" in refusal.err
    assert "git stash pop stash@{1} in it" in refusal.err
    assert "stash@{1}: On a: idea 1, stash@{2}: On a: idea 0" in forced.err
    assert "not of the clone" not in refusal.err + forced.err
    assert git("stash", "list", cwd=project) == stashes
    git("gc", "-q", "--prune=now", cwd=project)
    assert git("show", "stash@{1}:notes.txt", cwd=project) == "stashed 1\n"


# -- the branch ----------------------------------------------------------------------------


def _rename_by_squash(git: Git, commit: Commit, project: Path, path: Path) -> None:
    """The branch's two commits land as one, and the target then edits the same lines."""
    commit(path, {"notes.txt": edited(NOTES, 5, "five")}, "five")
    commit(path, {"notes.txt": edited(edited(NOTES, 5, "five"), 6, "six")}, "six")
    git("merge", "-q", "--squash", "a", cwd=project)
    git("commit", "-q", "-m", "squashed", cwd=project)
    commit(project, {"notes.txt": edited(edited(NOTES, 5, "other"), 6, "other")}, "after")


def _ancestor(git: Git, commit: Commit, project: Path, path: Path) -> None:
    commit(path, {"one.txt": "1\n"}, "one")
    git("merge", "-q", "--no-ff", "-m", "merged", "a", cwd=project)
    commit(project, {"more.txt": "more\n"}, "more")


def _same_tree(git: Git, commit: Commit, project: Path, path: Path) -> None:
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"two.txt": "2\n"}, "two")
    commit(project, {"two.txt": "2\n", "one.txt": "1\n"}, "the same in one")


def _empty_difference(git: Git, commit: Commit, project: Path, path: Path) -> None:
    commit(path, {"notes.txt": edited(NOTES, 5, "five")}, "there")
    commit(path, {"notes.txt": NOTES}, "and back")
    commit(project, {"notes.txt": edited(NOTES, 5, "other")}, "in the same place")


def _each_patch(git: Git, commit: Commit, project: Path, path: Path) -> None:
    """Each commit is picked, another one of the target's between them, and the last lines change again."""
    commit(path, {"notes.txt": edited(NOTES, 5, "five")}, "five")
    commit(path, {"src/app.txt": edited(NOTES, 6, "six")}, "six")
    git("cherry-pick", "a~1", cwd=project)
    commit(project, {"notes.txt": edited(edited(NOTES, 5, "five"), 15, "fifteen")}, "between")
    git("cherry-pick", "a", cwd=project)
    commit(project, {"notes.txt": edited(NOTES, 5, "other"), "src/app.txt": edited(NOTES, 6, "other")}, "after")


def _adds_nothing(git: Git, commit: Commit, project: Path, path: Path) -> None:
    """The target has all of it and more in the same file, in commits cut otherwise."""
    commit(path, {"notes.txt": edited(NOTES, 2, "two")}, "two")
    commit(path, {"notes.txt": edited(edited(NOTES, 2, "two"), 15, "fifteen")}, "fifteen")
    whole = edited(edited(edited(NOTES, 2, "two"), 15, "fifteen"), 9, "nine")
    commit(project, {"notes.txt": whole}, "all of it and nine")


def _upstream(git: Git, commit: Commit, project: Path, path: Path) -> None:
    """What landed was pushed elsewhere; here the target is behind its upstream."""
    commit(path, {"one.txt": "1\n"}, "one")
    remote = project.parent / "remote.git"
    git("clone", "-q", "--bare", str(project), str(remote), cwd=project)
    git("remote", "add", "origin", str(remote), cwd=project)
    git("push", "-q", "origin", "a:main", cwd=project)
    git("fetch", "-q", "origin", cwd=project)
    git("branch", "-q", "--set-upstream-to=origin/main", "main", cwd=project)


PROOFS: dict[str, Callable[[Git, Commit, Path, Path], None]] = {
    "ancestor": _ancestor,
    "same-tree": _same_tree,
    "empty-difference": _empty_difference,
    "same-patch-squashed": _rename_by_squash,
    "same-patch-each": _each_patch,
    "merge-adds-nothing": _adds_nothing,
    "upstream": _upstream,
}


@pytest.mark.parametrize("proof", PROOFS)
def test_a_branch_whose_content_is_in_the_target_goes_with_its_clone(
    khlone: Khlone, git: Git, commit: Commit, project: Path, proof: str
) -> None:
    path = new(khlone, project, "a")
    PROOFS[proof](git, commit, project, path)
    tip = branches(git, project)["a"]
    assert git("rev-list", "--count", "main..a", cwd=project).strip() != "0" or proof == "ancestor"

    found = remove(khlone, project, "a")

    assert [(one["name"], one["branch_deleted"]) for one in found["removed"]] == [("a", True)]
    assert "a" not in branches(git, project)
    (entry,) = trash(khlone, project)
    assert (entry["branch"], entry["oid"]) == ("a", tip)
    git("gc", "-q", "--prune=now", cwd=project)
    assert git("cat-file", "-t", tip, cwd=project).strip() == "commit"


@pytest.mark.parametrize("proof", PROOFS)
def test_one_commit_more_and_it_is_not_integrated(
    khlone: Khlone, git: Git, commit: Commit, project: Path, proof: str
) -> None:
    path = new(khlone, project, "a")
    PROOFS[proof](git, commit, project, path)
    tip = commit(path, {"late.txt": "late\n"}, "late")

    found = remove(khlone, project, "a", code=1)

    assert codes(found) == {"a": "not-integrated"}
    assert branches(git, project)["a"] == tip


def test_a_branch_with_commits_is_kept_and_named_when_forced(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    tip = commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")

    done = khlone("remove", "--force", "a", "--json", cwd=project)

    assert document(done, "remove")["removed"][0]["branch_deleted"] is False
    assert branches(git, project)["a"] == tip
    assert re.search(r"branch a is kept", done.err)


@pytest.mark.parametrize("merged", [True, False])
def test_a_branch_that_was_there_before_stays(
    khlone: Khlone, git: Git, commit: Commit, project: Path, merged: bool
) -> None:
    git("branch", "theirs", cwd=project)
    path = new(khlone, project, "a", "--branch", "theirs")
    tip = commit(path, {"one.txt": "1\n"}, "one")
    if merged:
        git("merge", "-q", "theirs", cwd=project)

    done = khlone("remove", *([] if merged else ["--force"]), "a", "--json", cwd=project)

    assert document(done, "remove")["removed"][0]["branch_deleted"] is False
    assert branches(git, project)["theirs"] == tip
    assert "branch theirs stays" in done.err


def test_a_branch_that_another_worktree_checked_out_meanwhile_stays(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path
) -> None:
    path = new(khlone, project, "a")
    git("switch", "-q", "--detach", cwd=path)
    git("worktree", "add", "-q", str(tmp_path / "other"), "a", cwd=project)

    found = remove(khlone, project, "a")

    assert found["removed"][0]["branch_deleted"] is False
    assert git("status", "--porcelain", cwd=tmp_path / "other") == ""


def test_a_commit_between_plan_and_move_keeps_the_branch(
    git: Git, khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")

    with stopped(project, "remove.reserved", "remove", "a"):
        tip = commit(path, {"late.txt": "late\n"}, "late")

    assert branches(git, project)["a"] == tip
    assert trash(khlone, project)[0]["name"] == "a"


# -- late writes, collections, full disks ----------------------------------------------------


@contextlib.contextmanager
def stopped(where: Path, point: str, *arguments: str) -> Iterator[None]:
    """The command waits at a fault point while the block runs, then it goes on and must succeed."""
    process = subprocess.Popen(
        [KHLONE, *arguments],
        cwd=where,
        env={**os.environ, "KHLONE_FAULT": f"{point}:stop"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended before the fault point"
        yield
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 0, process.stderr.read() if process.stderr else b""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("point", ["remove.reserved", "remove.snapshot", "remove.worktree-moved"])
def test_a_file_that_is_written_after_the_decision_is_in_the_trash(
    git: Git, khlone: Khlone, project: Path, point: str
) -> None:
    path = new(khlone, project, "a")
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    with stopped(project, point, "remove", "a"):
        late = os.open("late.txt", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=held)
        os.write(late, b"late\n")
        os.close(late)

    os.close(held)
    assert not path.exists()
    assert (_trashed(git, project) / "worktree/late.txt").read_bytes() == b"late\n"


SHIM = """#!/bin/sh
for word in "$@"; do
  if [ "$word" = {verb} ] && [ ! -e {done} ]; then
    : > {done}
    {real} --git-dir={common} prune --expire=now
    {also}
  fi
done
exec {real} "$@"
"""


@pytest.mark.parametrize("verb", ["write-tree", "commit-tree", "update-ref", "blob"])
def test_a_collection_in_the_middle_of_the_snapshot_takes_nothing_of_it(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, verb: str
) -> None:
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "changed\n", "new.txt": "new\n"})
    blob = git("hash-object", "new.txt", cwd=path).strip()
    common = common_dir(git, project)
    marker, real = tmp_path / "collected", shutil.which("git")
    shim = tmp_path / "bin" / "git"
    text = SHIM if verb != "blob" else SHIM.replace("prune --expire=now", "version > /dev/null")
    also = f"rm {common}/objects/{blob[:2]}/{blob[2:]}" if verb == "blob" else ":"
    write(shim.parent, {"git": text.format(verb=_stage(verb), done=marker, real=real, common=common, also=also)})
    shim.chmod(0o755)

    done = khlone("remove", "--force", "a", cwd=project, env={"PATH": f"{shim.parent}:{os.environ['PATH']}"})

    assert done.code == 0, done.err
    assert marker.exists()
    assert "warning" not in done.err
    (ref,) = git("for-each-ref", "--format=%(refname)", "refs/khlone/trash", cwd=project).split()
    assert git("show", f"{ref}:new.txt", cwd=project) == "new\n"
    assert git("show", f"{ref}:notes.txt", cwd=project) == "changed\n"
    git("fsck", "--connectivity-only", cwd=project)


def test_git_itself_makes_a_ref_at_a_commit_whose_file_is_gone(git: Git, project: Path) -> None:
    """The control: that the ref could be made says nothing about the snapshot."""
    blob = git("hash-object", "-w", "--stdin", cwd=project, input="gone\n").strip()
    tree_oid = git("mktree", cwd=project, input=f"100644 blob {blob}\tgone.txt\n").strip()
    oid = git("commit-tree", "-m", "snapshot", tree_oid, cwd=project).strip()
    (common_dir(git, project) / "objects" / blob[:2] / blob[2:]).unlink()

    git("update-ref", "refs/khlone/trash/x/y", oid, cwd=project)

    assert f"missing blob {blob}" in git("fsck", "--connectivity-only", cwd=project, check=False)


def _stage(verb: str) -> str:
    return "update-ref" if verb == "blob" else verb


@pytest.mark.parametrize("point", ["remove.reserved", "remove.snapshot"])
def test_a_full_disk_before_anything_moved_leaves_the_clone_as_it_was(
    khlone: Khlone, git: Git, project: Path, point: str
) -> None:
    path = new(khlone, project, "a")
    write(path, {"new.txt": "new\n"})
    before = footprint(git, project), tree(path)

    done = khlone("remove", "--force", "a", "--json", cwd=project, env={"KHLONE_FAULT": f"{point}:raise:ENOSPC"})

    assert {one["code"] for one in document(done, "remove", 1)["kept"]} == {"no-space"}
    assert (footprint(git, project), tree(path)) == before
    assert show(khlone, project, "a")["state"] == "ready"
    assert list((common_dir(git, project) / "khlone" / "trash").iterdir()) == []


def test_a_full_disk_at_the_very_end_is_completed_by_the_next_command(khlone: Khlone, git: Git, project: Path) -> None:
    write(new(khlone, project, "a"), {"new.txt": "new\n"})

    done = khlone("remove", "--force", "a", cwd=project, env={"KHLONE_FAULT": "remove.refs:raise:ENOSPC"})
    healed = khlone("doctor", "--fix", cwd=project)

    assert done.code == 1
    assert "a is half in the trash; the next command, or doctor --fix, goes on" in done.err
    assert healed.code == 0, healed.err
    assert [entry["name"] for entry in trash(khlone, project)] == ["a"]
    assert (_trashed(git, project) / "worktree/new.txt").exists()


def test_files_that_a_filter_cannot_take_are_in_the_snapshot_as_they_are(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    commit(project, {".gitattributes": "*.raw filter=broken\n"}, "attributes")
    path = new(khlone, project, "a")
    git("config", "filter.broken.clean", "false", cwd=project)
    git("config", "filter.broken.required", "true", cwd=project)
    git("config", "core.autocrlf", "input", cwd=project)
    git("config", "core.safecrlf", "true", cwd=project)
    write(path, {"one.raw": "raw\n", "two.txt": "two\r\n", "notes.txt": "changed\n"})

    remove(khlone, project, "--force", "a")

    (ref,) = git("for-each-ref", "--format=%(refname)", "refs/khlone/trash", cwd=project).split()
    held = {name: git("cat-file", "blob", f"{ref}:{name}", cwd=project) for name in ("one.raw", "notes.txt")}
    assert held == {"one.raw": "raw\n", "notes.txt": "changed\n"}
    assert "two" in git("cat-file", "blob", f"{ref}:two.txt", cwd=project)


# -- several, none, unknown ------------------------------------------------------------------


def test_a_refusal_keeps_one_and_the_rest_goes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    paths = {name: new(khlone, project, name) for name in ("a", "b", "c", "d", "e")}
    write(paths["b"], {"new.txt": "new\n"})
    commit(paths["c"], {"one.txt": "1\n"}, "one")
    sleeper(paths["d"])

    found = remove(khlone, project, "a", "b", "c", "d", "e", code=1)

    assert [one["name"] for one in found["removed"]] == ["a", "e"]
    assert codes(found) == {"b": "has-changes", "c": "not-integrated", "d": "session-live"}
    assert clone_names(khlone, project) == ["b", "c", "d"]


@pytest.mark.parametrize(("order", "code"), [(("busy", "dirty"), 75), (("dirty", "busy"), 1)])
def test_the_exit_code_is_that_of_the_first_that_was_kept(
    khlone: Khlone, project: Path, order: tuple[str, str], code: int
) -> None:
    write(new(khlone, project, "dirty"), {"new.txt": "new\n"})
    new(khlone, project, "busy")
    new(khlone, project, "free")

    with stopped(project, "remove.reserved", "remove", "busy"):
        found = remove(khlone, project, "free", *order, code=code)

    assert [one["name"] for one in found["removed"]] == ["free"]
    assert codes(found) == {"busy": "clone-busy", "dirty": "has-changes"}


def test_an_unknown_name_among_others_changes_nothing(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    found = refused(khlone("remove", "a", "nobody", "--json", cwd=project), "no-such-clone")

    assert found["facts"]["name"] == "nobody"
    assert footprint(git, project) == before


def test_a_name_given_twice_is_removed_once(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")

    found = remove(khlone, project, "a", "a")

    assert [one["name"] for one in found["removed"]] == ["a"]


def test_without_a_name_outside_of_a_clone_it_is_a_usage_error(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    assert khlone("remove", cwd=project).code == 2
    assert footprint(git, project) == before


@pytest.mark.parametrize("below", [".", "src"])
def test_inside_a_clone_the_clone_is_that_one(khlone: Khlone, git: Git, project: Path, below: str) -> None:
    path = new(khlone, project, "a")
    new(khlone, project, "b")

    done = khlone("remove", "--json", cwd=path / below)

    assert [one["name"] for one in document(done, "remove")["removed"]] == ["a"]
    assert clone_names(khlone, project) == ["b"]
    assert "a" not in branches(git, project)


def test_a_dry_run_says_the_same_and_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "a")
    commit(new(khlone, project, "b"), {"one.txt": "1\n"}, "one")
    write(path, {"kept.log": "ignored\n"})
    before = footprint(git, project), tree(path), sorted((common_dir(git, project) / "khlone").rglob("*"))

    found = remove(khlone, project, "--dry-run", "a", "b", code=1)

    assert [(one["name"], one["branch_deleted"]) for one in found["removed"]] == [("a", True)]
    assert codes(found) == {"b": "not-integrated"}
    assert (footprint(git, project), tree(path), sorted((common_dir(git, project) / "khlone").rglob("*"))) == before
    assert trash(khlone, project) == []


def test_clones_of_a_bare_repository_can_be_removed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(project), str(bare), cwd=project)
    path = new(khlone, bare, "a")
    new(khlone, bare, "b")
    write(path, {"notes.txt": "stashed\n"})
    git("stash", "push", "-q", cwd=path)

    found = remove(khlone, bare, "a", "b", code=1)

    assert codes(found) == {"a": "has-changes"}
    assert [one["name"] for one in found["removed"]] == ["b"]


# -- what is under way -----------------------------------------------------------------------


def test_a_rebase_that_has_stopped_with_a_clean_tree_is_named(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    assert khlone("merge", "a", cwd=project).code == 0
    git("-c", "sequence.editor=sed -i 1ibreak", "rebase", "-i", "HEAD~1", cwd=path)
    assert git("status", "--porcelain", cwd=path) == ""

    kept = remove(khlone, project, "a", code=1)
    told = khlone("remove", "a", cwd=project)
    pruned = khlone("prune", "--json", cwd=project).json()["kept"]

    assert codes(kept) == {"a": "has-changes"}
    assert "a rebase that is under way" in told.err
    assert f"finish or abort it in {path}" in told.err
    assert [one["code"] for one in pruned] == ["has-changes"]
    git("rebase", "--abort", cwd=path)
    assert codes(remove(khlone, project, "a")) == {}


def test_a_git_at_work_on_the_index_keeps_the_clone(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    lock = _admin(git, project) / "index.lock"
    lock.write_bytes(b"")

    kept = remove(khlone, project, "a", code=75)
    told = khlone("remove", "a", cwd=project)
    lock.unlink()

    assert codes(kept) == {"a": "clone-busy"}
    assert str(lock) in told.err
    assert "remove --force a" in told.err
    assert codes(remove(khlone, project, "a")) == {}


def test_an_index_that_stays_locked_is_no_matter_with_force(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    (_admin(git, project) / "index.lock").write_bytes(b"")

    assert [one["name"] for one in remove(khlone, project, "a", "--force")["removed"]] == ["a"]


def test_commits_on_a_detached_head_are_named_with_and_without_force(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "on the branch")
    git("switch", "-q", "--detach", cwd=path)
    beside = commit(path, {"two.txt": "2\n"}, "beside it")

    kept = khlone("remove", "a", cwd=project)
    gone = khlone("remove", "a", "--force", cwd=project)

    assert (kept.code, gone.code) == (1, 0)
    for done in (kept, gone):
        assert f"detached HEAD at {beside[:10]}" in done.err
        assert "1 commit that its branch lacks" in done.err
    assert khlone("restore", "a", cwd=project).code == 0
    assert git("rev-parse", "HEAD", cwd=path).strip() == beside


# -- broken clones ---------------------------------------------------------------------------


def _without_worktree(git: Git, project: Path, path: Path) -> None:
    shutil.rmtree(path)


def _admin(git: Git, project: Path) -> Path:
    (admin,) = (common_dir(git, project) / "worktrees").iterdir()
    return admin


def _without_both(git: Git, project: Path, path: Path) -> None:
    shutil.rmtree(_admin(git, project))
    shutil.rmtree(path)


BROKEN: dict[str, Callable[[Git, Path, Path], object]] = {
    "worktree-gone": _without_worktree,
    "admin-gone": lambda git, project, path: shutil.rmtree(_admin(git, project)),
    "both-gone": _without_both,
    "index-damaged": lambda git, project, path: (_admin(git, project) / "index").write_bytes(b"damaged"),
    "commondir-empty": lambda git, project, path: (_admin(git, project) / "commondir").write_bytes(b""),
    "head-null": lambda git, project, path: (_admin(git, project) / "HEAD").write_text("0" * 40 + "\n"),
    "branch-gone": lambda git, project, path: git("update-ref", "-d", "refs/heads/a", cwd=project),
    "link-gone": lambda git, project, path: (path / ".git").unlink(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_clone_can_be_removed_by_force_and_what_is_left_of_it_is_kept(
    khlone: Khlone, git: Git, project: Path, kind: str
) -> None:
    path = new(khlone, project, "a")
    write(path, {"new.txt": "new\n", "kept.log": "ignored\n"})
    BROKEN[kind](git, project, path)

    found = remove(khlone, project, "--force", "a")

    assert [one["name"] for one in found["removed"]] == ["a"]
    assert clone_names(khlone, project) == []
    git("worktree", "list", cwd=project)
    if "gone" not in kind or kind in ("admin-gone", "branch-gone"):
        assert (_trashed(git, project) / "worktree/kept.log").read_text() == "ignored\n"
        (ref,) = git("for-each-ref", "--format=%(refname)", "refs/khlone/trash", cwd=project).split()
        assert git("show", f"{ref}:new.txt", cwd=project) == "new\n"
    if kind == "link-gone":
        assert (path / "new.txt").read_text() == "new\n"


@pytest.mark.parametrize("kind", ["admin-gone", "index-damaged", "commondir-empty", "head-null", "link-gone"])
def test_what_cannot_be_judged_is_not_removed_without_force(khlone: Khlone, git: Git, project: Path, kind: str) -> None:
    path = new(khlone, project, "a")
    BROKEN[kind](git, project, path)
    before = tree(path), tree(common_dir(git, project) / "worktrees"), (path / ".git").exists()

    found = remove(khlone, project, "a", code=1)

    assert codes(found) == {"a": "clone-not-ready"}
    assert (tree(path), tree(common_dir(git, project) / "worktrees"), (path / ".git").exists()) == before
    assert trash(khlone, project) == []


@pytest.mark.parametrize(("staged", "code"), [(False, "clone-not-ready"), (True, "has-changes")])
def test_a_clone_whose_worktree_is_gone_stays_without_force_since_that_may_have_been_moved(
    khlone: Khlone, git: Git, project: Path, staged: bool, code: str
) -> None:
    path = new(khlone, project, "a")
    if staged:
        write(path, {"notes.txt": "staged\n"})
        git("add", "-A", cwd=path)
    shutil.rmtree(path)

    kept = remove(khlone, project, "a", code=1)
    gone = remove(khlone, project, "a", "--force")

    assert codes(kept) == {"a": code}
    assert [one["name"] for one in gone["removed"]] == ["a"]
    assert khlone("restore", "a", cwd=project).code == 0


def test_a_clone_that_git_itself_has_removed_goes_without_force(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    git("worktree", "remove", "-f", "-f", str(path), cwd=project)

    assert codes(remove(khlone, project, "a")) == {}


# -- the trash -------------------------------------------------------------------------------


def test_the_trash_shows_the_newest_first_with_what_it_holds(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    first = new(khlone, project, "a")
    tip = commit(first, {"one.txt": "1\n"}, "one")
    write(first, {"u1.txt": "u\n", "folder/u2.txt": "u\n", "big.log": b"x" * 300_000, "folder/two.log": "i\n"})
    id_a = remove(khlone, project, "--force", "a")["removed"][0]["trash"]
    new(khlone, project, "b")
    id_b = remove(khlone, project, "b")["removed"][0]["trash"]

    found = document(khlone("trash", "--json", cwd=project), "trash")

    assert list(found) == ["schema", "entries"]
    fields = ["trash", "name", "branch", "oid", "removed_at", "bytes", "holds"]
    assert [list(entry) for entry in found["entries"]] == [fields] * 2
    newest, oldest = found["entries"]
    assert (newest["trash"], newest["name"], oldest["trash"], oldest["name"]) == (id_b, "b", id_a, "a")
    assert (oldest["branch"], oldest["oid"]) == ("a", tip)
    tracked = len(git("ls-tree", "-r", "--name-only", tip, cwd=project).splitlines())
    assert oldest["holds"] == {"tracked": tracked, "untracked": 2, "ignored": 2}
    assert oldest["bytes"] > 300_000 > newest["bytes"] > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", newest["removed_at"])
    assert newest["removed_at"] > oldest["removed_at"]


def test_the_trash_is_empty_at_first_and_makes_nothing(khlone: Khlone, git: Git, project: Path) -> None:
    before = sorted(path.name for path in common_dir(git, project).iterdir())

    done = khlone("trash", cwd=project)

    assert (done.code, done.out) == (0, "")
    assert trash(khlone, project) == []
    assert sorted(path.name for path in common_dir(git, project).iterdir()) == before


def test_the_text_of_the_trash_names_id_and_clone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    entry = remove(khlone, project, "a")["removed"][0]["trash"]

    done = khlone("trash", cwd=project)

    assert str(entry) in done.out
    assert " a " in done.out


def test_the_trash_is_private(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")

    remove(khlone, project, "a")

    folder = _trashed(git, project)
    for place in (folder, folder.parent, folder.parent.parent, folder.parent.parent.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


# -- a trash on another file system ----------------------------------------------------------


def _special(folder: Path) -> None:
    write(folder, {"plain.txt": "plain\n", "deep/er/two.txt": "two\n", "secret": "s\n", "script": "#!/bin/sh\n"})
    (folder / "secret").chmod(0o600)
    (folder / "script").chmod(0o755)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("plain.txt")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "linked-folder").symlink_to("deep")
    os.mkfifo(folder / "pipe", 0o640)
    (folder / "deep/er").chmod(0o500)


def test_a_tree_moved_over_a_mount_border_is_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = tmp_path / "one/tree", tmp_path / "two/tree"
    source.mkdir(parents=True)
    destination.parent.mkdir()
    _special(source)
    before = tree(source)
    rename = os.rename

    def across(old: Path, new_name: Path) -> None:
        if Path(old).parent != Path(new_name).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(old, new_name)

    monkeypatch.setattr(os, "rename", across)

    files.move_tree(source, destination, aside=source.with_name(".aside"))

    assert tree(destination) == before
    assert sorted(os.listdir(source.parent)) == []
    assert sorted(os.listdir(destination.parent)) == ["tree"]


@pytest.mark.needs_root
def test_a_trash_on_another_file_system_holds_and_gives_back_everything(
    khlone: Khlone, git: Git, project: Path
) -> None:
    path = new(khlone, project, "a")
    _special(path)
    before = tree(path)
    place = common_dir(git, project) / "khlone" / "trash"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", place], check=True)
    try:
        found = remove(khlone, project, "--force", "a")
        trashed = tree(_trashed(git, project) / "worktree")
        done = khlone("restore", "a", cwd=project)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)

    assert found["kept"] == []
    assert trashed == before
    assert done.code == 0, done.err
    assert tree(path) == before
