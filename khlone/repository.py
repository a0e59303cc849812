"""What does git say and do about a repository?

The one adapter round git: every call is built here, with an environment scrubbed of what
hooks export, hooks (in a folder or in the configuration) and fsmonitor of the repository
switched off, no prompt, C messages, bounded time, and a retry of the races that git itself
does not wait for. GitPython's command wrapper (nothing else of it) serves the cold questions
of `remove` and `doctor`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from khlone import process, ref_files
from khlone.config_hooks import ConfigHooks
from khlone.errors import (
    GitFailed,
    GitTooOld,
    IdentityMissing,
    KhloneError,
    NoSpace,
    NoSuchRef,
    SigningFailed,
    UsageError,
)
from khlone.files import read_regular
from khlone.model import Location
from khlone.process import Completed
from khlone.values import dataclass

MINIMUM_GIT = (2, 39)
_SMALL = 1 << 20
#: How long a look at one of many worktrees may take.
_LOOK_S = 1800.0
#: How long a cold question may take.
_COLD_S = 600.0
#: What git says when it lost a race that is over in milliseconds.
_RACES = (
    r"could not lock config file|failed to read .*/worktrees/.*/commondir|bad object worktrees/.*/HEAD"
    r"|Unable to create '.*\.lock': File exists|could not open '.*/locked'"
)
#: A file system with less room than this was full for a git that could not write a file, part of which is gone again.
_FULL_BYTES = 16 << 20
_RETRY_TOTAL_S = 15.0
#: What makes a filter, and what leaves it out.
_FILTER_KEYS = {b"clean": b"", b"smudge": b"", b"process": b"", b"required": b"false"}
_LOCK_TIMEOUTS = ("-c", "core.filesRefLockTimeout=5000", "-c", "core.packedRefsTimeout=10000")
_QUIET = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "core.quotePath=false",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefUpdate:
    """One ref from `old` to `new`; the null oid as `old` creates, as `new` deletes."""

    ref: str
    new: str
    old: str


def null_oid(like: str) -> str:
    """The null oid of the same hash as `like`."""
    return "0" * len(like)


# -- git -----------------------------------------------------------------------------------


class Repository:
    """One repository and the git that works on it."""

    def __init__(self, location: Location, *, durable: bool = True) -> None:
        self.location = location
        self.common_dir = location.common_dir
        self._durable = durable
        self._environment = {
            **process.scrubbed(),
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": ":",
            "GIT_MERGE_AUTOEDIT": "no",
        }
        self._config_hooks = ConfigHooks(location.common_dir, self._environment)

    def git(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        writes: bool = False,
        check: bool = True,
        keep_open: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 1800.0,
        configuration: Sequence[str] = (),
        filters: bool = True,
        hooks: bool = False,
    ) -> Completed:
        """Run git in `cwd` (default: the common dir) and return its output.

        `writes` adds durability and lock patience, and retries the races that git does not wait for;
        a reading call takes no optional lock. Without `filters` no filter runs that the
        repository's own configuration names; with `hooks` those of the repository run.
        Raises GitFailed, IdentityMissing or NoSpace where `check` is on.
        """
        argv, built = self._asked(
            arguments,
            cwd=cwd,
            writes=writes,
            environment=environment,
            configuration=configuration,
            filters=filters,
            hooks=hooks,
        )
        started = time.monotonic()
        pause_s = 0.02
        while True:
            done = process.run(
                argv,
                environment=built,
                stdin=stdin,
                timeout_s=timeout_s,
                keep_open=keep_open,
            )
            if done.status == 0 or not (writes and re.search(_RACES, done.error_text)):
                break
            if time.monotonic() - started > _RETRY_TOTAL_S:
                break
            time.sleep(pause_s * (0.5 + os.urandom(1)[0] / 255))
            pause_s = min(pause_s * 2, 2.0)
        if done.truncated:
            raise GitFailed(arguments, done.status, f"error: more than {process.CAPTURE_BYTES} bytes of output")
        if check and done.status != 0:
            raise failure(arguments, done, where=cwd or self.common_dir)
        return done

    def look(
        self,
        arguments: Sequence[str],
        worktrees: Iterable[Path],
        *,
        at_once: int,
        given_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Completed | KhloneError]]:
        """Ask git the same of many worktrees, `at_once` at a time; no filter of the repository's runs.

        Yields the place of each in the list and its answer, as they come; a failure is an answer too.
        Once `given_up` says so, what is asked still is ended.
        """
        asked_of: list[tuple[int, Path]] = []
        failed: list[tuple[int, KhloneError]] = []

        def asked() -> Iterator[tuple[list[str], dict[str, str]]]:
            for place, worktree in enumerate(worktrees):
                try:
                    one = self._asked(arguments, cwd=worktree, filters=False)
                except KhloneError as error:
                    failed.append((place, error))
                else:
                    asked_of.append((place, worktree))
                    yield one

        for number, done in process.run_many(asked(), at_once=at_once, timeout_s=_LOOK_S, given_up=given_up):
            place, worktree = asked_of[number]
            if isinstance(done, Completed) and done.status != 0:
                yield place, failure(arguments, done, where=worktree)
                continue
            yield place, done
        yield from failed

    def _asked(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path | None = None,
        writes: bool = False,
        environment: Mapping[str, str] | None = None,
        configuration: Sequence[str] = (),
        filters: bool = True,
        hooks: bool = False,
    ) -> tuple[list[str], dict[str, str]]:
        built = {**self._environment, **(environment or {})}
        if not filters:
            _configure(built, self._without_own_filters(cwd or self.common_dir))
        options = list(_QUIET[2:] if hooks else (*_QUIET, *self._without_config_hooks(cwd, built)))
        if writes:
            options += _LOCK_TIMEOUTS
            if self._durable:
                options += ("-c", "core.fsync=all")
        else:
            built["GIT_OPTIONAL_LOCKS"] = "0"
        for pair in configuration:
            options += ("-c", pair)
        # git goes to the folder itself: a child that is started somewhere else costs more to start.
        there = ["-C", os.fspath(cwd or self.common_dir)]
        return [process.git_executable(), *there, *options, *self._named(cwd), *arguments], built

    def _without_config_hooks(self, cwd: Path | None, built: dict[str, str]) -> list[str]:
        """Options that switch off each hook that the configuration names; odd names go by variables into `built`."""
        names = self._config_hooks.names(cwd or self.common_dir, built)
        _configure(built, [(f"hook.{name}.enabled", "false") for name in names if "=" in name])
        return [part for name in names if "=" not in name for part in ("-c", f"hook.{name}.enabled=false")]

    def _without_own_filters(self, cwd: Path) -> list[tuple[str, str]]:
        """Settings that put the user's filters, or none, in the place of those that the repository brings along.

        Whoever can write to the repository's configuration, a process in a clone too, could
        have a program run by a look at a file: git asks the filter what the file is like.
        """
        config = (read_regular(self.common_dir / "config", most=_SMALL) or b"").lower()
        if not any(word in config for word in (b"filter", b"include", b"worktreeconfig")):
            return []
        asked = ("config", "--list", "-z", "--show-scope")
        words = self.git(*asked, cwd=cwd).stdout.split(b"\0")
        own: set[bytes] = set()
        users: dict[bytes, bytes] = {}
        for scope, item in zip(words[::2], words[1::2], strict=False):
            key, _, value = item.partition(b"\n")
            what = key.rpartition(b".")[2]
            if key.startswith(b"filter.") and what in _FILTER_KEYS:
                if scope in (b"local", b"worktree"):
                    own.add(key)
                else:
                    users[key] = value
        pairs = [(key, users.get(key, _FILTER_KEYS[key.rpartition(b".")[2]])) for key in sorted(own)]
        return [(os.fsdecode(key), os.fsdecode(value)) for key, value in pairs]

    def cold(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
        """Ask git through GitPython's command wrapper; for questions off every hot path.

        Returns the exit status and stdout. Nothing of GitPython beside `Git.execute` is
        used: its ref, object and index code knows neither SHA-256 nor reftable nor
        `safe.directory`.
        """
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from git.cmd import Git
        from git.exc import GitCommandError

        where = self._named(cwd)
        wrapper = Git(os.fspath(cwd or self.common_dir))
        built = {**self._environment, "GIT_OPTIONAL_LOCKS": "0"}
        argv = [process.git_executable(), *_QUIET, *self._without_config_hooks(cwd, built), *where, *arguments]
        scrub = sorted(name for name in os.environ if name not in built)
        if scrub:
            argv = ["/usr/bin/env", *(part for name in scrub for part in ("-u", name)), *argv]
        try:
            asked = wrapper.execute(argv, env=built, as_process=True)
        except GitCommandError as error:
            raise GitFailed(arguments, -1, str(error.stderr)) from error
        child = asked.proc
        assert child is not None
        output = process.hear_out(child, timeout_s=_COLD_S)
        if output is None:
            raise GitFailed(arguments, -1, f"gave no answer within {_COLD_S:g} s")
        return child.returncode, output.decode(errors="surrogateescape")

    def _named(self, cwd: Path | None) -> list[str]:
        """What git has to be told where `cwd` does not lead to the repository.

        A main worktree need not: `core.worktree` or GIT_WORK_TREE can have named it.
        """
        if cwd is None:
            return ["--git-dir", os.fspath(self.common_dir)]
        if cwd == self.location.main_worktree and self.common_dir != cwd / ".git":
            return ["--git-dir", os.fspath(self.common_dir), "--work-tree", os.fspath(cwd)]
        return []

    # -- refs

    def read_ref(self, ref: str) -> str | None:
        """The oid that a ref points at, `None` when there is no such ref.

        Read from the ref's file where refs are files; git is asked for anything else (a
        symbolic ref, a reftable). A value that is out of date is caught by the
        compare-and-swap of whatever is done with it.
        """
        if self.has_ref_files:
            found = ref_files.read(self.common_dir, ref)
            if found != ref_files.ASK_GIT:
                return found or None
        # Not `rev-parse`, which for an absent ref looks for refs/heads/<ref> and the like.
        done = self.git("show-ref", "--verify", "--hash", "--", ref, check=False)
        return done.text.strip() if done.status == 0 else None

    @property
    def has_ref_files(self) -> bool:
        """Whether refs are kept in files (not in a reftable)."""
        return ref_files.in_use(self.common_dir)

    def resolve_commit(self, revision: str, *, cwd: Path | None = None) -> str:
        """The oid of the commit that a revision names; raises NoSuchRef, and UsageError where it names two."""
        done = self.git(
            "rev-parse",
            "--verify",
            "--end-of-options",
            f"{revision}^{{commit}}",
            cwd=cwd,
            check=False,
            configuration=["core.warnAmbiguousRefs=true"],
        )
        oid = done.text.strip()
        if done.status != 0 or not ref_files.is_oid(oid):
            raise NoSuchRef(revision)
        if revision != "HEAD" and re.search(r"^warning: refname '.*' is ambiguous", done.error_text, re.MULTILINE):
            raise UsageError(
                f"{revision!r} names more than one ref",
                hint="write it in full: refs/heads/..., refs/tags/... or refs/remotes/...",
            )
        return oid

    def full_name(self, revision: str, *, cwd: Path | None = None) -> str | None:
        """The full ref that a revision abbreviates, `None` when it is not a ref."""
        done = self.git("rev-parse", "--symbolic-full-name", "--end-of-options", revision, cwd=cwd, check=False)
        names = [line for line in done.text.splitlines() if line.startswith("refs/")]
        return names[0] if done.status == 0 and len(names) == 1 else None

    def colliding_refs(self, branch: str) -> list[str]:
        """Existing branches that `branch` equals but for letter case, contains as a folder, or lies below."""
        return self.namesakes(branch)[0]

    def namesakes(self, branch: str) -> tuple[list[str], list[str]]:
        """The colliding branches, as `colliding_refs`; and what remotes have of that name, as `origin/x`."""
        parts = branch.split("/")
        patterns = [f"refs/heads/{'/'.join(parts[:count])}" for count in range(1, len(parts) + 1)]
        followed = f"refs/remotes/**/{_literal(branch)}"
        done = self.git("for-each-ref", "--ignore-case", "--format=%(refname)", *map(_literal, patterns), followed)
        wanted = branch.casefold()
        local, remote = [], []
        for line in done.text.splitlines():
            if line.startswith("refs/remotes/"):
                if line.endswith("/" + branch):
                    remote.append(line.removeprefix("refs/remotes/"))
                continue
            name = line.removeprefix("refs/heads/")
            other = name.casefold()
            if other == wanted or other.startswith(wanted + "/") or wanted.startswith(other + "/"):
                local.append(name)
        return local, remote

    def update_refs(
        self, updates: Sequence[RefUpdate], *, reason: str, keep_open: Sequence[int] = (), check: bool = True
    ) -> Completed:
        """Change several refs in one transaction, each only if it still has its old value."""
        lines = b"".join(
            b"update " + os.fsencode(update.ref) + b"\0" + update.new.encode() + b"\0" + update.old.encode() + b"\0"
            for update in updates
        )
        return self.git(
            "update-ref",
            "-m",
            reason,
            "-z",
            "--stdin",
            stdin=b"start\0" + lines + b"prepare\0commit\0",
            writes=True,
            keep_open=keep_open,
            check=check,
        )

    def default_branch(self) -> str | None:
        """The branch that a remote's HEAD, else this repository's, calls its own."""
        done = self.git("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD", check=False)
        candidates = [done.text.strip().removeprefix("origin/")] if done.status == 0 else []
        head = read_regular(self.common_dir / "HEAD", most=_SMALL) or b""
        if head.startswith(b"ref: refs/heads/"):
            candidates.append(os.fsdecode(head[16:]).strip())
        return next((name for name in candidates if self.read_ref(f"refs/heads/{name}")), None)

    # -- objects

    def commit_tree(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        *,
        sign: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Make a commit, of another author by `environment`; raises IdentityMissing or SigningFailed."""
        arguments = ["commit-tree", *(["-S"] if sign else [])]
        for parent in parents:
            arguments += ["-p", parent]
        given = message.encode(errors="surrogateescape")
        done = self.git(*arguments, tree, stdin=given, writes=True, check=False, environment=environment)
        if done.status != 0:
            error = failure(arguments, done)
            if sign and isinstance(error, GitFailed):
                # git has many words for it; that it goes without says it best.
                self.commit_tree(tree, parents, message, environment=environment)
                raise SigningFailed(done.error_text)
            raise error
        return done.text.strip()


def _configure(built: dict[str, str], pairs: Sequence[tuple[str, str]]) -> None:
    """Add settings to an environment by number, where a key may hold a `=`."""
    if not pairs:
        return
    first = int(built.get("GIT_CONFIG_COUNT", "0"))
    built["GIT_CONFIG_COUNT"] = str(first + len(pairs))
    for number, (key, value) in enumerate(pairs, start=first):
        built[f"GIT_CONFIG_KEY_{number}"] = key
        built[f"GIT_CONFIG_VALUE_{number}"] = value


def _literal(pattern: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", pattern)


def failure(
    arguments: Sequence[str], done: Completed, *, where: Path | None = None
) -> GitFailed | IdentityMissing | NoSpace:
    """The khlone error for a git command that failed; `where` is the folder that it wrote into."""
    text = done.error_text
    if any(
        words in text
        for words in (
            "Please tell me who you are",
            "unable to auto-detect email",
            "empty ident name",
            "no email was given",
            "no name was given",
            "name consists only of disallowed characters",
        )
    ):
        return IdentityMissing()
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return NoSpace("the repository", text.strip().splitlines()[-1])
    if done.status == -signal.SIGXFSZ:
        return NoSpace("the repository", "a file grew beyond the limit of the process")
    if where is not None and "unable to write file" in text and _is_full(where):
        # git 2.39 gives no reason for a file that it could not write out.
        return NoSpace(where, text.strip().splitlines()[0].removeprefix("error: "))
    return GitFailed(arguments, done.status, text or ("timed out" if done.timed_out else ""))


def _is_full(folder: Path) -> bool:
    """Whether a file system has hardly any room left, or none for one more file."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _FULL_BYTES or (found.f_files > 0 and found.f_favail == 0)


def check_git_version(cache: Path | None) -> tuple[int, ...]:
    """The version of git, at least the minimum; raises GitTooOld.

    Asked once for each executable: the answer is cached by path, size and mtime.
    """
    executable = process.git_executable()
    found = os.stat(executable)
    key = f"{executable}\n{found.st_size}\n{found.st_mtime_ns}\n"
    text, is_fresh = "", False
    if cache is not None:
        try:
            cached = cache.read_text()
        except (OSError, UnicodeDecodeError):
            cached = ""
        text = cached.removeprefix(key) if cached.startswith(key) else ""
    if not text:
        text = process.run([executable, "version"], timeout_s=30.0).text.strip()
        is_fresh = True
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if is_fresh and match and cache is not None:
        _keep(cache, key + text)
    version = tuple(int(part) for part in match.groups() if part) if match else (0,)
    if version < MINIMUM_GIT:
        raise GitTooOld(".".join(map(str, version)), ".".join(map(str, MINIMUM_GIT)))
    return version


def _keep(cache: Path, text: str) -> None:
    from khlone.files import write_atomic

    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(cache, text.encode(), durable=False)
    except OSError:
        return
