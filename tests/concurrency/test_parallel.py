"""Many at once: creations beside foreign git commands, merges into a dirty checkout."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.sandbox import Done, Sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A repository with a remote to fetch from."""
    box = Sandbox(tmp_path)
    box.create(files=30)
    box.git("clone", "-q", "--bare", str(box.repository), str(tmp_path / "origin.git"), cwd=tmp_path)
    box.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    box.git("fetch", "-q", "origin")
    return box


def at_once(tasks: Sequence[Callable[[], Done]]) -> list[Done]:
    """Run every task in a thread of its own, all released at the same moment."""
    start = threading.Barrier(len(tasks))
    results: dict[int, Done] = {}

    def work(number: int, task: Callable[[], Done]) -> None:
        start.wait()
        results[number] = task()

    threads = [threading.Thread(target=work, args=item) for item in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(tasks))]


class Foreign:
    """Foreign git commands that loop until they are told to end; every failure is kept."""

    COMMANDS = (("worktree", "list"), ("branch", "-a"), ("fetch", "-q", "origin"), ("worktree", "prune"))

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._end = threading.Event()
        self.failures: list[str] = []
        self.runs = 0
        self._threads = [threading.Thread(target=self._loop, args=(command,)) for command in self.COMMANDS]

    def _loop(self, command: tuple[str, ...]) -> None:
        while not self._end.is_set():
            done = subprocess.run(
                ["git", *command], cwd=self._box.repository, env=self._box.environment, capture_output=True, check=False
            )
            self.runs += 1
            if done.returncode != 0:
                self.failures.append(f"{command}: {done.stderr.decode(errors='replace').strip()}")

    def __enter__(self) -> Foreign:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def test_parallel_creations_fail_nobody_and_break_no_foreign_command(sandbox: Sandbox) -> None:
    tasks = [partial(sandbox.khlone, "new", f"c{number}") for number in range(12)]

    with Foreign(sandbox) as foreign:
        results = at_once(tasks)

    assert [done for done in results if done.code != 0] == []
    assert foreign.failures == []
    assert foreign.runs >= len(Foreign.COMMANDS)
    assert sandbox.violations() == []


def test_the_foreign_commands_do_fail_beside_a_half_written_admin_folder(sandbox: Sandbox) -> None:
    """The control: what a plain `git worktree add` shows for a moment kills the same commands."""
    half = sandbox.common_dir / "worktrees" / "half"
    half.mkdir(parents=True)
    (half / "locked").write_text("initializing\n")
    (half / "gitdir").write_text(f"{sandbox.root}/half/.git\n")
    (half / "commondir").write_text("")
    beginning = threading.Event()

    with Foreign(sandbox) as foreign:
        while not foreign.failures:
            beginning.wait(0.01)

    assert any("commondir" in failure for failure in foreign.failures)


def test_one_name_wanted_by_many_goes_to_one_and_leaves_nothing_else(sandbox: Sandbox) -> None:
    results = at_once([lambda: sandbox.khlone("new", "same", "--json") for _ in range(6)])

    assert sorted(done.code == 0 for done in results) == [False] * 5 + [True]
    refused = {str(done.json()["code"]) for done in results if done.code != 0}
    assert refused <= {"clone-exists", "branch-exists", "branch-checked-out", "clone-busy", "name-collides"}
    assert sandbox.violations() == []


def test_one_existing_branch_wanted_by_many_goes_to_one(sandbox: Sandbox) -> None:
    sandbox.git("branch", "shared")

    results = at_once([partial(sandbox.khlone, "new", f"n{number}", "--branch", "shared") for number in range(6)])

    assert sorted(done.code == 0 for done in results) == [False] * 5 + [True]
    assert sandbox.git("rev-parse", "shared") == sandbox.git("rev-parse", "main")
    assert sandbox.violations() == []


def make_disjoint_work(box: Sandbox, count: int) -> list[str]:
    """Clones that each add a file and change a line of their own."""
    names = [f"w{number}" for number in range(count)]
    for name in names:
        assert box.khlone("new", name).code == 0
        box.write(box.clone_path(name), {f"src/{name}.txt": f"{name}\n"})
        box.commit(box.clone_path(name), name)
    return names


def make_dirty(box: Sandbox) -> None:
    """Unrelated dirty, staged and untracked files in the user's checkout."""
    box.write(box.repository, {"notes.md": "staged\n"})
    box.git("add", "notes.md")
    box.write(
        box.repository, {"notes.md": "staged\nand edited\n", "src/part0/file0.txt": "edited\n", "mine.txt": "mine\n"}
    )


def local_state(box: Sandbox, landed: set[str]) -> dict[str, object]:
    """Bytes of every file, both diffs and the index, outside the landed paths."""
    index = [line for line in box.git("ls-files", "-s").splitlines() if line.split("\t")[1] not in landed]
    digests = {
        str(path.relative_to(box.repository)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(box.repository.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(box.repository).parts
    }
    return {
        "diff": box.git("diff"),
        "cached": box.git("diff", "--cached"),
        "index": index,
        "bytes": {name: digest for name, digest in digests.items() if name not in landed},
    }


def test_ten_parallel_merges_land_in_a_dirty_checkout_and_touch_nothing_else(sandbox: Sandbox) -> None:
    names = make_disjoint_work(sandbox, 10)
    make_dirty(sandbox)
    landed = {f"src/{name}.txt" for name in names}
    before = local_state(sandbox, landed)

    results = at_once([partial(sandbox.khlone, "merge", name) for name in names])

    assert [done for done in results if done.code != 0] == []
    assert local_state(sandbox, landed) == before
    for name in names:
        assert (sandbox.repository / f"src/{name}.txt").read_text() == f"{name}\n"
        assert sandbox.git("branch", "--contains", name, "--format=%(refname:short)", "main").strip() == "main"
    assert len(sandbox.git("rev-list", "--first-parent", "--merges", "main").split()) == 10
    assert sandbox.violations() == []


def test_plain_merges_of_the_same_kind_do_not_all_land(sandbox: Sandbox) -> None:
    """The control: `git merge`, ten at once in one checkout, with the same local work."""
    names = make_disjoint_work(sandbox, 10)
    make_dirty(sandbox)

    def plain(name: str) -> Done:
        done = subprocess.run(
            ["git", "merge", "-q", "--no-edit", name],
            cwd=sandbox.repository,
            env=sandbox.environment,
            capture_output=True,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    results = at_once([partial(plain, name) for name in names])

    assert sum(done.code == 0 for done in results) < 10
