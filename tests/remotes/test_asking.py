"""A remote that wants a password: a program that answers for the user is let, one that waits for somebody is ended."""

from __future__ import annotations

import base64
import os
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.commands.steps import branches, new
from tests.commands.test_resources import alive, wait_for
from tests.faults.lab import run
from tests.faults.test_prompts import on_a_terminal
from tests.support import KHLONE, Commit, Git, Khlone


class _Wanting(BaseHTTPRequestHandler):
    """Lets nobody in without a password, and has nothing for those who give one."""

    given: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        word = self.headers.get("Authorization")
        if word is None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
        else:
            self.given.append(base64.b64decode(word.removeprefix("Basic ")).decode())
            self.send_response(404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def wanting(khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path) -> Iterator[Path]:
    """A repository with a clone one commit ahead, whose remote wants a password now."""
    commit(new(khlone, repository, "a"), {"a.txt": "a\n"}, "a")
    _Wanting.given.clear()
    with HTTPServer(("127.0.0.1", 0), _Wanting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        git("remote", "set-url", "origin", f"http://127.0.0.1:{server.server_port}/x.git", cwd=repository)
        yield repository
        server.shutdown()


def program(path: Path, script: str) -> Path:
    """A program of one line of shell."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


VERBS = (("prune", "--fetch"), ("push", "a"), ("new", "b", "--fetch", "--from", "origin/main"))


@pytest.mark.parametrize(
    ("asking", "verb"),
    [*(("GIT_ASKPASS", verb) for verb in VERBS), ("SSH_ASKPASS", VERBS[0]), ("core.askPass", VERBS[1])],
)
def test_a_program_that_waits_for_somebody_is_ended_with_the_git_that_asked(
    khlone: Khlone, git: Git, wanting: Path, tmp_path: Path, asking: str, verb: tuple[str, ...]
) -> None:
    """The control is in it: the program was asked, and would have slept on."""
    asked = tmp_path / "asked"
    waiting = program(tmp_path / "askpass", f"echo $$ >{shlex.quote(str(asked))}; exec sleep 600")
    git("config", "khlone.network.timeout", "8", cwd=wanting)
    if asking == "core.askPass":
        git("config", asking, str(waiting), cwd=wanting)
    before = branches(git, wanting)

    done = khlone(*verb, cwd=wanting, env={} if asking == "core.askPass" else {asking: str(waiting)})

    assert done.code == 1, done
    assert "no answer within 8 s" in done.err
    wait_for(lambda: not alive(int(asked.read_text())))
    assert branches(git, wanting) == before


@pytest.mark.parametrize("verb", VERBS, ids=[verb[0] for verb in VERBS])
def test_a_program_that_answers_is_let(khlone: Khlone, wanting: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    answering = program(tmp_path / "askpass", 'case "$1" in Username*) echo somebody ;; *) echo hunter2 ;; esac')

    done = khlone(*verb, cwd=wanting, env={"GIT_ASKPASS": str(answering)})

    assert "somebody:hunter2" in _Wanting.given
    assert done.code == 1, "it has nothing for anybody"
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize("verb", VERBS, ids=[verb[0] for verb in VERBS])
def test_on_a_terminal_nobody_is_asked_either(wanting: Path, verb: tuple[str, ...]) -> None:
    done = run(*on_a_terminal(str(KHLONE), *verb), cwd=wanting)

    assert done.code == 77, done
    assert "could not read Username" in done.out
    assert _Wanting.given == []


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "none"])
def test_a_hook_that_asks_on_the_terminal_holds_the_push_and_nothing_waits(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path, terminal: bool
) -> None:
    commit(new(khlone, repository, "a"), {"a.txt": "a\n"}, "a")
    asked = tmp_path / "asked"
    hook = repository / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    program(hook, f"echo asked >>{shlex.quote(str(asked))}; read answer </dev/tty || exit 3")
    command = (str(KHLONE), "push", "a")

    done = run(*(on_a_terminal(*command) if terminal else command), cwd=repository, env=dict(os.environ))

    assert done.code == 1, done
    assert asked.read_text() == "asked\n", "the control: it did ask"
    assert "a" not in git("for-each-ref", "--format=%(refname:short)", "refs/heads", cwd=remote).split()
