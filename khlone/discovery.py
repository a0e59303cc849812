"""Which repository is meant?

The common layouts are read from the file system, without a git process; whatever is out
of the ordinary (variables set, a bare repository, another owner) is asked of git, whose
refusals are passed on.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from khlone import process
from khlone.errors import (
    GitFailed,
    KhloneError,
    NotARepository,
    NotPermitted,
    RepositoryUnsupported,
    StateUnsafe,
)
from khlone.files import read_regular
from khlone.model import Location

_SMALL = 1 << 20
#: A key may stand behind its section's name on one line.
_BARE = rb"(?im)(?:^|\])\s*bare\s*(=\s*(true|yes|on|1)\b|$)"
#: What any git of ours knows; a repository with another extension is git's to judge.
_EXTENSIONS = frozenset({b"noop", b"objectformat", b"partialclone", b"preciousobjects", b"worktreeconfig"})
_WORKTREE = rb"(?im)(?:^|\])\s*worktree\s*=\s*(.+)$"


def discover(cwd: Path, environment: Mapping[str, str]) -> Location:
    """The repository that `cwd` lies in, or that GIT_DIR names.

    Raises NotARepository, RepositoryUnsupported or NotPermitted (git's `safe.directory`,
    a receive hook).
    """
    if "GIT_QUARANTINE_PATH" in environment:
        raise NotPermitted("inside a receive hook nothing can be changed", hint="call khlone from post-receive")
    if not any(
        name in environment for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_CEILING_DIRECTORIES")
    ):
        found = _discover_plain(cwd)
        if found is not None:
            return found
    return _discover_by_git(cwd, environment)


def _discover_plain(cwd: Path) -> Location | None:
    start = os.path.realpath(cwd)
    folder = start
    device = os.stat(start).st_dev if os.path.isdir(start) else -1
    while True:
        dot_git = os.path.join(folder, ".git")
        try:
            found = os.lstat(dot_git)
        except OSError:
            found = None
        if found is not None:
            return _plain_location(Path(start), Path(folder), Path(dot_git), found)
        if os.path.exists(os.path.join(folder, "objects")) and os.path.exists(os.path.join(folder, "HEAD")):
            return None
        parent = os.path.dirname(folder)
        if parent == folder or os.stat(parent).st_dev != device:
            return None
        folder = parent


def _plain_location(cwd: Path, top: Path, dot_git: Path, found: os.stat_result) -> Location | None:
    user = os.geteuid()
    if found.st_uid != user or os.stat(top).st_uid != user:
        return None
    if stat.S_ISDIR(found.st_mode):
        git_dir = dot_git
    elif stat.S_ISREG(found.st_mode):
        content = read_regular(dot_git, most=_SMALL)
        if content is None or not content.startswith(b"gitdir: "):
            return None
        git_dir = Path(os.path.realpath(top / os.fsdecode(content[8:].rstrip(b"\r\n"))))
    else:
        return None
    try:
        if os.stat(git_dir).st_uid != user or not (git_dir / "HEAD").exists():
            return None
        common = read_regular(git_dir / "commondir", most=_SMALL)
        common_dir = git_dir
        if common is not None:
            common_dir = Path(os.path.realpath(git_dir / os.fsdecode(common.rstrip(b"\r\n"))))
        config = _configuration(common_dir)
    except OSError:
        return None
    if not (common_dir / "objects").is_dir() or (common is not None and not common.strip()):
        return None
    if b"extensions" in config.lower() and not _extensions(config) <= _EXTENSIONS:
        return None
    bare = _is_bare(config)
    if git_dir == common_dir and (bare or _named_worktree(config)):
        return None
    main = top if git_dir == common_dir else _main_worktree(common_dir, config, bare=bare)
    return Location(cwd=cwd, git_dir=git_dir, common_dir=common_dir, worktree=top, main_worktree=main, bare=bare)


def _configuration(common_dir: Path) -> bytes:
    """The repository's configuration, that of its main worktree included, where git moves `core.bare` to."""
    config = read_regular(common_dir / "config", most=_SMALL) or b""
    if b"worktreeconfig" in config.lower():
        config += b"\n" + (read_regular(common_dir / "config.worktree", most=_SMALL) or b"")
    return config


def _leads_to(worktree: Path, git_dir: Path) -> bool:
    """Whether the `.git` of a worktree is that git dir, or names it."""
    dot_git = worktree / ".git"
    try:
        if dot_git.is_dir():
            return os.path.realpath(dot_git) == os.fspath(git_dir)
        content = read_regular(dot_git, most=_SMALL)
    except (StateUnsafe, OSError):
        return False
    named = os.fsdecode((content or b"").removeprefix(b"gitdir: ").rstrip(b"\r\n"))
    return bool(named) and os.path.realpath(worktree / named) == os.fspath(git_dir)


def _extensions(config: bytes) -> set[bytes]:
    """The keys of the extensions that a configuration names."""
    sections = [part.partition(b"]") for part in re.split(rb"(?m)^[ \t]*\[", config)]
    bodies = [body for name, _, body in sections if name.strip().lower() == b"extensions"]
    return {key.lower() for body in bodies for key in re.findall(rb"(?m)^[ \t]*([A-Za-z][A-Za-z0-9-]*)", body)}


def _is_bare(config: bytes) -> bool:
    # Most repositories say `bare = false` and are told by that, without a pattern.
    others = config.replace(b"bare = false", b"")
    return b"bare" in others.lower() and re.search(_BARE, others) is not None


def _named_worktree(config: bytes) -> re.Match[bytes] | None:
    return re.search(_WORKTREE, config) if b"worktree" in config.lower() else None


def _main_worktree(common_dir: Path, config: bytes, *, bare: bool) -> Path | None:
    """The main worktree as seen from a linked one."""
    if bare:
        return None
    named = _named_worktree(config)
    if named is not None:
        return Path(os.path.realpath(common_dir / os.fsdecode(named[1]).strip().strip('"')))
    return common_dir.parent if common_dir.name == ".git" else None


def _discover_by_git(cwd: Path, environment: Mapping[str, str]) -> Location:
    kept = process.scrubbed(environment)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"):
        if name in environment:
            kept[name] = environment[name]
    kept |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    git = process.git_executable()

    def ask(*what: str) -> process.Completed:
        asked = ["rev-parse", "--path-format=absolute", *what]
        return process.run([git, *asked], cwd=cwd, environment=kept, timeout_s=30.0)

    done = ask("--is-bare-repository", "--is-inside-work-tree", "--git-dir", "--git-common-dir")
    if done.status != 0:
        raise _refusal(cwd, done)
    bare, inside, *paths = done.text.removesuffix("\n").split("\n")
    if len(paths) != 2:  # a path of several lines
        paths = [ask(what).text.removesuffix("\n") for what in ("--git-dir", "--git-common-dir")]
    worktree = None
    if inside == "true" or "GIT_WORK_TREE" in environment:
        shown = ask("--show-toplevel")
        worktree = Path(os.path.realpath(shown.text.removesuffix("\n"))) if shown.status == 0 else None
    own, common = (Path(os.path.realpath(path)) for path in paths)
    config = _configuration(common)
    is_bare = bare == "true" or _is_bare(config)
    main = _main_worktree(common, config, bare=is_bare)
    # git takes the working folder for the worktree of a GIT_DIR that comes without one: only what leads back is.
    if own == common and worktree is not None and ("GIT_WORK_TREE" in environment or _leads_to(worktree, common)):
        main = worktree
    if own == common:
        worktree = main
    return Location(cwd=cwd, git_dir=own, common_dir=common, worktree=worktree, main_worktree=main, bare=is_bare)


def _refusal(cwd: Path, done: process.Completed) -> KhloneError:
    text = done.error_text.strip()
    if "not a git repository" in text:
        return NotARepository(cwd)
    if "dubious ownership" in text:
        return NotPermitted(
            text.splitlines()[0].removeprefix("fatal: "),
            hint="if you trust its owner: git config --global --add safe.directory DIR",
            path=cwd,
        )
    if "unknown repository extension" in text or "repository version" in text:
        return RepositoryUnsupported(" ".join(text.removeprefix("fatal: ").split()), hint="a newer git may read it")
    return GitFailed(["rev-parse"], done.status, text)
