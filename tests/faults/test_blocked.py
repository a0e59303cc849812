"""A worktree that git would wait for without end stops nobody, and no git outlives the khlone that asked it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import document, new, show
from tests.commands.test_resources import alive
from tests.faults.lab import wait_until
from tests.support import KHLONE, TIMEOUT_S, Khlone


def admin_of(path: Path) -> Path:
    """The admin folder of a worktree."""
    return Path((path / ".git").read_text().removeprefix("gitdir: ").strip())


@pytest.mark.parametrize("name", ["HEAD", "commondir", "gitdir", "index"])
def test_a_pipe_in_the_place_of_a_file_of_git_is_told_at_once(khlone: Khlone, project: Path, name: str) -> None:
    place = admin_of(new(khlone, project, "a")) / name
    new(khlone, project, "b")
    place.unlink()
    os.mkfifo(place)

    listed = document(khlone("list", "--json", cwd=project), "list")["clones"]
    findings = document(khlone("doctor", "--json", cwd=project), "doctor", 1)["findings"]
    mended = khlone("doctor", "--fix", cwd=project)

    assert [(one["name"], one["state"]) for one in listed] == [("a", "broken"), ("b", "ready")]
    assert listed[0]["reason"]
    assert [one["clone"] for one in findings if one["severity"] == "error"] == ["a"]
    assert mended.code == 0, mended.err
    assert show(khlone, project, "a")["state"] == "ready"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize(("verb", "asked"), [("list", "status"), ("doctor", "worktree list")])
def test_who_is_ended_while_git_looks_ends_that_git_too(
    khlone: Khlone, project: Path, tmp_path: Path, verb: str, asked: str, number: signal.Signals
) -> None:
    new(khlone, project, "a")
    # A git whose look at a worktree never ends, as on a file system that is away.
    folder = tmp_path / "bin"
    folder.mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "git").write_text(
        f'#!/bin/sh\ncase " $* " in *" {asked} "*) echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; '
        f'exec sleep 100000;; esac\nexec {real} "$@"\n'
    )
    (folder / "git").chmod(0o755)

    child = subprocess.Popen(
        [KHLONE, verb],
        cwd=project,
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    child.send_signal(number)
    _, said = child.communicate(timeout=TIMEOUT_S)

    assert child.returncode == 128 + number
    assert b"Traceback" not in said
    wait_until(lambda: not alive(pid))


@pytest.mark.parametrize(("ref", "severity"), [("main", "error"), ("other", "warning")])
def test_a_head_that_is_not_on_the_branch_of_the_clone_is_told(
    khlone: Khlone, project: Path, ref: str, severity: str
) -> None:
    path = new(khlone, project, "a")
    subprocess.run(["git", "branch", "other"], cwd=project, check=True)
    (admin_of(path) / "HEAD").write_text(f"ref: refs/heads/{ref}\n")

    found = document(khlone("doctor", "--json", cwd=project), "doctor", int(severity == "error"))["findings"]

    [finding] = [one for one in found if one["code"] == "head-elsewhere"]
    assert (finding["clone"], finding["severity"]) == ("a", severity)
    assert f"has branch {ref} checked out" in finding["message"]
    subprocess.run(finding["fix"], shell=True, check=True)
    assert khlone("doctor", cwd=project).code == 0
    assert (admin_of(path) / "HEAD").read_text() == "ref: refs/heads/a\n"
