"""Whoever of a session and those that look after it is killed, at whatever moment: nothing of it is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import document, show
from tests.commands.test_resources import DAEMON, alive, wait_for
from tests.commands.test_run import LEAVES, project, run, supervisors
from tests.support import KHLONE, Khlone

__all__ = ["project", "run"]

KILLS = int(os.environ.get("KHLONE_KILLS") or (150 if os.environ.get("KHLONE_TORTURE") else 8))
SEED = int(os.environ.get("KHLONE_SEED") or 1)


def marked(where: Path) -> list[int]:
    """Every process whose environment says that it runs in a clone that lies there."""
    mark = f"KHLONE_PATH={where}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = any(one.startswith(mark) for one in (place / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if is_ours and alive(int(place.name)):
            found.append(int(place.name))
    return found


def ended(khlone: Khlone, project: Path) -> dict[str, Any] | None:
    """How the session ended, once it has; `None` where there was none."""
    done = khlone("wait", "one", "--json", cwd=project)
    return None if done.json()["schema"] == "khlone.error/1" else dict(document(done, "wait", done.code)["sessions"][0])


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(KILLS))
def test_whoever_is_killed_when_nothing_is_left(khlone: Khlone, project: Path, tmp_path: Path, round_: int) -> None:
    chance = random.Random(SEED * 1000 + round_)
    clones = Path(show(khlone, project, "one")["path"]).parent
    daemon = [DAEMON, "0", str(tmp_path / "daemon"), str(tmp_path / "end")]
    words = [str(KHLONE), "run", "one", "--detach", "--", sys.executable, "-c", LEAVES, "stays", *daemon]
    asking = subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: bool(supervisors()) or asking.poll() is not None)

    # A moment of its start or of its life: what is killed is the point here, and when is anybody's guess.
    time.sleep(chance.random() * 0.4)
    kinds = chance.sample(["keeper", "supervisor", "session", "caller"], chance.randint(1, 3))
    keepers = [pid for pid in supervisors() if _parent(pid) not in supervisors()]
    victims = {
        "keeper": keepers,
        "supervisor": [pid for pid in supervisors() if pid not in keepers],
        "session": marked(clones)[:1],
        "caller": [asking.pid] if asking.poll() is None else [],
    }
    for kind in kinds:
        for pid in victims[kind]:
            kill(pid)
    asking.wait(timeout=60)

    stopped = khlone("stop", "one", "--grace", "5", cwd=project)
    assert stopped.code in (0, 1), stopped
    assert "Traceback" not in stopped.err
    wait_for(lambda: not supervisors())
    assert marked(clones) == []
    found = ended(khlone, project)
    assert found is None or found["ended_at"] is not None
    assert khlone("run", "one", "--", "true", cwd=project).code == 0
    assert document(khlone("limits", "--json", cwd=project), "limits")["places"] == []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int) -> None:
    """Kill a process that may be gone by now."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
