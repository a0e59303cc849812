"""Another user than the one whose state it is: told whose it is, never that something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused, tree
from tests.faults.lab import run
from tests.support import KHLONE, Commit, Git, Khlone, run_git, write

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


# -- a repository that may be read and not written ------------------------------------------


@pytest.fixture
def closed(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """A repository of somebody else's with a clone `a`, all of which may be read, and none of it written."""
    path = new(khlone, project, "a")
    commit(path, {"a.txt": "of a\n"}, "of a")
    write(path, {"notes.txt": "edited\n", "new.txt": "new\n"})
    state = Path(os.environ["XDG_STATE_HOME"]) / "khlone"
    for top in (project, path.parent, state):
        for place in (top, *top.rglob("*")):
            if not place.is_symlink():
                os.chown(place, OTHER, OTHER)
                place.chmod(0o755 if place.is_dir() else 0o644)
    run_git("config", "--global", "safe.directory", "*", cwd=project)
    return project


@pytest.mark.parametrize("verb", [("diff", "a"), ("diff", "a", "--committed"), ("conflicts",), ("list",)])
def test_what_only_looks_works_where_git_can_read(closed: Path, verb: tuple[str, ...]) -> None:
    before = tree(closed / ".git")

    done = run(*BOUND, str(KHLONE), *verb, "--json", cwd=closed)

    found = document(done, verb[0])
    if verb[0] == "diff":
        names = ["a.txt"] if len(verb) > 2 else ["a.txt", "new.txt", "notes.txt"]
        assert [one["path"] for one in found["files"]] == names
    assert tree(closed / ".git") == before


@pytest.mark.parametrize("verb", [("env", "a"), ("exec", "a", "--", "true"), ("run", "a", "--", "true")])
def test_what_has_to_write_there_says_so_in_one_line(closed: Path, verb: tuple[str, ...]) -> None:
    found = Path(os.environ["XDG_STATE_HOME"]).rglob("ports.json")
    for lease in list(found):
        lease.unlink()

    done = run(*BOUND, str(KHLONE), *verb, cwd=closed)

    assert (done.code, done.out) == (77, "")
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["khlone", "hint"]
    assert "permission denied" in done.err
    assert "plugin" not in done.err


@pytest.mark.parametrize("name", ["refs/heads", "refs/khlone/clones", "worktrees"])
def test_a_folder_of_git_that_is_closed_is_found_and_named(khlone: Khlone, git: Git, project: Path, name: str) -> None:
    new(khlone, project, "a")
    place = project / ".git" / name
    place.chmod(0o555)

    (found,) = document(run(*BOUND, str(KHLONE), "doctor", "--json", cwd=project), "doctor", 1)["findings"]
    refusal = run(*BOUND, str(KHLONE), "new", "b", cwd=project)
    place.chmod(0o755)

    assert (found["code"], found["severity"]) == ("not-writable", "error")
    assert str(place) in found["message"]
    assert refusal.code in (1, 77)
    assert "hint: check" in refusal.err
    assert str(place) in refusal.err
    assert git("branch", "--list", "b", cwd=project) == ""
    assert document(khlone("doctor", "--json", cwd=project), "doctor")["findings"] == []
