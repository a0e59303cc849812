"""`merge` again, as a dry run, from everywhere, with plugins, and what it costs. The target is checked out nowhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands.merging import (
    Stopping,
    held,
    landed,
    merge,
    message,
    oid,
    parents,
    plugin,
    release_main,
    shown,
    worked,
)
from tests.commands.steps import (
    NOTES,
    branches,
    clone_names,
    document,
    edited,
    footprint,
    new,
    refs,
    refused,
    show,
    tree,
)
from tests.support import KHLONE, Commit, Git, Khlone

pytestmark = pytest.mark.usefixtures("_nowhere")


@pytest.fixture
def _nowhere(project: Path, git: Git) -> None:
    release_main(git, project)


# -- one after the other, again, and away ---------------------------------------------------


def test_several_clones_land_in_the_order_they_are_named(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("a", "b", "c"):
        worked(khlone, commit, project, name, {f"{name}.txt": f"{name}\n"})
    old = oid(git, project, "main")

    found = merge(khlone, project, "b", "a", "c", "a")

    assert landed(found) == ["b", "a", "c"]
    assert [one["oid"] for one in found["landed"]] == [oid(git, project, f"main~{back}") for back in (2, 1, 0)]
    assert (found["old"], found["new"]) == (old, oid(git, project, "main"))
    assert git("log", "--first-parent", "--format=%s", f"{old}..main", cwd=project).splitlines() == [
        f"Merge branch '{name}'" for name in ("c", "a", "b")
    ]


def test_the_clone_keeps_its_branch_and_worktree(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    (path / "build.log").write_text("log\n")
    admin = Path(git("rev-parse", "--absolute-git-dir", cwd=path).strip())

    def state() -> tuple[object, ...]:
        return tree(path), tree(admin), branches(git, project)["a"], git("reflog", "a", cwd=path)

    before = state()

    merge(khlone, project, "a")

    assert state() == before


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_a_merged_clone_is_ready_again_with_new_work_which_lands_too(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    path = worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "one")})
    commit(path, {"a.txt": "a\n"}, "two commits, so that squashing them makes another one")
    merge(khlone, project, "a", strategy)
    assert show(khlone, project, "a")["state"] == "merged"
    worked(khlone, commit, project, "other", {"notes.txt": edited(NOTES, 12, "other")})

    commit(path, {"notes.txt": edited(NOTES, 3, "two")}, "going on with the same line")
    assert show(khlone, project, "a")["state"] == "ready"
    merge(khlone, project, "other")
    found = merge(khlone, project, "a", strategy)

    assert landed(found) == ["a"]
    assert shown(git, project, "notes.txt") == edited(edited(NOTES, 3, "two"), 12, "other")
    assert show(khlone, project, "a")["state"] == "merged"
    if strategy == "--squash":
        assert message(git, project, "main") == "going on with the same line\n"


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_a_landing_that_was_taken_back_can_be_made_again(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(path, {"b.txt": "b\n"}, "two commits, so that squashing them makes another one")
    merge(khlone, project, "a", strategy)
    git("branch", "-q", "-f", "main", "main~1", cwd=project)

    found = merge(khlone, project, "a", strategy)

    assert landed(found) == ["a"]
    assert shown(git, project, "a.txt") == "a\n"


def test_removing_takes_what_landed_and_nothing_else(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    gone = worked(khlone, commit, project, "a", {"notes.txt": "of a\n"})
    kept = worked(khlone, commit, project, "b", {"notes.txt": "of b\n"})
    new(khlone, project, "c")

    found = merge(khlone, project, "a", "b", "c", "--remove", code=4)

    assert (landed(found), held(found)) == (["a"], [("b", "conflict"), ("c", "nothing-to-merge")])
    assert clone_names(khlone, project) == ["b", "c"]
    assert (gone.exists(), kept.exists()) == (False, True)
    assert sorted(branches(git, project)) == ["b", "c", "main"]


def test_a_landed_clone_that_cannot_be_removed_is_told(khlone: Khlone, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    (path / "untracked.txt").write_text("mine\n")

    done = khlone("merge", "a", "--committed", "--remove", "--json", cwd=project)

    assert landed(document(done, "merge", 1)) == ["a"]
    assert "a has landed but was not removed" in done.err
    assert (path / "untracked.txt").read_text() == "mine\n"


# -- dry run -------------------------------------------------------------------------------


def test_a_dry_run_tells_and_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "of a\n"})
    worked(khlone, commit, project, "b", {"notes.txt": "of b\n"})
    worked(khlone, commit, project, "c", {"c.txt": "c\n"})

    def state() -> tuple[object, ...]:
        registry = (project / ".git/khlone/registry.sqlite3").read_bytes()
        return footprint(git, project), registry, [show(khlone, project, name) for name in "abc"]

    before = state()

    found = merge(khlone, project, "a", "b", "c", "--dry-run", "--remove", code=4)

    assert (landed(found), held(found)) == (["a", "c"], [("b", "conflict")])
    assert found["old"] == found["new"] == oid(git, project, "main")
    assert state() == before
    assert parents(git, project, found["landed"][1]["oid"])[0] == found["landed"][0]["oid"]


# -- from where ----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [".", "src"])
def test_inside_a_clone_no_name_is_needed(khlone: Khlone, git: Git, commit: Commit, project: Path, folder: str) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    assert landed(merge(khlone, path / folder)) == ["a"]
    refused(khlone("merge", "--json", cwd=project), "usage", 2)


def test_a_bare_repository_merges_too(khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(project), str(bare), cwd=tmp_path)
    worked(khlone, commit, bare, "a", {"a.txt": "a\n"}, "--from", "main")

    found = merge(khlone, bare, "a")

    assert (found["target"], landed(found)) == ("main", ["a"])
    assert shown(git, bare, "a.txt") == "a\n"


def test_inside_a_hook_of_the_clone_the_right_repository_is_meant_and_no_index_is_touched(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    path = new(khlone, project, "a")
    told = tmp_path / "told"
    _hook(project, "post-commit", f'env > "{told}.env"\nexec "{KHLONE}" merge --json > "{told}" 2>&1')

    commit(path, {"a.txt": "a\n"}, "work")

    assert "GIT_INDEX_FILE=" in Path(f"{told}.env").read_text()
    assert landed(json.loads(told.read_text())) == ["a"]
    assert oid(git, project, "main^2") == oid(git, path, "HEAD")
    assert git("status", "--porcelain", cwd=path) == git("status", "--porcelain", cwd=project) == ""


def _hook(project: Path, name: str, script: str) -> None:
    hook = project / ".git/hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


# -- plugins -------------------------------------------------------------------------------

_TOLD = """
import json, os
from khlone import Refusal, Verdict, hookimpl
def told(*words):
    with open(os.environ["TOLD"], "a") as stream:
        stream.write(json.dumps(words) + "\\n")
"""


def test_a_veto_holds_one_clone_and_the_rest_goes_on(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    told = tmp_path / "told"
    environment = plugin(
        tmp_path / "site",
        f"""{_TOLD}
@hookimpl
def khlone_pre_merge(clone, plan):
    told(clone.name, clone.head, plan.source, plan.old, plan.target, plan.strategy)
    if clone.name == "a":
        raise Refusal("not on a friday")
@hookimpl
def khlone_post_merge(clone, result):
    told("post", clone.name, clone.state, clone.head, result.new, [one.name for one in result.landed])
""",
    )
    old = oid(git, project, "main")

    found = merge(khlone, project, "a", "b", "--squash", code=1, env={**environment, "TOLD": str(told)})

    assert (landed(found), held(found)) == (["b"], [("a", "vetoed")])
    assert found["held"][0]["message"] == "not on a friday"
    a, b = oid(git, project, "a"), oid(git, project, "b")
    assert [json.loads(line) for line in told.read_text().splitlines()] == [
        ["a", a, a, old, "main", "squash"],
        ["b", b, b, old, "main", "squash"],
        ["post", "b", "merged", b, oid(git, project, "main"), ["b"]],
    ]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ('Verdict(passed=True, gate="tests")', True),
        ('Verdict(passed=False, gate="tests", message="two failed")', False),
        ('(_ for _ in ()).throw(Refusal("two failed"))', False),
    ],
    ids=["passed", "failed", "refused"],
)
def test_a_gate_decides_on_the_very_commit_that_lands(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, answer: str, passes: bool
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    told = tmp_path / "told"
    environment = plugin(
        tmp_path / "site",
        f"{_TOLD}\n@hookimpl\ndef khlone_gate(clone, candidate):\n    told(candidate.oid)\n    return {answer}\n",
    )
    before = refs(git, project)

    found = merge(khlone, project, "a", code=0 if passes else 5, env={**environment, "TOLD": str(told)})

    if passes:
        assert (found["gated"], landed(found)) == (True, ["a"])
        assert json.loads(told.read_text()) == [oid(git, project, "main")]
        assert not git("for-each-ref", "refs/khlone/ops", cwd=project)
    else:
        assert held(found) == [("a", "gate-failed")]
        assert "two failed" in found["held"][0]["message"]
        assert refs(git, project) == before
        assert show(khlone, project, "a")["state"] == "ready"


def test_no_gate_is_asked_where_none_is_wanted(khlone: Khlone, commit: Commit, project: Path, tmp_path: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    environment = plugin(
        tmp_path / "site", f'{_TOLD}\n@hookimpl\ndef khlone_gate(clone, candidate):\n    raise Refusal("no")\n'
    )

    found = merge(khlone, project, "a", "--no-gate", env=environment)

    assert (found["gated"], landed(found)) == (False, ["a"])


@pytest.mark.parametrize("options", [(), ("--no-gate",)])
def test_a_required_gate_that_nobody_asked_holds_the_clone(
    khlone: Khlone, git: Git, commit: Commit, project: Path, options: tuple[str, ...]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.gate.required", "true", cwd=project)
    before = refs(git, project)

    found = merge(khlone, project, "a", *options, code=5)

    assert held(found) == [("a", "gate-failed")]
    assert refs(git, project) == before


def test_a_plugin_that_fails_after_the_landing_is_told_and_the_landing_stands(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    environment = plugin(
        tmp_path / "site", f'{_TOLD}\n@hookimpl\ndef khlone_post_merge(clone, result):\n    raise OSError("offline")\n'
    )

    done = khlone("merge", "a", "--json", cwd=project, env=environment)

    assert landed(document(done, "merge")) == ["a"]
    assert "offline" in done.err


# -- the target moves ----------------------------------------------------------------------


@pytest.mark.parametrize("point", ["merge.computed", "merge.publishing"])
def test_a_target_that_moves_meanwhile_keeps_both(
    khlone: Khlone, git: Git, commit: Commit, project: Path, point: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    running = Stopping(project, point, "a")
    assert running.wait()
    moved = commit(project, {"moved.txt": "moved\n"}, "meanwhile")
    git("update-ref", "refs/heads/main", moved, cwd=project)

    running.go_on()
    found = document(running.end(), "merge")

    assert landed(found) == ["a"]
    assert parents(git, project, "main") == [moved, oid(git, path, "HEAD")]
    assert (shown(git, project, "a.txt"), shown(git, project, "moved.txt")) == ("a\n", "moved\n")
    assert show(khlone, project, "a")["state"] == "merged"


def test_moving_a_ref_without_its_old_value_loses_what_came_between(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    """The control: the same landing by hand, unconditionally."""
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    old = oid(git, project, "main")
    computed = git(
        "commit-tree",
        "-m",
        "x",
        "-p",
        old,
        "-p",
        "a",
        git("merge-tree", "--write-tree", old, "a", cwd=path).strip(),
        cwd=path,
    ).strip()
    moved = commit(project, {"moved.txt": "moved\n"}, "meanwhile")
    git("update-ref", "refs/heads/main", moved, cwd=project)

    git("update-ref", "refs/heads/main", computed, cwd=project)

    assert "moved.txt" not in git("ls-tree", "--name-only", "main", cwd=project)


# -- what people see, and what it costs ----------------------------------------------------


def test_the_answer_is_on_stdout_and_the_story_on_stderr(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "of a\n"})
    worked(khlone, commit, project, "b", {"notes.txt": "of b\n"})
    new(khlone, project, "c")

    done = khlone("merge", "a", "b", "c", cwd=project)

    assert done.code == 4
    assert done.out == f"a landed on main as {oid(git, project, 'main')[:10]} (merge, ungated)\n"
    assert "held: b conflicts with main in notes.txt; a landed before it\n" in done.err
    assert re.search(r"hint: .*git khlone sync --conflict b", done.err)
    assert "held: c has nothing that main lacks\n" in done.err


def test_a_refusal_is_one_line_and_a_hint(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "alpha")

    done = khlone("merge", "alpah", cwd=project)

    assert (done.code, done.out) == (1, "")
    assert done.err == "khlone: there is no clone named 'alpah'\nhint: did you mean alpha?\n"


def test_a_dry_run_says_would(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    done = khlone("merge", "a", "--dry-run", cwd=project)

    assert re.fullmatch(r"a would land on main as [0-9a-f]{10} \(merge\)\n", done.out)


@pytest.mark.parametrize("strategy", ["--merge", "--squash", "--ff-only"])
@pytest.mark.parametrize(("checked_out", "most"), [(False, 5), (True, 10)], ids=["nowhere", "checked-out"])
def test_a_landing_takes_few_git_processes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, strategy: str, checked_out: bool, most: int
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(path, {"b.txt": "b\n"}, "more")
    if checked_out:
        git("checkout", "-q", "main", cwd=project)
    # What khlone reads of this is asked of git, which is one process more.
    git("config", "--unset", "khlone.target", cwd=project)
    trace = tmp_path / "trace"
    trace.mkdir()
    git("config", "--global", "trace2.eventTarget", str(trace), cwd=project)

    found = merge(khlone, project, "a", strategy)

    started = [json.loads(file.read_text().splitlines()[1])["argv"] for file in trace.iterdir()]
    assert landed(found) == ["a"]
    assert 0 < len(started) <= most, started


# -- what is built in vain -------------------------------------------------------------------


def unreachable_commits(git: Git, where: Path) -> int:
    """How many commits no ref and no reflog has."""
    found = git("fsck", "--unreachable", "--no-progress", cwd=where)
    return sum(line.startswith("unreachable commit ") for line in found.splitlines())


def test_a_merge_that_lost_its_race_builds_one_commit_in_vain_and_no_more(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("a", "b", "c", "d"):
        worked(khlone, commit, project, name, {f"{name}.txt": f"{name}\n"})
    running = Stopping(project, "merge.computed", "a")
    others = iter(("b", "c", "d"))
    # A merge that computes again outside of its turn stops here again, and loses again.
    while running.wait():
        merge(khlone, project, next(others))
        running.go_on()

    found = document(running.end(), "merge")

    assert landed(found) == ["a"]
    assert unreachable_commits(git, project) == 1
