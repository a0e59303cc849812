"""Where does a user's account keep what makes khlone feel at home in the shell, and how is it put and taken away?

A marked block in the shell's start file sources a script that lies beside khlone's
settings; the man page goes where `man` looks. Everything is planned first, so that it can
be shown; a start file is rewritten whole by rename, with every other byte as it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import files
from khlone.errors import NotPermitted, StateUnsafe
from khlone.values import dataclass

BEGIN = "# >>> khlone >>>"
END = "# <<< khlone <<<"
#: Begins a block in a file whose last line had no end, so that taking it away leaves none either.
BEGIN_JOINED = "# >>> khlone, after a line without an end >>>"
_BLOCKS = (
    re.compile(rf"\n\n{re.escape(BEGIN_JOINED)}\n.*?\n{re.escape(END)}\n?", re.DOTALL),
    re.compile(rf"\n?(?<![^\n]){re.escape(BEGIN)}\n.*?\n{re.escape(END)}\n?", re.DOTALL),
)
#: A start file above this size is not a start file.
_MOST = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file before and after; `None` where it is not there."""

    path: Path
    before: bytes | None
    after: bytes | None


def plan(
    shells: Sequence[str], scripts: Mapping[str, str], man_page: bytes, environment: Mapping[str, str], *, remove: bool
) -> list[FileChange]:
    """What would be written and removed for these shells; files that stay as they are are left out.

    Raises NotPermitted without an absolute HOME, and StateUnsafe for a file that is not a
    regular one of this user's.
    """
    home = _home(environment)
    changes = []
    for shell in shells:
        start, script = _places(shell, home, environment)
        changes.append(_change(script, None if remove else scripts[shell].encode()))
        if start is not None:
            before = _read(start)
            text = "" if before is None else before.decode(errors="surrogateescape")
            without = _without_block(text)
            after = without if remove else _with_block(without, script)
            wanted = after.encode(errors="surrogateescape")
            changes.append(FileChange(path=start, before=before, after=wanted or None))
    data = environment.get("XDG_DATA_HOME", "")
    page = Path(data if os.path.isabs(data) else home / ".local/share") / "man/man1/git-khlone.1"
    changes.append(_change(page, None if remove else man_page))
    return [change for change in changes if change.before != change.after]


def carry_out(changes: Sequence[FileChange]) -> None:
    """Write and remove what was planned; a file that has changed since is refused with StateUnsafe."""
    for change in changes:
        with files.explained(change.path):
            target = Path(os.path.realpath(change.path))
            if _read(change.path) != change.before:
                raise StateUnsafe(change.path, "it has changed since it was read")
            if change.after is None:
                target.unlink(missing_ok=True)
                if change.path.parent.name == "khlone":
                    with contextlib.suppress(OSError):
                        change.path.parent.rmdir()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            mode = stat.S_IMODE(target.stat().st_mode) if change.before is not None else 0o644
            files.write_atomic(target, change.after, mode=mode)
            target.chmod(mode)


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME", "")
    if not os.path.isabs(home):
        raise NotPermitted("HOME is not an absolute path, so there is no place to set up", hint="set HOME")
    return Path(home)


def _places(shell: str, home: Path, environment: Mapping[str, str]) -> tuple[Path | None, Path]:
    """The start file that needs a block (fish needs none), and where the script goes."""
    config = environment.get("XDG_CONFIG_HOME", "")
    base = Path(config) if os.path.isabs(config) else home / ".config"
    if shell == "fish":
        return None, base / "fish/conf.d/khlone.fish"
    zdotdir = environment.get("ZDOTDIR", "")
    start = home / ".bashrc" if shell == "bash" else (Path(zdotdir) if os.path.isabs(zdotdir) else home) / ".zshrc"
    return start, base / f"khlone/khlone.{shell}"


def _with_block(text: str, script: Path) -> str:
    quoted = "'" + str(script).replace("'", "'\\''") + "'"
    begin = BEGIN if not text or text.endswith("\n") else f"\n{BEGIN_JOINED}"
    return f"{text}\n{begin}\n[ -r {quoted} ] && . {quoted}\n{END}\n"


def _without_block(text: str) -> str:
    for block in _BLOCKS:
        text = block.sub("", text)
    return text


def _change(path: Path, after: bytes | None) -> FileChange:
    return FileChange(path=path, before=_read(path), after=after)


def _read(path: Path) -> bytes | None:
    """A start file may be a link into a folder of dotfiles: that one is read, and written."""
    return files.read_regular(Path(os.path.realpath(path)), most=_MOST)
