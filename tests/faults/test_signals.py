"""An interruption ends the command and what it runs, says how, and is never a trace of khlone's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.commands.steps import new, show
from tests.support import KHLONE, TIMEOUT_S, Khlone

#: Interrupts its whole process group, khlone too, as the terminal does, when it has begun.
INTERRUPTS = "trap '' INT; kill -INT 0; trap - INT; kill -INT $$"


def in_a_group(words: Sequence[str], where: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run khlone as the leader of a process group of its own."""
    return subprocess.run(
        [KHLONE, *words],
        cwd=where,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def interrupting(tmp_path: Path, code: str) -> str:
    """A folder for PYTHONPATH whose `sitecustomize` has `interrupt()` and runs `code`."""
    folder = tmp_path / "interrupting"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, signal, sys\n\ndef interrupt():\n    os.kill(os.getpid(), signal.SIGINT)\n\n" + code
    )
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


# -- a child on the terminal ---------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("exec", "a", "--"), ("new", "b", "-x"), ("new", "b", "-n", "2", "-x")], ids=["exec", "new", "new -n"]
)
def test_ctrl_c_that_ends_the_child_is_told_by_130(khlone: Khlone, project: Path, words: Sequence[str]) -> None:
    new(khlone, project, "a")

    done = in_a_group((*words, "sh", "-c", f"echo begun; {INTERRUPTS}"), project)

    assert (done.returncode, done.stdout.count(b"begun")) == (130, 1)
    assert b"Traceback" not in done.stderr


def test_ctrl_c_between_the_end_of_the_child_and_the_news_of_it_loses_no_status(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    new(khlone, project, "a")
    # After each wait that has news, as a signal that came in its last moment would be seen.
    code = (
        "def late(wait):\n"
        "    def call(*given):\n"
        "        found = wait(*given)\n"
        "        if os.path.exists('ended') and found and found != (0, 0):\n"
        "            interrupt()\n"
        "        return found\n"
        "    return call\n\n"
        "os.waitpid, os.waitid = late(os.waitpid), late(os.waitid)\n"
    )

    done = in_a_group(
        ("exec", "a", "--", "sh", "-c", f"touch {project}/ended; exit 7"),
        project,
        PYTHONPATH=interrupting(tmp_path, code),
    )

    assert done.returncode == 7, done.stderr
    assert b"Traceback" not in done.stderr


def test_a_child_that_answers_ctrl_c_itself_ends_the_command_as_it_ends(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")

    done = in_a_group(("exec", "a", "--", "sh", "-c", "trap 'exit 9' INT; kill -INT 0"), project)

    assert (done.returncode, done.stderr) == (9, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_another_signal_reaches_the_child_and_is_told(
    khlone: Khlone, project: Path, tmp_path: Path, number: signal.Signals
) -> None:
    new(khlone, project, "a")
    script = f"trap 'echo {number.name} > {tmp_path}/got; exit 0' {number.name[3:]}; kill -{number.name[3:]} $PPID; "

    done = in_a_group(("exec", "a", "--", "sh", "-c", script + "while :; do sleep 0.1; done"), project)

    assert done.returncode == 128 + number
    assert (tmp_path / "got").read_text() == f"{number.name}\n"


def test_an_interrupt_that_reaches_khlone_alone_is_passed_on(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")

    done = in_a_group(("exec", "a", "--", "sh", "-c", "kill -INT $PPID; while :; do sleep 0.1; done"), project)

    assert (done.returncode, done.stderr) == (130, b"")


# -- children with captured output ---------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(
    "words", [("exec", "a", "--json", "--"), ("exec", "--all", "--"), ("new", "b", "--json", "-x")]
)
def test_an_interruption_leaves_no_captured_child(
    khlone: Khlone, project: Path, tmp_path: Path, words: Sequence[str], again: bool
) -> None:
    for name in ("a", "c"):
        new(khlone, project, name)
    # What one leaves in the background, deaf to TERM, counts too: each holds the pipe open.
    os.mkfifo(tmp_path / "alive")
    both = os.open(tmp_path / "alive", os.O_RDWR)
    reader = os.open(tmp_path / "alive", os.O_RDONLY)
    deaf = "sh -c 'trap \"\" TERM; echo begun >&3; while :; do sleep 1; done'"
    script = f'exec 3> "$0"; trap "echo ended >&3" TERM; {deaf} & wait; wait'

    child = subprocess.Popen(
        [KHLONE, *words, "sh", "-c", script, str(tmp_path / "alive")],
        cwd=project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    begun = os.read(reader, 6)
    child.send_signal(signal.SIGINT)
    if again:
        said = b""
        while b"ended" not in said:
            said += os.read(reader, 100)
        child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=TIMEOUT_S)
    os.close(both)
    while os.read(reader, 100):
        """Until the last of them has closed it."""
    os.close(reader)

    assert begun == b"begun\n"
    assert child.returncode == 130
    assert b"Traceback" not in err
    assert show(khlone, project, "a")["sessions"] == []


# -- before and after the work -------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "module"),
    [
        *((verb, module) for verb in ("list", "log") for module in ("khlone.context", "khlone.errors", "json")),
        ("list", "khlone.app"),
        ("log", "khlone.parser"),
        ("log", "khlone.commands.log"),
    ],
)
def test_an_interruption_at_the_start_ends_it_without_a_word(
    project: Path, tmp_path: Path, verb: str, module: str
) -> None:
    code = (
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            interrupt()\n"
        "sys.meta_path.insert(0, Finder())\n"
    )

    done = in_a_group((verb,), project, PYTHONPATH=interrupting(tmp_path, code))

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_interruption_at_the_very_end_ends_it_without_a_word(project: Path, tmp_path: Path) -> None:
    done = in_a_group(
        ("list",), project, PYTHONPATH=interrupting(tmp_path, "import atexit\natexit.register(interrupt)\n")
    )

    assert (done.returncode, done.stderr) == (130, b"khlone: no clones yet; make one with git khlone new NAME\n")


def test_an_interruption_that_the_caller_had_ignored_stays_ignored(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    new(khlone, project, "a")
    ignoring: Callable[[], object] = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731

    done = subprocess.run(
        [KHLONE, "exec", "a", "--json", "--", "sh", "-c", "kill -INT $PPID"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=ignoring,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0
    assert json.loads(done.stdout)["results"][0]["exit"] == 0
