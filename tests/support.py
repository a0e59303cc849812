"""What the tests share: git and khlone as a user would run them, and repositories to run them in.

Everything here takes its environment from `os.environ`, which conftest.py makes hermetic
for each test: a home of its own, an identity, none of the machine's git settings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: The console script of the environment that runs the tests.
KHLONE = Path(sys.executable).parent / "git-khlone"
#: The folder with pyproject.toml.
ROOT = Path(__file__).resolve().parent.parent
#: No command of a test may take longer.
TIMEOUT_S = 120.0

#: Variables of khlone that steer the test run itself and are not taken from it.
STEERING = frozenset({"KHLONE_FORBID_SKIPS", "KHLONE_TORTURE", "KHLONE_KILLS", "KHLONE_SEED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended; `code` is negative for a signal. Undecodable bytes are kept as surrogates."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """stdout, which must be exactly one JSON object."""
        found = json.loads(self.out)
        assert isinstance(found, dict), self.out
        return found


class Git(Protocol):
    """Runs the real git and returns its stdout; fails the test when git fails, unless `check` is false."""

    def __call__(self, *args: str, cwd: Path, check: bool = True, input: str | bytes | None = None) -> str: ...


class Khlone(Protocol):
    """Runs the real command to its end. `env` is added to the environment; `None` takes a variable out."""

    def __call__(
        self,
        *args: str,
        cwd: Path,
        env: Mapping[str, str | None] | None = None,
        input: str | bytes | None = None,
    ) -> Done: ...


class Commit(Protocol):
    """Writes files into a worktree, commits exactly those and returns the oid."""

    def __call__(self, path: Path, files: Mapping[str, str | bytes], message: str) -> str: ...


def run_git(*args: str, cwd: Path, check: bool = True, input: str | bytes | None = None) -> str:
    """The `Git` that the fixture `git` hands out."""
    done = _run(("git", *args), cwd=cwd, env=None, given=input)
    if check and done.code != 0:
        raise AssertionError(f"git {' '.join(args)} in {cwd}: exit {done.code}: {done.err.strip()}")
    return done.out


def run_khlone(
    *args: str, cwd: Path, env: Mapping[str, str | None] | None = None, input: str | bytes | None = None
) -> Done:
    """The `Khlone` that the fixture `khlone` hands out."""
    return _run((str(KHLONE), *args), cwd=cwd, env=env, given=input)


def write(path: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files below a folder, making the folders between."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def make_commit(path: Path, files: Mapping[str, str | bytes], message: str) -> str:
    """The `Commit` that the fixture `commit` hands out."""
    write(path, files)
    if files:
        run_git("add", "--force", "--", *files, cwd=path)
        run_git("commit", "-q", "-m", message, "--", *files, cwd=path)
    else:
        run_git("commit", "-q", "--allow-empty", "-m", message, cwd=path)
    return run_git("rev-parse", "HEAD", cwd=path).strip()


def make_repository(path: Path) -> Path:
    """A repository of three commits on `main`, with a few files in folders; returns its path."""
    run_git("init", "-q", "-b", "main", str(path), cwd=path.parent)
    make_commit(path, {"README.md": "# project\n", "src/app.py": 'print("one")\n'}, "first")
    make_commit(path, {"src/lib/words.py": 'WORDS = ("a", "b")\n', "docs/guide.md": "# guide\n"}, "second")
    make_commit(path, {"src/app.py": 'print("one")\nprint("two")\n'}, "third")
    return path


def make_account(folder: Path) -> dict[str, str]:
    """Make the folders and the git configuration of a fresh account; returns its variables."""
    home = folder / "home"
    home.mkdir(parents=True)
    config = folder / "gitconfig"
    config.write_text(
        "[user]\n\tname = Test Author\n\temail = author@example.invalid\n"
        "[init]\n\tdefaultBranch = main\n"
        # git reads each advice on its own: these are the ones that commands of the tests give.
        "[advice]\n\tdetachedHead = false\n\tstatusHints = false\n\tmergeConflict = false\n"
        "\tskippedCherryPicks = false\n\taddEmbeddedRepo = false\n\tpushUpdateRejected = false\n"
    )
    return {
        "HOME": str(home),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(config),
        "LC_ALL": "C",
    }


def is_foreign(variable: str) -> bool:
    """Whether a variable of the caller's could steer git or khlone in a test, and so has to go."""
    if variable in STEERING:
        return False
    return variable.startswith(("GIT_", "KHLONE_", "XDG_")) or variable in {
        "EMAIL",
        "LANGUAGE",
        "PYTHONDONTWRITEBYTECODE",
    }


def has_strace() -> bool:
    """Whether strace is there."""
    return shutil.which("strace") is not None


def has_bubblewrap() -> bool:
    """Whether bubblewrap is there."""
    return shutil.which("bwrap") is not None


def has_podman() -> bool:
    """Whether podman is there, with a runtime that needs no systemd, and what an image can be made of."""
    return all(shutil.which(name) for name in ("podman", "runc", "busybox"))


def has_docker() -> bool:
    """Whether a dockerd of the tests' own can be tried, and what an image can be made of is there."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("docker", "dockerd", "busybox"))


def git_version() -> tuple[int, int]:
    """Major and minor version of the git in use."""
    words = subprocess.run(["git", "--version"], capture_output=True, check=True, text=True).stdout.split()
    major, minor, *_ = words[2].split(".")
    return int(major), int(minor)


def _run(argv: tuple[str, ...], *, cwd: Path, env: Mapping[str, str | None] | None, given: str | bytes | None) -> Done:
    changed = {**os.environ, **(env or {})}
    environment = {name: value for name, value in changed.items() if value is not None}
    source = given.encode(errors="surrogateescape") if isinstance(given, str) else given
    done = subprocess.run(
        argv, cwd=cwd, env=environment, input=source or b"", capture_output=True, timeout=TIMEOUT_S, check=False
    )
    return Done(
        code=done.returncode,
        out=done.stdout.decode(errors="surrogateescape"),
        err=done.stderr.decode(errors="surrogateescape"),
    )
