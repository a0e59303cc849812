"""The words of khlone as values: what a clone, a session, a plan and a result are.

Frozen values without I/O. What `--json` prints and what plugins receive are these
classes; their field names are the contract and only ever grow.
"""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from khlone.values import dataclass


class CloneState(enum.StrEnum):
    """Where a clone stands in its life; see docs/architecture.md for the machine."""

    CREATING = "creating"
    READY = "ready"
    MERGING = "merging"
    MERGED = "merged"
    REMOVING = "removing"
    TRASHED = "trashed"
    PURGING = "purging"
    FAILED = "failed"
    BROKEN = "broken"
    ADOPTED = "adopted"


#: States in which a name, a branch and a path are not taken any more.
GONE_STATES = frozenset({CloneState.TRASHED, CloneState.PURGING})
#: States in which a clone may land.
MERGEABLE = (CloneState.READY, CloneState.MERGED, CloneState.ADOPTED)


def natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """What names are sorted by for people: numbers in them by what they say, so that `t-2` stands before `t-10`."""
    parts = ((is_number, "".join(letters)) for is_number, letters in itertools.groupby(name.casefold(), str.isdecimal))
    return [(not is_number, int(part) if is_number else 0, part) for is_number, part in parts], name


class Strategy(enum.StrEnum):
    """How a branch lands on its target."""

    MERGE = "merge"
    SQUASH = "squash"
    REBASE = "rebase"
    FF_ONLY = "ff-only"


class Isolation(enum.StrEnum):
    """How far a clone's processes are kept apart from the rest."""

    CONFIG = "config"
    HOME = "home"
    SANDBOX = "sandbox"
    CONTAINER = "container"


class OperationKind(enum.StrEnum):
    """What a journalled operation does."""

    CREATE = "create"
    MERGE = "merge"
    REMOVE = "remove"
    RESTORE = "restore"
    PURGE = "purge"
    ADOPT = "adopt"
    RENAME = "rename"
    SYNC = "sync"
    UNDO = "undo"
    LAND = "land"


class Outcome(enum.StrEnum):
    """How a journalled operation ended."""

    DONE = "done"
    ROLLED_BACK = "rolled-back"
    RECOVERED = "recovered"
    STUCK = "stuck"


class Severity(enum.StrEnum):
    """How much a doctor's finding matters."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


def utc_now() -> str:
    """The current time as RFC 3339 in UTC, with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a command was called: `worktree` is `None` in a bare repository or inside a git dir.

    `main_worktree` is `None` for a bare repository that GIT_WORK_TREE gives none, and where a
    linked worktree cannot tell it (a git dir that lies apart, without `core.worktree`).
    """

    cwd: Path
    git_dir: Path
    common_dir: Path
    worktree: Path | None
    main_worktree: Path | None
    bare: bool

    @property
    def anchor(self) -> Path:
        """What the repository is called by, wherever it is called: its main worktree, else its common dir."""
        return self.common_dir if self.bare else self.main_worktree or self.common_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process beyond its pid: a pid alone is reused, (pid, start ticks, boot id, host) is not.

    The pid is a number of one pid namespace, `None` where the system has none to tell or
    an older version did not record it.
    """

    pid: int
    start_ticks: int | None
    boot_id: str | None
    host: str
    pid_namespace: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One process tree in a clone. Sizes are bytes; `None` means not measured.

    `activity` is what the agent in it says of itself (Claude Code: busy, shell, idle or waiting),
    `paused` while all of its processes are stopped, `None` where it does not say;
    `waiting_for` what it waits for where that is a person.
    """

    id: str
    pid: int
    state: str
    command: Sequence[str]
    started_at: str
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    cpu_percent: float | None = None
    log: Path | None = None
    reason: str | None = None
    activity: str | None = None
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneRecord:
    """What the registry knows of a clone: its plan and state, not what git or processes say now."""

    id: str
    name: str
    branch: str
    branch_owned: bool
    target: str | None
    base: str
    path: Path
    admin: str
    state: CloneState
    agent: str | None
    isolation: Isolation
    config_dir: Path | None
    created_at: str
    epoch: int = 0
    reason: str | None = None
    merged_head: str | None = None

    @property
    def ref(self) -> str:
        """The full name of the clone's branch."""
        return f"refs/heads/{self.branch}"

    @property
    def marker_ref(self) -> str:
        """The ref that says that this clone exists; points at the clone's base."""
        return f"refs/khlone/clones/{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A clone as users, scripts and plugins see it (the CLONE of every JSON document).

    `dirty`, `untracked`, `ahead`, `behind` and `merged` are `None` where they were not
    asked for or could not be found out; `merged` is also `None` while nothing was ahead.
    """

    id: str
    name: str
    branch: str
    target: str | None
    base: str
    head: str
    path: Path
    state: CloneState
    agent: str | None
    isolation: Isolation
    config_dir: Path | None
    created_at: str
    dirty: bool | None = None
    untracked: int | None = None
    ahead: int | None = None
    behind: int | None = None
    merged: bool | None = None
    locked: str | None = None
    sessions: Sequence[Session] = ()
    ports: tuple[int, int] | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """What `new` was asked for, before anything is resolved."""

    name: str
    start: str | None = None
    branch: str | None = None
    target: str | None = None
    agent: str | None = None
    #: `None`: as the settings say.
    isolation: Isolation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a session that is about to start asks for. `live_sessions` counts those of the whole repository."""

    command: Sequence[str]
    live_sessions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictedFile:
    """A path in conflict: the blobs of the base, the target and the clone by oid, `None` where there is no file."""

    path: str
    base: str | None
    ours: str | None
    theirs: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A merge of the commits `source` into `old` that git alone cannot compute, with the paths that it is about."""

    target: str
    old: str
    source: str
    files: Sequence[ConflictedFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A commit that may land on `target` where `old` is now; `resolved_by` is the plugin that resolved conflicts.

    `verify` is whether the commit hooks look at it that `--no-verify` leaves out.
    """

    clone: str
    target: str
    strategy: Strategy
    old: str
    oid: str
    source: str
    resolved_by: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """What a merge is about to do with one clone."""

    target: str
    strategy: Strategy
    source: str
    old: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A gate's word on a candidate; `flaky` when it failed first and passed when it was asked again."""

    passed: bool
    gate: str
    message: str = ""
    flaky: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """One clone whose branch is now part of the target; `resolved_by` names the plugin that resolved a conflict."""

    name: str
    strategy: Strategy
    oid: str
    resolved_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One clone that did not land, with the stable code of the reason."""

    name: str
    code: str
    message: str
    paths: Sequence[str] = ()
    partners: Sequence[str] = ()
    exit_code: int = 1
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """The outcome of one `merge`: the target from `old` to `new`, who landed and who was held.

    Where those that landed were to be removed, `removed` and `kept` say which of them were.
    `pushed` is the branch of a remote that has them too, `notes` what gates were worth telling of.
    """

    target: str
    old: str
    new: str
    gated: bool
    landed: Sequence[Landed]
    held: Sequence[Held]
    removed: Sequence[Removed] = ()
    kept: Sequence[Kept] = ()
    pushed: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a worktree holds beyond its commit. Paths are relative to the worktree, `/` between."""

    staged: Sequence[str] = ()
    unstaged: Sequence[str] = ()
    untracked: Sequence[str] = ()
    ignored: Sequence[str] = ()
    unmerged: Sequence[str] = ()
    stashes: Sequence[str] = ()

    @property
    def uncommitted(self) -> tuple[str, ...]:
        """Every path with work that no commit holds, ignored ones aside, sorted, without repeats."""
        return tuple(sorted({*self.staged, *self.unstaged, *self.untracked, *self.unmerged}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePlan:
    """What a removal is about to do with one clone."""

    trash: str
    head: str
    changes: Changes
    delete_branch: bool
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One clone that is in the trash now."""

    name: str
    trash: str
    branch_deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One clone that was not removed, with the stable code of the reason."""

    name: str
    code: str
    message: str
    exit_code: int = 1
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveResult:
    """The outcome of one `remove`."""

    removed: Sequence[Removed]
    kept: Sequence[Kept]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The outcome of one `prune`; `purged` holds ids of trash."""

    removed: Sequence[Removed]
    kept: Sequence[Kept]
    purged: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """How many files of each kind a trash entry holds."""

    tracked: int
    untracked: int
    ignored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashEntry:
    """A removed clone that can be restored. `bytes` is the size on disk of its folder."""

    trash: str
    name: str
    branch: str
    oid: str
    removed_at: str
    bytes: int
    holds: Holds


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """How one command in one clone ended; exactly one of `exit` and `signal` is set."""

    name: str
    exit: int | None
    signal: int | None
    stdout: str
    stderr: str
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the doctor or a plugin found. `fix` says what would mend it."""

    code: str
    severity: Severity
    message: str
    clone: str | None = None
    fix: str | None = None
    fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTime:
    """How often one hook of a plugin was called, and the milliseconds that it took, all calls together."""

    hook: str
    calls: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """An installed plugin, which of khlone's hooks it implements, and why it was not loaded if it was not.

    `import_ms` is the time its import took, `None` where it was not imported. `spent` is
    what its hooks have taken in the last commands of the user, in all repositories, as far
    as it was five milliseconds or more in one command; the longest first.
    """

    name: str
    distribution: str
    version: str
    loaded: bool
    reason: str | None = None
    hooks: Sequence[str] = ()
    import_ms: float | None = None
    spent: Sequence[HookTime] = ()
