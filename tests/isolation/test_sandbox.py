"""Level `sandbox`: an agent works in its clone as ever, and can write, see and start nothing outside of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, refused, show
from tests.isolation.steps import hashes, run, said
from tests.support import KHLONE, Git, Khlone, write

pytestmark = pytest.mark.needs_bubblewrap


@pytest.fixture
def clone(khlone: Khlone, repository: Path) -> Path:
    """The worktree of a clone in a sandbox, beside another one."""
    new(khlone, repository, "other")
    return new(khlone, repository, "one", "--isolate", "sandbox")


def test_work_goes_on_as_ever(khlone: Khlone, repository: Path, clone: Path, git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", str(repository), str(tmp_path / "there.git"), cwd=tmp_path)
    git("remote", "add", "there", str(repository.parent / "there.git"), cwd=repository)
    git("branch", "news", cwd=tmp_path / "there.git")

    told = said(
        khlone,
        repository,
        "one",
        "set -e; echo 'test $(cat src/app.py | wc -l) = 2' >check.sh; git add .; git commit -q -m work; "
        "git switch -q -c aside; git switch -q one; git stash list; git tag t; "
        "sh check.sh; echo x >/tmp/x; cat /tmp/x; git status --porcelain",
    )

    assert told.splitlines()[0] == "x"
    assert git("log", "-1", "--format=%s %an", "one", cwd=repository).strip() == "work Test Author"
    assert khlone("merge", "one", cwd=repository).code == 0


def test_what_a_remote_that_is_shown_has_is_fetched(
    khlone: Khlone, repository: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(os.environ["HOME"]) / "there.git"
    git("clone", "-q", "--bare", str(repository), str(there), cwd=tmp_path)
    git("branch", "news", cwd=there)
    git("remote", "add", "there", str(there), cwd=repository)
    git("config", "khlone.isolation.links", "there.git", cwd=repository)
    new(khlone, repository, "one", "--isolate", "sandbox")

    told = said(khlone, repository, "one", "git fetch -q there && git rev-parse there/news HEAD")

    assert len(set(told.splitlines())) == 1


def test_nothing_outside_can_be_written(khlone: Khlone, repository: Path, clone: Path, tmp_path: Path) -> None:
    home, common = Path(os.environ["HOME"]), repository / ".git"
    other = show(khlone, repository, "other")
    admin = next((common / "worktrees").glob("one-*"))
    said(khlone, repository, "one", "true")
    before = hashes(home), hashes(repository), hashes(Path(other["path"])), hashes(Path(other["config_dir"]))
    places = [
        repository / "planted",
        repository / "README.md",
        home / "planted",
        Path(other["path"]) / "planted",
        Path(other["path"]) / "README.md",
        Path(other["config_dir"]) / "planted",
        common / "hooks/post-commit",
        common / "config",
        common / "config.worktree",
        common / "HEAD",
        common / "index",
        common / "commondir",
        common / "info/attributes",
        common / "rebase-merge",
        common / "khlone/registry.sqlite3",
        common / "worktrees/planted",
        admin / "commondir",
        admin / "gitdir",
        admin / "config.worktree",
        clone / ".git",
        Path("/etc/planted"),
        Path("/usr/planted"),
        Path("/run/planted"),
    ]

    script = "; ".join(f"echo planted 2>/dev/null >{shlex.quote(str(place))} && echo {place}" for place in places)
    written = run(khlone, repository, "one", f"{script}; exit 0")["stdout"]

    assert written == ""
    assert (hashes(home), hashes(Path(other["path"])), hashes(Path(other["config_dir"]))) == (
        before[0],
        *before[2:],
    )
    assert {path for path, digest in hashes(repository).items() if before[1].get(path) != digest} <= {
        path for path in hashes(repository) if path.startswith(".git/khlone/")
    }


#: What would get out of the sandbox, or plant something that git runs outside of it.
ATTEMPTS = (
    "mv {common}/worktrees {common}/elsewhere",
    "mv {admin} {admin}-x",
    "rm {admin}/commondir",
    "rm .git",
    "mv .git x",
    "echo x >x && mv x .git",
    "ln -sf /tmp .git",
    "rm -rf {common}/hooks",
    "mv {common}/hooks {common}/x",
    "git config core.fsmonitor /tmp/x",
    "git config --worktree core.fsmonitor /tmp/x",
    "git config core.hooksPath /tmp/x",
    "mount -o remount,rw {main}",
    "umount {main}",
    "unshare -m true",
    "unshare -Urm sh -c 'mount -o remount,rw,bind {main} && echo x >{main}/x'",
    "unshare -Urm sh -c 'umount /root && ls -A /root | grep .'",
    "mknod /tmp/disk b 8 0",
    "chown 1 {main}/README.md",
)


def test_the_walls_stand(khlone: Khlone, repository: Path, clone: Path) -> None:
    common = repository / ".git"
    admin = next((common / "worktrees").glob("one-*"))
    attempts = [attempt.format(main=repository, common=common, admin=admin) for attempt in ATTEMPTS]

    script = "\n".join(f"( {attempt} ) >/dev/null 2>&1 && echo {shlex.quote(attempt)}" for attempt in attempts)
    got_through = run(khlone, repository, "one", f"{script}\nexit 0")

    assert (got_through["exit"], got_through["stdout"]) == (0, "")
    assert not (repository / "x").exists()
    assert khlone("doctor", cwd=repository).code == 0


def test_without_the_walls_the_same_scripts_get_through(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one", "--isolate", "home")
    common = repository / ".git"

    said(khlone, repository, "one", f"git config core.fsmonitor /tmp/x; echo x >{repository}/x; mv {common}/hooks x")

    assert (repository / "x").exists()


def test_homes_other_clones_and_other_processes_are_not_seen(khlone: Khlone, repository: Path, clone: Path) -> None:
    home = Path(os.environ["HOME"])
    write(home, {"secret": "canary"})
    other = show(khlone, repository, "other")
    outside = Path("/tmp") / f"khlone-test-{os.getpid()}"
    outside.write_text("canary")

    try:
        told = said(
            khlone,
            repository,
            "one",
            f"ls -A {home} {outside} {other['path']} /root /home 2>&1; ls -d /proc/[0-9]*; "
            f"ls -A {clone.parent} {Path(os.environ['XDG_STATE_HOME'])}/khlone/repositories/*/clones",
        )
    finally:
        outside.unlink()

    assert "secret" not in told
    assert "canary" not in told
    assert "README" not in told
    assert str(os.getpid()) not in [line.removeprefix("/proc/") for line in told.splitlines()]
    assert "other" not in [line.strip() for line in told.splitlines()]
    assert other["id"] not in told


def test_there_is_no_network_where_the_settings_say_so(khlone: Khlone, repository: Path, clone: Path, git: Git) -> None:
    look = "cat /proc/net/route /proc/net/dev | grep -c :"
    with_network = said(khlone, repository, "one", "readlink /proc/self/ns/net")

    git("config", "khlone.isolation.network", "false", cwd=repository)

    assert with_network == os.readlink("/proc/self/ns/net")
    assert said(khlone, repository, "one", "readlink /proc/self/ns/net") != with_network
    assert said(khlone, repository, "one", look) == "1"


def test_it_ends_with_the_command_that_started_it(khlone: Khlone, repository: Path, clone: Path) -> None:
    assert run(khlone, repository, "one", "kill -TERM $$")["exit"] in (143, 128 + 15)
    assert run(khlone, repository, "one", "exit 7")["exit"] == 7


def test_nothing_outlives_a_khlone_that_is_killed(repository: Path, clone: Path) -> None:
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", "echo up; sleep 1000 & sleep 1000"]

    with subprocess.Popen(argv, cwd=repository, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        # Whoever has it open lives.
        assert process.stdout.read() == b""


def test_a_program_below_the_users_home_can_be_run(khlone: Khlone, repository: Path, clone: Path) -> None:
    home = Path(os.environ["HOME"])
    write(home, {"tools/lib/node_modules/agent/cli.sh": "#!/bin/sh\ncat $(dirname $(readlink -f $0))/data\n"})
    write(home, {"tools/lib/node_modules/agent/data": "hello", "tools/secret": "x"})
    (home / "tools/lib/node_modules/agent/cli.sh").chmod(0o755)
    (home / "tools/bin").mkdir()
    (home / "tools/bin/agent").symlink_to("../lib/node_modules/agent/cli.sh")
    env = {"PATH": f"{home}/tools/bin:{os.environ['PATH']}"}

    done = khlone("exec", "one", "--", "agent", cwd=repository, env=env)

    assert (done.code, done.out) == (0, "hello")
    assert "secret" not in said(khlone, repository, "one", f"ls {home}/tools", env)


def test_a_command_that_is_not_there_is_told_as_ever(khlone: Khlone, repository: Path, clone: Path) -> None:
    done = khlone("exec", "one", "--json", "--", "no-such-program", cwd=repository)

    refused(done, "command-not-found")


def test_khlone_itself_changes_nothing_from_inside(khlone: Khlone, repository: Path, clone: Path, git: Git) -> None:
    verbs = ("new two", "exec other -- true", "remove other", "merge one", "rename one two", "sync one")
    before = footprint(git, repository)

    done = run(khlone, repository, "one", "; ".join(f"{KHLONE} {verb}; echo $?" for verb in verbs))

    assert footprint(git, repository) == before
    assert done["stdout"].split() == ["77"] * len(verbs), done
    told = [line for line in done["stderr"].splitlines() if "hint: " not in line]
    assert len(told) == len(verbs), told
    assert all("khlone changes nothing from inside a sandbox" in line for line in told)


def test_khlone_itself_answers_from_inside(khlone: Khlone, repository: Path, clone: Path) -> None:
    told = said(khlone, repository, "one", f"{KHLONE} list; {KHLONE} path; {KHLONE} show other")

    assert "other" in told
    assert str(clone) in told.splitlines()


def test_clones_that_are_hidden_are_not_called_broken(khlone: Khlone, repository: Path, clone: Path) -> None:
    done = run(khlone, repository, "one", f"{KHLONE} list --json")
    shutil.rmtree(Path(show(khlone, repository, "other")["path"]))
    outside = document(khlone("list", "--json", cwd=repository), "list")["clones"]

    found = {one["name"]: (one["state"], one["dirty"]) for one in json.loads(done["stdout"])["clones"]}
    assert found == {"one": ("ready", False), "other": ("ready", None)}
    assert "is gone" not in done["stderr"]
    assert {one["name"]: one["state"] for one in outside} == {"one": "ready", "other": "broken"}


def test_without_bubblewrap_nothing_is_left_behind(khlone: Khlone, repository: Path, git: Git, tmp_path: Path) -> None:
    new(khlone, repository, "other")
    before = footprint(git, repository)
    write(tmp_path / "bin", {"x": ""})
    for name in ("git", "env", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    env = {"PATH": str(tmp_path / "bin")}

    done = khlone("new", "one", "--isolate", "sandbox", "--json", cwd=repository, env=env)

    found = refused(done, "isolation-missing")
    assert "bwrap" in found["message"]
    assert "install bubblewrap" in str(found["hint"])
    assert footprint(git, repository) == before


def test_where_bubblewrap_does_not_work_nothing_is_left_behind(
    khlone: Khlone, repository: Path, git: Git, tmp_path: Path
) -> None:
    new(khlone, repository, "other")
    before = footprint(git, repository)
    write(tmp_path / "bin", {"bwrap": "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"})
    (tmp_path / "bin/bwrap").chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    done = khlone("new", "one", "--isolate", "sandbox", "--json", cwd=repository, env=env)

    assert "No permissions" in str(refused(done, "isolation-missing")["message"])
    assert footprint(git, repository) == before
