"""A lock has one holder, who is named while it lives and needs no cleaning up after when it dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from khlone.errors import Locked, LockLost, NotPermitted, StateUnsafe
from khlone.locks import HeldLock, Locks
from tests.commands.steps import tree
from tests.support import TIMEOUT_S


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


@pytest.fixture
def locks(folder: Path) -> Locks:
    return Locks(folder)


HOLDER = """
import contextlib, subprocess, sys
from pathlib import Path
from khlone.locks import Locks
locks = Locks(Path(sys.argv[1]), command="git-khlone new")
with contextlib.ExitStack() as stack:
    if sys.argv[2] == "operation":
        held = locks.try_operation("one")
    else:
        held = stack.enter_context(getattr(locks, sys.argv[2])(*sys.argv[3:]))
    if sys.argv[3:] == ["orphan"]:
        orphan = subprocess.Popen(["sleep", "600"], pass_fds=[held.descriptor], stdout=subprocess.DEVNULL)
        print(orphan.pid, flush=True)
    print("held", flush=True)
    for line in sys.stdin:
        held.verify()
        print("verified", flush=True)
"""


class Holder:
    """Another process that holds a lock until its input ends."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Wait for its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def still_holds(self) -> bool:
        """Let it verify its lock."""
        assert self.process.stdin is not None
        self.process.stdin.write("verify\n")
        self.process.stdin.flush()
        return self.says() == "verified"

    def kill(self) -> None:
        """End it without a chance to say anything."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def held_elsewhere(folder: Path, *words: str) -> Iterator[Holder]:
    """A lock that another process holds."""
    holder = Holder(folder, *words)
    try:
        if words[-1] != "orphan":
            assert holder.says() == "held"
        yield holder
    finally:
        holder.process.kill()
        holder.process.communicate()


# -- holders -------------------------------------------------------------------------------


def test_an_operation_lock_that_is_held_is_refused_at_once_and_its_holder_named(folder: Path, locks: Locks) -> None:
    with held_elsewhere(folder, "operation") as holder:
        assert locks.try_operation("one") is None
        assert f"git-khlone new (pid {holder.process.pid}) since 2" in locks.operation_holder("one")
        other = locks.try_operation("two")

    assert other is not None
    other.release()


def test_a_killed_holder_frees_its_lock(folder: Path, locks: Locks) -> None:
    with held_elsewhere(folder, "operation") as holder:
        assert locks.try_operation("one") is None
        holder.kill()

        held = locks.try_operation("one")

    assert held is not None
    held.verify()
    held.release()


@pytest.mark.parametrize("words", [("repository",), ("landing", "main")])
def test_a_stopped_holder_keeps_its_lock_and_is_named(folder: Path, locks: Locks, words: tuple[str, ...]) -> None:
    with held_elsewhere(folder, *words) as holder:
        holder.process.send_signal(signal.SIGSTOP)

        with pytest.raises(Locked) as caught, getattr(locks, words[0])(*words[1:], wait_s=0.2):
            pass

        assert f"git-khlone new (pid {holder.process.pid})" in str(caught.value.facts["holder"])
        holder.process.send_signal(signal.SIGCONT)
        assert holder.still_holds()


def test_who_waits_says_for_whom_and_goes_on_when_it_is_free(folder: Path, locks: Locks) -> None:
    told: list[str] = []

    with held_elsewhere(folder, "repository") as holder:

        def told_of(text: str) -> None:
            told.append(text)
            holder.kill()

        with locks.repository(wait_s=TIMEOUT_S, told=told_of) as held:
            held.verify()

    assert [re.sub(r" since .*", "", line) for line in told] == [
        f"waiting for the repository, held by git-khlone new (pid {holder.process.pid})"
    ]


def test_a_lock_that_was_given_up_can_be_taken_again_and_its_file_stays(folder: Path, locks: Locks) -> None:
    inodes = set()
    for _ in range(3):
        with locks.repository() as held:
            inodes.add(os.fstat(held.descriptor).st_ino)

    assert inodes == {os.stat(folder / "repository.lock").st_ino}


def test_a_descriptor_that_a_child_inherited_keeps_the_lock_when_its_parent_is_killed(
    folder: Path, locks: Locks
) -> None:
    with held_elsewhere(folder, "operation", "orphan") as holder:
        orphan = int(holder.says())
        assert holder.says() == "held"
        holder.kill()

        kept = locks.try_operation("one")
        os.kill(orphan, signal.SIGKILL)
        held = taken_when_free(locks, "one")

    assert kept is None
    held.release()


def taken_when_free(locks: Locks, clone_id: str) -> HeldLock:
    """Try until a lock is free, which is as soon as the kernel has torn its holder down."""
    while True:
        held = locks.try_operation(clone_id)
        if held is not None:
            return held
        os.sched_yield()


def test_the_holder_that_is_named_is_printable(folder: Path) -> None:
    locks = Locks(folder, command="evil\x1b[31m\n")
    held = locks.try_operation("one")
    assert held is not None

    assert locks.operation_holder("one").startswith("evil[31m (pid ")
    held.release()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/usr/bin/git-khlone", "-C", "project", "--json", "merge", "secret"], "git-khlone merge"),
        (["khlone"], "khlone"),
        (["khlone", "--json", "token=abc"], "khlone"),
    ],
)
def test_a_holder_is_known_by_its_verb_and_nothing_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", words)
    locks = Locks(folder)
    held = locks.try_operation("one")
    assert held is not None

    assert locks.operation_holder("one").startswith(f"{command} (pid {os.getpid()}) since ")
    held.release()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("{host}/{namespace}", "git-khlone new (pid 1) since now"),
        ("{host}/7", "git-khlone new (pid 1 in another pid namespace) since now"),
        ("{host}/0", "git-khlone new (pid 1) since now"),
        ("farhost/{namespace}", "git-khlone new (pid 1 on farhost) since now"),
    ],
)
def test_a_pid_that_does_not_count_here_is_named_with_where_it_does(
    folder: Path, locks: Locks, place: str, told: str
) -> None:
    folder.mkdir(mode=0o700)
    here = place.format(host=os.uname().nodename, namespace=os.stat("/proc/self/ns/pid").st_ino)
    locks.operation_path("one").write_text(f"git-khlone new (pid 1) since now at {here}".ljust(200) + "\n")

    assert locks.operation_holder("one") == told
    assert locks.operation_holder_pid("one") == (1 if "(pid 1)" in told else None)


def test_a_holder_of_an_older_khlone_is_named_as_it_wrote_itself(folder: Path, locks: Locks) -> None:
    folder.mkdir(mode=0o700)
    locks.operation_path("one").write_text("git-khlone new (pid 1) since now".ljust(200) + "\n")

    assert locks.operation_holder("one") == "git-khlone new (pid 1) since now"


def test_nobody_is_named_where_nobody_wrote(folder: Path, locks: Locks) -> None:
    assert locks.operation_holder("one") == "another process"


def test_locks_of_different_targets_do_not_meet(folder: Path, locks: Locks) -> None:
    odd = os.fsdecode(b"caf\xe9/x")

    with (
        held_elsewhere(folder, "landing", "main"),
        locks.landing(odd, wait_s=0.0),
        Locks(folder).landing("x", wait_s=0),
    ):
        names = {path.name for path in folder.iterdir()}

    assert len(names) == 3
    assert all(re.fullmatch(r"landing-[0-9a-f]{16}\.lock", name) for name in names)


# -- one at a time -------------------------------------------------------------------------

COUNT = """
import contextlib, os, sys, time
from pathlib import Path
from khlone.locks import Locks
locks, counter, is_locked = Locks(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3] == "locked"
sys.stdin.readline()
for number in range(40):
    with locks.repository() if is_locked else contextlib.nullcontext():
        before = int(counter.read_text() or 0)
        if number == 0 and not is_locked:
            # Nobody writes before all have read: they need not meet by chance.
            counter.with_name(f"has-read-{os.getpid()}").touch()
            while len(list(counter.parent.glob("has-read-*"))) < 4:
                time.sleep(0.01)
        counter.write_text(str(before + 1))
"""


def counted(folder: Path, counter: Path, how: str) -> int:
    """What four processes count to that each add forty, one by one."""
    counter.write_text("0")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, str(folder), str(counter), how],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=TIMEOUT_S)
    return int(counter.read_text() or 0)


def test_processes_that_hold_the_lock_in_turn_lose_no_change(folder: Path, tmp_path: Path) -> None:
    assert counted(folder, tmp_path / "counter", "locked") == 160
    assert counted(folder, tmp_path / "counter", "unlocked") != 160, "the control must lose some"


def test_threads_of_one_process_exclude_each_other(locks: Locks) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(10):
            with locks.repository():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                os.sched_yield()
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]


# -- lock files that are not what they were ------------------------------------------------


@pytest.mark.parametrize("how", ["unlinked", "replaced", "linked"])
def test_a_holder_notices_that_its_lock_file_is_not_there_any_more(folder: Path, locks: Locks, how: str) -> None:
    with locks.repository() as held:
        held.verify()
        path = folder / "repository.lock"
        path.rename(folder / "old")
        if how == "replaced":
            path.write_text("")
        elif how == "linked":
            path.symlink_to(folder / "old")

        with pytest.raises(LockLost):
            held.verify()


def test_of_two_holders_of_an_unlinked_lock_the_first_knows(folder: Path, locks: Locks) -> None:
    first = locks.try_operation("one")
    assert first is not None
    (folder / "clone-one.lock").unlink()

    second = locks.try_operation("one")

    assert second is not None
    second.verify()
    with pytest.raises(LockLost):
        first.verify()
    first.release()
    second.release()


def test_plain_file_locks_let_two_in_and_neither_knows(tmp_path: Path) -> None:
    first, second = (filelock.FileLock(tmp_path / "lock", thread_local=False) for _ in range(2))

    with first.acquire(timeout=0):
        (tmp_path / "lock").unlink()
        with second.acquire(timeout=0):
            assert first.is_locked
            assert second.is_locked


@pytest.mark.parametrize("make", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_never_locked(folder: Path, locks: Locks, tmp_path: Path, make: str) -> None:
    folder.mkdir(0o700)
    path, theirs = folder / "clone-one.lock", tmp_path / "theirs"
    if make == "link":
        theirs.write_text("theirs")
    if make in ("link", "dangling"):
        path.symlink_to(theirs)
    elif make == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = tree(tmp_path)

    with pytest.raises(StateUnsafe) as caught:
        locks.try_operation("one")

    assert caught.value.facts["path"] == str(path)
    assert tree(tmp_path) == before
    assert locks.operation_holder("one") == "another process"


def test_a_folder_that_others_may_write_to_is_refused(folder: Path, locks: Locks) -> None:
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(StateUnsafe, match="others may write"):
        locks.try_operation("one")


TRY = """
import sys
from pathlib import Path
from khlone.errors import KhloneError
from khlone.locks import Locks
try:
    print(Locks(Path(sys.argv[1])).try_operation("one"))
except KhloneError as error:
    print(error.code)
    print(error)
"""


@pytest.mark.needs_root
@pytest.mark.parametrize("closed", ["locks", "above"])
def test_a_folder_that_may_not_be_written_to_is_told(folder: Path, tmp_path: Path, closed: str) -> None:
    if closed == "locks":
        folder.mkdir(0o500)
    else:
        tmp_path.chmod(0o500)

    # Without these two even root is bound by the modes of its own files, as anyone is.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run([*bound, sys.executable, "-c", TRY, str(folder)], capture_output=True, text=True, check=True)

    code, message = done.stdout.splitlines()
    assert code == "not-permitted"
    assert str(folder) in message


# -- systems without locks -----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_kernel_locks_nothing_is_locked_in_another_way(
    folder: Path, locks: Locks, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)

    with pytest.raises(NotPermitted, match="no file locks"):
        locks.try_operation("one")


@pytest.mark.needs_strace
def test_a_kernel_without_locks_is_told_and_nothing_is_locked_in_another_way(folder: Path) -> None:
    traced = ["strace", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOSYS"]

    done = subprocess.run([*traced, sys.executable, "-c", TRY, str(folder)], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[0] == "not-permitted"
    assert "no file locks" in done.stdout
    assert done.stderr == ""


# -- their order ---------------------------------------------------------------------------


def test_locks_nest_in_their_order(locks: Locks) -> None:
    first, second = locks.try_operation("a"), locks.try_operation("b")
    assert first is not None
    assert second is not None

    with locks.landing("main") as landing, locks.repository() as repository:
        for held in (first, second, landing, repository):
            held.verify()

    first.release()
    second.release()


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (("repository",), ("landing", "main")),
        (("repository",), ("repository",)),
        (("landing", "main"), ("landing", "main")),
        (("landing", "main"), ("landing", "other")),
    ],
)
def test_another_order_is_a_bug_that_shows_at_once(
    locks: Locks, outer: tuple[str, ...], inner: tuple[str, ...]
) -> None:
    def nest() -> None:
        with getattr(locks, outer[0])(*outer[1:]), getattr(locks, inner[0])(*inner[1:]):
            pass

    with pytest.raises(RuntimeError, match="was wanted inside"):
        nest()

    with getattr(locks, inner[0])(*inner[1:], wait_s=0.0) as held:
        held.verify()


def test_the_order_is_kept_for_each_thread_alone(locks: Locks) -> None:
    taken = []

    def land() -> None:
        with locks.landing("main", wait_s=TIMEOUT_S) as held:
            held.verify()
            taken.append("landing")

    with locks.repository():
        thread = threading.Thread(target=land)
        thread.start()
        thread.join()

    assert taken == ["landing"]


# -- sweeping ------------------------------------------------------------------------------


def test_locks_of_unknown_clones_go_unless_somebody_holds_them(folder: Path, locks: Locks) -> None:
    held = {name: locks.try_operation(name) for name in ("held", "known", "gone")}
    for name in ("known", "gone"):
        found = held[name]
        assert found is not None
        found.release()

    swept = Locks(folder).sweep_operations(lambda clone_id: clone_id != "known")

    assert swept == 1
    assert sorted(path.name for path in folder.iterdir()) == ["clone-held.lock", "clone-known.lock"]


@pytest.mark.parametrize("compared", [True, False])
def test_who_opened_a_lock_before_it_was_swept_does_not_hold_it_beside_another(
    folder: Path, locks: Locks, monkeypatch: pytest.MonkeyPatch, compared: bool
) -> None:
    """The control: without the comparison of inodes both hold it."""
    first = locks.try_operation("one")
    assert first is not None
    first.release()
    if not compared:
        monkeypatch.setattr(HeldLock, "verify", lambda _: None)
    real, others = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        assert Locks(folder).sweep_operations(lambda _: True) == 1
        others.append(Locks(folder).try_operation("one"))
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)

    late = locks.try_operation("one")

    assert others[0] is not None
    assert (late is None) == compared
