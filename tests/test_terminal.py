"""Colours and progress are for a terminal alone; a pipe gets the same bytes as ever."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.commands.steps import new
from tests.support import KHLONE, Commit, Khlone, run_git

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(*words: str, cwd: Path, env: Mapping[str, str] | None = None, width: int = 400) -> str:
    """All that a call writes to a real terminal of so many columns."""
    # Workers of pytest have a COLUMNS of their own.
    inherited = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    variables = {**inherited, "TERM": "xterm-256color", **(env or {})}
    child = pexpect.spawn(
        str(KHLONE), list(words), cwd=str(cwd), env=variables, encoding="utf-8", timeout=120, dimensions=(50, width)
    )
    child.expect(pexpect.EOF)
    child.close()
    return str(child.before).replace("\r\n", "\n")


@pytest.fixture
def project(khlone: Khlone, repository: Path) -> Path:
    """A repository with a clone that is modified."""
    (new(khlone, repository, "one") / "README.md").write_text("changed\n")
    return repository


def test_a_table_is_cut_to_fit_a_narrow_terminal_and_nothing_that_is_typed_again(khlone: Khlone, project: Path) -> None:
    path = new(khlone, project, "feature/a-long-name")
    (heads, *rows) = (line.split() for line in khlone("list", cwd=project).out.splitlines())

    (cut_heads, *cut) = on_terminal("list", "--color", "never", cwd=project, width=100).splitlines()
    by_variable = on_terminal("list", "--color", "never", cwd=project, env={"COLUMNS": "100"})

    assert max(map(len, (cut_heads, *cut))) <= 100
    assert [line.split()[0] for line in cut] == [row[0] for row in rows] == ["feature/a-long-name", "one"]
    assert cut_heads.split() == heads
    assert cut[0].split()[-1] == "\u2026" + str(path)[1 - len(cut[0].split()[-1]) :]
    assert by_variable.splitlines() == [cut_heads, *cut]
    assert str(path) in khlone("list", cwd=project, env={"COLUMNS": "80"}).out, "a pipe has all of it"
    log = on_terminal("log", "--color", "never", cwd=project, width=50).splitlines()
    piped = khlone("log", cwd=project).out.splitlines()
    assert [line.split()[0] for line in log] == [line.split()[0] for line in piped]


@pytest.mark.parametrize("verb", ["list", "log", "plugins", "config"])
def test_a_table_on_a_terminal_is_that_of_a_pipe_with_colours(khlone: Khlone, project: Path, verb: str) -> None:
    piped = khlone(verb, cwd=project).out

    shown = on_terminal(verb, cwd=project)

    assert "\x1b" not in piped
    assert "\x1b[1m" in shown
    if verb != "plugins":  # Its times differ from call to call.
        assert ESCAPE.sub("", shown) == piped


def test_states_have_colours_and_the_words_stay(project: Path) -> None:
    shown = on_terminal("list", cwd=project)

    assert "\x1b[32mready\x1b[0m" in shown
    assert "\x1b[33mmodified\x1b[0m" in shown


@pytest.mark.parametrize(
    ("words", "env"),
    [
        ((), {"NO_COLOR": "1"}),
        ((), {"TERM": "dumb"}),
        (("--color", "never"), {}),
        (("--color=never",), {}),
        (("--json",), {}),
    ],
)
def test_there_are_no_colours_where_they_are_not_wanted(
    project: Path, words: tuple[str, ...], env: Mapping[str, str]
) -> None:
    assert "\x1b" not in on_terminal("list", *words, cwd=project, env=env)


@pytest.mark.parametrize(
    "words", [("--color=always", "list"), ("list", "--color", "always"), ("log", "--color=always")]
)
def test_colours_are_there_where_they_are_demanded(khlone: Khlone, project: Path, words: tuple[str, ...]) -> None:
    assert "\x1b[1m" in khlone(*words, cwd=project, env={"NO_COLOR": "1"}).out


@pytest.mark.parametrize("verb", ["list", "log"])
def test_a_colour_that_is_none_is_refused(khlone: Khlone, project: Path, verb: str) -> None:
    assert khlone(verb, "--color", "blue", cwd=project).code == 2


def test_long_operations_show_how_far_they_are(khlone: Khlone, repository: Path, commit: Commit) -> None:
    made = on_terminal("new", "row", "-n", "3", cwd=repository)
    for number in (1, 2, 3):
        path = Path(khlone("path", f"row-{number}", cwd=repository).out.strip())
        commit(path, {f"{number}.txt": "new\n"}, "work")
    ran = on_terminal("exec", "--all", "-j", "1", "--", "true", cwd=repository)
    merged = on_terminal("merge", "row-1", "row-2", "row-3", cwd=repository)
    pruned = on_terminal("prune", cwd=repository)

    for shown, what in (
        (made, "making row-2"),
        (ran, "row-1 has ended"),
        (merged, "merging row-2"),
        (pruned, "looking at row-2"),
    ):
        assert what in shown
        assert re.search(r"1\S*/\S*3", ESCAPE.sub("", shown))
        # What was drawn is taken away, and the cursor is there again.
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
    assert merged.count(" landed on ") == 3


def test_a_merge_through_the_queue_shows_what_gates_look_at_and_who_is_to_blame(
    khlone: Khlone, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    for name in "abc":
        commit(new(khlone, repository, name), {f"{name}.txt": name}, f"work of {name}")
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    # It waits to be seen, at every candidate.
    gate = f"touch {begun}; until test -e {go_on}; do sleep 0.05; done; test ! -e a.txt -o ! -e b.txt"
    run_git("config", "khlone.gate.test", gate, cwd=repository)
    child = pexpect.spawn(
        str(KHLONE),
        ["merge", "a", "b", "c"],
        cwd=str(repository),
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=120,
        dimensions=(50, 200),
    )
    child.logfile_read = io.StringIO()

    child.expect(r"gate test for \d+ s")
    go_on.touch()
    child.expect(pexpect.EOF)
    child.close()

    shown = ESCAPE.sub("", child.logfile_read.getvalue())
    assert child.exitstatus == 5
    assert re.search(r"main +0 landed, 0 held, 3 in line", shown)
    assert re.search(r"a, b, c +[0-9a-f]{10} +refused by test", shown)
    assert re.search(r"a +held +gate-failed with b", shown)
    assert re.search(r"c landed on main as [0-9a-f]{10}", shown)
    raw = child.logfile_read.getvalue()
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") > 0


def test_an_interruption_while_a_gate_runs_leaves_the_cursor_and_nothing_in_line(
    khlone: Khlone, repository: Path, commit: Commit
) -> None:
    commit(new(khlone, repository, "a"), {"a.txt": "a"}, "work of a")
    run_git("config", "khlone.gate.test", "sleep 1000", cwd=repository)
    child = pexpect.spawn(
        str(KHLONE),
        ["merge", "a"],
        cwd=str(repository),
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=120,
        dimensions=(50, 200),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.logfile_read = io.StringIO()
    child.expect(r"gate test for \d+ s")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()

    raw = child.logfile_read.getvalue()
    assert "interrupted by SIGINT" in raw
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") > 0
    assert json.loads(khlone("queue", "--json", cwd=repository).out)["entries"] == []


def test_in_a_pipe_the_same_is_told_in_lines(khlone: Khlone, repository: Path, commit: Commit) -> None:
    for name in "ab":
        commit(new(khlone, repository, name), {f"{name}.txt": name}, f"work of {name}")
    run_git("config", "khlone.gate.test", "test ! -e b.txt", cwd=repository)

    piped = khlone("merge", "a", "b", cwd=repository)
    quiet = khlone("--quiet", "merge", "b", cwd=repository)

    told = [re.sub(r"[0-9a-f]{10}", "OID", line) for line in piped.err.splitlines()]
    assert told[:3] == [
        "khlone: testing a, b on main (OID)",
        "khlone: gate 'test' refused a, b (OID)",
        "khlone: testing a on main (OID)",
    ]
    assert "\x1b" not in piped.err + piped.out
    assert quiet.err == ""


def test_there_is_no_progress_without_a_terminal_or_when_it_is_not_wanted(khlone: Khlone, repository: Path) -> None:
    piped = khlone("new", "a", "-n", "2", cwd=repository)
    quiet = on_terminal("--quiet", "new", "b", "-n", "2", cwd=repository)
    alone = on_terminal("new", "c", cwd=repository)

    assert "making" not in piped.err + piped.out + quiet + alone


def test_an_interruption_leaves_the_cursor(repository: Path) -> None:
    child = pexpect.spawn(
        str(KHLONE),
        ["new", "row", "-n", "200"],
        cwd=str(repository),
        env={**os.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=120,
        dimensions=(50, 200),
        # Whoever runs the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.expect("making row-2")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()

    assert "interrupted by SIGINT" in str(child.before)
    assert str(child.before).rpartition("\x1b[?25l")[2].count("\x1b[?25h") == 1


def test_ctrl_c_reaches_a_command_once(khlone: Khlone, repository: Path) -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "print('begun', flush=True)\n"
        "raise SystemExit(int(input()))"
    )
    khlone("new", "a", cwd=repository)
    child = pexpect.spawn(
        str(KHLONE), ["exec", "a", "--", sys.executable, "-c", code], cwd=str(repository), encoding="utf-8", timeout=120
    )
    child.expect("begun")
    for _ in range(5):
        child.sendintr()
        child.expect("interrupted")
    child.sendline("7")
    child.expect(pexpect.EOF)
    child.close()

    assert "interrupted" not in str(child.before)
    assert child.exitstatus == 7
