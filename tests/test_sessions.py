"""A process is known by more than its number, and who is not certainly dead lives."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone import sessions
from khlone.model import ProcessIdentity
from khlone.sessions import FoundProcess
from tests.support import TIMEOUT_S

SLEEP = [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
]


@contextlib.contextmanager
def running(argv: list[str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun its work."""
    child = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.communicate()


def dead(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait until it is a zombie, which its parent has not asked for."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A system without /proc."""
    plain = open

    def unseen(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return plain(path, *args, **options)

    sessions.boot_id.cache_clear()
    monkeypatch.setattr("builtins.open", unseen)
    yield
    monkeypatch.undo()
    sessions.boot_id.cache_clear()


# -- identity ------------------------------------------------------------------------------


def test_an_identity_is_the_same_each_time_and_another_for_another_process(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        mine, theirs = sessions.identity(), sessions.identity(child.pid)

        assert mine == sessions.identity(os.getpid())
        assert theirs == sessions.identity(child.pid)
        assert (mine.pid, theirs.pid) == (os.getpid(), child.pid)
        assert mine.boot_id == theirs.boot_id
        assert mine.start_ticks is not None
        assert theirs.start_ticks is not None
        assert theirs.start_ticks >= mine.start_ticks


def test_a_name_with_brackets_and_spaces_does_not_move_the_fields(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/cat")

    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"on\n")
        child.stdin.flush()
        child.stdout.readline()
        ticks, own = sessions.start_ticks(child.pid), sessions.start_ticks(os.getpid())

    assert ticks is not None
    assert own is not None
    assert ticks >= own


def test_a_process_lives_until_it_is_gone(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        owner = sessions.identity(child.pid)
        assert sessions.may_live(owner)

    assert not sessions.may_live(owner)


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        owner = sessions.identity(child.pid)
        dead(child)

        os.kill(child.pid, 0)
        assert not sessions.may_live(owner)


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({}, True),
        ({"start_ticks": 1}, False),
        ({"start_ticks": None}, True),
        ({"boot_id": "another"}, False),
        ({"boot_id": None}, True),
        ({"host": "another"}, True),
        ({"host": "another", "boot_id": "another", "start_ticks": 1}, True),
        ({"pid_namespace": 1, "boot_id": None, "start_ticks": 1}, True),
        ({"pid_namespace": 1, "boot_id": None, "pid": 0}, True),
        ({"pid_namespace": 1, "host": "another", "boot_id": None}, True),
        ({"pid_namespace": 1, "boot_id": "another"}, False),
        ({"pid_namespace": None, "start_ticks": 1}, False),
        ({"pid": 0}, False),
        ({"pid": -1}, False),
    ],
)
def test_only_who_is_certainly_gone_is_dead(changes: dict[str, Any], lives: bool) -> None:
    assert sessions.may_live(dataclasses.replace(sessions.identity(), **changes)) is lives


def test_who_cannot_be_looked_at_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = sessions.identity()

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("builtins.open", refuse)

    assert sessions.may_live(owner)


@pytest.mark.usefixtures("no_proc")
def test_without_proc_who_answers_lives(tmp_path: Path) -> None:
    owner = sessions.identity()
    with running(SLEEP, tmp_path) as child:
        other = sessions.identity(child.pid)
        assert sessions.may_live(other)

    assert (owner.start_ticks, owner.boot_id) == (None, None)
    assert sessions.may_live(owner)
    assert not sessions.may_live(other)


@pytest.mark.usefixtures("no_proc")
def test_without_proc_who_belongs_to_another_user_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)

    assert sessions.may_live(sessions.identity())


# -- finding -------------------------------------------------------------------------------


def pids(found: list[FoundProcess]) -> set[int]:
    return {one.pid for one in found}


def test_a_process_inside_a_folder_is_found_however_one_gets_there(tmp_path: Path) -> None:
    inside, beside = tmp_path / "clone" / "deep", tmp_path / "clone-beside"
    inside.mkdir(parents=True)
    beside.mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "clone")

    with running(SLEEP, inside) as one, running(SLEEP, tmp_path / "clone") as two, running(SLEEP, beside):
        assert pids(sessions.processes_inside(tmp_path / "clone")) == {one.pid, two.pid}
        assert pids(sessions.processes_inside(tmp_path / "link")) == {one.pid, two.pid}
        assert pids(sessions.processes_inside(inside)) == {one.pid}


def test_a_process_whose_folder_was_moved_is_found_where_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()

    with running(SLEEP, tmp_path / "old") as child:
        (tmp_path / "old").rename(tmp_path / "new")

        assert pids(sessions.processes_inside(tmp_path / "new")) == {child.pid}
        assert sessions.processes_inside(tmp_path / "old") == []


LOOK = """
import os, sys
from pathlib import Path
from khlone.sessions import processes_inside
print(*sorted(found.pid for found in processes_inside(Path.cwd())))
"""


def test_neither_the_one_that_looks_nor_its_callers_are_found(tmp_path: Path) -> None:
    # The shell, which is not replaced by what it runs, works in the folder as an agent's would.
    script = f"sleep 600 & echo $!; '{sys.executable}' -c '{LOOK}'; kill $!"

    done = subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    sleeper, found = done.stdout.splitlines()
    assert found == sleeper


def test_a_zombie_is_not_found(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        dead(child)

        assert sessions.processes_inside(tmp_path) == []


def test_the_descendants_of_a_session_are_found_wherever_they_are(tmp_path: Path) -> None:
    code = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '600'], cwd='/'); print(child.pid, flush=True); "
    )
    with subprocess.Popen(
        [sys.executable, "-c", code + "child.wait()"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        owner = sessions.identity(child.pid)

        everything = pids(sessions.session_processes(owner, known=set()))
        rest = pids(sessions.session_processes(owner, known={child.pid}))
        os.kill(grandchild, signal.SIGKILL)

    assert everything == {child.pid, grandchild}
    assert rest == {grandchild}


def test_a_session_whose_number_another_process_has_by_now_has_no_processes(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        reused = dataclasses.replace(sessions.identity(child.pid), start_ticks=1)

        assert sessions.session_processes(reused, known=set()) == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [({"host": "elsewhere"}, "on elsewhere"), ({"pid_namespace": 1}, "in another pid namespace")],
)
def test_a_session_that_is_out_of_sight_is_listed_and_never_signalled(
    tmp_path: Path, changes: dict[str, Any], place: str
) -> None:
    with running(SLEEP, tmp_path) as child:
        elsewhere = dataclasses.replace(sessions.identity(child.pid), **changes)

        found = sessions.session_processes(elsewhere, known=set())
        left = sessions.end_processes(found, grace_s=0.1)

        assert [str(one) for one in found] == [f"a session {place} ({child.pid})"]
        assert left == []
        assert child.poll() is None


# -- ending --------------------------------------------------------------------------------


def test_processes_are_ended_those_too_that_ignore_the_polite_signal(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as polite, running(STUBBORN, tmp_path) as stubborn:
        found = sessions.processes_inside(tmp_path)

        left = sessions.end_processes(found, grace_s=0.5)

        assert left == []
        assert polite.wait(TIMEOUT_S) == -signal.SIGTERM
        assert stubborn.wait(TIMEOUT_S) == -signal.SIGKILL


def test_a_process_that_only_has_the_same_number_is_not_signalled(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path) as child:
        found = [dataclasses.replace(one, created=one.created - 1) for one in sessions.processes_inside(tmp_path)]

        assert pids(found) == {child.pid}
        sessions.end_processes(found, grace_s=0.1)

        assert child.poll() is None
        os.kill(child.pid, 0)


def test_who_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(STUBBORN, tmp_path) as child:
        found = sessions.processes_inside(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(signal, "SIGKILL", signal.SIGTERM)

            left = sessions.end_processes(found, grace_s=0.1)

    assert pids(left) == {child.pid}


def test_who_has_ended_already_is_no_trouble(tmp_path: Path) -> None:
    with running(SLEEP, tmp_path):
        found = sessions.processes_inside(tmp_path)

    assert sessions.end_processes(found, grace_s=0.1) == []


# -- git -----------------------------------------------------------------------------------


@pytest.fixture
def busy_git(repository: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A git that works in a repository until its input ends."""
    with subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"HEAD\n")
        child.stdin.flush()
        child.stdout.readline()
        yield child
        child.kill()


def test_a_git_that_works_in_a_folder_is_found(
    repository: Path, busy_git: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()

    assert busy_git.pid in pids(sessions.git_processes_near([repository]))
    assert busy_git.pid not in pids(sessions.git_processes_near([tmp_path / "other"]))


def test_a_git_that_names_a_folder_is_found_and_others_are_not(repository: Path) -> None:
    argv = ["git", "--git-dir", str(repository / ".git"), "cat-file", "--batch"]
    with running(SLEEP, repository) as other, subprocess.Popen(argv, cwd="/", stdin=subprocess.PIPE) as child:
        found = pids(sessions.git_processes_near([repository]))
        child.kill()

    assert child.pid in found
    assert other.pid not in found


# -- systems that show little --------------------------------------------------------------

HIDDEN = """
import os, sys
from pathlib import Path
from khlone import files, mounts, sessions
from khlone.locks import Locks
from khlone.registry import Registry
here = Path.cwd()
assert not os.path.exists("/proc/self")
assert sessions.identity().start_ticks is None
assert sessions.may_live(sessions.identity())
assert sessions.processes_inside(here) == []
assert sessions.git_processes_near([here]) == []
assert sessions.session_processes(sessions.identity(), known=set()) == []
assert sessions.end_processes([sessions.FoundProcess(pid=os.getpid(), name="x", created=1.0)]) == []
assert mounts.network_type(here) is None
files.make_private_dir(here / "state")
files.write_atomic(here / "state" / "file", b"")
(here / "tree" / "deep").mkdir(parents=True)
files.move_tree(here / "tree", here / "moved", aside=here / "aside")
files.remove_tree(here / "moved")
held = Locks(here / "state").try_operation("one")
held.verify()
assert Registry(here / "registry").clones() == []
print("done")
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("hide", ["mount -t tmpfs none /proc", "umount -l /proc"])
def test_nothing_of_the_lower_floors_needs_proc(tmp_path: Path, hide: str) -> None:
    script = f'{hide} && exec "$0" -c "$1"'

    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", script, sys.executable, HIDDEN],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )

    assert (done.stdout, done.stderr) == ("done\n", "")


def test_an_identity_of_a_system_without_proc_is_still_one() -> None:
    bare = ProcessIdentity(pid=os.getpid(), start_ticks=None, boot_id=None, host=os.uname().nodename)

    assert sessions.may_live(bare)
