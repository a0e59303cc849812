"""An image with git and a shell, made of this machine's own programs, in a store that only the tests use."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import write

NAME = "localhost/khlone-test:latest"
_COMMANDS = (
    *("sh", "cat", "ls", "echo", "wc", "test", "env", "id", "touch", "mkdir", "rm", "mv", "ln", "sleep", "readlink"),
    *("head", "tail", "grep", "true", "false", "mount", "umount", "kill", "stat", "dirname", "expr"),
)


@contextlib.contextmanager
def made() -> Iterator[Mapping[str, str]]:
    """Make the image; gives the variables by which podman finds it, and runs here.

    Its folder has a short name: podman waits twenty seconds for a socket whose path is too long.
    """
    with tempfile.TemporaryDirectory(prefix="kh-", dir="/tmp") as folder:
        yield _make(Path(folder))


def _make(folder: Path) -> Mapping[str, str]:
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    for name in ("usr/bin", "tmp", "etc", "proc", "dev", "run", "var/tmp", "root", "home"):
        (root / name).mkdir(parents=True)
    shutil.copy2(str(shutil.which("busybox")), root / "bin/busybox")
    for name in _COMMANDS:
        (root / "bin" / name).symlink_to("busybox")
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
    write(
        folder,
        {
            "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n',
            # Without systemd and its powers: no other runtime, no higher limits.
            "containers.conf": '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n',
        },
    )
    found = {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
    }
    packed = subprocess.run(["tar", "-C", root, "-cf", "-", "."], capture_output=True, check=True).stdout
    subprocess.run(
        ["podman", "import", "-", NAME], input=packed, capture_output=True, check=True, env={**os.environ, **found}
    )
    return found


def containers(env: Mapping[str, str]) -> list[str]:
    """The names of all containers."""
    asked = ["podman", "ps", "--all", "--format", "{{.Names}}"]
    return subprocess.run(asked, capture_output=True, check=True, text=True, env={**os.environ, **env}).stdout.split()
