"""The whole tour of a clone's life through the real command, in whatever layout a repository has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.commands.steps import document, tree
from tests.support import Done, Git, Khlone, make_commit, write

#: What is left uncommitted in a clone before it is removed: changed, untracked and ignored.
DIRT: Mapping[str, bytes] = {
    "tour-1.txt": b"changed and not committed\n",
    "untracked \xff".encode("latin-1").decode("utf-8", "surrogateescape"): b"\0\1\2",
    "deep/er/untracked.txt": b"deep\r\n",
    "secret.ignored": b"ignored\n",
}


def _nothing(_: Path) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Tour:
    """One repository to tour. `common` is its common dir, `where` the folder that khlone is called in.

    `dirty` adds a layout's own kind of uncommitted work to a clone, `check` looks at a new
    clone, and `state` returns whatever else of a clone has to be the same after a restore.
    """

    khlone: Khlone
    git: Git
    where: Path
    common: Path
    target: str = "main"
    environment: Mapping[str, str | None] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    check: Callable[[Path], object] = _nothing
    dirty: Callable[[Path], object] = _nothing
    state: Callable[[Path], object] = _nothing

    def call(self, *arguments: str) -> Done:
        """khlone, called in the repository."""
        return self.khlone(*arguments, cwd=self.where, env=self.environment)

    def ask(self, verb: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The document of a verb."""
        return document(self.call(verb, "--json", *arguments), verb, code)

    def run(self) -> None:
        """From `new` to an empty trash; afterwards nothing of it is left."""
        before = self.remains()
        first, second = self.made()
        self.seen(first)
        self.landed(first, second)
        self.removed_and_restored(first)
        self.pruned(first, second)
        assert self.remains() == before
        self.sound()

    # -- the steps

    def made(self) -> tuple[Path, Path]:
        """Two clones, clean, each with a commit of its own."""
        found = self.ask("new", "tour", "-n", "2", *self.options)
        assert found["failed"] == []
        first, second = (Path(clone["path"]) for clone in found["clones"])
        for number, path in enumerate((first, second), 1):
            assert self.git("status", "--porcelain", "--ignored", cwd=path) == ""
            assert self.git("symbolic-ref", "HEAD", cwd=path).strip() == f"refs/heads/tour-{number}"
            self.check(path)
            make_commit(path, {f"tour-{number}.txt": f"work of {number}\n"}, f"work of {number}")
        return first, second

    def seen(self, first: Path) -> None:
        """What the verbs that only look say of them."""
        shown = self.ask("exec", "tour-1", "--", "cat", "tour-1.txt")["results"]
        assert [(one["exit"], one["stdout"]) for one in shown] == [(0, "work of 1\n")]
        clones = self.ask("list")["clones"]
        facts = [(one["name"], one["state"], one["dirty"], one["ahead"], one["target"]) for one in clones]
        assert facts == [(f"tour-{number}", "ready", False, 1, self.target) for number in (1, 2)]
        clone = self.ask("show", "tour-1")["clone"]
        assert (Path(clone["path"]), clone["untracked"], clone["merged"]) == (first, 0, False)
        changed = self.ask("diff", "tour-1")["files"]
        assert [(one["path"], one["status"]) for one in changed] == [("tour-1.txt", "A")]

    def landed(self, first: Path, second: Path) -> None:
        """A merge commit, a squash and a rebase, each on the target."""
        self._lands("tour-1", "--merge")
        self._lands("tour-2", "--squash")
        make_commit(first, {"tour-3.txt": "more\n"}, "more of 1")
        self._lands("tour-1", "--rebase")
        tip = f"refs/heads/{self.target}"
        for name, text in (("tour-1.txt", "work of 1\n"), ("tour-2.txt", "work of 2\n"), ("tour-3.txt", "more\n")):
            assert self.plain("show", f"{tip}:{name}") == text
        del second

    def _lands(self, name: str, how: str) -> None:
        found = self.ask("merge", name, how)
        assert (found["held"], [one["name"] for one in found["landed"]]) == ([], [name])

    def removed_and_restored(self, first: Path) -> None:
        """Removed with work of every kind that is not committed, and back byte for byte."""
        exclude = self.common / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("*.ignored\n")
        write(first, DIRT)
        write(first, {"staged.txt": "staged\n"})
        self.git("add", "--sparse", "staged.txt", cwd=first)
        self.dirty(first)
        before = self.looks(first)
        kept = self.ask("remove", "tour-1", code=1)["kept"]
        assert [one["code"] for one in kept] == ["has-changes"]
        assert self.looks(first) == before
        gone = self.ask("remove", "tour-1", "--force")["removed"]
        assert not first.exists()
        self.sound()
        entries = self.ask("trash")["entries"]
        assert [(one["trash"], one["name"]) for one in entries] == [(gone[0]["trash"], "tour-1")]
        assert entries[0]["holds"]["ignored"] >= 1
        back = Path(self.ask("restore", "tour-1")["clone"]["path"])
        assert back == first
        assert self.looks(back) == before

    def pruned(self, first: Path, second: Path) -> None:
        """The clone that is done with goes by itself, the other with force, and then the trash."""
        done_with = self.ask("prune")
        assert [one["name"] for one in done_with["removed"]] == ["tour-2"]
        assert (first.exists(), second.exists()) == (True, False)
        assert self.ask("doctor")["findings"] == []
        self.ask("remove", "tour-1", "--force")
        assert len(self.ask("prune", "--trash", "--age", "0s")["purged"]) == 2
        assert self.ask("doctor")["findings"] == []

    # -- looking without khlone

    def plain(self, *arguments: str) -> str:
        """git, told of the common dir."""
        return self.git("--git-dir", str(self.common), *arguments, cwd=self.common)

    def looks(self, path: Path) -> dict[str, object]:
        """All of a clone that has to come back."""
        return {
            "files": tree(path),
            "status": self.git("status", "--porcelain=v2", "--branch", "--ignored", "-z", cwd=path),
            "index": self.git("ls-files", "-s", "-v", "-z", cwd=path),
            "more": self.state(path),
        }

    def sound(self) -> None:
        """Nothing is wrong with the repository as git sees it."""
        self.plain("fsck", "--no-dangling", "--connectivity-only")
        self.plain("worktree", "list", "--porcelain")

    def remains(self) -> dict[str, object]:
        """What clones could leave behind: admin folders, their own folder, the stage, settings, branches."""
        state = Path(os.environ["XDG_STATE_HOME"], "khlone/repositories")
        return {
            "worktrees": self.plain("worktree", "list", "--porcelain").count("worktree "),
            "admin": _names(self.common / "worktrees"),
            "stage": _names(self.common / "khlone" / "stage"),
            "folders": [str(path) for path in self.common.parent.glob("*.clones")],
            "config dirs": [str(path) for path in state.glob("*/clones/*")],
            "configuration": (self.common / "config").read_bytes(),
            "branches": self.plain("for-each-ref", "--format=%(refname)", "refs/heads").split(),
            "markers": self.plain("for-each-ref", "refs/khlone/clones"),
            "hidden": [path.name for path in self.common.parent.glob(".*khlone*")],
            "locks": [str(path) for path in self.common.glob("**/*.lock") if path.parent.name != "locks"],
        }


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
