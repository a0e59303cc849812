"""Level `container`: the walls of `sandbox` in an image, with limits, and nothing left of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.commands.steps import footprint, new, refused, show
from tests.isolation import images
from tests.isolation.steps import PATIENCE_S, hashes, run, said, until
from tests.support import KHLONE, Git, Khlone


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs containers here, and the variables by which it finds the image."""

    name: str
    env: Mapping[str, str]

    def containers(self) -> list[str]:
        """The names of all containers."""
        return images.containers(self.env, self.name)

    def await_none(self) -> None:
        """Wait until no container is there."""
        images.await_none(self.env, self.name)


@pytest.fixture(
    scope="module",
    params=images.ENGINES,
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine, with the image."""
    with images.made(request.param) as found:
        yield Engine(name=request.param, env=found)


@pytest.fixture
def prepared(repository: Path, git: Git, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository whose clones may run in containers; none is left at the end."""
    for name, value in engine.env.items():
        monkeypatch.setenv(name, value)
    git("config", "khlone.isolation.image", images.NAME, cwd=repository)
    git("config", "khlone.isolation.engine", engine.name, cwd=repository)
    yield repository
    engine.await_none()


@pytest.fixture
def clone(khlone: Khlone, prepared: Path) -> Path:
    """The worktree of a clone in a container, beside another one."""
    new(khlone, prepared, "other")
    return new(khlone, prepared, "one", "--isolate", "container")


def test_work_goes_on_as_the_same_user_at_the_same_place(khlone: Khlone, prepared: Path, clone: Path, git: Git) -> None:
    told = said(
        khlone,
        prepared,
        "one",
        "set -e; pwd; id -u; echo 'test $(cat src/app.py | wc -l) = 2' >check.sh; git add .; git commit -q -m work; "
        "git switch -q -c aside; git switch -q one; sh check.sh; echo x >/tmp/x; cat /tmp/x; git status --porcelain",
    )

    assert told.splitlines() == [str(clone), str(os.geteuid()), "x"]
    assert git("log", "-1", "--format=%s %an", "one", cwd=prepared).strip() == "work Test Author"
    assert (clone / "check.sh").stat().st_uid == os.geteuid()
    assert khlone("merge", "one", cwd=prepared).code == 0


def test_what_a_local_remote_has_is_fetched(khlone: Khlone, prepared: Path, git: Git, tmp_path: Path) -> None:
    there = Path(os.environ["HOME"]) / "there.git"
    git("clone", "-q", "--bare", str(prepared), str(there), cwd=tmp_path)
    git("branch", "news", cwd=there)
    git("remote", "add", "there", str(there), cwd=prepared)
    git("config", "khlone.isolation.links", "there.git", cwd=prepared)
    new(khlone, prepared, "one", "--isolate", "container")

    told = said(khlone, prepared, "one", "git fetch -q there; git branch -r")

    assert "there/news" in told


def test_nothing_outside_can_be_written_or_seen(khlone: Khlone, prepared: Path, clone: Path) -> None:
    home, common = Path(os.environ["HOME"]), prepared / ".git"
    (home / "secret").write_text("canary")
    other = show(khlone, prepared, "other")
    admin = next((common / "worktrees").glob("one-*"))
    said(khlone, prepared, "one", "true")
    before = hashes(home), hashes(prepared), hashes(Path(other["path"])), hashes(Path(other["config_dir"]))
    places = [
        prepared / "planted",
        common / "hooks/post-commit",
        common / "config",
        common / "HEAD",
        common / "commondir",
        common / "rebase-merge",
        common / "worktrees/planted",
        admin / "commondir",
        admin / "gitdir",
        admin / "config.worktree",
        clone / ".git",
    ]
    unseen = [
        home / "secret",
        Path(other["path"]) / "README.md",
        Path(other["config_dir"]),
        Path("/etc/debian_version"),
    ]

    script = "; ".join(f"echo planted 2>/dev/null >{shlex.quote(str(place))} && echo {place}" for place in places)
    script += "; " + "; ".join(f"test -e {place} && echo {place}" for place in unseen)
    script += f"; mount -o remount,rw {prepared} 2>/dev/null && echo remounted; ls -d /proc/[0-9]* | wc -l"
    script += f"; echo planted >{home}/planted; mkdir -p {other['path']} && echo planted >{other['path']}/planted"
    told = said(khlone, prepared, "one", f"{script}; exit 0")

    assert int(told) < 10
    after = hashes(home), hashes(Path(other["path"])), hashes(Path(other["config_dir"]))
    assert after == (before[0], *before[2:])
    changed = {path for path, digest in hashes(prepared).items() if before[1].get(path) != digest}
    assert {path for path in changed if not path.startswith(".git/khlone/")} == set()


def test_limits_hold(khlone: Khlone, prepared: Path, clone: Path, git: Git) -> None:
    git("config", "khlone.isolation.memory", "64M", cwd=prepared)
    git("config", "khlone.isolation.processes", "20", cwd=prepared)

    eaten = run(khlone, prepared, "one", "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c")
    many = "i=0; while [ $i -lt 40 ]; do sleep 30 & i=$(expr $i + 1); done; kill $(jobs -p); echo all"
    forked = run(khlone, prepared, "one", many)

    assert eaten["stdout"].strip() != "200000000"
    assert "all" not in forked["stdout"]
    assert "fork" in forked["stderr"]


def test_there_is_no_network_where_the_settings_say_so(khlone: Khlone, prepared: Path, clone: Path, git: Git) -> None:
    with_network = said(khlone, prepared, "one", "readlink /proc/self/ns/net")

    git("config", "khlone.isolation.network", "false", cwd=prepared)

    assert with_network == os.readlink("/proc/self/ns/net")
    assert said(khlone, prepared, "one", "readlink /proc/self/ns/net") != with_network


def test_a_key_reaches_the_command_and_no_list_of_arguments(khlone: Khlone, prepared: Path, tmp_path: Path) -> None:
    new(khlone, prepared, "one", "--isolate", "container", "--agent", "claude")
    (tmp_path / "key").write_text("sk-canary-4711")
    (tmp_path / "key").chmod(0o600)
    assert khlone("agents", "key", "one", "--file", str(tmp_path / "key"), cwd=prepared).code == 0
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", "echo $ANTHROPIC_API_KEY; echo $OTHER; cat"]

    with subprocess.Popen(
        argv, cwd=prepared, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OTHER": "kept outside"}
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        told = child.stdout.readline(), child.stdout.readline()
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        child.stdin.close()

    assert told == (b"sk-canary-4711\n", b"\n")
    assert any(b"khlone-test" in line for line in lines)
    assert not any(b"sk-canary-4711" in line for line in lines)


def test_the_container_goes_with_its_command_when_that_is_ended(
    khlone: Khlone, prepared: Path, clone: Path, engine: Engine
) -> None:
    argv = [
        str(KHLONE),
        "exec",
        "one",
        "--json",
        "--",
        "sh",
        "-c",
        "trap '' TERM INT; echo up >up; while :; do sleep 1; done",
    ]
    with subprocess.Popen(argv, cwd=prepared, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        until((clone / "up").exists, child)

        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=PATIENCE_S)

    assert child.returncode in (143, -signal.SIGTERM)
    engine.await_none()


@contextlib.contextmanager
def left_behind(prepared: Path, clone: Path, engine: Engine) -> Iterator[str]:
    """A container that runs on after its khlone and its engine's client were killed outright."""
    script = "trap '' TERM INT; echo up >up; while :; do sleep 1; done"
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", script]
    with subprocess.Popen(argv, cwd=prepared, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        until((clone / "up").exists, child)
        for one in [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]:
            # What conmon or a daemon has started goes on.
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    (name,) = engine.containers()
    assert name.startswith("khlone-")
    yield name


def test_doctor_finds_and_removes_what_a_killed_khlone_has_left(
    khlone: Khlone, prepared: Path, clone: Path, engine: Engine
) -> None:
    with left_behind(prepared, clone, engine) as name:
        told = khlone("doctor", cwd=prepared)
        still_there = engine.containers()
        mended = khlone("doctor", "--fix", cwd=prepared)

    assert f"one: a khlone that was killed left {name} running (container-left)" in told.out
    assert still_there == [name]
    assert "container-left" in mended.out
    engine.await_none()
    assert "container-left" not in khlone("doctor", cwd=prepared).out


def test_the_next_command_removes_what_a_killed_khlone_has_left(
    khlone: Khlone, prepared: Path, clone: Path, engine: Engine
) -> None:
    with left_behind(prepared, clone, engine) as name:
        done = khlone("exec", "one", "--", "echo", "here", cwd=prepared)

    assert (done.code, done.out) == (0, "here\n")
    assert f"the container {name} of one, left behind by a khlone that was killed, is removed" in done.err
    engine.await_none()


def test_what_runs_in_a_container_stays_when_others_look(
    khlone: Khlone, prepared: Path, clone: Path, engine: Engine
) -> None:
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", "echo up >up; cat"]
    with subprocess.Popen(argv, cwd=prepared, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        until((clone / "up").exists, child)

        doctor = khlone("doctor", "--fix", cwd=prepared)
        beside = khlone("exec", "one", "--", "true", cwd=prepared)
        out, _ = child.communicate(b"still here", timeout=PATIENCE_S)

    assert "container-left" not in doctor.out
    assert beside.code == 0
    assert (child.returncode, out) == (0, b"still here")


def test_remove_by_force_takes_what_a_killed_khlone_has_left(
    khlone: Khlone, prepared: Path, clone: Path, engine: Engine
) -> None:
    with left_behind(prepared, clone, engine):
        refusal = khlone("remove", "one", cwd=prepared)
        done = khlone("remove", "one", "--force", cwd=prepared)

    assert refusal.code == 1
    assert done.code == 0, done.err
    engine.await_none()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("khlone.isolation.image", "localhost/khlone-none:latest"), "has no image localhost/khlone-none"),
        (("khlone.isolation.image", ""), "no image is set"),
    ],
)
def test_what_is_missing_is_told_in_a_line_and_leaves_nothing_behind(
    khlone: Khlone, prepared: Path, git: Git, change: tuple[str, str], says: str
) -> None:
    new(khlone, prepared, "other")
    git("config", *change, cwd=prepared)
    before = footprint(git, prepared)

    done = khlone("new", "one", "--isolate", "container", "--json", cwd=prepared)

    found = refused(done, "isolation-missing")
    assert says in found["message"]
    assert found["hint"]
    assert footprint(git, prepared) == before


def test_without_an_engine_nothing_is_left_behind(khlone: Khlone, prepared: Path, git: Git, tmp_path: Path) -> None:
    new(khlone, prepared, "other")
    git("config", "--unset", "khlone.isolation.engine", cwd=prepared)
    before = footprint(git, prepared)
    (tmp_path / "bin").mkdir()
    for name in ("git", "env", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))

    done = khlone("new", "one", "--isolate", "container", "--json", cwd=prepared, env={"PATH": f"{tmp_path}/bin"})

    found = refused(done, "isolation-missing")
    assert "podman or docker is not on PATH" in found["message"]
    assert "apt-get install podman" in found["hint"]
    assert footprint(git, prepared) == before
