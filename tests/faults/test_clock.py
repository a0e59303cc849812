"""A clock that is wrong or moves: nothing is purged for it, nothing waits for it, no two operations are one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, new, trash
from tests.faults.lab import customized, open_operations, rows
from tests.support import Khlone

DAY = 86400
#: Every Python that starts sees another time of day; what counts from the boot goes on as ever.
CLOCK = """
import datetime, time
_shift, _jump = {shift}, {jump}
_now, _now_ns = time.time, time.time_ns
_calls = 0

def _offset():
    global _calls
    _calls += 1
    return _shift + _jump * (-1) ** _calls

time.time = lambda: _now() + _offset()
time.time_ns = lambda: _now_ns() + _offset() * 1_000_000_000

class _Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().fromtimestamp(time.time(), tz)

datetime.datetime = _Moved
"""


def clock(folder: Path, *, days: int = 0, jump_days: int = 0) -> dict[str, str]:
    """The variables of a machine whose clock is wrong by so many days, and by so many more at every look."""
    return customized(folder, CLOCK.format(shift=days * DAY, jump=jump_days * DAY))


@pytest.fixture
def removed(khlone: Khlone, project: Path) -> Path:
    """A repository with a clone in the trash."""
    path = new(khlone, project, "a")
    (path / "kept.log").write_text("kept\n")
    assert khlone("remove", "--force", "a", cwd=project).code == 0
    return project


@pytest.mark.parametrize("days", [-3, 3650])
def test_a_wrong_clock_purges_nothing(khlone: Khlone, removed: Path, tmp_path: Path, days: int) -> None:
    env = clock(tmp_path / "site", days=days)
    before = trash(khlone, removed)

    found = document(khlone("prune", "--trash", "--json", cwd=removed, env=env), "prune")

    assert found["purged"] == []
    assert trash(khlone, removed) == before
    assert khlone("restore", "a", cwd=removed).code == 0
    assert (removed.with_name("project.clones") / "a" / "kept.log").read_text() == "kept\n"


def test_a_clock_that_was_set_back_makes_nothing_older_than_it_is(
    khlone: Khlone, removed: Path, tmp_path: Path
) -> None:
    env = clock(tmp_path / "site", days=-3)

    found = document(khlone("prune", "--trash", "--age", "1s", "--json", cwd=removed, env=env), "prune")

    assert found["purged"] == []


def test_a_clock_that_is_right_purges_what_is_old(khlone: Khlone, removed: Path, tmp_path: Path) -> None:
    """The control: the same command where the same entry is old enough, and the clock not in doubt."""
    env = clock(tmp_path / "site", days=40)

    found = document(khlone("prune", "--trash", "--json", cwd=removed, env=env), "prune")

    assert len(found["purged"]) == 1


@pytest.mark.parametrize(("days", "jump_days"), [(-3, 0), (3650, 0), (0, 400)])
def test_under_a_clock_that_is_wrong_or_jumps_every_verb_does_its_work(
    khlone: Khlone, project: Path, tmp_path: Path, days: int, jump_days: int
) -> None:
    env = clock(tmp_path / "site", days=days, jump_days=jump_days)
    verbs = (("new", "a"), ("new", "b"), ("remove", "b"), ("restore", "b"), ("merge", "a"), ("doctor", "--fix"))

    codes = {verb: khlone(*verb, cwd=project, env=env).code for verb in verbs}

    assert set(codes.values()) == {0}
    assert clone_names(khlone, project) == ["a", "b"]
    assert open_operations(project) == []


@pytest.mark.parametrize("days", [-3, 3650])
def test_what_was_begun_under_another_clock_is_recovered(
    khlone: Khlone, project: Path, tmp_path: Path, days: int
) -> None:
    env = clock(tmp_path / "site", days=days)
    path = new(khlone, project, "a")
    assert khlone("new", "b", cwd=project, env=env | {"KHLONE_FAULT": "create.checked-out"}).code == -9
    removed = khlone("remove", "--force", "a", cwd=project, env=env | {"KHLONE_FAULT": "remove.worktree-moved"})

    fixed = khlone("doctor", "--fix", cwd=project)

    assert removed.code == -9
    assert fixed.code == 0, fixed.out
    assert open_operations(project) == []
    assert clone_names(khlone, project) == []
    assert khlone("restore", "a", cwd=project).code == 0
    assert path.is_dir()


def test_a_clock_that_goes_back_gives_no_operation_the_id_of_another(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    for number, days in enumerate((0, -3, -3, 0)):
        env = clock(tmp_path / f"site{number}", days=days)
        assert khlone("new", f"c{number}", cwd=project, env=env).code == 0

    found = document(khlone("log", "--json", cwd=project), "log")["operations"]

    assert sorted(one["clone"] for one in found) == ["c0", "c1", "c2", "c3"]
    assert len({row[0] for row in rows(project, "SELECT id FROM operations")}) == 4
