"""Where does a gate look at a candidate? In a detached worktree of khlone's own, kept warm.

A few slots a repository, in the user's state folder. What a gate builds stays where git
ignores it, so that the next one need not build it again; everything else is as the
candidate has it. Holding a slot's lock is the proof that nobody works in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from khlone import files, process, worktrees
from khlone.app import App
from khlone.errors import GitFailed, KhloneError, Locked
from khlone.locks import HeldLock
from khlone.operations import stale
from khlone.values import dataclass

#: Set for every gate command, and what is left of it is found by.
RUN_VARIABLE = "KHLONE_GATE_RUN"
#: Slots of one repository, whoever uses them.
MOST_SLOTS = 16
_ADMIN = "khlone-scratch-"
_WHY_LOCKED = "khlone tests candidates here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """One slot that is held: a worktree whose HEAD is detached at the commit it was made ready for."""

    app: App
    path: Path
    admin: Path
    lock: HeldLock

    def check_out(self, oid: str) -> None:
        """Have exactly the files of a commit.

        Ignored ones stay as the last gate left them, but for what Python has compiled of files that change.
        """
        known_clean = files.exists(self._mark)
        if known_clean:
            os.unlink(self._mark)
        for attempt in (1, 2):
            try:
                changing: list[str] = []
                if not worktrees.is_linked(self.path, self.admin) or not self.admin.is_dir():
                    self._make(oid)
                else:
                    changing = self._changing(oid, known_clean=known_clean)
                before = stale.stamps(self.path, changing)
                self._git("checkout", "--quiet", "--force", "--detach", oid)
                if not known_clean:
                    self._git("clean", "-ffdq")
                stale.tell_apart(self.path, before, self.app.environment)
                return
            except (KhloneError, OSError):
                if attempt == 2:
                    raise
                # Whatever a gate did to it: it is ours alone, and made anew.
                self.drop()

    def _changing(self, oid: str, *, known_clean: bool) -> list[str]:
        """The files that will have other content than they have now."""
        names = ("-z", "--name-only", "--no-renames")
        found = self._git("diff-tree", "-r", *names, "HEAD", oid)
        if not known_clean:
            found += self._git("diff-index", *names, "HEAD")
        return [os.fsdecode(name) for name in found.split(b"\0") if name]

    def dirt(self) -> list[str]:
        """What a gate changed that git does not ignore."""
        done = self._git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal")
        found = [os.fsdecode(item[3:]) for item in done.split(b"\0") if item]
        if not found:
            # Gone again before the next one begins: what is killed in between leaves none.
            files.write_new(self._mark, b"", durable=False)
        return found

    @property
    def _mark(self) -> Path:
        """There while the worktree holds nothing but tracked and ignored files."""
        return self.path.with_name(f"{self.path.name}.clean")

    def begin_run(self, mark: str) -> None:
        """Note what runs here from now on is marked with, for whoever finds this slot without its holder."""
        files.write_atomic(self._run, mark.encode(), durable=False)

    def end_run(self) -> None:
        """End whatever still runs here, also what was begun by a holder that died since."""
        try:
            mark = files.read_regular(self._run)
        except (KhloneError, OSError):
            mark = None
        if mark:
            process.end_marked(RUN_VARIABLE, os.fsdecode(mark))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._run)

    @property
    def _run(self) -> Path:
        return self.path.with_name(f"{self.path.name}.run")

    def drop(self) -> None:
        """Delete the worktree and its admin folder."""
        with self.app.locks.repository(told=self.app.told):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._mark)
            if files.exists(self.path):
                files.remove_tree(self.path)
            if files.exists(self.admin):
                files.remove_tree(self.admin)

    def _make(self, oid: str) -> None:
        location = self.app.location
        self.drop()
        files.make_private_dir(self.path.parent)
        staged = self.app.state_dir / "stage" / self.admin.name
        with self.app.locks.repository(told=self.app.told):
            worktrees.stage(
                staged,
                worktree=self.path,
                head=oid,
                locked=_WHY_LOCKED,
                marker={},
                source_git_dir=location.common_dir,
                common_dir=location.common_dir,
                durable=False,
            )
            # It is no clone: a registry that is rebuilt must not take it for one.
            os.unlink(staged / worktrees.MARKER)
            # Every file, whatever the main worktree leaves out: a gate looks at the whole.
            shutil.rmtree(staged / "info", ignore_errors=True)
            worktrees.publish(staged, self.admin, durable=False)
            worktrees.link(self.path, self.admin, durable=False)

    def _git(self, *arguments: str) -> bytes:
        done = self.app.repository.git(
            *arguments,
            cwd=self.path,
            keep_open=[self.lock.descriptor],
            environment={"GIT_OPTIONAL_LOCKS": "1"},
            configuration=("submodule.recurse=false", "core.sparseCheckout=false"),
            check=False,
        )
        if done.status != 0:
            raise GitFailed(list(arguments), done.status, done.error_text)
        return done.stdout


@contextlib.contextmanager
def lease(app: App) -> Iterator[Scratch]:
    """A free slot for the length of the block, the warmest first; raises Locked when all are in use."""
    for number in range(MOST_SLOTS):
        lock = app.locks.try_operation(f"scratch-{number}")
        if lock is not None:
            break
    else:
        raise Locked("a scratch worktree", f"{MOST_SLOTS} gates that run", 0.0)
    try:
        slot = _slot(app, number, lock)
        slot.end_run()
        yield slot
    finally:
        lock.release()


def end_left(app: App) -> None:
    """End what gates of killed drivers have left running, in every slot that nobody holds."""
    for number in range(MOST_SLOTS):
        if files.exists(app.config_dirs.scratch / f"{number}.run"):
            lock = app.locks.try_operation(f"scratch-{number}")
            if lock is not None:
                try:
                    _slot(app, number, lock).end_run()
                finally:
                    lock.release()


def drop_all(app: App) -> int:
    """Delete every slot that nobody uses; returns how many there were."""
    gone = 0
    for number in range(MOST_SLOTS):
        slot = f"scratch-{number}"
        if not files.exists(app.config_dirs.scratch / str(number)) and not _admin(app, number).exists():
            continue
        lock = app.locks.try_operation(slot)
        if lock is None:
            continue
        try:
            found = _slot(app, number, lock)
            found.end_run()
            found.drop()
            gone += 1
        finally:
            lock.release()
    return gone


def _slot(app: App, number: int, lock: HeldLock) -> Scratch:
    return Scratch(app=app, path=app.config_dirs.scratch / str(number), admin=_admin(app, number), lock=lock)


def _admin(app: App, number: int) -> Path:
    return app.location.common_dir / "worktrees" / f"{_ADMIN}{number}"
