"""A removal that fails half way: what is said to be kept is there, whole, with its refs and its config dir."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import footprint, new, trash, tree
from tests.support import KHLONE, Git, Khlone, write

#: Under which even root is bound by the modes of its own files, as anyone is.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []


def test_where_admin_folders_may_not_be_moved_a_clone_that_is_kept_is_whole(
    khlone: Khlone, git: Git, project: Path
) -> None:
    path = new(khlone, project, "a")
    write(path, {"thoughts.txt": "precious\n", "build.log": "log\n"})
    before, whole = footprint(git, project), tree(path)
    admins = project / ".git" / "worktrees"
    admins.chmod(0o555)

    done = subprocess.run(
        [*BOUND, KHLONE, "remove", "--force", "a", "--json"], cwd=project, capture_output=True, check=False
    )

    admins.chmod(0o755)
    assert done.returncode == 77, done.stderr
    assert [one["code"] for one in json.loads(done.stdout)["kept"]] == ["not-permitted"]
    assert footprint(git, project) == before
    assert tree(path) == whole
    assert trash(khlone, project) == []
    assert khlone("doctor", cwd=project).out == "all is well\n"


@pytest.mark.parametrize("point", ["remove.worktree-moved", "remove.admin-moved", "remove.config-moved"])
def test_a_failure_after_the_move_takes_the_clone_back(khlone: Khlone, git: Git, project: Path, point: str) -> None:
    path = new(khlone, project, "a")
    write(path, {"thoughts.txt": "precious\n"})
    before, whole = footprint(git, project), tree(path)

    done = khlone("remove", "--force", "a", cwd=project, env={"KHLONE_FAULT": f"{point}:raise:ENOSPC"})

    assert done.code == 1
    assert footprint(git, project) == before
    assert tree(path) == whole
    assert khlone("doctor", cwd=project).out == "all is well\n"
