"""Who is who after a reboot, a reused pid, in another container, on another host: the lock decides, no pid does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from khlone import procfs, sessions, values
from khlone.model import utc_now
from khlone.registry import Registry, SessionRecord
from tests.commands.steps import clone_names, document, footprint, new, refused, show
from tests.faults.lab import open_operations, registry, rows, run, start, stopped, wait_until
from tests.support import KHLONE, Git, Khlone

OTHER_BOOT = "11111111-2222-3333-4444-555555555555"
FOREIGN = "UPDATE operations SET host = 'farhost', boot_id = ? WHERE ended_at IS NULL"
#: The number of the pid namespace that all others are in.
OUTERMOST = 0xEFFFFFFC
IN_A_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c", '"$@"; exit $?', "sh")
IN_A_NAMESPACE_WITHOUT_PROC = tuple(word for word in IN_A_NAMESPACE if word != "--mount-proc")


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any clone."""
    child = subprocess.Popen(["sleep", "600"], cwd=tmp_path)
    yield child
    child.kill()
    child.wait()


def _kill_a_create(khlone: Khlone, project: Path) -> None:
    assert khlone("new", "half", cwd=project, env={"KHLONE_FAULT": "create.checked-out"}).code == -signal.SIGKILL
    assert open_operations(project) == [("create", "half")]


def _record_session(project: Path, pid: int, *, ticks: int | None, boot: str | None) -> None:
    rows(
        project,
        """INSERT INTO sessions (id, clone, pid, start_ticks, boot_id, host, state, command, started_at)
        SELECT 's1', id, ?, ?, ?, ?, 'running', '["sleep"]', created_at FROM clones WHERE name = 'a'""",
        pid,
        ticks,
        boot,
        os.uname().nodename,
    )


# -- containers and hosts ------------------------------------------------------------------


def test_what_another_container_of_this_kernel_began_is_recovered(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    _kill_a_create(khlone, project)
    rows(project, "UPDATE operations SET host = '0a1b2c3d4e5f', pid = 1")

    fixed = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert [(one["code"], one["fixed"]) for one in fixed] == [("interrupted-operation", True)]
    assert open_operations(project) == []
    assert footprint(git, project) == before


def test_what_another_container_still_does_is_left_alone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    child = stopped(["new", "half"], point="create.checked-out", cwd=project)
    rows(project, "UPDATE operations SET host = '0a1b2c3d4e5f' WHERE ended_at IS NULL")

    found = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]
    os.kill(child.pid, signal.SIGCONT)

    assert found == []
    assert child.wait() == 0
    assert clone_names(khlone, project) == ["a", "half"]


@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "a"), ("merge", "a"), ("prune",), ("doctor", "--fix")])
def test_what_another_host_began_is_left_to_it_and_the_host_and_the_way_out_named(
    khlone: Khlone, git: Git, project: Path, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    _kill_a_create(khlone, project)
    rows(project, FOREIGN, OTHER_BOOT)
    files = sorted(project.with_name("project.clones").joinpath("half").rglob("*"))

    done = khlone(*verb, cwd=project)

    assert done.code == 0, done.err
    assert "farhost" in done.err
    assert "--host-gone farhost" in done.err
    assert open_operations(project) == [("create", "half")]
    assert sorted(project.with_name("project.clones").joinpath("half").rglob("*")) == files
    assert "refs/heads/half" in git("for-each-ref", cwd=project)


def test_the_name_that_another_host_works_on_is_taken(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    _kill_a_create(khlone, project)
    rows(project, FOREIGN, OTHER_BOOT)

    refused(khlone("new", "half", "--json", cwd=project), "clone-exists")


def test_doctor_names_what_another_host_began_and_mends_it_when_told_that_the_host_is_gone(
    khlone: Khlone, git: Git, project: Path
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    _kill_a_create(khlone, project)
    rows(project, FOREIGN, OTHER_BOOT)

    seen = document(khlone("doctor", "--json", cwd=project), "doctor")["findings"]
    of_another = document(khlone("doctor", "--fix", "--host-gone", "nearhost", "--json", cwd=project), "doctor")
    left = open_operations(project)
    told = document(khlone("doctor", "--fix", "--host-gone", "farhost", "--json", cwd=project), "doctor")

    assert [(one["code"], one["severity"], one["clone"]) for one in seen] == [("begun-elsewhere", "warning", "half")]
    assert "--host-gone farhost" in seen[0]["fix"]
    assert of_another["findings"] == seen
    assert left == [("create", "half")]
    assert [(one["code"], one["fixed"]) for one in told["findings"]] == [("interrupted-operation", True)]
    assert footprint(git, project) == before


def test_a_host_is_gone_only_where_something_may_be_mended(khlone: Khlone, project: Path) -> None:
    refused(khlone("doctor", "--host-gone", "farhost", "--json", cwd=project), "usage", 2)


# -- pid namespaces ------------------------------------------------------------------------


@pytest.mark.needs_root
def test_a_holder_in_another_pid_namespace_keeps_its_clone(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    fault = {"KHLONE_FAULT": "create.checked-out:stop"}
    child = start(["new", "half"], cwd=project, env=fault, wrap=IN_A_NAMESPACE)
    try:
        wait_until(lambda: project.with_name("project.clones").joinpath("half/notes.txt").exists() and _any_stopped())
        alone = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]
        held = open_operations(project)
        refusal = document(khlone("remove", "half", "--json", cwd=project), "remove", 75)["kept"]
    finally:
        child.kill()
        child.wait()
    wait_until(lambda: not _any_stopped())

    told = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]
    mended = document(khlone("doctor", "--fix", "--json", cwd=project), "doctor")["findings"]

    assert alone == []
    assert held == [("create", "half")]
    # The holder's own number, which here is that of init.
    assert [one["code"] for one in refusal] == ["clone-busy"]
    assert re.search(r"new \(pid \d+ in another pid namespace\)", refusal[0]["message"]), refusal
    assert re.search(r"\(pid \d+ in another pid namespace\) is gone", told[0]["message"]), told
    assert [(one["code"], one["fixed"]) for one in mended] == [("interrupted-operation", True)]
    assert footprint(git, project) == before


def _any_stopped() -> bool:
    """Whether the khlone that makes `half` has stopped itself."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            words = status.with_name("cmdline").read_bytes().split(b"\0")
            if b"half" in words and os.fsencode(KHLONE) in words and b"\nState:\tT" in status.read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.mark.needs_root
def test_inside_a_pid_namespace_a_holder_outside_keeps_its_clone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    child = stopped(["new", "half"], point="create.checked-out", cwd=project)

    inside = start(["doctor", "--fix"], cwd=project, wrap=IN_A_NAMESPACE)
    code = inside.wait()
    held = open_operations(project)
    os.kill(child.pid, signal.SIGCONT)

    assert code == 0
    assert held == [("create", "half")]
    assert child.wait() == 0
    assert clone_names(khlone, project) == ["a", "half"]


def _state_and_removal(khlone: Khlone, project: Path) -> tuple[str, dict[str, Any]]:
    (shown,) = show(khlone, project, "a")["sessions"]
    done = khlone("remove", "a", "--json", cwd=project)
    return shown["state"], document(done, "remove", done.code)


@pytest.fixture
def crowded() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Somebody in another pid namespace, to be killed, and the number of that."""
    child = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"])
    found: list[int] = []

    def is_there() -> bool:
        for place in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            found.append(os.stat(f"/proc/{place}/ns/pid").st_ino)
        return bool(found)

    wait_until(is_there)
    assert found[0] != procfs.pid_namespace()
    yield child, found[0]
    child.kill()
    child.wait()


def _record_gone(khlone: Khlone, project: Path, *, namespace: int | None, host: str | None = None) -> None:
    """A session of `a` in such a pid namespace whose number nobody has here."""
    child = subprocess.Popen(["true"])
    gone = values.replace(sessions.identity(child.pid), pid_namespace=namespace)
    child.wait()
    known = Registry(registry(project))
    record = SessionRecord(
        id="s1",
        clone_id=show(khlone, project, "a")["id"],
        owner=gone if host is None else values.replace(gone, host=host),
        state="running",
        command=("sleep",),
        started_at=utc_now(),
    )
    with known.transaction() as change:
        change.start_session(record)
    known.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("host", [None, "c0ffee"])
def test_a_session_of_a_container_is_lost_once_nobody_is_in_its_pid_namespace(
    khlone: Khlone, project: Path, crowded: tuple[subprocess.Popen[bytes], int], host: str | None
) -> None:
    """Not before, and not for who sees a part of the machine's processes only."""
    new(khlone, project, "a")
    container, namespace = crowded
    _record_gone(khlone, project, namespace=namespace, host=host)
    before, kept = _state_and_removal(khlone, project)

    container.kill()
    container.wait()
    wait_until(lambda: not _is_anybody_in(namespace))
    inside = document(run(*IN_A_NAMESPACE, str(KHLONE), "remove", "a", "--json", cwd=project), "remove", 1)["kept"]
    state, _ = _state_and_removal(khlone, project)

    assert (before, [one["code"] for one in kept["kept"]]) == ("running", ["session-live"])
    assert [one["code"] for one in inside] == ["session-live"]
    # Where this test itself runs in a container it cannot be told.
    is_seen = procfs.pid_namespace() == OUTERMOST
    assert state == ("lost" if is_seen else "running")
    assert clone_names(khlone, project) == ([] if is_seen else ["a"])


def _is_anybody_in(namespace: int) -> bool:
    """Whether a process is in a pid namespace, as far as it can be seen."""
    for place in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):
            if place.stat().st_ino == namespace:
                return True
    return False


@pytest.mark.parametrize("namespace", ["another", "ours", "unknown"])
def test_a_session_in_another_pid_namespace_cannot_be_told_and_so_is_not_dead(
    khlone: Khlone, project: Path, namespace: str
) -> None:
    """The controls: the same row with the namespace that asks, or none, is that of a dead process."""
    path = new(khlone, project, "a")
    _record_gone(khlone, project, namespace={"another": 1, "ours": procfs.pid_namespace()}.get(namespace))
    if namespace == "another":
        # Under a kernel that tells no boot nobody knows whether the namespace was one of this one.
        rows(project, "UPDATE sessions SET boot_id = NULL")

    state, removal = _state_and_removal(khlone, project)

    if namespace == "another":
        assert state == "running"
        assert [(one["name"], one["code"]) for one in removal["kept"]] == [("a", "session-live")]
        assert "in another pid namespace" in removal["kept"][0]["message"]
        forced = khlone("remove", "--force", "a", cwd=project)
        assert forced.code == 0
        assert "in another pid namespace may still work in a" in forced.err
    else:
        assert (state, removal["kept"]) == ("lost", [])
    assert not path.exists()


@pytest.mark.needs_root
@pytest.mark.parametrize("way", [IN_A_NAMESPACE, IN_A_NAMESPACE_WITHOUT_PROC], ids=["proc", "no proc of its own"])
def test_inside_a_pid_namespace_a_session_outside_keeps_its_clone(
    khlone: Khlone, project: Path, tmp_path: Path, way: Sequence[str]
) -> None:
    path = new(khlone, project, "a")
    # It works elsewhere by now and without the clone's variables: its row alone tells of it.
    child = start(["exec", "a", "--", "env", "-i", "/bin/sleep", "600"], cwd=project)
    try:
        wait_until(lambda: rows(project, "SELECT 1 FROM sessions WHERE state = 'running'"))
        inside = run(*way, str(KHLONE), "remove", "a", "--json", cwd=project)
        there = path.exists()
        rows(project, "UPDATE sessions SET pid_namespace = NULL")
        control = run(*IN_A_NAMESPACE, str(KHLONE), "remove", "a", "--json", cwd=project)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    kept = document(inside, "remove", 1)["kept"]
    assert [(one["name"], one["code"]) for one in kept] == [("a", "session-live")]
    assert there
    assert document(control, "remove")["kept"] == [], "control: nobody knows of the namespace, and it is removed"


# -- reboots and reused pids ---------------------------------------------------------------


def test_after_a_reboot_what_was_begun_is_recovered_though_its_pid_lives(
    khlone: Khlone, git: Git, project: Path, stranger: subprocess.Popen[bytes]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    _kill_a_create(khlone, project)
    rows(project, "UPDATE operations SET boot_id = ?, pid = ?", OTHER_BOOT, stranger.pid)

    done = khlone("doctor", "--fix", cwd=project)

    assert done.code == 0, done.out
    assert footprint(git, project) == before
    assert stranger.poll() is None


@pytest.mark.parametrize("how", ["boot", "ticks"])
def test_a_process_that_only_has_the_pid_of_a_session_is_neither_in_the_way_nor_ended(
    khlone: Khlone, project: Path, stranger: subprocess.Popen[bytes], how: str
) -> None:
    new(khlone, project, "a")
    ticks, boot = sessions.start_ticks(stranger.pid), sessions.boot_id()
    assert ticks is not None
    if how == "boot":
        boot = OTHER_BOOT
    else:
        ticks -= 1
    _record_session(project, stranger.pid, ticks=ticks, boot=boot)

    plain = document(khlone("remove", "a", "--json", cwd=project), "remove")

    assert plain["kept"] == []
    assert stranger.poll() is None


@pytest.mark.parametrize("how", ["boot", "ticks"])
def test_force_ends_no_process_that_only_has_the_pid_of_a_session(
    khlone: Khlone, project: Path, stranger: subprocess.Popen[bytes], how: str
) -> None:
    new(khlone, project, "a")
    ticks, boot = sessions.start_ticks(stranger.pid), sessions.boot_id()
    assert ticks is not None
    changed = (ticks, OTHER_BOOT) if how == "boot" else (ticks + 1, boot)
    _record_session(project, stranger.pid, ticks=changed[0], boot=changed[1])

    done = khlone("remove", "--force", "a", cwd=project)

    assert done.code == 0, done.err
    assert stranger.poll() is None


def test_the_process_of_a_session_itself_is_in_the_way_and_ended_by_force(
    khlone: Khlone, project: Path, stranger: subprocess.Popen[bytes]
) -> None:
    """The control: the same row with the process's own start."""
    new(khlone, project, "a")
    _record_session(project, stranger.pid, ticks=sessions.start_ticks(stranger.pid), boot=sessions.boot_id())

    kept = document(khlone("remove", "a", "--json", cwd=project), "remove", 1)["kept"]
    forced = khlone("remove", "--force", "a", cwd=project)

    assert [one["code"] for one in kept] == ["session-live"]
    assert forced.code == 0, forced.err
    assert stranger.wait() == -signal.SIGTERM


#: As init of a pid namespace of its own: a session is killed with its khlone, another process gets its very pid.
REUSED = """
import os, pathlib, signal, sqlite3, subprocess, sys, time
khlone, registry, project = sys.argv[1:]
TICK = 1 / os.sysconf("SC_CLK_TCK")
runner = subprocess.Popen([khlone, "exec", "a", "--", "sleep", "600"], cwd=project)
while True:
    row = sqlite3.connect(registry).execute("SELECT pid, state FROM sessions").fetchone()
    if row and row[1] == "running":
        break
    time.sleep(0.01)
pid = row[0]
runner.kill()
runner.wait()
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
# A start is told in ticks: within the tick of its birth nothing tells one process from the next of the same pid.
gone = time.clock_gettime(time.CLOCK_BOOTTIME)
while time.clock_gettime(time.CLOCK_BOOTTIME) < gone + 2 * TICK:
    time.sleep(TICK)
for _ in range(1000):
    pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    stranger = subprocess.Popen(["sleep", "600"], cwd="/")
    if stranger.pid == pid:
        break
    stranger.kill()
    stranger.wait()
assert stranger.pid == pid, "the pid was not born again"
done = subprocess.run([khlone, "remove", "--force", "a"], cwd=project)
print("reused", done.returncode, stranger.poll())
"""


@pytest.mark.needs_root
def test_a_pid_that_is_born_again_is_not_signalled(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    wrap = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]

    done = subprocess.run(
        [*wrap, sys.executable, "-c", REUSED, str(KHLONE), str(registry(project)), str(project)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout.splitlines()[-1:] == ["reused 0 None"], done.stderr
    assert clone_names(khlone, project) == []
