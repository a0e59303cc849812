"""A plugin resolves a conflicted merge: landed by the ordinary road when it is whole, else held as ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from khlone.testing import KhloneCommand, MakeClone
from tests.commands.merging import held, landed, message, parents, shown, worked
from tests.commands.merging import merge as merged
from tests.commands.merging import plugin as install
from tests.commands.steps import document, footprint, show
from tests.support import Commit, Git, Khlone, make_commit, run_git

#: Takes both sides, the target's first.
UNION = """
import subprocess
from khlone import hookimpl

def blob(clone, oid):
    return subprocess.run(["git", "-C", clone.path, "cat-file", "blob", oid], capture_output=True, check=True).stdout

@hookimpl
def khlone_resolve_conflict(clone, conflict):
    return {one.path: blob(clone, one.ours) + blob(clone, one.theirs) for one in conflict.files}
"""
HEAD = "from khlone import hookimpl\n\n@hookimpl\ndef khlone_resolve_conflict(clone, conflict, worktree):\n"


@pytest.fixture
def apart(khlone: Khlone, commit: Commit, repository: Path) -> Path:
    """A clone and main that have changed the same line; returns the clone's worktree."""
    path = worked(khlone, commit, repository, "one", {"word.txt": "theirs\n", "more.txt": "more\n"})
    commit(repository, {"word.txt": "ours\n"}, "ours")
    return path


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_a_resolution_lands_and_says_whose_it_is(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path, strategy: str
) -> None:
    before = git("rev-parse", "main", cwd=repository).strip()

    found = merged(khlone, repository, "one", strategy, env=install(tmp_path / "site", UNION))

    assert [(one["name"], one["resolved_by"]) for one in found["landed"]] == [("one", "tried")]
    assert shown(git, repository, "word.txt") == "ours\ntheirs\n"
    assert shown(git, repository, "more.txt") == "more\n"
    assert (repository / "word.txt").read_text() == "ours\ntheirs\n", "the checkout of main follows"
    assert message(git, repository, "main").splitlines()[-1] == "Conflict-resolved-by: tried"
    assert parents(git, repository, "main")[0] == before
    assert show(khlone, repository, "one")["merged"] is True
    assert list((repository / ".git" / "khlone" / "stage").iterdir()) == []


def test_a_conflict_of_one_commit_in_a_rebase_is_resolved_and_that_commit_says_so(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, apart: Path, tmp_path: Path
) -> None:
    commit(apart, {"later.txt": "later\n"}, "later")

    found = merged(khlone, repository, "one", "--rebase", env=install(tmp_path / "site", UNION))

    assert [(one["name"], one["strategy"], one["resolved_by"]) for one in found["landed"]] == [
        ("one", "rebase", "tried")
    ]
    assert shown(git, repository, "word.txt") == "ours\ntheirs\n"
    subjects = git("log", "--format=%s", "-3", "main", cwd=repository).splitlines()
    assert subjects == ["later", "work of one", "ours"]
    assert message(git, repository, "main~1") == "work of one\n\nConflict-resolved-by: tried\n"
    assert message(git, repository, "main") == "later\n"
    assert git("log", "-1", "--format=%an %ad", "main~1", cwd=repository) == git(
        "log", "-1", "--format=%an %ad", "HEAD~1", cwd=apart
    )


@pytest.mark.parametrize("words", [("sync", "--rebase", "one"), ("merge", "--rebase", "one")])
def test_a_rebase_that_a_plugin_does_not_resolve_is_held_with_the_commit_named(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    source = HEAD + "    return {'word.txt': b'<<<<<<< left\\n'}\n"
    before = footprint(git, repository)

    done = khlone(*words, cwd=repository, env=install(tmp_path / "site", source))

    assert done.code == 4
    assert "markers of the conflict are left in word.txt" in done.err
    assert "(work of one)" in done.err
    assert footprint(git, repository) == before


def test_a_merge_without_conflict_asks_nobody_and_names_nobody(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, repository, "one", {"new.txt": "new\n"})

    found = merged(khlone, repository, "one", env=install(tmp_path / "site", HEAD + "    raise RuntimeError\n"))

    assert found["landed"][0]["resolved_by"] is None
    assert "resolved" not in message(git, repository, "main").lower()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    return None\n", ""),
        ("    return False\n", ""),
        ("    return {}\n", "it leaves out word.txt"),
        ("    return {'word.txt': b'a', 'other.txt': b'b'}\n", "other.txt is in no conflict"),
        ("    return True\n", "markers of the conflict are left in word.txt"),
        ("    return {'word.txt': b'a\\n=======\\nb\\n'}\n", "markers of the conflict are left in word.txt"),
        ("    return {'word.txt': 'text'}\n", "it answered with str instead of bytes"),
        ("    return 7\n", "it answered with int"),
        ("    raise RuntimeError('no idea')\n", "no idea"),
        ("    from khlone import Refusal\n    raise Refusal('not that one')\n", "not that one"),
    ],
    ids=["none", "false", "part", "foreign", "untouched", "leftover", "text", "number", "raises", "refuses"],
)
def test_without_a_usable_resolution_the_clone_is_held_as_ever(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path, body: str, told: str
) -> None:
    before = footprint(git, repository)

    done = khlone("merge", "one", "--json", cwd=repository, env=install(tmp_path / "site", HEAD + body))

    found = document(done, "merge", 4)
    assert held(found) == [("one", "conflict")]
    assert found["held"][0]["paths"] == ["word.txt"]
    assert told in done.err
    assert "Traceback" not in done.err
    assert footprint(git, repository) == before
    assert (repository / "word.txt").read_text() == "ours\n"


def test_the_files_of_the_private_folder_are_the_resolution_when_the_answer_is_true(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path
) -> None:
    body = """\
    text = (worktree / "word.txt").read_text()
    assert "<<<<<<<" in text and [path.name for path in worktree.iterdir()] == ["word.txt"]
    (worktree / "word.txt").write_text("both\\n")
    (worktree / "beside.txt").write_text("not taken\\n")
    return True
"""

    found = merged(khlone, repository, "one", env=install(tmp_path / "site", HEAD + body))

    assert landed(found) == ["one"]
    assert shown(git, repository, "word.txt") == "both\n"
    assert "beside.txt" not in git("ls-tree", "-r", "--name-only", "main", cwd=repository)


def test_a_file_that_one_side_deleted_may_go_or_stay(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    commit(repository, {"gone.txt": "a\n", "kept.sh": "a\n"}, "two files")
    (repository / "kept.sh").chmod(0o755)
    git("commit", "-q", "-a", "-m", "executable", cwd=repository)
    path = worked(khlone, commit, repository, "one", {"gone.txt": "b\n", "kept.sh": "b\n"})
    git("rm", "-q", "gone.txt", "kept.sh", cwd=repository)
    git("commit", "-q", "-m", "both away", cwd=repository)
    body = """\
    sides = {one.path: (one.base is None, one.ours is None, one.theirs is None) for one in conflict.files}
    assert sides == {"gone.txt": (False, True, False), "kept.sh": (False, True, False)}, sides
    return {"gone.txt": None, "kept.sh": b"kept\\n"}
"""

    found = merged(khlone, repository, "one", env=install(tmp_path / "site", HEAD + body))

    assert landed(found) == ["one"], path
    assert git("ls-tree", "main", "gone.txt", cwd=repository) == ""
    assert git("ls-tree", "main", "kept.sh", cwd=repository).startswith("100755 ")
    assert shown(git, repository, "kept.sh") == "kept\n"


def test_lines_that_look_like_markers_may_stay_where_they_were(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    title = "Title\n=======\n"
    worked(khlone, commit, repository, "one", {"word.txt": f"{title}theirs\n"})
    commit(repository, {"word.txt": f"{title}ours\n"}, "ours")
    body = f"    return {{'word.txt': {title.encode()!r} + b'both\\n'}}\n"

    found = merged(khlone, repository, "one", env=install(tmp_path / "site", HEAD + body))

    assert landed(found) == ["one"]
    assert shown(git, repository, "word.txt") == f"{title}both\n"


def test_a_link_in_conflict_is_for_people(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    path = worked(khlone, commit, repository, "one", {"a.txt": "a\n"})
    for place, target in ((path, "one"), (repository, "two")):
        (place / "link").symlink_to(target)
        git("add", "link", cwd=place)
        git("commit", "-q", "-m", "a link", cwd=place)
    asked = HEAD + f"    open({str(tmp_path / 'asked')!r}, 'w').close()\n    return True\n"

    found = merged(khlone, repository, "one", code=4, env=install(tmp_path / "site", asked))

    assert held(found) == [("one", "conflict")]
    assert not (tmp_path / "asked").exists()


def test_a_dry_run_says_what_would_land_and_changes_nothing(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path
) -> None:
    before = footprint(git, repository)

    found = merged(khlone, repository, "one", "--dry-run", env=install(tmp_path / "site", UNION))

    assert found["landed"][0]["resolved_by"] == "tried"
    assert footprint(git, repository) == before


def test_a_gate_sees_the_resolved_commit_and_may_refuse_it(
    khlone: Khlone, git: Git, repository: Path, apart: Path, tmp_path: Path
) -> None:
    gate = """
from khlone import Verdict

@hookimpl
def khlone_gate(clone, candidate):
    return Verdict(passed=candidate.resolved_by is None, gate="people", message=f"{candidate.resolved_by} was here")
"""
    before = git("rev-parse", "main", cwd=repository)

    done = khlone("merge", "one", "--json", cwd=repository, env=install(tmp_path / "site", UNION + gate))

    assert held(document(done, "merge", 5)) == [("one", "gate-failed")]
    assert "tried was here" in done.err
    assert git("rev-parse", "main", cwd=repository) == before


def test_an_author_sees_the_call_through_the_fixtures(
    khlone_repository: Path, khlone_command: KhloneCommand, make_clone: MakeClone, tmp_path: Path
) -> None:
    clone = make_clone("one")
    make_commit(clone.path, {"app.py": "theirs\n"}, "theirs")
    make_commit(khlone_repository, {"app.py": "ours\n"}, "ours")

    done = khlone_command("merge", "one", env={"PYTHONPATH": str(install(tmp_path / "site", UNION)["PYTHONPATH"])})

    assert done.code == 0, done.err
    assert "plugin 'tried' has resolved the conflict in app.py" in done.err
    assert run_git("show", "main:app.py", cwd=khlone_repository) == "ours\ntheirs\n"
