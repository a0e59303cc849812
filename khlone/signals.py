"""What does a signal do to this process: end it without a word, interrupt what is done, or be noted?

It ends the process at once while nothing is under way, before and after the work of a
command. It interrupts that work by an exception, so that undo steps run. It is noted
while a child has to be waited for, since an exception there may come between the end of
the child and the news of it, and its status would be lost.
"""

from __future__ import annotations

import os
import signal

SIGINT, SIGPIPE = signal.SIGINT, signal.SIGPIPE
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_silently() -> None:
    """From here on SIGINT, SIGTERM and SIGHUP end the process at once with 128+n; call it while nothing is under way.

    One that the caller had ignored stays ignored.
    """

    def end(number: int, _: object) -> None:
        os._exit(128 + number)

    _handle(end)


def interrupt() -> None:
    """From here on SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Interrupted, once, in the main thread."""
    from khlone.errors import Interrupted

    def raise_interrupted(number: int, _: object) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    _handle(raise_interrupted)


def _handle(handler: object) -> None:
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)  # type: ignore[arg-type]


class Noted:
    """For the length of a `with` block signals are noted instead of raised, in the order they came.

    Outside of the main thread, where no signal is raised, nothing changes.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._before: dict[int, object] = {}
        self._child: int | None = None

    def __enter__(self) -> Noted:
        for number in _ENDING:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                try:
                    signal.signal(number, self._note)
                except ValueError:  # not the main thread
                    break
                self._before[number] = before
        return self

    def __exit__(self, *_: object) -> None:
        self._child = None
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _note(self, number: int, _: object) -> None:
        self.numbers.append(number)
        if self._child is not None and not (number == signal.SIGINT and _is_the_terminals()):
            _send(self._child, number)

    def pass_on(self, pid: int) -> None:
        """Send a child of our process group what came while it was started, and from now on what reaches us alone.

        Until `keep`: `pid` must not be waited for in between.
        """
        self._child = pid
        for number in self.numbers:
            _send(pid, number)

    def keep(self) -> None:
        """Pass nothing on any more."""
        self._child = None

    def raise_noted(self, *, but: int | None = None) -> None:
        """Raise Interrupted for the first signal that was noted, `but` one that has been dealt with."""
        from khlone.errors import Interrupted

        for number in self.numbers:
            if number != but:
                raise Interrupted(number)


def _is_the_terminals() -> bool:
    """Whether a SIGINT came, as far as can be told, by Ctrl-C: then a child of our process group has it too.

    So it is taken wherever our group is the terminal's foreground. Python does not tell who sent
    a signal; elsewhere a child may get twice what was sent to the whole group, rather than nothing.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
