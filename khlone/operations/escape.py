"""Has something landed in the main worktree while a session of a clone ran, that should have stayed in the clone?

An agent that leaves its folder commits and edits where the user works. Before and after a
session HEAD, its reflog and the changes of the main worktree are compared; what khlone
itself has done there does not count. Who it was cannot be told, so it is said what has
happened while the session ran, on the clone, until `doctor --fix` forgets it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import KhloneError
from khlone.model import CloneRecord, utc_now
from khlone.operations import changes, names
from khlone.values import dataclass

FILE = "escape.json"
_MOST_PATHS = 100
_SHOWN = 3
_SHORT = 10
_MOST_LOG = 1 << 20
#: What git notes in the reflog for a new commit; a checkout or a fetch is no commit.
_COMMITS = ("commit", "merge", "cherry-pick", "revert", "rebase", "am", "pull")
#: The clocks of file systems are as coarse as this, in seconds.
_COARSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The main worktree at one time. `dirty` are its changed and unknown paths, `None` where git could not tell."""

    at_s: float
    head: bytes
    log_bytes: int
    dirty: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """What has landed outside: commits on `branch` of the main worktree, and paths that were changed there."""

    session: str
    at: str
    branch: str | None
    commits: Sequence[str]
    paths: Sequence[str]

    @property
    def told(self) -> str:
        """What has happened, for people, as the end of `while a session ran, ...`."""
        parts = []
        if self.commits:
            count = f"{len(self.commits)} commit{'' if len(self.commits) == 1 else 's'}"
            where = f"branch {names.shown(self.branch)}" if self.branch else "a detached HEAD"
            parts.append(f"{count} landed on {where} of the main worktree ({self.commits[-1][:_SHORT]})")
        if self.paths:
            shown = ", ".join(names.shown(path) for path in self.paths[:_SHOWN])
            more = f" and {len(self.paths) - _SHOWN} more" if len(self.paths) > _SHOWN else ""
            parts.append(f"{shown}{more} changed in the main worktree")
        return "; ".join(parts)


def fingerprint(app: App) -> Fingerprint | None:
    """The main worktree as it is, `None` where there is none."""
    main, git_dir = app.location.main_worktree, app.location.common_dir
    if main is None or app.location.bare:
        return None
    at_s = time.time()
    dirty = None
    with contextlib.suppress(KhloneError, OSError):
        status = changes.read_status(app, main, untracked="normal", filters=False)
        dirty = frozenset(status.changes.uncommitted)
    return Fingerprint(at_s=at_s, head=_read(git_dir / "HEAD"), log_bytes=_size(_log(app)), dirty=dirty)


def compare(app: App, session: str, before: Fingerprint) -> Escape | None:
    """What has landed in the main worktree since, `None` for nothing."""
    now = fingerprint(app)
    if now is None:
        return None
    commits = list(_commits(app, before))
    paths: list[str] = []
    if before.dirty is not None and now.dirty is not None:
        main = app.location.main_worktree
        assert main is not None
        paths = sorted(path for path in now.dirty if path not in before.dirty or _is_newer(main / path, before.at_s))
    if not commits and not paths:
        return None
    branch = now.head.decode(errors="surrogateescape").strip()
    is_branch = branch.startswith("ref: refs/heads/")
    return Escape(
        session=session,
        at=utc_now(),
        branch=branch.removeprefix("ref: refs/heads/") if is_branch else None,
        commits=commits,
        paths=paths[:_MOST_PATHS],
    )


def note(folder: Path, found: Escape) -> None:
    """Write it down in the private folder of the clone; a folder that has gone loses it."""
    content = {
        "session": found.session,
        "at": found.at,
        "branch": found.branch,
        "commits": list(found.commits),
        "paths": list(found.paths),
    }
    with contextlib.suppress(KhloneError, OSError):
        files.write_atomic(folder / "run" / FILE, json.dumps(content).encode() + b"\n", durable=False)


def find(clone: CloneRecord) -> Escape | None:
    """What was written down of a clone's last session that did so."""
    if clone.config_dir is None:
        return None
    with contextlib.suppress(KhloneError, OSError, ValueError, TypeError, KeyError):
        content = files.read_regular(_file(clone.config_dir))
        if content is not None:
            found = json.loads(content)
            return Escape(
                session=str(found["session"]),
                at=str(found["at"]),
                branch=None if found["branch"] is None else str(found["branch"]),
                commits=[str(one) for one in found["commits"]],
                paths=[str(one) for one in found["paths"]],
            )
    return None


def forget(clone: CloneRecord) -> bool:
    """Take the note away; False where there is none."""
    if clone.config_dir is not None:
        with contextlib.suppress(OSError):
            os.unlink(_file(clone.config_dir))
            return True
    return False


def _file(config_dir: Path) -> Path:
    return config_dir.parent.parent / "run" / FILE


def _commits(app: App, before: Fingerprint) -> Iterator[str]:
    """The commits that the reflog of HEAD tells of since, those of khlone aside."""
    path = _log(app)
    content = b""
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        # A log that has become shorter was made anew: nothing can be told of it.
        if os.fstat(stream.fileno()).st_size >= before.log_bytes:
            stream.seek(before.log_bytes)
            content = stream.read(_MOST_LOG)
    for line in content.splitlines():
        fields, _, message = line.partition(b"\t")
        words, text = fields.split(b" "), message.decode(errors="replace")
        if len(words) > 2 and words[0] != words[1] and text.startswith(_COMMITS):
            yield words[1].decode(errors="replace")


def _log(app: App) -> Path:
    return app.location.common_dir / "logs" / "HEAD"


def _is_newer(path: Path, at_s: float) -> bool:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_mtime >= at_s - _COARSE_S
    return False


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        return stream.read(1 << 12)
    return b""
