"""A program is run to its end, whatever it leaves running, holds open or writes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import process
from khlone.errors import CommandNotFound, GitMissing
from tests.support import Git

SHELL = "/bin/sh"
#: No call of these tests takes this long unless it hangs.
LONG_S = 100.0


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[int]:
    """The reading end of `tmp_path / "fifo"`: at its end once every process that holds the other end is gone."""
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def holders_are_gone(descriptor: int) -> bool:
    """Wait until nobody holds the writing end any more."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        if not poller.poll(LONG_S * 1000):
            return False
        if not os.read(descriptor, 4096):
            return True


def first_line(descriptor: int) -> str:
    """Wait for a line that somebody writes into the FIFO."""
    select.select([descriptor], [], [], LONG_S)
    return os.read(descriptor, 4096).decode().strip()


# -- the environment -----------------------------------------------------------------------


def test_scrubbing_removes_every_name_that_git_ties_to_a_repository(git: Git, tmp_path: Path) -> None:
    names = git("rev-parse", "--local-env-vars", cwd=tmp_path).split()

    kept = process.scrubbed({**dict.fromkeys(names, "x"), "GIT_CONFIG_KEY_0": "a", "GIT_CONFIG_VALUE_0": "b"})

    assert "GIT_DIR" in names
    assert kept == {}


def test_scrubbing_removes_what_git_gives_to_its_hooks(git: Git, repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "-b", "side", str(linked), cwd=repository)
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\n")
    hook.chmod(0o755)
    git("commit", "-q", "--allow-empty", "-m", "x", cwd=linked)
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)

    kept = process.scrubbed(seen)

    assert {"GIT_DIR", "GIT_INDEX_FILE"} <= set(seen)
    assert {name for name in kept if name.startswith("GIT_")} <= {
        *(name for name in os.environ if name.startswith("GIT_")),
        *("GIT_EXEC_PATH", "GIT_AUTHOR_DATE", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_NAME"),
    }
    assert subprocess.run(
        ["git", "rev-parse", "--show-toplevel"], cwd=repository, env=kept, capture_output=True, check=True, text=True
    ).stdout.strip() == str(repository)


def test_scrubbing_keeps_what_says_how_and_not_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -v")

    kept = process.scrubbed()

    assert "GIT_DIR" not in kept
    assert kept["GIT_SSH_COMMAND"] == "ssh -v"
    assert kept["GIT_CONFIG_GLOBAL"] == os.environ["GIT_CONFIG_GLOBAL"]
    assert os.environ["GIT_DIR"] == "/elsewhere"


@pytest.fixture
def no_cached_git() -> Iterator[None]:
    process.git_executable.cache_clear()
    yield
    process.git_executable.cache_clear()


def fake_git(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "git"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("no_cached_git")
def test_git_is_never_taken_from_a_relative_entry_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_git(tmp_path / "bin")
    fake_git(tmp_path / "here")
    trusted = fake_git(tmp_path / "trusted")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", os.pathsep.join([".", "", "../bin", "bin", str(trusted.parent)]))

    assert process.git_executable() == str(trusted)


@pytest.mark.usefixtures("no_cached_git")
@pytest.mark.parametrize("path", ["", ".", ".:bin:", "/nowhere"])
def test_without_git_in_an_absolute_entry_git_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    fake_git(tmp_path / "bin")
    monkeypatch.chdir(tmp_path / "bin")
    monkeypatch.setenv("PATH", path)

    with pytest.raises(GitMissing):
        process.git_executable()


# -- what goes in and comes out ------------------------------------------------------------


def test_status_and_both_streams_come_back() -> None:
    done = process.run([SHELL, "-c", "echo out; echo err >&2; exit 7"])

    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert not done.timed_out
    assert not done.truncated


def test_the_end_by_a_signal_is_told_as_its_negative_number() -> None:
    assert process.run([SHELL, "-c", "kill -KILL $$"]).status == -signal.SIGKILL


def test_undecodable_bytes_survive_in_the_text() -> None:
    done = process.run([SHELL, "-c", r"printf 'caf\351'; printf '\351' >&2"])

    assert os.fsencode(done.text) == b"caf\xe9"
    assert done.error_text == "�"


def test_the_environment_is_the_one_that_is_given() -> None:
    assert process.run(["/usr/bin/env"], environment={"ONLY": "this"}).stdout == b"ONLY=this\n"


@pytest.mark.parametrize("program", ["cat", "/bin/cat"])
def test_a_large_input_goes_round_while_the_output_is_read(program: str) -> None:
    content = os.urandom(1 << 20) * 16

    done = process.run([program], stdin=content, timeout_s=LONG_S)

    assert done.stdout == content


def test_an_input_that_is_not_read_is_no_error() -> None:
    done = process.run([SHELL, "-c", "exec <&-; echo done"], stdin=b"x" * (8 << 20), timeout_s=LONG_S)

    assert (done.status, done.stdout) == (0, b"done\n")


def test_without_input_a_program_reads_an_end_and_never_the_terminal() -> None:
    assert process.run(["cat"], timeout_s=LONG_S).stdout == b""


FLOOD = "import os\nfor _ in range(64):\n    os.write(1, b'o' * (1 << 20)); os.write(2, b'e' * (1 << 20))"


def test_output_beyond_the_bound_is_read_and_dropped() -> None:
    done = process.run([sys.executable, "-c", FLOOD], capture_bytes=1000, timeout_s=LONG_S)

    assert done.status == 0
    assert (done.stdout, done.stderr) == (b"o" * 1000, b"e" * 1000)
    assert done.truncated


def test_sixty_four_megabytes_on_both_streams_come_back_whole() -> None:
    done = process.run([sys.executable, "-c", FLOOD], timeout_s=LONG_S)

    assert (len(done.stdout), len(done.stderr)) == (64 << 20, 64 << 20)
    assert not done.truncated


def test_output_of_just_the_bound_is_not_called_truncated() -> None:
    assert not process.run(["printf", "12345"], capture_bytes=5).truncated
    assert process.run(["printf", "123456"], capture_bytes=5).truncated


@pytest.mark.parametrize("cwd", [None, Path("/")], ids=["spawned", "forked"])
def test_a_descriptor_that_is_kept_open_reaches_the_child_and_no_other_does(tmp_path: Path, cwd: Path | None) -> None:
    with open(tmp_path / "kept", "w") as kept, open(tmp_path / "other", "w") as other:
        os.set_inheritable(other.fileno(), True)

        code = f"import os; os.write({kept.fileno()}, b'yes'); os.write({other.fileno()}, b'no')"
        done = process.run([sys.executable, "-c", code], cwd=cwd, keep_open=[kept.fileno()])

    assert (tmp_path / "kept").read_text() == "yes"
    assert (tmp_path / "other").read_text() == ""
    assert "Bad file descriptor" in done.error_text


# -- what cannot be started ----------------------------------------------------------------


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandNotFound, match="'no-such-program': no such file"):
        process.run(["no-such-program"])


def test_a_program_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")

    with pytest.raises(CommandNotFound, match="permission denied"):
        process.run([str(tmp_path / "program")])


def test_a_folder_that_is_gone_is_named_and_not_blamed_on_the_program(tmp_path: Path) -> None:
    with pytest.raises(CommandNotFound, match=f"no such file or directory: {tmp_path}/gone"):
        process.run(["cat"], cwd=tmp_path / "gone")


def test_an_argument_that_no_program_can_have_is_refused() -> None:
    with pytest.raises(CommandNotFound, match="null"):
        process.run(["echo", "a\0b"])


def test_a_program_on_the_terminal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandNotFound, match="no-such-program"):
        process.start_foreground(["no-such-program"], cwd=tmp_path, environment={"PATH": "/usr/bin:/bin"})


# -- ending --------------------------------------------------------------------------------


def test_a_time_out_ends_grandchildren_that_ignore_the_polite_signal(tmp_path: Path, fifo: int) -> None:
    stubborn = f"trap '' TERM; exec 3>{tmp_path}/fifo; (trap '' TERM; while :; do sleep 1; done) & echo on; wait"

    done = process.run([SHELL, "-c", stubborn], timeout_s=1.0)

    assert done.timed_out
    assert done.status == -signal.SIGKILL
    assert done.stdout == b"on\n"
    assert holders_are_gone(fifo)


def test_a_time_out_lets_a_grandchild_clean_up_whose_parent_is_gone_at_once(tmp_path: Path, fifo: int) -> None:
    cleaning = (
        f"exec 3>{tmp_path}/fifo; trap 'sleep 0.3; echo cleaned >&3; exit' TERM; echo on; while :; do sleep 1; done"
    )

    done = process.run([SHELL, "-c", f"({cleaning}) & wait"], timeout_s=1.0)

    assert (done.timed_out, done.status) == (True, -signal.SIGTERM)
    assert first_line(fifo) == "cleaned"
    assert holders_are_gone(fifo)


def test_a_time_out_lets_a_program_end_by_itself(tmp_path: Path) -> None:
    done = process.run([SHELL, "-c", "trap 'echo bye; exit 3' TERM; sleep 60 & wait"], timeout_s=1.0)

    assert (done.status, done.stdout, done.timed_out) == (3, b"bye\n", True)


def test_a_time_out_is_kept_where_a_process_left_the_group_and_holds_the_output(tmp_path: Path, fifo: int) -> None:
    code = f"exec 3>{tmp_path}/fifo; setsid sh -c 'echo $$ >&3; exec sleep 600' & sleep 600"

    with ended_later(fifo) as escaped:
        done = process.run([SHELL, "-c", code], timeout_s=1.0)
        escaped.append(int(first_line(fifo)))

    assert done.timed_out


@contextlib.contextmanager
def ended_later(fifo: int) -> Iterator[list[int]]:
    """Processes whose pids are put into the list are ended when the block is left."""
    pids: list[int] = []
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert holders_are_gone(fifo)


@pytest.mark.parametrize("capture", [process.CAPTURE_BYTES, 1000])
def test_a_daemon_that_holds_the_output_is_not_waited_for(tmp_path: Path, fifo: int, capture: int) -> None:
    code = f"exec 3>{tmp_path}/fifo; sleep 600 & echo $! >&3; echo left"

    with ended_later(fifo) as left:
        done = process.run([SHELL, "-c", code], timeout_s=LONG_S, capture_bytes=capture)
        left.append(int(first_line(fifo)))

    assert done.status == 0
    assert b"left\n" in done.stdout
    assert not done.timed_out


def test_a_daemon_that_never_stops_talking_is_not_waited_for(tmp_path: Path, fifo: int) -> None:
    code = f"exec 3>{tmp_path}/fifo; yes & echo $! >&3"

    with ended_later(fifo) as left:
        done = process.run([SHELL, "-c", code], timeout_s=LONG_S, capture_bytes=1000)
        left.append(int(first_line(fifo)))

    assert (done.status, done.timed_out, done.truncated) == (0, False, True)


def test_what_a_program_says_last_is_not_lost_when_it_ends_at_once() -> None:
    outputs = {process.run(["printf", "x" * 5000]).stdout for _ in range(50)}

    assert outputs == {b"x" * 5000}


def test_a_program_that_closes_its_output_is_waited_for(tmp_path: Path, fifo: int) -> None:
    done = process.run([SHELL, "-c", f"exec >&- 2>&-; sleep 0.3; echo end >{tmp_path}/fifo; exit 4"], timeout_s=LONG_S)

    assert done.status == 4
    assert first_line(fifo) == "end"


class _Stopped(BaseException):
    """Stands for whatever interrupts a caller."""


def test_an_exception_ends_the_whole_group(tmp_path: Path, fifo: int) -> None:
    def interrupt(*_: object) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGUSR1, interrupt)
    caller = os.getpid()
    try:
        with pytest.raises(_Stopped):
            process.run(
                [SHELL, "-c", f"exec 3>{tmp_path}/fifo; sleep 600 & read go; kill -USR1 {caller}; wait"],
                stdin=b"go\n",
                timeout_s=LONG_S,
            )
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert holders_are_gone(fifo)


def test_a_group_is_ended_on_a_system_that_does_not_list_its_processes(
    tmp_path: Path, fifo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", hidden)
    child = subprocess.Popen(
        [SHELL, "-c", f"exec 3>{tmp_path}/fifo; trap '' TERM; echo on >&3; while :; do sleep 1; done"], process_group=0
    )
    assert first_line(fifo) == "on"

    process.end_group(child.pid, grace_s=0.05)

    assert child.wait(LONG_S) == -signal.SIGKILL
    assert holders_are_gone(fifo)


def test_many_threads_run_programs_at_once() -> None:
    results: dict[int, bytes] = {}

    def ask(number: int) -> None:
        results[number] = process.run(["printf", str(number)], timeout_s=LONG_S).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {number: str(number).encode() for number in range(12)}


def test_many_programs_answer_by_their_place_and_only_so_many_run_at_once(tmp_path: Path) -> None:
    on = f"{tmp_path}/on"
    code = f"echo x >{on}.$1; ls {on}.* 2>&- | wc -l; echo err$1 >&2; sleep 0.2; rm {on}.$1; exit $1"
    asked = [([SHELL, "-c", code, SHELL, str(number)], {"PATH": os.environ["PATH"]}) for number in range(8)]

    done = dict(process.run_many(asked, at_once=3, timeout_s=LONG_S))

    answers = [done[number] for number in range(8)]
    assert [isinstance(one, process.Completed) and one.status for one in answers] == list(range(8))
    assert [isinstance(one, process.Completed) and one.stderr for one in answers] == [
        f"err{number}\n".encode() for number in range(8)
    ]
    running = [int(one.stdout) for one in answers if isinstance(one, process.Completed)]
    assert 1 < max(running) <= 3


def test_one_of_many_that_cannot_be_started_is_an_answer_too(tmp_path: Path) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = [
        (["/bin/echo", "yes"], {}),
        ([str(tmp_path / "gone")], {}),
        (["/bin/echo", "too"], {}),
    ]

    done = dict(process.run_many(asked, at_once=2, timeout_s=LONG_S))

    assert isinstance(done[1], CommandNotFound)
    assert [isinstance(done[place], process.Completed) for place in (0, 2)] == [True, True]


def test_many_are_ended_with_their_groups_when_the_caller_stops(tmp_path: Path, fifo: int) -> None:
    code = f"exec 3>{tmp_path}/fifo; sleep 600 & wait"
    asked = [([SHELL, "-c", code], {"PATH": os.environ["PATH"]})] * 2 + [(["/bin/true"], {})]
    answers = process.run_many(asked, at_once=3, timeout_s=LONG_S)

    assert next(answers)[0] == 2
    answers.close()

    assert holders_are_gone(fifo)


def lowest_free_descriptor() -> int:
    """The number that the next descriptor gets."""
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def test_no_descriptor_is_left_open() -> None:
    before = lowest_free_descriptor()

    for _ in range(3):
        process.run(["true"], stdin=b"x")
        process.run(["/bin/true"], stdin=b"x")
        list(process.run_many([(["/bin/true"], {}), (["/bin/gone"], {})], at_once=2))
        process.run([SHELL, "-c", "sleep 60"], timeout_s=0.05)

    assert lowest_free_descriptor() == before
