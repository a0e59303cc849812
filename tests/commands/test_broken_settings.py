"""A settings file that cannot be read hides nothing and stops what needs it; none loosens what the user demands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, footprint, new, refused
from tests.support import Commit, Git, Khlone, write

BROKEN = 'agent = "generic"\n\ntarget = main\n'


@pytest.fixture
def place(khlone: Khlone, project: Path) -> Path:
    """The repository with a clone named `a`."""
    new(khlone, project, "a")
    return project


def user_file(text: str) -> Path:
    """The user's own file."""
    path = Path(os.environ["XDG_CONFIG_HOME"], "khlone", "config.toml")
    write(path.parent, {path.name: text})
    return path


def broken(where: Path, whose: str) -> Path:
    """A file whose third line cannot be read."""
    if whose == "user":
        return user_file(BROKEN)
    write(where, {".khlone.toml": BROKEN})
    return where / ".khlone.toml"


@pytest.mark.parametrize("whose", ["project", "user"])
@pytest.mark.parametrize(
    "words",
    [("list",), ("show", "a"), ("path", "a"), ("log",), ("diff", "a"), ("trash",), ("doctor",), ("doctor", "--fix")],
    ids=" ".join,
)
def test_a_verb_that_asks_goes_on_without_it(khlone: Khlone, place: Path, words: Sequence[str], whose: str) -> None:
    path = broken(place, whose)

    done = khlone(*words, cwd=place)

    assert done.code == int(words[0] == "doctor"), done
    assert done.err.count("warning") <= 1
    assert f"{path}:3: " in done.err or words[0] in ("path", "log", "trash")


@pytest.mark.parametrize("whose", ["project", "user"])
@pytest.mark.parametrize(
    "words",
    [("new", "b"), ("exec", "a", "--", "true"), ("exec", "--all", "--", "true"), ("merge", "a"), ("remove", "a")],
    ids=" ".join,
)
def test_a_verb_that_needs_it_refuses_with_file_and_line(
    khlone: Khlone, git: Git, place: Path, words: Sequence[str], whose: str
) -> None:
    path = broken(place, whose)
    before = footprint(git, place)

    found = refused(khlone("--json", *words, cwd=place), "invalid-setting", 2)

    assert found["message"].startswith(f"{path}:3: ")
    assert (found["facts"]["path"], found["facts"]["line"]) == (str(path), 3)
    assert "correct that line" in found["hint"]
    assert footprint(git, place) == before
    assert clone_names(khlone, place) == ["a"]


def test_bytes_that_are_no_text_are_told_with_their_line(khlone: Khlone, place: Path) -> None:
    write(place, {".khlone.toml": b'agent = "generic"\n# \xff\n'})

    found = refused(khlone("new", "b", "--json", cwd=place), "invalid-setting", 2)

    assert found["message"] == f"{place}/.khlone.toml:2: it is not UTF-8"


@pytest.mark.parametrize(
    ("theirs", "mine", "code"), [("true", "false", 5), ("false", "true", 5), ("false", "false", 0)], ids=str
)
def test_a_repositorys_file_demands_a_gate_but_never_lets_go_of_one(
    khlone: Khlone, commit: Commit, place: Path, theirs: str, mine: str, code: int
) -> None:
    commit(Path(khlone("path", "a", cwd=place).out.strip()), {"new.txt": "new\n"}, "new")
    write(place, {".khlone.toml": f"[gate]\nrequired = {theirs}\n"})
    user_file(f"[gate]\nrequired = {mine}\n")

    assert document(khlone("merge", "a", "--json", cwd=place), "merge", code)["gated"] is False


@pytest.mark.parametrize("age", ["3x", "99999999999d", "-1", ""])
def test_an_age_that_is_none_is_a_usage_error(khlone: Khlone, place: Path, age: str) -> None:
    found = refused(khlone("prune", "--trash", f"--age={age}", "--json", cwd=place), "usage", 2)

    assert "--age" in found["message"]
    assert found["hint"]


# -- values, one by one ----------------------------------------------------------------------

BAD = {
    "sync": "foo",
    "durable": "maybe",
    "trash.age": "nonsense",
    "trash.size": "-5",
    "limits.sessions": "-1",
    "plugins.timeout": "soon",
    "hooks": "some",
    "isolate": "prison",
    "gate.odd.what": "true",
}


def diagnosed(khlone: Khlone, where: Path, code: int = 0) -> list[tuple[str, str, str]]:
    """Code, severity and message of what doctor finds; each has a hint, and none can be fixed by it."""
    found = document(khlone("doctor", "--json", cwd=where), "doctor", code)["findings"]
    assert all(one["fix"] and not one["fixed"] for one in found)
    return [(one["code"], one["severity"], one["message"]) for one in found]


@pytest.mark.parametrize("key", BAD)
def test_a_value_that_cannot_be_used_is_told_by_doctor_and_stops_nobody_who_asks(
    khlone: Khlone, git: Git, place: Path, key: str
) -> None:
    git("config", f"khlone.{key}", BAD[key], cwd=place)

    ((code, severity, message),) = diagnosed(khlone, place)

    assert (code, severity) == ("invalid-setting", "warning")
    assert f"khlone.{key.lower()}" in message.lower()
    assert BAD[key] in message
    for words in (("list",), ("list", "--json"), ("show", "a"), ("path", "a"), ("env", "a"), ("log",), ("trash",)):
        assert khlone(*words, cwd=place).code == 0, words
    assert khlone("doctor", "--fix", cwd=place).code == 0


@pytest.mark.parametrize("key", ["durable", "plugins.timeout"])
@pytest.mark.parametrize(
    "words", [("new", "b"), ("remove", "a"), ("merge", "a"), ("exec", "a", "--", "true")], ids=" ".join
)
def test_a_verb_that_changes_something_refuses_a_value_that_it_would_go_by(
    khlone: Khlone, git: Git, place: Path, words: Sequence[str], key: str
) -> None:
    git("config", f"khlone.{key}", BAD[key], cwd=place)
    before = footprint(git, place)

    found = refused(khlone("--json", *words, cwd=place), "invalid-setting", 2)

    assert f"khlone.{key} = '{BAD[key]}' in {place}/.git/config:" in found["message"]
    assert footprint(git, place) == before


def test_a_file_that_cannot_be_read_is_an_error_of_doctor_with_its_line(khlone: Khlone, place: Path) -> None:
    path = broken(place, "project")

    ((code, severity, message),) = diagnosed(khlone, place, 1)

    assert (code, severity) == ("invalid-setting", "error")
    assert message.startswith(f"{path}:3: ")


def test_a_bad_value_in_the_repositorys_file_is_told_with_its_line(khlone: Khlone, place: Path) -> None:
    write(place, {".khlone.toml": 'agent = "generic"\ndurable = "maybe"\n\n[hooks]\npre-nothing = "true"\n'})

    setting, hook = diagnosed(khlone, place)

    assert setting[:2] == hook[:2] == ("invalid-setting", "warning")
    assert f"khlone.durable = 'maybe' in {place}/.khlone.toml:2" in setting[2]
    assert "pre-nothing" in hook[2]


def test_several_bad_values_are_told_each(khlone: Khlone, git: Git, project: Path) -> None:
    for key in ("sync", "trash.age", "limits.sessions"):
        git("config", f"khlone.{key}", BAD[key], cwd=project)

    found = diagnosed(khlone, project)

    assert len(found) == 3
    assert not (project / ".git" / "khlone").exists()
