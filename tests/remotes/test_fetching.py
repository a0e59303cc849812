"""Many commands that want the same fetch at once get by with one, and none gets an older one than it asked for."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.commands.steps import new, refused
from tests.remotes.conftest import Fetches
from tests.support import TIMEOUT_S, Commit, Git, Khlone

COMMAND = (
    "import sys; from khlone.operations import fetching; from khlone.cli import main; {}main(['prune', '--fetch'])"
)
#: As if no fetch of another could ever be used.
UNSHARED = "fetching._shared = lambda *given: None; "


class Asking:
    """A command that wants a fetch, whose story can be waited for."""

    def __init__(self, where: Path, change: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND.format(change)],
            cwd=where,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.story = ""

    def hear(self, word: str) -> str:
        """The story up to the first line with a word in it."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.story += line
            if word in line:
                return self.story
        raise AssertionError(f"{word!r} was not said: {self.story}")

    def end(self) -> int:
        """How it ended."""
        _, rest = self._process.communicate(timeout=TIMEOUT_S)
        self.story += rest
        return self._process.returncode


@contextlib.contextmanager
def turn_taken(repository: Path) -> Iterator[None]:
    """Nobody else may fetch."""
    (path,) = (repository / ".git/khlone/locks").glob("fetch-*.lock")
    with path.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@pytest.fixture
def ready(khlone: Khlone, repository: Path, fetches: Fetches) -> Fetches:
    """A clone that follows the remote by its target, and a first fetch."""
    new(khlone, repository, "one")
    assert khlone("prune", "--fetch", cwd=repository).code == 0
    assert fetches.count == 1
    return fetches


@pytest.mark.parametrize(("change", "expected"), [("", 1), (UNSHARED, 10)], ids=["shared", "control"])
def test_ten_that_want_a_fetch_at_once_make_one(repository: Path, ready: Fetches, change: str, expected: int) -> None:
    with turn_taken(repository):
        asking = [Asking(repository, change) for _ in range(10)]
        stories = [one.hear("waiting for") for one in asking]

    codes = [one.end() for one in asking]

    assert codes == [0] * 10, [one.story for one in asking]
    assert ready.count - 1 == expected
    assert all("waiting for the fetch from origin, held by" in story for story in stories)


def test_who_asks_while_a_fetch_runs_gets_a_later_one(
    git: Git, commit: Commit, repository: Path, remote: Path, ready: Fetches, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    for path in (begun, go_on):
        subprocess.run(["mkfifo", path], check=True)
    ready.let_pass(
        f'exec 3>&1; git-upload-pack "$@"; [ -e "{tmp_path}/once" ] && exit; : >"{tmp_path}/once"; '
        f'echo >"{begun}"; read _ <"{go_on}"'
    )
    first = Asking(repository)
    begun.read_text()
    oid = commit(repository, {"fresh.txt": "fresh\n"}, "fresh")
    git("push", "-q", str(remote), "main", cwd=repository)
    later = [Asking(repository) for _ in range(2)]
    for one in later:
        one.hear("waiting for")

    go_on.write_text("\n")
    codes = [one.end() for one in (first, *later)]

    assert codes == [0, 0, 0]
    assert ready.count - 1 == 2
    assert git("rev-parse", "origin/main", cwd=repository).strip() == oid


def test_a_fetch_that_failed_failed_for_all_who_waited(repository: Path, ready: Fetches) -> None:
    ready.let_pass("echo 'fatal: the disk is on fire' >&2; exit 1")
    with turn_taken(repository):
        asking = [Asking(repository) for _ in range(3)]
        for one in asking:
            one.hear("waiting for")

    codes = [one.end() for one in asking]

    assert codes == [1, 1, 1]
    assert ready.count - 1 == 1
    assert all("khlone: remote origin: " in one.story for one in asking)


def test_a_remote_that_gives_no_answer_ends_the_command(
    khlone: Khlone, git: Git, repository: Path, ready: Fetches
) -> None:
    ready.let_pass("exec sleep 1000")
    git("config", "khlone.network.timeout", "1", cwd=repository)

    done = khlone("prune", "--fetch", "--json", cwd=repository)

    assert "no answer within 1 s" in refused(done, "remote-failed")["message"]
    ready.let_pass('exec git-upload-pack "$@"')
    git("config", "khlone.network.timeout", "60", cwd=repository)
    assert khlone("prune", "--fetch", cwd=repository).code == 0


class _Unauthorized(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("user", ["", "user:hunter2@"])
def test_missing_credentials_are_said_and_not_asked_for(
    khlone: Khlone, git: Git, repository: Path, ready: Fetches, user: str
) -> None:
    with HTTPServer(("127.0.0.1", 0), _Unauthorized) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        git("remote", "set-url", "origin", f"http://{user}127.0.0.1:{server.server_port}/x.git", cwd=repository)

        done = khlone("prune", "--fetch", "--json", cwd=repository)
        server.shutdown()

    refused(done, "credentials-missing", 77)
    assert "hunter2" not in done.out + done.err
    assert ready.count == 1


def test_a_damaged_note_of_the_last_fetch_costs_one_more(khlone: Khlone, repository: Path, ready: Fetches) -> None:
    (note,) = (repository / ".git/khlone/locks").glob("fetch-*.json")
    note.write_bytes(b'{"begun": ')

    assert khlone("prune", "--fetch", cwd=repository).code == 0

    assert ready.count == 2
    assert b'"ended": 1' in note.read_bytes()


LANDINGS = {
    "merge": ("merge", "-q", "--no-ff", "-m", "merged there", "one"),
    "squash": ("merge", "-q", "--squash", "one"),
    "rebase": ("cherry-pick", "main..one"),
}


def landed_there(git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path, how: str) -> None:
    """A branch of two commits lands on the remote's main after another one, which goes on; its branch there goes."""
    git("push", "-q", str(remote), "one", cwd=repository)
    there = tmp_path / "there"
    git("clone", "-q", str(remote), str(there), cwd=tmp_path)
    git("fetch", "-q", "origin", "one:one", cwd=there)
    commit(there, {"other.txt": "other\n"}, "of somebody else")
    git(*LANDINGS[how], cwd=there)
    if how == "squash":
        git("commit", "-q", "-m", "squashed there", cwd=there)
    commit(there, {"one.txt": "goes on\n"}, "goes on where the branch was")
    git("push", "-q", "origin", "main", ":one", cwd=there)


@pytest.mark.parametrize("verb", ["sync", "prune"])
@pytest.mark.parametrize("how", LANDINGS)
def test_what_landed_upstream_is_merged_after_a_fetch(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, remote: Path, tmp_path: Path, how: str, verb: str
) -> None:
    path = new(khlone, repository, "one")
    commit(path, {"one.txt": "1\n"}, "one")
    commit(path, {"two.txt": "2\n"}, "two")
    landed_there(git, commit, repository, remote, tmp_path, how)
    assert '"not-integrated"' in khlone("prune", "--json", cwd=repository).out

    words = ("prune", "--fetch") if verb == "prune" else ("sync", "one", "--fetch")
    done = khlone(*words, cwd=repository)

    assert done.code == 0, done
    if verb == "prune":
        assert not path.exists()
        assert git("branch", "--list", "one", cwd=repository) == ""
    else:
        assert '"merged"' in khlone("show", "one", "--json", cwd=repository).out
        assert khlone("remove", "one", cwd=repository).code == 0
