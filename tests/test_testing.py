"""What khlone.testing promises to the authors of plugins, and the template of docs/plugins.md, as they use them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from khlone.testing import HookCall, KhloneCommand, MakeClone
from tests.distributions import pip_install
from tests.support import ROOT, Git, write

#: With a place for its folders that is its own: in that of the user it would clear what other runs have left.
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "given")


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of docs/plugins.md with their languages, in order."""
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    return re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)


def test_the_template_is_installed_tested_and_takes_effect_in_under_twenty_lines(tmp_path: Path) -> None:
    (_, project), (_, module), _, (_, tests) = blocks()[:4]
    source, site = tmp_path / "source", tmp_path / "site"
    write(source, {"pyproject.toml": project, "khlone_no_tmp.py": module, "test_no_tmp.py": tests})
    pip_install(site, [source])

    done = subprocess.run(
        [*PYTEST, "test_no_tmp.py"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "2 passed" in done.stdout, done.stdout
    assert len([line for line in (project + module).splitlines() if line.strip()]) < 20


def run_pytest(folder: Path, name: str) -> str:
    """What pytest says of a test file, as an author would run it."""
    done = subprocess.run(
        [*PYTEST, name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def test_the_templates_test_fails_without_the_plugin(tmp_path: Path) -> None:
    write(tmp_path, {"test_no_tmp.py": blocks()[3][1]})

    said = run_pytest(tmp_path, "test_no_tmp.py")

    assert "1 failed, 1 passed" in said, said


def test_the_example_of_an_agent_without_an_account_passes(tmp_path: Path) -> None:
    (example,) = (text for kind, text in blocks() if kind == "python" and "khlone_loopback" in text)
    write(tmp_path, {"test_agent.py": example})

    said = run_pytest(tmp_path, "test_agent.py")

    assert "1 passed" in said, said


def test_the_account_and_the_repository_are_the_tests_own(khlone_repository: Path, git: Git) -> None:
    listed = git("config", "--list", "--show-origin", "--global", cwd=khlone_repository)

    assert khlone_repository.is_relative_to(Path(os.environ["HOME"]).parent)
    assert {line.split("\t")[0] for line in listed.splitlines()} == {f"file:{os.environ['GIT_CONFIG_GLOBAL']}"}
    assert git("log", "--format=%s", cwd=khlone_repository) == "add app.py\nadd README.md\n"
    assert [name for name in os.environ if name.startswith("KHLONE_")] == []


def test_a_command_answers_with_code_streams_and_document(khlone_command: KhloneCommand, tmp_path: Path) -> None:
    listed = khlone_command("list", "--json")
    refused = khlone_command("new", "a..b")
    elsewhere = khlone_command("list", "--json", cwd=tmp_path)
    given = khlone_command("plugins", "--json", env={"KHLONE_PLUGINS": ""})

    assert (listed.code, listed.json()["clones"]) == (0, [])
    assert (refused.code, refused.out) == (2, "")
    assert "a..b" in refused.err
    assert elsewhere.json()["code"] == "not-a-repository"
    assert {one["loaded"] for one in given.json()["plugins"]} == {False}


def test_a_clone_is_made_with_the_options_of_new_or_the_test_fails(make_clone: MakeClone) -> None:
    clone = make_clone("one", "--agent", "generic", "--branch", "other")

    assert (clone.name, clone.branch, clone.agent, clone.dirty) == ("one", "other", "generic", False)
    assert (clone.path / "app.py").is_file()
    with pytest.raises(pytest.fail.Exception, match=r"git khlone new one: exit 1: .*one"):
        make_clone("one")


def test_calls_are_recorded_with_their_arguments_also_where_a_plugin_refuses(
    khlone_command: KhloneCommand,
    recorded_hooks: Callable[[], Sequence[HookCall]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuses = "from khlone import Refusal, hookimpl\n\n@hookimpl\ndef khlone_pre_create():\n    raise Refusal('no')\n"
    info = "refuses-1.dist-info"
    metadata = "Metadata-Version: 2.1\nName: refuses\nVersion: 1\n"
    write(tmp_path, {"refuses.py": refuses, f"{info}/METADATA": metadata})
    write(tmp_path, {f"{info}/entry_points.txt": "[khlone]\nrefuses = refuses\n"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    assert recorded_hooks() == []
    assert khlone_command("new", "one", "--from", "main").code == 1

    *_, last = recorded_hooks()
    assert last.hook == "pre_create"
    assert last.arguments["request"]["name"] == "one"
    assert last.arguments["request"]["start"] == "main"


def test_the_module_asks_for_pytest_alone() -> None:
    """It is imported in every run of pytest where khlone is installed: nothing heavy comes with it."""
    shown = "import sys, pytest; before = set(sys.modules); import khlone.testing; print(*set(sys.modules) - before)"

    done = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) == {"khlone", "khlone.testing", "khlone.values"}


def test_khlone_works_where_pytest_is_absent(tmp_path: Path, khlone_repository: Path) -> None:
    (tmp_path / "pytest.py").write_text("raise ImportError('there is no pytest here')\n")

    done = subprocess.run(
        [sys.executable, "-c", "from khlone.cli import main; main(['plugins'])"],
        cwd=khlone_repository,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
