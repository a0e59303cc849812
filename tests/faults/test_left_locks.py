"""Locks that killed gits left: khlone's own go, with proof; those of whoever may live stay and are told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import procfs, sessions
from tests.commands.steps import document, footprint, new
from tests.faults.lab import open_operations, rows, stopped
from tests.faults.test_git_locks import held_by_another_program
from tests.faults.test_identity import OUTERMOST
from tests.support import Git, Khlone

#: A session in a container beside this one, as its khlone has recorded it.
ELSEWHERE = """INSERT INTO sessions (id, clone, pid, host, pid_namespace, state, command, started_at)
    SELECT 's1', id, 1, ?, 1, 'running', '["sleep"]', created_at FROM clones WHERE name = 'a'"""


class Left:
    """A `new half` that was killed with its refs made, and the locks that its git has left."""

    def __init__(self, project: Path, clone: str) -> None:
        self.own = project / ".git" / "refs" / "khlone" / "clones" / f"{clone}.lock"
        self.branch = project / ".git" / "refs" / "heads" / "half.lock"
        self.packed = project / ".git" / "packed-refs.lock"

    def make(self, *, hours: float = 0.0) -> None:
        then = time.time() - hours * 3600
        for path in (self.own, self.branch, self.packed):
            path.write_bytes(b"")
            os.utime(path, (then, then))

    def there(self) -> list[str]:
        return [path.name for path in (self.own, self.branch, self.packed) if path.exists()]

    def take_away(self) -> None:
        for path in (self.own, self.branch, self.packed):
            path.unlink(missing_ok=True)


@pytest.fixture
def before(khlone: Khlone, git: Git, project: Path) -> dict[str, object]:
    """What a repository with one clone `a` has of clones."""
    new(khlone, project, "a")
    return footprint(git, project)


@pytest.fixture
def left(before: dict[str, object], project: Path) -> Left:
    """A create that was killed, without locks so far."""
    child = stopped(["new", "half"], point="create.refs", cwd=project)
    child.kill()
    child.wait()
    ((clone,),) = rows(project, "SELECT clone FROM operations WHERE ended_at IS NULL")
    return Left(project, str(clone))


@contextlib.contextmanager
def git_at_work(place: Path) -> Iterator[None]:
    """A git that does something for long."""
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=place, stdin=subprocess.PIPE) as process:
        yield
        process.terminate()


def test_locks_of_a_dead_git_of_our_own_go_and_its_operation_is_undone(
    khlone: Khlone, git: Git, project: Path, before: dict[str, object], left: Left
) -> None:
    left.make()

    done = khlone("doctor", "--fix", cwd=project)

    assert done.code == 0, done
    assert left.there() == []
    assert open_operations(project) == []
    assert footprint(git, project) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["older", "git", "open"])
def test_locks_of_others_stay_and_what_waits_for_them_is_done_when_they_are_gone(
    khlone: Khlone, git: Git, project: Path, before: dict[str, object], left: Left, kind: str
) -> None:
    """Older than the operation; with a git at work for longer than the second that they rest; open in some program."""
    with contextlib.ExitStack() as stack:
        if kind == "open":
            left.branch.unlink(missing_ok=True)
            stack.enter_context(held_by_another_program(left.branch))
        else:
            left.make(hours=1.0 if kind == "older" else 0.0)
        if kind == "git":
            stack.enter_context(git_at_work(project))
        locks = left.there()

        during = khlone("doctor", "--fix", "--json", cwd=project)

        assert left.there() == locks
        assert open_operations(project) == [("create", "half")]
        found = document(during, "doctor", 1)["findings"]
        assert ("interrupted-operation", False) in [(one["code"], one["fixed"]) for one in found]
    left.take_away()

    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert open_operations(project) == []
    assert footprint(git, project) == before


@pytest.mark.slow
def test_beside_a_session_that_cannot_be_seen_only_locks_that_none_but_khlone_takes_go(
    khlone: Khlone, git: Git, project: Path, before: dict[str, object], left: Left
) -> None:
    """Its git may hold the others, and no look at this machine tells."""
    rows(project, ELSEWHERE, os.uname().nodename)
    left.make()

    khlone("doctor", "--fix", cwd=project)
    still = left.there()
    rows(project, "DELETE FROM sessions")
    control = khlone("doctor", "--fix", cwd=project)

    assert still == ["half.lock", "packed-refs.lock"]
    assert control.code == 0
    assert left.there() == []
    assert footprint(git, project) == before


@pytest.mark.needs_root
def test_a_session_of_a_container_that_is_gone_keeps_no_locks(
    khlone: Khlone, git: Git, project: Path, before: dict[str, object], left: Left
) -> None:
    """Where this test runs in a container itself nobody can tell, and they stay."""
    rows(project, ELSEWHERE, os.uname().nodename)
    rows(project, "UPDATE sessions SET boot_id = ?", sessions.boot_id())
    left.make()

    done = khlone("doctor", "--fix", cwd=project)

    if procfs.pid_namespace() == OUTERMOST:
        assert done.code == 0
        assert left.there() == []
        assert footprint(git, project) == before
    else:
        assert left.there() == ["half.lock", "packed-refs.lock"]


@pytest.mark.parametrize("who", ["git", "out of sight"])
def test_a_worktree_that_somebody_may_be_making_is_not_unlocked(
    khlone: Khlone, git: Git, project: Path, before: dict[str, object], tmp_path: Path, who: str
) -> None:
    git("worktree", "add", "-q", "--detach", str(tmp_path / "foreign"), cwd=project)
    lock = project / ".git" / "worktrees" / "foreign" / "locked"
    lock.write_text("initializing")
    os.utime(lock, (time.time() - 3600, time.time() - 3600))
    with git_at_work(project) if who == "git" else contextlib.nullcontext():
        if who != "git":
            rows(project, ELSEWHERE, os.uname().nodename)

        (during,) = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]
        is_locked = lock.exists()
    rows(project, "DELETE FROM sessions")

    (after,) = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert (during["code"], during["fixed"], is_locked) == ("left-initializing", False, True)
    assert (after["code"], after["fixed"], lock.exists()) == ("left-initializing", True, False)
