"""`new`: a clone is made whole, from the commit that was meant, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import (
    at_once,
    branches,
    clone_names,
    common_dir,
    document,
    footprint,
    new,
    refs,
    refused,
    show,
    tree,
)
from tests.faults.lab import plugin
from tests.support import KHLONE, Commit, Done, Git, Khlone

LEGAL = ["a", "A1", "fix-42", "v1.2.3", "snake_case", "feature/x", "a/b/c/d", "x" * 100, "face", "main2"]
ILLEGAL = [
    "-x",
    *("", " ", "a b", "a\tb", "a\nb", "a\x7fb"),
    *(".hidden", "_a", "a-", "a.", "a/", "/a", "a//b", "a..b", "a/.b", "a.lock", "a/b.lock", "a.lock/b"),
    *("`id`", "a;b", "a|b", "a&b", "a'b", 'a"b', "a$b", "{a,b}", "a%b", "a~b", "a^b", "a:b", "a\\b", "a*b", "a?b"),
    *("@", "a@{b", "é", "e\u0301", "a\u202eb", "a\u200bb", "a\udcffb"),
    *("head", "HEAD", "FETCH_HEAD", "orig_head", "my_head", "a/HEAD", "stash", "refs", "refs/heads/x"),
    *("worktrees", "khlone", "con", "PRN", "aux", "NUL", "com1", "LPT9", "feature/con"),
    *("deadbeef", "1234567", "DEADBEEF", "0" * 40, "f" * 64),
    *("x" * 101, "a/" * 60 + "a"),
]


def remote_branch(git: Git, project: Path, name: str) -> str:
    """A branch that only a real remote has; returns its oid."""
    origin = project.parent / "origin.git"
    git("init", "-q", "--bare", str(origin), cwd=project)
    git("remote", "add", "origin", str(origin), cwd=project)
    git("push", "-q", "origin", f"HEAD~1:refs/heads/{name}", "main", cwd=project)
    git("fetch", "-q", "origin", cwd=project)
    return git("rev-parse", "HEAD~1", cwd=project).strip()


# -- the base ------------------------------------------------------------------------------


def test_a_clone_is_a_worktree_on_its_own_branch_at_head(khlone: Khlone, git: Git, project: Path) -> None:
    head = git("rev-parse", "HEAD", cwd=project).strip()

    path = new(khlone, project, "a")

    assert git("symbolic-ref", "HEAD", cwd=path).strip() == "refs/heads/a"
    assert git("rev-parse", "HEAD", cwd=path).strip() == head
    assert git("status", "--porcelain", "--ignored", cwd=path) == ""
    assert tree(path) == tree(project)
    assert git("fsck", "--no-dangling", cwd=project).strip() == ""


def test_the_document_says_what_lies_on_disk(khlone: Khlone, git: Git, project: Path) -> None:
    clone = document(khlone("new", "a", "--json", cwd=project), "new")["clones"][0]

    head = git("rev-parse", "HEAD", cwd=project).strip()
    assert (clone["name"], clone["branch"], clone["target"], clone["state"]) == ("a", "a", "main", "ready")
    assert (clone["base"], clone["head"]) == (head, head)
    assert clone["isolation"] == "config"
    assert Path(clone["path"]) == project.parent / f"{project.name}.clones" / "a"
    assert Path(clone["config_dir"]).is_dir()


def test_the_default_base_is_head_of_the_calling_worktree(
    khlone: Khlone, git: Git, project: Path, commit: Commit
) -> None:
    first = new(khlone, project, "first")
    tip = commit(first, {"more.txt": "more\n"}, "more")
    git("checkout", "-q", "--detach", "HEAD~1", cwd=project)

    from_clone, from_detached = new(khlone, first, "second"), new(khlone, project, "third")

    assert git("rev-parse", "HEAD", cwd=from_clone).strip() == tip
    assert git("rev-parse", "HEAD", cwd=from_detached) == git("rev-parse", "HEAD", cwd=project)


@pytest.mark.parametrize(
    "start", ["side", "light", "annotated", "origin/topic", "HEAD~1", "refs/heads/side", "OID", "OI"]
)
def test_from_takes_anything_that_names_a_commit(khlone: Khlone, git: Git, project: Path, start: str) -> None:
    oid = remote_branch(git, project, "topic")
    git("branch", "side", oid, cwd=project)
    git("tag", "light", oid, cwd=project)
    git("tag", "-a", "-m", "annotated", "annotated", oid, cwd=project)
    ref = {"OID": oid, "OI": oid[:12]}.get(start, start)

    path = new(khlone, project, "a", "--from", ref)

    assert git("rev-parse", "HEAD", cwd=path).strip() == oid
    assert git("symbolic-ref", "HEAD", cwd=path).strip() == "refs/heads/a"
    assert git("status", "--porcelain", cwd=path) == ""
    assert show(khlone, project, "a")["base"] == oid


@pytest.mark.parametrize("start", ["no-such", "HEAD~99", "HEAD:notes.txt", "--weird", "0" * 40, "main..side"])
def test_a_start_that_names_no_commit_leaves_nothing(khlone: Khlone, git: Git, project: Path, start: str) -> None:
    before = footprint(git, project)

    done = khlone("new", "a", f"--from={start}", "--json", cwd=project)

    refused(done, "no-such-ref")
    assert footprint(git, project) == before
    assert clone_names(khlone, project) == []


def test_an_unborn_head_is_refused_and_leaves_nothing(khlone: Khlone, git: Git, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    git("init", "-q", "-b", "main", str(empty), cwd=tmp_path)
    before = footprint(git, empty)

    done = khlone("new", "a", "--json", cwd=empty)

    refused(done, "unborn-head")
    assert footprint(git, empty) == before


def test_outside_a_repository_nothing_is_made(khlone: Khlone, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    done = khlone("new", "a", "--json", cwd=elsewhere)

    refused(done, "not-a-repository")
    assert list(elsewhere.iterdir()) == []


# -- branches ------------------------------------------------------------------------------


def test_an_existing_branch_is_used_at_its_tip_and_outlives_the_clone(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "odd!name", "HEAD~1", cwd=project)
    tip = branches(git, project)["odd!name"]

    path = new(khlone, project, "a", "--branch", "odd!name")

    assert git("symbolic-ref", "HEAD", cwd=path).strip() == "refs/heads/odd!name"
    assert git("rev-parse", "HEAD", cwd=path).strip() == tip
    removed = document(khlone("remove", "a", "--json", cwd=project), "remove")["removed"]
    assert removed[0]["branch_deleted"] is False
    assert branches(git, project)["odd!name"] == tip


def test_a_failed_create_does_not_delete_the_branch_it_was_given(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "mine", cwd=project)
    before = footprint(git, project)

    done = khlone("new", "a", "--branch", "mine", "--agent", "no-such-agent", "--json", cwd=project)

    assert done.code != 0
    assert footprint(git, project) == before


def test_an_existing_branch_and_a_start_contradict_each_other(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "mine", cwd=project)
    before = footprint(git, project)

    done = khlone("new", "a", "--branch", "mine", "--from", "HEAD~1", "--json", cwd=project)

    refused(done, "usage", 2)
    assert footprint(git, project) == before


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_branch_of_that_name_is_refused_with_the_way_to_use_it(
    khlone: Khlone, git: Git, project: Path, packed: bool
) -> None:
    git("branch", "taken", "HEAD~1", cwd=project)
    if packed:
        git("pack-refs", "--all", cwd=project)
    before = footprint(git, project)

    error = refused(khlone("new", "taken", "--json", cwd=project), "branch-exists")

    assert "--branch taken" in error["hint"]
    assert footprint(git, project) == before


def test_the_hint_does_not_lead_to_a_branch_that_is_checked_out(khlone: Khlone, project: Path) -> None:
    error = refused(khlone("new", "main", "--json", cwd=project), "branch-exists")

    assert "--branch" not in error["hint"]


def test_a_clone_of_that_name_is_refused(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    refused(khlone("new", "a", "--json", cwd=project), "clone-exists")

    assert footprint(git, project) == before


@pytest.mark.parametrize("holder", ["main worktree", "clone", "foreign worktree"])
def test_a_branch_that_is_checked_out_elsewhere_is_refused(
    khlone: Khlone, git: Git, project: Path, holder: str
) -> None:
    branch = {"main worktree": "main", "clone": "other", "foreign worktree": "theirs"}[holder]
    if holder == "clone":
        new(khlone, project, "other")
    if holder == "foreign worktree":
        git("worktree", "add", "-q", "-b", "theirs", str(project.parent / "theirs"), cwd=project)
    before = footprint(git, project)

    refused(khlone("new", "a", "--branch", branch, "--json", cwd=project), "branch-checked-out")

    assert footprint(git, project) == before


def test_a_clone_has_no_upstream_and_the_shared_configuration_is_untouched(
    khlone: Khlone, git: Git, project: Path
) -> None:
    remote_branch(git, project, "topic")
    git("config", "branch.autoSetupMerge", "always", cwd=project)
    git("config", "push.autoSetupRemote", "true", cwd=project)
    config = common_dir(git, project) / "config"
    before = config.read_bytes()

    new(khlone, project, "a", "--from", "origin/topic")
    new(khlone, project, "b", "--from", "main")

    assert config.read_bytes() == before
    assert git("for-each-ref", "--format=%(upstream)", "refs/heads/a", "refs/heads/b", cwd=project).split() == []


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ILLEGAL, ids=ascii)
def test_an_illegal_name_is_a_usage_error_and_leaves_nothing(
    khlone: Khlone, git: Git, project: Path, name: str
) -> None:
    before = footprint(git, project)

    refused(khlone("new", "--json", "--", name, cwd=project), "illegal-name", 2)

    assert footprint(git, project) == before


@pytest.mark.parametrize("name", ["-x1", "--weird", "-", "-b"])
def test_a_name_that_looks_like_an_option_is_never_taken(khlone: Khlone, git: Git, project: Path, name: str) -> None:
    before = footprint(git, project)

    done = khlone("new", "--json", name, cwd=project)

    assert done.code == 2
    assert done.json()["code"] in ("illegal-name", "usage")
    assert footprint(git, project) == before


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_name_names_branch_and_folder(khlone: Khlone, git: Git, project: Path, name: str) -> None:
    path = new(khlone, project, name)

    assert path.name == name.replace("/", "-")
    assert path.parent == project.parent / f"{project.name}.clones"
    assert git("symbolic-ref", "HEAD", cwd=path).strip() == f"refs/heads/{name}"
    assert clone_names(khlone, project) == [name]


def test_two_names_with_the_same_folder_get_two_folders(khlone: Khlone, git: Git, project: Path) -> None:
    first = new(khlone, project, "feature/x")
    second = new(khlone, project, "feature-x")

    assert first.name == "feature-x"
    assert second.name.startswith("feature-x-")
    assert git("symbolic-ref", "HEAD", cwd=second).strip() == "refs/heads/feature-x"


def test_a_folder_of_somebody_else_is_left_alone(khlone: Khlone, git: Git, project: Path) -> None:
    theirs = project.parent / f"{project.name}.clones" / "a"
    theirs.mkdir(parents=True)
    (theirs / "precious.txt").write_text("precious\n")

    path = new(khlone, project, "a")

    assert path.name.startswith("a-")
    assert tree(theirs) == {"precious.txt": tree(theirs)["precious.txt"]}
    assert (theirs / "precious.txt").read_text() == "precious\n"


@pytest.mark.parametrize("kind", ["branch", "packed branch", "clone"])
@pytest.mark.parametrize(("there", "wanted"), [("feature", "feature/x"), ("feature/x", "feature"), ("Alpha", "alpha")])
def test_names_that_cannot_stand_beside_each_other_are_refused(
    khlone: Khlone, git: Git, project: Path, kind: str, there: str, wanted: str
) -> None:
    if kind == "clone":
        new(khlone, project, there)
    else:
        git("branch", there, cwd=project)
    if kind == "packed branch":
        git("pack-refs", "--all", cwd=project)
    before = footprint(git, project)

    refused(khlone("new", wanted, "--json", cwd=project), "name-collides")

    assert footprint(git, project) == before


# -- the target ----------------------------------------------------------------------------


def test_into_is_the_target_whatever_else_could_be(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "side", cwd=project)
    git("branch", "develop", cwd=project)
    git("config", "khlone.target", "develop", cwd=project)

    new(khlone, project, "a", "--from", "main", "--into", "side")

    assert show(khlone, project, "a")["target"] == "side"


def test_a_target_that_does_not_exist_leaves_nothing(khlone: Khlone, git: Git, project: Path) -> None:
    before = footprint(git, project)

    done = khlone("new", "a", "--into", "no-such", "--json", cwd=project)

    assert done.code in (1, 2)
    assert footprint(git, project) == before


def test_the_setting_beats_the_start_and_the_current_branch(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "side", cwd=project)
    git("branch", "develop", cwd=project)
    git("config", "khlone.target", "develop", cwd=project)

    new(khlone, project, "a", "--from", "side")

    assert show(khlone, project, "a")["target"] == "develop"


def test_the_start_is_the_target_when_it_is_a_local_branch(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "side", "HEAD~1", cwd=project)
    git("tag", "mark", cwd=project)

    new(khlone, project, "a", "--from", "side")
    new(khlone, project, "b", "--from", "mark")

    assert show(khlone, project, "a")["target"] == "side"
    assert show(khlone, project, "b")["target"] == "main"


@pytest.mark.parametrize(("local", "target"), [(True, "topic"), (False, "main")])
def test_a_remote_branch_stands_for_its_local_counterpart(
    khlone: Khlone, git: Git, project: Path, local: bool, target: str
) -> None:
    oid = remote_branch(git, project, "topic")
    if local:
        git("branch", "--no-track", "topic", oid, cwd=project)

    new(khlone, project, "a", "--from", "origin/topic")

    assert show(khlone, project, "a")["target"] == target


# -- branches that only a remote has -------------------------------------------------------


def second_remote(git: Git, project: Path, branch: str) -> str:
    """Another remote, `fork`, that has a branch too; returns its oid."""
    fork = project.parent / "fork.git"
    git("init", "-q", "--bare", str(fork), cwd=project)
    git("remote", "add", "fork", str(fork), cwd=project)
    git("push", "-q", "fork", f"HEAD:refs/heads/{branch}", cwd=project)
    git("fetch", "-q", "fork", cwd=project)
    return git("rev-parse", "HEAD", cwd=project).strip()


def test_a_branch_that_only_a_remote_has_is_used_at_its_tip(khlone: Khlone, git: Git, project: Path) -> None:
    oid = remote_branch(git, project, "topic/x")
    config = (project / ".git/config").read_bytes()

    done = khlone("new", "a", "--branch", "topic/x", cwd=project)

    assert "topic/x starts at origin/topic/x" in done.err
    assert branches(git, project)["topic/x"] == oid
    assert show(khlone, project, "a")["target"] == "main"
    assert (project / ".git/config").read_bytes() == config


def test_a_start_that_only_a_remote_has_is_told_how_to_name(khlone: Khlone, git: Git, project: Path) -> None:
    oid = remote_branch(git, project, "topic")

    error = refused(khlone("new", "a", "--from", "topic", "--json", cwd=project), "no-such-ref")

    assert error["hint"] == "a remote has it: --from origin/topic"
    new(khlone, project, "a", "--from", "origin/topic")
    assert show(khlone, project, "a")["base"] == oid


def test_a_start_that_is_given_beats_what_a_remote_has(khlone: Khlone, git: Git, project: Path) -> None:
    remote_branch(git, project, "topic")

    done = khlone("new", "a", "--branch", "topic", "--from", "main", cwd=project)

    assert "warning: origin/topic is not where it starts, main is" in done.err
    assert branches(git, project)["topic"] == git("rev-parse", "main", cwd=project).strip()


def test_a_name_that_a_remote_has_too_is_told_when_it_starts_at_head(khlone: Khlone, git: Git, project: Path) -> None:
    remote_branch(git, project, "topic")

    done = khlone("new", "topic", cwd=project)

    assert done.code == 0
    assert "warning: origin/topic is not where it starts, HEAD is; --branch topic would start there" in done.err
    assert show(khlone, project, "topic")["base"] == git("rev-parse", "HEAD", cwd=project).strip()


def test_of_several_remotes_the_one_that_git_prefers_is_taken(khlone: Khlone, git: Git, project: Path) -> None:
    remote_branch(git, project, "topic")
    oid = second_remote(git, project, "topic")
    before = footprint(git, project)

    error = refused(khlone("new", "a", "--branch", "topic", "--json", cwd=project), "usage", 2)

    assert "fork/topic, origin/topic" in error["message"]
    assert "--branch topic --from REMOTE/topic" in error["hint"]
    assert footprint(git, project) == before
    git("config", "checkout.defaultRemote", "fork", cwd=project)
    new(khlone, project, "a", "--branch", "topic")
    assert branches(git, project)["topic"] == oid


@pytest.mark.parametrize("words", [("origin/topic",), ("a", "--branch", "origin/topic")], ids=["name", "branch"])
def test_the_name_of_what_a_remote_has_never_names_a_branch_here(
    khlone: Khlone, git: Git, project: Path, words: tuple[str, ...]
) -> None:
    remote_branch(git, project, "topic")
    before = footprint(git, project)

    error = refused(khlone("new", *words, "--json", cwd=project), "usage", 2)

    assert "--from origin/topic" in error["hint"]
    assert footprint(git, project) == before


def test_a_start_that_names_two_refs_is_refused(khlone: Khlone, git: Git, project: Path) -> None:
    oid = remote_branch(git, project, "topic")
    git("update-ref", "refs/heads/origin/topic", "HEAD", cwd=project)
    before = footprint(git, project)

    error = refused(khlone("new", "a", "--from", "origin/topic", "--json", cwd=project), "usage", 2)

    assert "refs/remotes/" in error["hint"]
    assert footprint(git, project) == before
    new(khlone, project, "a", "--from", "refs/remotes/origin/topic")
    assert show(khlone, project, "a")["base"] == oid
    refused(khlone("new", "b", "--branch", "origin/topic", "--json", cwd=project), "usage", 2)
    new(khlone, project, "b", "--branch", "refs/heads/origin/topic")


def test_a_branch_called_head_does_not_stand_in_the_way(khlone: Khlone, git: Git, project: Path) -> None:
    git("update-ref", "refs/heads/HEAD", "HEAD~1", cwd=project)
    git("checkout", "-q", "--detach", cwd=project)

    new(khlone, project, "a", "--from", "HEAD")

    assert show(khlone, project, "a")["base"] == git("rev-parse", "--verify", "-q", "HEAD", cwd=project).strip()


def test_what_is_made_of_many_is_told_before_the_rest_is_interrupted(
    khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    code = (
        "import os, signal\n"
        "from khlone import hookimpl\n\n"
        "@hookimpl\n"
        "def khlone_prepare(clone):\n"
        "    if clone.name == 'bot-2':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )

    done = khlone("new", "bot", "-n", "3", cwd=project, env=plugin(tmp_path / "second", code))

    assert done.code == 143
    assert "bot-1 is ready" in done.err
    assert clone_names(khlone, project) == ["bot-1"]


def test_the_target_of_the_calling_clone_is_handed_on(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "side", cwd=project)
    first = new(khlone, project, "first", "--into", "side")

    new(khlone, first, "second")

    assert show(khlone, project, "second")["target"] == "side"


def test_the_current_branch_is_the_target(khlone: Khlone, git: Git, project: Path) -> None:
    git("checkout", "-q", "-b", "side", cwd=project)

    new(khlone, project, "a")

    assert show(khlone, project, "a")["target"] == "side"


def test_detached_the_default_branch_is_the_target(khlone: Khlone, git: Git, project: Path) -> None:
    remote_branch(git, project, "topic")
    git("remote", "set-head", "origin", "main", cwd=project)
    git("checkout", "-q", "--detach", cwd=project)

    new(khlone, project, "a")

    assert show(khlone, project, "a")["target"] == "main"


def test_detached_without_a_default_branch_there_is_no_target(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "-m", "main", "unusual-trunk", cwd=project)
    git("checkout", "-q", "--detach", cwd=project)

    new(khlone, project, "a")

    assert show(khlone, project, "a")["target"] is None


# -- the answer ----------------------------------------------------------------------------


def test_the_last_line_of_stdout_is_the_folder(khlone: Khlone, project: Path) -> None:
    done = khlone("new", "a", cwd=project)

    assert done.code == 0
    assert Path(done.out.splitlines()[-1]) == project.parent / f"{project.name}.clones" / "a"
    assert Path(done.out.splitlines()[-1], "notes.txt").is_file()


@pytest.mark.parametrize("code", [0, 7])
def test_a_command_runs_in_the_clone_and_gives_its_code(khlone: Khlone, project: Path, code: int) -> None:
    script = f'pwd -P > where; echo "$KHLONE_NAME $1" > who; exit {code}'

    done = khlone("new", "a", "-x", "sh", "-c", script, "sh", "--json", cwd=project)

    path = project.parent / f"{project.name}.clones" / "a"
    assert done.code == code
    assert (path / "where").read_text().strip() == os.path.realpath(path)
    assert (path / "who").read_text().split() == ["a", "--json"]
    assert clone_names(khlone, project) == ["a"]
    assert show(khlone, project, "a")["state"] == "ready"


def test_a_command_that_cannot_start_keeps_the_clone(khlone: Khlone, project: Path) -> None:
    done = khlone("new", "a", "-x", "no-such-command-anywhere", cwd=project)

    assert done.code not in (0, 3)
    assert "Traceback" not in done.err
    assert clone_names(khlone, project) == ["a"]


def test_many_are_made_and_a_failure_rolls_back_that_one_alone(khlone: Khlone, git: Git, project: Path) -> None:
    git("branch", "bot-2", cwd=project)

    done = khlone("new", "bot", "-n", "3", "--json", cwd=project)

    found = document(done, "new", 1)
    assert [clone["name"] for clone in found["clones"]] == ["bot-1", "bot-3"]
    assert [(one["name"], one["code"]) for one in found["failed"]] == [("bot-2", "branch-exists")]
    assert clone_names(khlone, project) == ["bot-1", "bot-3"]


# -- where it is called --------------------------------------------------------------------


@pytest.mark.parametrize("place", ["subfolder", "clone", "clone's subfolder", "linked worktree", "-C", "-C after"])
def test_clones_lie_beside_the_main_worktree_wherever_new_is_called(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, place: str
) -> None:
    clones = project.parent / f"{project.name}.clones"
    if place.startswith("clone"):
        new(khlone, project, "first")
    if place == "linked worktree":
        git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"), cwd=project)
    calls: dict[str, Callable[[], Done]] = {
        "subfolder": lambda: khlone("new", "a", cwd=project / "src" / "lib"),
        "clone": lambda: khlone("new", "a", cwd=clones / "first"),
        "clone's subfolder": lambda: khlone("new", "a", cwd=clones / "first" / "src"),
        "linked worktree": lambda: khlone("new", "a", cwd=tmp_path / "linked"),
        "-C": lambda: khlone("-C", str(project), "new", "a", cwd=tmp_path),
        "-C after": lambda: khlone("new", "a", "-C", project.name, cwd=project.parent),
    }

    done = calls[place]()

    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(clones / "a")
    assert git("status", "--porcelain", cwd=clones / "a") == ""


def test_a_bare_repository_has_clones_too(khlone: Khlone, git: Git, project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(project), str(bare), cwd=tmp_path)

    path = new(khlone, bare, "a")

    assert path == tmp_path / "bare.clones" / "a"
    assert tree(path) == tree(project)
    assert git("status", "--porcelain", cwd=path) == ""
    assert git("config", "core.bare", cwd=bare).strip() == "true"
    assert show(khlone, path, "a")["target"] == "main"
    assert document(khlone("list", "--json", cwd=path), "list")["repository"] == str(bare)


def other_repository(git: Git, tmp_path: Path, commit: Commit) -> Path:
    """A repository that is not the one that is meant."""
    other = tmp_path / "other"
    git("init", "-q", "-b", "main", str(other), cwd=tmp_path)
    commit(other, {"other.txt": "other\n"}, "other")
    return other


def test_the_index_of_another_repository_in_the_environment_is_not_touched(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, commit: Commit
) -> None:
    other = other_repository(git, tmp_path, commit)
    indexes = {path: (path / ".git" / "index").read_bytes() for path in (project, other)}
    env = {"GIT_INDEX_FILE": str(other / ".git" / "index"), "GIT_PREFIX": "src/"}

    done = khlone("new", "a", cwd=project, env=env)

    assert done.code == 0, done.err
    path = Path(done.out.splitlines()[-1])
    assert tree(path) == tree(project)
    assert git("status", "--porcelain", cwd=path) == ""
    assert {path: (path / ".git" / "index").read_bytes() for path in indexes} == indexes


def test_the_repository_that_the_environment_names_is_the_one_that_git_would_use(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, commit: Commit
) -> None:
    other = other_repository(git, tmp_path, commit)
    before = refs(git, project), git("worktree", "list", cwd=project)
    indexes = {path: (path / ".git" / "index").read_bytes() for path in (project, other)}
    env = {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git" / "index"),
    }

    done = khlone("new", "a", cwd=project, env=env)

    assert done.code == 0, done.err
    path = Path(done.out.splitlines()[-1])
    assert path == tmp_path / "other.clones" / "a"
    assert tree(path) == tree(other)
    assert (refs(git, project), git("worktree", "list", cwd=project)) == before
    assert {path: (path / ".git" / "index").read_bytes() for path in indexes} == indexes


def test_new_works_inside_a_hook_of_a_partial_commit(khlone: Khlone, git: Git, project: Path) -> None:
    hook = project / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{KHLONE} new hooked >/dev/null || exit 1\n")
    hook.chmod(0o755)
    before = git("rev-parse", "HEAD", cwd=project)
    (project / "notes.txt").write_text("changed\n")
    (project / "src" / "app.txt").write_text("not committed\n")

    git("commit", "-q", "-m", "partial", "--", "notes.txt", cwd=project)

    path = Path(show(khlone, project, "hooked")["path"])
    assert git("rev-parse", "HEAD", cwd=path) == before
    assert git("status", "--porcelain", cwd=path) == ""
    assert git("status", "--porcelain", cwd=project).split() == ["M", "src/app.txt"]
    assert git("show", "--name-only", "--format=", "HEAD", cwd=project).split() == ["notes.txt"]


# -- what else is on disk ------------------------------------------------------------------


def test_the_main_worktree_stays_as_it_is(khlone: Khlone, git: Git, project: Path) -> None:
    files, index = tree(project), (project / ".git" / "index").read_bytes()

    new(khlone, project, "a")

    assert tree(project) == files
    assert (project / ".git" / "index").read_bytes() == index
    assert git("status", "--porcelain", "--ignored", cwd=project) == ""


def test_private_folders_are_private_and_outside_the_repository(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")

    config_dir = Path(show(khlone, project, "a")["config_dir"])
    private = [config_dir, config_dir.parent, common_dir(git, project) / "khlone"]
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in private} == dict.fromkeys(private, 0o700)
    assert not config_dir.is_relative_to(project)
    assert not config_dir.is_relative_to(project.parent / f"{project.name}.clones")


def test_a_checkout_that_fails_half_way_is_rolled_back(khlone: Khlone, git: Git, project: Path, commit: Commit) -> None:
    git("config", "filter.broken.clean", "cat", cwd=project)
    git("config", "filter.broken.smudge", "false", cwd=project)
    git("config", "filter.broken.required", "true", cwd=project)
    commit(project, {".gitattributes": "*.bin filter=broken\n", "m.bin": "m\n", "z.txt": "z\n"}, "filtered")
    before = footprint(git, project)

    done = khlone("new", "a", "--json", cwd=project)

    error = document(done, "error", 1)
    assert error["message"]
    assert footprint(git, project) == before
    assert clone_names(khlone, project) == []
    git("config", "filter.broken.smudge", "cat", cwd=project)
    assert (new(khlone, project, "a") / "m.bin").read_text() == "m\n"


# -- many at once --------------------------------------------------------------------------


def test_eight_at_once_all_succeed(khlone: Khlone, git: Git, project: Path) -> None:
    tasks = [lambda name=f"c{number}": khlone("new", name, cwd=project) for number in range(8)]

    results = at_once(tasks)

    assert [done for done in results if done.code != 0] == []
    assert clone_names(khlone, project) == [f"c{number}" for number in range(8)]
    for done in results:
        assert git("status", "--porcelain", cwd=Path(done.out.splitlines()[-1])) == ""


def test_one_name_wanted_by_four_at_once_goes_to_one(khlone: Khlone, git: Git, project: Path) -> None:
    results = at_once([lambda: khlone("new", "same", "--json", cwd=project)] * 4)

    assert sorted(done.code == 0 for done in results) == [False, False, False, True]
    codes = {str(done.json()["code"]) for done in results if done.code != 0}
    assert codes <= {"clone-exists", "branch-exists", "clone-busy"}
    left = footprint(git, project)
    assert (len(left["admin"]), left["worktrees"], left["stage"]) == (1, ["same"], [])  # type: ignore[arg-type]
    assert len(left["config dirs"]) == 1  # type: ignore[arg-type]
    assert [line for line in refs(git, project) if "refs/khlone/ops" in line] == []


# -- agents --------------------------------------------------------------------------------


def environment(khlone: Khlone, project: Path, name: str) -> dict[str, str]:
    """The variables that `env` gives."""
    return dict(document(khlone("env", name, "--json", cwd=project), "env")["environment"])


@pytest.mark.parametrize("options", [(), ("--agent", "claude")], ids=["default", "named"])
def test_claude_is_pointed_at_the_config_dir_of_the_clone(
    khlone: Khlone, project: Path, options: tuple[str, ...]
) -> None:
    new(khlone, project, "a", *options)

    clone = show(khlone, project, "a")
    assert clone["agent"] == "claude"
    assert environment(khlone, project, "a")["CLAUDE_CONFIG_DIR"] == clone["config_dir"]
    assert Path(clone["config_dir"]).is_absolute()


@pytest.mark.parametrize(
    ("key", "agent"), [("khlone.generic.variable", "generic"), ("khlone.agents.aider.variable", "aider")]
)
def test_any_agent_gets_its_config_dir_in_a_variable_of_its_own(
    khlone: Khlone, git: Git, project: Path, key: str, agent: str
) -> None:
    git("config", key, "FOO_HOME", cwd=project)

    new(khlone, project, "a", "--agent", agent)

    clone = show(khlone, project, "a")
    assert clone["agent"] == agent
    assert environment(khlone, project, "a")["FOO_HOME"] == clone["config_dir"]
    assert "CLAUDE_CONFIG_DIR" not in environment(khlone, project, "a")


def test_the_agent_can_be_a_setting(khlone: Khlone, git: Git, project: Path) -> None:
    git("config", "khlone.agent", "generic", cwd=project)

    new(khlone, project, "a")

    assert show(khlone, project, "a")["agent"] == "generic"


def test_an_unknown_agent_is_refused_with_those_that_are_known(khlone: Khlone, git: Git, project: Path) -> None:
    before = footprint(git, project)

    error = document(khlone("new", "a", "--agent", "no-such", "--json", cwd=project), "error", 2)

    assert "claude" in error["hint"]
    assert "generic" in error["hint"]
    assert footprint(git, project) == before


def test_two_clones_share_no_config_dir(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "a")
    new(khlone, project, "b")

    first, second = (Path(show(khlone, project, name)["config_dir"]) for name in ("a", "b"))
    assert first != second
    (first / "mine").write_text("a\n")
    assert not (second / "mine").exists()


# -- how the files are written -------------------------------------------------------------


def checkout_workers(khlone: Khlone, git: Git, project: Path, folder: Path, name: str) -> int:
    """How many processes git started to write files for a new clone, by its own trace."""
    folder.mkdir()
    git("config", "--global", "trace2.eventTarget", str(folder), cwd=project)
    new(khlone, project, name)
    git("config", "--global", "--unset", "trace2.eventTarget", cwd=project)
    return sum('"checkout--worker"' in file.read_text() for file in folder.iterdir())


def test_one_large_clone_is_written_by_several_processes_unless_the_user_says_how_many(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    commit(project, {f"few/{number}.txt": f"{number}\n" for number in range(150)}, "too few for several")
    few = checkout_workers(khlone, git, project, tmp_path / "few", "none")
    commit(project, {f"many/{number}.txt": f"{number}\n" for number in range(500)}, "enough for several")

    alone = checkout_workers(khlone, git, project, tmp_path / "alone", "one")
    git("config", "checkout.workers", "1", cwd=project)
    told = checkout_workers(khlone, git, project, tmp_path / "told", "two")

    assert alone > 1
    assert (few, told) == (0, 0)
