"""Which hooks does git's configuration name (`hook.<name>.command`), so that a call of git can leave them out?

From version 2.54 on git runs these beside the ones of a hooks folder, and no
`core.hooksPath` keeps them away. Files are read here where they are plain: every section
of every file that git could read, whatever the condition of an include, since switching off
what is not there does no harm. Anything else is asked of git. A file is read again only
when it has changed; one without such a section costs a look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from khlone import git_config, process
from khlone.values import dataclass

_INTERESTING = rb"(?i)\[(hook|include)"
_SECTION = rb'\[([A-Za-z0-9.-]+)(?: "([^"\\]*)")?\]'
_PATH = rb"(?i)path[ \t]*=[ \t]*([^\"\\#;]*)"
#: git follows no longer chain of includes.
_DEEPEST = 10

_Signature = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What one file holds: names of hooks, and files that it includes; `plain` is false where only git can tell."""

    signature: _Signature
    names: frozenset[str] = frozenset()
    includes: tuple[Path, ...] = ()
    plain: bool = True


class ConfigHooks:
    """The hooks that git's configuration names for calls in one repository."""

    def __init__(self, common_dir: Path, environment: Mapping[str, str]) -> None:
        self._common_dir = common_dir
        self._environment = environment
        self._read: dict[Path, _Read] = {}
        self._asked: dict[tuple[object, ...], frozenset[str]] = {}

    def names(self, cwd: Path, environment: Mapping[str, str]) -> list[str]:
        """The names of all hooks that a git which is started in `cwd` with this environment may find."""
        found: set[str] = set()
        seen: list[_Signature] = []
        plain = git_config.knows_places() or self._environment.get("GIT_CONFIG_NOSYSTEM") in ("1", "true")
        waiting = [(path, 0) for path in self._files(cwd, environment)]
        done: set[Path] = set()
        while waiting:
            path, depth = waiting.pop()
            if path in done or depth > _DEEPEST:
                continue
            done.add(path)
            one = self._look(path)
            found |= one.names
            seen.append(one.signature)
            plain = plain and one.plain
            waiting += [(inner, depth + 1) for inner in one.includes]
        if not plain:
            found |= self._by_git(cwd, environment, tuple(seen))
        return sorted(found)

    def _files(self, cwd: Path, environment: Mapping[str, str]) -> Iterator[Path]:
        yield from git_config.files(self._common_dir, self._environment)
        yield self._common_dir / "config.worktree"
        named = environment.get("GIT_DIR")
        git_dir = Path(named) if named else None if cwd == self._common_dir else _git_dir_above(cwd)
        if git_dir is not None and git_dir != self._common_dir:
            yield git_dir / "config.worktree"
            # A submodule's, whose common dir is another one; a linked worktree has no file of this name.
            yield git_dir / "config"

    def _look(self, path: Path) -> _Read:
        signature = _signature(path)
        known = self._read.get(path)
        if known is None or known.signature != signature:
            known = _Read(signature=None) if signature is None else self._parse(path, signature)
            self._read[path] = known
        return known

    def _parse(self, path: Path, signature: _Signature) -> _Read:
        try:
            content = path.read_bytes()
        except OSError:
            return _Read(signature=signature, plain=False)
        if re.search(_INTERESTING, content) is None:
            return _Read(signature=signature)
        names: set[str] = set()
        includes: list[Path] = []
        section = b""
        for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
            text = line.strip(b" \t\r")
            if text.startswith(b"["):
                head = re.fullmatch(_SECTION, text)
                if head is None:
                    return _Read(signature=signature, plain=False)
                section = head[1].lower()
                full = section if head[2] is None else section + b"." + head[2]
                if full.startswith(b"hook."):
                    names.add(os.fsdecode(full[5:]))
            elif section in (b"include", b"includeif") and text[:4].lower() == b"path":
                place = self._included(path, text)
                if place is None:
                    return _Read(signature=signature, plain=False)
                includes.append(place)
        return _Read(signature=signature, names=frozenset(names), includes=tuple(includes))

    def _included(self, path: Path, text: bytes) -> Path | None:
        entry = re.fullmatch(_PATH, text)
        value = "" if entry is None else os.fsdecode(entry[1])
        home = self._environment.get("HOME", "")
        if value.startswith("~/") and os.path.isabs(home):
            return Path(home, value[2:])
        return None if not value or value.startswith(("~", "%(")) else path.parent / value

    def _by_git(self, cwd: Path, environment: Mapping[str, str], seen: tuple[_Signature, ...]) -> frozenset[str]:
        key = (cwd, environment.get("GIT_DIR"), seen)
        if key not in self._asked:
            asked = [process.git_executable()]
            if cwd == self._common_dir:
                asked += ("--git-dir", os.fspath(cwd))
            asked += ("config", "-z", "--name-only", "--get-regexp", r"^hook\.")
            done = process.run(asked, cwd=cwd, environment=environment, timeout_s=30.0)
            keys = [key.split(".") for key in done.text.split("\0")]
            self._asked[key] = frozenset(".".join(parts[1:-1]) for parts in keys if len(parts) > 2)
        return self._asked[key]


def _signature(path: Path) -> _Signature:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _git_dir_above(cwd: Path) -> Path | None:
    """The git dir that a worktree leads to; a common dir has no `.git` above it but that of its own worktree."""
    for folder in (cwd, *cwd.parents):
        dot_git = folder / ".git"
        try:
            content = dot_git.read_bytes()
        except IsADirectoryError:
            return dot_git
        except OSError:
            continue
        return folder / os.fsdecode(content.removeprefix(b"gitdir: ").rstrip(b"\r\n"))
    return None
