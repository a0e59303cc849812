"""How does a new clone come by the packages that its work needs? Copied from the main worktree, else installed.

    khlone.deps.kinds       auto      or some of npm pnpm yarn uv pip cargo; nothing: off
    khlone.deps.required    false     whether a clone without them is not made at all
    khlone.deps.scripts     false     whether packages of npm, pnpm and yarn may run scripts of theirs
    khlone.deps.timeout     600       seconds for each installer

A folder is copied only where the lock files of both worktrees are the same, byte for byte,
where what is there is what the lock file says, and where no link of it leads out of the
worktree. Copies share blocks where the file system can, never files. An environment of
Python knows its own place, so it is never copied but made anew.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import hookimpl
from khlone.values import dataclass

if TYPE_CHECKING:
    from khlone.model import Clone, Location

_MOST_LOCK_BYTES = 64 << 20
_MOST_LOG_BYTES = 1 << 20
_MOST_LOGS = 20
_GIT_TIMEOUT_S = 60.0
#: What would send an installer to another place than the clone.
_FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT", "PYTHONHOME", "npm_config_prefix")


_PIP = (".venv/bin/python", "-m", "pip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way to install: told by a lock file; `folder` is what it fills, and may be copied where `copies` says so."""

    name: str
    lock: str
    folder: str
    commands: Sequence[Sequence[str]]
    no_scripts: Sequence[str] = ()
    copies: bool = False
    only_shared: bool = False


KINDS = (
    Kind(
        name="npm",
        lock="package-lock.json",
        folder="node_modules",
        commands=(("npm", "ci", "--no-audit", "--no-fund"),),
        no_scripts=("--ignore-scripts",),
        copies=True,
    ),
    Kind(
        name="pnpm",
        lock="pnpm-lock.yaml",
        folder="node_modules",
        commands=(("pnpm", "install", "--frozen-lockfile"),),
        no_scripts=("--ignore-scripts",),
        copies=True,
    ),
    Kind(
        name="yarn",
        lock="yarn.lock",
        folder="node_modules",
        commands=(("yarn", "install", "--frozen-lockfile"),),
        no_scripts=("--ignore-scripts",),
        copies=True,
    ),
    Kind(name="uv", lock="uv.lock", folder=".venv", commands=(("uv", "sync", "--frozen"),)),
    Kind(
        name="pip",
        lock="requirements.txt",
        folder=".venv",
        commands=(
            ("python3", "-m", "venv", ".venv"),
            (*_PIP, "install", "--no-input", "--disable-pip-version-check", "-r", "requirements.txt"),
        ),
    ),
    # The folder may hold tens of gigabytes: where its blocks cannot be shared, cargo builds anew.
    Kind(
        name="cargo",
        lock="Cargo.lock",
        folder="target",
        commands=(("cargo", "fetch", "--locked"),),
        copies=True,
        only_shared=True,
    ),
)


class Deps:
    """The packages of the clones of one repository."""

    #: Every program that is started here has a limit of its own.
    khlone_limit_s = 0.0

    def __init__(self) -> None:
        self._settings: Mapping[str, str] = {}
        self._location: Location | None = None
        self._state_dir: Path | None = None

    @hookimpl
    def khlone_opened(self, location: Location, settings: Mapping[str, str], state_dir: Path | None) -> None:
        """Note what is wanted, and where the main worktree is."""
        self._location, self._settings, self._state_dir = location, settings, state_dir

    @hookimpl
    def khlone_prepare(self, clone: Clone) -> None:
        """Bring what the lock files of the clone name; what fails is told, or stops the clone where it is required."""
        if not self._settings.get("deps.kinds") or self._location is None or self._state_dir is None:
            return
        wanted = Wanted.of(self._settings)
        for kind in found(clone.path, wanted.kinds):
            problem = self._bring(clone, kind, wanted)
            if problem is None:
                continue
            if wanted.required:
                from khlone.errors import Refusal

                raise Refusal(f"{kind.name}: {problem}", hint="set khlone.deps.required to false to go on without")
            print(f"deps: warning: {kind.name}: {problem}")

    def _bring(self, clone: Clone, kind: Kind, wanted: Wanted) -> str | None:
        """Copy or install one kind; returns what went wrong."""
        place = clone.path / kind.folder
        if os.path.lexists(place):
            return None
        if not _is_ignored(clone.path, kind.folder):
            return f"git does not ignore {kind.folder}, so it would count as work; nothing was installed"
        from khlone import files, generated, port_leases

        if clone.config_dir is not None:
            generated.note_folder(port_leases.private_folder(clone.config_dir), kind.folder)
        main = self._location.main_worktree if self._location else None
        if kind.copies and main is not None and is_copyable(main, clone.path, kind):
            if copy(main / kind.folder, place, shared=kind.only_shared, timeout_s=wanted.timeout_s):
                print(f"deps: {kind.folder} is a copy of the main worktree's")
                return None
            files.remove_tree(place)
        assert self._state_dir is not None
        log = _log(self._state_dir, f"{clone.id}-{kind.name}")
        problem = install(clone.path, kind, wanted, log)
        if problem is not None:
            files.remove_tree(place)
            return f"{problem}; {log} has what it said"
        print(f"deps: {kind.name} has installed what {kind.lock} names")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The settings."""

    kinds: Sequence[str]
    required: bool
    scripts: bool
    timeout_s: float

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> Wanted:
        """Read them; raises InvalidSetting."""
        known = [kind.name for kind in KINDS]
        value = settings.get("deps.kinds", "")
        words = value.replace(",", " ").split()
        if words != ["auto"] and not set(words) <= set(known):
            raise _invalid("kinds", value, f"it must be auto, or some of {', '.join(known)}")
        timeout = settings.get("deps.timeout", "600")
        if re.fullmatch(r"\d{1,6}", timeout) is None or int(timeout) == 0:
            raise _invalid("timeout", timeout, "it must be a number of seconds")
        return cls(
            kinds=known if words == ["auto"] else words,
            required=_flag(settings, "required"),
            scripts=_flag(settings, "scripts"),
            timeout_s=float(timeout),
        )


def _flag(settings: Mapping[str, str], key: str) -> bool:
    value = settings.get(f"deps.{key}", "false").lower()
    if value not in ("true", "yes", "on", "1", "false", "no", "off", "0", ""):
        raise _invalid(key, value, "it must be true or false")
    return value in ("true", "yes", "on", "1")


def _invalid(key: str, value: str, why: str) -> Exception:
    from khlone.errors import InvalidSetting

    return InvalidSetting(f"khlone.deps.{key}", value, why)


def found(worktree: Path, wanted: Sequence[str]) -> list[Kind]:
    """The kinds whose lock file is in the worktree, at most one for each folder."""
    kinds: dict[str, Kind] = {}
    for kind in KINDS:
        if kind.name in wanted and (worktree / kind.lock).is_file():
            kinds.setdefault(kind.folder, kind)
    return list(kinds.values())


# -- copying -------------------------------------------------------------------------------


def is_copyable(main: Path, worktree: Path, kind: Kind) -> bool:
    """Whether the folder of the main worktree is what the clone's lock file asks for, and fit for another place."""
    folder, lock = main / kind.folder, _bytes(worktree / kind.lock)
    if lock is None or lock != _bytes(main / kind.lock) or folder.is_symlink() or not folder.is_dir():
        return False
    return not _has_workspaces(worktree) and _is_complete(folder, kind, lock) and leads_nowhere_else(main, folder)


def _has_workspaces(worktree: Path) -> bool:
    """Whether packages of the repository itself have folders of their own, which one copy would leave out."""
    package = _object(_bytes(worktree / "package.json"))
    return "workspaces" in package or (worktree / "pnpm-workspace.yaml").exists()


def _is_complete(folder: Path, kind: Kind, lock: bytes) -> bool:
    """Whether the installer's own note in the folder agrees with the lock file."""
    if kind.name == "npm":
        there, named = (_object(content).get("packages") for content in (_bytes(folder / ".package-lock.json"), lock))
        if not isinstance(there, dict) or not isinstance(named, dict):
            return False
        needed = {name for name, one in named.items() if name.startswith("node_modules/") and not one.get("optional")}
        return needed <= set(there) and all(_same(there[name], named.get(name)) for name in there)
    if kind.name == "pnpm":
        return _bytes(folder / ".pnpm" / "lock.yaml") == lock
    return kind.name != "yarn" or (folder / ".yarn-integrity").is_file()


def _same(one: object, other: object) -> bool:
    keys = ("version", "resolved", "integrity")
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return all(one.get(key) == other.get(key) for key in keys)


def leads_nowhere_else(top: Path, folder: Path) -> bool:
    """Whether every link below the folder is a relative one that stays within `top`."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                continue
            leads = os.readlink(path)
            whole = os.path.normpath(os.path.join(parent, leads))
            if os.path.isabs(leads) or not whole.startswith(f"{top}{os.sep}"):
                return False
    return True


def copy(source: Path, target: Path, *, shared: bool, timeout_s: float) -> bool:
    """Copy a folder, sharing blocks where that can be done, or only where it can; says whether it worked."""
    from khlone import files

    if sys.platform == "darwin":
        return _runs(("cp", "-cRp", os.fspath(source), os.fspath(target)), timeout_s)
    ways = ("always",) if shared else ("always", "auto")
    for way in ways:
        if _runs(("cp", "-a", f"--reflink={way}", "--", os.fspath(source), os.fspath(target)), timeout_s):
            return True
        files.remove_tree(target)
    return False


def _runs(argv: Sequence[str], timeout_s: float) -> bool:
    from khlone import process
    from khlone.errors import KhloneError

    try:
        done = process.run(argv, environment=process.scrubbed(os.environ), timeout_s=timeout_s, capture_bytes=4096)
    except KhloneError:
        return False
    return done.status == 0 and not done.timed_out


# -- installing ----------------------------------------------------------------------------


def install(worktree: Path, kind: Kind, wanted: Wanted, log: Path) -> str | None:
    """Run the installer, its output kept in `log`; returns what went wrong."""
    from khlone import files, process
    from khlone.errors import KhloneError
    from khlone.redaction import redacted

    said = ""
    problem: str | None = None
    environment = {name: value for name, value in process.scrubbed(os.environ).items() if name not in _FOREIGN}
    for command in kind.commands:
        words = [*command, *(() if wanted.scripts else kind.no_scripts)]
        program = worktree / words[0] if "/" in words[0] else find_program(words[0])
        if program is None:
            problem = f"{words[0]} is not installed"
            break
        try:
            done = process.run(
                [os.fspath(program), *words[1:]],
                cwd=worktree,
                environment={**environment, "CI": "1"},
                timeout_s=wanted.timeout_s,
                capture_bytes=_MOST_LOG_BYTES,
            )
        except KhloneError as error:
            problem = error.message
            break
        said += f"$ {' '.join(words)}\n{done.text}{done.error_text}"
        if done.timed_out or done.status != 0:
            how = f"took longer than {wanted.timeout_s:g} s" if done.timed_out else f"ended with {done.status}"
            problem = f"`{' '.join(words)}` {how}"
            break
    files.write_atomic(log, redacted(said).encode(errors="replace")[-_MOST_LOG_BYTES:], durable=False)
    return problem


def find_program(name: str) -> Path | None:
    """The program by its absolute path, looked up in no folder that a repository can have brought along."""
    import shutil

    entries = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    program = shutil.which(name, path=os.pathsep.join(entries))
    return None if program is None else Path(program)


def _log(state_dir: Path, name: str) -> Path:
    """Where the output goes; of older ones the newest are kept."""
    from khlone import files

    folder = files.make_private_dir(state_dir / "plugins" / "deps")
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    for old in logs[: len(logs) - _MOST_LOGS + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{name}.log"


def _is_ignored(worktree: Path, folder: str) -> bool:
    """Whether git ignores what would lie in the folder, and tracks nothing there."""
    from khlone import process

    def ask(*arguments: str) -> process.Completed:
        argv = [process.git_executable(), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
        environment = process.scrubbed(os.environ)
        return process.run(argv, cwd=worktree, environment=environment, timeout_s=_GIT_TIMEOUT_S)

    return not ask("ls-files", "--", folder).stdout and ask("check-ignore", "-q", f"{folder}/.khlone").status == 0


def _bytes(path: Path) -> bytes | None:
    """The content of a file, `None` where there is none that can be read."""
    from khlone import files
    from khlone.errors import KhloneError

    try:
        return files.read_regular(path, most=_MOST_LOCK_BYTES)
    except (OSError, KhloneError):
        return None


def _object(content: bytes | None) -> Mapping[str, object]:
    try:
        value = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
