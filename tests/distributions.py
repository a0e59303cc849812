"""Distributions of third parties, built and installed as a user would, into a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import write

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "2.5"
dependencies = ["khlone"]

[project.entry-points.khlone]
{plugins}
[tool.hatch.build.targets.wheel]
only-include = {files}
"""


def write_source(folder: Path, distribution: str, modules: Mapping[str, str]) -> Path:
    """The source folder of a distribution in which each module is a plugin, named like the module with `-` for `_`."""
    files = [f"{module}.py" for module in modules]
    plugins = "".join(f'{module.replace("_", "-")} = "{module}"\n' for module in modules)
    project = _PROJECT.format(name=distribution, plugins=plugins, files=json.dumps(files))
    write(folder / distribution, {"pyproject.toml": project, **dict(zip(files, modules.values(), strict=True))})
    return folder / distribution


def pip_install(site: Path, sources: Sequence[Path]) -> None:
    """Build the sources and install them into `site`, which then goes on PYTHONPATH; no registry is asked."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-index", "--no-build-isolation", "--no-deps", "--no-compile", "--target", str(site)),
            *map(str, sources),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def installed(folder: Path, distributions: Mapping[str, Mapping[str, str]]) -> Path:
    """A folder with these distributions installed, each with its modules."""
    site = folder / "site"
    pip_install(site, [write_source(folder / "sources", name, modules) for name, modules in distributions.items()])
    return site
