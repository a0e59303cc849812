"""Programs and settings that stand for an agent, and what khlone says of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.commands.steps import document
from tests.support import Khlone, write


def user_settings(text: str) -> None:
    """The user's own file of settings."""
    write(Path(os.environ["XDG_CONFIG_HOME"]) / "khlone", {"config.toml": text})


def program(folder: Path, name: str, script: str) -> Path:
    """An executable of POSIX sh in a folder; returns it."""
    write(folder, {name: f"#!/bin/sh\n{script}\n"})
    (folder / name).chmod(0o755)
    return folder / name


def on_path(folder: Path) -> dict[str, str]:
    """The environment in which the programs of a folder are found first."""
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def agent(khlone: Khlone, where: Path, name: str, env: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """What `agents show` says of one agent."""
    (found,) = document(khlone("agents", "show", name, "--json", cwd=where, env=env), "agents")["agents"]
    assert isinstance(found, dict)
    return found


def environment(khlone: Khlone, where: Path, name: str, env: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The variables that `env` gives for a clone."""
    return dict(document(khlone("env", name, "--json", cwd=where, env=env), "env")["environment"])


def inside(khlone: Khlone, where: Path, name: str, env: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The whole environment of a command that runs in a clone."""
    done = document(khlone("exec", name, "--json", "--", "env", "-0", cwd=where, env=env), "exec")["results"][0]
    pairs = (line.partition("=") for line in done["stdout"].split("\0") if line)
    return {name: value for name, _, value in pairs}
