"""Steps that the tests of `merge` share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.commands.steps import document, new
from tests.support import KHLONE, TIMEOUT_S, Commit, Done, Git, Khlone


def merge(
    khlone: Khlone, where: Path, *arguments: str, code: int = 0, env: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """The document of a merge that ended with `code`."""
    return document(khlone("merge", *arguments, "--json", cwd=where, env=env), "merge", code)


def release_main(git: Git, where: Path) -> None:
    """Let no worktree have main checked out, which still is what new clones aim at."""
    git("config", "khlone.target", "main", cwd=where)
    git("checkout", "-q", "--detach", cwd=where)


def held(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, code) of each clone that was held."""
    return [(one["name"], one["code"]) for one in found["held"]]


def landed(found: Mapping[str, Any]) -> list[str]:
    """The names of the clones that landed."""
    return [one["name"] for one in found["landed"]]


def worked(
    khlone: Khlone, commit: Commit, where: Path, name: str, files: Mapping[str, str | bytes], *options: str
) -> Path:
    """A new clone with one commit of these files; returns its worktree."""
    path = new(khlone, where, name, *options)
    commit(path, files, f"work of {name}")
    return path


def oid(git: Git, where: Path, revision: str) -> str:
    """What a revision names."""
    return git("rev-parse", "--verify", revision, cwd=where).strip()


def parents(git: Git, where: Path, revision: str) -> list[str]:
    """The parents of a commit."""
    return git("rev-parse", f"{revision}^@", cwd=where).split()


def message(git: Git, where: Path, revision: str) -> str:
    """The whole message of a commit."""
    return git("cat-file", "commit", revision, cwd=where).partition("\n\n")[2]


def shown(git: Git, where: Path, path: str, revision: str = "main") -> str:
    """A file as a commit has it."""
    return git("show", f"{revision}:{path}", cwd=where)


def plugin(folder: Path, source: str) -> dict[str, str | None]:
    """Install a plugin through an entry point of its own distribution; returns the environment that finds it."""
    info = folder / "tried-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "tried.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tried\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[khlone]\ntried = tried\n")
    return {"PYTHONPATH": str(folder)}


def called(git: Git, where: Path) -> Callable[[], list[list[str]]]:
    """Have git write down how it is called, from now on; returns what reads the words of each call so far."""
    log = where.parent / "calls"
    git("config", "--global", "trace2.eventTarget", str(log), cwd=where)

    def calls() -> list[list[str]]:
        found = [json.loads(line) for line in log.read_text().splitlines()]
        return [one["argv"] for one in found if one["event"] == "start"]

    return calls


class Stopping:
    """A merge that stops itself each time it reaches one point, so that a test can act in between."""

    def __init__(self, where: Path, point: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [KHLONE, "merge", *arguments, "--json"],
            cwd=where,
            env={**os.environ, "KHLONE_FAULT": f"{point}:stop"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait(self) -> bool:
        """Whether it stopped; False when it has ended."""
        found = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None
        if found.si_code != os.CLD_STOPPED:
            return False
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        return True

    def go_on(self) -> None:
        """Let it run again."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> Done:
        """How it ended, running on whenever it stops."""
        while self.wait():
            self.go_on()
        out, err = self._process.communicate(timeout=TIMEOUT_S)
        return Done(code=self._process.returncode, out=out.decode(), err=err.decode())
