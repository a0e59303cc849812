"""The README tells the truth: its tour and its examples are run, and the tour answers as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import KHLONE, ROOT, Git, make_repository

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: What cannot be run here: an agent's program, or a program that need not be installed.
FOREIGN = re.compile(r"\bclaude\b|\bjq\b")


def blocks(kind: str) -> list[str]:
    """The code blocks of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def run(command: str, cwd: Path) -> str:
    """What a shell prints for a command, both streams in their order; it must end well."""
    environment = {**os.environ, "PATH": f"{KHLONE.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", f"exec 2>&1; {command}"], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout


def same(text: str) -> list[str]:
    """Lines without what differs from run to run: object ids, ids of trash, the folder above the repository."""
    return [
        re.sub(r"\b[0-9a-f]{10,16}\b", "ID", re.sub(r"\S*/shop\.clones", "shop.clones", line)).rstrip()
        for line in text.splitlines()
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The repository that the README works in."""
    return make_repository(tmp_path / "shop")


def test_the_tour_answers_as_shown(shop: Path) -> None:
    (tour,) = blocks("console")
    steps = re.split(r"^\$ ", tour, flags=re.MULTILINE)[1:]

    for step in steps:
        command, _, shown = step.partition("\n")
        assert same(run(command, shop)) == same(shown), command
    assert len(steps) > 4


def test_the_examples_for_scripts_run(shop: Path, git: Git) -> None:
    scripts = next(block for block in blocks("sh") if "-n 10 try" in block)
    git("branch", "release", cwd=shop)
    git("init", "-q", "--bare", str(shop.parent / "origin.git"), cwd=shop)
    git("remote", "add", "origin", str(shop.parent / "origin.git"), cwd=shop)
    git("push", "-q", "origin", "main", cwd=shop)

    for line in scripts.splitlines():
        if FOREIGN.search(line):
            continue
        run(line, shop)
        if "-n 10 try" in line:
            for place in sorted((shop.parent / "shop.clones").iterdir()):
                (place / f"{place.name}.txt").write_text("work\n")
                git("add", "-A", cwd=place)
                git("commit", "-q", "-m", f"work of {place.name}", cwd=place)


def test_the_python_example_runs(shop: Path) -> None:
    (example,) = blocks("python")

    done = subprocess.run(
        [sys.executable, "-c", example], cwd=shop.parent, env=os.environ, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert str(shop.parent / "shop.clones" / "idea") in done.stdout


def test_the_pictures_are_small_and_there() -> None:
    named = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", README)

    found = {str(path.relative_to(ROOT)): path.read_bytes() for path in (ROOT / "docs/images").iterdir()}

    assert sorted(found) == sorted(named)
    assert all(content.startswith(b"\x89PNG") and len(content) < 80 << 10 for content in found.values())
