"""What lands is pushed first, or does not land: other pushers, hooks that refuse, remotes that do not answer, kills."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.merging import called, held, landed, merge, oid, release_main, shown, worked
from tests.commands.steps import document, new, refused, show
from tests.commands.test_queue import PAIRS, gated, pins, queue, seen, waiting
from tests.support import KHLONE, Commit, Git, Khlone, write


@pytest.fixture
def remote(git: Git, project: Path, tmp_path: Path) -> Path:
    """The bare repository that main of the project follows."""
    path = tmp_path / "origin.git"
    git("init", "-q", "--bare", "-b", "main", str(path), cwd=tmp_path)
    git("remote", "add", "origin", str(path), cwd=project)
    git("push", "-q", "-u", "origin", "main", cwd=project)
    return path


@pytest.fixture
def theirs(git: Git, commit: Commit, remote: Path, tmp_path: Path) -> Callable[[str], str]:
    """Somebody else pushes a commit with one file to main."""
    folder = tmp_path / "theirs"
    git("clone", "-q", str(remote), str(folder), cwd=tmp_path)

    def add(name: str) -> str:
        git("pull", "-q", "--ff-only", cwd=folder)
        made = commit(folder, {name: "theirs\n"}, f"theirs {name}")
        git("push", "-q", "origin", "main", cwd=folder)
        return made

    return add


def hook(remote: Path, name: str, script: str) -> None:
    """Give the remote a hook."""
    path = remote / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("by", ["option", "setting"])
@pytest.mark.parametrize("gate", [True, False])
def test_what_lands_is_on_the_remote_too(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, by: str, gate: bool
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    if gate:
        gated(git, project, "true")
    if by == "setting":
        git("config", "khlone.merge.push", "true", cwd=project)

    found = merge(khlone, project, "a", "b", *(["--push"] if by == "option" else []))

    assert (landed(found), found["gated"], found["pushed"]) == (["a", "b"], gate, "origin/main")
    assert oid(git, remote, "main") == oid(git, project, "main") == oid(git, project, "origin/main") == found["new"]
    assert git("status", "--porcelain", "-uno", cwd=project) == ""


def test_nothing_is_pushed_unless_it_is_wanted(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    for name in "abc":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    before = oid(git, remote, "main")

    plain = merge(khlone, project, "a")
    git("config", "khlone.merge.push", "true", cwd=project)
    without, dry = merge(khlone, project, "b", "--no-push"), merge(khlone, project, "c", "--dry-run")

    assert (plain["pushed"], without["pushed"], dry["pushed"]) == (None, None, None)
    assert oid(git, remote, "main") == before != oid(git, project, "main")


def test_an_entry_keeps_whether_it_is_to_be_pushed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    queue(khlone, project, "add", "a", "--push")
    queue(khlone, project, "add", "b")

    assert [(one["name"], one["push"]) for one in queue(khlone, project)["entries"]] == [("a", True), ("b", False)]
    told = khlone("queue", "run", cwd=project).out

    assert ", pushed\n" in told
    assert git("log", "--format=%s", "--first-parent", "origin/main..main", cwd=project) == "Merge branch 'b'\n"
    assert oid(git, remote, "main") == oid(git, project, "main^")


def test_a_target_that_is_behind_its_upstream_gets_that_first(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, theirs: Callable[[str], str]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "test -e theirs.txt")
    made = theirs("theirs.txt")

    found = merge(khlone, project, "a", "--push")

    assert landed(found) == ["a"]
    assert oid(git, project, "main^1") == made
    assert oid(git, remote, "main") == oid(git, project, "main") == seen(runs)[-1]
    assert (project / "theirs.txt").read_text() == "theirs\n"


@pytest.mark.parametrize("mode", ["batch", "speculative"])
def test_a_push_that_somebody_else_was_faster_than_is_computed_and_tested_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, tmp_path: Path, mode: str
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    git("config", "khlone.merge.mode", mode, cwd=project)
    # Somebody else is there in the moment before the first push reaches the remote.
    rival = tmp_path / "rival"
    git("clone", "-q", str(remote), str(rival), cwd=tmp_path)
    made = commit(rival, {"theirs.txt": "theirs\n"}, "theirs")
    once = tmp_path / "once"
    before = f"[ -e {once} ] || {{ touch {once}; git -C {rival} push -q origin main; }}"
    hook(project / ".git", "pre-push", f"unset $(git rev-parse --local-env-vars); {before}")
    runs = gated(git, project, "true")

    found = merge(khlone, project, "a", "b", "--push")

    assert landed(found) == ["a", "b"]
    assert git("log", "--format=%s", "--first-parent", "-3", "main", cwd=project).splitlines() == [
        "Merge branch 'b'",
        "Merge branch 'a'",
        "theirs",
    ]
    assert oid(git, project, "main~2") == made
    assert oid(git, remote, "main") == oid(git, project, "main")
    assert oid(git, project, "main") in seen(runs)
    told = [event["event"] for event in document(khlone("events", "--json", cwd=project), "events")["events"]]
    assert told.count("push-lost") == 1


def test_a_remote_that_refuses_holds_with_its_reason_and_nothing_has_landed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    hook(remote, "pre-receive", "echo 'no landings on a Friday' >&2; exit 1")
    before = oid(git, project, "main")

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "push-rejected")]
    assert "no landings on a Friday" in found["held"][0]["message"]
    assert "khlone: held: a: origin/main is not pushed to origin: " in khlone("merge", "a", "--push", cwd=project).err
    assert oid(git, project, "main") == oid(git, remote, "main") == before
    assert not (project / "a.txt").exists()
    assert (pins(git, project), found["pushed"]) == ([], None)
    hook(remote, "pre-receive", "exit 0")
    assert landed(merge(khlone, project, "a", "--push")) == ["a"]


def test_the_hook_pre_push_may_refuse(khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    hook(project / ".git", "pre-push", "echo not so fast >&2; exit 1")
    before = oid(git, project, "main")

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "push-rejected")]
    assert "not so fast" in found["held"][0]["message"]
    assert oid(git, project, "main") == oid(git, remote, "main") == before


def test_a_remote_that_is_not_there_holds_before_any_gate_runs(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "true")
    before = oid(git, project, "main")
    remote.rename(remote.with_name("away.git"))

    done = khlone("merge", "a", "--push", cwd=project)

    assert done.code == 1
    assert "khlone: held: a: remote origin: " in done.err
    assert "Traceback" not in done.err
    assert (oid(git, project, "main"), seen(runs)) == (before, [])


def test_a_remote_that_gives_no_answer_is_waited_for_within_the_bound(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.network.timeout", "1", cwd=project)
    git("config", "remote.origin.uploadpack", "sleep 1000; git-upload-pack", cwd=project)

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "remote-failed")]
    assert "within 1 s" in found["held"][0]["message"]


def test_a_target_that_follows_nothing_is_refused_before_anything_is_queued(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    error = refused(khlone("merge", "a", "--push", "--json", cwd=project), "no-upstream", 1)

    assert "set-upstream-to" in error["hint"]
    assert waiting(khlone, project) == []


def test_a_target_that_has_diverged_is_left_to_its_user(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, theirs: Callable[[str], str]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    theirs("theirs.txt")
    mine = commit(project, {"mine.txt": "mine\n"}, "mine")

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "target-diverged")]
    assert oid(git, project, "main") == mine
    git("fetch", "-q", cwd=project)
    git("merge", "-q", "--no-edit", "origin/main", cwd=project)
    assert landed(merge(khlone, project, "a", "--push")) == ["a"]
    assert oid(git, remote, "main") == oid(git, project, "main")


def test_a_branch_that_is_not_there_yet_is_made(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    git("branch", "next", cwd=project)
    git("config", "branch.next.remote", "origin", cwd=project)
    git("config", "branch.next.merge", "refs/heads/next", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"}, "--into", "next")

    found = merge(khlone, project, "a", "--push")

    assert (landed(found), found["pushed"]) == (["a"], "origin/next")
    assert oid(git, remote, "next") == oid(git, project, "next")


def test_a_branch_that_was_deleted_on_the_remote_is_told_in_the_first_round(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    runs = gated(git, project, "true")
    before = oid(git, project, "main")
    git("branch", "-m", "main", "trunk", cwd=remote)

    done = khlone("merge", "a", "--push", cwd=project)
    found = merge(khlone, project, "a", "--push", code=1)

    assert done.code == 1
    assert "khlone: held: a: remote origin has no branch main any more, which main follows" in done.err
    assert (held(found), seen(runs)) == ([("a", "upstream-gone")], [])
    assert oid(git, project, "main") == oid(git, remote, "trunk") == before
    git("fetch", "-q", cwd=project)
    git("branch", "-q", "--set-upstream-to=origin/trunk", "main", cwd=project)
    assert landed(merge(khlone, project, "a", "--push")) == ["a"]
    assert oid(git, remote, "trunk") == oid(git, project, "main")


def test_a_branch_that_is_deleted_while_the_gate_runs_is_told_after_one_run(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = oid(git, project, "main")
    runs = gated(git, project, f"git -C {remote} update-ref -d refs/heads/main")

    found = merge(khlone, project, "a", "--push", code=1)

    assert (held(found), len(seen(runs))) == ([("a", "upstream-gone")], 1)
    assert oid(git, project, "main") == before
    assert git("for-each-ref", cwd=remote) == ""


def test_local_work_in_the_way_holds_before_anything_is_pushed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "by a\n"})
    write(project, {"notes.txt": "my own edit\n"})
    before = oid(git, remote, "main")

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "target-dirty")]
    assert oid(git, remote, "main") == oid(git, project, "main") == before
    assert (project / "notes.txt").read_text() == "my own edit\n"


def test_a_commit_on_the_target_while_the_push_is_under_way_is_kept_and_told(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    release_main(git, project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    moved = "git update-ref refs/heads/main $(git commit-tree -p main -m mine main^{tree})"
    hook(remote, "post-receive", f"unset $(git rev-parse --local-env-vars); cd {project}; {moved}")

    found = merge(khlone, project, "a", "--push", code=1)

    assert held(found) == [("a", "target-diverged")]
    assert "is on origin/main" in found["held"][0]["message"]
    assert git("log", "-1", "--format=%s", "main", cwd=project) == "mine\n"
    assert shown(git, remote, "a.txt") == "a\n"


def test_those_that_fail_together_stay_and_the_rest_is_pushed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    for name in "abcd":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    gated(git, project, PAIRS)

    found = merge(khlone, project, *"abcd", "--push", code=5)

    assert landed(found) == ["c", "d"]
    assert oid(git, remote, "main") == oid(git, project, "main")
    assert git("ls-tree", "--name-only", "main", "a.txt", "b.txt", cwd=remote) == ""


# -- killed between there and here -------------------------------------------------------------


@pytest.mark.parametrize("point", ["queue.pushing", "queue.pushed", "queue.publishing", "queue.published"])
@pytest.mark.parametrize("known", [True, False], ids=["seen", "unseen"])
def test_a_kill_between_the_push_and_the_landing_is_finished_by_the_next(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, point: str, known: bool
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    before = oid(git, project, "main")
    assert khlone("merge", "a", "--push", cwd=project, env={"KHLONE_FAULT": point}).code == -9
    if not known:
        # As if git itself had been killed before it noted what the remote has.
        git("update-ref", "refs/remotes/origin/main", before, cwd=project)

    found = merge(khlone, project, "b", "--push")

    assert landed(found) == ["b"]
    log = {one["name"]: one["state"] for one in queue(khlone, project, "log")["entries"]}
    assert log == {"a": "landed", "b": "landed"}
    subjects = git("log", "--format=%s", "--first-parent", "-2", "main", cwd=project).splitlines()
    assert subjects == ["Merge branch 'b'", "Merge branch 'a'"]
    assert oid(git, remote, "main") == oid(git, project, "main")
    assert (pins(git, project), git("status", "--porcelain", "-uno", cwd=project)) == ([], "")


def test_what_only_the_remote_can_tell_is_left_until_it_can_be_asked(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = oid(git, project, "main")
    assert khlone("merge", "a", "--push", cwd=project, env={"KHLONE_FAULT": "queue.pushed"}).code == -9
    git("update-ref", "refs/remotes/origin/main", before, cwd=project)
    away = remote.rename(remote.with_name("away.git"))

    other = khlone("new", "b", cwd=project)
    unknown = khlone("queue", "run", "--json", cwd=project)
    still = oid(git, project, "main")
    away.rename(remote)
    queue(khlone, project, "run")

    assert other.code == 0
    assert refused(unknown, "remote-failed", 1)
    assert still == before
    assert oid(git, project, "main") == oid(git, remote, "main") != before
    assert queue(khlone, project, "log")["entries"][0]["state"] == "landed"
    assert khlone("doctor", cwd=project).code == 0


def killed_unseen(khlone: Khlone, git: Git, project: Path, *options: str, point: str = "queue.pushed") -> None:
    """A merge of `a` that is pushed and killed, of which git has noted nothing here."""
    before = oid(git, project, "main")
    assert khlone("merge", "a", "--push", *options, cwd=project, env={"KHLONE_FAULT": point}).code == -9
    git("update-ref", "refs/remotes/origin/main", before, cwd=project)


def test_what_a_killed_merge_has_pushed_is_landed_by_the_doctor_with_all_that_belongs_to_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    killed_unseen(khlone, git, project, "--remove")

    done = khlone("doctor", "--fix", cwd=project)

    assert done.code == 0
    assert "a landed on main; a is in the trash" in done.out
    assert oid(git, project, "main") == oid(git, remote, "main")
    assert shown(git, project, "a.txt") == "a\n"
    assert document(khlone("list", "--json", cwd=project), "list")["clones"] == []
    told = document(khlone("events", "--json", cwd=project), "events")["events"]
    assert [one["clone"] for one in told if one["event"] == "landed"] == ["a"]
    assert khlone("doctor", cwd=project).code == 0


@pytest.mark.parametrize("way", ["--push", "--no-push"])
def test_the_next_merge_of_a_clone_whose_merge_was_killed_says_that_it_has_landed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, way: str
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    killed_unseen(khlone, git, project)
    there = oid(git, remote, "main")

    found = merge(khlone, project, "a", "b", way)

    assert (landed(found), held(found)) == (["a", "b"], [])
    assert found["landed"][0]["oid"] == there
    assert git("rev-list", "--first-parent", "main", cwd=project).split()[1] == there
    assert oid(git, remote, "main") == (there if way == "--no-push" else oid(git, project, "main"))
    assert show(khlone, project, "a")["state"] == "merged"


@pytest.mark.parametrize("point", ["queue.landed", "queue.finished", "remove.reserved"])
def test_a_clone_that_was_to_go_when_it_had_landed_goes_though_the_merge_was_killed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, point: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    assert khlone("merge", "a", "--push", "--remove", cwd=project, env={"KHLONE_FAULT": point}).code == -9
    assert oid(git, project, "main") == oid(git, remote, "main")

    assert khlone("doctor", "--fix", cwd=project).code == 0

    assert document(khlone("list", "--json", cwd=project), "list")["clones"] == []
    told = document(khlone("events", "--json", cwd=project), "events")["events"]
    assert [one["clone"] for one in told if one["event"] == "landed"] == ["a"]
    assert khlone("doctor", cwd=project).code == 0


def test_nothing_lands_here_alone_while_a_killed_push_cannot_be_asked_after(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    for name in "ab":
        worked(khlone, commit, project, name, {f"{name}.txt": name})
    killed_unseen(khlone, git, project)
    before = oid(git, project, "main")
    away = remote.rename(remote.with_name("away.git"))

    error = refused(khlone("merge", "b", "--no-push", "--json", cwd=project), "remote-failed", 1)
    doctor = khlone("doctor", "--fix", cwd=project)
    still = oid(git, project, "main")
    away.rename(remote)

    assert "whether origin/main has a" in error["message"]
    assert "not known yet" in doctor.out
    assert (doctor.code, still) == (1, before)
    assert "will be tried again" not in doctor.out + doctor.err
    assert landed(merge(khlone, project, "b", "--no-push")) == ["b"]
    assert oid(git, project, "main^1") == oid(git, remote, "main")


def test_a_push_that_goes_on_after_its_khlone_was_killed_is_waited_for(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = oid(git, project, "main")
    begun, go = tmp_path / "begun", tmp_path / "go"
    os.mkfifo(begun)
    os.mkfifo(go)
    hook(remote, "pre-receive", f"echo here >{begun}; read word <{go}")
    pushing = subprocess.Popen(
        [KHLONE, "merge", "a", "--push"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    begun.read_text()
    pushing.kill()
    pushing.wait()

    mending = subprocess.Popen(
        [KHLONE, "doctor", "--fix"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert mending.stderr is not None
    waits = mending.stderr.readline()
    not_yet = oid(git, remote, "main") == oid(git, project, "main") == before
    go.write_text("now\n")
    out, _ = mending.communicate()

    assert "khlone: waiting for a push to origin/main whose khlone was killed (pid " in waits
    assert not_yet
    assert mending.returncode == 0
    assert "a landed on main" in out
    assert oid(git, project, "main") == oid(git, remote, "main")
    assert show(khlone, project, "a")["state"] == "merged"


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_what_is_on_the_remote_and_not_here_is_merged_and_named_and_never_landed_here_once_more(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, strategy: str
) -> None:
    release_main(git, project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    moved = "git update-ref refs/heads/main $(git commit-tree -p main -m mine main^{tree})"
    hook(remote, "post-receive", f"unset $(git rev-parse --local-env-vars); cd {project}; {moved}")
    assert held(merge(khlone, project, "a", "--push", strategy, code=1)) == [("a", "target-diverged")]
    mine = oid(git, project, "main")

    clone = show(khlone, project, "a")
    named = khlone("doctor", cwd=project)
    again = merge(khlone, project, "a", "--no-push", strategy, code=1)

    assert (clone["state"], clone["merged"]) == ("merged", True)
    assert clone["reason"] == "it has landed on origin/main, and main here lacks that"
    assert "warning: a: it has landed on origin/main, and main here lacks that (landed-upstream)" in named.out
    assert held(again) == [("a", "landed-upstream")]
    assert oid(git, project, "main") == mine
    git("checkout", "-q", "main", cwd=project)
    git("merge", "-q", "--no-edit", "origin/main", cwd=project)
    assert (show(khlone, project, "a")["state"], show(khlone, project, "a")["reason"]) == ("merged", None)
    assert "landed-upstream" not in khlone("doctor", cwd=project).out


def test_a_landing_that_is_on_the_remote_too_stays_merged_when_it_is_taken_back_here(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    old = oid(git, project, "main")
    there = merge(khlone, project, "a", "--push")["new"]
    assert khlone("undo", cwd=project).code == 0

    assert oid(git, project, "main") == old
    assert show(khlone, project, "a")["state"] == "merged"
    assert "landed-upstream" in khlone("doctor", cwd=project).out
    assert held(merge(khlone, project, "a", "--no-push", code=1)) == [("a", "landed-upstream")]
    assert held(merge(khlone, project, "a", "--push")) == [("a", "nothing-to-merge")]
    assert oid(git, project, "main") == oid(git, remote, "main") == there
    assert show(khlone, project, "a")["state"] == "merged"


@pytest.mark.parametrize("how", ["doctor", "merge"])
def test_what_others_have_brought_onto_the_target_is_named_and_recorded(
    khlone: Khlone, git: Git, commit: Commit, project: Path, how: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    idle = new(khlone, project, "idle")
    git("merge", "-q", "--no-ff", "--no-edit", "a", cwd=project)
    git("merge", "-q", "--ff-only", "main", cwd=idle)
    assert show(khlone, project, "a")["state"] == "ready"

    named = khlone("doctor", cwd=project)
    if how == "doctor":
        assert khlone("doctor", "--fix", cwd=project).code == 0
    else:
        assert held(merge(khlone, project, "a", "idle")) == [("a", "nothing-to-merge"), ("idle", "nothing-to-merge")]

    assert [line for line in named.out.splitlines() if "unrecorded-landing" in line] == [
        "info: a: main has all of a, which is not recorded as merged (unrecorded-landing)"
    ]
    assert [show(khlone, project, name)["state"] for name in ("a", "idle")] == ["merged", "ready"]
    assert "unrecorded-landing" not in khlone("doctor", cwd=project).out


def test_a_landing_that_the_target_has_lost_is_named(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a")
    git("reset", "-q", "--hard", "HEAD^", cwd=project)

    clone, named = show(khlone, project, "a"), khlone("doctor", cwd=project)

    assert (clone["merged"], clone["reason"]) == (False, "it had landed on main, which does not have it any more")
    assert "(landing-lost)" in named.out
    assert landed(merge(khlone, project, "a")) == ["a"]
    assert "landing-lost" not in khlone("doctor", cwd=project).out


def test_many_who_push_at_once_all_get_there(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path, tmp_path: Path
) -> None:
    """Two repositories with a queue each, one remote."""
    second = tmp_path / "second"
    git("clone", "-q", str(remote), str(second), cwd=tmp_path)
    names = [f"c{number}" for number in range(4)]
    for name in names:
        worked(khlone, commit, project, name, {f"{name}.txt": name})
        worked(khlone, commit, second, f"s{name}", {f"s{name}.txt": name})
    drivers = [
        subprocess.Popen(
            [KHLONE, "merge", "--push", f"{prefix}{name}"],
            cwd=where,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
        for where, prefix in ((project, ""), (second, "s"))
    ]

    ends = [driver.wait() for driver in drivers]

    subjects = git("log", "--format=%s", "--first-parent", "main", cwd=remote).splitlines()
    assert ends == [0] * len(drivers)
    wanted = [f"Merge branch '{prefix}{name}'" for name in names for prefix in ("", "s")]
    assert sorted(one for one in subjects if one.startswith("Merge")) == sorted(wanted)


def test_what_was_told_of_a_landing_is_found_however_much_was_told_since(
    khlone: Khlone, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    killed = khlone("merge", "a", "--push", "--remove", cwd=project, env={"KHLONE_FAULT": "remove.reserved"})
    log = project / ".git" / "khlone" / "events.jsonl"
    log.rename(log.with_name("events.jsonl.old"))
    log.write_text('{"at": "2026-01-01T00:00:00Z", "event": "landed", "entry": "another", "clone": "b"}\n' * 5000)

    assert (killed.code, khlone("doctor", "--fix", cwd=project).code) == (-9, 0)

    assert document(khlone("list", "--json", cwd=project), "list")["clones"] == []
    told = document(khlone("events", "--json", cwd=project), "events")["events"]
    assert [one["clone"] for one in told if one["event"] == "landed" and one["clone"] != "b"] == ["a"]


def test_taking_a_landing_back_asks_once_what_the_remote_has(
    khlone: Khlone, git: Git, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a", "--push")
    calls = called(git, project)

    done = khlone("undo", cwd=project)

    assert done.code == 0
    assert "origin/main has it already" in done.err
    assert sum("--format=%(upstream)" in words for words in calls()) == 1
    assert show(khlone, project, "a")["state"] == "merged"


def test_whoever_finishes_an_undo_that_was_killed_knows_what_the_remote_has(
    khlone: Khlone, commit: Commit, project: Path, remote: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a", "--push")

    killed = khlone("undo", cwd=project, env={"KHLONE_FAULT": "undo.moved"})

    assert killed.code == -9
    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert show(khlone, project, "a")["state"] == "merged"
