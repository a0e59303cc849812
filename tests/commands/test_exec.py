"""`exec`: a command runs in the clone, as the clone, and ends as it ended."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused, show
from tests.support import KHLONE, Git, Khlone

CUT_BYTES = 8 << 20


@pytest.fixture
def clone(khlone: Khlone, project: Path) -> Path:
    """A clone named `a`."""
    return new(khlone, project, "a")


def variables(text: str) -> dict[str, str]:
    """The environment as `env -0` prints it."""
    return dict(item.split("=", 1) for item in text.split("\0") if item)


@pytest.mark.parametrize("code", [0, 1, 3, 75, 255])
def test_the_exit_code_is_passed_on_and_nothing_is_added(khlone: Khlone, project: Path, clone: Path, code: int) -> None:
    done = khlone("exec", "a", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}", cwd=project)

    assert (done.code, done.out, done.err) == (code, "out\n", "err\n")


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("KILL", 9)])
def test_a_signal_gives_128_and_its_number(khlone: Khlone, project: Path, clone: Path, name: str, number: int) -> None:
    command = ("--", "sh", "-c", f"kill -{name} $$")

    assert khlone("exec", "a", *command, cwd=project).code == 128 + number
    result = document(khlone("exec", "a", "--json", *command, cwd=project), "exec", 128 + number)["results"][0]
    assert (result["exit"], result["signal"]) == (None, number)


def test_the_document_holds_what_was_printed(khlone: Khlone, project: Path, clone: Path) -> None:
    done = khlone("exec", "a", "--json", "--", "sh", "-c", "printf out; printf err >&2; exit 3", cwd=project)

    assert document(done, "exec", 3)["results"] == [
        {"name": "a", "exit": 3, "signal": None, "stdout": "out", "stderr": "err", "truncated": False}
    ]


def test_output_that_is_cut_says_so_and_never_blocks(khlone: Khlone, project: Path, clone: Path) -> None:
    script = f"head -c {CUT_BYTES} /dev/zero | tr '\\0' o; head -c {CUT_BYTES} /dev/zero | tr '\\0' e >&2"

    result = document(khlone("exec", "a", "--json", "--", "sh", "-c", script, cwd=project), "exec")["results"][0]

    assert result["exit"] == 0
    assert set(result["stdout"]) == {"o"}
    assert set(result["stderr"]) == {"e"}
    assert result["truncated"] is (len(result["stdout"]) < CUT_BYTES or len(result["stderr"]) < CUT_BYTES)


def test_output_that_is_no_text_is_still_a_document(khlone: Khlone, project: Path, clone: Path) -> None:
    done = khlone("exec", "a", "--json", "--", "printf", "\\377\\000x", cwd=project)

    assert document(done, "exec")["results"][0]["stdout"].endswith("x")


@pytest.mark.parametrize("place", ["repository", "subfolder", "clone", "-C"])
def test_the_command_runs_at_the_top_of_the_worktree(
    khlone: Khlone, project: Path, clone: Path, tmp_path: Path, place: str
) -> None:
    where = {"repository": project, "subfolder": project / "src", "clone": clone / "src", "-C": tmp_path}[place]
    options = ("-C", str(project)) if place == "-C" else ()

    done = khlone(*options, "exec", "a", "--", "pwd", "-P", cwd=where)

    assert done.out.strip() == os.path.realpath(clone)


def test_inside_a_clone_no_name_is_needed(khlone: Khlone, clone: Path) -> None:
    assert khlone("exec", "--", "pwd", "-P", cwd=clone / "src").out.strip() == os.path.realpath(clone)


def test_what_follows_the_dashes_belongs_to_the_command(khlone: Khlone, project: Path, clone: Path) -> None:
    words = ["--json", "-C", "/nowhere", "-h", "--", "-x", "--quiet"]

    done = khlone("exec", "a", "--", "printf", "%s\n", *words, cwd=project)

    assert done.out.splitlines() == words


def test_standard_input_reaches_the_command(khlone: Khlone, project: Path, clone: Path) -> None:
    assert khlone("exec", "a", "--", "cat", cwd=project, input="hello\n").out == "hello\n"


def test_the_command_gets_the_variables_of_the_clone(khlone: Khlone, project: Path, clone: Path) -> None:
    found = variables(khlone("exec", "a", "--", "env", "-0", cwd=project).out)

    own = document(khlone("env", "a", "--json", cwd=project), "env")["environment"]
    own.pop("KHLONE_SESSION", None)
    assert {name: found[name] for name in own} == own
    assert found["CLAUDE_CONFIG_DIR"] == show(khlone, project, "a")["config_dir"]
    assert found["KHLONE_SESSION"]
    assert found["PATH"]


def test_variables_of_another_clone_do_not_leak(khlone: Khlone, project: Path, clone: Path) -> None:
    foreign = {
        "KHLONE_NAME": "z",
        "KHLONE_ID": "z",
        "KHLONE_SESSION": "z",
        "KHLONE_PORT": "1",
        "KHLONE_PORT_COUNT": "1",
        "KHLONE_PORT_700": "1",
    }

    found = variables(khlone("exec", "a", "--", "env", "-0", cwd=project, env=foreign).out)

    assert found["KHLONE_NAME"] == "a"
    assert "z" not in (found["KHLONE_ID"], found["KHLONE_SESSION"])
    assert "1" not in (found.get("KHLONE_PORT"), found.get("KHLONE_PORT_COUNT"))
    assert "KHLONE_PORT_700" not in found


def test_what_git_exports_to_hooks_does_not_reach_the_command(
    khlone: Khlone, git: Git, project: Path, clone: Path
) -> None:
    local = git("rev-parse", "--local-env-vars", cwd=project).split()
    env = {
        "GIT_DIR": str(project / ".git"),
        "GIT_WORK_TREE": str(project),
        "GIT_INDEX_FILE": str(project / ".git" / "index"),
        "GIT_PREFIX": "src/",
    }

    done = khlone("exec", "a", "--", "sh", "-c", "git rev-parse --show-toplevel; env -0", cwd=project, env=env)

    top, _, rest = done.out.partition("\n")
    assert top == os.path.realpath(clone)
    assert set(local) & set(variables(rest)) == set()


def test_commits_of_the_command_go_to_the_branch_of_the_clone(
    khlone: Khlone, git: Git, project: Path, clone: Path
) -> None:
    main = git("rev-parse", "main", cwd=project)

    done = khlone("exec", "a", "--", "git", "commit", "-q", "--allow-empty", "-m", "from inside", cwd=project)

    assert done.code == 0
    assert git("log", "-1", "--format=%s", "a", cwd=project).strip() == "from inside"
    assert git("rev-parse", "main", cwd=project) == main


def test_a_running_command_is_a_session_of_its_clone(khlone: Khlone, project: Path, clone: Path) -> None:
    done = khlone("exec", "a", "--", str(KHLONE), "show", "--json", cwd=project)

    running = json.loads(done.out)["clone"]["sessions"]
    assert len(running) == 1
    assert running[0]["pid"] > 0
    assert "show" in str(running[0]["command"])
    assert show(khlone, project, "a")["sessions"] == []


def test_a_program_of_the_worktree_is_found_by_its_relative_path(khlone: Khlone, project: Path, clone: Path) -> None:
    script = clone / "src" / "tool.sh"
    script.write_text("#!/bin/sh\necho tool\n")
    script.chmod(0o755)

    assert khlone("exec", "a", "--", "./src/tool.sh", cwd=project).out == "tool\n"


# -- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["no-such-command-anywhere", "./no/such/file", "./notes.txt", "./src"])
def test_a_command_that_cannot_start_is_an_error_of_khlone(
    khlone: Khlone, project: Path, clone: Path, command: str
) -> None:
    error = document(khlone("exec", "a", "--json", "--", command, cwd=project), "error", 1)

    assert Path(command).name in error["message"]
    text = khlone("exec", "a", "--", command, cwd=project)
    assert (text.code, text.out) == (1, "")
    assert "Traceback" not in text.err
    assert show(khlone, project, "a")["sessions"] == []


def test_an_unknown_clone_runs_nothing(khlone: Khlone, project: Path, clone: Path, tmp_path: Path) -> None:
    refused(khlone("exec", "nope", "--json", "--", "touch", str(tmp_path / "ran"), cwd=project), "no-such-clone")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [("a",), ("a", "--"), ("a", "true")])
def test_without_a_command_it_is_a_usage_error(
    khlone: Khlone, project: Path, clone: Path, words: tuple[str, ...]
) -> None:
    refused(khlone("exec", "--json", *words, cwd=project), "usage", 2)


def test_without_a_name_outside_a_clone_nothing_runs(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    done = khlone("exec", "--json", "--", "touch", str(tmp_path / "ran"), cwd=project)

    assert done.code in (1, 2)
    assert document(done, "error", done.code)["message"]
    assert not (tmp_path / "ran").exists()


def test_a_clone_without_its_folder_runs_nothing(khlone: Khlone, project: Path, clone: Path) -> None:
    shutil.rmtree(clone)

    done = khlone("exec", "a", "--json", "--", "true", cwd=project)

    assert document(done, "error", 1)["message"]
    assert "Traceback" not in done.err
