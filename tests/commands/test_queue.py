"""The merge queue: what waits, what gates say of it, who is blamed, what lands."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands.merging import Stopping, held, landed, merge, oid, parents, release_main, shown, worked
from tests.commands.steps import document, show
from tests.faults.lab import wait_until
from tests.support import KHLONE, TIMEOUT_S, Commit, Git, Khlone, write

#: Fails where both files of a pair are there.
PAIRS = "for pair in ${PAIRS:-a:b}; do [ ! -e ${pair%:*}.txt ] || [ ! -e ${pair#*:}.txt ] || exit 7; done"


def queue(khlone: Khlone, where: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The document of a `queue` that ended with `code`."""
    return document(khlone("queue", *arguments, "--json", cwd=where), "queue", code)


def waiting(khlone: Khlone, where: Path) -> list[str]:
    """The names of what waits, in order."""
    return [entry["name"] for entry in queue(khlone, where)["entries"]]


def pins(git: Git, where: Path) -> list[str]:
    """The commits that the queue keeps from collection."""
    return git("for-each-ref", "--format=%(objectname)", "refs/khlone/queue", cwd=where).split()


def gated(git: Git, where: Path, command: str, **options: str) -> Path:
    """Set one gate, which notes each of its runs in a file; returns that."""
    runs = where.parent / "runs"
    git("config", "khlone.gate.test", f"git rev-parse HEAD >>{runs}; {command}", cwd=where)
    for name, value in options.items():
        git("config", f"khlone.gate.test.{name}", value, cwd=where)
    return runs


def seen(runs: Path) -> list[str]:
    """The commits that the gate has looked at."""
    return runs.read_text().split() if runs.exists() else []


def test_a_gate_command_sees_exactly_the_commit_that_lands(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, 'test -e a.txt -a -z "$KHLONE_NAME" && test $KHLONE_CANDIDATE = $(git rev-parse HEAD)')

    found = merge(khlone, project, "a")

    assert (landed(found), found["gated"]) == (["a"], True)
    assert seen(runs) == [oid(git, project, "main")]
    assert show(khlone, project, "a")["state"] == "merged"


def test_a_gate_that_fails_holds_the_clone_and_says_what_it_printed(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "echo two failed; exit 3")
    before = oid(git, project, "main")

    found = merge(khlone, project, "a", code=5)

    assert held(found) == [("a", "gate-failed")]
    assert "exit 3:\n  two failed" in found["held"][0]["message"]
    assert oid(git, project, "main") == before
    assert show(khlone, project, "a")["state"] == "ready"
    assert pins(git, project) == []


@pytest.mark.parametrize(
    ("command", "options", "code", "said"),
    [
        ("exit 1", {"needed": "false"}, 0, "advisory gate 'test' refused a"),
        ("exit 1", {"paths": "docs/** *.md"}, 0, ""),
        ("exit 1", {"paths": "docs/** *.txt"}, 5, ""),
        ("sleep 1000", {"timeout": "0.5"}, 5, "longer than"),
        ("test $(wc -l <../../runs) -gt 1", {"retries": "1"}, 0, "gate 'test' is flaky"),
        ("kill -9 $$", {}, 5, "signal 9"),
        ("echo dirt >notes.txt; touch new", {}, 0, "git does not ignore: notes.txt, new"),
    ],
)
def test_what_a_gate_may_be_told(
    khlone: Khlone,
    git: Git,
    commit: Commit,
    project: Path,
    command: str,
    options: Mapping[str, str],
    code: int,
    said: str,
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, command.replace("../../runs", str(project.parent / "runs")), **options)

    done = khlone("merge", "a", cwd=project)

    assert done.code == code, done
    assert said in done.err
    assert bool(seen(runs)) is (options.get("paths") != "docs/** *.md")


@pytest.mark.parametrize(
    ("command", "options", "code", "said"),
    [
        ("echo dirt >notes.txt", {}, 0, "gate 'test' changes files that git does not ignore: notes.txt"),
        ("echo dirt >notes.txt; exit 1", {}, 5, "gate 'test' changes files that git does not ignore: notes.txt"),
        ("test $(wc -l <../../runs) -gt 1", {"retries": "1"}, 0, "gate 'test' is flaky"),
        ("exit 1", {"needed": "false"}, 0, "advisory gate 'test' refused a"),
    ],
)
@pytest.mark.parametrize("mode", ["batch", "speculative"])
def test_what_a_gate_is_worth_telling_of_is_in_the_result_and_in_the_log(
    khlone: Khlone,
    git: Git,
    commit: Commit,
    project: Path,
    mode: str,
    command: str,
    options: Mapping[str, str],
    code: int,
    said: str,
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.merge.mode", mode, cwd=project)
    gated(git, project, command.replace("../../runs", str(project.parent / "runs")), **options)

    found = merge(khlone, project, "a", code=code)

    (note,) = found["notes"]
    assert said in note
    assert queue(khlone, project, "log")["entries"][0]["notes"] == [note]
    assert note in khlone("queue", "log", cwd=project).out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("khlone.gate.test.timeout", "soon"),
        ("khlone.gate.test.needed", "perhaps"),
        ("khlone.gate.test.color", "red"),
        ("khlone.gate.te st", "make"),
        ("khlone.gate.other.paths", "src"),
    ],
)
def test_a_gate_that_cannot_be_understood_stops_the_merge(
    khlone: Khlone, git: Git, commit: Commit, project: Path, key: str, value: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "--file", str(project / ".git/config"), "khlone.gate.test", "true", cwd=project)
    subprocess.run(["git", "config", key.replace(" ", "_s!"), value], cwd=project, check=False)
    if "te st" in key:
        git("config", "khlone.gate.-x.command", "true", cwd=project)

    done = khlone("merge", "a", "--json", cwd=project)

    assert json.loads(done.out)["code"] == "invalid-setting"


def test_a_gate_of_the_repository_runs_only_when_it_was_approved(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = project.parent / "runs"
    write(project, {".khlone.toml": f'[gate]\ntest = "git rev-parse HEAD >>{runs}"\n'})

    refused = khlone("merge", "a", "--json", cwd=project)
    trusted = khlone("trust", "--yes", cwd=project)
    found = merge(khlone, project, "a")

    assert (refused.code, json.loads(refused.out)["code"]) == (77, "not-trusted")
    assert "gate" in trusted.out
    assert "git rev-parse HEAD" in trusted.out
    assert (landed(found), found["gated"]) == (["a"], True)
    assert len(seen(runs)) == 1


def test_what_a_gate_builds_is_there_for_the_next_one(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in ("a", "b"):
        worked(khlone, commit, project, name, {f"{name}.txt": name, ".gitignore": "build\n"})
    gated(
        git,
        project,
        "test ! -e left; touch left; mkdir -p build; touch build/$KHLONE_CANDIDATE",
    )

    first, second = merge(khlone, project, "a"), merge(khlone, project, "b", code=0)

    assert (landed(first), landed(second)) == (["a"], ["b"])
    places = [line for line in git("worktree", "list", cwd=project).splitlines() if "scratch" in line]
    assert len(places) == 1
    assert len(os.listdir(Path(places[0].split()[0]) / "build")) == 2


def test_a_tree_that_a_gate_has_passed_is_not_shown_to_it_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "true")
    merge(khlone, project, "a")
    git("reset", "-q", "--hard", "HEAD^", cwd=project)

    found = merge(khlone, project, "a")

    assert (landed(found), found["gated"]) == (["a"], True)
    assert len(seen(runs)) == 1


def test_those_that_fail_only_together_are_held_with_their_partners_and_the_rest_lands(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "abcd":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    runs = gated(git, project, PAIRS)
    write(project, {"notes.txt": "my own edit\n"})

    found = merge(khlone, project, *"abcd", code=5)

    assert landed(found) == ["c", "d"]
    assert {one["name"]: (one["code"], one["partners"]) for one in found["held"]} == {
        "a": ("gate-failed", ["b"]),
        "b": ("gate-failed", ["a"]),
    }
    assert oid(git, project, "main") in seen(runs)
    assert len(seen(runs)) == 5
    assert (project / "notes.txt").read_text() == "my own edit\n"


def test_by_a_setting_the_first_of_those_lands(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    gated(git, project, PAIRS)
    git("config", "khlone.merge.firstLands", "true", cwd=project)

    found = merge(khlone, project, *"abc", code=5)

    assert landed(found) == ["a", "c"]
    assert [(one["name"], one["partners"]) for one in found["held"]] == [("b", ["a"])]


def test_one_that_fails_alone_is_blamed_alone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    gated(git, project, "test ! -e b.txt")

    found = merge(khlone, project, *"abc", code=5)

    assert landed(found) == ["a", "c"]
    assert [(one["name"], one["partners"]) for one in found["held"]] == [("b", [])]


def test_one_that_conflicts_with_another_in_the_queue_names_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "by a\n"})
    worked(khlone, commit, project, "b", {"notes.txt": "by b\n"})
    worked(khlone, commit, project, "c", {"c.txt": "c\n"})
    gated(git, project, "true")

    found = merge(khlone, project, *"abc", code=4)

    assert landed(found) == ["a", "c"]
    assert [(one["name"], one["code"], one["paths"], one["partners"]) for one in found["held"]] == [
        ("b", "conflict", ["notes.txt"], ["a"])
    ]


def test_what_is_queued_is_pinned_whatever_becomes_of_the_clone(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queued = oid(git, path, "HEAD")
    queue(khlone, project, "add", "a")
    commit(path, {"later.txt": "later\n"}, "later")
    assert khlone("remove", "a", "--force", cwd=project).code == 0
    git("reflog", "expire", "--expire=now", "--all", cwd=project)
    git("gc", "-q", "--prune=now", cwd=project)

    found = queue(khlone, project, "run")

    assert [(one["source"], one["state"]) for one in found["entries"]] == [(queued, "landed")]
    assert parents(git, project, "main")[1] == queued
    assert git("ls-tree", "--name-only", "main", "later.txt", cwd=project) == ""
    assert queue(khlone, project, "log")["entries"][0]["state"] == "landed"
    assert pins(git, project) == []


def test_a_newer_entry_of_a_clone_takes_the_place_of_the_older(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    queue(khlone, project, "add", "a")
    commit(path, {"later.txt": "later\n"}, "later")

    queue(khlone, project, "add", "a")

    assert waiting(khlone, project) == ["a"]
    assert pins(git, project) == [oid(git, path, "HEAD")]
    queue(khlone, project, "run")
    assert shown(git, project, "later.txt") == "later\n"


def test_priority_and_after_decide_the_order(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "abcd":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    queue(khlone, project, "add", "a", "--after", "d")
    queue(khlone, project, "add", "b")
    queue(khlone, project, "add", "c", "--priority", "5")
    queue(khlone, project, "add", "d")

    assert waiting(khlone, project) == ["c", "b", "d", "a"]
    queue(khlone, project, "run")

    subjects = git("log", "--format=%s", "--first-parent", "--reverse", "-4", "main", cwd=project).splitlines()
    assert subjects == [f"Merge branch '{name}'" for name in ("c", "b", "d", "a")]


def test_a_queue_that_rests_lands_nothing_until_it_goes_on(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    queue(khlone, project, "pause", "--into", "main")

    found = merge(khlone, project, "a", code=75)
    ran = khlone("queue", "run", "--json", cwd=project)

    assert (landed(found), held(found)) == ([], [("a", "queue-paused")])
    assert document(ran, "error", 75)["code"] == "queue-paused"
    assert waiting(khlone, project) == ["a"]
    assert queue(khlone, project)["paused"] == ["main"]
    queue(khlone, project, "resume")
    queue(khlone, project, "run")
    assert shown(git, project, "a.txt") == "a\n"


def test_what_is_taken_out_does_not_land(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    queue(khlone, project, "add", "a", "b")

    gone = queue(khlone, project, "remove", "a")
    unknown = khlone("queue", "remove", "nobody", "--json", cwd=project)

    assert [entry["name"] for entry in gone["entries"]] == ["a"]
    assert (unknown.code, json.loads(unknown.out)["code"]) == (1, "no-such-entry")
    queue(khlone, project, "run")
    assert git("ls-tree", "--name-only", "main", "a.txt", "b.txt", cwd=project) == "b.txt\n"


def test_local_work_in_the_checkout_holds_only_those_that_meet_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "by a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    gated(git, project, "true")
    write(project, {"notes.txt": "my own edit\n"})

    found = merge(khlone, project, "a", "b", code=1)

    assert (landed(found), held(found)) == (["b"], [("a", "target-dirty")])
    assert git("status", "--porcelain", cwd=project) == " M notes.txt\n"


def test_a_target_that_moves_while_a_gate_runs_is_tested_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    release_main(git, project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    once = project.parent / "moved"
    theirs = "$(git commit-tree -p main -m theirs main^{tree})"
    runs = gated(git, project, f"[ -e {once} ] || {{ touch {once}; git update-ref refs/heads/main {theirs}; }}")

    found = merge(khlone, project, "a")

    assert landed(found) == ["a"]
    assert git("log", "--format=%s", "--first-parent", "-2", "main", cwd=project) == "Merge branch 'a'\ntheirs\n"
    assert oid(git, project, "main") in seen(runs) or len(seen(runs)) == 1


def test_two_drivers_at_once_land_each_entry_once(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    names = [f"c{number}" for number in range(6)]
    for name in names:
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    runs = gated(git, project, "sleep 0.2")
    results: dict[str, dict[str, Any]] = {}

    def bring(name: str) -> None:
        results[name] = merge(khlone, project, name)

    threads = [threading.Thread(target=bring, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    subjects = git("log", "--format=%s", "--first-parent", "main", cwd=project).splitlines()
    assert all(landed(results[name]) == [name] for name in names)
    assert sorted(subjects[:6]) == sorted(f"Merge branch '{name}'" for name in names)
    assert oid(git, project, "main") in seen(runs)


def test_an_interrupted_merge_takes_its_entries_out_of_the_queue(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "sleep 1000")
    with subprocess.Popen([KHLONE, "merge", "a"], cwd=project, stderr=subprocess.PIPE) as child:
        wait_until(lambda: bool(seen(runs)))

        child.send_signal(signal.SIGINT)
        child.communicate(timeout=TIMEOUT_S)

    assert child.returncode in (130, -signal.SIGINT)
    assert waiting(khlone, project) == []
    assert pins(git, project) == []
    git("config", "khlone.gate.test", "true", cwd=project)
    assert landed(merge(khlone, project, "a")) == ["a"]


def test_a_driver_that_is_killed_is_followed_by_the_next(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    runs = gated(git, project, f"[ -e {project}.again ] || {{ touch {project}.again; sleep 1000; }}")
    queue(khlone, project, "add", "a", "b")
    with subprocess.Popen([KHLONE, "queue", "run"], cwd=project, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: bool(seen(runs)))

        child.kill()

    found = merge(khlone, project, "c")
    subjects = git("log", "--format=%s", "--first-parent", "-3", "main", cwd=project).splitlines()
    assert landed(found) == ["c"]
    assert sorted(subjects) == [f"Merge branch '{name}'" for name in "abc"]
    assert waiting(khlone, project) == []


def test_the_last_landing_can_be_taken_back(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    before = oid(git, project, "main")
    merge(khlone, project, "a")

    done = khlone("undo", cwd=project)

    assert done.code == 0, done
    assert oid(git, project, "main") == before
    assert not (project / "a.txt").exists()


def test_events_tell_every_step(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    gated(git, project, PAIRS)
    merge(khlone, project, "a", "b", code=5)

    found = document(khlone("events", "--json", cwd=project), "events", 0)["events"]

    told = [(event["event"], event.get("clone") or tuple(event.get("clones") or ())) for event in found]
    assert told[:4] == [("queued", "a"), ("queued", "b"), ("testing", ("a", "b")), ("failed", ("a", "b"))]
    assert set(told[-2:]) == {("held", "a"), ("held", "b")}
    with subprocess.Popen([KHLONE, "events", "--follow", "--json"], cwd=project, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        lines = [json.loads(following.stdout.readline()) for _ in found]
        queue(khlone, project, "pause", "--into", "main")
        assert json.loads(following.stdout.readline())["event"] == "paused"
        following.kill()
    assert lines == found


def dirty_files(git: Git, where: Path) -> dict[str, bytes]:
    """Every file of a checkout, tracked or not, byte for byte."""
    listed = git("ls-files", "-z", "--cached", "--others", cwd=where).split("\0")
    return {name: (where / name).read_bytes() for name in listed if name}


def test_thirty_clones_land_but_for_those_that_cannot(
    khlone: Khlone, git: Git, commit: Commit, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"c{number:02}" for number in range(30)]
    pairs, clashing = [("c03", "c11"), ("c20", "c21")], [f"c{number:02}" for number in (5, 9, 14, 18, 25, 28)]
    khlone("new", "c", "-n", "30", cwd=project)
    for number, name in enumerate(names, start=1):
        path = Path(show(khlone, project, f"c-{number}")["path"])
        text = {"notes.txt": f"by {name}\n"} if name in clashing or name == "c00" else {}
        commit(path, {f"{name}.txt": name, **text}, f"work of {name}")
    monkeypatch.setenv("PAIRS", " ".join(f"{one}:{other}" for one, other in pairs))
    gated(git, project, PAIRS)
    write(project, {"docs/guide.md": "my own edit\n", "mine.txt": "untracked\n"})
    before, status = dirty_files(git, project), git("status", "--porcelain", cwd=project)
    random.Random(7).shuffle(names)
    order = ["c00", *(name for name in names if name != "c00")]

    found = merge(khlone, project, *(f"c-{int(name[1:]) + 1}" for name in order), code=5)

    by_name = {f"c-{number + 1}": f"c{number:02}" for number in range(30)}
    blamed = {by_name[one["name"]]: (one["code"], [by_name[p] for p in one["partners"]]) for one in found["held"]}
    expected = {name: ("conflict", ["c00"]) for name in clashing}
    for one, other in pairs:
        expected |= {one: ("gate-failed", [other]), other: ("gate-failed", [one])}
    assert blamed == expected
    assert {by_name[name] for name in landed(found)} == set(names) - set(expected)
    tips = git("rev-list", "--first-parent", "--reverse", f"{found['old']}..main", cwd=project).split()
    assert len(tips) == 20
    # A serial order gives this very history: each step is the merge of one clone's commit into the step before it.
    sources = {oid(git, project, name): by_name[name] for name in by_name}
    steps = [found["old"], *tips]
    for last, tip in itertools.pairwise(steps):
        first, second = parents(git, project, tip)
        assert (first, sources.pop(second) in expected) == (last, False)
        tree = git("merge-tree", "--write-tree", first, second, cwd=project).strip()
        assert tree == oid(git, project, f"{tip}^{{tree}}")
    assert set(sources.values()) == set(expected)
    check = project.parent / "check"
    git("worktree", "add", "-q", "--detach", str(check), cwd=project)
    for tip in tips:
        git("checkout", "-q", tip, cwd=check)
        assert subprocess.run(["sh", "-c", PAIRS], cwd=check, check=False).returncode == 0
    assert (project / "docs/guide.md").read_text() == "my own edit\n"
    changed = {f"{name}.txt" for name in names if name not in expected} | {"notes.txt"}
    after = dirty_files(git, project)
    assert {name: after[name] for name in after if name not in changed} == {
        name: before[name] for name in before if name not in changed
    }
    assert git("status", "--porcelain", cwd=project) == status


def test_all_that_is_ready_lands_and_nothing_else(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    khlone("new", "idle", cwd=project)

    found, again = merge(khlone, project, "--all-ready"), merge(khlone, project, "--all-ready")

    assert (landed(found), found["held"]) == (["a", "b"], [])
    assert (again["landed"], again["held"]) == ([], [])


def test_detached_a_merge_only_queues(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = oid(git, project, "main")

    found = merge(khlone, project, "a", "--detach")

    assert (found["landed"], oid(git, project, "main")) == ([], before)
    assert waiting(khlone, project) == ["a"]


def test_nothing_to_merge_is_no_failure_in_the_queue_either(khlone: Khlone, git: Git, project: Path) -> None:
    khlone("new", "a", cwd=project)
    gated(git, project, "true")

    found = merge(khlone, project, "a")

    assert held(found) == [("a", "nothing-to-merge")]


def test_a_run_of_the_queue_tells_how_each_ended_and_what_the_gate_printed_in_lines_of_its_own(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    gated(git, project, "test ! -e b.txt || { echo two failed; echo of nine; exit 3; }")
    queue(khlone, project, "add", "a", "b")

    done = khlone("queue", "run", cwd=project)

    told = done.out.split("\n")
    assert done.code == 5
    assert any(line.startswith("a -> main ") and " landed as " in line for line in told), done.out
    at = next(number for number, line in enumerate(told) if "gate 'test' refused b: it ended with exit 3:" in line)
    assert told[at + 1 : at + 3] == ["  two failed", "  of nine"]


@pytest.mark.parametrize("mode", ["batch", "serial", "speculative"])
def test_what_a_gate_looks_at_outlives_a_collection_meanwhile(
    khlone: Khlone, git: Git, commit: Commit, project: Path, mode: str
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    git("config", "khlone.merge.mode", mode, cwd=project)
    # The gate leaves the commit alone, so that nothing but khlone's own ref keeps it.
    away = "git checkout -q --detach main && git reflog expire --expire=now --all && git -C " + str(project)
    kept = 'git cat-file -e $KHLONE_CANDIDATE && test -n "$(git for-each-ref refs/khlone/candidates)"'
    gated(git, project, f"{away} prune --expire=now && {kept}")

    found = merge(khlone, project, "a", "b")

    assert (landed(found), found["gated"]) == (["a", "b"], True)
    assert git("for-each-ref", "refs/khlone/candidates", cwd=project) == ""
    assert git("fsck", "--connectivity-only", "--no-dangling", cwd=project) == ""


def test_a_candidate_that_was_collected_before_it_was_pinned_is_made_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    merging = Stopping(project, "queue.built", "a")
    assert merging.wait()
    git("gc", "-q", "--prune=now", cwd=project)

    merging.go_on()
    done = merging.end()

    assert done.code == 0, done
    assert shown(git, project, "a.txt") == "a\n"


def test_one_that_was_held_waits_behind_those_that_were_not_until_it_has_landed(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    paths = {name: worked(khlone, commit, project, name, {f"{name}.txt": name}) for name in "ab"}
    gated(git, project, "test ! -e a.txt -o -e mended.txt")
    merge(khlone, project, "a", code=5)
    commit(paths["a"], {"mended.txt": "mended\n"}, "mended")

    queue(khlone, project, "add", "a")
    queue(khlone, project, "add", "b")

    assert waiting(khlone, project) == ["b", "a"]
    queue(khlone, project, "run")
    for name in "ab":
        commit(paths[name], {f"{name}2.txt": name}, "more")
    queue(khlone, project, "add", "a")
    queue(khlone, project, "add", "b")
    assert waiting(khlone, project) == ["a", "b"]


# -- what a killed driver leaves ---------------------------------------------------------------


def is_over(pid: int) -> bool:
    """Whether a process has ended, waited for by whoever has it now or not yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_gate_of_a_killed_driver_is_ended_before_the_next_one_begins(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("good", "bad"):
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    # What it leaves running would make the next candidate pass: it sees the same folder.
    begun = project.parent / "begun"
    git("config", "khlone.gate.test", f"echo $$ >{begun}; sleep 1000; touch ok", cwd=project)
    driver = subprocess.Popen([KHLONE, "merge", "good"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    driver.kill()
    driver.communicate()
    left = int(begun.read_text())
    assert not is_over(left)
    git("config", "khlone.gate.test", "test -f ok", cwd=project)

    found = merge(khlone, project, "bad", code=5)

    assert landed(found) == []
    assert is_over(left)


def test_a_driver_that_has_lost_its_seat_holds_nobody_and_lands_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    gated(git, project, "true")
    lost = Stopping(project, "queue.built", "a")
    assert lost.wait()
    # As on a file system whose locks are none: another one drives while it sleeps.
    (lock,) = (project / ".git/khlone/locks").glob("clone-queue-*.lock")
    lock.unlink()
    assert khlone("queue", "run", cwd=project).code == 0
    after = oid(git, project, "main")

    lost.go_on()
    done = lost.end()

    assert document(done, "merge" if done.code == 0 else "error", done.code)
    assert oid(git, project, "main") == after
    assert [one["state"] for one in queue(khlone, project, "log")["entries"]] == ["landed"]
    subjects = git("log", "--format=%s", "--first-parent", "main", cwd=project).splitlines()
    assert subjects.count("Merge branch 'a'") == 1


def test_the_doctor_ends_it_too(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "good", {"good.txt": "good"})
    begun = project.parent / "begun"
    git("config", "khlone.gate.test", f"echo $$ >{begun}; sleep 1000", cwd=project)
    driver = subprocess.Popen([KHLONE, "merge", "good"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: begun.exists() and begun.read_text().endswith("\n"))
    driver.kill()
    driver.communicate()

    khlone("doctor", "--fix", cwd=project)

    assert is_over(int(begun.read_text()))


# -- as scripts ask ----------------------------------------------------------------------------


def test_run_and_wait_tell_what_was_held(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    gated(git, project, "test ! -e b.txt")
    queue(khlone, project, "add", "a", "b")

    ran = queue(khlone, project, "run", code=5)
    waited = queue(khlone, project, "wait", "b", code=5)

    assert [(one["name"], one["state"]) for one in ran["entries"]] == [("a", "landed"), ("b", "held")]
    assert [(one["name"], one["code"]) for one in waited["entries"]] == [("b", "gate-failed")]
    assert queue(khlone, project, "wait", "a")["entries"][0]["state"] == "landed"


@pytest.mark.parametrize(
    ("words", "code"),
    [(("wait", "nobody"), "no-such-entry"), (("add", "a", "--after", "nobody"), "no-such-clone")],
)
def test_names_that_nobody_has_are_refused(
    khlone: Khlone, commit: Commit, project: Path, words: tuple[str, ...], code: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a"})

    done = khlone("queue", *words, "--json", cwd=project)

    assert document(done, "error", 1)["code"] == code
    assert waiting(khlone, project) == []
