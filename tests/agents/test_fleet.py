"""Many real agents at once in clones: nothing is lost, nobody is logged out, and nothing lands elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.agents.steps import environment
from tests.commands.steps import document, refused, tree
from tests.support import KHLONE, Khlone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: All of them in `make torture`; as many as two cores start in a moment otherwise.
MANY = 30 if os.environ.get("KHLONE_TORTURE") else 6
_OPENED = re.compile(r'^\d+ +(?P<call>\w+)\((?:AT_FDCWD, )?"(?P<path>[^"]*)"(?P<rest>.*)$')
_WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")
_TRACED = "openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Loopback]:
    """The services, at the fixed hosts too that tokens are refreshed at."""
    with Loopback() as services:
        folder = tmp_path / "certificate"
        folder.mkdir()
        services.serve_hosts(folder)
        yield services


Subscriber = Callable[[str], dict[str, str | None]]


@pytest.fixture
def subscriber(api: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Subscriber:
    """The environment of a user who is logged in, and has started that version before."""

    def log_in(version: str) -> dict[str, str | None]:
        programs = real.claude(tmp_path_factory.getbasetemp().parent / "agents", version)
        found: dict[str, str | None] = {**api.environment(), "PATH": f"{programs}:{os.environ['PATH']}"}
        store = Path(os.environ["HOME"], ".claude", ".credentials.json")
        store.parent.mkdir(mode=0o700)
        store.touch(0o600)
        store.write_text(api.accounts.login().credentials())
        done = started(["claude", "-p", "hello"], found, Path(os.environ["HOME"]))
        assert done.returncode == 0, done
        mine = Path(os.environ["HOME"], ".claude.json")
        mine.write_text(json.dumps({**json.loads(mine.read_bytes()), "hasCompletedOnboarding": True}))
        return found

    return log_in


def started(words: list[str], env: dict[str, str | None], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that may take longer than most."""
    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    return subprocess.run(
        words, env=variables, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )


def in_all(repository: Path, env: dict[str, str | None], *words: str) -> list[dict[str, Any]]:
    """How a command ended in every clone, all of them at once."""
    done = started([str(KHLONE), "exec", "--all", "-j", "30", "--json", "--", *words], env, repository)
    found = json.loads(done.stdout)
    assert found["schema"] == "khlone.exec/1", found
    return list(found["results"])


def test_24_servers_added_at_once_by_2_1_229_are_all_there_in_clones_and_not_in_one_config_dir(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = real.claude(tmp_path_factory.getbasetemp().parent / "agents", real.CLAUDE_MIDDLE) / "claude"

    done = started([str(KHLONE), "contention", "--program", str(program), "-n", "24", "--json"], {}, tmp_path)

    found = json.loads(done.stdout)
    assert (done.returncode, found["version"], found["login"]) == (0, real.CLAUDE_MIDDLE, "store"), done.stderr
    rows = {row["mode"]: (row["lost"], row["failed"], row["logged_out"]) for row in found["rows"]}
    assert rows["shared"][0] > 0
    assert rows["linked"] == (0, 0, 23)
    assert rows["khlone"] == (0, 0, 0), found["rows"]


@pytest.mark.parametrize("version", [real.CLAUDE_NEWEST, real.CLAUDE_MIDDLE, real.CLAUDE_OLD])
def test_8_clones_with_a_login_that_has_run_out_all_answer(
    khlone: Khlone, repository: Path, api: Loopback, subscriber: Subscriber, version: str
) -> None:
    env = subscriber(version)
    done = khlone("new", "c", "-n", "8", "--agent", "claude", cwd=repository, env=env)
    assert done.code == 0, done
    tokens = api.accounts.login()
    api.accounts.expire()
    Path(os.environ["HOME"], ".claude", ".credentials.json").write_text(tokens.credentials(expired=True))
    asked = api.accounts.refreshes

    results = in_all(repository, env, "claude", "-p", "hello")

    assert [(one["exit"], one["stdout"].strip()) for one in results] == [(0, Answer().text)] * 8
    assert (api.accounts.refreshes - asked, api.accounts.refused) == (1, 0)
    assert list(api.refused_hosts) == []


def test_a_version_that_can_share_no_login_is_refused_with_what_to_do(
    khlone: Khlone, repository: Path, api: Loopback, subscriber: Subscriber
) -> None:
    env = subscriber(real.CLAUDE_NO_SHARE)
    assert khlone("new", "one", "--agent", "claude", cwd=repository, env=env).code == 0
    asked = len(api.requests())

    done = khlone("exec", "one", "--json", "--", "claude", "-p", "hello", cwd=repository, env=env)

    found = refused(done, "agent-needs-key")
    assert real.CLAUDE_NO_SHARE in found["message"]
    assert "git khlone agents key one" in found["hint"]
    assert len(api.requests()) == asked


@pytest.mark.needs_strace
def test_many_of_the_newest_at_once_answer_each_on_its_record_and_nothing_of_the_users_changes(
    khlone: Khlone, repository: Path, tmp_path: Path, subscriber: Subscriber
) -> None:
    env = subscriber(real.CLAUDE_NEWEST)
    made = document(khlone("new", "c", "-n", str(MANY), "--agent", "claude", "--json", cwd=repository, env=env), "new")
    clones = {one["name"]: one for one in made["clones"]}
    traces = tmp_path / "traces"
    traces.mkdir()
    before = tree(Path(os.environ["HOME"]))
    script = f'exec strace -f -qq -z -e trace={_TRACED} -o "{traces}/$KHLONE_NAME" claude -p hello'

    results = in_all(repository, env, "sh", "-c", script)

    assert [(one["exit"], one["stdout"].strip()) for one in results] == [(0, Answer().text)] * MANY
    assert tree(Path(os.environ["HOME"])) == before
    records = [path for one in clones.values() for path in Path(one["config_dir"]).glob("projects/*/*.jsonl")]
    assert (len(records), len({path.stem for path in records})) == (MANY, MANY)
    for name, one in clones.items():
        own = Path(one["config_dir"])
        written = written_paths(traces / name, Path(one["path"]))
        # The worktree, the config dir, the short folder for sockets: as docs/isolation.md has it.
        temp = environment(khlone, repository, name, env)["CLAUDE_CODE_TMPDIR"]
        places = (one["path"], own, temp, "/dev", "/proc")
        assert [path for path in written if not any(path.is_relative_to(place) for place in places)] == []
        assert any(path.is_relative_to(own) for path in written)


def written_paths(trace: Path, cwd: Path) -> list[Path]:
    """Every path that a traced program has made, or opened to write."""
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        match = _OPENED.match(line)
        if match is None or (match["call"] in ("open", "openat") and not any(w in match["rest"] for w in _WRITING)):
            continue
        target = (
            re.search(r', (?:AT_FDCWD, )?"([^"]*)"', match["rest"]) if match["call"] not in ("open", "openat") else None
        )
        found += [Path(os.path.normpath(cwd / one)) for one in (match["path"], *(target.groups() if target else ()))]
    return found
