"""`trust` and `untrust`: what is shown, who may approve, and where it is kept."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from khlone.trust import Approvals, Identity, Subject
from tests.commands.steps import at_once, document, new, refused
from tests.support import KHLONE, Done, Git, Khlone, make_commit, run_khlone, write

SCRIPT = "#!/bin/sh\necho hello\n"


@pytest.fixture
def hooked(repository: Path) -> Path:
    """A repository with a hook that runs a script and reads a file, and one with a name."""
    hooks = '[hooks]\npre-create = "sh scripts/run.sh README.md"\npre-merge = { lint = "true", secrets = true }\n'
    make_commit(repository, {".khlone.toml": hooks, "scripts/run.sh": SCRIPT}, "hooks")
    return repository


def store() -> Path:
    """Where approvals are kept."""
    return Path(os.environ["XDG_STATE_HOME"], "khlone", "trust.json")


def is_approved(where: Path) -> bool:
    """Whether nothing needs to be approved, as `--check` says."""
    done = run_khlone("trust", "--check", cwd=where)
    assert done.code in (0, 77), done
    return done.code == 0


# -- what is shown -----------------------------------------------------------------------------


def test_what_would_run_is_shown_in_full_with_the_digests_of_its_files(khlone: Khlone, hooked: Path) -> None:
    digest = subprocess.run(["sha256sum", "scripts/run.sh"], cwd=hooked, capture_output=True, check=True, text=True)

    done = khlone("trust", "--check", cwd=hooked)

    assert done.code == 77
    assert "pre-create: NOT APPROVED, up to 60 s\n    sh scripts/run.sh README.md\n" in done.out
    assert f"runs scripts/run.sh (21 B) sha256:{digest.stdout.split()[0]}" in done.out
    assert "reads README.md" in done.out
    assert "pre-merge (lint): NOT APPROVED, up to 60 s, with all of your variables" in done.out


def test_what_cannot_be_shown_is_escaped(khlone: Khlone, repository: Path) -> None:
    write(repository, {".khlone.toml": '[hooks]\npre-create = "true\\u001b[2K\\r\\u202E # x"\n'})

    done = khlone("trust", "--check", cwd=repository)

    assert r"true\x1b[2K\r\u202e # x" in done.out


def test_a_repository_without_hooks_needs_no_approval(khlone: Khlone, repository: Path) -> None:
    assert is_approved(repository)
    found = document(khlone("trust", "--json", cwd=repository), "trust")

    assert (found["commands"], found["file"]) == ([], None)
    assert not store().exists()


def test_the_files_of_a_clone_and_of_a_commit_are_looked_at_there(khlone: Khlone, git: Git, hooked: Path) -> None:
    assert khlone("trust", "--yes", cwd=hooked).code == 0
    path = new(khlone, hooked, "one")
    write(path, {"scripts/run.sh": SCRIPT + "echo more\n"})

    assert (is_approved(hooked), is_approved(path)) == (True, False)
    write(hooked, {"scripts/run.sh": SCRIPT + "echo other\n"})
    assert run_khlone("trust", "--check", "--at", "HEAD", cwd=hooked).code == 0
    assert not is_approved(hooked)


def test_a_link_in_a_commit_is_followed_within_it(khlone: Khlone, git: Git, repository: Path) -> None:
    (repository / "link").symlink_to("run.sh")
    write(repository, {".khlone.toml": '[hooks]\npre-create = "./link"\n', "run.sh": SCRIPT})
    (repository / "run.sh").chmod(0o755)
    git("add", ".", cwd=repository)
    git("commit", "-qm", "hooks", cwd=repository)

    here = document(khlone("trust", "--check", "--json", cwd=repository), "trust", 77)["commands"]
    there = document(khlone("trust", "--check", "--at", "HEAD", "--json", cwd=repository), "trust", 77)["commands"]

    assert here == there
    assert [file["path"] for file in here[0]["files"]] == ["link"]


def test_approvals_are_listed_and_taken_back(khlone: Khlone, hooked: Path) -> None:
    assert khlone("trust", "--yes", cwd=hooked).code == 0

    listed = document(khlone("trust", "--list", "--json", cwd=hooked), "trust")["approvals"]
    gone = document(khlone("untrust", "--json", cwd=hooked), "untrust")["removed"]

    assert [(one["event"], one["name"]) for one in listed] == [("pre-create", None), ("pre-merge", "lint")]
    assert gone == listed
    assert document(khlone("trust", "--list", "--json", cwd=hooked), "trust")["approvals"] == []
    refused(khlone("new", "one", "--json", cwd=hooked), "not-trusted", 77)


def test_approvals_of_another_repository_stay_unless_all_are_meant(
    khlone: Khlone, git: Git, hooked: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    git("clone", "-q", str(hooked), str(other), cwd=tmp_path)
    for project in (hooked, other):
        assert khlone("trust", "--yes", cwd=project).code == 0

    assert khlone("untrust", cwd=hooked).code == 0
    assert (is_approved(hooked), is_approved(other)) == (False, True)
    assert khlone("untrust", "--all", cwd=hooked).code == 0
    assert not is_approved(other)


# -- who may approve ------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_asked_and_nothing_approved(khlone: Khlone, hooked: Path) -> None:
    error = refused(khlone("trust", "--json", cwd=hooked, input="y\n"), "not-trusted", 77)

    assert error["hint"].endswith("git khlone trust --yes")
    assert not is_approved(hooked)


def at_terminal(where: Path, answer: str) -> Done:
    """`git khlone trust` at a terminal, where somebody types an answer."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [KHLONE, "trust"], cwd=where, stdin=theirs, capture_output=True, check=False, timeout=60, text=True
    )
    os.close(theirs)
    os.close(ours)
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 77), ("", 77)])
def test_at_a_terminal_the_user_is_asked(hooked: Path, answer: str, code: int) -> None:
    done = at_terminal(hooked, answer)

    assert done.code == code, done
    assert "approve 2 commands" in done.err
    assert "sh scripts/run.sh" in done.out
    assert is_approved(hooked) is (code == 0)


@pytest.mark.parametrize("variable", ["KHLONE_SESSION", "KHLONE_HOOK"])
@pytest.mark.parametrize("words", [["trust"], ["trust", "--yes"]])
def test_nobody_approves_inside_a_session_or_a_hook(
    khlone: Khlone, hooked: Path, variable: str, words: list[str]
) -> None:
    refused(khlone(*words, "--json", cwd=hooked, env={variable: "x"}), "not-permitted", 77)

    assert not is_approved(hooked)


def test_a_command_in_a_clone_cannot_approve(khlone: Khlone, hooked: Path) -> None:
    make_commit(hooked, {".khlone.toml": '[hooks]\npre-merge = "true"\n'}, "another hook")
    new(khlone, hooked, "one")

    done = khlone("exec", "one", "--", str(KHLONE), "trust", "--yes", cwd=hooked)

    assert done.code == 77
    assert not is_approved(hooked)


def test_options_that_exclude_each_other_are_refused(khlone: Khlone, hooked: Path) -> None:
    refused(khlone("trust", "--yes", "--check", "--json", cwd=hooked), "usage", 2)
    refused(khlone("trust", "--check", "--at", "no-such-ref", "--json", cwd=hooked), "no-such-ref")


# -- where it is kept --------------------------------------------------------------------------------


def test_approvals_are_for_their_user_alone(khlone: Khlone, hooked: Path) -> None:
    assert khlone("trust", "--yes", cwd=hooked).code == 0

    assert stat.S_IMODE(store().stat().st_mode) == 0o600
    assert stat.S_IMODE(store().parent.stat().st_mode) == 0o700
    assert json.loads(store().read_text())["version"] == 1


def spoil_link(path: Path) -> None:
    """Put a link in its place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def spoil_text(path: Path) -> None:
    """Damage it."""
    path.write_bytes(path.read_bytes()[:-20])


def spoil_mode(path: Path) -> None:
    """Let others write to it."""
    path.chmod(0o666)


def spoil_version(path: Path) -> None:
    """Let it be of a later version."""
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize("spoil", [spoil_link, spoil_text, spoil_mode, spoil_version])
def test_a_file_that_cannot_be_relied_on_approves_nothing_and_is_kept(khlone: Khlone, hooked: Path, spoil: Any) -> None:
    assert khlone("trust", "--yes", cwd=hooked).code == 0
    spoil(store())
    before = store().read_bytes()

    refused(khlone("new", "one", "--json", cwd=hooked), "state-unsafe", 77)
    refused(khlone("trust", "--yes", "--json", cwd=hooked), "state-unsafe", 77)

    assert store().read_bytes() == before


def test_a_damaged_store_says_how_to_go_on(khlone: Khlone, hooked: Path) -> None:
    assert khlone("trust", "--yes", cwd=hooked).code == 0
    store().write_text("{")

    done = khlone("--json", "trust", "--yes", cwd=hooked)
    hint = str(refused(done, "state-unsafe", 77)["hint"])
    subprocess.run(hint.partition(";")[0], shell=True, check=True)

    assert Path(f"{store()}.damaged").read_text() == "{"
    assert khlone("trust", "--yes", cwd=hooked).code == 0
    assert is_approved(hooked)


def test_approvals_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "khlone" / "trust.json")

    def approve(number: int) -> None:
        subject = Subject(event="pre-create", name=None, command=f"true {number}", timeout_s=1.0, secrets=False)
        approvals.approve(Identity(id="x", root=tmp_path), [subject], {})

    at_once([lambda number=number: approve(number) for number in range(12)])  # type: ignore[misc]

    assert {one.command for one in approvals.load().values()} == {f"true {number}" for number in range(12)}
