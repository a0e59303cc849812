"""A name that khlone takes is one that git, every file system and every shell take as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from khlone.errors import IllegalName
from khlone.operations import names
from tests.support import run_git

LETTERS = "abxZ019._-/"
ANY = st.one_of(
    st.text(LETTERS, min_size=1, max_size=12),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,30}", fullmatch=True),
    st.lists(st.sampled_from(["a", "head", "x.lock", "con.txt", "beef", "deadbeef", "..", "-x", "HEAD", "v1.0"])).map(
        "/".join
    ),
    st.text(min_size=0, max_size=6),
)


def is_legal(name: str) -> bool:
    """Whether khlone takes a name."""
    try:
        names.check(name)
    except IllegalName:
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=ANY)
@example(name="feature/x")
@example(name="a.lock/b")
@example(name="@")
@example(name="a" * 101)
@example(name="a\n")
@example(name="\u0661")
def test_what_khlone_takes_git_takes_as_a_branch_and_says_back(name: str, tmp_path: Path) -> None:
    if not is_legal(name):
        return

    assert run_git("check-ref-format", "--branch", name, cwd=tmp_path) == f"{name}\n"
    assert shlex.quote(name) == name
    assert name.isascii()
    folder = names.folder(name)
    assert "/" not in folder
    assert folder not in (".", "..")
    assert not folder.startswith(("-", "."))
    assert len(folder) <= 100


@settings(max_examples=300, deadline=None)
@given(name=st.lists(st.from_regex(r"[g-z][g-z0-9]{0,8}", fullmatch=True), min_size=1, max_size=4).map("/".join))
def test_plain_words_are_taken(name: str) -> None:
    reserved = {"head", "stash", "refs", "worktrees", "khlone", "con", "prn", "aux", "nul"}
    devices = {f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10)}

    assert is_legal(name) == (not set(name.split("/")) & (reserved | devices))
