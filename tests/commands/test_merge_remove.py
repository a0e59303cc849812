"""`merge --remove` while a hook that was told of the landing still runs in the clone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.commands.merging import worked
from tests.support import Commit, Khlone


def test_a_clone_that_is_in_use_stays_and_how_it_goes_later_is_told(
    khlone: Khlone, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    script = "import sys; print(flush=True); sys.stdin.read()"
    busy = subprocess.Popen([sys.executable, "-c", script], cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert busy.stdout is not None
    busy.stdout.readline()

    done = khlone("merge", "a", "--remove", cwd=project)

    assert busy.poll() is None
    busy.communicate()
    assert done.code == 0
    assert "has landed but was not removed" in done.err
    assert "when that has ended: git khlone remove a\n" in done.err
    assert khlone("remove", "a", cwd=project).code == 0
