"""khlone is killed and the git that it had started lives on, holding the clone: said, waited for, never passed over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, refused
from tests.faults.lab import has_open, open_operations, start, wait_until
from tests.support import KHLONE, TIMEOUT_S, Khlone

SHIM = """#!/bin/sh
for word in "$@"; do
  if [ "$word" = reset ]; then
    echo $$ >'{folder}/pid.new' && mv '{folder}/pid.new' '{folder}/pid'
    read line <'{folder}/go'
  fi
done
exec '{real}' "$@"
"""


class Orphan:
    """A git that the killed `new a` has left, waiting in its checkout."""

    def __init__(self, folder: Path, project: Path) -> None:
        folder.mkdir()
        os.mkfifo(folder / "go")
        shim = folder / "git"
        shim.write_text(SHIM.format(folder=folder, real=shutil.which("git")))
        shim.chmod(0o755)
        self._go = folder / "go"
        khlone = start(["new", "a"], cwd=project, env={"PATH": f"{folder}:{os.environ['PATH']}"})
        wait_until((folder / "pid").exists)
        self.pid = int((folder / "pid").read_text())
        khlone.kill()
        khlone.wait()

    def let_go(self) -> None:
        """Let it do what it was started for."""
        self._go.write_text("go\n")

    def end(self) -> None:
        """End it, if it still waits."""
        if has_open(self.pid, self._go) or os.path.exists(f"/proc/{self.pid}"):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def orphan(project: Path, tmp_path: Path) -> Iterator[Orphan]:
    found = Orphan(tmp_path / "shim", project)
    yield found
    found.end()


def test_doctor_names_the_process_that_holds_the_clone(khlone: Khlone, project: Path, orphan: Orphan) -> None:
    found = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]

    assert [(one["code"], one["clone"]) for one in found] == [("orphaned-process", "a")]
    assert f"git (pid {orphan.pid})" in found[0]["message"]
    assert f"kill {orphan.pid}" in found[0]["fix"]


def test_the_next_command_says_what_it_waits_for_and_then_recovers(
    khlone: Khlone, project: Path, orphan: Orphan
) -> None:
    following = subprocess.Popen([KHLONE, "new", "b"], cwd=project, stderr=subprocess.PIPE, text=True)
    assert following.stderr is not None
    line = following.stderr.readline()
    orphan.let_go()

    _, err = following.communicate(timeout=TIMEOUT_S)

    assert f"waiting for git (pid {orphan.pid})" in line
    assert following.returncode == 0
    assert "recovered: an interrupted create of a was taken back" in err
    assert clone_names(khlone, project) == ["b"]
    assert open_operations(project) == []


def test_one_that_does_not_end_is_left_and_named_and_holds_up_its_own_clone_alone(
    khlone: Khlone, project: Path, orphan: Orphan
) -> None:
    made = khlone("new", "b", cwd=project)
    fixed = khlone("doctor", "--fix", "--json", cwd=project)

    assert made.code == 0
    assert f"kill {orphan.pid}" in made.err
    assert [one["code"] for one in document(fixed, "doctor", 1)["findings"]] == ["orphaned-process"]
    assert open_operations(project) == [("create", "a")]
    held = refused(khlone("exec", "a", "--json", "--", "true", cwd=project), "clone-not-ready")
    assert "creating" in held["message"]
