"""Level `container` with the repository's devcontainer.json: what of it counts, and that the walls are the same."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.agents import real
from tests.commands.steps import new, refused
from tests.isolation import images
from tests.isolation.steps import said, until
from tests.support import KHLONE, Commit, Git, Khlone

#: The version that these tests are known to pass with.
CLI = "@devcontainers/cli@0.89.0"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the devcontainer CLI."""
    real.require_npm()
    return real.npm_install(tmp_path_factory.getbasetemp().parent / "devcontainer-cli", CLI)


@pytest.fixture(
    scope="module",
    params=images.ENGINES,
)
def engine(request: pytest.FixtureRequest) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each engine, with the image."""
    with images.made(request.param) as found:
        yield request.param, found


@pytest.fixture
def prepared(
    repository: Path, git: Git, cli: Path, engine: tuple[str, Mapping[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A repository whose clones are to have devcontainers; no container and no image of theirs is left at the end."""
    for name, value in engine[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{cli}:{os.environ['PATH']}")
    monkeypatch.setenv("MY_TOKEN", "sk-canary-4711")
    git("config", "khlone.isolation.engine", engine[0], cwd=repository)
    git("config", "khlone.isolation.devcontainer", "true", cwd=repository)
    yield repository
    images.await_none(engine[1], engine[0])


def made_images(engine: tuple[str, Mapping[str, str]]) -> list[str]:
    """The images that were made for clones."""
    asked = [engine[0], "images", "--format", "{{.Repository}}:{{.Tag}}"]
    found = subprocess.run(asked, capture_output=True, check=True, text=True, env={**os.environ, **engine[1]}).stdout
    return [name for name in found.split() if "/khlone/" in name]


def configure(commit: Commit, where: Path, config: Mapping[str, Any], **more: str) -> None:
    """Commit a devcontainer.json, with a comment as they have them, and other files."""
    text = "// as people write it\n" + json.dumps(config, indent=1)
    commit(where, {".devcontainer/devcontainer.json": text, **more}, "devcontainer")


def test_an_image_with_its_variables_and_commands(khlone: Khlone, prepared: Path, commit: Commit, engine: Any) -> None:
    config = {
        "image": images.NAME,
        "remoteUser": "somebody",
        "containerEnv": {"KIND": "dev", "AT": "${containerWorkspaceFolder}/x", "LEAKED": "<${localEnv:MY_TOKEN}>"},
        "remoteEnv": {"PATH": "/opt/tools:${containerEnv:PATH}"},
        "onCreateCommand": ["sh", "-c", "echo $KIND >/opt-kind; id -u >/opt-user; pwd >/opt-place"],
        "postCreateCommand": "echo once >>made; mkdir -p /opt/tools; cp /bin/echo /opt/tools/mine; exit 0",
    }
    configure(commit, prepared, config)
    before = made_images(engine)
    place = new(khlone, prepared, "one", "--isolate", "container")

    first = khlone("exec", "one", "--", "sh", "-c", "cat /opt-kind /opt-user /opt-place", cwd=prepared)
    told = said(khlone, prepared, "one", "pwd; echo $AT $LEAKED $HOME; echo $PATH; wc -l <made; ls /opt/tools")

    assert first.code == 0, first.err
    assert first.out.splitlines() == ["dev", str(os.geteuid()), str(place)]
    assert "making the container of one as .devcontainer/devcontainer.json says" in first.err
    lines = told.splitlines()
    assert lines[0] == str(place)
    at, leaked, home = lines[1].split()
    assert (at, leaked) == (f"{place}/x", "<>")
    assert home.endswith("/home")
    assert lines[2].startswith("/opt/tools:/")
    assert [line.strip() for line in lines[3:]] == ["1", "mine"]
    assert khlone("remove", "one", "--force", cwd=prepared).code == 0
    assert len(made_images(engine)) == len(before) + 1
    assert khlone("prune", "--trash", "--age", "0m", cwd=prepared).code == 0
    assert made_images(engine) == before


def test_what_the_file_and_the_image_say_cannot_move_a_wall(
    khlone: Khlone, prepared: Path, commit: Commit, tmp_path: Path, git: Git
) -> None:
    outside, home = tmp_path / "outside", Path(os.environ["HOME"])
    outside.mkdir()
    (outside / "secret").write_text("canary")
    mount = {"source": str(outside), "target": "/outside", "type": "bind"}
    planted = {
        "remoteEnv": {"LEAKED": "${localEnv:MY_TOKEN}"},
        "remoteUser": "12345",
        "privileged": True,
        "mounts": [mount],
        "postCreateCommand": "echo $LEAKED >leaked; touch ran",
    }
    config = {
        "build": {
            "dockerfile": "Dockerfile",
            "context": "..",
            "args": {"WORD": "built", "TOKEN": "${localEnv:NONE:$}{localEnv:MY_TOKEN}"},
            "options": ["--volume", f"{outside}:/outside"],
        },
        "initializeCommand": f"touch {outside}/initialized",
        "mounts": [mount],
        "runArgs": ["--privileged", f"--volume={outside}:/outside"],
        "privileged": True,
        "capAdd": ["ALL"],
        "securityOpt": ["seccomp=unconfined"],
        "workspaceMount": f"source={outside},target=/work,type=bind",
        "workspaceFolder": "/work",
        "features": {"./somewhere": {}},
        "remoteEnv": {"TWICE": "${localEnv:NONE:$}{localEnv:MY_TOKEN}"},
        "postStartCommand": "touch started",
        "onCreateCommand": "echo '${localEnv:NONE:$}{localEnv:MY_TOKEN}' >given",
        "postCreateCommand": "touch once",
    }
    label = json.dumps(json.dumps([planted])).replace("$", "\\$")
    dockerfile = f"FROM {images.NAME}\nARG WORD\nARG TOKEN\nCOPY src/app.py /app.py\n"
    dockerfile += f"RUN echo $WORD$TOKEN >/built; ls -A /outside >/seen || true\nLABEL devcontainer.metadata={label}\n"
    configure(commit, prepared, config, **{".devcontainer/Dockerfile": dockerfile})
    place = new(khlone, prepared, "one", "--isolate", "container")

    done = khlone(
        "exec",
        "one",
        "--",
        "sh",
        "-c",
        "cat /app.py /built /seen; env; id -u; cat /outside/secret; echo planted >/outside/x; "
        f"echo x >{prepared}/planted; grep CapEff /proc/self/status",
        cwd=prepared,
    )

    told = done.out + done.err
    assert "canary" not in told
    assert "built" in done.out.splitlines()
    assert "CapEff:\t0000000000000000" in done.out
    assert str(os.geteuid()) in done.out.splitlines()
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert not (prepared / "planted").exists()
    assert {path.name for path in place.iterdir()} & {"started", "leaked", "ran", "given"} == set()
    assert (place / "once").exists()
    assert not list(home.glob("*canary*"))
    (line,) = [line for line in done.err.splitlines() if "left out of" in line]
    for key in ("initializeCommand", "mounts", "runArgs", "privileged", "capAdd", "securityOpt", "workspaceMount"):
        assert key in line
    for key in (
        "build.args.TOKEN",
        "build.options",
        "features",
        "onCreateCommand",
        "postStartCommand",
        "remoteEnv.TWICE",
    ):
        assert key in line


def test_what_is_made_stays_until_the_commit_says_something_else(
    khlone: Khlone, prepared: Path, commit: Commit, engine: Any
) -> None:
    config = {"build": {"dockerfile": "Dockerfile"}, "postCreateCommand": "echo once >>made"}
    configure(commit, prepared, config, **{".devcontainer/Dockerfile": f"FROM {images.NAME}\nRUN echo 1 >/word\n"})
    place = new(khlone, prepared, "one", "--isolate", "container")

    words = [said(khlone, prepared, "one", "cat /word"), said(khlone, prepared, "one", "cat /word")]
    made = (place / "made").read_text()
    kept = set(made_images(engine))
    changed = "sed -i s/1/2/ .devcontainer/Dockerfile 2>/dev/null || echo 'FROM " + images.NAME + "\nRUN echo 2 >/word'"
    said(khlone, prepared, "one", f"{changed} >.devcontainer/Dockerfile; git commit -q -a -m two")
    words.append(said(khlone, prepared, "one", "cat /word"))

    assert made == "once\n"
    assert words == ["1", "1", "2"]
    assert (place / "made").read_text() == "once\nonce\n"
    assert len(made_images(engine)) == len(kept)
    assert set(made_images(engine)) != kept


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"dockerComposeFile": "compose.yml", "service": "app"}, "Compose"),
        ({"name": "nothing"}, "names no image and no Dockerfile"),
        ({"image": "localhost/khlone-none:latest"}, "has no image localhost/khlone-none"),
        ({"build": {"dockerfile": "Dockerfile", "context": "../.."}}, "outside of the repository"),
        ({"build": {"dockerfile": "link"}}, "outside of the repository"),
        ({"build": {"dockerfile": "none"}}, "which is not in the commit"),
        ({"image": images.NAME, "postCreateCommand": "echo no >&2; exit 3"}, "postCreateCommand"),
    ],
)
def test_what_cannot_be_made_is_told_in_a_line_and_leaves_nothing(
    khlone: Khlone, prepared: Path, commit: Commit, git: Git, engine: Any, config: Mapping[str, Any], says: str
) -> None:
    before = made_images(engine)
    (prepared / ".devcontainer").mkdir()
    (prepared / ".devcontainer/link").symlink_to("/etc/passwd")
    git("add", ".devcontainer/link", cwd=prepared)
    git("commit", "-q", "-m", "link", cwd=prepared)
    configure(commit, prepared, config, **{".devcontainer/Dockerfile": f"FROM {images.NAME}\n"})
    new(khlone, prepared, "one", "--isolate", "container")

    done = khlone("exec", "one", "--json", "--", "true", cwd=prepared)

    found = refused(done, "isolation-missing")
    assert says in found["message"]
    assert found["hint"]
    assert made_images(engine) == before
    state = Path(os.environ["XDG_STATE_HOME"])
    assert list(state.rglob("*.making")) == []


def test_without_the_cli_no_clone_is_made(khlone: Khlone, prepared: Path, commit: Commit, cli: Path) -> None:
    configure(commit, prepared, {"image": images.NAME})
    path = os.pathsep.join(entry for entry in os.environ["PATH"].split(os.pathsep) if entry != str(cli))

    done = khlone("new", "one", "--isolate", "container", "--json", cwd=prepared, env={"PATH": path})

    found = refused(done, "isolation-missing")
    assert "devcontainer is not on PATH" in found["message"]
    assert "@devcontainers/cli" in str(found["hint"])


def test_no_secret_is_kept_with_what_is_made(
    khlone: Khlone, prepared: Path, commit: Commit, engine: Any, tmp_path: Path
) -> None:
    configure(commit, prepared, {"image": images.NAME, "postCreateCommand": "env"})
    new(khlone, prepared, "one", "--isolate", "container", "--agent", "claude")
    (tmp_path / "key").write_text("sk-canary-key")
    (tmp_path / "key").chmod(0o600)
    assert khlone("agents", "key", "one", "--file", str(tmp_path / "key"), cwd=prepared).code == 0
    env = {"https_proxy": "http://user:sk-canary-proxy@127.0.0.1:9"}

    done = khlone("exec", "one", "--", "sh", "-c", "echo $ANTHROPIC_API_KEY $https_proxy", cwd=prepared, env=env)

    assert done.out.split() == ["sk-canary-key", env["https_proxy"]]
    assert "HOME=" in next(Path(os.environ["XDG_STATE_HOME"]).rglob("devcontainer/log")).read_text()
    state = [path for path in Path(os.environ["XDG_STATE_HOME"]).rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in state if b"sk-canary" in path.read_bytes()] == []
    made = [engine[0], "image", "inspect", *made_images(engine)]
    told = subprocess.run(made, capture_output=True, check=True, text=True, env={**os.environ, **engine[1]}).stdout
    assert "HOME=" in told
    assert "sk-canary" not in told


def test_one_command_makes_it_and_what_a_killed_one_has_left_goes(
    khlone: Khlone, prepared: Path, commit: Commit, engine: Any
) -> None:
    waits = "touch up; while test -e hold; do sleep 1; done; echo once >>made"
    configure(commit, prepared, {"image": images.NAME, "postCreateCommand": waits})
    place = new(khlone, prepared, "one", "--isolate", "container")
    (place / "hold").touch()
    argv = [str(KHLONE), "exec", "one", "--", "true"]
    with subprocess.Popen(
        argv, cwd=prepared, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        until((place / "up").exists, child)
        beside = khlone("exec", "one", "--json", "--", "true", cwd=prepared)
        for one in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
            # What conmon or a daemon has started goes on.
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    (left,) = images.containers(engine[1], engine[0])

    told = khlone("doctor", cwd=prepared).out
    mended = khlone("doctor", "--fix", cwd=prepared)
    (place / "hold").unlink()
    again = khlone("exec", "one", "--", "cat", "made", cwd=prepared)

    refused(beside, "clone-busy", code=75)
    assert f"one: a khlone that was killed left {left} running (container-left)" in told
    assert mended.code == 0, mended.out
    images.await_none(engine[1], engine[0])
    assert (again.code, again.out) == (0, "once\n"), again.err
    assert list(Path(os.environ["XDG_STATE_HOME"]).rglob("*.making")) == []
