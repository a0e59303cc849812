"""What did the processes of a clone use in the last half hour? A ring of small records in one file.

A sample has its place by its time, so that it is written by one `pwrite`, several writers
agree, and the file never grows. A half-written or foreign file is a gap, never an error.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from khlone.values import dataclass

FILE = "samples"
#: Seconds that one sample stands for, and how many are kept.
INTERVAL_S = 5.0
KEPT = 360
_RECORD = struct.Struct("<dQQfII")
_UNKNOWN = (1 << 64) - 1
#: Letters of eight heights.
BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=+*#@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What all processes of a clone used at one time (seconds since 1970); `pss_bytes` is measured now and then."""

    at_s: float
    rss_bytes: int
    pss_bytes: int | None
    cpu_percent: float
    processes: int
    threads: int


def add(folder: Path, sample: Sample) -> None:
    """Write a sample down; a folder that is not there, or a full disk, loses it and nothing else."""
    slot = int(sample.at_s // INTERVAL_S) % KEPT
    pss = _UNKNOWN if sample.pss_bytes is None else sample.pss_bytes
    content = _RECORD.pack(sample.at_s, sample.rss_bytes, pss, sample.cpu_percent, sample.processes, sample.threads)
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(folder / FILE, flags, 0o600)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.pwrite(descriptor, content, slot * _RECORD.size)
        finally:
            os.close(descriptor)


def read(folder: Path, *, now_s: float | None = None) -> list[Sample]:
    """The samples of the last half hour, the oldest first."""
    now = time.time() if now_s is None else now_s
    content = b""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                content = os.read(descriptor, KEPT * _RECORD.size)
        finally:
            os.close(descriptor)
    found = []
    for at in range(0, len(content) - _RECORD.size + 1, _RECORD.size):
        at_s, rss, pss, cpu, processes, threads = _RECORD.unpack_from(content, at)
        if now - KEPT * INTERVAL_S < at_s <= now:
            found.append(
                Sample(
                    at_s=at_s,
                    rss_bytes=rss,
                    pss_bytes=None if pss == _UNKNOWN else pss,
                    cpu_percent=round(cpu, 1),
                    processes=processes,
                    threads=threads,
                )
            )
    return sorted(found, key=lambda one: one.at_s)


def sparkline(values: Sequence[float], *, width: int = 40, plain: bool = False) -> str:
    """The course of some values in letters, the highest of each part; `plain` keeps to ASCII."""
    letters = _PLAIN if plain else BLOCKS
    if not values:
        return ""
    parts = min(width, len(values))
    peaks = [max(values[len(values) * at // parts : max(len(values) * (at + 1) // parts, 1)]) for at in range(parts)]
    most = max(peaks) or 1
    return "".join(letters[min(len(letters) - 1, int(peak / most * (len(letters) - 1) + 0.5))] for peak in peaks)
