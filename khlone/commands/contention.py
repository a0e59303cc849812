"""`contention`: what many agents at once do to each other on this machine, with and without khlone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from khlone import process
from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.output import size, visible

if TYPE_CHECKING:
    from khlone.operations.contention import Row

_MOST_CLIENTS = 200
_MOST_ROUNDS = 1000
_HEADS = ("CLIENTS", "CONFIG DIR", "LOST OF 1,000", "LOGGED OUT", "FAILED", "WALL", "MEMORY")
_MODES = {"shared": "one for all", "linked": "own, login linked", "khlone": "clones of khlone"}


@verb("contention")
@click.option("-n", "--clients", type=click.IntRange(1, _MOST_CLIENTS), metavar="N", help="Clients at once; 10.")
@click.option("--sweep", metavar="N,N...", help="One number of clients after the other, such as 5,10,20,30.")
@click.option("--rounds", type=click.IntRange(1, _MOST_ROUNDS), default=1, metavar="R", help="Rounds of each; 1.")
@click.option("--program", metavar="PROGRAM", help="This Claude Code, a name on PATH or a file, instead of `claude`.")
@click.option("--fake", is_flag=True, help="A fake agent with the habits of Claude Code 2.1.252.")
def command(
    context: Context, *, clients: int | None, sweep: str | None, rounds: int, program: str | None, fake: bool
) -> None:
    """Show what many agents at once do to each other on this machine, with and without khlone.

    Clients start at once with one config dir for all, with one each and the login linked, and in clones:
    how many entries of their config are lost, how many are logged out, how long it takes and how much
    memory they hold. It works in a throw-away folder against services on loopback: no account, no
    network, nothing of yours is touched. Without an installed Claude Code a fake one is taken.
    """
    from khlone.operations import contention

    if clients is not None and sweep is not None:
        raise UsageError("-n and --sweep exclude each other")
    if program is not None and fake:
        raise UsageError("--program and --fake exclude each other")
    wanted = [clients or 10] if sweep is None else _numbers(sweep)
    search = context.environment.get("PATH", os.defpath)
    chosen = contention.find_program(search)
    if program is not None:
        named = None if "/" in program else process.find_program(program, {"PATH": search})
        chosen = Path(named or os.path.abspath(context.where() / program))
        if not (chosen.is_file() and os.access(chosen, os.X_OK)):
            raise UsageError(f"--program {program} is no program")
    request = contention.ContentionRequest(
        clients=wanted, rounds=rounds, program=None if fake else chosen, search=search
    )
    found = contention.contend(request, told=context.output.tell)
    if context.output.as_json:
        names = ("agent", "program", "version", "login", "rounds", "rows")
        context.output.document("contention", {name: getattr(found, name) for name in names})
        return
    what = "a fake agent" if found.program is None else visible(str(found.program))
    context.output.tell(f"{found.agent} {found.version}: {what}")
    context.output.table(_HEADS, [_cells(row) for row in found.rows])
    for row in found.rows:
        if row.note and row.mode.value == "khlone":
            context.output.tell(f"{row.clients} clients in clones: {visible(row.note)}")


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdecimal() for part in parts):
        raise UsageError(f"--sweep {text} is no list of numbers", hint="--sweep 5,10,20,30")
    found = [int(part) for part in parts if len(part) < 9]
    if len(found) != len(parts) or not all(1 <= number <= _MOST_CLIENTS for number in found):
        raise UsageError(f"--sweep takes numbers from 1 to {_MOST_CLIENTS}")
    return found


def _cells(row: Row) -> tuple[str, ...]:
    tried = row.logged_out is not None
    return (
        str(row.clients),
        _MODES[row.mode.value],
        f"{row.lost_per_1000:.0f}",
        f"{row.logged_out} of {row.starts}" if tried else "-",
        str(row.failed),
        f"{row.wall_s:.1f} s" if tried else "-",
        "-" if row.pss_bytes is None else size(row.pss_bytes),
    )
