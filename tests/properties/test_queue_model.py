"""A plain model of the merge queue and the repository agree, whatever is committed, queued, taken out, or killed.

In the model a commit is a tree: a path, a text. Two sides that changed one path differently
conflict; nothing else does. What waits lands in rounds: all that fit on each other, then what
fits on that; what does not fit on the target alone is held.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands.merging import release_main
from tests.commands.steps import document, new
from tests.support import Commit, Git, Khlone

Tree = dict[str, str]

#: Few paths, so that conflicts are frequent; `bad` is what the gate refuses.
PATHS = [f"f{number}.txt" for number in range(6)]
BAD = "bad-"
STEPS = 40
SEEDS = range(24) if os.environ.get("KHLONE_TORTURE") else range(3)
KILLED_AT = ["queue.built", "queue.publishing", "queue.published", "queue.landed", "queue.finished"]


def merged(base: Tree, ours: Tree, theirs: Tree) -> Tree | None:
    """The three-way merge of whole files, `None` for a conflict."""
    found: Tree = {}
    for path in sorted({*base, *ours, *theirs}):
        before, left, right = (tree.get(path) for tree in (base, ours, theirs))
        if left != right and before not in (left, right):
            return None
        text = right if left == before else left
        if text is not None:
            found[path] = text
    return found


@dataclass
class Worker:
    """A clone: the tree that its branch and the target have in common, and the tree of its tip."""

    common: Tree
    tip: Tree
    is_there: bool = True
    held: int = 0


@dataclass
class Entry:
    """One pinned commit that waits."""

    name: str
    tip: Tree
    priority: int
    penalty: int


@dataclass
class Model:
    """What the repository should be."""

    target: Tree
    workers: dict[str, Worker] = field(default_factory=dict)
    waiting: list[Entry] = field(default_factory=list)
    landed: list[Tree] = field(default_factory=list)

    def queue(self, name: str, priority: int) -> None:
        """Pin the tip of a clone in place of what waits of it."""
        self.waiting = [entry for entry in self.waiting if entry.name != name]
        one = self.workers[name]
        self.waiting.append(Entry(name=name, tip=dict(one.tip), priority=priority, penalty=one.held))

    def settle(self) -> dict[str, str]:
        """Let all that waits land, or be held; how each ended, by name."""
        ended: dict[str, str] = {}
        while self.waiting:
            self.waiting.sort(key=lambda entry: (-entry.priority, entry.penalty))
            here, left = self._chain(self.waiting)
            for entry in left:
                if merged(self.workers[entry.name].common, self.target, entry.tip) is None:
                    self._hold(entry, ended)
            for entry in here:
                if any(path.startswith(BAD) for path in entry.tip):
                    self._hold(entry, ended)
            for entry in self._chain([entry for entry in here if entry.name not in ended])[0]:
                ended[entry.name] = "landed"
                self.target = merged(self.workers[entry.name].common, self.target, entry.tip) or {}
                self.workers[entry.name].common = entry.tip
                self.workers[entry.name].held = 0
                self.landed.append(dict(self.target))
                self.waiting.remove(entry)
        return ended

    def _hold(self, entry: Entry, ended: dict[str, str]) -> None:
        ended[entry.name] = "held"
        self.workers[entry.name].held += 1
        self.waiting.remove(entry)

    def _chain(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        tip, here, left = self.target, [], []
        for entry in entries:
            found = merged(self.workers[entry.name].common, tip, entry.tip)
            if found is None:
                left.append(entry)
            else:
                here.append(entry)
                tip = found
        return here, left


class Run:
    """One random run through the real command, beside the model."""

    def __init__(self, khlone: Khlone, git: Git, commit: Commit, project: Path, seed: int) -> None:
        self.khlone, self.git, self.commit, self.project = khlone, git, commit, project
        self.random = random.Random(seed)
        self.model = Model(target=self.tree("main"))
        self.base = git("rev-parse", "main", cwd=project).strip()
        self.count = self.kills = 0
        git("config", "khlone.gate.test", f"! ls {BAD}* 2>/dev/null", cwd=project)

    def tree(self, revision: str) -> Tree:
        """A commit as the model has it."""
        names = self.git("ls-tree", "-r", "--name-only", revision, cwd=self.project).split()
        return {name: self.git("show", f"{revision}:{name}", cwd=self.project) for name in names}

    def text(self) -> str:
        """A text that no file has had."""
        self.count += 1
        return f"{self.random.getrandbits(64):x} {self.count}\n"

    def there(self, *, with_work: bool = False) -> list[str]:
        """Clones that have not been removed."""
        return [
            name
            for name, one in self.model.workers.items()
            if one.is_there and not (with_work and one.tip == one.common)
        ]

    # -- steps

    def make(self) -> None:
        """A clone from the target as it is now."""
        self.count += 1
        name = f"w{self.count}"
        new(self.khlone, self.project, name, "--from", "main")
        self.model.workers[name] = Worker(common=dict(self.model.target), tip=dict(self.model.target))

    def work(self) -> None:
        """A commit in a clone, now and then one that the gate refuses."""
        for name in self.random.sample(self.there(), min(1, len(self.there()))):
            self.change(name, f"{BAD}{name}" if self.random.random() < 0.1 else self.random.choice(PATHS))

    def change(self, name: str, path: str) -> None:
        """Commit a text that is new to one file of a clone."""
        text = self.text()
        self.commit(self.project.parent / "project.clones" / name, {path: text}, f"{name} {path}")
        self.model.workers[name].tip[path] = text

    def enqueue(self) -> None:
        """Pin what a clone has."""
        there = self.there(with_work=True)
        for name in self.random.sample(there, min(1, len(there))):
            self.pin(name, self.random.choice([0, 0, 0, 5, -5]))

    def pin(self, name: str, priority: int) -> None:
        """Put what a clone has in line."""
        done = self.khlone("queue", "add", name, "--priority", str(priority), "--json", cwd=self.project)
        document(done, "queue")
        self.model.queue(name, priority)

    def take_out(self) -> None:
        """Take an entry out of line."""
        names = [entry.name for entry in self.model.waiting]
        for name in self.random.sample(names, min(1, len(names))):
            document(self.khlone("queue", "remove", name, "--json", cwd=self.project), "queue")
            self.model.waiting = [entry for entry in self.model.waiting if entry.name != name]

    def remove(self) -> None:
        """Remove a clone; what it has in line stays there."""
        there = self.there()
        for name in self.random.sample(there, min(1, len(there))):
            document(self.khlone("remove", name, "--force", "--json", cwd=self.project), "remove")
            self.model.workers[name].is_there = False

    def foreign(self) -> None:
        """Somebody else commits to the target."""
        path, text = self.random.choice(PATHS), self.text()
        self.git("checkout", "-q", "--detach", "main", cwd=self.project)
        oid = self.commit(self.project, {path: text}, "foreign")
        self.git("update-ref", "refs/heads/main", oid, cwd=self.project)
        self.model.target = {**self.model.target, path: text}

    def settle(self, *, surely: bool = False) -> None:
        """Land what waits, with a driver that may be killed first, and compare."""
        waiting = [entry.name for entry in self.model.waiting]
        if waiting and (surely or self.random.random() < 0.6):
            point = self.random.choice(KILLED_AT)
            self.kills += self.khlone("queue", "run", cwd=self.project, env={"KHLONE_FAULT": point}).code == -9
        self.run_all()
        # What waits no more may have landed just before the driver was killed.
        self.run_all()

        expected = self.model.settle()

        log = document(self.khlone("queue", "log", "-n", "200", "--json", cwd=self.project), "queue")["entries"]
        newest: dict[str, str] = {}
        for entry in log:
            newest.setdefault(entry["name"], entry["state"])
        assert {name: newest.get(name) for name in waiting} == expected
        self.compare()

    def run_all(self) -> None:
        """Land or hold all that waits."""
        done = self.khlone("queue", "run", "--json", cwd=self.project)
        assert done.code in (0, 4, 5), done.err

    def compare(self) -> None:
        """The target, and each step on the way there, is what the model says."""
        assert self.tree("main") == self.model.target
        log = self.git("log", "--first-parent", "--reverse", "--format=%H %s", f"{self.base}..main", cwd=self.project)
        oids = [line.split(" ")[0] for line in log.splitlines() if not line.endswith(" foreign")]
        assert [self.tree(oid) for oid in oids] == self.model.landed
        assert self.git("for-each-ref", "refs/khlone/queue", cwd=self.project) == ""

    def go(self) -> None:
        """Some clones, then steps in a random order, then the end."""
        steps: list[Callable[[], None]] = [self.make, self.work, self.enqueue, self.take_out]
        weights = [2, 8, 6, 1, 1, 2, 2]
        for _ in range(3):
            self.make()
        for step in self.random.choices([*steps, self.remove, self.foreign, self.settle], weights, k=STEPS):
            step()
        self.make()
        for name in self.there()[-1:]:
            self.change(name, "last.txt")
            self.pin(name, 0)
        self.settle(surely=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_queue_does_what_its_model_says(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, seed: int
) -> None:
    project = repository
    release_main(git, project)
    run = Run(khlone, git, commit, project, seed)

    run.go()

    assert run.model.landed
    assert run.kills
    assert khlone("doctor", cwd=project).code == 0
    assert git("fsck", "--no-dangling", "--connectivity-only", cwd=project) == ""
