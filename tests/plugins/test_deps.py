"""Packages for a new clone: off by default, copied where nothing can differ, else installed; a failure is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, footprint, new, refused, show
from tests.support import KHLONE, Commit, Done, Git, Khlone, write

PACKAGE = {"name": "app", "version": "1.0.0", "private": True, "dependencies": {"word": "file:./lib/word"}}
WORD = {"name": "word", "version": "2.0.0", "scripts": {"install": "touch ran"}}
OFFLINE = "offline=true\nupdate-notifier=false\n"


def deps(git: Git, where: Path, **settings: str) -> None:
    """Turn it on."""
    for key, value in {"kinds": "auto", **settings}.items():
        git("config", f"khlone.deps.{key}", value, cwd=where)


def run(*argv: str, cwd: Path) -> str:
    """A program that must end well."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def npm_project(repository: Path, commit: Commit, git: Git) -> Path:
    """A repository with a package of its own below it, installed from there alone."""
    files = {
        "package.json": json.dumps(PACKAGE),
        "lib/word/package.json": json.dumps(WORD),
        "lib/word/index.js": "module.exports = 'word'\n",
        ".gitignore": "node_modules/\n",
        ".npmrc": OFFLINE,
    }
    write(repository, files)
    run("npm", "install", "--package-lock-only", "--no-audit", "--no-fund", cwd=repository)
    commit(repository, {**files, "package-lock.json": (repository / "package-lock.json").read_text()}, "packages")
    deps(git, repository)
    return repository


def required(path: Path) -> str:
    """What a program in the clone gets from the package."""
    return run("node", "-e", "process.stdout.write(require('word'))", cwd=path)


def made(khlone: Khlone, where: Path, name: str) -> tuple[Path, Done]:
    """A new clone, and what was said."""
    done = khlone("new", name, cwd=where)
    assert done.code == 0, done.err
    return Path(show(khlone, where, name)["path"]), done


# -- npm -----------------------------------------------------------------------------------


def test_it_is_off_by_default(khlone: Khlone, git: Git, npm_project: Path) -> None:
    git("config", "--unset", "khlone.deps.kinds", cwd=npm_project)

    path, done = made(khlone, npm_project, "one")

    assert not (path / "node_modules").exists()
    assert "deps" not in done.err


def test_npm_installs_what_the_lock_file_names_and_no_script_runs(khlone: Khlone, npm_project: Path) -> None:
    path, done = made(khlone, npm_project, "one")

    assert "npm has installed what package-lock.json names" in done.err
    assert required(path) == "word"
    assert not (path / "lib" / "word" / "ran").exists()
    assert not (npm_project / "node_modules").exists()
    assert show(khlone, npm_project, "one")["untracked"] == 0


def test_scripts_run_where_the_user_wants_them(khlone: Khlone, git: Git, npm_project: Path) -> None:
    deps(git, npm_project, scripts="true")

    path, _ = made(khlone, npm_project, "one")

    assert (path / "lib" / "word" / "ran").exists()


def test_a_folder_that_matches_is_copied_and_neither_copy_changes_the_other(khlone: Khlone, npm_project: Path) -> None:
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=npm_project)
    inside = npm_project / "node_modules" / "mark.txt"
    inside.write_text("main\n")
    (npm_project / "node_modules" / "hard.txt").hardlink_to(inside)

    path, done = made(khlone, npm_project, "one")

    assert "node_modules is a copy of the main worktree's" in done.err
    assert required(path) == "word"
    copied = path / "node_modules" / "mark.txt"
    assert copied.stat().st_ino != inside.stat().st_ino
    copied.write_text("clone\n")
    assert inside.read_text() == "main\n"
    assert os.path.realpath(path / "node_modules" / "word") == str(path / "lib" / "word"), "its own, not main's"


@pytest.mark.parametrize("change", ["another lock file", "half installed", "a link out", "an absolute link"])
def test_a_folder_that_may_differ_is_not_copied(khlone: Khlone, npm_project: Path, change: str) -> None:
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=npm_project)
    folder = npm_project / "node_modules"
    if change == "another lock file":
        with (npm_project / "package-lock.json").open("a") as stream:
            stream.write("\n")
    elif change == "half installed":
        (folder / ".package-lock.json").unlink()
    else:
        (folder / "out").symlink_to(npm_project / "lib" if change == "an absolute link" else "../../elsewhere")

    path, done = made(khlone, npm_project, "one")

    assert "npm has installed" in done.err
    assert required(path) == "word"
    assert not os.path.lexists(path / "node_modules" / "out")


def test_a_folder_that_git_does_not_ignore_is_left_out(khlone: Khlone, commit: Commit, npm_project: Path) -> None:
    commit(npm_project, {".gitignore": ""}, "nothing is ignored")

    path, done = made(khlone, npm_project, "one")

    assert "git does not ignore node_modules" in done.err
    assert not (path / "node_modules").exists()


# -- failures ------------------------------------------------------------------------------


@pytest.fixture
def broken_npm(tmp_path: Path, npm_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """npm writes half of it and ends with 7."""
    site = tmp_path / "bin"
    site.mkdir()
    half = "mkdir node_modules; echo half >node_modules/half"
    (site / "npm").write_text(f"#!/bin/sh\n{half}\necho https://me:secret@host/ went wrong >&2\nexit 7\n")
    (site / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{site}:{os.environ['PATH']}")
    return npm_project


def test_a_failure_is_a_warning_with_a_log_and_leaves_nothing_half_done(khlone: Khlone, broken_npm: Path) -> None:
    path, done = made(khlone, broken_npm, "one")

    (warning,) = [line for line in done.err.splitlines() if "deps: warning" in line]
    assert "`npm ci --no-audit --no-fund --ignore-scripts` ended with 7" in warning
    assert not (path / "node_modules").exists()
    (log,) = Path(os.environ["XDG_STATE_HOME"], "khlone", "plugins", "deps").glob("*.log")
    assert str(log) in warning
    assert "went wrong" in log.read_text()
    assert "secret" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_failure_stops_the_clone_where_packages_are_required(khlone: Khlone, git: Git, broken_npm: Path) -> None:
    deps(git, broken_npm, required="true")
    before = footprint(git, broken_npm)

    error = refused(khlone("new", "one", "--json", cwd=broken_npm), "vetoed")

    assert (error["facts"]["plugin"], "ended with 7" in error["message"]) == ("deps", True)
    assert footprint(git, broken_npm) == before
    assert clone_names(khlone, broken_npm) == []
    assert list(Path(os.environ["XDG_STATE_HOME"], "khlone", "plugins", "deps").glob("*.log"))


def test_a_new_that_was_killed_after_an_install_leaves_nothing(
    khlone: Khlone, git: Git, broken_npm: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nmkdir -p node_modules/a; echo 1 >node_modules/a/1\n")
    made(khlone, broken_npm, "warm")
    before = footprint(git, broken_npm)
    killed = subprocess.run(
        [KHLONE, "new", "lost"],
        cwd=broken_npm,
        env={**os.environ, "KHLONE_FAULT": "create.prepared"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -9
    assert (broken_npm.parent / "project.clones" / "lost" / "node_modules" / "a" / "1").exists()

    assert khlone("doctor", "--fix", cwd=broken_npm).code == 0

    assert footprint(git, broken_npm) == before
    assert not (broken_npm / ".git" / "khlone" / "quarantine").exists()


def test_an_installer_that_never_ends_is_ended(khlone: Khlone, git: Git, broken_npm: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nsleep 600 & wait\n")
    deps(git, broken_npm, timeout="1")

    _, done = made(khlone, broken_npm, "one")

    assert "took longer than 1 s" in done.err


def test_an_installer_that_is_not_there_is_told(
    khlone: Khlone, git: Git, repository: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, {"uv.lock": "version = 1\n", ".gitignore": ".venv/\n"}, "a lock file")
    deps(git, repository)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    _, done = made(khlone, repository, "one")

    assert "uv: uv is not installed" in done.err


@pytest.mark.parametrize(("key", "value"), [("kinds", "gem"), ("timeout", "0"), ("required", "maybe")])
def test_a_setting_that_makes_no_sense_is_told(
    khlone: Khlone, git: Git, repository: Path, key: str, value: str
) -> None:
    deps(git, repository, **{key: value})

    refused(khlone("new", "one", "--json", cwd=repository), "invalid-setting", 2)


# -- pip and uv ----------------------------------------------------------------------------


def wheel(folder: Path) -> None:
    """A package of one module, made without any tool."""
    folder.mkdir(parents=True)
    info = "word-2.0.dist-info"
    with zipfile.ZipFile(folder / "word-2.0-py3-none-any.whl", "w") as archive:
        archive.writestr("word.py", "WORD = 'word'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: word\nVersion: 2.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"word.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_pip_makes_an_environment_of_the_clones_own(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path
) -> None:
    wheel(tmp_path / "wheels")
    requirements = f"--no-index\n--find-links {tmp_path / 'wheels'}\nword==2.0\n"
    commit(repository, {"requirements.txt": requirements, ".gitignore": ".venv/\n"}, "requirements")
    (repository / ".venv").mkdir()
    (repository / ".venv" / "of-main").touch()
    deps(git, repository)

    path, done = made(khlone, repository, "one")

    assert "pip has installed what requirements.txt names" in done.err, done.err
    shown = run(str(path / ".venv/bin/python"), "-c", "import sys, word; print(sys.prefix, word.WORD)", cwd=path)
    assert shown == f"{path / '.venv'} word\n"
    assert not (path / ".venv" / "of-main").exists(), "an environment is never a copy"


def test_uv_makes_an_environment_of_the_clones_own(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(repository / "wheels")
    # uv comes with what the tests need, beside the Python that runs them.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_PYTHON_DOWNLOADS", "1")
    project = (
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["word"]\n'
        '[tool.uv.sources]\nword = { path = "wheels/word-2.0-py3-none-any.whl" }\n'
    )
    write(repository, {"pyproject.toml": project})
    run("uv", "lock", cwd=repository)
    wheel_bytes = (repository / "wheels" / "word-2.0-py3-none-any.whl").read_bytes()
    files: dict[str, str | bytes] = {
        "pyproject.toml": project,
        "uv.lock": (repository / "uv.lock").read_text(),
        "wheels/word-2.0-py3-none-any.whl": wheel_bytes,
        ".gitignore": ".venv/\n",
    }
    commit(repository, files, "a project of uv")
    deps(git, repository, kinds="uv")

    path, done = made(khlone, repository, "one")

    assert "uv has installed what uv.lock names" in done.err, done.err
    shown = run(str(path / ".venv/bin/python"), "-c", "import sys, word; print(sys.prefix, word.WORD)", cwd=path)
    assert shown == f"{path / '.venv'} word\n"


# -- cargo ---------------------------------------------------------------------------------


def test_cargo_fetches_where_blocks_cannot_be_shared(
    khlone: Khlone, git: Git, commit: Commit, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "bin"
    site.mkdir()
    (site / "cargo").write_text(f"#!/bin/sh\necho $PWD $* >>{tmp_path}/asked\n")
    (site / "cargo").chmod(0o755)
    # A file system without shared blocks, wherever the tests run.
    (site / "cp").write_text('#!/bin/sh\ncase "$*" in *--reflink=always*) exit 1;; esac\nexec /bin/cp "$@"\n')
    (site / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{site}:{os.environ['PATH']}")
    commit(repository, {"Cargo.lock": "version = 4\n", ".gitignore": "/target\n"}, "a lock file")
    write(repository, {"target/huge": "huge\n"})
    deps(git, repository)

    path = new(khlone, repository, "one")

    assert (tmp_path / "asked").read_text() == f"{path} fetch --locked\n"
    assert not (path / "target").exists()
