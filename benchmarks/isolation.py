"""`exec NAME -- true` at each level of isolation against `config`, whole processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import GIT, KHLONE, Bench, Cost, compare, rounds

_ROUNDS = 25
_IMAGE = "localhost/khlone-bench:latest"


def main(bench: Bench) -> None:
    """Print the table."""
    levels = ["config", "home"]
    levels += ["sandbox"] if shutil.which("bwrap") else []
    with tempfile.TemporaryDirectory(prefix="kb-", dir="/tmp") as folder:
        levels += ["container"] if _make_image(bench, Path(folder)) else []
        _measure(bench, levels)


def _measure(bench: Bench, levels: list[str]) -> None:
    repository = bench.repository("isolation", files=300)
    bench.ask(GIT, "config", "khlone.isolation.image", _IMAGE, cwd=repository)
    for level in levels:
        bench.ask(KHLONE, "new", level, "--isolate", level, cwd=repository)

    def spawn(level: str) -> Cost:
        return bench.run(KHLONE, "exec", level, "--", "true", cwd=repository)

    variants = {level: (lambda _, level=level: spawn(level)) for level in levels}
    for level in levels:
        spawn(level)
    series = rounds(variants, _ROUNDS)
    compare(
        f"starting a command in a clone, {_ROUNDS} rounds",
        series,
        {level: "config" for level in levels if level != "config"},
    )


def _make_image(bench: Bench, folder: Path) -> bool:
    """An image of busybox alone, in a store of its own with a short path; False where it cannot be had."""
    if not all(shutil.which(name) for name in ("podman", "runc", "busybox")):
        print("container: left out, for want of podman, runc or busybox-static")
        return False
    (folder / "root/bin").mkdir(parents=True)
    shutil.copy2(str(shutil.which("busybox")), folder / "root/bin/busybox")
    (folder / "root/bin/true").symlink_to("busybox")
    storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(storage)
    (folder / "containers.conf").write_text(
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
    )
    bench.environment["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")
    bench.environment["CONTAINERS_CONF"] = str(folder / "containers.conf")
    packed = subprocess.run(["tar", "-C", folder / "root", "-cf", "-", "."], capture_output=True, check=True).stdout
    asked = ["podman", "import", "-", _IMAGE]
    done = subprocess.run(
        asked, input=packed, capture_output=True, check=False, env={**os.environ, **bench.environment}
    )
    if done.returncode != 0:
        print(f"container: left out, podman ended with {done.returncode}")
    return done.returncode == 0
