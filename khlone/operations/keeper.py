"""Who takes over when the supervisor of a session is killed?

The keeper: the supervisor's parent, which has loaded next to nothing and does nothing but
wait for it. What runs below a supervisor that was killed becomes the keeper's; it ends
all of it and records how. Who is told to end tells the supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from khlone import process


def main() -> None:
    """The process that `run` starts: what is to run comes by stdin, what is to be said goes to stdout."""
    answer = os.dup(1)
    spec = json.loads(sys.stdin.buffer.read())
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    process.become_subreaper()
    keeper = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        os._exit(_supervise(spec, answer, keeper))
    os.close(answer)
    status, ended = _stand_by(supervisor)
    if status != 0:
        from khlone.operations import supervise

        supervise.take_over(spec, supervisor, ended)
    os._exit(0)


def _supervise(spec: Mapping[str, Any], answer: int, keeper: int) -> int:
    process.become_subreaper()
    process.wake_at_parents_end()
    from khlone.operations import supervise

    supervise.see_through(spec, answer, keeper)
    return 0


def _stand_by(supervisor: int) -> tuple[int, Mapping[int, int]]:
    """How the supervisor ended, and what else did that had become ours."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGHUP, lambda *_: None)
    ended: dict[int, int] = {}
    while True:
        if hasattr(os, "waitid"):  # macOS before Python 3.13 has none
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if found is not None and found.si_pid == supervisor:
                # Before its number is free: nobody else is to get a signal.
                signal.signal(signal.SIGTERM, lambda *_: None)
                signal.signal(signal.SIGINT, lambda *_: None)
        pid, status = os.waitpid(-1, 0)
        if pid == supervisor:
            return os.waitstatus_to_exitcode(status), ended
        ended[pid] = os.waitstatus_to_exitcode(status)
