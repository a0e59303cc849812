"""What happens to a clone's branch from outside is refused or told at once where hooks are installed, cheaply."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import branches, document, new, show
from tests.support import Git, Khlone, make_commit, run_git


@pytest.fixture
def project(khlone: Khlone, repository: Path) -> Path:
    """A repository with hooks everywhere and the clone `one`."""
    document(khlone("hooks", "install", "--all", "--json", cwd=repository), "hooks")
    make_commit(new(khlone, repository, "one"), {"one.txt": "one\n"}, "one")
    return repository


@pytest.fixture
def clone(project: Path) -> Path:
    """The worktree of the clone."""
    return project.parent / "project.clones" / "one"


def said(*words: str, cwd: Path) -> str:
    """What a git command tells on stderr, however it ends."""
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr


def moves(project: Path) -> list[list[str]]:
    """What the hooks noted, one list of words a movement."""
    files = sorted((project / ".git/khlone/run").glob("*.moves"))
    return [line.split() for file in files for line in file.read_text().splitlines()]


# -- deletion ------------------------------------------------------------------------------------


def detach(clone: Path) -> None:
    """git itself keeps a branch that is checked out."""
    run_git("checkout", "-q", "--detach", cwd=clone)


@pytest.mark.parametrize(
    "words",
    [
        ("branch", "-D", "one"),
        ("branch", "-D", "other", "one"),
        ("update-ref", "-d", "refs/heads/one"),
        ("push", "-q", ".", ":one"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_a_clones_branch_is_not_deleted_from_outside(
    git: Git, project: Path, clone: Path, words: tuple[str, ...], packed: bool
) -> None:
    detach(clone)
    git("branch", "other", cwd=project)
    if packed:
        git("pack-refs", "--all", cwd=project)
    before = branches(git, project)["one"]

    told = said(*words, cwd=project)

    assert branches(git, project)["one"] == before
    assert "khlone: one is the branch of the clone one and is kept" in told
    assert "hint: git khlone remove one" in told


def test_a_branch_with_letters_that_json_escapes_is_guarded_too(git: Git, khlone: Khlone, project: Path) -> None:
    git("branch", "b\u00fc'$(x)\"", cwd=project)
    new(khlone, project, "odd", "--branch", "b\u00fc'$(x)\"")

    git("update-ref", "-d", "refs/heads/b\u00fc'$(x)\"", cwd=project, check=False)

    assert "b\u00fc'$(x)\"" in branches(git, project)


def test_khlone_itself_may_delete_it(git: Git, khlone: Khlone, project: Path) -> None:
    new(khlone, project, "two")

    found = document(khlone("remove", "two", "--json", cwd=project), "remove")

    assert found["removed"][0]["branch_deleted"]
    assert "two" not in branches(git, project)


def pack(project: Path) -> None:
    """Loose refs go, and the branches stay."""
    run_git("pack-refs", "--all", cwd=project)


def collect(project: Path) -> None:
    """The same, and more."""
    run_git("gc", "-q", "--prune=now", cwd=project)


def rename_and_back(project: Path) -> None:
    """The old name goes."""
    run_git("branch", "-m", "one", "uno", cwd=project)
    run_git("branch", "-m", "uno", "one", cwd=project)


def delete_others(project: Path) -> None:
    """A branch of nobody's."""
    run_git("branch", "one-more", cwd=project)
    run_git("branch", "-D", "one-more", cwd=project)


def fetch(project: Path) -> None:
    """Many refs at once, some of them gone again."""
    lines = "".join(f"create refs/remotes/origin/b{number} HEAD\n" for number in range(200))
    run_git("update-ref", "--stdin", cwd=project, input=lines)
    run_git("update-ref", "--stdin", cwd=project, input=lines.replace("create", "delete").replace(" HEAD", ""))


@pytest.mark.parametrize("act", [pack, collect, rename_and_back, delete_others, fetch], ids=lambda act: act.__name__)
def test_what_is_no_deletion_of_a_clones_branch_passes(git: Git, project: Path, act: Callable[[Path], None]) -> None:
    before = branches(git, project)

    act(project)

    assert branches(git, project) == before
    assert git("fsck", "--no-dangling", cwd=project) == ""


def test_one_among_many_is_found(git: Git, project: Path, clone: Path) -> None:
    detach(clone)
    oid = git("rev-parse", "HEAD", cwd=project).strip()
    many = "".join(f"create refs/heads/b{number:03} {oid}\n" for number in range(100))
    git("update-ref", "--stdin", cwd=project, input=many)

    git(
        "update-ref",
        "--stdin",
        cwd=project,
        input=many.replace("create", "delete") + "delete refs/heads/one\n",
        check=False,
    )

    assert len(branches(git, project)) == 102


# -- told at once ----------------------------------------------------------------------------------


def test_a_rename_is_told_and_noted_and_the_doctor_follows_it(khlone: Khlone, project: Path) -> None:
    told = said("branch", "-m", "one", "uno", cwd=project)

    assert "khlone: one, the branch of the clone one, was renamed" in told
    assert moves(project)[-1][-1] == "renamed"
    khlone("doctor", "--fix", cwd=project)
    assert show(khlone, project, "one")["branch"] == "uno"


def test_a_commit_from_outside_is_told_and_noted(git: Git, project: Path) -> None:
    old = branches(git, project)["one"]
    new_oid = git("rev-parse", "main", cwd=project).strip()

    told = said("update-ref", "refs/heads/one", new_oid, old, cwd=project)

    assert "khlone: one, the branch of the clone one, was moved from outside it" in told
    assert moves(project)[-1][2:] == [old, new_oid, "moved"]


def test_a_checkout_elsewhere_is_told(project: Path) -> None:
    told = said("checkout", "-q", "--ignore-other-worktrees", "one", cwd=project)

    assert told == "khlone: one is the branch of the clone one; it is checked out here too\n"


def test_a_clone_that_leaves_its_branch_is_told(project: Path, clone: Path) -> None:
    assert said("checkout", "-q", "-b", "side", cwd=clone) == (
        "khlone: this is the clone one, whose branch is one; side is not\n"
    )
    assert said("checkout", "-q", "one", cwd=clone) == ""
    assert said("checkout", "-q", "--detach", cwd=clone) == ""


def test_a_worktree_of_nobodys_is_told(project: Path, tmp_path: Path) -> None:
    told = said("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), cwd=project)

    assert told == "khlone: this worktree is none of khlone's; git khlone adopt makes a clone of it\n"


def test_work_that_concerns_no_clone_is_told_nothing(project: Path) -> None:
    assert said("commit", "-q", "--allow-empty", "-m", "x", cwd=project) == ""
    assert said("checkout", "-q", "-b", "mine", cwd=project) == ""
    assert said("commit", "-q", "--amend", "--allow-empty", "-m", "y", cwd=project) == ""
    assert said("tag", "v1", cwd=project) == ""


# -- noted -----------------------------------------------------------------------------------------


def test_every_movement_in_a_clone_is_noted(git: Git, khlone: Khlone, project: Path, clone: Path) -> None:
    start = git("rev-parse", "HEAD", cwd=clone).strip()
    first = make_commit(clone, {"a.txt": "a\n"}, "a")
    git("commit", "-q", "--amend", "-m", "amended", cwd=clone)
    amended = git("rev-parse", "HEAD", cwd=clone).strip()
    make_commit(project, {"main.txt": "main\n"}, "main")
    git("merge", "-q", "--no-edit", "main", cwd=clone)
    merged = git("rev-parse", "HEAD", cwd=clone).strip()

    noted = [line[2:] for line in moves(project)]

    assert noted[-3:] == [
        [start, first, "commit"],
        [first, amended, "commit"],
        [amended, merged, "merge"],
    ]
    place = document(khlone("hooks", "status", "--json", cwd=project), "hooks")["worktrees"][1]
    assert (place["clone"], place["moves"]) == ("one", len(noted))
    assert place["last_move_at"].endswith("Z")


def test_what_is_noted_is_bounded(project: Path, clone: Path) -> None:
    file = next((project / ".git/khlone/run").glob("*.moves"))
    file.write_text("line\n" * 500)
    file.with_name(file.name + ".count").write_text("500\n")

    make_commit(clone, {"a.txt": "a\n"}, "a")

    assert file.read_text().count("\n") == 1
    assert file.with_name(file.name + ".before").read_text().count("\n") == 500


# -- cheap -----------------------------------------------------------------------------------------


@pytest.mark.needs_strace
@pytest.mark.parametrize(
    ("words", "most"),
    [
        (("commit", "-q", "--allow-empty", "-m", "x"), set()),
        (("update-ref", "refs/remotes/origin/x", "HEAD"), set()),
        (("branch", "-f", "mine", "HEAD~1"), {"grep"}),
        (("checkout", "-q", "-b", "other"), {"grep"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_outside_of_clones_the_hooks_start_next_to_nothing(
    git: Git, project: Path, tmp_path: Path, words: tuple[str, ...], most: set[str]
) -> None:
    git("branch", "mine", "HEAD~1", cwd=project)
    git("commit", "-q", "--allow-empty", "-m", "later", cwd=project)
    trace = tmp_path / "trace"

    done = subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-o", str(trace), "git", *words], cwd=project, timeout=60, check=False
    )

    calls = [
        line.split('"')[1] for line in trace.read_text().splitlines() if "execve(" in line and line.endswith("= 0")
    ]
    started = {Path(call).name for call in calls}
    ours = {"post-commit", "post-checkout", "prepare-commit-msg", "reference-transaction"}
    assert done.returncode == 0
    assert started & ours
    assert started - ours - {"git"} <= most
