"""What a user installs: one wheel with the package, the plugins, the hook scripts and the man page."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout by hatchling alone."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in it."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, end: str) -> str:
    """The text of its one file whose name ends so."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(end))
        return archive.read(name).decode()


def metadata(wheel: Path) -> Message:
    """What the wheel says about itself."""
    return Parser().parsestr(read(wheel, ".dist-info/METADATA"))


def sources(folder: Path, parent: Path) -> set[str]:
    """The files of a package that a checkout has, as named in the wheel."""
    kept = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(parent)) for path in kept}


def test_every_module_of_both_packages_is_in_it(names: set[str]) -> None:
    expected = sources(ROOT / "khlone", ROOT) | sources(ROOT / "plugins" / "khlone_plugins", ROOT / "plugins")

    assert {"khlone/cli.py", "khlone/py.typed", "khlone_plugins/claude.py", "khlone_plugins/py.typed"} <= expected
    assert expected <= names


def test_nothing_else_is_in_it(wheel: Path, names: set[str]) -> None:
    name, version, *_ = wheel.name.split("-")
    own = ("khlone/", "khlone_plugins/", f"{name}-{version}.dist-info/", f"{name}-{version}.data/data/share/man/")

    assert {name for name in names if not name.startswith(own)} == set()
    assert {
        name for name in names if name.endswith((".pyc", ".sqlite3")) or "/tests/" in name or "/test_" in name
    } == set()


def test_the_hook_scripts_are_in_it_and_can_be_run(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = archive.getinfo("khlone/hook_scripts/khlone-hook")
        content = archive.read(found)

    assert content == (ROOT / "hooks" / "khlone-hook").read_bytes()
    assert (found.external_attr >> 16) & 0o111 == 0o111


def test_the_man_page_goes_where_man_looks(wheel: Path) -> None:
    page = read(wheel, ".data/data/share/man/man1/git-khlone.1")

    assert page == (ROOT / "docs" / "git-khlone.1").read_text(encoding="utf-8")
    assert ".TH GIT-KHLONE 1" in page


def test_the_guide_for_agents_and_the_skill_are_in_it(wheel: Path, tmp_path: Path) -> None:
    run = "from khlone.cli import run; raise SystemExit(run(['help', 'agents', *{}]))"

    assert read(wheel, "khlone/skills/khlone/SKILL.md").startswith("---\nname: khlone\ndescription: ")
    assert unpacked(wheel, tmp_path / "guide", run.format([])) == (ROOT / "docs/agents.md").read_text(encoding="utf-8")
    assert unpacked(wheel, tmp_path / "skill", run.format(["--skill"])) == read(wheel, "khlone/skills/khlone/SKILL.md")


def test_its_entry_points_are_the_commands_and_the_plugins(wheel: Path) -> None:
    found = configparser.ConfigParser()
    found.read_string(read(wheel, ".dist-info/entry_points.txt"))

    assert dict(found["console_scripts"]) == {"git-khlone": "khlone.cli:main", "khlone": "khlone.cli:main"}
    assert dict(found["khlone"]) == PROJECT["entry-points"]["khlone"]


def test_it_says_what_it_needs_and_under_which_licence(wheel: Path, names: set[str]) -> None:
    found = metadata(wheel)
    needs = {need for need in found.get_all("Requires-Dist", []) if "extra ==" not in need}

    assert found["License-Expression"] == "MIT"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert found["Requires-Python"] == ">=3.11"
    assert {re.split("[<>=]", need)[0].lower() for need in needs} == {
        "click",
        "filelock",
        "gitpython",
        "pluggy",
        "psutil",
        "rich",
        "tomlkit",
    }


def test_its_version_is_that_of_the_package(wheel: Path, tmp_path: Path) -> None:
    found = unpacked(wheel, tmp_path, "import khlone; print(khlone.__version__, khlone.__file__)")

    version, file = found.split()
    assert version == metadata(wheel)["Version"]
    assert Path(file).is_relative_to(tmp_path)


def test_it_works_without_the_checkout(wheel: Path, tmp_path: Path, repository: Path) -> None:
    run = f"from khlone.cli import run; raise SystemExit(run(['-C', {str(repository)!r}, 'new', 'one']))"

    path = unpacked(wheel, tmp_path, run).splitlines()[-1]

    assert Path(path, "src", "app.py").is_file()


def unpacked(wheel: Path, folder: Path, statement: str) -> str:
    """What a statement prints where the packages come from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    done = subprocess.run(
        [sys.executable, "-c", statement],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_constraints_hold_every_dependency_at_or_above_its_floor() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    floors = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]

    for floor in floors:
        name, least = floor.lower().split(",")[0].split(">=")
        assert parts(pins[name]) >= parts(least), f"{floor} but {name}=={pins[name]}"


def parts(version: str) -> tuple[int, ...]:
    """The numbers of a release."""
    return tuple(int(number) for number in version.split("."))


def test_the_constraints_are_names_and_versions_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert pins
    assert [line for line in pins if line.count("==") != 1 or set(line) & set("/:@;# ")] == []
