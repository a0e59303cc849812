"""How do many commands that want the same fetch at once get by with one?

Each fetch from a remote has a number. Whoever wants one reads the number of the last that
was begun, then waits for the remote's turn: a fetch with a higher number began after it
was wanted, so its result is good for everybody who waited, and is used instead of another.
No clock is asked. A fetch that was killed has a beginning and no end, and counts for nothing.
The lock of the turn is not inherited by git: a helper that stays behind, such as a cache of
credentials, would hold it, and git keeps two fetches apart by itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from khlone import faults, files
from khlone.app import App
from khlone.errors import KhloneError, RemoteFailed
from khlone.locks import digest
from khlone.operations import remotes
from khlone.values import dataclass

#: How many fetches that may take their whole time are waited for before the holder is named.
_TURNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is written of a remote's fetches: the last that was begun, the last that ended, and how."""

    begun: int = 0
    ended: int = 0
    failed: str | None = None


def fetch(app: App, remote: str) -> bool:
    """Have everything that `remote` has at some moment after this call began; True when another's fetch gave it.

    Raises RemoteFailed, CredentialsMissing, or Locked where the turn did not come in time.
    """
    app.prepare_state()
    wanted = _read(app, remote).begun
    limit_s = app.settings.network_timeout_s
    with app.locks.fetch(remote, wait_s=limit_s * _TURNS, told=app.told) as lock:
        shared = _shared(app, remote, wanted)
        if shared is None:
            lock.verify()
            _fetch(app, remote, limit_s)
            return False
    if shared.failed is not None:
        raise RemoteFailed(remote, shared.failed)
    app.told(f"{remote} was fetched by another command meanwhile")
    return True


def fetch_targets(app: App, targets: Iterable[str], *, dry_run: bool = False) -> None:
    """Fetch once from each remote that one of the branches follows."""
    configured = remotes.read(app)
    followed = (configured.upstream(target) for target in targets)
    for remote in dict.fromkeys(one[0] for one in followed if one is not None):
        if dry_run:
            app.told(f"would fetch from {remote}; its branches are taken as they were fetched last")
        else:
            fetch(app, remote)


def _shared(app: App, remote: str, wanted: int) -> Turn | None:
    """The fetch that began after number `wanted` and has ended, `None` where there is none."""
    last = _read(app, remote)
    return last if last.ended > wanted else None


def _fetch(app: App, remote: str, limit_s: float) -> None:
    number = _read(app, remote).begun + 1
    _write(app, remote, Turn(begun=number))
    faults.point("fetch.begun")
    done = remotes.fetch(app, remote, (), timeout_s=limit_s)
    faults.point("fetch.fetched")
    error = remotes.failure(remote, done, limit_s) if done.status != 0 else None
    # Credentials are those of one process: another one may have better ones.
    if error is None or isinstance(error, RemoteFailed):
        why = None if error is None else error.message.removeprefix(f"remote {remote}: ")
        _write(app, remote, Turn(begun=number, ended=number, failed=why))
    faults.point("fetch.ended")
    if error is not None:
        raise error


def _place(app: App, remote: str) -> Path:
    return app.state_dir / "locks" / f"fetch-{digest(remote)}.json"


def _read(app: App, remote: str) -> Turn:
    """What is written; a file that says nothing to be understood says that nothing was fetched."""
    with contextlib.suppress(OSError, KhloneError, ValueError, KeyError, TypeError):
        found = json.loads(files.read_regular(_place(app, remote)) or b"{}")
        return Turn(begun=int(found["begun"]), ended=int(found["ended"]), failed=found["failed"])
    return Turn()


def _write(app: App, remote: str, turn: Turn) -> None:
    content = {"begun": turn.begun, "ended": turn.ended, "failed": turn.failed}
    files.write_atomic(_place(app, remote), json.dumps(content).encode() + b"\n", durable=False)
