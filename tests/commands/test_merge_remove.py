"""`merge --remove`: what landed goes, and what cannot go is told, by the document and the exit code too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.merging import worked
from tests.commands.steps import clone_names, document, trash
from tests.support import Commit, Git, Khlone


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
    assert done.code == 1
    assert "has landed but was not removed" in done.err
    assert "when that has ended: git khlone remove a\n" in done.err
    assert khlone("remove", "a", cwd=project).code == 0


@pytest.mark.parametrize("gated", [False, True], ids=["directly", "through the queue"])
def test_the_document_and_the_exit_code_say_who_went_and_who_stayed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, gated: bool
) -> None:
    if gated:
        git("config", "khlone.gate.true", "true", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    path = worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    (path / "untracked.txt").write_text("mine\n")

    found = document(khlone("merge", "a", "b", "--committed", "--remove", "--json", cwd=project), "merge", 1)

    assert [one["name"] for one in found["landed"]] == ["a", "b"]
    assert [(one["name"], one["trash"]) for one in found["removed"]] == [("a", trash(khlone, project)[0]["trash"])]
    assert [(one["name"], one["code"]) for one in found["kept"]] == [("b", "has-changes")]
    assert clone_names(khlone, project) == ["b"]


def test_a_queued_clone_is_removed_by_whoever_lands_it(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("config", "khlone.gate.true", "true", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    khlone("merge", "a", "--detach", "--remove", cwd=project)

    found = document(khlone("merge", "b", "--json", cwd=project), "merge")

    assert ([one["name"] for one in found["landed"]], found["removed"], found["kept"]) == (["b"], [], [])
    assert clone_names(khlone, project) == ["b"]
