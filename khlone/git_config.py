"""What do git's configuration files say of a few keys, where that can be told without git?

Asking git costs a process at every call. Plain files are read here: sections, keys and
values without quotes, escapes, comments behind them, continued lines or includes.
Anything else is left to git, and the test beside compares the two on both kinds.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import process

#: Only files that hold one of these words are read closely: nothing else is asked about.
_INTERESTING = rb"(?i)khlone|include|gpgsign|workers|email"
_SECTION = rb'\[([A-Za-z0-9.-]+)(?: "([^"\\]*)")?\]'
_ENTRY = rb"([A-Za-z][A-Za-z0-9-]*)[ \t]*(?:=[ \t]*([^\"\\#;]*))?"
#: Sections whose keys are asked about; `include` and `includeIf` bring other files along.
_ASKED = (b"khlone", b"commit", b"checkout", b"user", b"author")
#: Of these sections only the address is asked about: a name may be written in any way.
_ADDRESS_ONLY = ("user.", "author.")


def read(
    common_dir: Path | None, git_dir: Path | None, environment: Mapping[str, str]
) -> list[tuple[str, str, Path]] | None:
    """Key, value and file of the sections that are asked about, lowest precedence first, as `git config --list` has it.

    Without a repository the files of the machine and the user. `None` when only git can tell.
    """
    if not knows_places():
        return None
    if "GIT_CONFIG_PARAMETERS" in environment or "GIT_CONFIG_COUNT" in environment:
        return None
    found: list[tuple[str, str, Path]] = []
    for path in files(common_dir, environment):
        pairs = _read_file(path)
        if pairs is None:
            return None
        found += [(key, value, path) for key, value in pairs]
    if git_dir is None:
        return found
    try:
        # Whether git reads this one is for git to say.
        return None if _holds_a_word((git_dir / "config.worktree").read_bytes()) else found
    except FileNotFoundError:
        return found
    except OSError:
        return None


def knows_places() -> bool:
    """Whether this git was built to read the machine's settings where it is looked for here."""
    return sys.platform == "linux" and process.git_executable().startswith(("/usr/bin/", "/usr/lib/git-core/"))


def files(common_dir: Path | None, environment: Mapping[str, str]) -> list[Path]:
    """Every file that git reads, that of a single worktree aside, in the order of precedence, lowest first."""
    found = []
    if environment.get("GIT_CONFIG_NOSYSTEM", "").lower() in ("", "0", "false", "no", "off"):
        found.append(Path(environment.get("GIT_CONFIG_SYSTEM", "/etc/gitconfig")))
    home, xdg = environment.get("HOME"), environment.get("XDG_CONFIG_HOME")
    if "GIT_CONFIG_GLOBAL" in environment:
        found.append(Path(environment["GIT_CONFIG_GLOBAL"]))
    else:
        if xdg or home:
            found.append(Path(xdg, "git", "config") if xdg else Path(home or "", ".config", "git", "config"))
        if home:
            found.append(Path(home, ".gitconfig"))
    return found if common_dir is None else [*found, common_dir / "config"]


def _holds_a_word(content: bytes) -> bool:
    return re.search(_INTERESTING, content) is not None


def _read_file(path: Path) -> Sequence[tuple[str, str]] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError:
        return None
    return _parsed(content) if _holds_a_word(content) else ()


def _parsed(content: bytes) -> list[tuple[str, str]] | None:
    found = []
    prefix: str | None = None
    for line in content.split(b"\n"):
        text = line.strip(b" \t")
        if not text or text[:1] in b"#;":
            continue
        if text.endswith((b"\\", b"\r")) or text.startswith(b"\xef\xbb\xbf"):
            return None
        if text.startswith(b"["):
            section = re.fullmatch(_SECTION, text)
            if section is None or section[1].lower() in (b"include", b"includeif"):
                return None
            asked = section[1].lower().split(b".")[0] in _ASKED
            below = b"" if section[2] is None else section[2] + b"."
            prefix = os.fsdecode(section[1].lower() + b"." + below) if asked else None
        elif prefix is not None:
            if prefix in _ADDRESS_ONLY and not text.lower().startswith(b"email"):
                continue
            entry = re.fullmatch(_ENTRY, text)
            if entry is None:
                return None
            value = "true" if entry[2] is None else os.fsdecode(entry[2])
            found.append((prefix + entry[1].decode().lower(), value))
    return found
