"""Drivers of a merge queue are killed at random while others commit to its target."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.commands.merging import oid, release_main, worked
from tests.commands.steps import document
from tests.support import KHLONE, Commit, Git, Khlone

#: How often a driver is killed; KHLONE_KILLS says another number.
KILLS = int(os.environ.get("KHLONE_KILLS") or (100 if os.environ.get("KHLONE_TORTURE") else 4))
ROUND_S = 10
SEED = int(os.environ.get("KHLONE_SEED", "1"))
COMMITS_S = 0.5


def commit_as_somebody_else(git: Git, repository: Path) -> str | None:
    """Somebody else's commit on main, `None` where another was faster.

    Its tree is another one each time: what was tested before it is not what lands after it.
    """
    old = git("rev-parse", "main", cwd=repository).strip()
    blob = git("hash-object", "-w", "--stdin", cwd=repository, input=f"{old}\n").strip()
    listed = git("ls-tree", old, cwd=repository).splitlines(keepends=True)
    kept = "".join(line for line in listed if not line.endswith("\ttheirs.txt\n"))
    tree = git("mktree", cwd=repository, input=f"{kept}100644 blob {blob}\ttheirs.txt\n").strip()
    made = git("commit-tree", "-p", old, "-m", "theirs", tree, cwd=repository).strip()
    moved = subprocess.run(
        ["git", "update-ref", "refs/heads/main", made, old], cwd=repository, check=False, capture_output=True
    )
    return made if moved.returncode == 0 else None


def lost(git: Git, repository: Path, oids: list[str]) -> list[str]:
    """Those of the commits that main does not have any more."""
    there = set(git("rev-list", "main", cwd=repository).split())
    return [one for one in oids if one not in there]


@pytest.mark.timeout(300 + ROUND_S * KILLS)
def test_killed_drivers_and_a_target_that_moves_lose_nothing_and_land_nothing_twice_or_untested(
    khlone: Khlone, git: Git, commit: Commit, repository: Path
) -> None:
    dice = random.Random(SEED)
    release_main(git, repository)
    names = [f"c{number}" for number in range(6)]
    for name in names:
        worked(khlone, commit, repository, name, {f"{name}.txt": name})
    tested = repository.parent / "tested"
    git("config", "khlone.gate.test", f"sleep 0.1; git rev-parse HEAD^{{tree}} >>{tested}", cwd=repository)
    document(khlone("queue", "add", *names, "--json", cwd=repository), "queue", 0)
    ended = threading.Event()
    theirs: list[str] = []

    def others_commit() -> None:
        while not ended.wait(COMMITS_S):
            made = commit_as_somebody_else(git, repository)
            theirs.extend([made] if made else [])

    other = threading.Thread(target=others_commit)
    other.start()
    killed = 0
    try:
        for _ in range(KILLS):
            drivers = [
                subprocess.Popen(
                    [KHLONE, "queue", "run"],
                    cwd=repository,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                for _ in range(2)
            ]
            time.sleep(dice.uniform(0.1, 1.5))
            for driver in drivers:
                killed += driver.poll() is None
                driver.kill()
                driver.wait()
            # Something new for each of them, so that no run finds an empty queue.
            fresh = f"n{len(names)}"
            worked(khlone, commit, repository, fresh, {f"{fresh}.txt": fresh})
            names.append(fresh)
            document(khlone("queue", "add", fresh, "--json", cwd=repository), "queue", 0)
    finally:
        ended.set()
        other.join()
    document(khlone("queue", "run", "--json", cwd=repository), "queue", 0)

    subjects = git("log", "--format=%s", "--first-parent", "main", cwd=repository).splitlines()
    assert killed > 0
    assert theirs
    assert lost(git, repository, theirs) == []
    assert sorted(one for one in subjects if one.startswith("Merge")) == sorted(f"Merge branch '{n}'" for n in names)
    assert {f"{name}.txt" for name in names} <= set(git("ls-tree", "--name-only", "main", cwd=repository).split())
    trees = set(tested.read_text().split())
    # Where others commit on top, or several land at once, the tip of each landing is what was tested.
    moves = git("reflog", "main", "--format=%H %gs", cwd=repository).splitlines()
    landings = [line.split(" ", 1)[0] for line in moves if "khlone: merge into" in line]
    assert landings
    assert all(git("rev-parse", f"{tip}^{{tree}}", cwd=repository).strip() in trees for tip in landings)
    assert git("for-each-ref", "refs/khlone/queue", cwd=repository) == ""
    assert khlone("doctor", cwd=repository).code == 0


@pytest.mark.parametrize("safely", [False, True])
def test_a_landing_without_the_old_value_loses_what_came_while_the_gate_ran(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, safely: bool
) -> None:
    """The control: a script that builds, tests and lands, with the fault that is looked for above, and without it."""
    release_main(git, repository)
    path = worked(khlone, commit, repository, "a", {"a.txt": "a\n"})
    old, source = oid(git, repository, "main"), oid(git, path, "HEAD")
    tree = git("merge-tree", "--write-tree", old, source, cwd=repository).strip()
    made = git("commit-tree", "-p", old, "-p", source, "-m", "Merge branch 'a'", tree, cwd=repository).strip()

    theirs = commit_as_somebody_else(git, repository)  # while its gate runs
    landing = ["git", "update-ref", "refs/heads/main", made, *([old] if safely else [])]
    landed = subprocess.run(landing, cwd=repository, check=False, capture_output=True).returncode == 0

    assert theirs is not None
    assert landed is not safely
    assert lost(git, repository, [theirs]) == ([] if safely else [theirs])


def test_a_driver_whose_journal_is_lost_leaves_what_landed_in_line_and_it_is_told_otherwise(
    khlone: Khlone, git: Git, commit: Commit, repository: Path
) -> None:
    """The control: what the next driver knows of a killed landing it knows from the journal alone."""
    release_main(git, repository)
    worked(khlone, commit, repository, "a", {"a.txt": "a\n"})
    git("config", "khlone.gate.test", "true", cwd=repository)
    assert khlone("merge", "a", cwd=repository, env={"KHLONE_FAULT": "queue.published"}).code == -9
    with sqlite3.connect(repository / ".git/khlone/registry.sqlite3") as database:
        database.execute("DELETE FROM operations WHERE ended_at IS NULL")
    database.close()

    document(khlone("queue", "run", "--json", cwd=repository), "queue", 0)

    entry = document(khlone("queue", "log", "--json", cwd=repository), "queue", 0)["entries"][0]
    assert (entry["state"], entry["code"]) == ("held", "nothing-to-merge")
