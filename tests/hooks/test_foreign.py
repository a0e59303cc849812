"""What other programs do to clones is found on disk, and khlone inside of git's hooks does what it does outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refs, refused, show
from tests.support import KHLONE, Git, Khlone, make_commit, run_git, run_khlone, write

# -- found on disk, without any hook -------------------------------------------------------------


def codes(where: Path) -> set[tuple[str, str | None]]:
    """What the doctor finds: code and clone."""
    found = run_khlone("doctor", "--json", cwd=where).json()["findings"]
    return {(one["code"], one["clone"]) for one in found}


def rename_branch(project: Path, clone: Path) -> None:
    """`git branch -m`."""
    run_git("branch", "-m", "one", "uno", cwd=project)


def delete_branch(project: Path, clone: Path) -> None:
    """`git branch -D`, which git allows where the worktree is on no branch."""
    run_git("checkout", "-q", "--detach", cwd=clone)
    run_git("branch", "-D", "one", cwd=project)


def remove_worktree(project: Path, clone: Path) -> None:
    """`git worktree remove`, told twice that the lock does not matter."""
    run_git("worktree", "remove", "-f", "-f", str(clone), cwd=project)


def remove_all(project: Path, clone: Path) -> None:
    """Worktree and branch."""
    remove_worktree(project, clone)
    run_git("branch", "-D", "one", cwd=project)


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (rename_branch, {"branch-renamed"}),
        (delete_branch, {"branch-missing", "head-elsewhere"}),
        (remove_worktree, {"admin-missing", "worktree-missing"}),
        (remove_all, {"branch-missing", "admin-missing", "worktree-missing"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_git_did_to_a_clone_is_listed_found_and_mended(
    khlone: Khlone, repository: Path, act: Callable[[Path, Path], None], found: set[str]
) -> None:
    clone = new(khlone, repository, "one")
    new(khlone, repository, "two")
    tip = make_commit(clone, {"one.txt": "one\n"}, "one")

    act(repository, clone)

    listed = {one["name"]: one for one in document(khlone("list", "--json", cwd=repository), "list")["clones"]}
    assert (listed["one"]["state"], listed["two"]["state"]) == ("broken", "ready")
    assert listed["one"]["reason"]
    assert codes(repository) == {(code, "one") for code in found}
    document(khlone("doctor", "--fix", "--json", cwd=repository), "doctor")
    # The branch is back; that HEAD is beside it stays to be told.
    assert codes(repository) == ({("head-elsewhere", "one")} if act is delete_branch else set())
    mended = show(khlone, repository, "one")
    reason = f"its worktree has a detached HEAD at {tip[:10]}, not branch one" if act is delete_branch else None
    assert (mended["state"], mended["reason"]) == ("ready", reason)
    if act in (rename_branch, delete_branch, remove_worktree):
        assert mended["head"] == tip


def test_a_worktree_of_nobodys_is_no_fault_and_can_be_taken_up(
    git: Git, khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    new(khlone, repository, "one")

    git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), cwd=repository)

    assert codes(repository) == set()
    document(khlone("adopt", str(tmp_path / "linked"), "--json", cwd=repository), "adopt")
    assert show(khlone, repository, "linked")["branch"] == "linked"


# -- inside of git's hooks -------------------------------------------------------------------------

#: Every verb in an order that works, and its exit code; `one` has a commit that its target has not.
VERBS = (
    (0, "new made"),
    (0, "list"),
    (0, "show one"),
    (0, "path one"),
    (0, "env one"),
    (0, "cd one"),
    (0, "exec one -- git status --short"),
    (0, "diff one"),
    (0, "sync one"),
    (0, "merge one"),
    (0, "rename made again"),
    (0, "remove again"),
    (0, "trash"),
    (0, "restore again"),
    (0, "prune --dry-run"),
    (0, "log"),
    (0, "plugins"),
    (0, "hooks status"),
    (0, "doctor"),
    (0, "remove again --force"),
    (0, "undo"),
    (0, "remove again --force"),
)
#: Those that change most: enough where a case differs from another in what git does alone.
FEW = (
    *(verb for verb in VERBS if verb[1].split()[0] in ("new", "list", "exec", "sync", "merge")),
    (0, "remove made"),
    (0, "restore made"),
)


def calls_khlone(folder: Path, hook: str, log: Path, verbs: tuple[tuple[int, str], ...] = VERBS) -> None:
    """A hook that calls every verb, the first time that it is called, and logs how each ended."""
    guard = f'[ -e "{log}" ] && exit 0\n'
    lines = [f"{KHLONE} {words} >>{log}.out 2>&1; echo $? {words} >>{log}\n" for _, words in verbs]
    write(folder, {hook: f"#!/bin/sh\n{guard}: >>{log}\n{''.join(lines)}"})
    (folder / hook).chmod(0o755)


def outcome(log: Path) -> list[tuple[int, str]]:
    """How each verb ended."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [(int(code), words) for code, words in lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the calls are logged."""
    return tmp_path / "log"


@pytest.fixture
def project(git: Git, khlone: Khlone, repository: Path, tmp_path: Path) -> Path:
    """A repository with the clone `one`, which merges into `target`, and another linked worktree."""
    git("branch", "target", cwd=repository)
    make_commit(new(khlone, repository, "one", "--into", "target"), {"one.txt": "one\n"}, "one")
    git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), cwd=repository)
    return repository


def index_of(git_dir: Path) -> bytes:
    """The bytes of an index."""
    return (git_dir / "index").read_bytes()


@pytest.mark.parametrize("where", ["main", "linked"])
@pytest.mark.parametrize("words", [("-m", "x"), ("-a", "-m", "x"), ("-m", "x", "--", "README.md")], ids=" ".join)
def test_in_a_commits_hook_every_verb_works_on_this_repository_and_leaves_the_indexes_alone(
    git: Git, project: Path, tmp_path: Path, log: Path, where: str, words: tuple[str, ...]
) -> None:
    here = project if where == "main" else tmp_path / "linked"
    write(here, {"README.md": "changed\n", "docs/guide.md": "changed\n"})
    git("add", "README.md", cwd=here)
    verbs = VERBS if words == ("-a", "-m", "x") else FEW
    calls_khlone(project / ".git/hooks", "pre-commit", log, verbs)
    keep = project / ".git/hooks/pre-commit"
    one, other = next((project / ".git/worktrees").glob("one-*")), project / ".git"
    other = project / ".git/worktrees/linked" if where == "main" else other
    before = index_of(one), index_of(other)
    keep.write_text(
        keep.read_text().replace("#!/bin/sh\n", '#!/bin/sh\ncp "$GIT_INDEX_FILE" "$LOG.a"\n')
        + 'cp "$GIT_INDEX_FILE" "$LOG.b"\n'
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOG", str(log))
        git("commit", "-q", *words, cwd=here)

    assert outcome(log) == list(verbs), (tmp_path / "log.out").read_text()
    assert Path(f"{log}.a").read_bytes() == Path(f"{log}.b").read_bytes()
    assert (index_of(one), index_of(other)) == before
    committed = git("show", "--name-only", "--format=%s", "HEAD", cwd=here).split()
    assert committed == ["x", "README.md", *(["docs/guide.md"] if "-a" in words else [])]
    assert git("show", "target:one.txt", cwd=project) == "one\n"
    assert git("fsck", "--no-dangling", cwd=project) == ""


@pytest.mark.parametrize(
    ("hook", "words"),
    [("post-checkout", ("checkout", "-q", "-b", "mine")), ("reference-transaction", ("tag", "v1"))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_in_other_hooks_no_verb_waits_for_what_called_it(
    git: Git, project: Path, log: Path, hook: str, words: tuple[str, ...]
) -> None:
    calls_khlone(project / ".git/hooks", hook, log, FEW)

    git(*words, cwd=project)

    assert outcome(log) == list(FEW), log.with_name("log.out").read_text()
    assert git("fsck", "--no-dangling", cwd=project) == ""


def test_in_a_receiving_hook_every_verb_is_refused_and_nothing_changes(
    git: Git, project: Path, tmp_path: Path, log: Path
) -> None:
    git("clone", "-q", str(project), str(tmp_path / "sender"), cwd=tmp_path)
    make_commit(tmp_path / "sender", {"x": "x"}, "x")
    calls_khlone(project / ".git/hooks", "pre-receive", log)
    before = refs(git, project)

    git("push", "-q", "origin", "HEAD:refs/heads/pushed", cwd=tmp_path / "sender")

    without_repository = {"plugins"}
    ended = {words: code for code, words in outcome(log)}
    assert set(ended) == {words for _, words in VERBS}
    assert {code for words, code in ended.items() if words not in without_repository} == {77}
    assert [one for one in refs(git, project) if "pushed" not in one] == before


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_*", "all"])
def test_what_a_caller_sets_for_git_does_not_reach_the_git_of_khlone(
    git: Git, khlone: Khlone, project: Path, tmp_path: Path, name: str
) -> None:
    index = tmp_path / "an-index"
    index.write_bytes(b"not an index")
    every = {
        "GIT_DIR": str(project / ".git"),
        "GIT_WORK_TREE": str(project),
        "GIT_INDEX_FILE": str(index),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "no-objects"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.hooksPath",
        "GIT_CONFIG_VALUE_0": str(tmp_path / "hooks"),
        "GIT_CONFIG_PARAMETERS": "'core.bare'='true'",
    }
    wanted = name.rstrip("*")
    env = {key: value for key, value in every.items() if name == "all" or key.startswith(wanted)}
    if name == "GIT_WORK_TREE":
        env["GIT_DIR"] = every["GIT_DIR"]
    write(tmp_path / "hooks", {"post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (tmp_path / "hooks/post-checkout").chmod(0o755)
    before = index_of(project / ".git"), git("status", "--porcelain", cwd=project)

    verbs = VERBS if name == "all" else FEW
    ended = [(khlone(*words.split(), cwd=project, env=env).code, words) for _, words in verbs]

    assert ended == list(verbs)
    assert index.read_bytes() == b"not an index"
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "no-objects").exists()
    assert (index_of(project / ".git"), git("status", "--porcelain", cwd=project)) == before
    assert git("show", "target:one.txt", cwd=project) == "one\n"


# -- hooks that a branch brings along ----------------------------------------------------------------


@pytest.mark.parametrize("value", [".hk", ".husky/_", "./.hk"])
def test_hooks_of_a_relative_folder_do_not_run_where_a_clone_is_made(
    git: Git, khlone: Khlone, repository: Path, tmp_path: Path, value: str
) -> None:
    names = ("post-checkout", "reference-transaction", "post-index-change", "pre-commit", "post-commit")
    hooks = {f"{value}/{name}": f"#!/bin/sh\necho {name} >>{tmp_path}/ran\n" for name in names}
    make_commit(repository, hooks, "hooks")
    for name in hooks:
        (repository / name).chmod(0o755)
    git("commit", "-q", "-a", "-m", "executable", cwd=repository)
    git("config", "core.hooksPath", value, cwd=repository)
    git("worktree", "add", "-q", str(tmp_path / "control"), "-b", "control", cwd=repository)
    control = (tmp_path / "ran").read_text().split()
    (tmp_path / "ran").unlink()

    path = new(khlone, repository, "one")
    document(khlone("remove", "one", "--json", cwd=repository), "remove")
    document(khlone("restore", "one", "--json", cwd=repository), "restore")

    assert "post-checkout" in control
    assert not (tmp_path / "ran").exists()
    assert os.access(path / value / "post-checkout", os.X_OK)


def test_refused_in_a_hook_is_told_as_a_document(khlone: Khlone, repository: Path) -> None:
    found = refused(khlone("list", "--json", cwd=repository, env={"GIT_QUARANTINE_PATH": "x"}), "not-permitted", 77)

    assert "receive hook" in found["message"]
