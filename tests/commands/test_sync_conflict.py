"""`sync --conflict`: a conflict is handed to whoever works in the clone, and nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import landed, merge, shown, worked
from tests.commands.steps import NOTES, document, edited, local_state, new, refs
from tests.faults.lab import plugin
from tests.support import Commit, Done, Git, Khlone, write

WAYS = pytest.mark.parametrize("way", ["merge", "rebase"])


def sync(khlone: Khlone, where: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The document of a sync that ended with `code`."""
    return document(khlone("sync", *arguments, "--json", cwd=where), "sync", code)


def clashing(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """A clone that has changed the same line as its target."""
    path = worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "mine"), "more.txt": "more\n"})
    commit(project, {"notes.txt": edited(NOTES, 3, "theirs"), "fresh.txt": "fresh\n"}, "theirs")
    return path


@WAYS
def test_a_conflict_is_laid_out_settled_and_landed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = clashing(khlone, commit, project)

    [kept] = sync(khlone, project, "a", f"--{way}", "--conflict", code=4)["kept"]

    assert (kept["code"], kept["paths"], kept["laid_out"]) == ("conflict", ["notes.txt"], True)
    assert git("diff", "--name-only", "--diff-filter=U", cwd=path) == "notes.txt\n"
    assert (path / "fresh.txt").read_text() == "fresh\n"
    assert (path / "notes.txt").read_text().count("<<<<<<< ") == 1
    write(path, {"notes.txt": edited(NOTES, 3, "both")})
    git("add", "notes.txt", cwd=path)
    git("-c", "core.editor=true", way, "--continue", cwd=path)
    assert landed(merge(khlone, project, "a")) == ["a"]
    assert shown(git, project, "notes.txt") == edited(NOTES, 3, "both")


@WAYS
@pytest.mark.parametrize("point", ["sync.conflict-noted", "sync.conflict-laid-out"])
def test_whoever_is_killed_while_it_is_laid_out_leaves_the_clone_as_it_was_or_in_the_conflict(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str, point: str
) -> None:
    path = clashing(khlone, commit, project)

    killed = khlone("sync", "a", f"--{way}", "--conflict", cwd=project, env={"KHLONE_FAULT": point})
    next_one = khlone("new", "b", cwd=project)

    assert killed.code == -9
    is_laid_out = point == "sync.conflict-laid-out"
    assert ("a conflict waits in" if is_laid_out else "a is as it was") in next_one.err
    assert git("diff", "--name-only", "--diff-filter=U", cwd=path) == ("notes.txt\n" if is_laid_out else "")
    if is_laid_out:
        git(way, "--abort", cwd=path)
    assert git("status", "--porcelain", cwd=path) == ""
    assert khlone("doctor", cwd=project).code == 0
    assert "recovered" not in khlone("new", "c", cwd=project).err


def test_what_a_killed_git_has_left_half_done_is_told_until_its_files_are_whole(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = clashing(khlone, commit, project)
    env = {"KHLONE_FAULT": "sync.conflict-noted"}
    assert khlone("sync", "a", "--conflict", cwd=project, env=env).code == -9
    # As a git leaves it that has written one file of two, and no word of what it was at.
    write(path, {"notes.txt": "half of"})

    told = khlone("new", "b", cwd=project)
    kept = (path / "notes.txt").read_text()
    git("reset", "-q", "--hard", cwd=path)
    after = khlone("new", "c", cwd=project)

    assert (told.code, after.code, kept) == (0, 0, "half of")
    assert "git was killed while it laid out a conflict" in told.err
    assert "a is as it was" in after.err
    assert sync(khlone, project, "a", "--conflict", code=4)["kept"][0]["laid_out"] is True


@WAYS
@pytest.mark.parametrize("kills", [True, False], ids=["killed", "control"])
def test_a_git_that_is_killed_half_way_is_told_exactly_and_the_clone_is_named_until_it_is_whole(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str, kills: bool
) -> None:
    path = clashing(khlone, commit, project)
    # The filter of a file that comes after others kills the git that writes it, or does not.
    (project / ".git" / "info" / "attributes").write_text("z-last.txt filter=boom\n")
    commit(project, {"z-last.txt": "last\n"}, "theirs too")
    git("config", "--global", "filter.boom.smudge", "kill -9 $PPID; cat" if kills else "cat", cwd=project)
    git("config", "--global", "filter.boom.clean", "cat", cwd=project)

    done = khlone("sync", "a", f"--{way}", "--conflict", cwd=project)
    left = git("status", "--porcelain", "-uno", cwd=path)
    named = khlone("doctor", "--fix", cwd=project)

    assert "Traceback" not in done.err
    if not kills:
        assert (done.code, named.code) == (4, 0)
        assert "UU notes.txt" in left
        return
    assert done.code == 1
    told = ("git was killed while it laid out a conflict", "what it has begun waits in", "a is as it was")
    assert any(word in done.err for word in told)
    if told[0] in done.err:
        assert left
        assert (named.code, told[0] in named.out) == (1, True)
    git("config", "--global", "filter.boom.smudge", "cat", cwd=project)
    git("reset", "-q", "--hard", cwd=path)
    if told[1] in done.err:
        git(way, "--abort", cwd=path)
    assert khlone("doctor", "--fix", cwd=project).code == 0


@WAYS
def test_what_is_laid_out_can_be_taken_back_to_the_byte(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = clashing(khlone, commit, project)
    write(path, {"untracked.txt": "mine\n"})
    before = git("for-each-ref", cwd=project), local_state(git, path)

    done = khlone("sync", "a", f"--{way}", "--conflict", cwd=project)
    git(way, "--abort", cwd=path)

    assert done.code == 4
    assert f"git {way} --abort takes it back" in done.err
    assert (git("for-each-ref", cwd=project), local_state(git, path)) == before


@pytest.mark.parametrize(
    ("files", "code"),
    [({"notes.txt": "edited\n"}, "clone-dirty"), ({"fresh.txt": "the user's own\n"}, "clone-dirty")],
    ids=["an edit", "an untracked file in the way"],
)
@WAYS
def test_work_that_is_not_committed_is_never_mixed_with_a_conflict(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str, files: dict[str, str], code: str
) -> None:
    path = clashing(khlone, commit, project)
    write(path, files)
    before = refs(git, project), local_state(git, path)

    [kept] = sync(khlone, project, "a", f"--{way}", "--conflict", code=1)["kept"]

    assert (kept["code"], kept["paths"], kept["laid_out"]) == (code, list(files), False)
    assert (refs(git, project), local_state(git, path)) == before


@WAYS
def test_an_ignored_file_in_the_way_is_not_overwritten(
    khlone: Khlone, git: Git, commit: Commit, project: Path, way: str
) -> None:
    path = worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "mine")})
    write(path, {"secret.log": "the only copy\n"})
    write(project, {"secret.log": "a default\n", "notes.txt": edited(NOTES, 3, "theirs")})
    git("add", "-f", "secret.log", "notes.txt", cwd=project)
    git("commit", "-q", "-m", "theirs", cwd=project)
    before = refs(git, project), local_state(git, path)

    [kept] = sync(khlone, project, "a", f"--{way}", "--conflict", code=1)["kept"]

    assert (kept["code"], kept["paths"], kept["laid_out"]) == ("clone-dirty", ["secret.log"], False)
    assert (path / "secret.log").read_text() == "the only copy\n"
    assert (refs(git, project), local_state(git, path)) == before


def test_a_dry_run_lays_nothing_out(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = clashing(khlone, commit, project)
    before = refs(git, project), local_state(git, path)

    [kept] = sync(khlone, project, "a", "--conflict", "--dry-run", code=4)["kept"]

    assert kept["laid_out"] is False
    assert (refs(git, project), local_state(git, path)) == before


def test_without_a_conflict_it_is_an_ordinary_sync(khlone: Khlone, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(project, {"fresh.txt": "fresh\n"}, "theirs")

    found = sync(khlone, project, "a", "--conflict")

    assert ([one["name"] for one in found["synced"]], found["kept"]) == (["a"], [])
    assert (path / "fresh.txt").read_text() == "fresh\n"


def test_what_rerere_remembers_is_there_already(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("config", "rerere.enabled", "true", cwd=project)
    git("config", "rerere.autoUpdate", "true", cwd=project)
    path = clashing(khlone, commit, project)
    git("merge", "-q", "main", cwd=path, check=False)
    write(path, {"notes.txt": edited(NOTES, 3, "both")})
    git("commit", "-q", "-a", "--no-edit", cwd=path)
    git("reset", "-q", "--hard", "HEAD~1", cwd=path)

    done = khlone("sync", "a", "--conflict", "--json", cwd=project)

    [kept] = document(done, "sync", 4)["kept"]
    assert (kept["paths"], kept["laid_out"], "rerere has settled it" in kept["message"]) == ([], True, True)
    assert (path / "notes.txt").read_text() == edited(NOTES, 3, "both")


def test_the_hint_of_a_held_merge_leads_there(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = clashing(khlone, commit, project)
    git("branch", "other", "main", cwd=project)

    held: Done = khlone("merge", "a", cwd=project)
    elsewhere = khlone("merge", "a", "--into", "other", cwd=project)

    assert "git khlone sync --conflict a, and merge again" in held.err
    typed = "git merge other, settle the conflict, commit, and git khlone merge a --into other"
    assert f"to settle it in the clone: {typed}\n" in elsewhere.err
    assert khlone("sync", "--conflict", "a", cwd=project).code == 4
    assert git("rev-parse", "MERGE_HEAD", cwd=path) == git("rev-parse", "main", cwd=path)
    git("merge", "--abort", cwd=path)
    git("merge", "-q", "-X", "ours", "--no-edit", "other", cwd=path)
    assert landed(merge(khlone, project, "a", "--into", "other")) == ["a"]


def test_a_plugin_that_settles_the_conflict_spares_it(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    path = clashing(khlone, commit, project)
    code = (
        "from khlone import hookimpl\n\n"
        "@hookimpl\n"
        "def khlone_resolve_conflict(clone, conflict, worktree):\n"
        "    (worktree / 'notes.txt').write_text('settled\\n')\n"
        "    return True\n"
    )

    done = khlone("sync", "a", "--conflict", "--json", cwd=project, env=plugin(tmp_path / "plugin", code))

    assert [one["name"] for one in document(done, "sync")["synced"]] == ["a"]
    assert (path / "notes.txt").read_text() == "settled\n"
    assert "Conflict-resolved-by: odd" in git("log", "-1", "--format=%B", cwd=path)


def test_an_idle_clone_beside_one_in_conflict_is_synced(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    clashing(khlone, commit, project)
    other = new(khlone, project, "b", "--from", "main~1")

    found = sync(khlone, project, "--all", "--conflict", code=4)

    assert [one["name"] for one in found["synced"]] == ["b"]
    assert [(one["name"], one["laid_out"]) for one in found["kept"]] == [("a", True)]
    assert (other / "fresh.txt").exists()
    again = sync(khlone, project, "a", "--conflict", code=1)
    assert [(one["code"], one["laid_out"]) for one in again["kept"]] == [("clone-dirty", False)]
