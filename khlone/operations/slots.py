"""How does a heavy command get one of a few slots that all clones of a machine share?

A slot is held for as long as the command runs, and free once it and whoever started it are
dead. Within a command that holds a slot of a name, that name asks for none again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from khlone import process, signals
from khlone.errors import UsageError
from khlone.machine import WAITING, Lease
from khlone.model import ExecResult
from khlone.operations import turns
from khlone.operations.turns import Blocker, Place, Wish
from khlone.redaction import redacted
from khlone.settings import Settings
from khlone.values import dataclass

#: Names of the slots that a command runs in, for what it starts.
VARIABLE = "KHLONE_SLOTS"
_PREFIX = "slot:"
_SHOWN_LETTERS = 100
#: Bytes of stdout and of stderr that are kept of a captured command.
_CAPTURED_BYTES = 1 << 20
_NO_TIMEOUT_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot that is held, or `waiting` for one; `command` is cut and without what looks like a secret."""

    name: str
    waiting: bool
    position: int | None
    holder: str
    pid: int
    command: str
    since: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequest:
    """A command that wants one of `count` slots of a name; `None` for what the settings say."""

    name: str
    command: Sequence[str]
    cwd: Path
    count: int | None = None
    wait: bool = True
    capture: bool = False


def run(
    settings: Settings, environment: Mapping[str, str], request: SlotRequest, *, told: Callable[[str], None]
) -> ExecResult:
    """Run a command in a slot, waiting for one first, and return how it ended.

    Raises UsageError, NoRoom or CommandNotFound.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", request.name) is None:
        raise UsageError(f"{request.name!r} cannot name a slot", hint="use letters, digits and . _ -")
    if not request.command:
        raise UsageError("no command is given", hint="git khlone slot run --name NAME -- CMD ...")
    within = environment.get(VARIABLE, "").split()
    with contextlib.ExitStack() as stack:
        place = turns.NO_PLACE
        if request.name not in within:
            place = stack.enter_context(_held(settings, environment, request, told))
        variables = {**environment, VARIABLE: " ".join([*within, request.name])}
        return _captured(request, variables, place) if request.capture else _foreground(request, variables, place)


def listed(environment: Mapping[str, str], told: Callable[[str], None]) -> list[Slot]:
    """Every slot that is held, and who waits for one, by name and in the order of each line."""
    machine = turns.open_machine(environment, told, make=False)
    if not machine.exists:
        return []
    leases = [one for one in machine.leases(None) if one.pool.startswith(_PREFIX)]
    machine.close()
    found = [_slot(one, [other for other in leases if other.pool == one.pool]) for one in leases]
    return sorted(found, key=lambda slot: (slot.name, slot.waiting))


@contextlib.contextmanager
def _held(
    settings: Settings, environment: Mapping[str, str], request: SlotRequest, told: Callable[[str], None]
) -> Iterator[Place]:
    count = request.count
    if count is None:
        found = settings.value(f"slots.{request.name.lower()}")
        count = int(found) if isinstance(found, float) else 1
    if count < 1:
        raise UsageError(f"there are no slots of the name {request.name}", hint="-n N, or khlone.slots.NAME")
    machine = turns.open_machine(environment, told)
    wait_s = settings.value("limits.wait")
    assert isinstance(wait_s, float)
    wish = Wish(
        name=f"slot {request.name}",
        pool=_PREFIX + request.name,
        clone=environment.get("KHLONE_ID", ""),
        repository=environment.get("KHLONE_REPOSITORY", ""),
        kind=environment.get("KHLONE_NAME") or os.fspath(request.cwd),
        session=environment.get("KHLONE_SESSION"),
        command=redacted(shlex.join(request.command))[:_SHOWN_LETTERS],
        wait=request.wait,
        wait_s=wait_s,
    )
    try:
        with turns.hold(machine, wish, lambda: lambda _, leases: _judge(leases, count), told=told) as place:
            yield place
    finally:
        machine.close()


def _judge(leases: Sequence[Lease], count: int) -> Blocker | None:
    holders = turns.holders_of(leases)
    if len(holders) < count:
        return None
    named = "; ".join(f"{one.kind} runs {one.command} (pid {_pid(one)})" for one in holders[:3])
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return Blocker(word="slots", reason=f"{len(holders)} of {count} are held: {named}{more}")


def _pid(lease: Lease) -> int:
    return lease.owner.pid if lease.child is None else lease.child.pid


def _slot(lease: Lease, leases: Sequence[Lease]) -> Slot:
    waits = lease.state == WAITING
    return Slot(
        name=lease.pool.removeprefix(_PREFIX),
        waiting=waits,
        position=turns.position(lease, leases)[0] if waits else None,
        holder=lease.kind,
        pid=_pid(lease),
        command=lease.command,
        since=lease.granted_at or lease.asked_at,
        reason=lease.reason,
    )


def _foreground(request: SlotRequest, variables: Mapping[str, str], place: Place) -> ExecResult:
    with signals.Noted() as noted:
        noted.raise_noted()
        child = process.start_foreground(request.command, cwd=request.cwd, environment=variables)
        noted.pass_on(child.pid)
        try:
            place.started(child.pid)
        finally:
            process.await_foreground(child)
            noted.keep()
            status = child.wait()
        noted.raise_noted(but=signals.SIGINT)
    return _result(request, status, b"", b"", truncated=False)


def _captured(request: SlotRequest, variables: Mapping[str, str], place: Place) -> ExecResult:
    with signals.Noted() as noted:
        noted.raise_noted()
        done = process.run(
            request.command,
            cwd=request.cwd,
            environment=variables,
            timeout_s=_NO_TIMEOUT_S,
            capture_bytes=_CAPTURED_BYTES,
            started=place.started,
            given_up=lambda: bool(noted.numbers),
            own_stdin=True,
        )
        noted.raise_noted()
    return _result(request, done.status, done.stdout, done.stderr, truncated=done.truncated)


def _result(request: SlotRequest, status: int, stdout: bytes, stderr: bytes, *, truncated: bool) -> ExecResult:
    return ExecResult(
        name=request.name,
        exit=status if status >= 0 else None,
        signal=-status if status < 0 else None,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        truncated=truncated,
    )
