"""`merge --rebase`: the commits of a clone land one by one, as `git rebase` would have made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import NOTES, document, edited, local_state, new, refs
from tests.support import Commit, Git, Khlone, write


def story(git: Git, where: Path, start: str, end: str) -> list[str]:
    """Author, date, message and tree of each commit between two, oldest first."""
    shown = git("log", "--reverse", "--date=raw", "--format=%T %an <%ae> %ad%n%B%x00", f"{start}..{end}", cwd=where)
    return shown.split("\0\n")


def rebased(git: Git, project: Path, branch: str) -> list[str]:
    """What the real `git rebase` makes of a branch, in a worktree of its own."""
    place = project.parent / f"real-{branch}"
    git("worktree", "add", "-q", "--detach", str(place), branch, cwd=project)
    git("rebase", "-q", "main", cwd=place)
    return story(git, place, "main", "HEAD")


def plain(git: Git, commit: Commit, path: Path) -> None:
    """Three commits, one by somebody else and long ago, one with a message of many kinds of lines."""
    commit(path, {"one.txt": "1\n", "src/two.txt": "2\n"}, "first of three")
    write(path, {"one.txt": "1\n1\n"})
    git("add", "one.txt", cwd=path)
    odd = "Über alles\n\n  indented\n# not a comment\n\n\nCo-Authored-By: X <x@example.invalid>"
    git("commit", "-q", "--cleanup=verbatim", "--author=Ör Other <o@example.invalid>", "-m", odd, cwd=path)
    git("commit", "-q", "--amend", "--no-edit", "--date=2001-02-03T04:05:06+0700", cwd=path)
    commit(path, {"notes.txt": edited(NOTES, 18, "changed below")}, "third of three")


def with_a_merge(git: Git, commit: Commit, path: Path) -> None:
    """A side branch that was merged in: its commits count, the merge does not."""
    commit(path, {"one.txt": "1\n"}, "one")
    git("checkout", "-q", "-b", "side", "HEAD~1", cwd=path)
    commit(path, {"side.txt": "s\n"}, "on the side")
    git("checkout", "-q", "work", cwd=path)
    git("merge", "-q", "--no-edit", "side", cwd=path)
    commit(path, {"two.txt": "2\n"}, "two")


def with_what_main_has(git: Git, commit: Commit, path: Path) -> None:
    """One commit is in main already as another commit, and one makes no change at all."""
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"both.txt": "both\n"}, "in both")
    git("commit", "-q", "--allow-empty", "-m", "empty from the start", cwd=path)
    commit(path, {"two.txt": "2\n"}, "two")


def with_kinds(git: Git, commit: Commit, path: Path) -> None:
    """Deletions, a new mode, a link, a folder in place of a file, a binary, an odd name."""
    git("rm", "-q", "docs/guide.md", cwd=path)
    (path / "link").symlink_to("README.md")
    (path / "src/app.py").chmod(0o755)
    git("add", "-A", cwd=path)
    git("commit", "-q", "-m", "kinds", cwd=path)
    git("rm", "-q", "README.md", cwd=path)
    write(path, {"README.md/inside": "x\n", "bytes": b"\0\1\2", "od\nd": "odd\n"})
    git("add", "-A", cwd=path)
    git("commit", "-q", "-m", "more kinds", cwd=path)


@pytest.mark.parametrize("work", [plain, with_a_merge, with_what_main_has, with_kinds])
def test_the_commits_are_those_that_git_rebase_makes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, work: Callable[[Git, Commit, Path], None]
) -> None:
    path = new(khlone, project, "work")
    work(git, commit, path)
    commit(project, {"notes.txt": edited(NOTES, 1, "changed above"), "both.txt": "both\n"}, "main goes on")
    before, tip = git("rev-parse", "main", cwd=project).strip(), git("rev-parse", "work", cwd=project).strip()
    expected = rebased(git, project, "work")

    found = document(khlone("merge", "--rebase", "work", "--json", cwd=project), "merge")

    assert [(one["name"], one["strategy"]) for one in found["landed"]] == [("work", "rebase")]
    assert story(git, project, before, "main") == expected
    assert git("rev-list", "--count", "--merges", f"{before}..main", cwd=project).strip() == "0"
    assert git("rev-parse", "work", cwd=project).strip() == tip
    assert git("status", "--porcelain", cwd=project) == ""


def test_a_target_that_has_not_moved_gets_the_very_same_commits(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "work")
    commit(path, {"one.txt": "1\n"}, "one")
    tip = commit(path, {"two.txt": "2\n"}, "two")

    found = document(khlone("merge", "--rebase", "work", "--json", cwd=project), "merge")

    assert found["new"] == tip
    assert git("rev-parse", "main", cwd=project).strip() == tip


def test_a_commit_that_does_not_apply_holds_the_clone_and_is_named(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "work")
    commit(path, {"one.txt": "1\n"}, "fits")
    bad = commit(path, {"notes.txt": edited(NOTES, 3, "theirs")}, "does not fit")
    commit(project, {"notes.txt": edited(NOTES, 3, "ours")}, "main goes on")
    before, state = refs(git, project), local_state(git, project)

    done = khlone("merge", "--rebase", "work", "--json", cwd=project)

    held = document(done, "merge", 4)["held"]
    assert [(one["name"], one["code"], one["paths"]) for one in held] == [("work", "conflict", ["notes.txt"])]
    assert bad[:10] in held[0]["message"]
    assert "does not fit" in held[0]["message"]
    assert refs(git, project) == before
    assert local_state(git, project) == state


def test_work_that_goes_on_lands_alone(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "work")
    commit(path, {"notes.txt": edited(NOTES, 3, "once")}, "once")
    commit(project, {"main.txt": "m\n"}, "main goes on")
    assert khlone("merge", "--rebase", "work", cwd=project).code == 0
    commit(path, {"notes.txt": edited(NOTES, 3, "twice")}, "twice")

    again = khlone("merge", "--rebase", "work", cwd=project)
    nothing = document(khlone("merge", "--rebase", "work", "--json", cwd=project), "merge")

    assert again.code == 0, again
    subjects = git("log", "--reverse", "--format=%s", "-3", "main", cwd=project).split("\n")
    assert subjects[:3] == ["main goes on", "once", "twice"]
    assert [one["code"] for one in nothing["held"]] == ["nothing-to-merge"]


def test_a_branch_whose_every_change_is_in_the_target_has_nothing_to_merge(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "work")
    commit(path, {"one.txt": "1\n"}, "one")
    commit(project, {"other.txt": "o\n"}, "main goes on")
    git("cherry-pick", "work", cwd=project)

    done = document(khlone("merge", "--rebase", "work", "--json", cwd=project), "merge")

    assert [one["code"] for one in done["held"]] == ["nothing-to-merge"]


def test_a_history_without_a_common_commit_is_refused(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("checkout", "-q", "--orphan", "apart", cwd=project)
    git("commit", "-q", "-m", "apart", cwd=project)
    git("checkout", "-q", "main", cwd=project)
    new(khlone, project, "work", "--from", "apart", "--into", "main")

    done = document(khlone("merge", "--rebase", "work", "--json", cwd=project), "merge", 1)

    assert [one["code"] for one in done["held"]] == ["unrelated-histories"]


def test_a_checked_out_target_with_local_work_elsewhere_gets_them_all(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "work")
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"two.txt": "2\n"}, "two")
    commit(project, {"main.txt": "m\n"}, "main goes on")
    write(project, {"notes.txt": "mine\n", "untracked.txt": "mine too\n"})
    state = local_state(git, project)

    done = khlone("merge", "--rebase", "work", cwd=project)

    assert done.code == 0, done
    assert local_state(git, project, without=["one.txt", "two.txt"]) == state
    assert (project / "two.txt").read_text() == "2\n"
