"""How does the fake agent come to be a program on PATH, and with which habits?"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from khlone.values import dataclass

_PROGRAM = Path(__file__).with_name("agent.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What a fake agent does beside answering; the defaults are those of the versions that lose entries.

    `boot_writes`: how often it reads, changes and writes its config at a start, unlocked,
    each after `boot_pause_s`. `memory_bytes` are held, `output_bytes` printed, `busy_s`
    seconds spent in a busy poll, `linger_s` seconds stayed alive after the answer. With
    `forks` it leaves a process in a session of its own, for `linger_s` or until the file
    `forked.pid` in its config dir is gone.
    """

    version: str = "2.1.252"
    boot_writes: int = 3
    boot_pause_s: float = 0.05
    memory_bytes: int = 0
    output_bytes: int = 0
    busy_s: float = 0.0
    linger_s: float = 0.0
    forks: bool = False


def install_fake_agent(folder: Path, name: str = "claude", habits: Habits | None = None) -> Path:
    """Write the fake agent as an executable of a folder; returns its path.

    It takes the words and the variables that Claude Code takes, as far as khlone uses them,
    so khlone keeps it to its clone by the profile of that name.
    """
    wanted = habits or Habits()
    variables = {
        "VERSION": wanted.version,
        "BOOT_WRITES": str(wanted.boot_writes),
        "BOOT_PAUSE": str(wanted.boot_pause_s),
        "MEMORY": str(wanted.memory_bytes),
        "OUTPUT": str(wanted.output_bytes),
        "BUSY": str(wanted.busy_s),
        "LINGER": str(wanted.linger_s),
        "FORKS": "1" if wanted.forks else "",
    }
    # A variable of the caller's goes first: one start can have other habits.
    lines = [
        f'[ -n "${{FAKE_AGENT_{key}+x}}" ] || FAKE_AGENT_{key}={shlex.quote(value)}; export FAKE_AGENT_{key}'
        for key, value in variables.items()
    ]
    run = f'exec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(_PROGRAM))} "$@"'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write("\n".join(["#!/bin/sh", *lines, run, ""]))
    return path
