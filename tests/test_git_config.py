"""Git's plain configuration files are read without git, and say then what git says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from khlone import git_config

PLAIN = [
    "[khlone]\n\tagent = here\n",
    "[KHLONE]\n\tAgent=here  \n\n# a comment\n; another\n[core]\n\tbare = false\n",
    '[khlone "gate"]\n\ttest = make test-all\n[khlone "Gate"]\n\tTest = two words\n',
    "[khlone.limits]\n\tsessions = 3\n[khlone]\n\tflag\n\tempty =\n",
    "[khlone]\n\tagent = one\n\tagent = two\n[commit]\n\tgpgSign = yes\n[checkout]\n\tworkers = 3\n",
    '[branch "khlone"]\n\tremote = "."  # quoted, and nobody asks\n[khlone]\n\ttarget = main\n',
]
LEFT_TO_GIT = [
    '[khlone]\n\tagent = "here"\n',
    "[khlone]\n\tagent = here # why\n",
    "[khlone]\n\tagent = he\\\nre\n",
    "[khlone] agent = here\n",
    "[include]\n\tpath = khlone.inc\n",
    '[includeIf "gitdir:/"]\n\tpath = khlone.inc\n',
    "[khlone]\r\n\tagent = here\r\n",
    "\ufeff[khlone]\n\tagent = here\n",
    "[khlone]\n\t= here\n",
    "[khlone\n\tagent = here\n",
]


def by_git(file: Path) -> list[tuple[str, str]] | None:
    """The pairs that git finds in a file, those that are asked about; `None` when it cannot read it."""
    done = subprocess.run(["git", "config", "--file", file, "--list", "-z"], capture_output=True, check=False)
    if done.returncode != 0:
        return None
    pairs = [item.partition("\n") for item in os.fsdecode(done.stdout).split("\0") if item]
    return [
        (key, value if equals else "true")
        for key, equals, value in pairs
        if key.startswith(("khlone.", "commit.", "checkout."))
    ]


def by_us(folder: Path, text: str) -> tuple[list[tuple[str, str]] | None, Path]:
    """What is read of one file, and that file."""
    common = folder / "common"
    common.mkdir(exist_ok=True)
    (common / "config").write_text(text, encoding="utf-8", newline="")
    nothing = str(folder / "nothing")
    environment = {"GIT_CONFIG_GLOBAL": nothing, "GIT_CONFIG_SYSTEM": nothing}
    found = git_config.read(common, common, environment)
    assert found is None or {path for _, _, path in found} <= {common / "config"}
    return None if found is None else [(key, value) for key, value, _ in found], common / "config"


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_file_is_read_as_git_reads_it(tmp_path: Path, text: str) -> None:
    found, file = by_us(tmp_path, text)

    assert found is not None
    assert found == by_git(file)


@pytest.mark.parametrize("text", LEFT_TO_GIT)
def test_anything_else_is_left_to_git(tmp_path: Path, text: str) -> None:
    found, _ = by_us(tmp_path, text)

    assert found is None


LINE = st.one_of(
    st.sampled_from(
        [
            "[khlone]",
            '[khlone "a b"]',
            "[commit]",
            "[core]",
            "\tagent = x",
            "agent=y",
            " flag",
            "empty =",
            "",
            "#c",
            ";c",
        ]
    ),
    st.text(st.sampled_from('[]"\\#;= \tkhlone.ab1-'), max_size=20),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=8))
def test_whatever_stands_in_a_file_the_answer_is_that_of_git(tmp_path: Path, lines: list[str]) -> None:
    found, file = by_us(tmp_path, "\n".join(["# khlone", *lines, ""]))

    theirs = by_git(file)

    assert found is None or theirs is None or found == theirs


def test_a_per_worktree_file_that_says_something_is_left_to_git(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "config.worktree").write_text("[khlone]\n\tagent = here\n")

    found, _ = by_us(tmp_path, "[core]\n\tbare = false\n")

    assert found is None
