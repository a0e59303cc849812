"""A run of all verbs, one after the other by chance, each with something to do.

`MixedRun.next_round` prepares the repository and names the command; what was promised to
last is kept in a ledger, which `MixedRun.losses` compares with what is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from khlone import faults
from tests.crash.points import OUTSIDE
from tests.sandbox import Done, Sandbox
from tests.support import write

#: What the user has open in the checkout of main, all the time.
MINE = {"notes.md": "my own edit\n", "scratch.txt": "untracked\n"}
#: Points that a round without gates and without recovery does not reach.
_ELSEWHERE = {name for name in faults.POINTS if ".undo-" in name or name.startswith("queue.")} | {
    "merge.recover-restored",
    "adopt.undo",
}
#: More clones than that are not there for long: each one is looked at after each kill.
_MOST_CLONES = 6


class Round:
    """One command to be killed: once `point` was reached for the `occurrence`th time, or at any time if `None`."""

    def __init__(self, verb: str, words: list[str], *, point: str | None = None, occurrence: int = 1) -> None:
        self.verb, self.words, self.point, self.occurrence = verb, words, point, occurrence


class MixedRun:
    """Which command comes next, and what must be there after each."""

    def __init__(self, box: Sandbox, chance: random.Random) -> None:
        self._box, self._chance = box, chance
        self._number = 0
        self._bags: dict[bool, list[str]] = {True: [], False: []}
        self._branches: set[str] = set()
        self._files: set[str] = set()
        self._journalled: dict[str, Callable[[], Round | None]] = {
            "new": lambda: self._new(),
            "new -n": lambda: self._new("-n", "3"),
            "new --branch": self._new_on_a_branch,
            "new -x": lambda: self._new("-x", "true"),
            "merge": lambda: self._merge("--merge"),
            "merge --squash": lambda: self._merge("--squash"),
            "merge --rebase": lambda: self._merge("--rebase"),
            "merge --ff-only": self._fast_forward,
            "merge --remove": lambda: self._merge("--remove"),
            "remove": lambda: self._remove(1),
            "remove, two": lambda: self._remove(2),
            "restore": self._restore,
            "prune": self._prune,
            "prune --trash": self._prune_trash,
            "adopt": self._adopt,
            "rename": self._rename,
            "sync --merge": lambda: self._sync("--merge"),
            "sync --rebase": lambda: self._sync("--rebase"),
            "sync --all": lambda: self._sync("--all"),
            "undo of merge": self._undo_merge,
            "undo of sync": self._undo_sync,
            "undo": lambda: Round("undo", ["undo"], point="*"),
            "doctor --fix": self._doctor,
        }
        self._others: dict[str, Callable[[], Round | None]] = {
            "exec": lambda: self._exec(),
            "exec --all": lambda: self._exec("--all"),
            "trash": lambda: Round("trash", ["trash"]),
            "hooks": self._hooks,
            "list": lambda: Round("list", ["list"]),
        }

    @property
    def verbs(self) -> set[str]:
        """Every verb, in each of its forms, that this run knows."""
        return {*self._journalled, *self._others}

    def next_round(self, *, journalled: bool) -> Round:
        """A command that has something to do in the present state, of those that keep a journal or of the others."""
        self._limit()
        known = self._journalled if journalled else self._others
        while True:
            if not self._bags[journalled]:
                self._bags[journalled] = self._chance.sample(sorted(known), len(known))
            verb = self._bags[journalled].pop()
            self._number += 1
            found = known[verb]()
            if found is not None:
                found.verb = verb
                return found

    def again(self, round_: Round) -> None:
        """Let a verb that was not killed in time have its turn soon."""
        for journalled, known in ((True, self._journalled), (False, self._others)):
            if round_.verb in known:
                self._bags[journalled].insert(0, round_.verb)

    def names(self, *states: str) -> list[str]:
        """The clones in one of the states, as the registry has them."""
        listed = ", ".join(f"'{state}'" for state in states or ("ready", "merged", "adopted"))
        return [str(row[0]) for row in self._box.rows(f"SELECT name FROM clones WHERE state IN ({listed}) ORDER BY id")]

    def path(self, name: str) -> Path:
        """The worktree of a live clone."""
        rows = self._box.rows("SELECT name, path FROM clones WHERE state NOT IN ('trashed', 'purging')")
        return next(Path(str(row[1])) for row in rows if row[0] == name)

    # -- what must last ------------------------------------------------------------------------

    def undo_own_worktrees(self) -> None:
        """Take away the worktrees that the user made for an adoption that was taken back."""
        rows = self._box.rows("SELECT path FROM clones WHERE state NOT IN ('trashed', 'purging')")
        clones = {Path(str(row[0])) for row in rows}
        for path in set(self._box.clone_path("x").parent.glob("taken-*")) - clones:
            self._box.git("worktree", "remove", "--force", str(path))

    def losses(self) -> list[str]:
        """Every promise about the user's own things that does not hold; empty when all is well."""
        box = self._box
        found = [f"{name} was changed" for name, text in MINE.items() if (box.repository / name).read_text() != text]
        status = box.git("status", "--porcelain")
        if status != " M notes.md\n?? scratch.txt\n":
            found.append(f"the user's checkout says {status!r}")
        branches = set(box.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split())
        found += [f"the user's branch {name} is gone" for name in sorted(self._branches - branches)]
        found += [f"{name} is nowhere any more" for name in sorted(self._files - self._names_of_files())]
        return found

    def _names_of_files(self) -> set[str]:
        """Every file that is in some commit that a ref keeps, in a worktree or in the trash."""
        kept = self._box.git("log", "--all", "-m", "--root", "--format=", "--name-only").split("\n")
        found = {Path(name).name for name in kept}
        for folder in (self._box.clone_path("x").parent, self._box.common_dir / "khlone" / "trash"):
            found |= {path.name for pattern in ("left-*", "work-*") for path in folder.rglob(pattern)}
        return found

    # -- steps -----------------------------------------------------------------------------------

    def _done(self, *words: str) -> Done:
        done = self._box.khlone(*words)
        assert done.code == 0, (words, done)
        return done

    def _limit(self) -> None:
        live = self.names()
        if len(live) < 2:
            self._number += 1
            self._done("new", f"more{self._number}", "-n", "2")
        elif len(live) > _MOST_CLONES:
            self._done("remove", "--force", *live[: len(live) - 3])

    def _inside(self, operation: str) -> str:
        known = [
            name for name in faults.POINTS if name.startswith(f"{operation}.") and name not in OUTSIDE | _ELSEWHERE
        ]
        return self._chance.choice(known)

    def _one(self) -> str:
        return self._chance.choice(self.names())

    def _commit(self, folder: Path, *, name: str = "work") -> None:
        file = f"{name}-{self._number}.txt"
        write(folder, {f"src/{file}": f"{self._number}\n" * 30})
        self._box.git("add", f"src/{file}", cwd=folder)
        self._box.git("commit", "-q", "-m", f"{name} {self._number}", "--", f"src/{file}", cwd=folder)
        self._files.add(file)

    def _leave_something(self, name: str) -> None:
        file = f"left-{self._number}-{name}.txt"
        write(self.path(name), {file: f"{self._number}\n", "left.log": "ignored\n"})
        self._files.add(file)

    # -- verbs with a journal ----------------------------------------------------------------------

    def _new(self, *options: str) -> Round:
        words = ["new", f"c{self._number}", *options]
        occurrence = self._chance.randint(1, 3) if "-n" in options else 1
        return Round("new", words, point=self._inside("create"), occurrence=occurrence)

    def _new_on_a_branch(self) -> Round:
        branch = f"own-{self._number}"
        self._box.git("branch", branch)
        self._branches.add(branch)
        return Round("new", ["new", f"c{self._number}", "--branch", branch], point=self._inside("create"))

    def _merge(self, *options: str) -> Round:
        name = self._one()
        self._commit(self.path(name))
        words = ["merge", name, "--committed", *options]
        if options == ("--remove",):
            return Round("merge", words, point=self._chance.choice([self._inside("merge"), self._inside("remove")]))
        return Round("merge", words, point=self._inside("merge"))

    def _fast_forward(self) -> Round:
        name = f"c{self._number}"
        self._done("new", name)
        self._commit(self.path(name))
        return Round("merge", ["merge", name, "--ff-only"], point=self._inside("merge"))

    def _remove(self, count: int) -> Round:
        names = self._chance.sample(self.names(), count)
        for name in names:
            self._leave_something(name)
        occurrence = self._chance.randint(1, count)
        return Round("remove", ["remove", "--force", *names], point=self._inside("remove"), occurrence=occurrence)

    def _restore(self) -> Round | None:
        trashed = self.names("trashed")
        if not trashed:
            return None
        return Round("restore", ["restore", self._chance.choice(trashed)], point=self._inside("restore"))

    def _prune(self) -> Round:
        name = f"c{self._number}"
        self._done("new", name)
        self._commit(self.path(name))
        self._done("merge", name)
        return Round("prune", ["prune"], point=self._inside("remove"))

    def _prune_trash(self) -> Round | None:
        if not self.names("trashed"):
            return None
        return Round("prune", ["prune", "--trash", "--age", "0"], point=self._inside("purge"))

    def _adopt(self) -> Round:
        name = f"taken-{self._number}"
        path = self._box.clone_path(name)
        self._box.git("worktree", "add", "-q", "-b", name, str(path))
        self._branches.add(name)
        return Round("adopt", ["adopt", str(path)], point=self._inside("adopt"))

    def _rename(self) -> Round:
        return Round("rename", ["rename", self._one(), f"r{self._number}"], point=self._inside("rename"))

    def _sync(self, option: str) -> Round:
        name = self._one()
        self._commit(self.path(name))
        self._commit(self._box.repository, name="main")
        words = ["sync", option] if option == "--all" else ["sync", option, name]
        occurrence = self._chance.randint(1, 2) if option == "--all" else 1
        return Round("sync", words, point=self._inside("sync"), occurrence=occurrence)

    def _undo_merge(self) -> Round:
        name = self._one()
        self._commit(self.path(name))
        self._done("merge", name, "--committed", self._chance.choice(["--merge", "--squash"]))
        return Round("undo", ["undo"], point=self._inside("undo"))

    def _undo_sync(self) -> Round:
        name = self._one()
        self._commit(self._box.repository, name="main")
        self._done("sync", name)
        return Round("undo", ["undo"], point=self._inside("undo"))

    def _doctor(self) -> Round | None:
        """Recovery itself is killed: something else was killed before."""
        operation, words = self._chance.choice(
            [
                ("create", ["new", f"c{self._number}"]),
                ("remove", ["remove", "--force", self._one()]),
                ("rename", ["rename", self._one(), f"r{self._number}"]),
            ]
        )
        point = self._inside(operation)
        done = self._box.khlone(*words, KHLONE_FAULT=point)
        assert done.code in (-9, 0), (point, done)
        if done.code == 0:  # this clone's branch keeps its name
            return None
        return Round("doctor", ["doctor", "--fix"], point="*")

    # -- verbs without one ---------------------------------------------------------------------------

    def _exec(self, *options: str) -> Round:
        words = [] if options else [self._one()]
        return Round("exec", ["exec", *options, *words, "--", "sh", "-c", "echo done >exec.log; sleep 0.2"])

    def _hooks(self) -> Round:
        if (self._box.common_dir / "khlone" / "hooks" / "installed.json").exists():
            return Round("hooks", ["hooks", "remove"])
        return Round("hooks", ["hooks", "install", self._chance.choice(["--all", "--clones"])])
