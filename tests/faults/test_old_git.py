"""A git that is too old is told by every verb that would need it, before anything is changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.commands.steps import footprint, new, refused
from tests.support import Git, Khlone


@pytest.mark.parametrize("version", ["2.30.2", "2.34.1", "2.38.4"])
@pytest.mark.parametrize("verb", [("new", "b"), ("list",), ("merge", "a"), ("remove", "a")], ids=lambda verb: verb[0])
def test_it_is_refused_by_name_and_nothing_is_changed(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, version: str, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "git").write_text(
        f'#!/bin/sh\ncase $1 in version|--version) echo "git version {version}"; exit;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    (folder / "git").chmod(0o755)
    before = footprint(git, project)

    done = khlone(*verb, "--json", cwd=project, env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"})

    error = refused(done, "git-too-old")
    assert version in error["message"]
    assert "2.39" in error["message"] + str(error["hint"])
    assert footprint(git, project) == before
