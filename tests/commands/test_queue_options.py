"""What is said of an entry when it is queued is what happens when it lands, whoever lands it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.commands.merging import held, landed, merge, oid, parents, shown, worked
from tests.commands.steps import document, refused
from tests.commands.test_queue import gated, queue, seen, waiting
from tests.faults.lab import wait_until
from tests.support import KHLONE, TIMEOUT_S, Commit, Git, Khlone, write


@pytest.mark.parametrize("strategy", ["merge", "squash", "rebase", "ff-only"])
@pytest.mark.parametrize("through", ["merge", "queue add"])
def test_each_strategy_lands_through_the_queue_the_very_commit_that_was_tested(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str, through: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(path, {"more.txt": "more\n"}, "more of a")
    if strategy != "ff-only":
        commit(project, {"theirs.txt": "theirs\n"}, "theirs")
    before, tip = oid(git, project, "main"), oid(git, path, "HEAD")
    runs = gated(git, project, "true")

    if through == "merge":
        merge(khlone, project, "a", f"--{strategy}")
    else:
        queue(khlone, project, "add", "a", f"--{strategy}")
        queue(khlone, project, "run")

    now = oid(git, project, "main")
    (entry,) = queue(khlone, project, "log")["entries"]
    assert (entry["strategy"], entry["state"], entry["oid"], entry["gated"]) == (strategy, "landed", now, True)
    assert seen(runs) == [now]
    assert shown(git, project, "more.txt") == "more\n"
    of_each = {"merge": [before, tip], "squash": [before], "rebase": [oid(git, project, "main~1")]}
    assert parents(git, project, "main") == of_each.get(strategy, parents(git, path, "HEAD"))
    assert (now == tip) is (strategy == "ff-only")
    assert git("rev-list", "--count", "--first-parent", f"{before}..main", cwd=project).strip() == (
        "1" if strategy in ("merge", "squash") else "2"
    )


def test_uncommitted_work_is_queued_around_when_that_is_said(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    write(path, {"a.txt": "not yet\n"})

    refusal = khlone("queue", "add", "a", cwd=project)
    queue(khlone, project, "add", "a", "--committed")
    queue(khlone, project, "run")

    assert (refusal.code, "held: " in refusal.err) == (1, True)
    assert shown(git, project, "a.txt") == "a\n"
    assert (path / "a.txt").read_text() == "not yet\n"


def test_each_target_has_a_queue_of_its_own(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("branch", "release", cwd=project)
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    queue(khlone, project, "add", "a", "--into", "release")
    queue(khlone, project, "add", "b")
    main = oid(git, project, "main")

    queue(khlone, project, "pause", "--into", "main")
    queue(khlone, project, "run", "--into", "release")

    assert shown(git, project, "a.txt", "release") == "a"
    assert (oid(git, project, "main"), waiting(khlone, project)) == (main, ["b"])


def test_the_log_tells_as_many_as_are_asked_for_the_newest_first(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
        queue(khlone, project, "add", name)
        queue(khlone, project, "run")

    assert [one["name"] for one in queue(khlone, project, "log", "-n", "2")["entries"]] == ["c", "b"]
    assert len(queue(khlone, project, "log")["entries"]) == 3


def test_a_gate_that_is_set_is_left_out_when_that_is_said_and_the_result_says_so(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    runs = gated(git, project, "exit 1")

    found = merge(khlone, project, "a", "--no-gate")
    git("config", "khlone.gate.required", "true", cwd=project)
    required = merge(khlone, project, "b", "--no-gate", code=5)

    assert (landed(found), found["gated"], seen(runs)) == (["a"], False, [])
    assert held(required) == [("b", "gate-failed")]


def test_wait_ends_when_another_has_landed_it(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    begun, go_on = project.parent / "begun", project.parent / "go-on"
    git(
        *("config", "khlone.gate.test", f"touch {begun}; until test -e {go_on}; do sleep 0.05; done"),
        cwd=project,
    )
    queue(khlone, project, "add", "a")
    with (
        subprocess.Popen([KHLONE, "queue", "run"], cwd=project, stdout=subprocess.DEVNULL) as driver,
        subprocess.Popen(
            [KHLONE, "queue", "wait", "a", "--json"], cwd=project, stdout=subprocess.PIPE, text=True
        ) as waiter,
    ):
        wait_until(begun.exists)
        still = waiter.poll()
        go_on.touch()
        out = waiter.communicate(timeout=TIMEOUT_S)[0]
        driver.wait(TIMEOUT_S)

    assert (still, waiter.returncode) == (None, 0)
    assert '"state": "landed"' in out


@pytest.mark.parametrize("words", [("merge", "a"), ("queue", "add", "a")])
@pytest.mark.parametrize("options", [("--push", "--no-push"), ("--squash", "--rebase")])
def test_options_that_contradict_each_other_are_refused(
    khlone: Khlone, commit: Commit, project: Path, words: tuple[str, ...], options: tuple[str, ...]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a"})

    error = refused(khlone(*words, *options, "--json", cwd=project), "usage", 2)

    assert all(option in error["message"] for option in options)
    assert document(khlone("queue", "--json", cwd=project), "queue")["entries"] == []


@pytest.mark.parametrize(("key", "value"), [("test", "test -e a.txt"), ("test.timeout", "60")])
def test_what_a_gate_has_passed_counts_no_more_when_the_gate_is_another(
    khlone: Khlone, git: Git, commit: Commit, project: Path, key: str, value: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "true")
    merge(khlone, project, "a")
    git("reset", "-q", "--hard", "HEAD^", cwd=project)
    git(
        "config", f"khlone.gate.{key}", f"git rev-parse HEAD >>{runs}; {value}" if key == "test" else value, cwd=project
    )

    found = merge(khlone, project, "a")

    assert (landed(found), found["gated"]) == (["a"], True)
    assert len(seen(runs)) == 2


@pytest.mark.parametrize("way", ["at once", "--detach", "--push"])
def test_where_a_gate_is_required_nothing_lands_without_whatever_way_it_goes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, way: str
) -> None:
    git("init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"), cwd=tmp_path)
    git("remote", "add", "origin", str(tmp_path / "origin.git"), cwd=project)
    git("push", "-q", "-u", "origin", "main", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    git("config", "khlone.gate.required", "true", cwd=project)
    before = oid(git, project, "main")

    done = khlone("merge", "a", "--no-gate", *([] if way == "at once" else [way]), cwd=project)
    if way == "--detach":
        done = khlone("queue", "run", cwd=project)

    assert done.code == 5
    assert way == "--detach" or "leave out --no-gate" in done.err
    assert oid(git, project, "main") == oid(git, tmp_path / "origin.git", "main") == before
    assert landed(merge(khlone, project, "a")) == ["a"]


def test_all_that_is_ready_lands_in_the_order_in_which_people_count(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("t-10", "t-2", "t"):
        worked(khlone, commit, project, name, {f"{name}.txt": name})

    assert landed(merge(khlone, project, "--all-ready")) == ["t", "t-2", "t-10"]


def test_what_no_gate_looks_at_is_not_said_to_be_tested(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queue(khlone, project, "add", "a")

    done = khlone("queue", "run", cwd=project)

    assert (done.code, "testing" in done.err) == (0, False)
    told = document(khlone("events", "--json", cwd=project), "events")["events"]
    assert [one["event"] for one in told] == ["queued", "landed"]


@pytest.mark.parametrize("gate", [True, False])
def test_one_that_conflicts_with_what_landed_before_it_is_told_with_whom(
    khlone: Khlone, git: Git, commit: Commit, project: Path, gate: bool
) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name if name == 'a' else 'same'}.txt": name})
    if gate:
        gated(git, project, "true")

    done = khlone("merge", "a", "b", "c", "--json", cwd=project)

    found = document(done, "merge", 4)
    assert (landed(found), found["held"][0]["partners"]) == (["a", "b"], ["b"])
    assert "held: c conflicts with main in same.txt; b landed before it" in done.err
