"""What the tests of faults share: the registry without khlone, processes that stop, events waited for."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support import KHLONE, TIMEOUT_S, Done

WAIT_S = 60.0


def registry(project: Path) -> Path:
    """Where the registry of a repository with a `.git` folder lies."""
    return project / ".git" / "khlone" / "registry.sqlite3"


def rows(project: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """Ask or edit the registry's file, without khlone."""
    connection = sqlite3.connect(registry(project), timeout=20)
    try:
        with connection:
            return [tuple(row) for row in connection.execute(query, values)]
    finally:
        connection.close()


def open_operations(project: Path) -> list[tuple[object, ...]]:
    """(kind, name) of what has not ended."""
    return rows(project, "SELECT kind, name FROM operations WHERE ended_at IS NULL")


class Answer(Protocol):
    """How some command ended."""

    def json(self) -> dict[str, Any]: ...


def code_of(done: Answer) -> str:
    """The stable code of a failure, wherever the verb's document has it."""
    found = done.json()
    for key in ("failed", "kept", "held"):
        if found.get(key):
            return str(found[key][0]["code"])
    return str(found["code"])


def run(*argv: str, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """Run any command to its end, with nothing to read."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode(errors="replace"))


def start(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, wrap: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start khlone, perhaps inside another command, as a group of its own."""
    return subprocess.Popen(
        [*wrap, str(KHLONE), *argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for an event that cannot be blocked on."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            if os.readlink(f"/proc/{pid}/fd/{descriptor}") == str(path):
                return True
        except OSError:
            continue
    return False


def stopped(argv: Sequence[str], *, point: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start khlone and return when it has stopped itself at a fault point."""
    child = start(argv, cwd=cwd, env={"KHLONE_FAULT": f"{point}:stop"})
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached"
    return child


def leftovers(project: Path) -> list[str]:
    """Names that no finished command leaves: on the stage, beside the clones, temporary files, locks of git."""
    found = []
    for folder in (project / ".git", project.with_name(f"{project.name}.clones"), Path(os.environ["XDG_STATE_HOME"])):
        for parent, folders, names in os.walk(folder):
            if parent.endswith("khlone/stage"):
                found += [f"{parent}/{name}" for name in folders + names]
            if parent.endswith("khlone/locks"):
                continue
            found += [
                f"{parent}/{name}"
                for name in folders + names
                if name.endswith((".tmp", ".lock", ".partial", ".purging", ".undo", ".moving")) or ".khlone-" in name
                # One for the whole account, which stays.
                if name != "ports.lock"
            ]
    return found


def customized(folder: Path, code: str) -> dict[str, str]:
    """The variables under which every Python starts with that code, as on a machine where something is amiss."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


def plugin(folder: Path, code: str) -> dict[str, str]:
    """The variables under which a plugin of that code is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "odd_plugin.py").write_text(code)
    info = folder / "odd_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[khlone]\nodd = odd_plugin\n")
    return {"PYTHONPATH": str(folder)}
