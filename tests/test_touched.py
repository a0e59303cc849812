"""Which pairs of branches need a merge to be judged: never is a conflict overlooked, and most merges are spared."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from khlone import discovery
from khlone.operations import touched
from khlone.repository import Repository
from tests.support import Git

BRANCHES = 32


class History:
    """Random branches of one repository, made by one `git fast-import`; each has a tree of paths and contents."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stream: list[str] = []
        self.marks = 0
        self.trees: dict[int, dict[str, str]] = {}

    def commit(self, branch: str, parents: list[int], tree: Mapping[str, str]) -> int:
        """Add a commit with exactly this tree."""
        self.marks += 1
        lines = [
            f"commit refs/heads/{branch}",
            f"mark :{self.marks}",
            f"committer a <a@b> {self.marks} +0000",
            "data 0",
        ]
        lines += [f"from :{parents[0]}"] if parents else []
        lines += [f"merge :{other}" for other in parents[1:]]
        lines.append("deleteall")
        for path, content in tree.items():
            lines += [f"M 100644 inline {path}", f"data {len(content)}", content]
        self.stream += lines
        self.trees[self.marks] = dict(tree)
        return self.marks

    def repository(self, git: Git, folder: Path) -> Path:
        """A repository with all of it."""
        git("init", "-q", "-b", "main", str(folder / "random"), cwd=folder)
        stream = "\n".join(self.stream).encode() + b"\n"
        subprocess.run(["git", "fast-import", "--quiet"], input=stream, cwd=folder / "random", check=True)
        return folder / "random"

    def text(self) -> str:
        """Content that renames can be found by, of a few lines."""
        return "".join(f"line {self.random.randrange(10**9)}\n" for _ in range(6))

    def changed(self, tree: dict[str, str]) -> dict[str, str]:
        """The tree after one change of any kind."""
        path = self.random.choice(sorted(tree))
        kind = self.random.choice(["edit", "edit", "edit", "add", "add", "delete", "rename", "folder", "file-folder"])
        if kind == "edit":
            lines = tree[path].splitlines()
            lines[self.random.randrange(len(lines))] = f"changed {self.random.randrange(10**9)}"
            return tree | {path: "\n".join(lines) + "\n"}
        if kind == "add":
            folder = self.random.choice(["d0", "d1/deep"])
            inside = self.random.choice(["", "", "/inside"])
            return tree | {f"{folder}/new{self.random.randrange(8)}{inside}": self.text()}
        rest = {one: content for one, content in tree.items() if one != path}
        if kind == "rename":
            return rest | {f"{path}-moved": tree[path]}
        if kind == "file-folder":
            return rest | {f"{path}/inside": self.text()}
        if kind == "folder":
            folder = path.partition("/")[0]
            return {one.replace(f"{folder}/", f"{folder}-moved/", 1): content for one, content in tree.items()}
        return rest


def build(git: Git, folder: Path, seed: int) -> list[str]:
    """A main line of five commits and branches from any of them, some merged into others; returns the branches."""
    history = History(seed)
    tree = {f"d{number % 12}/f{number}.txt": history.text() for number in range(60)}
    main = [history.commit("main", [], tree)]
    for _ in range(4):
        tree = history.changed(tree)
        main.append(history.commit("main", [main[-1]], tree))
    tips: list[int] = []
    for number in range(BRANCHES):
        start = history.random.choice([*main, *tips[-3:]])
        tree, tip = history.trees[start], start
        for _ in range(history.random.randrange(1, 4)):
            tree = history.changed(tree)
            tip = history.commit(f"b{number}", [tip], tree)
        if history.random.random() < 0.2:
            other = history.random.choice([*main, *tips[-3:]])
            tree = history.trees[other] | tree
            tip = history.commit(f"b{number}", [tip, other], tree)
        tips.append(tip)
    history.repository(git, folder)
    return [f"b{number}" for number in range(BRANCHES)]


def opened(where: Path) -> Repository:
    """The repository as a command would find it."""
    return Repository(discovery.discover(where, os.environ), durable=False)


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_that_is_not_asked_about_merges_cleanly(git: Git, tmp_path: Path, seed: int) -> None:
    where = tmp_path / "random"
    names = build(git, tmp_path, seed)
    oids = {name: git("rev-parse", name, cwd=where).strip() for name in names}
    first = git("rev-list", "--max-parents=0", "main", cwd=where).strip()
    ours = opened(where)

    found = touched.since_parting(ours, list(oids.values()), {}, likely=first)

    assert found is not None
    spared = 0
    for one, other in itertools.combinations(names, 2):
        if not found.may_conflict(oids[one], oids[other]):
            spared += 1
            done = subprocess.run(["git", "merge-tree", "--write-tree", one, other], cwd=where, capture_output=True)
            assert done.returncode == 0, (one, other, done.stdout)
    assert spared > 50


def test_a_common_commit_that_was_guessed_wrong_is_found_out(git: Git, tmp_path: Path) -> None:
    where = tmp_path / "random"
    names = build(git, tmp_path, 7)
    oids = [git("rev-parse", name, cwd=where).strip() for name in names]
    ours = opened(where)

    found = touched.since_parting(ours, oids, {}, likely=oids[-1])

    first = git("rev-list", "--max-parents=0", "main", cwd=where).strip()
    expected = touched.since_parting(ours, oids, {}, likely=first)
    assert found is not None
    assert expected is not None
    for one, other in itertools.combinations(oids, 2):
        assert found.may_conflict(one, other) == expected.may_conflict(one, other)


def test_a_file_beside_a_folder_of_its_name_is_asked_about(git: Git, tmp_path: Path) -> None:
    history = History(0)
    base = history.commit("main", [], {"a": "a\n"})
    sides = [{"d/x": "file\n"}, {"d/x/y": "inside\n"}, {"d/z": "other\n"}]
    for number, side in enumerate(sides):
        history.commit(f"b{number}", [base], {"a": "a\n", **side})
    where = history.repository(git, tmp_path)
    oids = [git("rev-parse", f"b{number}", cwd=where).strip() for number in range(3)]

    found = touched.since_parting(opened(where), oids, {}, likely=None)

    assert found is not None
    answers = [found.may_conflict(*pair) for pair in itertools.combinations(oids, 2)]
    assert answers == [True, False, False]
