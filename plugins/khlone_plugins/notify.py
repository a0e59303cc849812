"""How does somebody learn that a merge, or what ran in a clone, is through? In ways of his own; off by default.

    khlone.notify.command    notify-me --quiet     a program, told by KHLONE_EVENT, KHLONE_MESSAGE and KHLONE_NAME
    khlone.notify.how        bell osc9             on the terminal; desktop: through notify-send or osascript
    khlone.notify.events     waiting held failed   of these, merged and ended; all five by default

Nothing is waited for, nothing fails: programs run on their own, for a minute at most.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from khlone import CloneState, hookimpl

if TYPE_CHECKING:
    from khlone.model import Clone, Held, MergeResult, Session

EVENTS = ("merged", "held", "failed", "ended", "waiting")
WAYS = ("bell", "osc9", "osc777", "desktop")

#: How long a program may take, in seconds.
_LIMIT_S = 60
_MOST_LETTERS = 200
#: Ends the program and its group when its time is up.
_BOUNDED = """\
import sys
from khlone import process
process.run(sys.argv[2:], timeout_s=float(sys.argv[1]), capture_bytes=0)
"""
_OSASCRIPT = (
    *("osascript", "-e", "on run argv"),
    *("-e", "display notification (item 2 of argv) with title (item 1 of argv)", "-e", "end run"),
)


class Notify:
    """Who is told of what in this command."""

    def __init__(self) -> None:
        self._settings: Mapping[str, str] = {}

    @hookimpl
    def khlone_opened(self, settings: Mapping[str, str]) -> None:
        """Note what is wanted."""
        self._settings = settings

    def is_idle(self) -> bool:
        """Whether nobody wants to be told."""
        return not (self._settings.get("notify.command") or self._settings.get("notify.how"))

    @hookimpl
    def khlone_post_merge(self, clone: Clone, result: MergeResult) -> None:
        """It has landed."""
        self._tell("merged", clone, f"{clone.name} landed on {result.target}")

    @hookimpl
    def khlone_held(self, clone: Clone, held: Held) -> None:
        """It was held."""
        self._tell("held", clone, held.message)

    @hookimpl
    def khlone_session_ended(self, clone: Clone, session: Session) -> None:
        """What ran in it has ended, one way or the other."""
        event = "ended" if session.state == "exit 0" else "failed"
        self._tell(event, clone, f"{_program(session)} in {clone.name} ended ({session.state})")

    @hookimpl
    def khlone_session_waiting(self, clone: Clone, session: Session) -> None:
        """It asks for something and stands still."""
        self._tell("waiting", clone, f"{_program(session)} in {clone.name} waits for you: {session.waiting_for}")

    @hookimpl
    def khlone_post_cleanup(self, clone: Clone) -> None:
        """It could not be made; a removal is nothing to tell of."""
        if clone.state is CloneState.CREATING:
            self._tell("failed", clone, f"{clone.name} could not be made")

    def _tell(self, event: str, clone: Clone, message: str) -> None:
        if self.is_idle() or event not in _words(self._settings, "notify.events", EVENTS, " ".join(EVENTS)):
            return
        text = "".join(letter if letter.isprintable() else " " for letter in message)[:_MOST_LETTERS]
        command = _command(self._settings)
        if command:
            _start(command, {**_about(clone), "KHLONE_EVENT": event, "KHLONE_MESSAGE": text})
        ways = _words(self._settings, "notify.how", WAYS, "")
        _write_to_terminal(sequences(ways, text))
        if "desktop" in ways:
            _show_on_desktop(text)


def _program(session: Session) -> str:
    """The program alone: what it was given may be secret."""
    return os.path.basename(session.command[0])


def sequences(ways: Sequence[str], text: str) -> str:
    """What a terminal is sent."""
    known = {"bell": "\a", "osc9": f"\x1b]9;{text}\a", "osc777": f"\x1b]777;notify;khlone;{text.replace(';', ',')}\a"}
    return "".join(known[way] for way in ways if way in known)


def _about(clone: Clone) -> dict[str, str]:
    return {
        "KHLONE_NAME": clone.name,
        "KHLONE_ID": clone.id,
        "KHLONE_BRANCH": clone.branch,
        "KHLONE_TARGET": clone.target or "",
        "KHLONE_PATH": os.fspath(clone.path),
    }


def _words(settings: Mapping[str, str], key: str, allowed: Sequence[str], default: str) -> list[str]:
    value = settings.get(key) or default
    words = value.replace(",", " ").split()
    unknown = [word for word in words if word not in allowed]
    if unknown:
        from khlone.errors import InvalidSetting

        raise InvalidSetting(f"khlone.{key}", value, f"{unknown[0]!r} is none of {', '.join(allowed)}")
    return words


def _command(settings: Mapping[str, str]) -> list[str]:
    value = settings.get("notify.command", "")
    try:
        return shlex.split(value)
    except ValueError as error:
        from khlone.errors import InvalidSetting

        raise InvalidSetting("khlone.notify.command", value, str(error).lower()) from error


def _start(command: Sequence[str], told: Mapping[str, str]) -> None:
    """Start a program that nobody waits for; raises CommandNotFound when there is none."""
    from khlone import process
    from khlone.errors import CommandNotFound

    program = _find(os.path.expanduser(command[0]))
    if program is None:
        raise CommandNotFound(command[0], "there is no such program")
    bounded = (sys.executable, "-P", "-c", _BOUNDED, str(_LIMIT_S))
    process.start_detached((*bounded, program, *command[1:]), environment={**process.scrubbed(os.environ), **told})


def _find(name: str) -> str | None:
    """The program by its absolute path, looked up in no folder that a repository can have brought along."""
    import shutil

    if "/" in name and not os.path.isabs(name):
        return None
    entries = [entry for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(entry)]
    return shutil.which(name, path=os.pathsep.join(entries))


def _write_to_terminal(text: str) -> None:
    """Send it to the terminal where there is one; a terminal that takes nothing is not waited for."""
    if not text or not os.isatty(2):
        return
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(terminal, text.encode(errors="replace"))
        finally:
            os.close(terminal)


def _show_on_desktop(text: str) -> None:
    if sys.platform == "darwin":
        _start((*_OSASCRIPT, "khlone", text), {})
    elif _find("notify-send") is not None:
        _start(("notify-send", "--app-name=khlone", "--", "khlone", text), {})
