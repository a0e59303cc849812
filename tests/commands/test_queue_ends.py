"""What leaves the queue on its way does not land, what lands is said to have landed, and whoever waits is served."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.merging import Stopping, held, landed, merge, oid, shown, worked
from tests.commands.steps import document
from tests.commands.test_queue import gated, pins, queue, seen, waiting
from tests.faults.lab import wait_until
from tests.support import KHLONE, TIMEOUT_S, Commit, Git, Khlone

MODES = pytest.mark.parametrize("mode", ["batch", "serial", "speculative"])


class Held:
    """A merge whose gate waits until it is let go."""

    def __init__(self, git: Git, project: Path, *names: str) -> None:
        self._go_on = project.parent / "go-on"
        runs = gated(git, project, f"until test -e {self._go_on}; do sleep 0.02; done")
        self.process = subprocess.Popen(
            [KHLONE, "merge", *names, "--json"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: bool(seen(runs)))

    def let_go(self) -> None:
        """Let the gate pass, now and ever after."""
        self._go_on.touch()

    def end(self) -> tuple[int, list[str], list[tuple[str, str]]]:
        """Its exit code, who landed, and who was held by which code."""
        self.let_go()
        out, _ = self.process.communicate(timeout=TIMEOUT_S)
        found = json.loads(out)
        return self.process.returncode, landed(found), held(found)


@contextlib.contextmanager
def in_its_gate(git: Git, project: Path, *names: str) -> Iterator[Held]:
    """A merge in the midst of its gate."""
    one = Held(git, project, *names)
    try:
        yield one
    finally:
        one.let_go()
        one.process.communicate(timeout=TIMEOUT_S)


@MODES
def test_what_is_taken_out_while_it_is_tested_does_not_land(
    khlone: Khlone, git: Git, commit: Commit, project: Path, mode: str
) -> None:
    git("config", "khlone.merge.mode", mode, cwd=project)
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})

    with in_its_gate(git, project, "a", "b") as merging:
        gone = queue(khlone, project, "remove", "a")
        ended = merging.end()

    assert [(one["name"], one["state"]) for one in gone["entries"]] == [("a", "removed")]
    assert ended == (1, ["b"], [("a", "not-queued")])
    assert "a.txt" not in git("ls-tree", "--name-only", "main", cwd=project).split()
    assert pins(git, project) == []


def test_what_gave_way_to_a_newer_commit_while_it_was_tested_does_not_land(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "first\n"})

    with in_its_gate(git, project, "a") as merging:
        git("reset", "-q", "--hard", "main", cwd=path)
        commit(path, {"b.txt": "second\n"}, "another thing")
        queue(khlone, project, "add", "a")
        ended = merging.end()

    assert ended == (1, [], [("a", "not-queued")])
    assert "a.txt" not in git("ls-tree", "--name-only", "main", cwd=project).split()
    assert shown(git, project, "b.txt") == "second\n"


def test_the_same_commit_in_line_once_more_keeps_its_place_and_both_learn_that_it_landed(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})

    with in_its_gate(git, project, "a", "b") as merging:
        again = queue(khlone, project, "add", "a")["entries"]
        with subprocess.Popen(
            [KHLONE, "merge", "--all-ready", "--json"],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stderr is not None
            told = other.stderr.readline()
            ended = merging.end()
            out, _ = other.communicate(timeout=TIMEOUT_S)

    assert [one["name"] for one in again] == ["a", "b"]
    assert ended == (0, ["a", "b"], [])
    assert "waiting in the queue of main" in told
    assert (other.returncode, landed(json.loads(out))) == (0, ["a", "b"])
    assert [one["state"] for one in queue(khlone, project, "log")["entries"]] == ["landed", "landed"]


def test_another_way_or_priority_is_another_request(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queue(khlone, project, "add", "a")

    for options in (["--squash"], ["--squash", "--priority", "3"], ["--squash", "--priority", "3", "--remove"]):
        before = queue(khlone, project)["entries"]
        [after] = queue(khlone, project, "add", "a", *options)["entries"]
        assert after["id"] != before[0]["id"]

    assert (after["strategy"], after["priority"]) == ("squash", 3)
    assert len(pins(git, project)) == 1


def test_what_is_landing_at_this_moment_is_not_taken_out(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    merging = Stopping(project, "queue.publishing", "a")
    assert merging.wait()

    refused = document(khlone("queue", "remove", "a", "--json", cwd=project), "error", 75)
    commit(path, {"later.txt": "later\n"}, "later")
    queue(khlone, project, "add", "a")
    merging.go_on()
    done = merging.end()

    assert refused["code"] == "entry-landing"
    assert (done.code, landed(done.json())) == (0, ["a"])
    # The driver has gone on with what came behind it.
    assert shown(git, project, "later.txt") == "later\n"
    assert waiting(khlone, project) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_merge_that_is_ended_takes_its_entries_out_of_the_queue(
    khlone: Khlone, git: Git, commit: Commit, project: Path, number: signal.Signals
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    with in_its_gate(git, project, "a") as merging:
        merging.process.send_signal(number)
        merging.process.communicate(timeout=TIMEOUT_S)

    assert merging.process.returncode == 128 + number
    assert (waiting(khlone, project), pins(git, project)) == ([], [])


def test_what_others_put_in_line_stays_there_when_a_merge_of_it_is_interrupted(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queue(khlone, project, "add", "a")

    with in_its_gate(git, project, "a") as merging:
        merging.process.send_signal(signal.SIGINT)
        merging.process.communicate(timeout=TIMEOUT_S)

    assert waiting(khlone, project) == ["a"]


def test_waiting_for_what_nobody_lands_lands_it(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    runs = gated(git, project, "test ! -e b.txt")
    merge(khlone, project, "a", "b", "--detach")

    done = khlone("queue", "wait", "a", "--json", cwd=project)
    both = queue(khlone, project, "wait", "a", "b", code=5)["entries"]

    assert [one["state"] for one in document(done, "queue")["entries"]] == ["landed"]
    assert {one["name"]: one["state"] for one in both} == {"a": "landed", "b": "held"}
    assert oid(git, project, "main") in seen(runs)


def test_waiting_while_a_queue_rests_says_so_and_goes_on_with_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queue(khlone, project, "pause")
    queue(khlone, project, "add", "a")

    with subprocess.Popen([KHLONE, "queue", "wait"], cwd=project, stderr=subprocess.PIPE, text=True) as waiter:
        assert waiter.stderr is not None
        told = waiter.stderr.readline()
        queue(khlone, project, "resume")
        waiter.communicate(timeout=TIMEOUT_S)

    assert "queue resume" in told
    assert waiter.returncode == 0
    assert shown(git, project, "a.txt") == "a\n"


def test_the_list_is_in_the_order_in_which_it_lands(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "bad\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    gated(git, project, "! grep bad *.txt")
    merge(khlone, project, "a", code=5)
    commit(path, {"a.txt": "good\n"}, "mended")

    queue(khlone, project, "add", "a")
    told = queue(khlone, project, "add", "b", "--after", "a")["entries"]
    queue(khlone, project, "run")

    assert [one["name"] for one in told] == ["a", "b"]
    subjects = git("log", "--first-parent", "--format=%s", "-2", "main", cwd=project).splitlines()
    assert subjects == ["Merge branch 'b'", "Merge branch 'a'"]


def test_a_clone_that_was_renamed_in_line_is_taken_out_by_either_name(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    queue(khlone, project, "add", "a", "b")
    khlone("rename", "a", "now-a", cwd=project)
    khlone("rename", "b", "now-b", cwd=project)

    queue(khlone, project, "remove", "now-a", "b")

    assert waiting(khlone, project) == []


def test_an_approval_that_is_taken_back_while_the_gate_runs_counts(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    git("config", "khlone.merge.approval", "true", cwd=project)
    assert khlone("approve", "a", "b", cwd=project).code == 0

    with in_its_gate(git, project, "a", "b") as merging:
        assert khlone("approve", "a", "--withdraw", cwd=project).code == 0
        ended = merging.end()

    assert ended == (77, ["b"], [("a", "not-approved")])
    assert "a.txt" not in git("ls-tree", "--name-only", "main", cwd=project).split()
