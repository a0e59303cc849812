"""How does what a gate has built for one candidate not pass for what another one has?

Tools know a file that has changed by its size and the second of its last change: Python
does so for what it compiles. Of two candidates that a scratch worktree holds within one
second a file may have the same of both, and a gate would test what is not there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

#: What Python has compiled lies beside its source, in this folder.
_COMPILED = "__pycache__"
#: The clock of files is a tick behind.
_SLACK_S = 0.01

#: The size and the second of the last change; `None` where there is no such file.
Stamp = tuple[int, int] | None


def stamps(root: Path, names: Sequence[str]) -> dict[str, Stamp]:
    """What files below a folder are known by now."""
    return {name: _stamp(root / name) for name in names}


def tell_apart(root: Path, before: Mapping[str, Stamp], environment: Mapping[str, str]) -> None:
    """Let nothing that was made of the files as they were before be taken for made of what they are now.

    What Python has compiled of them is deleted. Any other one that is known by the same gets
    the next second, which is waited for; with the folder for what Python compiles that
    `environment` names, which is no gate's own, one of Python's too.
    """
    is_elsewhere = bool(environment.get("PYTHONPYCACHEPREFIX"))
    compiled: dict[str, set[str]] = {}
    for name in before:
        if name.endswith(".py"):
            folder, file = os.path.split(name)
            compiled.setdefault(folder, set()).add(file.removesuffix(".py"))
    for folder, stems in compiled.items():
        _forget_compiled(root, root / folder / _COMPILED, stems)
    alike = [
        root / name
        for name, stamp in before.items()
        if stamp is not None and (is_elsewhere or not name.endswith(".py")) and _stamp(root / name) == stamp
    ]
    if alike:
        now_s = time.time()
        time.sleep(1 - now_s % 1 + _SLACK_S)
        for path in alike:
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)


def _stamp(path: Path) -> Stamp:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if S_ISREG(found.st_mode):
            return found.st_size, int(found.st_mtime)
    return None


def _forget_compiled(root: Path, folder: Path, stems: set[str]) -> None:
    with contextlib.suppress(OSError):
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root)):
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".pyc") and not stems.isdisjoint(_beginnings(entry.name)):
                    os.unlink(entry.path)


def _beginnings(name: str) -> list[str]:
    """What stands before each dot: what is compiled of `a.b.py` is `a.b.cpython-313.pyc`."""
    return [name[:at] for at, letter in enumerate(name) if letter == "."]
