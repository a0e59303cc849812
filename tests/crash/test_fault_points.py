"""Killed at every named fault point, what is left is whole again after one recovery.

The control is in each test: before recovery runs, the same checks must see the damage.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from khlone import faults
from tests.crash.points import OUTSIDE
from tests.remotes.forge import fake_forge
from tests.sandbox import Sandbox

KILLED = -9
CREATE = [name for name in faults.POINTS if name.startswith("create.") and "undo" not in name]
UNDO = [name for name in faults.POINTS if name.startswith("create.undo")]
MERGE = [name for name in faults.POINTS if name.startswith("merge.") and name != "merge.recover-restored"]
#: Killed in tests/commands/test_queue_push.py, where there is a remote.
QUEUE_PUSH = [name for name in faults.POINTS if name.startswith("queue.push")]
QUEUE = [name for name in faults.POINTS if name.startswith("queue.") and name not in QUEUE_PUSH]
LANDING = [name for name in faults.POINTS if name.startswith("landing.")]
REMOVE = [name for name in faults.POINTS if name.startswith("remove.")]
RESTORE = [name for name in faults.POINTS if name.startswith("restore.")]
ADOPT = [name for name in faults.POINTS if name.startswith("adopt.") and name != "adopt.undo"]
RENAME = [name for name in faults.POINTS if name.startswith("rename.")]
#: Killed in tests/commands/test_sync_conflict.py, where there is a conflict.
SYNC_CONFLICT = [name for name in faults.POINTS if name.startswith("sync.conflict")]
SYNC = [name for name in faults.POINTS if name.startswith("sync.") and name not in SYNC_CONFLICT]
PURGE = [name for name in faults.POINTS if name.startswith("purge.")]
TAKE_BACK = [name for name in faults.POINTS if name.startswith("undo.")]
PUSH = [name for name in faults.POINTS if name.startswith("push.")]
PROPOSE = [name for name in faults.POINTS if name.startswith("pr.")]
PULL = [name for name in faults.POINTS if name.startswith("pull.")]
FETCH = [name for name in faults.POINTS if name.startswith("fetch.")]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A repository to be killed in."""
    box = Sandbox(tmp_path)
    box.create()
    return box


def kill_at(box: Sandbox, point: str, *arguments: str) -> None:
    """Run the command until it kills itself at the point, and check that the damage is seen."""
    done = box.khlone(*arguments, KHLONE_FAULT=point)
    assert done.code == KILLED, f"{point} was not reached: {done}"
    if point not in OUTSIDE:
        assert box.open_operations(), f"{point} lies outside the operation"
        assert box.violations(), f"the checks do not see what a kill at {point} leaves"


def recovered(box: Sandbox) -> None:
    """One recovery, after which every promise holds."""
    done = box.khlone("doctor", "--fix")
    assert done.code == 0, done
    assert box.violations() == []


@pytest.mark.parametrize("point", CREATE)
def test_a_killed_create_leaves_no_trace_or_a_ready_clone(sandbox: Sandbox, point: str) -> None:
    before = sandbox.git("for-each-ref")

    kill_at(sandbox, point, "new", "one")
    recovered(sandbox)

    if point in ("create.ready", "create.finished"):
        assert sandbox.khlone("show", "one").code == 0
    else:
        assert sandbox.git("for-each-ref") == before
        assert not sandbox.clone_path("one").exists()
        assert sandbox.khlone("new", "one").code == 0
    assert sandbox.violations() == []


@pytest.mark.parametrize("point", UNDO)
def test_a_killed_recovery_is_finished_by_the_next(sandbox: Sandbox, point: str) -> None:
    kill_at(sandbox, "create.checked-out", "new", "one")

    assert sandbox.khlone("doctor", "--fix", KHLONE_FAULT=point).code == KILLED
    assert sandbox.open_operations()

    recovered(sandbox)
    assert sandbox.khlone("new", "one").code == 0


@pytest.mark.parametrize("point", [name for name in CREATE if name not in ("create.ready", "create.finished")])
def test_a_full_disk_during_create_is_told_and_leaves_no_trace(sandbox: Sandbox, point: str) -> None:
    before = sandbox.git("for-each-ref")

    done = sandbox.khlone("new", "one", "--json", KHLONE_FAULT=f"{point}:raise:ENOSPC")

    assert done.code == 1
    assert done.json()["code"] == "no-space"
    assert sandbox.violations() == []
    assert sandbox.git("for-each-ref") == before


@pytest.mark.parametrize(
    "point", ["merge.publishing", "merge.published", "remove.snapshot", "remove.admin-moved", "restore.worktree"]
)
def test_a_full_disk_in_the_other_operations_is_told_and_mended(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/new.txt": "new\n"})
    sandbox.commit(sandbox.clone_path("one"), "work")
    verb = point.split(".")[0]
    if verb == "restore":
        sandbox.khlone("remove", "--force", "one")
    arguments = [verb, "--force", "one"] if verb == "remove" else [verb, "one"]

    done = sandbox.khlone(*arguments, "--json", KHLONE_FAULT=f"{point}:raise:ENOSPC")

    assert done.code == 1
    assert "no-space" in done.out
    recovered(sandbox)


def test_work_found_in_a_half_made_clone_is_kept(sandbox: Sandbox) -> None:
    kill_at(sandbox, "create.checked-out", "new", "one")
    (sandbox.clone_path("one") / "thoughts.txt").write_text("precious\n")

    done = sandbox.khlone("doctor", "--fix")

    assert done.code == 0, done
    kept = list((sandbox.common_dir / "khlone" / "quarantine").glob("*/thoughts.txt"))
    assert [path.read_text() for path in kept] == ["precious\n"]


@pytest.mark.parametrize(
    ("point", "checked_out"),
    [*((point, True) for point in (*MERGE, *LANDING)), *((point, False) for point in MERGE)],
)
def test_a_killed_merge_ends_at_the_old_tip_or_the_new(sandbox: Sandbox, point: str, checked_out: bool) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/new.txt": "new\n", "src/part0/file0.txt": "changed\n"})
    tip = sandbox.commit(sandbox.clone_path("one"), "work")
    if not checked_out:
        sandbox.git("checkout", "-q", "--detach")
    sandbox.write(sandbox.repository, {"notes.md": "my own edit\n", "scratch.txt": "untracked\n"})
    old = sandbox.git("rev-parse", "main").strip()

    kill_at(sandbox, point, "merge", "one")
    recovered(sandbox)

    new = sandbox.git("rev-parse", "main").strip()
    if new == old:
        assert sandbox.khlone("merge", "one").code == 0
        new = sandbox.git("rev-parse", "main").strip()
    assert sandbox.git("rev-parse", "main^1").strip() == old
    assert sandbox.git("rev-parse", "main^2").strip() == tip
    assert (sandbox.repository / "notes.md").read_text() == "my own edit\n"
    assert (sandbox.repository / "scratch.txt").read_text() == "untracked\n"
    if checked_out:
        assert sandbox.git("status", "--porcelain") == " M notes.md\n?? scratch.txt\n"
    assert sandbox.violations() == []


def test_a_fast_forward_that_was_killed_half_way_is_completed(sandbox: Sandbox) -> None:
    """What git's own half-applied merge looks like: some files new, one cut short, the index old and locked."""
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/new.txt": "new\n" * 50, "src/part0/file0.txt": "changed\n" * 50})
    sandbox.commit(sandbox.clone_path("one"), "work")
    sandbox.write(sandbox.repository, {"notes.md": "my own edit\n"})
    kill_at(sandbox, "merge.publishing", "merge", "one")
    (sandbox.repository / "src/part0/file0.txt").write_text("changed\n" * 50)
    (sandbox.repository / "src/new.txt").write_text("new\nne")
    (sandbox.common_dir / "index.lock").write_bytes(b"")

    assert sandbox.khlone("doctor", "--fix", KHLONE_FAULT="merge.recover-restored").code == KILLED
    recovered(sandbox)

    assert (sandbox.repository / "src/new.txt").read_text() == "new\n" * 50
    assert sandbox.git("status", "--porcelain") == " M notes.md\n"
    assert sandbox.git("show", "main:src/new.txt") == "new\n" * 50


PLUGIN = """
from khlone import Verdict, hookimpl

@hookimpl
def khlone_gate(clone, candidate):
    return Verdict(passed=True, gate="always")
"""


def install_gate(box: Sandbox) -> dict[str, str]:
    """A plugin with a gate, as a distribution of its own on PYTHONPATH."""
    site = box.root / "site"
    box.write(
        site,
        {
            "always_gate.py": PLUGIN,
            "always_gate-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: always-gate\nVersion: 1.0\n",
            "always_gate-1.0.dist-info/entry_points.txt": "[khlone]\nalways = always_gate\n",
        },
    )
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize("point", QUEUE)
def test_a_killed_gated_merge_leaves_no_pin_and_no_lock(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/new.txt": "new\n"})
    sandbox.commit(sandbox.clone_path("one"), "work")
    gate = install_gate(sandbox)
    commits = int(sandbox.git("rev-list", "--count", "--first-parent", "main"))

    done = sandbox.khlone("merge", "one", env=gate, KHLONE_FAULT=point)
    assert done.code == KILLED, done
    recovered(sandbox)
    before = sandbox.git("rev-parse", "main")
    again = sandbox.khlone("merge", "one", "--json", env=gate).json()

    landed = point in ("queue.publishing", "queue.published", "queue.landed", "queue.finished")
    assert bool(again["landed"]) is not landed, again
    assert (sandbox.git("rev-parse", "main") == before) is landed
    assert int(sandbox.git("rev-list", "--count", "--first-parent", "main")) == commits + 1
    assert sandbox.git("for-each-ref", "refs/khlone/queue") == ""
    assert sandbox.git("show", "main:src/new.txt") == "new\n"
    assert sandbox.violations() == []


def test_a_users_edit_in_a_half_applied_path_stops_recovery_and_is_kept(sandbox: Sandbox) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/part0/file0.txt": "changed\n" * 50})
    sandbox.commit(sandbox.clone_path("one"), "work")
    kill_at(sandbox, "merge.publishing", "merge", "one")
    old = sandbox.git("rev-parse", "main")
    (sandbox.repository / "src/part0/file0.txt").write_text("the user was here\n")

    done = sandbox.khlone("doctor", "--fix")

    assert done.code == 1
    assert "src/part0/file0.txt" in done.out
    assert (sandbox.repository / "src/part0/file0.txt").read_text() == "the user was here\n"
    assert sandbox.git("rev-parse", "main") == old
    sandbox.git("checkout", "-q", "--", "src/part0/file0.txt")
    recovered(sandbox)
    assert sandbox.git("show", "main:src/part0/file0.txt") == "changed\n" * 50


def fill(box: Sandbox, name: str) -> dict[str, bytes]:
    """Give a clone commits, staged, unstaged, untracked and ignored work; returns the bytes of each."""
    path = box.clone_path(name)
    box.write(path, {"committed.txt": "committed\n"})
    box.commit(path, "work")
    box.write(path, {"staged.txt": "staged\n"})
    box.git("add", "staged.txt", cwd=path)
    box.write(path, {"notes.md": "edited\n", "untracked.txt": "untracked\n", "secret.log": "ignored\n"})
    return contents(path)


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a folder by its name, `.git` aside."""
    return {
        str(found.relative_to(path)): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file() and found.name != ".git"
    }


@pytest.mark.parametrize("point", REMOVE)
def test_a_killed_remove_can_be_restored_byte_for_byte(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    before = fill(sandbox, "one")
    status = sandbox.git("status", "--porcelain", cwd=sandbox.clone_path("one"))

    kill_at(sandbox, point, "remove", "--force", "one")
    recovered(sandbox)

    assert not sandbox.clone_path("one").exists()
    done = sandbox.khlone("restore", "one")
    assert done.code == 0, done
    assert contents(sandbox.clone_path("one")) == before
    assert sandbox.git("status", "--porcelain", cwd=sandbox.clone_path("one")) == status
    assert sandbox.violations() == []


@pytest.mark.parametrize("point", RESTORE)
def test_a_killed_restore_is_completed(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    before = fill(sandbox, "one")
    sandbox.khlone("remove", "--force", "one")

    kill_at(sandbox, point, "restore", "one")
    recovered(sandbox)

    assert contents(sandbox.clone_path("one")) == before
    assert sandbox.violations() == []


@pytest.mark.parametrize("point", ADOPT)
def test_a_killed_adopt_leaves_a_clone_or_the_worktree_as_it_was(sandbox: Sandbox, point: str) -> None:
    path = sandbox.clone_path("one")
    sandbox.git("worktree", "add", "-q", "-b", "one", str(path))
    sandbox.write(path, {"notes.md": "edited\n", "untracked.txt": "untracked\n"})
    before = sandbox.git("for-each-ref"), contents(path), contents(sandbox.common_dir / "worktrees/one")

    kill_at(sandbox, point, "adopt", str(path))
    done = sandbox.khlone("doctor", "--fix")

    assert done.code == 0, done
    if point not in OUTSIDE:
        after = sandbox.git("for-each-ref"), contents(path), contents(sandbox.common_dir / "worktrees/one")
        assert after == before
        assert sandbox.khlone("adopt", str(path)).code == 0
    assert sandbox.violations() == []
    assert contents(path) == before[1]


def test_a_killed_way_back_of_an_adopt_is_finished_by_the_next(sandbox: Sandbox) -> None:
    path = sandbox.clone_path("one")
    sandbox.git("worktree", "add", "-q", "-b", "one", str(path))
    before = sandbox.git("for-each-ref"), contents(sandbox.common_dir / "worktrees/one")
    kill_at(sandbox, "adopt.admin", "adopt", str(path))

    assert sandbox.khlone("doctor", "--fix", KHLONE_FAULT="adopt.undo").code == KILLED
    assert sandbox.open_operations()

    assert sandbox.khlone("doctor", "--fix").code == 0
    assert (sandbox.git("for-each-ref"), contents(sandbox.common_dir / "worktrees/one")) == before
    assert sandbox.open_operations() == []


@pytest.mark.parametrize("point", RENAME)
def test_a_killed_rename_is_completed(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    before = fill(sandbox, "one")
    sandbox.git("config", "branch.one.description", "kept")
    status = sandbox.git("status", "--porcelain", cwd=sandbox.clone_path("one"))
    tip = sandbox.git("rev-parse", "one")
    log = sandbox.git("log", "-g", "--format=%H", "one")

    kill_at(sandbox, point, "rename", "one", "two")
    recovered(sandbox)

    path = sandbox.clone_path("two")
    assert contents(path) == before
    assert sandbox.git("status", "--porcelain", cwd=path) == status
    assert sandbox.git("symbolic-ref", "HEAD", cwd=path) == "refs/heads/two\n"
    assert sandbox.git("for-each-ref", "--format=%(objectname)", "refs/heads/one", "refs/heads/two") == tip
    assert sandbox.git("log", "-g", "--format=%H", "two").endswith(log)
    assert sandbox.git("config", "--get-regexp", "^branch") == "branch.two.description kept\n"
    assert sandbox.violations() == []


@pytest.mark.parametrize("way", ["--merge", "--rebase", "idle"])
@pytest.mark.parametrize("point", SYNC)
def test_a_killed_sync_ends_at_the_old_tip_or_the_new(sandbox: Sandbox, point: str, way: str) -> None:
    sandbox.khlone("new", "one")
    path = sandbox.clone_path("one")
    if way != "idle":
        sandbox.write(path, {"src/mine.txt": "mine\n"})
        sandbox.commit(path, "mine")
    old = sandbox.git("rev-parse", "one").strip()
    sandbox.write(sandbox.repository, {"src/new.txt": "new\n", "src/part0/file0.txt": "changed\n"})
    target = sandbox.commit(sandbox.repository, "theirs")
    sandbox.write(path, {"scratch.txt": "untracked\n"})
    words = ["sync", "one", *([] if way == "idle" else [way])]

    kill_at(sandbox, point, *words)
    recovered(sandbox)

    if point == "sync.computed":
        assert sandbox.git("rev-parse", "one").strip() == old
        assert sandbox.khlone(*words).code == 0
    parents = sandbox.git("rev-parse", "one^@").split()
    assert parents == {"--merge": [old, target], "--rebase": [target]}.get(way, [old])
    assert sandbox.git("status", "--porcelain", cwd=path) == "?? scratch.txt\n"
    assert (path / "src/part0/file0.txt").read_text() == "changed\n"
    kept = sandbox.git("for-each-ref", "--format=%(objectname)", "refs/khlone/undo").split()
    assert kept == ([old] if way == "--rebase" else [])
    assert sandbox.violations() == []


@pytest.mark.parametrize("what", ["merge", "merge-elsewhere", "sync"])
@pytest.mark.parametrize("point", TAKE_BACK)
def test_a_killed_undo_is_completed(sandbox: Sandbox, point: str, what: str) -> None:
    sandbox.khlone("new", "one")
    path = sandbox.clone_path("one")
    sandbox.write(path, {"src/mine.txt": "mine\n", "src/part0/file0.txt": "changed\n"})
    sandbox.commit(path, "mine")
    branch, place = ("one", path) if what == "sync" else ("main", sandbox.repository)
    if what == "sync":
        sandbox.write(sandbox.repository, {"src/new.txt": "new\n", "src/part1/file1.txt": "changed\n"})
        sandbox.commit(sandbox.repository, "theirs")
    if what == "merge-elsewhere":
        sandbox.git("checkout", "-q", "--detach")
    sandbox.write(place, {"scratch.txt": "untracked\n"})
    before, old = contents(place / "src"), sandbox.git("rev-parse", branch).strip()
    assert sandbox.khlone("sync" if what == "sync" else "merge", "one").code == 0
    new = sandbox.git("rev-parse", branch).strip()

    kill_at(sandbox, point, "undo")
    recovered(sandbox)

    assert sandbox.git("rev-parse", branch).strip() == old != new
    assert sandbox.git("for-each-ref", "--format=%(objectname)", "refs/khlone/undo").split() == [new]
    assert contents(place / "src") == before
    assert sandbox.git("status", "--porcelain", cwd=place) == "?? scratch.txt\n"
    assert '"ready"' in sandbox.khlone("show", "one", "--json").out
    assert sandbox.violations() == []


def test_a_move_back_that_was_killed_half_way_is_completed(sandbox: Sandbox) -> None:
    """Some files are old again, one is cut short, the index is the new one and locked."""
    sandbox.khlone("new", "one")
    path = sandbox.clone_path("one")
    sandbox.write(path, {"src/mine.txt": "mine\n" * 50, "src/part0/file0.txt": "changed\n" * 50})
    sandbox.commit(path, "mine")
    before = contents(sandbox.repository / "src")
    assert sandbox.khlone("merge", "one").code == 0
    sandbox.write(sandbox.repository, {"notes.md": "my own edit\n"})
    kill_at(sandbox, "undo.kept", "undo")
    (sandbox.repository / "src/mine.txt").unlink()
    (sandbox.repository / "src/part0/file0.txt").write_text("line 0\nli")
    (sandbox.common_dir / "index.lock").write_bytes(b"")

    recovered(sandbox)

    assert contents(sandbox.repository / "src") == before
    assert sandbox.git("status", "--porcelain") == " M notes.md\n"


def test_an_edit_in_a_half_moved_clone_stops_recovery_and_is_kept(sandbox: Sandbox) -> None:
    sandbox.khlone("new", "one")
    path = sandbox.clone_path("one")
    sandbox.write(path, {"src/mine.txt": "mine\n"})
    sandbox.commit(path, "mine")
    sandbox.write(sandbox.repository, {"src/part0/file0.txt": "changed\n" * 50})
    sandbox.commit(sandbox.repository, "theirs")
    kill_at(sandbox, "sync.reserved", "sync", "--rebase", "one")
    old = sandbox.git("rev-parse", "one")
    (path / "src/part0/file0.txt").write_text("the agent was here\n")

    done = sandbox.khlone("doctor", "--fix")

    assert done.code == 1
    assert (path / "src/part0/file0.txt").read_text() == "the agent was here\n"
    assert sandbox.git("rev-parse", "one") == old
    sandbox.git("checkout", "-q", "--", "src/part0/file0.txt", cwd=path)
    recovered(sandbox)
    assert (path / "src/part0/file0.txt").read_text() == "changed\n" * 50


EMPTY_TRASH = ("prune", "--trash", "--age", "0")


def throw_away(box: Sandbox) -> dict[str, bytes]:
    """Remove a clone with all kinds of work, its branch too; returns the bytes of each file but the ignored one."""
    box.khlone("new", "one")
    before = fill(box, "one")
    assert box.khlone("remove", "--force", "one").code == 0
    box.git("branch", "-D", "one")
    del before["secret.log"]
    return before


def collect_garbage(box: Sandbox) -> None:
    """Let go of every object that no ref keeps."""
    box.git("reflog", "expire", "--expire=now", "--all")
    box.git("gc", "-q", "--prune=now")


@pytest.mark.parametrize("finisher", ["doctor", "prune"])
@pytest.mark.parametrize("point", PURGE)
def test_a_killed_purge_is_finished_and_its_snapshot_restorable(sandbox: Sandbox, point: str, finisher: str) -> None:
    before = throw_away(sandbox)

    kill_at(sandbox, point, *EMPTY_TRASH)
    if finisher == "prune":
        assert sandbox.khlone(*EMPTY_TRASH).code == 0
    recovered(sandbox)

    assert [path.name for path in (sandbox.common_dir / "khlone/trash").glob("*/*/*")] == ["meta.json"]
    assert list((sandbox.home / ".local/state/khlone/repositories").glob("*/trash/*/*")) == []
    collect_garbage(sandbox)
    assert sandbox.khlone("restore", "one").code == 0
    assert contents(sandbox.clone_path("one")) == before
    assert sandbox.violations() == []


@pytest.mark.parametrize("point", PURGE)
def test_a_killed_purge_of_what_a_branch_contains_leaves_nothing(sandbox: Sandbox, point: str) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/new.txt": "new\n", "secret.log": "ignored\n"})
    sandbox.commit(sandbox.clone_path("one"), "work")
    assert sandbox.khlone("merge", "--remove", "one").code == 0

    kill_at(sandbox, point, *EMPTY_TRASH)
    recovered(sandbox)

    assert sandbox.rows("SELECT * FROM clones") == sandbox.rows("SELECT * FROM trash") == []
    assert list((sandbox.common_dir / "khlone/trash").iterdir()) == []
    assert list((sandbox.home / ".local/state/khlone/repositories").glob("*/trash/*/*")) == []
    assert sandbox.git("for-each-ref", "refs/khlone") == ""


def test_a_purge_that_was_killed_half_way_through_a_folder_deletes_the_rest(sandbox: Sandbox) -> None:
    before = throw_away(sandbox)
    kill_at(sandbox, "purge.reserved", *EMPTY_TRASH)
    (worktree,) = (sandbox.common_dir / "khlone/trash").glob("*/*/worktree")
    going = worktree.rename(worktree.with_name("worktree.purging"))
    (going / "committed.txt").unlink()

    assert sandbox.khlone("restore", "one").code == 0

    assert not going.exists()
    assert contents(sandbox.clone_path("one")) == before
    assert sandbox.violations() == []


@pytest.mark.parametrize("point", [name for name in PURGE if name not in OUTSIDE])
def test_a_purge_that_fails_half_way_is_told_and_tried_again(sandbox: Sandbox, point: str) -> None:
    before = throw_away(sandbox)

    failed = sandbox.khlone(*EMPTY_TRASH, "--json", KHLONE_FAULT=f"{point}:raise:ENOSPC")

    assert failed.code == 0
    assert "no-space" in failed.out
    assert sandbox.violations() == []
    again = sandbox.khlone(*EMPTY_TRASH, "--json").json()
    assert again["kept"] == []
    assert len(list(again["purged"])) == 1  # type: ignore[call-overload]
    assert sandbox.khlone("restore", "one").code == 0
    assert contents(sandbox.clone_path("one")) == before
    assert list((sandbox.common_dir / "khlone/trash").iterdir()) == []
    assert sandbox.violations() == []


@pytest.fixture
def remote(sandbox: Sandbox) -> Path:
    """The bare repository `origin`, whose main the repository's follows and is one commit behind of."""
    path = sandbox.root / "origin.git"
    sandbox.write(sandbox.repository, {"src/there.txt": "there\n"})
    sandbox.commit(sandbox.repository, "there")
    sandbox.git("clone", "-q", "--bare", str(sandbox.repository), str(path))
    sandbox.git("reset", "-q", "--hard", "HEAD~")
    sandbox.git("remote", "add", "origin", str(path))
    sandbox.git("config", "branch.main.remote", "origin")
    sandbox.git("config", "branch.main.merge", "refs/heads/main")
    return path


@pytest.mark.parametrize("point", FETCH)
def test_a_killed_fetch_is_made_again_by_the_next_who_wants_one(sandbox: Sandbox, remote: Path, point: str) -> None:
    sandbox.khlone("new", "one")

    kill_at(sandbox, point, "sync", "one", "--fetch")
    assert sandbox.violations() == []
    tip = sandbox.git("rev-parse", "main", cwd=remote)
    assert sandbox.khlone("sync", "one", "--fetch").code == 0

    assert sandbox.git("rev-parse", "one") == sandbox.git("rev-parse", "origin/main") == tip
    recovered(sandbox)


@pytest.mark.parametrize("point", PUSH)
def test_a_killed_push_is_completed_by_the_next(sandbox: Sandbox, remote: Path, point: str) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/mine.txt": "mine\n"})
    sandbox.commit(sandbox.clone_path("one"), "mine")

    kill_at(sandbox, point, "push", "one")
    assert sandbox.violations() == []
    done = sandbox.khlone("push", "one", "--json")

    assert done.code == 0, done
    assert (
        sandbox.git("rev-parse", "one", cwd=remote)
        == sandbox.git("rev-parse", "one", "origin/one").splitlines()[0] + "\n"
    )
    assert sandbox.git("rev-parse", "--abbrev-ref", "one@{upstream}") == "origin/one\n"
    recovered(sandbox)


@pytest.mark.parametrize("point", PROPOSE)
def test_a_killed_pr_leads_to_one_pull_request(sandbox: Sandbox, remote: Path, point: str) -> None:
    sandbox.khlone("new", "one")
    sandbox.write(sandbox.clone_path("one"), {"src/mine.txt": "mine\n"})
    sandbox.commit(sandbox.clone_path("one"), "mine")
    programs = fake_forge(sandbox.root / "programs", "gh")
    sandbox.environment["PATH"] = f"{programs}:{sandbox.environment['PATH']}"

    kill_at(sandbox, point, "pr", "one")
    done = sandbox.khlone("pr", "one", "--json")

    assert done.code == 0, done
    assert done.json()["number"] == 1
    assert sandbox.git("rev-parse", "one", cwd=remote) == sandbox.git("rev-parse", "one")
    recovered(sandbox)


@pytest.mark.parametrize("point", PULL)
def test_a_killed_new_of_a_pull_request_can_be_made_again(sandbox: Sandbox, remote: Path, point: str) -> None:
    sandbox.git("update-ref", "refs/pull/7/head", "main", cwd=remote)
    tip = sandbox.git("rev-parse", "main", cwd=remote)

    kill_at(sandbox, point, "new", "--pr", "7")
    assert sandbox.violations() == []
    done = sandbox.khlone("new", "again", "--pr", "7", "--branch", "again")

    assert done.code == 0, done
    assert sandbox.git("rev-parse", "again") == tip
    assert len(sandbox.git("for-each-ref", "refs/khlone/pulls").splitlines()) == (point == "pull.fetched")
    recovered(sandbox)


def test_every_fault_point_is_killed_by_a_test_here() -> None:
    covered = {*CREATE, *UNDO, *MERGE, *REMOVE, *RESTORE, "merge.recover-restored"}
    covered |= {
        "adopt.undo",
        *LANDING,
        *PURGE,
        *ADOPT,
        *RENAME,
        *SYNC,
        *SYNC_CONFLICT,
        *TAKE_BACK,
        *FETCH,
        *PUSH,
        *PROPOSE,
        *PULL,
        *QUEUE,
        *QUEUE_PUSH,
    }

    # Those of uninstall are killed where it is tested, with an account of its own.
    assert covered == {point for point in faults.POINTS if not point.startswith("uninstall.")}
