"""How gates look at what waits: one after the other, or several ahead at once; each commit that lands was seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from khlone import headroom
from tests.commands.merging import landed, merge, oid, worked
from tests.commands.steps import document, refused
from tests.commands.test_queue import PAIRS, gated, seen
from tests.support import Commit, Git, Khlone


def first_parents(git: Git, where: Path, base: str) -> list[str]:
    """What has landed on main since a commit, the oldest first."""
    return git("rev-list", "--first-parent", "--reverse", f"{base}..main", cwd=where).split()


def ready(khlone: Khlone, git: Git, commit: Commit, project: Path, mode: str, names: str = "abc") -> str:
    """Clones with one file each, in that mode; returns where main is."""
    for name in names:
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    git("config", "khlone.merge.mode", mode, cwd=project)
    return oid(git, project, "main")


@pytest.mark.parametrize(("mode", "every"), [("batch", False), ("serial", True), ("speculative", True)])
def test_in_all_modes_but_batch_each_commit_on_the_target_was_looked_at(
    khlone: Khlone, git: Git, commit: Commit, project: Path, mode: str, every: bool
) -> None:
    base = ready(khlone, git, commit, project, mode)
    runs = gated(git, project, "true")

    found = merge(khlone, project, *"abc")

    on_main = first_parents(git, project, base)
    assert (landed(found), found["gated"], len(on_main)) == (["a", "b", "c"], True, 3)
    assert sorted(seen(runs)) == sorted(on_main if every else on_main[-1:])


def test_ahead_several_gates_run_at_once(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    ready(khlone, git, commit, project, "speculative")
    git("config", "khlone.merge.window", "3", cwd=project)
    # Each waits until all three are there: one after the other none would ever pass.
    meeting = project.parent / "meeting"
    meeting.mkdir()
    gated(
        git,
        project,
        f"touch {meeting}/$KHLONE_CANDIDATE; while [ $(ls {meeting} | wc -l) -lt 3 ]; do sleep 0.05; done",
        timeout="60",
    )

    found = merge(khlone, project, *"abc")

    assert (landed(found), found["held"]) == (["a", "b", "c"], [])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_as_many_gates_run_at_once_as_the_window_says_and_no_more(
    khlone: Khlone, git: Git, commit: Commit, project: Path, window: int
) -> None:
    ready(khlone, git, commit, project, "speculative", "abcd")
    git("config", "khlone.merge.window", str(window), cwd=project)
    place, most, met = project.parent / "running", project.parent / "most", project.parent / "met"
    place.mkdir()
    # The first ones wait until as many run as may: a gate too many has all that time to show itself.
    count = f"ls {place} | wc -l"
    gated(
        git,
        project,
        f"touch {place}/$$; until test -e {met}; do test $({count}) -lt {window} || touch {met}; sleep 0.05; done; "
        f"{count} >>{most}; sleep 0.3; {count} >>{most}; rm {place}/$$",
        timeout="60",
    )

    found = merge(khlone, project, *"abcd")

    assert landed(found) == ["a", "b", "c", "d"]
    assert max(int(line) for line in most.read_text().split()) == window


def test_a_failure_behind_a_failure_is_unknown_and_its_gate_is_ended(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    ready(khlone, git, commit, project, "speculative")
    git("config", "khlone.merge.window", "3", cwd=project)
    # On top of b the gate of c would never end.
    gated(
        git,
        project,
        "test ! -e b.txt || if test -e c.txt; then touch ../waits; sleep 1000; else "
        "while ! test -e ../waits; do sleep 0.05; done; exit 1; fi",
    )

    found = merge(khlone, project, *"abc", code=5)

    assert landed(found) == ["a", "c"]
    assert [(one["name"], one["partners"]) for one in found["held"]] == [("b", [])]
    events = document(khlone("events", "--json", cwd=project), "events")["events"]
    assert [one["clones"] for one in events if one["event"] == "failed"] == [["a", "b"], ["b"]]


@pytest.mark.parametrize(("mode", "partners"), [("serial", []), ("speculative", ["a"])])
def test_of_two_that_fail_together_the_first_lands(
    khlone: Khlone, git: Git, commit: Commit, project: Path, mode: str, partners: list[str]
) -> None:
    base = ready(khlone, git, commit, project, mode, "acbd")
    runs = gated(git, project, PAIRS)

    found = merge(khlone, project, *"acbd", code=5)

    assert landed(found) == ["a", "c", "d"]
    assert [(one["name"], one["partners"]) for one in found["held"]] == [("b", partners)]
    assert set(first_parents(git, project, base)) <= set(seen(runs))


def test_a_target_that_moves_meanwhile_is_tested_again(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    ready(khlone, git, commit, project, "speculative")
    # Of the gates that run at once the first one commits.
    once = "! mkdir ../moved 2>/dev/null"
    gated(git, project, f"{once} || git -C {project} commit -q --allow-empty -m theirs")

    found = merge(khlone, project, *"abc")

    assert landed(found) == ["a", "b", "c"]
    assert git("log", "--first-parent", "--format=%s", "main", cwd=project).count("theirs") == 1


def test_a_mode_that_is_none_is_refused(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    base = ready(khlone, git, commit, project, "sideways")
    gated(git, project, "true")

    error = refused(khlone("merge", "a", "--json", cwd=project), "invalid-setting", 2)

    assert "batch or serial or speculative" in error["message"] + error["hint"]
    assert oid(git, project, "main") == base


@pytest.mark.parametrize(("memory", "one"), [("900T", True), ("1K", False)])
def test_as_many_gates_run_at_once_as_fit_into_memory(
    khlone: Khlone, git: Git, commit: Commit, project: Path, memory: str, one: bool
) -> None:
    ready(khlone, git, commit, project, "speculative", "ab")
    git("config", "khlone.merge.memory", memory, cwd=project)
    most = 1 if one else min(2, int(headroom.cores()))
    place, counts, met = project.parent / "running", project.parent / "counts", project.parent / "met"
    place.mkdir()
    count = f"ls {place} | wc -l"
    gated(
        git,
        project,
        f"touch {place}/$$; until test -e {met}; do test $({count}) -lt {most} || touch {met}; sleep 0.05; done; "
        f"sleep 0.3; {count} >>{counts}; rm {place}/$$",
        timeout="60",
    )

    found = merge(khlone, project, *"ab")

    assert landed(found) == ["a", "b"]
    assert max(map(int, counts.read_text().split())) == most
