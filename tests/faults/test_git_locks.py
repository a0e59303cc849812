"""Locks of other gits: waited for, then named, and never taken away; collections beside removals."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.steps import branches, footprint, new, refs, tree
from tests.faults.lab import customized, open_operations, start, wait_until
from tests.support import Commit, Git, Khlone

IMPATIENT = """
import khlone.repository as r
r._RETRY_TOTAL_S = 0.2
r._LOCK_TIMEOUTS = ("-c", "core.filesRefLockTimeout=100", "-c", "core.packedRefsTimeout=100")
"""


@pytest.fixture
def impatient(tmp_path: Path) -> dict[str, str]:
    """Variables under which locks of git are not waited for long."""
    return customized(tmp_path / "site", IMPATIENT)


def stale(path: Path) -> Path:
    """A lock file that a git left an hour ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    return path


def test_a_lock_on_the_configuration_is_in_nobodys_way_and_stays(khlone: Khlone, commit: Commit, project: Path) -> None:
    lock = stale(project / ".git" / "config.lock")

    codes = [khlone("new", "a", cwd=project).code]
    commit(project.with_name("project.clones") / "a", {"one.txt": "1\n"}, "one")
    for verb in ("merge", "remove", "restore", "doctor"):
        codes.append(khlone(verb, *(["a"] if verb != "doctor" else []), cwd=project).code)

    assert codes == [0] * 5
    assert lock.exists()


#: A program that is no git to look at (a library, a window) and has packed-refs locked.
HOLDING = """
import os, sys
os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
print("held", flush=True)
sys.stdin.read()
os.unlink(sys.argv[1])
"""


@contextlib.contextmanager
def held_by_another_program(lock: Path) -> Iterator[None]:
    """Another program has the lock; that it still has that very file at the end is checked."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        found = lock.stat().st_ino
        yield
        assert lock.stat().st_ino == found
        holder.communicate()


def test_a_stale_lock_on_the_branch_is_named_and_stays(
    khlone: Khlone, git: Git, project: Path, impatient: dict[str, str]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    lock = stale(project / ".git" / "refs" / "heads" / "b.lock")

    done = khlone("new", "b", "--json", cwd=project, env=impatient)

    assert done.code == 1
    assert "b.lock" in done.out
    assert lock.exists()
    assert footprint(git, project) == before
    assert open_operations(project) == []
    lock.unlink()
    assert khlone("new", "b", cwd=project).code == 0


@pytest.mark.slow
def test_a_lock_on_the_branch_that_a_program_takes_meanwhile_stays(
    khlone: Khlone, git: Git, project: Path, impatient: dict[str, str]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    child = start(["new", "b"], cwd=project, env=impatient | {"KHLONE_FAULT": "create.reserved:stop"})
    os.waitpid(child.pid, os.WUNTRACED)

    with held_by_another_program(project / ".git" / "refs" / "heads" / "b.lock"):
        os.kill(child.pid, signal.SIGCONT)
        code = child.wait()

    assert code == 1
    assert footprint(git, project) == before
    assert khlone("new", "b", cwd=project).code == 0


def test_a_lock_of_another_git_that_is_given_up_in_time_is_waited_for(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    lock = stale(project / ".git" / "refs" / "heads" / "b.lock")

    child = start(["new", "b"], cwd=project)
    wait_until(lambda: _children_of(child.pid, "update-ref"))
    lock.unlink()

    assert child.wait() == 0


def _children_of(pid: int, word: str) -> list[bytes]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_bytes().rpartition(b")")[2].split()[1])
            line = status.with_name("cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and word.encode() in line:
            found.append(line)
    return found


def test_the_lock_of_another_git_on_the_target_holds_the_merge_and_stays(
    khlone: Khlone, git: Git, commit: Commit, project: Path, impatient: dict[str, str]
) -> None:
    commit(new(khlone, project, "a"), {"one.txt": "1\n"}, "one")
    lock = stale(project / ".git" / "refs" / "heads" / "main.lock")
    before, files = refs(git, project), tree(project)

    done = khlone("merge", "a", "--json", cwd=project, env=impatient)

    assert done.code != 0
    assert "main.lock" in done.out + done.err
    assert lock.exists()
    assert (refs(git, project), tree(project)) == (before, files)
    assert git("status", "--porcelain", cwd=project) == ""
    lock.unlink()
    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert khlone("merge", "a", cwd=project).code == 0
    assert (project / "one.txt").read_text() == "1\n"


@pytest.mark.slow
@pytest.mark.parametrize("age", ["stale", "held"])
def test_the_lock_of_another_program_on_packed_refs_stays_and_nothing_is_lost(
    khlone: Khlone, git: Git, project: Path, impatient: dict[str, str], age: str
) -> None:
    path = new(khlone, project, "a")
    (path / "kept.txt").write_text("kept\n")
    git("pack-refs", "--all", cwd=project)
    lock = project / ".git" / "packed-refs.lock"
    child = start(["remove", "--force", "a"], cwd=project, env=impatient | {"KHLONE_FAULT": "remove.snapshot:stop"})
    os.waitpid(child.pid, os.WUNTRACED)

    with contextlib.nullcontext(stale(lock)) if age == "stale" else held_by_another_program(lock):
        os.kill(child.pid, signal.SIGCONT)
        code = child.wait()

    assert code == 1
    assert lock.exists() is (age == "stale")
    lock.unlink(missing_ok=True)
    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert open_operations(project) == []
    assert khlone("restore", "a", cwd=project).code == 0
    assert (path / "kept.txt").read_text() == "kept\n"


# -- collections ---------------------------------------------------------------------------


@contextlib.contextmanager
def collecting(project: Path) -> Iterator[list[int]]:
    """Collections of everything that nothing refers to, one after the other; their exit codes."""
    end = threading.Event()
    codes: list[int] = []

    def loop() -> None:
        while not end.is_set():
            done = subprocess.run(
                ["git", "gc", "--quiet", "--prune=now"], cwd=project, capture_output=True, check=False
            )
            codes.append(done.returncode)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield codes
    finally:
        end.set()
        thread.join()


def test_collections_beside_removals_and_restores_take_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    """Whole before the collections begin: what is written beside `--prune=now`, git itself may take."""
    path = new(khlone, project, "a")
    git("checkout", "-q", "--detach", cwd=path)
    alone = commit(path, {"alone.txt": "alone\n"}, "on no branch")
    (path / "staged.txt").write_text("staged\n")
    git("add", "staged.txt", cwd=path)
    (path / "loose.txt").write_text("loose\n")
    files = tree(path)

    removals: list[int] = []
    with collecting(project) as collections:
        while collections.count(0) < 4 or len(removals) < 4:
            removals.append(khlone("remove", "--force", "a", cwd=project).code)
            if removals[-1] == 0:
                assert khlone("restore", "a", cwd=project).code == 0
            # Refused or come back: either way all of it is there, each time.
            assert tree(path) == files
            assert git("rev-parse", "HEAD", cwd=path).strip() == alone
            assert git("show", ":staged.txt", cwd=path) == "staged\n"

    # 75 where collections, one right after the other, leave no moment for a snapshot to be whole.
    assert set(removals) <= {0, 75}
    assert khlone("remove", "--force", "a", cwd=project).code == 0
    assert khlone("restore", "a", cwd=project).code == 0
    assert git("rev-parse", "HEAD", cwd=path).strip() == alone
    git("fsck", "--no-dangling", cwd=project)


def test_no_verb_starts_a_collection(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("config", "gc.auto", "1", cwd=project)
    git("config", "gc.autoDetach", "false", cwd=project)
    contents = [text for text in (f"{number}\n" for number in range(4000)) if _oid(text).startswith("17")][:8]
    for content in contents:
        git("hash-object", "-w", "--stdin", cwd=project, input=content)
    path = new(khlone, project, "a")
    (path / "one.txt").write_text("1\n")
    git("-c", "gc.auto=0", "add", "one.txt", cwd=path)
    git("-c", "gc.auto=0", "commit", "-q", "-m", "one", cwd=path)

    for verb in (("merge", "a"), ("remove", "a"), ("restore", "a"), ("doctor",)):
        assert khlone(*verb, cwd=project).code == 0
    packs = list((project / ".git/objects/pack").glob("*.pack"))
    git("gc", "--auto", "--quiet", cwd=project)

    assert packs == []
    assert list((project / ".git/objects/pack").glob("*.pack")) != [], "the control: git itself would have"
    assert "main" in branches(git, project)


def _oid(text: str) -> str:
    return hashlib.sha1(f"blob {len(text)}\0{text}".encode(), usedforsecurity=False).hexdigest()
