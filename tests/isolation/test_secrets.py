"""No secret gets into a log, the registry, an error, a list of arguments or a file of khlone's, at any level."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.commands.steps import new
from tests.isolation import images
from tests.support import KHLONE, Git, Khlone, write

#: Where each is planted, and what it looks like.
CANARIES = {word: f"sk-canary-{word}-4d1c9b" for word in ("inherited", "variable", "key", "login", "proxy")}


@pytest.fixture(
    params=[
        "config",
        "home",
        pytest.param("sandbox", marks=pytest.mark.needs_bubblewrap),
        pytest.param("container", marks=pytest.mark.needs_podman),
    ]
)
def level(request: pytest.FixtureRequest, repository: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each level."""
    if request.param != "container":
        yield request.param
        return
    with images.made() as engine:
        for name, value in engine.items():
            monkeypatch.setenv(name, value)
        git("config", "khlone.isolation.image", images.NAME, cwd=repository)
        yield request.param


def plant(folder: Path) -> Mapping[str, str]:
    """A login in the user's home, a key in a file, and variables; returns the latter."""
    home = Path(os.environ["HOME"])
    login = {"claudeAiOauth": {"accessToken": CANARIES["login"], "refreshToken": CANARIES["login"]}}
    write(home, {".claude/.credentials.json": json.dumps(login)})
    write(folder, {"key": CANARIES["key"]})
    for path in (home / ".claude/.credentials.json", folder / "key"):
        path.chmod(0o600)
    return {
        "ANTHROPIC_API_KEY": CANARIES["inherited"],
        "MY_TOKEN": CANARIES["variable"],
        "https_proxy": f"http://user:{CANARIES['proxy']}@127.0.0.1:9",
    }


def written(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below the folders, without following links."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def command_lines() -> list[bytes]:
    """The arguments of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def test_no_secret_gets_anywhere(khlone: Khlone, repository: Path, tmp_path: Path, level: str) -> None:
    env = plant(tmp_path / "mine")
    new(khlone, repository, "one", "--isolate", level, "--agent", "claude")
    verbs = (
        ("agents", "key", "one", "--file", str(tmp_path / "mine/key")),
        ("exec", "one", "--", "no-such-program"),
        ("exec", "--all", "--json", "--", "true"),
        ("env", "one"),
        ("show", "one", "--json"),
        ("agents", "show", "claude", "--json"),
        ("doctor",),
        ("log", "--json"),
        ("new", "two", "--isolate", level, "-x", "false"),
        ("remove", "two", "--json"),
        ("trash", "--json"),
    )

    said = [khlone(*words, cwd=repository, env=env) for words in verbs]
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", "echo $ANTHROPIC_API_KEY; cat"]
    with subprocess.Popen(
        argv, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env}
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        got = running.stdout.readline().decode().strip()
        arguments = command_lines()
        running.stdin.close()

    assert got == CANARIES["key"], "it reaches the command"
    state = Path(os.environ["XDG_STATE_HOME"])
    places = (state, Path(os.environ["XDG_CACHE_HOME"]), Path(os.environ["XDG_CONFIG_HOME"]), repository / ".git")
    for word, canary in CANARIES.items():
        found = [
            path
            for path, content in written(*(place for place in places if place.exists()))
            if canary.encode() in content
        ]
        assert found == [], word
        assert [done for done in said if canary in done.out + done.err] == [], word
        assert [line for line in arguments if canary.encode() in line] == [], word
    assert stat.S_IMODE((state / "khlone").stat().st_mode) == 0o700


def test_the_search_finds_what_is_there(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    canary = CANARIES["variable"]
    new(khlone, repository, "one")
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", f"echo {canary}; cat"]

    with subprocess.Popen(argv, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        running.stdout.readline()
        arguments = command_lines()
        running.stdin.close()

    assert [line for line in arguments if canary.encode() in line] != []
    assert [path for path, content in written(repository / ".git/khlone") if canary.encode() in content] != []
