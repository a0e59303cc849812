"""`new --ask-each`: each of many new clones is asked its own question; a bad file makes none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agents.test_ask import Claude, claude
from tests.commands.steps import clone_names, document, refused
from tests.commands.test_run import project, run
from tests.support import Khlone, run_git, write

__all__ = ["claude", "project", "run"]


def branches(project: Path) -> list[str]:
    """The branches of the repository."""
    return run_git("for-each-ref", "--format=%(refname:short)", "refs/heads", cwd=project).split()


def test_each_clone_is_asked_its_own_question(khlone: Khlone, project: Path, claude: Claude, tmp_path: Path) -> None:
    prompts = ["mend the tests", "two\nlines, and a \u2603", {"prompt": "write docs"}]
    write(tmp_path, {"prompts.jsonl": "\n".join(json.dumps(one) for one in prompts) + "\n\n"})

    done = khlone("new", "fix", "-n", "3", "--ask-each", str(tmp_path / "prompts.jsonl"), cwd=project)
    names = ["fix-1", "fix-2", "fix-3"]
    ended = document(khlone("wait", *names, "--json", cwd=project), "wait")["sessions"]

    assert done.code == 0, done
    assert [Path(line).name for line in done.out.splitlines()] == names
    assert [(one["name"], one["kind"], one["exit"]) for one in ended] == [(name, "ask", 0) for name in names]
    asked = {Path(folder).name: prompt for _, prompt, folder in claude.asked()}
    assert asked == {"fix-1": "mend the tests", "fix-2": "two\nlines, and a \u2603", "fix-3": "write docs"}
    assert khlone("ask", "fix-2", "--last", cwd=project).out == "done: 42\n"


def test_the_questions_say_how_many_and_come_from_stdin(khlone: Khlone, project: Path, claude: Claude) -> None:
    done = khlone("new", "fix", "--ask-each", "-", "--json", cwd=project, input='"a"\n"b"\n')

    assert [one["name"] for one in document(done, "new")["clones"]] == ["fix-1", "fix-2"]
    assert khlone("wait", "fix-1", "fix-2", cwd=project).code == 0
    assert {(Path(folder).name, prompt) for _, prompt, folder in claude.asked()} == {("fix-1", "a"), ("fix-2", "b")}


def test_one_that_cannot_be_made_is_told_and_the_others_are_asked_theirs(
    khlone: Khlone, project: Path, claude: Claude
) -> None:
    run_git("branch", "fix-1", cwd=project)

    done = khlone("new", "fix", "-n", "2", "--ask-each", "-", "--json", cwd=project, input='"first"\n"second"\n')

    found = document(done, "new", 1)
    assert [one["name"] for one in found["clones"]] == ["fix-2"]
    assert [(one["name"], one["code"]) for one in found["failed"]] == [("fix-1", "branch-exists")]
    assert khlone("wait", "fix-2", cwd=project).code == 0
    assert [prompt for _, prompt, _ in claude.asked()] == ["second"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('"a"\nno json\n', 2),
        ('"a"\n["b"]\n', 2),
        ('{"prompt": 3}\n', 1),
        ('{"prompt": "a", "name": "x"}\n', 1),
        ("{}\n", 1),
        ('"a"\n\n"  "\n', 3),
        ('"a\\u0000b"\n', 1),
        ("[" * 100_000 + "\n", 1),
        ('"x"\n' * 1001, 1001),
        ("\n\n", None),
    ],
)
def test_a_file_with_a_bad_line_is_refused_before_anything_is_made(
    khlone: Khlone, project: Path, claude: Claude, content: str, line: int | None
) -> None:
    found = refused(khlone("new", "fix", "--ask-each", "-", "--json", cwd=project, input=content), "usage", 2)

    assert (f"stdin, line {line}: " if line else "stdin asks nothing") in found["message"]
    assert clone_names(khlone, project) == ["one"]
    assert branches(project) == ["main", "one"]
    assert not claude.record.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("-n", "3", "--ask-each", "-"), "usage"),
        (("--ask-each", "-", "-x", "true"), "usage"),
        (("--ask-each", "absent.jsonl"), "usage"),
        (("--ask-each", "/"), "usage"),
        (("--ask-each", "/dev/null"), "usage"),
        (("--ask-each", "-", "--agent", "generic"), "no-headless-mode"),
        (("--ask-each", "-", "--agent", "nobody"), "unknown-agent"),
    ],
)
def test_what_cannot_be_asked_makes_nothing(
    khlone: Khlone, project: Path, claude: Claude, words: tuple[str, ...], code: str
) -> None:
    done = khlone("--json", "new", "fix", *words, cwd=project, input='"a"\n"b"\n')

    assert done.json()["code"] == code, done
    assert done.code != 0
    assert branches(project) == ["main", "one"]


def test_what_keeps_an_agent_from_starting_is_told_and_the_clone_stays(
    khlone: Khlone, project: Path, claude: Claude
) -> None:
    run_git("config", "khlone.limits.memory", "1M", cwd=project)

    done = khlone("new", "fix", "--ask-each", "-", "--json", cwd=project, input='"a"\n')

    found = document(done, "new", 75)
    assert [one["name"] for one in found["clones"]] == ["fix-1"]
    assert [(one["name"], one["code"]) for one in found["failed"]] == [("fix-1", "no-room")]
    assert "the clone stays" in done.err
    assert not claude.record.exists()
