"""The house rules of the test run itself: no quiet skips, nothing of the machine's account."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, Git

SKIPPED = "import pytest\n\n\n{marker}def test_one() -> None:\n    pytest.skip('not today')\n"
SKIPPED_MODULE = "import pytest\n\npytest.skip('not today', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n\n\n@pytest.mark.xfail\ndef test_one() -> None:\n    raise AssertionError\n"


def run_pytest(folder: Path, source: str, *, forbid: bool) -> subprocess.CompletedProcess[str]:
    """Run a test file in a pytest of its own, under the conftest of this project."""
    (folder / "test_given.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  needs_root: wants root\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KHLONE_FORBID_SKIPS": "1" if forbid else "0"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "--basetemp",
            "given",
            "test_given.py",
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("source", [SKIPPED.format(marker=""), SKIPPED_MODULE], ids=["test", "module"])
def test_a_skip_fails_the_run_where_skips_are_forbidden(tmp_path: Path, source: str) -> None:
    allowed = run_pytest(tmp_path, source, forbid=False)
    forbidden = run_pytest(tmp_path, source, forbid=True)

    assert "1 skipped" in allowed.stdout, allowed.stdout
    assert forbidden.returncode != 0
    assert "skips are forbidden in this run" in forbidden.stdout
    assert "not today" in forbidden.stdout


@pytest.mark.parametrize("source", [SKIPPED.format(marker="@pytest.mark.needs_root\n"), EXPECTED_FAILURE])
def test_a_marked_need_and_an_expected_failure_are_no_quiet_skips(tmp_path: Path, source: str) -> None:
    done = run_pytest(tmp_path, source, forbid=True)

    assert done.returncode == 0, done.stdout


def test_a_test_sees_no_git_setting_of_the_machine(git: Git, tmp_path: Path) -> None:
    listed = git("config", "--list", "--show-origin", cwd=tmp_path).splitlines()

    assert {line.split("\t")[0] for line in listed} == {f"file:{os.environ['GIT_CONFIG_GLOBAL']}"}
    assert git("config", "user.name", cwd=tmp_path) == "Test Author\n"


def test_every_test_starts_with_an_empty_account(tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])

    assert list(home.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    assert {Path(os.environ[f"XDG_{kind}_HOME"]).exists() for kind in ("STATE", "CONFIG", "CACHE")} == {False}
