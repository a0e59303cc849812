"""Why a command was refused or failed: one class a cause, built from facts.

Every error that a user can meet derives from `KhloneError`. It carries a stable
kebab-case `code` (documented one by one in docs/errors.md), the exit code of the
process, one lower-case line, and where possible a `hint` with what to type next.
Library exceptions never leave their adapter: they are turned into one of these there.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_BUG = 3
EXIT_CONFLICT = 4
EXIT_GATE = 5
EXIT_BUSY = 75
EXIT_PERMISSION = 77
EXIT_SIGNAL = 128

_SHOWN_MOST = 5
#: A word of a message that is longer than this is shown by its two ends; no name of a clone and few of branches are.
_LONG_WORD = r"([^\s/]{60})[^\s/]{50,}([^\s/]{10})"
#: What the kernel says when there is no more of descriptors, processes or memory to be had.
LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})


def _some(values: Iterable[object]) -> str:
    listed = [str(value) for value in values]
    shown = ", ".join(listed[:_SHOWN_MOST])
    return shown if len(listed) <= _SHOWN_MOST else f"{shown} and {len(listed) - _SHOWN_MOST} more"


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class KhloneError(Exception):
    """A refusal or failure with a stable code; `facts` holds what the message was built from, however long."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = EXIT_REFUSED

    def __init__(self, message: str, *, hint: str | None = None, **facts: object) -> None:
        self.message = message if len(message) < 120 else re.sub(_LONG_WORD, r"\1...\2", message)
        super().__init__(self.message)
        self.hint = hint
        self.facts = {key: _plain(value) for key, value in facts.items()}

    def listed(self, key: str) -> tuple[str, ...]:
        """A fact that is a list, `paths` say, as texts; empty where there is none."""
        found = self.facts.get(key)
        return tuple(str(one) for one in found) if isinstance(found, list) else ()


class Interrupted(BaseException):
    """A signal asked the process to end; raised in the main thread so that undo steps run."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


# -- usage ---------------------------------------------------------------------------------


class UsageError(KhloneError):
    """Options that contradict each other, or an argument that cannot be meant."""

    code = "usage"
    exit_code = EXIT_USAGE


class NameTooLong(KhloneError):
    """A word that would have to be the name of a file is longer than one may be."""

    code = "name-too-long"
    exit_code = EXIT_USAGE

    def __init__(self, path: Path | str) -> None:
        name = max(str(path).split("/"), key=len)
        super().__init__(f"the name {name!r} is too long for a file", hint="choose a shorter one", name=name)


class IllegalName(KhloneError):
    """A clone name outside the narrow rule of new names."""

    code = "illegal-name"
    exit_code = EXIT_USAGE

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"{name!r} cannot name a clone: {why}",
            hint="use letters, digits and . _ - /, starting with a letter or digit, "
            "or keep an odd branch with `git khlone new NAME --branch BRANCH`",
            name=name,
        )


class TargetMismatch(KhloneError):
    """Clones of different targets were named in one merge."""

    code = "target-mismatch"
    exit_code = EXIT_USAGE

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__(
            f"the named clones have different targets: {_some(targets)}",
            hint="name one with --into TARGET",
            targets=list(targets),
        )


# -- the repository ------------------------------------------------------------------------


class NotARepository(KhloneError):
    """The working folder lies in no git repository."""

    code = "not-a-repository"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is not inside a git repository", hint="change into one, or name it with -C DIR", path=path
        )


class WorkingFolderGone(KhloneError):
    """The working folder was deleted, so no repository can be looked for from it."""

    code = "working-folder-gone"

    def __init__(self) -> None:
        super().__init__(
            "the working folder was deleted, so nothing can be looked for from it",
            hint="change into a folder that is there: cd DIR",
        )


class GitMissing(KhloneError):
    """No usable git executable is on PATH."""

    code = "git-missing"

    def __init__(self) -> None:
        super().__init__("git was not found on PATH", hint="install git 2.39 or newer")


class GitTooOld(KhloneError):
    """The git found is older than the oldest that khlone works with."""

    code = "git-too-old"

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(
            f"git {found} is too old: khlone needs {needed} or newer",
            hint="install a newer git and put it first on PATH",
            found=found,
            needed=needed,
        )


class RepositoryUnsupported(KhloneError):
    """The repository uses something that khlone refuses before changing anything."""

    code = "repository-unsupported"

    def __init__(self, why: str, *, hint: str | None = None, what: str = "this repository cannot be used") -> None:
        super().__init__(f"{what}: {why}", hint=hint)


class GitFailed(KhloneError):
    """A git command failed in a way khlone has no better word for; git's own words follow."""

    code = "git-failed"

    def __init__(self, command: Sequence[str], exit_status: int, stderr: str) -> None:
        words = stderr.strip().splitlines()
        last = next((line for line in words if line.startswith(("fatal:", "error:"))), words[-1] if words else "")
        super().__init__(
            f"git {command[0] if command else ''} failed: {last or f'exit {exit_status}'}",
            hint=_kept_from(last),
            command=list(command),
            exit=exit_status,
            stderr=stderr[-2000:],
        )


class SigningFailed(KhloneError):
    """A commit is to be signed, and git cannot: no key, one that is locked, or no program for it."""

    code = "signing-failed"

    def __init__(self, stderr: str) -> None:
        words = [re.sub("^(fatal|error): ", "", line.strip()) for line in stderr.splitlines() if line.strip()]
        last = next(
            (line for line in words if line.startswith("gpg: ")), words[-1] if words else "git does not say why"
        )
        super().__init__(
            f"the commit cannot be signed: {last.rstrip('?')}",
            hint="try git commit -S --allow-empty in a clone; git -c commit.gpgSign=false khlone ... signs nothing",
            stderr=stderr[-2000:],
        )


def _kept_from(text: str) -> str | None:
    """What to look at where git says that it may not write somewhere."""
    found = re.search(r"(/[^':]+)'?: (?:Permission denied|Read-only file system|Operation not permitted)", text)
    return None if found is None else f"check the owner and mode of {found[1].rpartition('/')[0]}, and the disk"


class NoSuchRef(KhloneError):
    """A revision that does not name a commit, or a name that must be a branch's and is not."""

    code = "no-such-ref"

    def __init__(self, ref: str, *, is_branch: bool = False) -> None:
        super().__init__(
            f"there is no branch {ref!r}" if is_branch else f"{ref!r} does not name a commit",
            hint="name a local branch: see `git branch`" if is_branch else "see `git branch -a` and `git tag`",
            ref=ref,
        )


class UnbornHead(KhloneError):
    """HEAD has no commit yet, so there is nothing to start a clone from."""

    code = "unborn-head"

    def __init__(self) -> None:
        super().__init__(
            "HEAD has no commit yet, so there is nothing to start from", hint="make a first commit, or give --from REF"
        )


class IdentityMissing(KhloneError):
    """git knows no name or e-mail address for a commit it was asked to make."""

    code = "identity-missing"

    def __init__(self) -> None:
        super().__init__(
            "git does not know who you are, so no commit can be made",
            hint="git config --global user.name NAME; git config --global user.email ADDRESS",
        )


# -- names and clones ----------------------------------------------------------------------


class NoSuchClone(KhloneError):
    """A name that no clone of this repository has."""

    code = "no-such-clone"

    def __init__(self, name: str, near: Sequence[str] = (), *, is_trashed: bool = False) -> None:
        hint = f"did you mean {_some(near)}?" if near else "see `git khlone list`"
        if is_trashed:
            hint = f"it is in the trash, with its logs: `git khlone restore {name}` brings it back"
        if name == "^":
            hint = "^ is the main worktree, which is no clone; path and cd go there"
        super().__init__(f"there is no clone named {name!r}", hint=hint, name=name)


class CloneExists(KhloneError):
    """The name of a new clone is taken."""

    code = "clone-exists"

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(
            f"a clone named {name!r} exists already, in {path}",
            hint=f"choose another name, or remove it with `git khlone remove {name}`",
            name=name,
            path=path,
        )


class BranchExists(KhloneError):
    """The branch that a new clone would create is there already."""

    code = "branch-exists"

    def __init__(self, branch: str, *, can_be_used: bool = False) -> None:
        super().__init__(
            f"a branch named {branch!r} exists already",
            hint=f"use it with --branch {branch}, or choose another name" if can_be_used else "choose another name",
            branch=branch,
        )


class BranchCheckedOut(KhloneError):
    """A branch is checked out in another worktree, or is that of a clone, wherever its worktree is at the moment."""

    code = "branch-checked-out"

    def __init__(self, branch: str, worktree: Path, *, clone: str | None = None) -> None:
        held = f"is checked out in {worktree}" if clone is None else f"belongs to clone {clone!r}"
        hint = "switch that worktree to another branch, or choose another one here"
        if clone is not None:
            hint = "choose another one; a clone whose branch was renamed is followed by `git khlone doctor --fix`"
        super().__init__(f"branch {branch!r} {held}", hint=hint, branch=branch, worktree=worktree, clone=clone)


class NameCollides(KhloneError):
    """A name that cannot stand beside one that exists (letter case, or folder against file)."""

    code = "name-collides"

    def __init__(self, name: str, other: str) -> None:
        super().__init__(
            f"{name!r} cannot stand beside {other!r}: they collide in letter case or as folder and file",
            hint="choose another name",
            name=name,
            other=other,
        )


class PathTaken(KhloneError):
    """The folder that a worktree would take holds something else."""

    code = "path-taken"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is taken by something else", hint="move it away, or choose another name", path=path)


class CloneBusy(KhloneError):
    """Another command or session holds the clone."""

    code = "clone-busy"
    exit_code = EXIT_BUSY

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"clone {name!r} is in use by {holder}", hint="try again when it has ended", name=name, holder=holder
        )


class CloneNotReady(KhloneError):
    """The clone is in a state in which the command cannot work on it."""

    code = "clone-not-ready"

    def __init__(self, name: str, state: str, reason: str | None = None) -> None:
        because = f" ({reason})" if reason else ""
        super().__init__(
            f"clone {name!r} is {state}{because}",
            hint="`git khlone doctor` says why, and with --fix mends what can be mended",
            name=name,
            state=state,
            reason=reason,
        )


class UnknownAgent(KhloneError):
    """No plugin offers an agent profile of that name."""

    code = "unknown-agent"
    exit_code = EXIT_USAGE

    def __init__(self, agent: str, known: Sequence[str]) -> None:
        super().__init__(
            f"no plugin knows an agent named {agent!r}",
            hint=f"known are: {', '.join(known)}"
            if known
            else "no plugin that offers agents is loaded: see `git khlone plugins`, KHLONE_PLUGINS and khlone.plugins",
            agent=agent,
        )


class AgentNeedsKey(KhloneError):
    """This version of an agent can share no login, and no token or key was given to it."""

    code = "agent-needs-key"

    def __init__(self, agent: str, version: str | None, clone: str, why: str, tokens: Sequence[str]) -> None:
        super().__init__(
            f"{agent} {version or 'of unknown version'} would log other clones out: {why}",
            hint=f"use a newer {agent}, set {_some(tokens)}, or git khlone agents key {clone} --file FILE",
            agent=agent,
            version=version,
            clone=clone,
        )


class AgentNotStarted(KhloneError):
    """An agent, or what a throw-away clone for it needs, could not be started or ended with an error."""

    code = "agent-not-started"

    def __init__(self, agent: str, what: str, why: str) -> None:
        super().__init__(
            f"{agent} could not be tried: {what} failed: {' '.join(why.split()) or 'it said nothing'}",
            hint="try it by hand in a folder of its own",
            agent=agent,
            what=what,
        )


class AgentConfigUnsound(KhloneError):
    """A file of the user's for an agent is empty, cut off or was reset, so nothing is merged into it."""

    code = "unsound-agent-config"

    def __init__(self, path: Path, problem: str, agent: str) -> None:
        super().__init__(
            f"{path} {problem}",
            hint=f"git khlone agents restore {agent} puts the last good copy back",
            path=path,
            agent=agent,
        )


class KeyNotUsable(KhloneError):
    """The key that was assigned to a clone cannot be had from where it is."""

    code = "key-not-usable"

    def __init__(self, clone: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"no key for {clone}: {why}",
            hint=hint or f"assign another one: git khlone agents key {clone} --file FILE",
            clone=clone,
        )


class IsolationMissing(KhloneError):
    """What a level of isolation needs is not there, or does not work here."""

    code = "isolation-missing"

    def __init__(self, level: str, why: str, *, hint: str) -> None:
        super().__init__(f"isolation {level} cannot be had: {why}", hint=hint, level=level)


class CommandNotFound(KhloneError):
    """The command to run in a clone cannot be started."""

    code = "command-not-found"

    def __init__(self, command: str, why: str) -> None:
        super().__init__(f"cannot run {command!r}: {why}", hint="check the spelling and PATH", command=command)


class MainWorktree(KhloneError):
    """The main worktree was to become a clone."""

    code = "main-worktree"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is the main worktree, which cannot be a clone",
            hint="git khlone new makes one beside it",
            path=path,
        )


class OtherRepository(KhloneError):
    """The worktree to be adopted belongs to another repository."""

    code = "other-repository"

    def __init__(self, path: Path, common_dir: Path) -> None:
        super().__init__(
            f"{path} is a worktree of another repository, {common_dir}",
            hint="call khlone there",
            path=path,
            common_dir=common_dir,
        )


class DetachedHead(KhloneError):
    """A worktree that is on no branch cannot be a clone."""

    code = "detached-head"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is on no branch: its HEAD is detached", hint="git switch -c BRANCH in it first", path=path
        )


class NotUndoable(KhloneError):
    """What an operation did cannot be taken back, since things have moved on."""

    code = "not-undoable"

    def __init__(self, operation: str | None, what: str, why: str, hint: str | None = None) -> None:
        super().__init__(
            f"{what} can be undone: {why}" if operation is None else f"{what} cannot be undone: {why}",
            hint=hint or "see git khlone log",
            operation=operation,
        )


class NoSuchOperation(KhloneError):
    """The journal knows no operation of that id."""

    code = "no-such-operation"

    def __init__(self, operation: str) -> None:
        super().__init__(f"there is no operation {operation!r}", hint="see git khlone log", operation=operation)


# -- merging -------------------------------------------------------------------------------


class NoTarget(KhloneError):
    """A clone without a target branch was to be merged."""

    code = "no-target"

    def __init__(self, name: str) -> None:
        super().__init__(f"clone {name!r} has no target branch", hint="name one with --into TARGET", name=name)


class NothingToMerge(KhloneError):
    """The clone's branch has nothing that the target lacks."""

    code = "nothing-to-merge"
    exit_code = EXIT_OK

    def __init__(self, name: str, target: str) -> None:
        super().__init__(f"{name} has nothing that {target} lacks", hint=None, name=name, target=target)


class CloneDirty(KhloneError):
    """A clone to be merged has uncommitted or untracked work."""

    code = "clone-dirty"

    def __init__(self, name: str, paths: Sequence[str] = (), *, under_way: object = None) -> None:
        super().__init__(
            f"{name} has uncommitted work: {_some(paths) if under_way is None else f'a {under_way} that is under way'}",
            hint="commit it in the clone, or merge what is committed with --committed",
            name=name,
            paths=list(paths),
        )


class HeadElsewhere(KhloneError):
    """A clone to be merged has commits on another branch, or on none, than its own."""

    code = "head-elsewhere"

    def __init__(self, name: str, told: str, way_back: str, commits: int) -> None:
        super().__init__(
            f"{name} has work beside its branch: its worktree {told}",
            hint=f"{way_back}; or land the branch as it is with --committed",
            name=name,
            commits=commits,
        )


class MergeConflict(KhloneError):
    """The clone's branch and the target changed the same places."""

    code = "conflict"
    exit_code = EXIT_CONFLICT

    def __init__(
        self,
        name: str,
        target: str,
        paths: Sequence[str],
        *,
        commit: str | None = None,
        own: str | None = None,
        is_gone: bool = False,
    ) -> None:
        where = f" at {commit}" if commit else ""
        way = f"git khlone sync --conflict {'--rebase ' if commit else ''}{name}"
        again = "merge again"
        if target != own:
            way = f"git {'rebase' if commit else 'merge'} {target}, settle the conflict, commit"
            again = f"git khlone merge {name} --into {target}"
        back = "its folder is gone, `git khlone doctor --fix` brings it back; then, " if is_gone else ""
        super().__init__(
            f"{name} conflicts with {target} in {_some(paths)}{where}",
            hint=f"{back}to settle it in the clone: {way}, and {again}",
            name=name,
            target=target,
            paths=list(paths),
            commit=commit,
        )


class UnrelatedHistories(KhloneError):
    """The clone's branch and the target share no commit."""

    code = "unrelated-histories"

    def __init__(self, name: str, target: str) -> None:
        super().__init__(
            f"{name} and {target} have no commit in common",
            hint="check --into; khlone does not join unrelated histories",
            name=name,
            target=target,
        )


class NotFastForward(KhloneError):
    """`--ff-only` was asked for and the target has commits that the clone lacks."""

    code = "not-fast-forward"
    exit_code = EXIT_REFUSED

    def __init__(self, name: str, target: str) -> None:
        super().__init__(
            f"{target} has moved on, so {name} cannot land as a fast-forward",
            hint=f"in the clone: git rebase {target}; or merge without --ff-only",
            name=name,
            target=target,
        )


class TargetDirty(KhloneError):
    """The target's worktree has local work in the very paths that would change."""

    code = "target-dirty"

    def __init__(self, target: str, worktree: Path, paths: Sequence[str]) -> None:
        super().__init__(
            f"{target} is checked out in {worktree} with local work in {_some(paths)}",
            hint="commit or stash it there, then merge again",
            target=target,
            worktree=worktree,
            paths=list(paths),
        )


class TargetInProgress(KhloneError):
    """A merge, rebase, bisect or the like is under way in the target's worktree."""

    code = "target-in-progress"

    def __init__(self, target: str, worktree: Path, what: str) -> None:
        super().__init__(
            f"a {what} is under way in {worktree}, where {target} is checked out",
            hint=f"finish or abort the {what} there, then merge again",
            target=target,
            worktree=worktree,
            what=what,
        )


class TargetMoved(KhloneError):
    """The target kept moving while candidates were computed."""

    code = "target-moved"
    exit_code = EXIT_BUSY

    def __init__(self, target: str, tries: int) -> None:
        super().__init__(
            f"{target} moved {tries} times while the merge was computed", hint="try again", target=target, tries=tries
        )


class SeatLost(KhloneError):
    """Another process took over a target's queue."""

    code = "seat-lost"
    exit_code = EXIT_BUSY

    def __init__(self, target: str) -> None:
        super().__init__(f"another process drives the queue of {target} by now", hint="try again", target=target)


class QueuePaused(KhloneError):
    """The queue of the target is paused."""

    code = "queue-paused"
    exit_code = EXIT_BUSY

    def __init__(self, target: str) -> None:
        super().__init__(
            f"the queue of {target} is paused: what waits stays in line",
            hint="git khlone queue resume, then queue run; or queue remove NAME",
            target=target,
        )


class EntryLanding(KhloneError):
    """What is to be taken out of a queue is landing at this moment."""

    code = "entry-landing"
    exit_code = EXIT_BUSY

    def __init__(self, name: str, target: str) -> None:
        super().__init__(
            f"{name} is landing on {target} at this moment",
            hint="when it has landed, git khlone undo takes that back",
            name=name,
            target=target,
        )


class NoSuchEntry(KhloneError):
    """Nothing of that name or id waits in a queue."""

    code = "no-such-entry"

    def __init__(self, word: str) -> None:
        super().__init__(
            f"nothing waits in a queue under {word!r}", hint="git khlone queue lists what does", entry=word
        )


class CommitHookRefused(KhloneError):
    """A commit hook of the repository refused the message of the commit that would land."""

    code = "commit-hook-refused"

    def __init__(self, name: str, hook: str, why: str) -> None:
        super().__init__(
            f"the hook {hook} refused {name}: {why}",
            hint="do what it says; or --no-verify, or git config khlone.merge.hooks false for good",
            name=name,
            hook=hook,
        )


class GateFailed(KhloneError):
    """A gate refused the candidate, or none was there to ask where one must be; the latter has a `hint` of its own."""

    code = "gate-failed"
    exit_code = EXIT_GATE

    def __init__(
        self, name: str, gate: str, why: str, *, hint: str | None = None, partners: Sequence[str] = ()
    ) -> None:
        together = f" together with {', '.join(partners)}" if partners else ""
        mend = "mend it in the clone and merge again"
        if partners:
            mend = f"it passes alone: bring {partners[0]}'s work into it, mend what they break together, merge again"
        super().__init__(
            f"gate {gate!r} refused {name}{together}: {why}",
            hint=hint or mend,
            name=name,
            gate=gate,
            partners=list(partners),
        )


class NotApproved(KhloneError):
    """The commit that would land has not been approved, where `khlone.merge.approval` wants that."""

    code = "not-approved"
    exit_code = EXIT_PERMISSION

    def __init__(self, name: str, oid: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"{name} is at {oid[:10]}: {why}",
            hint=hint or f"look at it (git khlone diff {name}), then git khlone approve {name}",
            name=name,
            oid=oid,
        )


# -- removing and restoring ----------------------------------------------------------------


class HasChanges(KhloneError):
    """A clone to be removed has staged, unstaged, untracked or stashed work."""

    code = "has-changes"

    def __init__(self, name: str, paths: Sequence[str], stashes: Sequence[str]) -> None:
        parts, stay = [], []
        if paths:
            parts.append(f"uncommitted work in {_some(paths)}")
            stay.append("it stays in the trash")
        if stashes:
            parts.append(f"{len(stashes)} stash{'es' if len(stashes) > 1 else ''} of its branch ({_some(stashes)})")
            stay.append("stashes stay in git")
        first = "commit it" if paths else f"git stash pop {stashes[0].partition(':')[0]} in it and commit that"
        super().__init__(
            f"{name} has {' and '.join(parts)}",
            hint=f"{first}, or `git khlone remove --force {name}` ({', '.join(stay)})",
            name=name,
            paths=list(paths),
            stashes=len(stashes),
        )


class NotIntegrated(KhloneError):
    """A clone to be removed has commits that its target lacks, to which there is a `way_out` where that is gone."""

    code = "not-integrated"

    def __init__(
        self,
        name: str,
        target: str | None,
        commits: int | None,
        *,
        first: str | None = None,
        way_out: str | None = None,
        beside: str | None = None,
    ) -> None:
        count = f"{commits} commit{'' if commits == 1 else 's'}" if commits else "commits"
        are = "is" if commits == 1 else "are"
        where = (
            f"{are} not in {target}{', which is gone' if way_out else ''}" if target else f"{are} in no other branch"
        )
        super().__init__(
            f"{name} has {count} that {where}" + (f"; {beside}" if beside else ""),
            hint=f"{f'{first}; then ' if first else ''}{way_out or f'git khlone merge {name}'},"
            f" or `git khlone remove --force {name}` ({'they are kept' if first else 'the branch is kept'})",
            name=name,
            target=target,
            commits=commits,
        )


class SessionLive(KhloneError):
    """Processes run in the clone."""

    code = "session-live"

    def __init__(self, name: str, processes: Sequence[str]) -> None:
        super().__init__(
            f"processes run in {name}: {_some(processes)}",
            hint=f"end them, or `git khlone remove --force {name}`",
            name=name,
            processes=list(processes),
        )


class NoSuchSession(KhloneError):
    """The clone has no session of that kind."""

    code = "no-such-session"

    def __init__(self, name: str, what: str = "has had no session yet", *, answer: bool = False) -> None:
        begins = (
            f"git khlone ask {name} PROMPT asks its agent" if answer else f"git khlone run {name} -- CMD starts one"
        )
        super().__init__(f"{name} {what}", hint=begins, name=name)


class NoHeadlessMode(KhloneError):
    """The agent of a clone cannot be asked without a terminal, as far as its profile says."""

    code = "no-headless-mode"

    def __init__(self, name: str, agent: str, *, resuming: bool) -> None:
        what = "go on with a session" if resuming else "be asked"
        super().__init__(
            f"agent {agent!r} of {name} cannot {what} without a terminal",
            hint=f"git khlone run {name} -- CMD; a profile of yours may say how (docs/agents-profiles.md)",
            name=name,
            agent=agent,
        )


class TmuxMissing(KhloneError):
    """There is no tmux to come to the terminal of a session by that tmux holds."""

    code = "tmux-missing"

    def __init__(self) -> None:
        super().__init__(
            "there is no tmux on PATH, which holds the terminal of this session",
            hint="call it with the PATH that the session was started with",
        )


class SessionFailed(KhloneError):
    """A session could not be seen through, or not be ended."""

    code = "session-failed"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"the session of {name} failed: {why}", hint=f"see git khlone logs {name}", name=name, reason=why
        )


class Untouched(KhloneError):
    """A clone to be pruned has no commit of its own yet: somebody may just have made it."""

    code = "untouched"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} has no commit of its own yet", hint=f"git khlone remove {name}, if nobody wants it", name=name
        )


class CloneLocked(KhloneError):
    """The worktree of a clone to be pruned was locked by hand."""

    code = "clone-locked"

    def __init__(self, name: str, reason: str) -> None:
        because = f": {reason}" if reason else ""
        super().__init__(
            f"the worktree of {name} is locked{because}", hint="git worktree unlock it first", name=name, reason=reason
        )


class NoSuchTrash(KhloneError):
    """Nothing in the trash has that name or id."""

    code = "no-such-trash"

    def __init__(self, name: str) -> None:
        super().__init__(f"nothing in the trash is named {name!r}", hint="see `git khlone trash`", name=name)


class OnlyCopy(KhloneError):
    """A trash entry to be purged has work that is nowhere else, and that git has no copy of."""

    code = "only-copy"

    def __init__(self, name: str, trash: str, paths: Sequence[str]) -> None:
        what = _some(paths) if paths else "files that git cannot read"
        super().__init__(
            f"the trash has the only copy of {what} of {name}",
            hint=f"git khlone restore {trash}, then commit it, move it away or delete it",
            name=name,
            trash=trash,
            paths=list(paths),
        )


# -- plugins and trust ---------------------------------------------------------------------


class Refusal(KhloneError):
    """Raised by a plugin's gate hook to stop an operation; the text is shown to the user."""

    code = "vetoed"

    def __init__(self, why: str, *, hint: str | None = None, plugin: str | None = None) -> None:
        super().__init__(why, hint=hint, plugin=plugin)


class PluginFailed(KhloneError):
    """A plugin raised something other than a refusal in a hook that must not fail."""

    code = "plugin-failed"

    def __init__(self, plugin: str, hook: str, cause: str, *, log: Path | None = None) -> None:
        super().__init__(
            f"plugin {plugin!r} failed in {hook}: {cause}",
            hint="mend or remove the plugin; KHLONE_PLUGINS names those that count, --no-plugins leaves all of them out"
            + (f"; the trace is in {log}" if log is not None else ""),
            plugin=plugin,
            hook=hook,
            **({"log": log} if log is not None else {}),
        )


class NotAdmitted(KhloneError):
    """Plugins see no room for one more session now; `refusals` holds (plugin, why)."""

    code = "not-admitted"
    exit_code = EXIT_BUSY

    def __init__(self, clone: str, refusals: Sequence[tuple[str, str]]) -> None:
        super().__init__(
            f"no session may start in {clone} now: " + "; ".join(f"{why} ({plugin})" for plugin, why in refusals),
            hint="try again when there is room",
            clone=clone,
            plugins=[plugin for plugin, _ in refusals],
        )


class NoRoom(KhloneError):
    """The machine has no place for one more session now, or could never have one (`never`)."""

    code = "no-room"
    exit_code = EXIT_BUSY

    def __init__(
        self,
        name: str,
        why: str,
        *,
        position: int | None = None,
        waited_s: float = 0.0,
        never: bool = False,
        slot: bool = False,
    ) -> None:
        waited = f" after {waited_s:.0f} s" if waited_s >= 1 else ""
        shown = "git khlone slot" if slot else "git khlone limits"
        super().__init__(
            f"{name} is not free{waited}: {why}" if slot else f"no session may start in {name}{waited}: {why}",
            hint="raise the limit: see git khlone limits"
            if never
            else f"try again when there is room, or leave out --no-wait; {shown} shows who holds what",
            name=name,
            reason=why,
            position=position,
        )


class OverBudget(KhloneError):
    """A clone has had all that it may cost today."""

    code = "over-budget"
    exit_code = EXIT_BUSY

    def __init__(self, name: str, usd: float, *, spent_usd: float) -> None:
        super().__init__(
            f"{name} has cost {spent_usd:.4f} USD today, and may cost {usd:g} (khlone.limits.cost)",
            hint="try again after midnight (UTC), or raise the limit; git khlone usage shows what was spent",
            name=name,
            limit_usd=usd,
            spent_usd=round(spent_usd, 4),
        )


class CostUntold(KhloneError):
    """What is to run tells nobody what it costs, so that no amount can be kept to."""

    code = "cost-untold"

    def __init__(self, name: str, agent: str | None) -> None:
        what = "the command is none of the clone's agent" if agent is None else f"{agent} does not say what it costs"
        super().__init__(
            f"{name}: {what}, so --max-cost cannot be kept to",
            hint="bound it by --max-time or --stall",
            name=name,
            agent=agent,
        )


class PluginClash(KhloneError):
    """Two plugins gave different answers where only one can hold."""

    code = "plugin-clash"

    def __init__(self, what: str, plugins: Sequence[str]) -> None:
        super().__init__(
            f"plugins {_some(plugins)} clash over {what}",
            hint="leave one of them out",
            what=what,
            plugins=list(plugins),
        )


class NotTrusted(KhloneError):
    """Something the repository brings along would run and was not approved."""

    code = "not-trusted"
    exit_code = EXIT_PERMISSION

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not approved", hint="look at it and approve it with `git khlone trust`", what=what)


class NotPermitted(KhloneError):
    """The operating system or a rule of khlone does not allow it."""

    code = "not-permitted"
    exit_code = EXIT_PERMISSION

    def __init__(self, why: str, *, hint: str | None = None, **facts: object) -> None:
        super().__init__(why, hint=hint, **facts)


class HooksInTheWay(KhloneError):
    """git hooks cannot be put in or taken away without changing what is not khlone's."""

    code = "hooks-in-the-way"


# -- remotes -------------------------------------------------------------------------------


class NoRemote(KhloneError):
    """There is no remote to talk to, or none of that name."""

    code = "no-remote"

    def __init__(self, name: str | None, known: Sequence[str]) -> None:
        what = "this repository has no remote" if not known else "it cannot be told which remote is meant"
        super().__init__(
            what if name is None else f"there is no remote named {name!r}",
            hint=f"choose one of {_some(known)}: git config khlone.remote NAME" if known else "see git remote add",
            remote=name,
            known=list(known),
        )


class RemoteFailed(KhloneError):
    """A remote did not answer in time, could not be reached, or failed; its own words follow."""

    code = "remote-failed"

    def __init__(self, remote: str, why: str) -> None:
        super().__init__(
            f"remote {remote}: {why}", hint=f"try git ls-remote {remote} by hand, or again later", remote=remote
        )


class CredentialsMissing(KhloneError):
    """A remote, or what speaks to it, knows nobody by the credentials at hand; nothing is ever asked for."""

    code = "credentials-missing"
    exit_code = EXIT_PERMISSION

    def __init__(self, remote: str, why: str) -> None:
        super().__init__(
            f"{remote} lets nobody in: {why}",
            hint="set up a credential helper, an ssh agent or a login of gh or glab: khlone never asks for a password",
            remote=remote,
        )


class PushRejected(KhloneError):
    """The remote, a hook or the lease refused a push; what is there stays there."""

    code = "push-rejected"

    def __init__(self, name: str, remote: str, why: str, *, hint: str | None) -> None:
        super().__init__(f"{name} is not pushed to {remote}: {why}", hint=hint, name=name, remote=remote, why=why)


class NoUpstream(KhloneError):
    """What lands is to be pushed, and the target follows no branch of a remote."""

    code = "no-upstream"

    def __init__(self, target: str, why: str) -> None:
        super().__init__(
            f"what lands on {target} cannot be pushed: it {why}",
            hint=f"git branch --set-upstream-to=REMOTE/{target} {target}, or land with --no-push",
            target=target,
        )


class UpstreamGone(KhloneError):
    """What lands is to be pushed to a branch of a remote that was deleted or renamed there."""

    code = "upstream-gone"

    def __init__(self, target: str, remote: str, branch: str) -> None:
        super().__init__(
            f"remote {remote} has no branch {branch} any more, which {target} follows; nothing was pushed",
            hint=f"git branch --set-upstream-to={remote}/BRANCH {target} where it was renamed, "
            f"git push {remote} {target}:{branch} to make it again, or land with --no-push",
            target=target,
            remote=remote,
            branch=branch,
        )


class LandedUpstream(KhloneError):
    """A clone has landed on the branch of a remote that its target follows, and the target here lacks that."""

    code = "landed-upstream"

    def __init__(self, name: str, target: str, upstream: str) -> None:
        super().__init__(
            f"{name} has landed on {upstream} already, and {target} here lacks that",
            hint=f"git merge {upstream} where {target} is checked out, or git khlone merge {name} --push",
            name=name,
            target=target,
            upstream=upstream,
        )


class TargetDiverged(KhloneError):
    """The target and the branch of a remote that it follows each have commits that the other lacks."""

    code = "target-diverged"

    def __init__(self, target: str, upstream: str, *, new: str | None = None) -> None:
        there = "" if new is None else f"; what was tested is on {upstream} ({new[:10]}) and not here"
        super().__init__(
            f"{target} and {upstream} have diverged{there}",
            hint=f"bring them together first, with {target} checked out: git merge {upstream}",
            target=target,
            upstream=upstream,
        )


class NoForge(KhloneError):
    """No program is there that can open a pull request on this remote."""

    code = "no-forge"

    def __init__(self, name: str, wanted: Sequence[str]) -> None:
        super().__init__(
            f"no pull request can be opened: {' and '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} not on PATH",
            hint=f"git khlone push {name}, and open it where the remote is hosted",
            wanted=list(wanted),
        )


class ForgeFailed(KhloneError):
    """gh or glab failed; its own words follow."""

    code = "forge-failed"

    def __init__(self, program: str, why: str, *, hint: str | None = None) -> None:
        super().__init__(f"{program} failed: {why}", hint=hint, program=program)


class NothingToPropose(KhloneError):
    """The branch of a pull request would have no commit that its base lacks."""

    code = "nothing-to-propose"

    def __init__(self, name: str, base: str) -> None:
        super().__init__(
            f"{name} has no commit that {base} lacks", hint="commit in the clone first", name=name, base=base
        )


# -- state on disk -------------------------------------------------------------------------


class Locked(KhloneError):
    """A lock was not free within its bounded wait; the holder is named."""

    code = "locked"
    exit_code = EXIT_BUSY

    def __init__(self, what: str, holder: str, waited_s: float) -> None:
        super().__init__(
            f"{what} is held by {holder}, waited {waited_s:.0f} s",
            hint="try again when it has ended",
            what=what,
            holder=holder,
            waited_s=waited_s,
        )


class LockLost(KhloneError):
    """A lock file was replaced or unlinked while it was held: nothing more may be changed."""

    code = "lock-lost"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the lock file {path} was replaced while it was held", hint="leave the locks folder alone; try again"
        )


class NoSpace(KhloneError):
    """The disk or a quota is full."""

    code = "no-space"

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"no space left while writing {path}: {why}", hint="free some and try again", path=str(path))


class DiskFailed(KhloneError):
    """The disk does not do what was asked of it."""

    code = "disk-failed"

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(
            f"the disk failed at {path}: {why}",
            hint="look at the disk and at the kernel's log; what was begun is undone, or will be by the next command",
            path=str(path),
        )


class OverLimit(KhloneError):
    """The operating system gives this user or process no more of something."""

    code = "over-limit"
    exit_code = EXIT_BUSY

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what}: {why}", hint="end something or raise the limit (see `ulimit -a`), then try again", what=what
        )


class OutputFailed(KhloneError):
    """The answer cannot be written to stdout."""

    code = "output-failed"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the answer cannot be written to stdout: {why}",
            hint="what was asked for may have been done all the same: see `git khlone log`",
        )


class NoPorts(KhloneError):
    """Every block of ports that a clone may get is another clone's, or some program's."""

    code = "no-ports"
    exit_code = EXIT_BUSY

    def __init__(self, among: range, count: int) -> None:
        super().__init__(
            f"no {count} ports from {among.start} to {among.stop - 1} are free",
            hint="remove a clone, or set khlone.ports.range or khlone.ports.size",
            first=among.start,
            last=among.stop - 1,
            count=count,
        )


class RegistryNewer(KhloneError):
    """The registry was written by a newer khlone."""

    code = "registry-newer"

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"{path} is of schema {found}, this khlone knows {known}",
            hint="upgrade khlone; nothing was changed",
            path=path,
            found=found,
            known=known,
        )


class RegistryCorrupt(KhloneError):
    """The registry cannot be read; nothing was changed."""

    code = "registry-corrupt"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged ({why}); nothing was changed",
            hint="`git khlone doctor --fix` sets it aside and rebuilds it from refs and admin folders",
            path=path,
        )


class StateUnsafe(KhloneError):
    """A file or folder of khlone's has an owner, a mode or a kind it must not have."""

    code = "state-unsafe"
    exit_code = EXIT_PERMISSION

    def __init__(self, path: Path, why: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"{path} cannot be trusted: {why}", hint=hint or "look at it by hand, and delete nothing unseen", path=path
        )


class NetworkFileSystem(KhloneError):
    """The repository lies on a network file system, where locks cannot be relied on."""

    code = "network-file-system"

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            f"{path} lies on {kind}, where locks are not reliable",
            hint="set khlone.allowNetworkFileSystem to true if only one machine uses it",
            path=path,
            kind=kind,
        )


class InvalidSetting(KhloneError):
    """A setting has a value that cannot be used."""

    code = "invalid-setting"
    exit_code = EXIT_USAGE

    def __init__(self, key: str, value: str, why: str, origin: str | None = None) -> None:
        where = "" if origin is None else f" in {origin}"
        hint = f"`git khlone config get {key}` says where it is set" if key.startswith("khlone.") else "correct it"
        super().__init__(f"setting {key} = {value!r}{where}: {why}", hint=hint, key=key, why=why, origin=origin)

    @classmethod
    def of_file(cls, path: Path, error: ValueError) -> InvalidSetting:
        """What a parser of TOML, or a decoder, says of a settings file, with the line where it can be told."""
        why, line = str(error), None
        if isinstance(error, UnicodeDecodeError):
            why, line = "it is not UTF-8", error.object[: error.start].count(b"\n") + 1
        elif (found := re.fullmatch(r"(.*) \(?at line (\d+),? col(?:umn)? \d+\)?", why, re.DOTALL)) is not None:
            why, line = found[1], int(found[2])
        place = str(path) if line is None else f"{path}:{line}"
        told = cls(str(path), "", why)
        told.message = f"{place}: {why[:1].lower()}{why[1:]}"
        told.hint = "correct that line, or move the file away: it is written in TOML"
        told.facts = {"path": str(path), "line": line, "why": why}
        return told
