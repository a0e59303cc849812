"""A throw-away account with a throw-away repository, driven through the real commands.

`Sandbox.violations` checks the promises that must hold after any crash, once recovery ran.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

KHLONE = str(Path(sys.executable).parent / "git-khlone")
NULL = "0" * 40


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """stdout as one JSON document."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


class Sandbox:
    """One account, one repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.repository = root / "project"
        self.home.mkdir(parents=True)
        config = self.home / ".gitconfig"
        config.write_text("[user]\n\tname = T\n\temail = t@example.invalid\n[init]\n\tdefaultBranch = main\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KHLONE_", "XDG_"))}
        self.environment = {**kept, "HOME": str(self.home), "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}

    def create(self, files: int = 12) -> None:
        """A repository with a few files in folders and three commits on main."""
        self.git("init", "-q", str(self.repository), cwd=self.root)
        self.write(
            self.repository,
            {f"src/part{number % 3}/file{number}.txt": f"line {number}\n" * 40 for number in range(files)},
        )
        self.write(self.repository, {".gitignore": "*.log\n", "notes.md": "notes\n"})
        self.commit(self.repository, "first")
        for word in ("second", "third"):
            self.write(self.repository, {"notes.md": f"notes\n{word}\n"})
            self.commit(self.repository, word)

    def write(self, folder: Path, files: Mapping[str, str]) -> None:
        """Write files below a folder."""
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def commit(self, folder: Path, message: str) -> str:
        """Commit everything in a worktree; returns the oid."""
        self.git("add", "-A", cwd=folder)
        self.git("commit", "-q", "-m", message, cwd=folder)
        return self.git("rev-parse", "HEAD", cwd=folder).strip()

    def git(self, *arguments: str, cwd: Path | None = None, check: bool = True) -> str:
        """Run git and return stdout."""
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.repository, env=self.environment, capture_output=True, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"git {arguments}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="surrogateescape")

    def khlone(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **environment: str
    ) -> Done:
        """Run the real command to its end."""
        done = subprocess.run(
            [KHLONE, *arguments],
            cwd=cwd or self.repository,
            env={**self.environment, **(env or {}), **environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start the real command as the leader of a process group of its own."""
        return subprocess.Popen(
            [KHLONE, *arguments],
            cwd=cwd or self.repository,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def common_dir(self) -> Path:
        """The repository's common dir."""
        return self.repository / ".git"

    def clone_path(self, name: str) -> Path:
        """Where a clone of that name lies by default."""
        return self.root / "project.clones" / name

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Ask the registry's file, without khlone."""
        path = self.common_dir / "khlone" / "registry.sqlite3"
        if not path.exists():
            return []
        connection = sqlite3.connect(path, timeout=20)
        try:
            return [tuple(row) for row in connection.execute(query)]
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        finally:
            connection.close()

    def open_operations(self) -> list[tuple[object, ...]]:
        """(kind, name, step) of every operation that has not ended."""
        return self.rows("SELECT kind, name, step FROM operations WHERE ended_at IS NULL")

    def violations(self) -> list[str]:
        """Every promise that does not hold; empty when all is well."""
        found = []
        if self.rows("PRAGMA integrity_check") not in ([("ok",)], []):
            found.append("the registry is damaged")
        found += [f"open operation {row}" for row in self.open_operations()]
        live = self.rows("SELECT id, name, path, admin, state, config_dir FROM clones WHERE state NOT IN ('trashed')")
        found += [f"{row[1]} is {row[4]}" for row in live if row[4] not in ("ready", "merged", "adopted")]
        found += self._disagreements(live)
        for pattern in ("**/*.lock",):
            found += [
                f"left behind: {path}"
                for path in self.common_dir.glob(pattern)
                if path.parent != self.common_dir / "khlone" / "locks"
            ]
        stage = self.common_dir / "khlone" / "stage"
        if stage.exists():
            found += [f"left on the stage: {path.name}" for path in stage.iterdir()]
        folder = self.clone_path("x").parent
        if folder.exists():
            found += [f"left beside the clones: {path.name}" for path in folder.iterdir() if path.name.startswith(".")]
        found += self._git_problems([Path(str(row[2])) for row in live])
        return found

    def _disagreements(self, live: list[tuple[object, ...]]) -> list[str]:
        found = []
        admins = {path.name for path in (self.common_dir / "worktrees").glob("*")}
        if admins != {str(row[3]) for row in live}:
            found.append(f"admin folders {sorted(admins)} but clones {sorted(str(row[1]) for row in live)}")
        folder = self.clone_path("x").parent
        folders = {path for path in folder.glob("*") if not path.name.startswith(".")}
        if folders != {Path(str(row[2])) for row in live}:
            found.append(f"worktrees {sorted(path.name for path in folders)} but clones {[row[1] for row in live]}")
        configs = {path.name for path in (self.home / ".local/state/khlone/repositories").glob("*/clones/*")}
        if configs != {str(row[0]) for row in live}:
            found.append(f"config dirs {sorted(configs)} but clones {sorted(str(row[0]) for row in live)}")
        markers = set(self.git("for-each-ref", "--format=%(refname:lstrip=3)", "refs/khlone/clones").split())
        if markers != {str(row[0]) for row in live}:
            found.append(f"markers {sorted(markers)} but clones {sorted(str(row[0]) for row in live)}")
        return found

    def _git_problems(self, worktrees: list[Path]) -> list[str]:
        found = []
        commands = [
            ("worktree list", self.repository, ["worktree", "list"]),
            ("fsck", self.repository, ["fsck", "--no-dangling"]),
        ]
        commands += [(f"status in {path.name}", path, ["status", "--porcelain"]) for path in worktrees]
        for label, cwd, arguments in commands:
            if not cwd.exists():
                found.append(f"{cwd} is gone")
                continue
            done = subprocess.run(["git", *arguments], cwd=cwd, env=self.environment, capture_output=True, check=False)
            if done.returncode != 0:
                found.append(f"git {label}: {done.stderr.decode(errors='replace').strip()}")
        return found
