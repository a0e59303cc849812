"""An image with git and a shell, made of this machine's own programs, in a store that only the tests use.

Of podman, or of a dockerd of the tests' own, on a socket of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import support
from tests.support import write

NAME = "localhost/khlone-test:latest"
#: Of docker only where it is: it is no part of what `.ci/run` installs.
ENGINES = [
    pytest.param("podman", marks=pytest.mark.needs_podman),
    *([pytest.param("docker", marks=pytest.mark.needs_docker)] if support.has_docker() else []),
]
_COMMANDS = (
    *("sh", "cat", "ls", "echo", "wc", "test", "env", "id", "touch", "mkdir", "rm", "mv", "ln", "sleep", "readlink"),
    *("head", "tail", "grep", "true", "false", "mount", "umount", "kill", "stat", "dirname", "expr"),
    *("uname", "pwd"),
)


#: What no test waits longer for.
_PATIENCE_S = 90.0


@contextlib.contextmanager
def made(engine: str = "podman") -> Iterator[Mapping[str, str]]:
    """Make the image; gives the variables by which the engine finds it, and runs here.

    Its folder has a short name: podman waits twenty seconds for a socket whose path is too long.
    """
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as name, contextlib.ExitStack() as ended:
        folder = Path(name)
        packed = _packed(folder / "root")
        found = _podman(folder) if engine == "podman" else ended.enter_context(_dockerd(folder))
        asked = [engine, "import", "-", NAME]
        subprocess.run(asked, input=packed, capture_output=True, check=True, env={**os.environ, **found})
        yield found


def _packed(root: Path) -> bytes:
    (root / "bin").mkdir(parents=True)
    for name in ("usr/bin", "tmp", "etc", "proc", "dev", "run", "var/tmp", "root", "home"):
        (root / name).mkdir(parents=True)
    shutil.copy2(str(shutil.which("busybox")), root / "bin/busybox")
    for name in _COMMANDS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/os-release").write_text("ID=khlone-test\n")
    git = str(shutil.which("git"))
    shutil.copy2(git, root / "usr/bin/git")
    # What git looks for beside itself when it fetches from a folder.
    (root / "usr/lib/git-core").mkdir(parents=True)
    (root / "usr/lib/git-core/git-upload-pack").symlink_to("../../bin/git")
    listed = subprocess.run(["ldd", git], capture_output=True, check=True, text=True).stdout
    for library in [word for word in listed.split() if word.startswith("/")]:
        place = root / library[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(library), place)
    return subprocess.run(["tar", "-C", root, "-cf", "-", "."], capture_output=True, check=True).stdout


def _podman(folder: Path) -> Mapping[str, str]:
    write(
        folder,
        {
            "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n',
            # Without systemd and its powers: no other runtime, no higher limits.
            "containers.conf": '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n',
        },
    )
    return {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
    }


@contextlib.contextmanager
def _dockerd(folder: Path) -> Iterator[Mapping[str, str]]:
    """A daemon that leaves the machine's network and its other daemons alone; ended by its pid."""
    (folder / "none.json").write_text("{}")
    found = {"DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_CONFIG": str(folder / "client")}
    argv = ["dockerd", "--config-file", f"{folder}/none.json", "--host", found["DOCKER_HOST"]]
    argv += ["--data-root", f"{folder}/graph", "--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
    argv += ["--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        asked = ["docker", "version", "--format", "{{.Server.Version}}"]
        while subprocess.run(asked, capture_output=True, check=False, env={**os.environ, **found}).returncode != 0:
            if daemon.poll() is not None:
                last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                pytest.skip(f"dockerd does not start here: {' '.join(last)[-300:]}")
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(0.1)
        yield found
    finally:
        daemon.terminate()
        daemon.wait(_PATIENCE_S)
        # It leaves a network namespace mounted.
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in [place for place in mounted if place.startswith(f"{folder}/")]:
            subprocess.run(["umount", "--lazy", place], check=True)


def containers(env: Mapping[str, str], engine: str = "podman") -> list[str]:
    """The names of all containers."""
    asked = [engine, "ps", "--all", "--format", "{{.Names}}"]
    return subprocess.run(asked, capture_output=True, check=True, text=True, env={**os.environ, **env}).stdout.split()


def await_none(env: Mapping[str, str], engine: str = "podman") -> None:
    """Wait until no container is there: docker removes one that has ended on its own time."""
    deadline = time.monotonic() + _PATIENCE_S
    while found := containers(env, engine):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
