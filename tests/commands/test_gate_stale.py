"""What a gate has built of one candidate does not pass for what the next one has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from khlone.app import App
from khlone.operations import scratch, stale
from tests.commands.merging import landed, merge, oid, worked
from tests.support import Commit, Git, Khlone, write

#: Passes where what was imported is what the file says. The second of the last change is always the same.
CHECK = """
import os
os.utime("value.py", (1_000_000_000, 1_000_000_000))
import value
assert f"VALUE = {value.VALUE}\\n" == open("value.py").read(), value.VALUE
"""
WITH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": None}


def test_python_takes_what_it_has_compiled_of_another_content_for_current(tmp_path: Path) -> None:
    """The control."""
    (tmp_path / "check.py").write_text(CHECK)
    environment = {name: value for name, value in os.environ.items() if name not in WITH_BYTECODE}
    codes = []
    for number in (1, 2):
        (tmp_path / "value.py").write_text(f"VALUE = {number}\n")
        codes.append(subprocess.run([sys.executable, "check.py"], cwd=tmp_path, env=environment).returncode)

    assert codes == [0, 1]


def test_a_gate_tests_the_code_of_its_candidate_whatever_was_compiled_before(
    khlone: Khlone, git: Git, commit: Commit, repository: Path
) -> None:
    first = {"check.py": CHECK, "value.py": "VALUE = 1\n", ".gitignore": "__pycache__/\n"}
    path = worked(khlone, commit, repository, "a", first)
    git("config", "khlone.gate.check", f"{sys.executable} check.py", cwd=repository)
    assert landed(merge(khlone, repository, "a", env=WITH_BYTECODE)) == ["a"]

    for number in (2, 3):
        commit(path, {"value.py": f"VALUE = {number}\n"}, f"now {number}")
        assert landed(merge(khlone, repository, "a", env=WITH_BYTECODE)) == ["a"]

    assert git("show", "main:value.py", cwd=repository) == "VALUE = 3\n"


def test_what_was_compiled_of_a_file_goes_and_what_was_of_others_stays(tmp_path: Path) -> None:
    compiled = ("a.b.cpython-313.pyc", "a.b.cpython-313-pytest-8.3.5.pyc", "a.cpython-313.pyc", "a.bc.cpython-313.pyc")
    write(tmp_path / "__pycache__", dict.fromkeys(compiled, ""))

    stale.tell_apart(tmp_path, {"a.b.py": None}, {})

    assert sorted(one.name for one in (tmp_path / "__pycache__").iterdir()) == sorted(compiled[2:])


#: Where what is compiled lies elsewhere, Python's files are as any other.
@pytest.mark.parametrize(("name", "elsewhere"), [("data.txt", ""), ("data.py", "/nowhere")])
def test_no_other_file_is_known_by_the_size_and_the_second_of_what_it_was_before(
    git: Git, commit: Commit, repository: Path, monkeypatch: pytest.MonkeyPatch, name: str, elsewhere: str
) -> None:
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", elsewhere)
    commits = []
    for text in ("one\n", "two\n", "six\n", "ten\n"):
        commit(repository, {name: text}, text)
        commits.append(oid(git, repository, "HEAD"))

    def seconds_of(check_out: object, path: Path, oids: list[str]) -> list[int]:
        assert callable(check_out)
        found = []
        for one in oids:
            check_out(one)
            found.append(int((path / name).stat().st_mtime))
        return found

    app = App.open(repository)
    app.prepare_state()
    with scratch.lease(app) as slot:
        slot.check_out(commits[0])
        # A machine that is busy may need more than the rest of a second for two of them.
        tries = (
            seconds_of(lambda one: git("checkout", "-q", one, cwd=slot.path), slot.path, commits[:2]) for _ in range(20)
        )
        is_alike = any(before == after for before, after in tries)
        ours = seconds_of(slot.check_out, slot.path, commits)
        text = (slot.path / name).read_text()

    assert is_alike, "the control"
    assert len(set(ours)) == len(ours)
    assert text == "ten\n"
