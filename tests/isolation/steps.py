"""What the tests of all levels do: run a script in a clone, and an sshd on loopback with an agent that has its key."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands.steps import document
from tests.support import Khlone, write

#: What no test waits longer for.
PATIENCE_S = 90.0


def run(
    khlone: Khlone, where: Path, name: str, script: str, env: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """How a shell script ended in a clone."""
    done = khlone("exec", name, "--json", "--", "/bin/sh", "-c", script, cwd=where, env=env)
    found = done.json()
    assert found["schema"] == "khlone.exec/1", (done.out, done.err)
    return dict(found["results"][0])


def said(khlone: Khlone, where: Path, name: str, script: str, env: Mapping[str, str | None] | None = None) -> str:
    """What a shell script said in a clone, which must go well."""
    found = run(khlone, where, name, script, env)
    assert found["exit"] == 0, found
    return str(found["stdout"]).strip()


def environment(khlone: Khlone, where: Path, name: str) -> dict[str, str]:
    """The variables that `env` gives for a clone."""
    return dict(document(khlone("env", name, "--json", cwd=where), "env")["environment"])


def hashes(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder, the target of every link; "" for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        else:
            content = b""
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest() if content else ""
    return found


# -- ssh -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """An sshd on loopback that lets in who has the key, and where its host key and the agent's socket are."""

    port: int
    known_host: str
    agent: Path

    def url(self, path: Path) -> str:
        """The address of a repository on it."""
        return f"ssh://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Remote]:
    """Start it, and an agent with the key; both are ended by their pids."""
    folder.mkdir(mode=0o700)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "key.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    # Privileges are dropped into a folder that only the service's own script makes.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    write(
        folder,
        {
            "config": f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        },
    )
    with contextlib.ExitStack() as ended:
        daemon = _started(ended, [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")])
        agent = folder / "agent"
        keeper = _started(ended, ["ssh-agent", "-D", "-a", str(agent)])
        until(lambda: _answers(port), daemon)
        until(agent.exists, keeper)
        kept = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
        subprocess.run(["ssh-add", "-q", folder / "key"], check=True, env=kept)
        (folder / "key").unlink()
        key = " ".join((folder / "host.pub").read_text().split()[:2])
        yield Remote(port=port, known_host=f"[127.0.0.1]:{port} {key}\n", agent=agent)


def _started(ended: contextlib.ExitStack, argv: list[str]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)

    ended.callback(end)
    return child


def until(is_so: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    """Wait until something is so, while a process lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert child.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
