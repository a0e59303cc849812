"""`conflicts`: who would conflict with whom is told as git would tell it, and nothing is changed by the question."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import NOTES, common_dir, document, edited, local_state, new, refs, refused
from tests.support import Commit, Git, Khlone, write


def conflicts(khlone: Khlone, where: Path, *words: str) -> dict[str, Any]:
    """What `conflicts` answers."""
    return document(khlone("conflicts", *words, "--json", cwd=where), "conflicts")


def found_pairs(found: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """The paths in conflict by the two that conflict."""
    return {(pair["a"], pair["b"]): pair["paths"] for pair in found["pairs"]}


def worked(
    khlone: Khlone, commit: Commit, project: Path, name: str, files: Mapping[str, str | bytes], *options: str
) -> Path:
    """A clone with one commit of these files."""
    path = new(khlone, project, name, *options)
    commit(path, files, name)
    return path


def loose_objects(git: Git, where: Path) -> list[str]:
    """Every object that the repository has, reached or not."""
    return sorted(git("cat-file", "--batch-all-objects", "--batch-check", "--unordered", cwd=where).splitlines())


def plain_pairs(where: Path, sides: Sequence[str]) -> set[tuple[str, str]]:
    """The pairs of branches that one `git merge-tree` for each finds conflicts in."""
    found = set()
    for one, other in itertools.combinations(sides, 2):
        done = subprocess.run(["git", "merge-tree", "--write-tree", one, other], cwd=where, capture_output=True)
        assert done.returncode in (0, 1), done
        if done.returncode == 1:
            found.add((one, other))
    return found


def test_a_pair_and_a_target_in_conflict_are_named_with_their_paths_and_nothing_is_changed(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 3, "a"), "src/app.txt": edited(NOTES, 3, "a")})
    worked(khlone, commit, project, "b", {"notes.txt": edited(NOTES, 3, "b"), "src/app.txt": edited(NOTES, 3, "b")})
    worked(khlone, commit, project, "c", {"src/lib/deep.txt": "c\n"})
    worked(khlone, commit, project, "d", {"notes.txt": edited(NOTES, 17, "d")})
    commit(project, {"src/lib/deep.txt": "main\n"}, "the target moves")
    before = refs(git, project), loose_objects(git, project)

    found = conflicts(khlone, project)

    assert found_pairs(found) == {("a", "b"): ["notes.txt", "src/app.txt"], ("c", "main"): ["src/lib/deep.txt"]}
    assert found["order"] == ["d", "a", "b", "c"]
    assert (refs(git, project), loose_objects(git, project)) == before
    assert list((common_dir(git, project) / "khlone" / "stage").iterdir()) == []


def test_people_are_told_in_lines(khlone: Khlone, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "a\n"})
    worked(khlone, commit, project, "b", {"notes.txt": "b\n"})

    done = khlone("conflicts", cwd=project)

    assert done.out.splitlines() == ["a and b conflict: notes.txt", "order: a b"]


def test_exactly_those_conflict_that_git_says_of_each_pair_alone_in_two_git_processes(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    names = [f"n{number:02}" for number in range(12)]
    for number, name in enumerate(names):
        line = edited(NOTES, number % 5 * 4, name)
        worked(khlone, commit, project, name, {"notes.txt": line, f"own/{name}.txt": name})
    commit(project, {"notes.txt": edited(NOTES, 8, "main")}, "the target moves")
    expected = plain_pairs(project, names) | {pair for pair in plain_pairs(project, [*names, "main"]) if "main" in pair}
    trace = tmp_path / "trace"
    trace.mkdir()
    git("config", "--global", "trace2.eventTarget", str(trace), cwd=project)

    found = conflicts(khlone, project)

    started = [json.loads(file.read_text().splitlines()[1])["argv"] for file in trace.iterdir()]
    assert set(found_pairs(found)) == expected
    assert 10 < len(expected) < 66
    assert sum("merge-tree" in argv for argv in started) == 1
    assert len(started) <= 2, started


def test_names_limit_what_is_compared_and_into_takes_the_place_of_targets(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("a", "b", "c"):
        worked(khlone, commit, project, name, {"notes.txt": f"{name}\n"})
    git("branch", "release", "a", cwd=project)

    limited = conflicts(khlone, project, "c", "a", "c")
    elsewhere = conflicts(khlone, project, "b", "--into", "release")

    assert found_pairs(limited) == {("a", "c"): ["notes.txt"]}
    assert limited["order"] == ["a", "c"]
    assert found_pairs(elsewhere) == {("b", "release"): ["notes.txt"]}
    refused(khlone("conflicts", "nobody", "--json", cwd=project), "no-such-clone", 1)
    assert khlone("conflicts", "--into", "nowhere", cwd=project).code != 0


@pytest.mark.parametrize(
    "name", ["a b.txt", "line\nend.txt", 'quo"te\\.txt', "tab\t.txt", "\udcff.txt", "-dash", "ü/ß.txt"]
)
def test_a_path_in_conflict_may_have_any_name(khlone: Khlone, commit: Commit, project: Path, name: str) -> None:
    worked(khlone, commit, project, "a", {name: "a\n"})
    worked(khlone, commit, project, "b", {name: "b\n"})

    found = conflicts(khlone, project)

    assert [[path.encode(errors="surrogateescape") for path in pair["paths"]] for pair in found["pairs"]] == [
        [name.encode(errors="surrogateescape")]
    ]


def test_uncommitted_work_counts_when_asked_for_and_the_clone_stays_byte_for_byte(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"new.txt": "a\n", "notes.txt": edited(NOTES, 3, "a")})
    path = new(khlone, project, "b")
    write(path, {"new.txt": "untracked\n", "notes.txt": edited(NOTES, 3, "b"), "seen.log": "ignored\n"})
    write(path, {"src/app.txt": "staged\n"})
    git("add", "src/app.txt", cwd=path)
    index = Path(git("rev-parse", "--path-format=absolute", "--git-path", "index", cwd=path).strip())
    local = local_state(git, path)
    before = index.read_bytes(), index.stat().st_mtime_ns, refs(git, path), loose_objects(git, path)

    committed = conflicts(khlone, project)
    found = conflicts(khlone, project, "--uncommitted")

    assert committed["pairs"] == []
    assert found_pairs(found) == {("a", "b"): ["new.txt", "notes.txt"]}
    assert (index.read_bytes(), index.stat().st_mtime_ns, refs(git, path), loose_objects(git, path)) == before
    assert local_state(git, path) == local
    assert list((common_dir(git, project) / "khlone" / "stage").iterdir()) == []


def test_a_repository_inside_a_clone_does_not_hide_the_rest_of_its_work(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"new.txt": "a\n"})
    path = new(khlone, project, "b")
    write(path, {"new.txt": "b\n"})
    git("init", "-q", "inner", cwd=path)

    found = conflicts(khlone, project, "--uncommitted")

    assert found_pairs(found) == {("a", "b"): ["new.txt"]}


def test_the_order_lands_more_than_its_reverse(khlone: Khlone, commit: Commit, project: Path) -> None:
    # The first of all conflicts with each of the others, which go together.
    worked(khlone, commit, project, "a", {f"{name}.txt": "a\n" for name in "bcd"})
    for name in "bcd":
        worked(khlone, commit, project, name, {f"{name}.txt": f"{name}\n"})
    order = conflicts(khlone, project)["order"]

    def lands(names: Sequence[str]) -> list[str]:
        return [one["name"] for one in khlone("merge", *names, "--json", cwd=project).json()["landed"]]

    backwards = lands(order[::-1][:2])
    khlone("undo", "--json", cwd=project)
    forwards = lands(order)

    assert order == ["b", "c", "d", "a"]
    assert backwards == ["a"]
    assert forwards == ["b", "c", "d"]


def test_clones_without_a_shared_history_do_not_keep_others_from_being_compared(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": "a\n"})
    worked(khlone, commit, project, "z", {"notes.txt": "z\n"})
    tree = git("mktree", cwd=project, input="").strip()
    git("branch", "other", git("commit-tree", tree, "-m", "a root", cwd=project).strip(), cwd=project)
    worked(khlone, commit, project, "m", {"notes.txt": "m\n"}, "--from", "other", "--into", "main")

    found = found_pairs(conflicts(khlone, project))

    assert set(found) == {("a", "z"), ("a", "m"), ("m", "z"), ("m", "main")}


def test_a_clone_whose_branch_is_gone_is_left_out_and_told(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    for name in ("a", "b", "c"):
        worked(khlone, commit, project, name, {"notes.txt": f"{name}\n"})
    git("update-ref", "-d", "refs/heads/b", cwd=project)

    done = khlone("conflicts", "--json", cwd=project)

    assert set(found_pairs(document(done, "conflicts"))) == {("a", "c")}
    assert "b" in done.err
