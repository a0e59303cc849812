"""An admin folder appears whole and as git would make it, and a broken one is told and harms nobody."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from khlone import worktrees
from tests.commands.steps import tree
from tests.support import Git, git_version

MARKED = {"id": "1", "odd": "caf\udce9"}


@pytest.fixture
def common(repository: Path) -> Path:
    return repository / ".git"


@pytest.fixture
def linked(repository: Path, git: Git, tmp_path: Path) -> Path:
    """The admin folder of a worktree that git made, on branch `side`."""
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"), cwd=repository)
    return repository / ".git" / "worktrees" / "linked"


def make(common: Path, worktree: Path, head: str, *, source: Path | None = None) -> Path:
    """A worktree as khlone makes one, before its checkout; returns the admin folder."""
    staged = common / "khlone-stage"
    admin = common / "worktrees" / (worktree.name if worktree.name.isascii() else "odd")
    worktrees.stage(
        staged,
        worktree=worktree,
        head=head,
        locked="khlone",
        marker=MARKED,
        source_git_dir=source or common,
        common_dir=common,
        durable=True,
    )
    worktrees.publish(staged, admin, durable=True)
    worktrees.link(worktree, admin, durable=True)
    return admin


# -- as git would make it ------------------------------------------------------------------


def test_an_admin_folder_is_as_git_makes_it_but_for_the_marker(repository: Path, git: Git, tmp_path: Path) -> None:
    common = repository / ".git"
    git("branch", "one", cwd=repository)
    git("branch", "two", cwd=repository)
    git(
        *("worktree", "add", "-q", "--no-checkout", "--lock", "--reason", "khlone", str(tmp_path / "one"), "one"),
        cwd=repository,
    )

    make(common, tmp_path / "two", "ref: refs/heads/two")

    theirs, ours = tree(common / "worktrees" / "one"), tree(common / "worktrees" / "two")
    ours.pop(worktrees.MARKER)
    for name in ("ORIG_HEAD", "logs", "logs/HEAD", "index", "refs"):
        theirs.pop(name, None)
    assert {
        name: (kind, mode, content.replace(b"two", b"one")) for name, (kind, mode, content) in ours.items()
    } == theirs
    assert (tmp_path / "two" / ".git").read_text().replace("two", "one") == (tmp_path / "one" / ".git").read_text()
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == stat.S_IMODE((tmp_path / "one").stat().st_mode)


def test_git_works_in_a_published_worktree(repository: Path, git: Git, tmp_path: Path) -> None:
    git("branch", "side", cwd=repository)
    worktree = tmp_path / os.fsdecode(b"caf\xc3\xa9 two")

    make(repository / ".git", worktree, "ref: refs/heads/side")

    git("reset", "-q", "--hard", cwd=worktree)
    assert git("status", "--porcelain", cwd=worktree) == ""
    assert git("symbolic-ref", "HEAD", cwd=worktree) == "refs/heads/side\n"
    assert str(worktree) in git("-c", "core.quotePath=false", "worktree", "list", cwd=repository)
    assert git("fsck", cwd=repository) == ""
    assert git("worktree", "prune", "--expire=now", "-v", cwd=repository) == ""


def test_a_name_that_git_has_is_never_published_over(repository: Path, linked: Path, tmp_path: Path) -> None:
    before = tree(linked)
    (tmp_path / "staged").mkdir()

    with pytest.raises(FileExistsError):
        worktrees.publish(tmp_path / "staged", linked, durable=False)

    assert tree(linked) == before


def test_the_leftover_of_a_killed_staging_is_begun_anew(common: Path, tmp_path: Path) -> None:
    (common / "khlone-stage" / "info").mkdir(parents=True)
    (common / "khlone-stage" / "HEAD").write_text("ref: refs/heads/other\n")

    admin = make(common, tmp_path / "two", "ref: refs/heads/main")

    assert (admin / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert not (admin / "info").exists()


def test_sparse_patterns_and_configuration_are_carried_over_as_git_does(
    repository: Path, git: Git, tmp_path: Path
) -> None:
    git("sparse-checkout", "set", "docs", cwd=repository)
    git("config", "--worktree", "khlone.agent", "here", cwd=repository)
    git("worktree", "add", "-q", "--no-checkout", "--detach", str(tmp_path / "one"), cwd=repository)

    admin = make(repository / ".git", tmp_path / "two", git("rev-parse", "HEAD", cwd=repository).strip())

    one, two = (repository / ".git" / "worktrees" / name for name in ("one", "two"))
    assert admin == two
    for name in ("config.worktree", "info/sparse-checkout"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    git("reset", "-q", "--hard", cwd=tmp_path / "two")
    assert not (tmp_path / "two" / "src").exists()
    assert (tmp_path / "two" / "docs" / "guide.md").exists()


def test_what_belongs_to_one_worktree_alone_is_not_carried_over(repository: Path, git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", str(repository), str(tmp_path / "bare.git"), cwd=tmp_path)
    bare = tmp_path / "bare.git"
    git("worktree", "add", "-q", str(tmp_path / "first"), "main", cwd=bare)
    git("sparse-checkout", "set", "docs", cwd=tmp_path / "first")
    git("config", "--worktree", "core.worktree", "/elsewhere", cwd=bare)
    git("branch", "side", "main", cwd=bare)
    before = (bare / "config.worktree").read_text()

    make(bare, tmp_path / "second", "ref: refs/heads/side")

    git("reset", "-q", "--hard", cwd=tmp_path / "second")
    assert "bare = true" in before
    assert (bare / "config.worktree").read_text() == before
    copied = (bare / "worktrees" / "second" / "config.worktree").read_text()
    assert "bare" not in copied
    assert "elsewhere" not in copied


# -- links ---------------------------------------------------------------------------------


def test_a_linked_worktree_is_known_by_the_file_that_git_wrote(linked: Path, tmp_path: Path) -> None:
    assert worktrees.is_linked(tmp_path / "linked", linked)
    assert not worktrees.is_linked(tmp_path / "linked", linked.with_name("other"))
    assert not worktrees.is_linked(tmp_path / "absent", linked)


@pytest.mark.parametrize("how", ["link", "folder", "fifo", "longer", "shorter"])
def test_a_worktree_whose_link_is_anything_else_is_not_ours(linked: Path, tmp_path: Path, how: str) -> None:
    dot_git = tmp_path / "linked" / ".git"
    content = dot_git.read_bytes()
    dot_git.unlink()
    if how == "link":
        (tmp_path / "same").write_bytes(content)
        dot_git.symlink_to(tmp_path / "same")
    elif how == "folder":
        dot_git.mkdir()
    elif how == "fifo":
        os.mkfifo(dot_git)
    else:
        dot_git.write_bytes(content + b"more" if how == "longer" else content[:-3])

    assert not worktrees.is_linked(tmp_path / "linked", linked)


def test_an_admin_folder_is_pointed_elsewhere_and_git_follows(linked: Path, git: Git, tmp_path: Path) -> None:
    git("branch", "other", cwd=tmp_path / "linked")
    (tmp_path / "linked").rename(tmp_path / "moved")

    worktrees.point_at(linked, tmp_path / "moved", head="ref: refs/heads/other")

    assert git("symbolic-ref", "HEAD", cwd=tmp_path / "moved") == "refs/heads/other\n"
    found = worktrees.read_entry(linked)
    assert found is not None
    assert (found.worktree, found.branch) == (tmp_path / "moved", "refs/heads/other")


# -- reading -------------------------------------------------------------------------------


def test_an_entry_says_what_git_wrote(linked: Path, git: Git, tmp_path: Path) -> None:
    git("worktree", "lock", "--reason", "because", str(tmp_path / "linked"), cwd=tmp_path / "linked")
    worktrees.write_marker(linked, MARKED)

    [found] = worktrees.entries(linked.parent.parent)

    assert (found.name, found.path, found.worktree) == ("linked", linked, tmp_path / "linked")
    assert (found.branch, found.locked, found.marker, found.problem) == ("refs/heads/side", "because", MARKED, None)


def test_a_repository_without_linked_worktrees_has_no_entries(common: Path) -> None:
    assert worktrees.entries(common) == []


def test_a_path_that_is_relative_to_the_admin_folder_is_understood(linked: Path, tmp_path: Path) -> None:
    (linked / "gitdir").write_text(os.path.relpath(tmp_path / "linked" / ".git", linked) + "\n")

    found = worktrees.read_entry(linked)

    assert found is not None
    assert found.worktree == tmp_path / "linked"


DAMAGE = {
    "commondir empty": ("commondir", b"", "commondir is missing or empty"),
    "commondir of blanks": ("commondir", b"\n", "commondir is missing or empty"),
    "commondir missing": ("commondir", None, "commondir is missing or empty"),
    "HEAD empty": ("HEAD", b"", "HEAD is missing or empty"),
    "HEAD of zeros in it": ("HEAD", b"0" * 40 + b"\n", "HEAD is the null oid"),
    "HEAD missing": ("HEAD", None, "HEAD is missing or empty"),
    "gitdir empty": ("gitdir", b"", "gitdir is missing or empty"),
    "gitdir missing": ("gitdir", None, "gitdir is missing or empty"),
    "HEAD of junk": ("HEAD", b"junk\n", "HEAD is damaged"),
    "HEAD cut off": ("HEAD", b"ref: refs/heads/", "HEAD is damaged"),
    "HEAD with zero bytes": ("HEAD", b"ref: refs/heads/si\0\0\n", "HEAD is damaged"),
    "gitdir of junk": ("gitdir", b"junk\n", "gitdir is damaged"),
    "gitdir with zero bytes": ("gitdir", bytes(30), "gitdir is damaged"),
    "commondir of junk": ("commondir", b"junk\n", "commondir is damaged"),
    "commondir of zero bytes": ("commondir", bytes(6), "commondir is damaged"),
    "commondir of another place": ("commondir", b"..\n", "commondir is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_entry_is_told_and_hides_no_other(repository: Path, linked: Path, git: Git, damage: str) -> None:
    name, content, problem = DAMAGE[damage]
    git("worktree", "add", "-q", "--detach", str(repository.parent / "whole"), cwd=repository)
    (linked / name).unlink()
    if content is not None:
        (linked / name).write_bytes(content)

    found = {entry.name: entry for entry in worktrees.entries(repository / ".git")}

    assert found["linked"].problem == problem
    assert found["whole"].problem is None


def test_a_broken_entry_is_what_makes_git_itself_give_up(repository: Path, linked: Path) -> None:
    (linked / "commondir").write_bytes(b"")

    done = subprocess.run(["git", "worktree", "list"], cwd=repository, capture_output=True, check=False)

    assert done.returncode != 0, "the control: git dies of what `entries` reads"


def test_what_is_no_folder_is_no_entry(common: Path, linked: Path, tmp_path: Path) -> None:
    (linked.parent / "file").write_text("")
    (linked.parent / "link").symlink_to(linked)
    (linked.parent / "empty").mkdir()

    assert {entry.name: entry.problem for entry in worktrees.entries(common)} == {
        "empty": "commondir is missing or empty and HEAD is missing or empty and gitdir is missing or empty",
        "linked": None,
    }


@pytest.mark.parametrize("name", ["HEAD", "gitdir", "commondir", "locked", worktrees.MARKER])
@pytest.mark.parametrize("make_it", ["fifo", "folder", "large"])
def test_a_file_that_is_no_plain_one_is_never_waited_for(linked: Path, name: str, make_it: str) -> None:
    (linked / name).unlink(missing_ok=True)
    if make_it == "fifo":
        os.mkfifo(linked / name)
    elif make_it == "folder":
        (linked / name).mkdir()
    else:
        (linked / name).write_bytes(b"x" * (1 << 20))

    found = worktrees.read_entry(linked)

    assert found is not None
    assert found.locked is None
    assert found.marker is None
    assert (found.problem is None) == (name in ("locked", worktrees.MARKER))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_marker_that_is_none_is_left_out(linked: Path, content: bytes) -> None:
    (linked / worktrees.MARKER).write_bytes(content)

    found = worktrees.read_entry(linked)

    assert found is not None
    assert found.marker is None


def test_a_head_that_is_a_symbolic_link_is_read_by_name(common: Path) -> None:
    (common / "HEAD").unlink()
    (common / "HEAD").symlink_to("refs/heads/main")

    assert worktrees.branch_of(worktrees.read_head(common)) == "refs/heads/main"


# -- what is checked out -------------------------------------------------------------------


def checked_out(repository: Path) -> set[tuple[str, str]]:
    """(branch, name of the worktree) of all that is held."""
    found = worktrees.checkouts(repository / ".git", repository, bare=False)
    return {(ref.removeprefix("refs/heads/"), worktree.name) for ref, worktree, _ in found}


def test_branches_are_held_by_the_worktrees_that_have_them(repository: Path, linked: Path, git: Git) -> None:
    git("worktree", "add", "-q", "--detach", str(repository.parent / "detached"), cwd=repository)

    assert checked_out(repository) == {("main", "project"), ("side", "linked")}


def test_a_bare_repository_holds_no_branch_itself(repository: Path, linked: Path) -> None:
    found = list(worktrees.checkouts(repository / ".git", None, bare=True))

    assert [ref for ref, _, _ in found] == ["refs/heads/side"]


def test_a_branch_is_held_while_it_is_bisected(repository: Path, linked: Path, git: Git, tmp_path: Path) -> None:
    git("bisect", "start", "HEAD", "HEAD~2", cwd=tmp_path / "linked")

    assert ("side", "linked") in checked_out(repository)
    assert worktrees.branch_of(worktrees.read_head(linked)) is None
    assert worktrees.in_progress(linked) == "bisect"


@pytest.mark.parametrize("backend", ["--merge", "--apply"])
def test_a_branch_is_held_while_it_is_rebased(
    repository: Path, linked: Path, git: Git, tmp_path: Path, backend: str
) -> None:
    stop_a_rebase(git, tmp_path / "linked", backend)

    assert ("side", "linked") in checked_out(repository)
    assert worktrees.branch_of(worktrees.read_head(linked)) is None
    assert worktrees.in_progress(linked) == "rebase"


def stop_a_rebase(git: Git, worktree: Path, *options: str) -> None:
    """Rebase two commits, of which the first conflicts; a branch `under` points at the first."""
    (worktree / "README.md").write_text("theirs\n")
    git("commit", "-q", "-a", "-m", "one", cwd=worktree)
    git("branch", "under", cwd=worktree)
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=worktree)
    git("branch", "onto", "HEAD~3", cwd=worktree)
    git("switch", "-q", "--detach", "onto", cwd=worktree)
    (worktree / "README.md").write_text("ours\n")
    git("commit", "-q", "-a", "-m", "onto", cwd=worktree)
    git("branch", "-f", "onto", cwd=worktree)
    git("switch", "-q", "side", cwd=worktree)
    git("rebase", *options, "onto", cwd=worktree, check=False)


def test_branches_that_a_rebase_moves_along_are_held_as_git_holds_them(
    repository: Path, linked: Path, git: Git, tmp_path: Path
) -> None:
    stop_a_rebase(git, tmp_path / "linked", "--update-refs")

    held = {branch for branch, worktree in checked_out(repository) if worktree == "linked"}

    assert git_version() >= (2, 38)
    refused = {
        branch
        for branch in ("side", "under", "onto")
        if "is already" in tried(repository, branch) or "is used by" in tried(repository, branch)
    }
    assert {"side", "under"} <= held
    assert refused <= held


def tried(repository: Path, branch: str) -> str:
    """What git says to a wish for that branch elsewhere."""
    done = subprocess.run(["git", "switch", branch], cwd=repository, capture_output=True, text=True, check=False)
    subprocess.run(["git", "switch", "-q", "main"], cwd=repository, check=True)
    return done.stderr


@pytest.mark.parametrize(
    ("name", "what"),
    [("MERGE_HEAD", "merge"), ("CHERRY_PICK_HEAD", "cherry-pick"), ("REVERT_HEAD", "revert"), (None, None)],
)
def test_what_is_under_way_is_known_by_its_file(common: Path, name: str | None, what: str | None) -> None:
    if name is not None:
        (common / name).write_text("")

    assert worktrees.in_progress(common) == what
