"""Another user than the one whose state it is: told whose it is, never that something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused
from tests.faults.lab import run
from tests.support import KHLONE, Git, Khlone

pytestmark = pytest.mark.needs_root

OTHER = 54321
#: Without these two even root has no way into a folder that is another user's alone.
BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.fixture
def foreign(khlone: Khlone, project: Path) -> Path:
    """A repository with a clone `a`, whose state belongs to somebody else."""
    new(khlone, project, "a")
    os.chown(project / ".git" / "khlone", OTHER, OTHER)
    return project


@pytest.mark.parametrize("verb", [("doctor",), ("doctor", "--fix"), ("list",), ("show", "a"), ("new", "b")])
def test_whose_state_it_is_is_told(foreign: Path, verb: tuple[str, ...]) -> None:
    found = refused(run(*BOUND, str(KHLONE), *verb, "--json", cwd=foreign), "not-permitted", 77)

    assert f"belongs to user {OTHER}" in found["message"]
    assert found["hint"] == "run khlone as that user"


def test_no_hint_leads_to_the_loss_of_the_trash(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    (project / ".git" / "khlone").chmod(0o777)

    found = refused(khlone("new", "b", "--json", cwd=project), "state-unsafe", 77)

    assert "move" not in found["hint"]
    assert "chmod go-w" in found["hint"]
    assert document(khlone("list", "--json", cwd=project), "list")["clones"][0]["name"] == "a"
