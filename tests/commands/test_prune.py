"""`prune`: what is done with goes to the trash, old trash goes for good, what is nowhere else stays."""

from __future__ import annotations

import contextlib
import datetime
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.merging import merge, plugin, worked
from tests.commands.steps import branches, clone_names, document, footprint, new, refs, refused, trash, tree
from tests.support import KHLONE, Commit, Git, Khlone, write

EMPTY: dict[str, Any] = {"schema": "khlone.prune/1", "removed": [], "kept": [], "purged": []}


def prune(khlone: Khlone, where: Path, *words: str, env: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """The document of a prune, which ends with 0 whatever it keeps."""
    return document(khlone("prune", *words, "--json", cwd=where, env=env), "prune")


def removed(found: Mapping[str, Any]) -> list[str]:
    """The names of the clones that went."""
    return [one["name"] for one in found["removed"]]


def kept(found: Mapping[str, Any]) -> dict[str, str]:
    """The code of each clone or entry that stayed, by name."""
    return {one["name"]: one["code"] for one in found["kept"]}


# -- clones --------------------------------------------------------------------------------


def merged(khlone: Khlone, git: Git, commit: Commit, project: Path, name: str) -> None:
    worked(khlone, commit, project, name, {f"{name}.txt": "work\n"})
    merge(khlone, project, name)


def squashed(khlone: Khlone, git: Git, commit: Commit, project: Path, name: str) -> None:
    path = worked(khlone, commit, project, name, {f"{name}.txt": "one\n"})
    commit(path, {f"{name}.txt": "two\n"}, "more")
    merge(khlone, project, name, "--squash")


def rebased_by_hand(khlone: Khlone, git: Git, commit: Commit, project: Path, name: str) -> None:
    worked(khlone, commit, project, name, {f"{name}.txt": "work\n"})
    commit(project, {"between.txt": "between\n"}, "between")
    git("cherry-pick", name, cwd=project)


DONE_WITH = (merged, squashed, rebased_by_hand)


@pytest.mark.parametrize("how", DONE_WITH, ids=lambda how: how.__name__)
def test_what_is_integrated_clean_and_idle_goes_to_the_trash(
    khlone: Khlone, git: Git, commit: Commit, project: Path, how: Callable[..., None]
) -> None:
    how(khlone, git, commit, project, "done")

    found = prune(khlone, project)

    (entry,) = trash(khlone, project)
    assert found == {**EMPTY, "removed": [{"name": "done", "trash": entry["trash"], "branch_deleted": True}]}
    assert clone_names(khlone, project) == []
    assert branches(git, project).keys() == {"main"}
    assert khlone("restore", "done", cwd=project).code == 0


def test_without_clones_there_is_nothing_to_do(khlone: Khlone, project: Path) -> None:
    assert prune(khlone, project) == EMPTY
    assert prune(khlone, project, "--trash") == EMPTY
    assert not (project / ".git" / "khlone").exists()
    assert "nothing to prune" in khlone("prune", cwd=project).err


def test_what_is_not_done_with_stays_and_is_named(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    names = ("dirty", "untracked", "unmerged", "locked", "busy", "stashed")
    paths = {name: worked(khlone, commit, project, name, {f"{name}.txt": "work\n"}) for name in names}
    merge(khlone, project, "dirty", "untracked", "locked", "busy", "stashed")
    new(khlone, project, "untouched")
    write(paths["dirty"], {"notes.txt": "edited\n"})
    write(paths["untracked"], {"new.txt": "new\n"})
    git("worktree", "unlock", str(paths["locked"]), cwd=project)
    git("worktree", "lock", "--reason", "mine", str(paths["locked"]), cwd=project)
    write(paths["stashed"], {"notes.txt": "edited\n"})
    git("stash", cwd=paths["stashed"])
    merged(khlone, git, commit, project, "done")

    with subprocess.Popen(["cat"], cwd=paths["busy"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as inside:
        found = prune(khlone, project)
        inside.communicate()

    assert removed(found) == ["done"]
    assert kept(found) == {
        "busy": "session-live",
        "dirty": "has-changes",
        "locked": "clone-locked",
        "stashed": "has-changes",
        "unmerged": "not-integrated",
        "untouched": "untouched",
        "untracked": "has-changes",
    }
    assert all(one["name"] in one["message"] for one in found["kept"])
    assert "mine" in next(one["message"] for one in found["kept"] if one["name"] == "locked")
    assert clone_names(khlone, project) == sorted(kept(found))


def test_a_clone_that_has_moved_on_after_its_merge_stays(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "work\n"})
    merge(khlone, project, "a")
    commit(path, {"a.txt": "more\n"}, "more")

    assert kept(prune(khlone, project)) == {"a": "not-integrated"}


def test_a_broken_clone_is_named_and_stops_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "broken", {"broken.txt": "work\n"})
    merged(khlone, git, commit, project, "done")
    path.rename(path.with_name("moved"))
    path.mkdir()
    (path / "theirs.txt").write_text("theirs\n")

    found = prune(khlone, project)

    assert removed(found) == ["done"]
    assert kept(found) == {"broken": "clone-not-ready"}
    assert (path / "theirs.txt").read_text() == "theirs\n"


@pytest.mark.parametrize("place", ["worktree", "subfolder", "from-C", "exec", "session elsewhere"])
def test_the_clone_it_is_called_from_stays(khlone: Khlone, git: Git, commit: Commit, project: Path, place: str) -> None:
    merged(khlone, git, commit, project, "here")
    merged(khlone, git, commit, project, "other")
    path = project.with_name("project.clones") / "here"
    git("config", "--global", "khlone.session.allow", "prune", cwd=project)
    if place == "exec":
        done = khlone("exec", "here", "--", str(KHLONE), "prune", "--json", cwd=project)
    elif place == "session elsewhere":
        script = f"cd {project} && exec {KHLONE} prune --json"
        done = khlone("exec", "here", "--", "sh", "-c", script, cwd=project)
    else:
        where = path / "src" if place == "subfolder" else path
        done = khlone(*(("-C", str(project)) if place == "from-C" else ()), "prune", "--json", cwd=where)

    found = document(done, "prune")

    assert removed(found) == ["other"]
    assert kept(found) == {"here": "session-live"}
    assert path.is_dir()


def test_a_veto_keeps_one_and_no_other(khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path) -> None:
    source = """
from khlone import Refusal, hookimpl

@hookimpl
def khlone_pre_cleanup(clone, plan):
    if clone.name == "a":
        raise Refusal("a is needed")
"""
    for name in ("a", "b"):
        merged(khlone, git, commit, project, name)

    found = prune(khlone, project, env=plugin(tmp_path / "site", source))

    assert (removed(found), kept(found)) == (["b"], {"a": "vetoed"})


def test_a_dry_run_says_the_same_and_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    merged(khlone, git, commit, project, "done")
    worked(khlone, commit, project, "open", {"open.txt": "work\n"})
    before = footprint(git, project)

    found = prune(khlone, project, "--dry-run")
    text = khlone("prune", "--dry-run", cwd=project)

    assert footprint(git, project) == before
    assert (removed(found), kept(found)) == (["done"], {"open": "not-integrated"})
    assert trash(khlone, project) == []
    assert "done would be in the trash" in text.out
    assert "kept: open has 1 commit" in text.err


# -- the trash -----------------------------------------------------------------------------


@pytest.fixture
def thrown_away(khlone: Khlone, commit: Commit, project: Path) -> Callable[..., str]:
    """`thrown_away(name, **files)` makes a clone with a commit and an ignored file, and removes it; returns its id."""

    def throw(name: str, *, ignored: int = 4096) -> str:
        path = worked(khlone, commit, project, name, {f"{name}.txt": "work\n"})
        write(path, {"untracked.txt": f"untracked of {name}\n", "notes.txt": "edited\n", "big.log": "x" * ignored})
        found = document(khlone("remove", "--force", name, "--json", cwd=project), "remove")
        return str(found["removed"][0]["trash"])

    return throw


@contextlib.contextmanager
def registry(project: Path) -> Iterator[sqlite3.Connection]:
    """The registry's file, without khlone."""
    connection = sqlite3.connect(project / ".git/khlone/registry.sqlite3", timeout=20)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def set_age(project: Path, entry: str, days: float) -> None:
    """Let a trash entry be so old."""
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    with registry(project) as connection:
        connection.execute("UPDATE trash SET removed_at = ? WHERE id = ?", (then.isoformat(), entry))


def ids(khlone: Khlone, project: Path) -> list[str]:
    """The ids of what is in the trash, newest first."""
    return [entry["trash"] for entry in trash(khlone, project)]


def with_files(khlone: Khlone, project: Path) -> set[str]:
    """The ids of trash entries whose folders are there."""
    return {entry["trash"] for entry in trash(khlone, project) if entry["bytes"]}


#: (options, khlone.trash.age, what goes of something 31 days old, 10 days old, and half a day in the future)
AGES: list[tuple[tuple[str, ...], str | None, list[str]]] = [
    ((), None, ["old"]),
    (("--age", "90d"), None, []),
    (("--age", "8w"), None, []),
    (("--age", "24h"), None, ["old", "middle"]),
    (("--age", "2"), None, ["old", "middle"]),
    ((), "9d", ["old", "middle"]),
    (("--age", "90d"), "1d", []),
]


def test_what_is_older_than_the_age_goes(
    khlone: Khlone, git: Git, project: Path, thrown_away: Callable[..., str]
) -> None:
    days = {"old": 31.0, "middle": 10.0, "fresh": -0.5}
    entries = {name: thrown_away(name) for name in days}
    for name, entry in entries.items():
        set_age(project, entry, days[name])

    for words, setting, going in AGES:
        git("config", "--unset", "khlone.trash.age", cwd=project, check=False)
        if setting is not None:
            git("config", "khlone.trash.age", setting, cwd=project)
        would = prune(khlone, project, "--trash", *words, "--dry-run")["purged"]
        assert would == [entries[name] for name in going], (words, setting)
    git("config", "--unset", "khlone.trash.age", cwd=project)
    found = prune(khlone, project, "--trash")

    assert found == {**EMPTY, "purged": [entries["old"]]}
    assert with_files(khlone, project) == {entries["middle"], entries["fresh"]}


def test_beyond_the_size_the_oldest_go_first(
    khlone: Khlone, git: Git, project: Path, thrown_away: Callable[..., str]
) -> None:
    entries = [thrown_away(name, ignored=1 << 20) for name in ("first", "second", "third")]

    found = prune(khlone, project, "--trash", "--size", "2500K")
    assert found == {**EMPTY, "purged": entries[:1]}
    assert with_files(khlone, project) == set(entries[1:])
    (project / ".khlone.toml").write_text('[trash]\nsize = "1500K"\n')
    assert prune(khlone, project, "--trash", "--dry-run")["purged"] == entries[1:2]
    git("config", "khlone.trash.size", "500K", cwd=project)
    assert prune(khlone, project, "--trash")["purged"] == entries[1:]

    assert prune(khlone, project, "--trash", "--size", "0")["purged"] == []


def test_what_is_on_no_branch_can_still_be_restored_without_its_ignored_files(
    khlone: Khlone, git: Git, project: Path, thrown_away: Callable[..., str]
) -> None:
    entry = thrown_away("a")
    git("branch", "-D", "a", cwd=project)

    done = khlone("prune", "--trash", "--age", "0", "--json", cwd=project)
    assert document(done, "prune")["purged"] == [entry]
    assert "what git has of them stays in trash" in done.err
    (left,) = trash(khlone, project)
    assert (left["trash"], left["bytes"], left["holds"]["ignored"]) == (entry, 0, 0)
    assert sorted(path.name for path in (project / ".git/khlone/trash").glob("*/*/*")) == ["meta.json"]
    git("reflog", "expire", "--expire=now", "--all", cwd=project)
    git("gc", "-q", "--prune=now", cwd=project)
    restored = khlone("restore", "a", cwd=project)

    path = Path(restored.out.strip().splitlines()[-1])
    assert restored.code == 0
    assert "ignored files are not in it" in restored.err
    assert (path / "a.txt").read_text() == "work\n"
    assert (path / "untracked.txt").read_text() == "untracked of a\n"
    assert (path / "notes.txt").read_text() == "edited\n"
    assert not (path / "big.log").exists()
    assert git("fsck", "--no-dangling", cwd=project) == ""


def test_what_a_branch_contains_vanishes_wholly(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "work\n"})
    write(path, {"big.log": "ignored\n"})
    merge(khlone, project, "a", "--remove")
    (entry,) = ids(khlone, project)

    done = khlone("prune", "--trash", "--age", "0", "--json", cwd=project)

    assert document(done, "prune")["purged"] == [entry]
    assert "stays in trash" not in done.err
    assert ids(khlone, project) == []
    assert list((project / ".git/khlone/trash").iterdir()) == []
    assert git("for-each-ref", "refs/khlone", cwd=project) == ""
    assert not list(Path(os.environ["XDG_STATE_HOME"]).glob("khlone/repositories/*/trash/*"))
    refused(khlone("restore", "a", "--json", cwd=project), "no-such-trash")
    assert document(khlone("doctor", "--json", cwd=project), "doctor")["findings"] == []


def test_a_branch_that_vanishes_before_a_killed_purge_is_finished_keeps_its_snapshot(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "work\n"})
    khlone("remove", "--force", "a", cwd=project)
    assert khlone("prune", "--trash", "--age", "0", cwd=project, env={"KHLONE_FAULT": "purge.worktree"}).code == -9
    git("branch", "-D", "a", cwd=project)

    khlone("doctor", "--fix", cwd=project)
    git("reflog", "expire", "--expire=now", "--all", cwd=project)
    git("gc", "-q", "--prune=now", cwd=project)
    done = khlone("restore", "a", cwd=project)

    assert done.code == 0, done
    assert (Path(done.out.strip().splitlines()[-1]) / "a.txt").read_text() == "work\n"


def test_an_edit_in_the_moment_the_index_was_written_is_in_the_snapshot(
    khlone: Khlone, git: Git, project: Path
) -> None:
    """Same size and same time as when git looked last: only the time of the index tells git to look again."""
    git("config", "core.trustctime", "false", cwd=project)
    path = new(khlone, project, "a")
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=path).strip())
    then = 1_500_000_000
    os.utime(path / "notes.txt", (then, then))
    git("update-index", "--refresh", cwd=path)
    os.utime(index, (then, then))
    with open(path / "notes.txt", "r+") as stream:
        stream.write("LINE")
    os.utime(path / "notes.txt", (then, then))
    edited = (path / "notes.txt").read_bytes()

    khlone("remove", "--force", "a", cwd=project)
    assert len(prune(khlone, project, "--trash", "--age", "0")["purged"]) == 1
    khlone("restore", "a", cwd=project)

    assert (path / "notes.txt").read_bytes() == edited


@pytest.mark.parametrize("inside", ["commits", "staged", "files", "nothing"])
@pytest.mark.parametrize("place", ["inner", "deep/er/inner"])
def test_a_repository_inside_that_git_has_no_copy_of_keeps_the_entry(
    khlone: Khlone, git: Git, commit: Commit, project: Path, inside: str, place: str
) -> None:
    """Without a commit of its own git takes it for a folder like any other, or fails of it."""
    path = new(khlone, project, "a")
    git("init", "-q", place, cwd=path)
    write(path / place, {} if inside == "nothing" else {"inner.txt": "inner\n"})
    if inside == "commits":
        commit(path / place, {"inner.txt": "inner\n"}, "inner")
    elif inside == "staged":
        git("add", "inner.txt", cwd=path / place)
    whole = tree(path)
    khlone("remove", "--force", "a", cwd=project)
    before = tree(project / ".git/khlone/trash")

    dry = prune(khlone, project, "--trash", "--age", "0", "--dry-run")
    found = prune(khlone, project, "--trash", "--age", "0")

    assert (found["purged"], kept(found)) == ([], {"a": "only-copy"})
    assert dry == found
    assert f"{place.split('/')[0]}/" in found["kept"][0]["message"]
    assert tree(project / ".git/khlone/trash") == before
    assert khlone("restore", "a", cwd=project).code == 0
    assert tree(path) == whole


@pytest.mark.parametrize("readable", [True, False], ids=["readable", "unreadable"])
def test_work_that_could_not_be_snapshotted_keeps_the_entry(
    khlone: Khlone, git: Git, project: Path, readable: bool
) -> None:
    """The snapshot then is the branch's tip alone, which a branch may well contain."""
    path = new(khlone, project, "a")
    write(path, {"notes.txt": "edited\n"})
    khlone("remove", "--force", "a", cwd=project)
    with registry(project) as connection:
        connection.execute("UPDATE trash SET snapshot = head")
    if not readable:
        (index,) = (project / ".git/khlone/trash").glob("*/*/admin/index")
        index.write_bytes(b"no index")

    found = prune(khlone, project, "--trash", "--age", "0")

    assert (found["purged"], kept(found)) == ([], {"a": "only-copy"})
    assert khlone("restore", "a", cwd=project).code == 0
    assert (path / "notes.txt").read_text() == "edited\n"


def test_a_dry_run_purges_nothing(khlone: Khlone, git: Git, project: Path, thrown_away: Callable[..., str]) -> None:
    entry = thrown_away("a")
    before = (trash(khlone, project), tree(project / ".git/khlone/trash"), refs(git, project))

    found = prune(khlone, project, "--trash", "--age", "0", "--dry-run")
    text = khlone("prune", "--trash", "--age", "0", "--dry-run", cwd=project)

    assert found == {**EMPTY, "purged": [entry]}
    assert f"{entry} would be purged" in text.out
    assert (trash(khlone, project), tree(project / ".git/khlone/trash"), refs(git, project)) == before


def test_without_trash_no_trash_goes(khlone: Khlone, project: Path, thrown_away: Callable[..., str]) -> None:
    entry = thrown_away("a")
    set_age(project, entry, 1000)

    assert prune(khlone, project) == EMPTY
    assert with_files(khlone, project) == {entry}


def test_an_entry_that_is_being_restored_is_left_to_that(
    khlone: Khlone, project: Path, thrown_away: Callable[..., str]
) -> None:
    thrown_away("a")
    with subprocess.Popen(
        [KHLONE, "restore", "a"],
        cwd=project,
        env={**os.environ, "KHLONE_FAULT": "restore.reserved:stop"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as restoring:
        os.waitid(os.P_PID, restoring.pid, os.WSTOPPED)
        found = prune(khlone, project, "--trash", "--age", "0")
        restoring.send_signal(18)

    assert found == EMPTY
    assert restoring.returncode == 0
    assert (project.with_name("project.clones") / "a" / "big.log").exists()


# -- clocks --------------------------------------------------------------------------------


def set_last_operation(project: Path, days: float) -> None:
    """Let everything here have been done so long ago, which is what a clock that was set forward sees."""
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    with registry(project) as connection:
        connection.execute("UPDATE operations SET started_at = ?, ended_at = ?", (then.isoformat(), then.isoformat()))
        connection.execute("UPDATE trash SET removed_at = ?", (then.isoformat(),))


def test_a_clock_that_is_years_ahead_lets_nothing_go_by_age_unless_told(
    khlone: Khlone, project: Path, thrown_away: Callable[..., str]
) -> None:
    entry = thrown_away("a")
    set_last_operation(project, 3650)

    done = khlone("prune", "--trash", "--json", cwd=project)

    assert document(done, "prune") == EMPTY
    assert "warning: the clock is far ahead" in done.err
    assert with_files(khlone, project) == {entry}
    assert prune(khlone, project, "--trash", "--age", "30d")["purged"] == [entry]


def test_a_clock_that_is_years_ahead_still_lets_the_size_be_kept(
    khlone: Khlone, project: Path, thrown_away: Callable[..., str]
) -> None:
    entry = thrown_away("a")
    set_last_operation(project, 3650)

    assert prune(khlone, project, "--trash", "--size", "0")["purged"] == [entry]


def test_a_clock_that_was_set_back_makes_nothing_old(
    khlone: Khlone, project: Path, thrown_away: Callable[..., str]
) -> None:
    thrown_away("a")
    set_last_operation(project, -3650)

    for words in ((), ("--age", "1s"), ("--age", "0")):
        done = khlone("prune", "--trash", *words, "--json", cwd=project)
        assert document(done, "prune") == EMPTY
        assert "warning" not in done.err


# -- what cannot be meant ------------------------------------------------------------------


@pytest.mark.parametrize("age", ["soon", "-1d", "1y", "1.5d", "1d2h", "99999999999d", "d"])
def test_an_age_that_is_none_is_refused(khlone: Khlone, git: Git, project: Path, age: str) -> None:
    error = refused(khlone("prune", "--trash", f"--age={age}", "--json", cwd=project), "usage", 2)

    assert repr(age) in error["message"]
    git("config", "khlone.trash.age", age, cwd=project)
    refused(khlone("prune", "--trash", "--json", cwd=project), "invalid-setting", 2)


@pytest.mark.parametrize("size", ["big", "-1", "1P", "1.5G"])
def test_a_size_that_is_none_is_refused(khlone: Khlone, git: Git, project: Path, size: str) -> None:
    refused(khlone("prune", "--trash", f"--size={size}", "--json", cwd=project), "usage", 2)
    git("config", "khlone.trash.size", size, cwd=project)
    refused(khlone("prune", "--trash", "--json", cwd=project), "invalid-setting", 2)


@pytest.mark.parametrize("words", [("--age", "1d"), ("--size", "1G"), ("a",), ("--trash", "a")], ids=" ".join)
def test_words_that_belong_to_the_trash_or_to_nothing_are_a_usage_error(
    khlone: Khlone, git: Git, commit: Commit, project: Path, words: Sequence[str]
) -> None:
    merged(khlone, git, commit, project, "done")

    refused(khlone("prune", *words, "--json", cwd=project), "usage", 2)

    assert clone_names(khlone, project) == ["done"]


# -- other file systems --------------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_what_is_mounted_inside_is_not_entered_and_nothing_round_it_goes(
    khlone: Khlone, git: Git, project: Path, thrown_away: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    thrown_away("a")
    thrown_away("b")
    (folder,) = (project / ".git/khlone/trash").glob("*/*/worktree/a.txt")
    mounted = folder.with_name("mounted.log")
    mounted.mkdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    how = ["-t", "tmpfs", "none"] if kind == "tmpfs" else ["--bind", str(theirs)]
    subprocess.run(["mount", *how, mounted], check=True)
    try:
        (mounted / "file").write_text("theirs")
        before = tree(folder.parent)

        found = prune(khlone, project, "--trash", "--age", "0")

        assert tree(folder.parent) == before
        assert kept(found) == {"a": "state-unsafe"}
        assert str(mounted) in found["kept"][0]["message"]
        assert len(found["purged"]) == 1
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert len(prune(khlone, project, "--trash", "--age", "0")["purged"]) == 1
