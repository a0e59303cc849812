"""Where can clones be made and agents be tried without a repository of the user's having a part in it?

In a repository of its own, by the real command, with an environment that is handed in.
What `clear` is not told of is left to whoever made the folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import process
from khlone.children import Completed
from khlone.errors import AgentNotStarted, KhloneError

_COMMAND_S = 600.0
_CAPTURED_BYTES = 16 << 20


class ThrowAway:
    """A repository with one empty commit in a folder that is there, for trying `agent`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], agent: str) -> None:
        self.repository = folder / "project"
        self._environment, self._agent = environment, agent

    def make(self) -> None:
        """Make the repository; raises AgentNotStarted."""
        git = process.git_executable()
        commit = ("commit", "-q", "--no-verify", "--no-gpg-sign", "--allow-empty", "-m", "empty")
        self.require([git, "init", "-q", "--template=", str(self.repository)], cwd=self.repository.parent)
        self.require([git, "-c", "user.name=khlone", "-c", "user.email=khlone@example.invalid", *commit])

    def require(self, argv: Sequence[str], *, cwd: Path | None = None) -> Completed:
        """Run a program that has to end well; raises AgentNotStarted with what it said."""
        done = self.run(argv, cwd=cwd)
        if done.status != 0:
            what = " ".join((os.path.basename(argv[0]), *argv[1:2]))
            raise AgentNotStarted(self._agent, what, (done.error_text.strip() or done.text.strip())[-300:])
        return done

    def run(self, argv: Sequence[str], *, cwd: Path | None = None, timeout_s: float = _COMMAND_S) -> Completed:
        """Run a program, however it ends."""
        return process.run(
            argv,
            cwd=cwd or self.repository,
            environment=self._environment,
            timeout_s=timeout_s,
            capture_bytes=_CAPTURED_BYTES,
        )

    def khlone(self, *words: str) -> Sequence[str]:
        """The words of a call of khlone."""
        return (sys.executable, "-P", "-m", "khlone", *words)

    def clear(self, names: Sequence[str]) -> None:
        """Take clones away with what of them lies outside the folder, as far as that goes."""
        if names:
            with contextlib.suppress(KhloneError):
                self.require(self.khlone("remove", "--force", "--quiet", *names))
                self.require(self.khlone("prune", "--trash", "--age", "0d", "--quiet"))
