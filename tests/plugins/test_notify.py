"""Who is told when something is through: off by default, in several ways, never waited for, never a failure."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.commands.steps import document, new
from tests.support import KHLONE, Commit, Git, Khlone

PATIENCE_S = 60.0


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for an event that cannot be blocked on."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.1)


@pytest.fixture
def told(git: Git, repository: Path, tmp_path: Path) -> Callable[[], list[str]]:
    """The program that is to be told writes a line for each call; this reads them."""
    log = tmp_path / "told"
    script = 'printf "%s|%s|%s\\n" "$KHLONE_EVENT" "$KHLONE_NAME" "$KHLONE_MESSAGE" >>"$1"'
    git("config", "khlone.notify.command", f"sh -c {shlex.quote(script)} - {log}", cwd=repository)
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_each_event_is_told_once_with_what_happened(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, told: Callable[[], list[str]]
) -> None:
    path = new(khlone, repository, "one")
    commit(path, {"a.txt": "theirs\n"}, "work")
    expected = []

    def see(line: str) -> None:
        expected.append(line)
        wait_until(lambda: len(told()) >= len(expected))
        assert told() == expected

    assert khlone("exec", "one", "--", "true", "secret", cwd=repository).code == 0
    see("ended|one|true in one ended (exit 0)")
    assert khlone("exec", "one", "--", "sh", "-c", "exit 7", cwd=repository).code == 7
    see("failed|one|sh in one ended (exit 7)")
    assert khlone("merge", "one", cwd=repository).code == 0
    see("merged|one|one landed on main")
    assert khlone("merge", "one", cwd=repository).code == 0
    see("held|one|one has nothing that main lacks")
    assert khlone("new", "two", cwd=repository, env={"KHLONE_FAULT": "create.checked-out:raise:ENOSPC"}).code == 1
    see("failed|two|two could not be made")


def test_only_the_events_that_are_wanted_are_told(
    khlone: Khlone, git: Git, repository: Path, told: Callable[[], list[str]]
) -> None:
    git("config", "khlone.notify.events", "failed", cwd=repository)
    new(khlone, repository, "one")

    assert khlone("exec", "one", "--", "true", cwd=repository).code == 0
    assert khlone("exec", "one", "--", "false", cwd=repository).code == 1

    wait_until(told)
    assert told() == ["failed|one|false in one ended (exit 1)"]


def test_a_program_that_takes_its_time_is_not_waited_for(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    script = f"cd {tmp_path}; touch began; while test ! -e go; do sleep 0.1; done; touch ended"
    git("config", "khlone.notify.command", f"sh -c {shlex.quote(script)}", cwd=repository)
    new(khlone, repository, "one")

    done = khlone("exec", "one", "--", "echo", "out", cwd=repository)

    assert (done.code, done.out) == (0, "out\n")
    wait_until((tmp_path / "began").exists)
    assert not (tmp_path / "ended").exists()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "ended").exists)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("command", "no-such-program", "no-such-program"),
        ("command", "./script", "./script"),
        ("command", "'open", "quotation"),
        ("how", "loud", "'loud' is none of bell"),
    ],
)
def test_what_cannot_be_told_is_a_warning_and_no_failure(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, key: str, value: str, why: str
) -> None:
    git("config", f"khlone.notify.{key}", value, cwd=repository)
    commit(new(khlone, repository, "one"), {"a.txt": "a\n"}, "work")

    done = khlone("merge", "one", "--json", cwd=repository)

    assert [one["name"] for one in document(done, "merge")["landed"]] == ["one"]
    assert why in done.err
    assert "Traceback" not in done.err


def on_terminal(where: Path, *words: str) -> bytes:
    """What a terminal gets from a command."""
    child = pexpect.spawn(str(KHLONE), list(words), cwd=str(where), env=dict(os.environ), timeout=PATIENCE_S)
    shown = child.read()
    child.close()
    assert child.exitstatus == 0, shown
    assert isinstance(shown, bytes)
    return shown


def test_a_terminal_is_told_by_the_sequences_that_are_wanted_and_by_none_else(
    khlone: Khlone, git: Git, commit: Commit, repository: Path
) -> None:
    for name in ("one", "two"):
        commit(new(khlone, repository, name), {f"{name}.txt": "a\n"}, "work")
    assert b"\a" not in on_terminal(repository, "merge", "one")
    git("config", "khlone.notify.how", "bell osc9 osc777", cwd=repository)

    shown = on_terminal(repository, "merge", "two")

    message = b"two landed on main"
    assert b"\a\x1b]9;" + message + b"\a\x1b]777;notify;khlone;" + message + b"\a" in shown
    # In a pipe nothing of it.
    assert "\a" not in khlone("exec", "two", "--", "true", cwd=repository).err


def test_the_desktop_is_told_where_it_can_be(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    git("config", "khlone.notify.how", "desktop", cwd=repository)
    new(khlone, repository, "one")
    assert khlone("exec", "one", "--", "true", cwd=repository).code == 0
    site = tmp_path / "bin"
    site.mkdir()
    shown = tmp_path / "shown"
    for name in ("notify-send", "osascript"):
        last = f'for word; do :; done\nprintf %s "$word" >{shown}.new\nmv {shown}.new {shown}\n'
        (site / name).write_text(f"#!/bin/sh\n{last}")
        (site / name).chmod(0o755)

    assert khlone("exec", "one", "--", "true", cwd=repository, env={"PATH": f"{site}:{os.environ['PATH']}"}).code == 0

    wait_until(shown.exists)
    assert shown.read_text() == "true in one ended (exit 0)"
