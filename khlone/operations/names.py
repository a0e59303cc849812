"""Which names may a new clone have, and which folder is its own?

The narrow rule keeps every name a legal branch, a legal folder on any file system, and
never something that git or a shell reads in another way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from khlone.app import App
from khlone.errors import IllegalName, UsageError

_ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z", re.ASCII)
_MIB = 1 << 20
_HEX = re.compile(r"[0-9a-f]{7,64}\Z", re.IGNORECASE)
_RESERVED = frozenset(
    {"head", "stash", "refs", "worktrees", "khlone", "con", "prn", "aux", "nul"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10)}
)


def check(name: str) -> None:
    """Raise IllegalName unless a new clone may have this name."""
    if not _ALLOWED.match(name):
        raise IllegalName(name, "only letters, digits and . _ - / are allowed, at most 100, a letter or digit first")
    if ".." in name or "//" in name or name.endswith("/"):
        raise IllegalName(name, "it has an empty part or ..")
    for part in name.split("/"):
        low = part.casefold()
        if part[0] in ".-" or part[-1] in ".-":
            raise IllegalName(name, f"its part {part!r} starts or ends with . or -")
        if low.endswith(".lock"):
            raise IllegalName(name, "git keeps .lock for itself")
        if low in _RESERVED or low.split(".")[0] in _RESERVED or low.endswith("_head"):
            raise IllegalName(name, f"{part!r} is a reserved word")
        if _HEX.match(part):
            raise IllegalName(name, f"{part!r} reads like an object id")


def branch(app: App, given: str) -> str:
    """The name of the branch that somebody means, who may have written `refs/heads/NAME` as git itself does.

    Raises UsageError for a name that is both a branch here and one that a remote has: git would take the first.
    """
    short = given.removeprefix("refs/heads/")
    if short == given or app.repository.read_ref(f"refs/heads/{given}") is not None:
        if is_tracking(app, given) and app.repository.read_ref(f"refs/heads/{given}") is not None:
            raise UsageError(
                f"{given!r} is a branch here and the name of what a remote has",
                hint=f"write refs/heads/{given} for the branch",
            )
        return given
    return short


def is_tracking(app: App, name: str) -> bool:
    """Whether a name is that of a branch of a remote, such as `origin/x`, as last seen."""
    return "/" in name and app.repository.read_ref(f"refs/remotes/{name}") is not None


def folder(name: str) -> str:
    """The name of the one folder that a clone of that name gets."""
    return name.replace("/", "-")


def listed(found: Sequence[str], *, most: int = 5) -> str:
    """The first few of many names, safe to print."""
    some = ", ".join(shown(name) for name in found[:most])
    return some if len(found) <= most else f"{some} and {len(found) - most} more"


def shown(text: str) -> str:
    """A text from git, safe to print: control, bidi and undecodable characters are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def sized(size: int) -> str:
    """Bytes for people, rounded up."""
    if size < _MIB:
        return f"{math.ceil(size / 1024)} KiB"
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{math.ceil(size / _MIB)} MiB"
