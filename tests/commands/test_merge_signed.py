"""What lands is signed where the user's commits are, by a real key, in every way of landing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.merging import held, landed, merge, worked
from tests.commands.steps import document, refs
from tests.support import Commit, Git, Khlone

WAYS = pytest.mark.parametrize("way", ["--merge", "--squash", "--rebase"])


def ssh_key(folder: Path, passphrase: str = "") -> Path:
    """A new key; returns the file of its private half."""
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", passphrase, "-f", path], check=True)
    return path


def signing_by_ssh(git: Git, project: Path, folder: Path) -> None:
    """Have commits signed by a key that git knows to be the author's."""
    key = ssh_key(folder)
    allowed = folder / "allowed"
    allowed.write_text(f"author@example.invalid {key.with_suffix('.pub').read_text()}")
    git("config", "gpg.format", "ssh", cwd=project)
    git("config", "user.signingKey", str(key), cwd=project)
    git("config", "gpg.ssh.allowedSignersFile", str(allowed), cwd=project)
    git("config", "commit.gpgSign", "true", cwd=project)


@pytest.fixture
def signing_by_gpg(git: Git, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have commits signed by a key in a keyring of the test's own."""
    if shutil.which("gpg") is None:
        pytest.skip("there is no gpg")
    # A socket's path may not be long.
    home = Path("/tmp") / f"khlone-gpg-{os.getpid()}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = ("--quick-gen-key", "Test Author <author@example.invalid>", "ed25519", "sign", "never")
    subprocess.run(["gpg", "--batch", "--quiet", "--passphrase", "", *made], check=True)
    git("config", "user.signingKey", "author@example.invalid", cwd=project)
    git("config", "commit.gpgSign", "true", cwd=project)
    yield
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=False)
    shutil.rmtree(home, ignore_errors=True)


def of_two_commits(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    """A clone with two commits that are not signed, on a target that has moved on."""
    git("config", "commit.gpgSign", "false", cwd=project)
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(path, {"b.txt": "b\n"}, "more of it")
    commit(project, {"c.txt": "c\n"}, "the target's own")
    git("config", "commit.gpgSign", "true", cwd=project)


def made(git: Git, project: Path, way: str) -> list[str]:
    """What landing has made: the replayed commits of a rebase, else one."""
    return git("rev-list", "--first-parent", f"-{2 if way == '--rebase' else 1}", "main", cwd=project).split()


@WAYS
@pytest.mark.parametrize("gate", [True, False])
def test_each_commit_that_a_landing_makes_is_signed_by_the_key_of_ssh(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, way: str, gate: bool
) -> None:
    signing_by_ssh(git, project, tmp_path)
    of_two_commits(khlone, git, commit, project)
    if gate:
        git("config", "khlone.gate.test", "git verify-commit HEAD", cwd=project)

    found = merge(khlone, project, "a", way)

    assert (landed(found), found["gated"]) == (["a"], gate)
    for oid in made(git, project, way):
        git("verify-commit", oid, cwd=project)


@WAYS
@pytest.mark.usefixtures("signing_by_gpg")
def test_and_by_the_key_of_gpg(khlone: Khlone, git: Git, commit: Commit, project: Path, way: str) -> None:
    of_two_commits(khlone, git, commit, project)

    merge(khlone, project, "a", way)

    for oid in made(git, project, way):
        git("verify-commit", oid, cwd=project)


def _no_key(folder: Path) -> str:
    return str(folder / "nowhere.pub")


def _locked(folder: Path) -> str:
    return str(ssh_key(folder, "a passphrase"))


@pytest.mark.parametrize(
    ("way", "key"), [("--merge", _locked), *((way, _no_key) for way in ("--merge", "--squash", "--rebase"))]
)
def test_what_cannot_be_signed_lands_nowhere_and_leaves_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, way: str, key: Callable[[Path], str]
) -> None:
    of_two_commits(khlone, git, commit, project)
    git("config", "gpg.format", "ssh", cwd=project)
    git("config", "user.signingKey", key(tmp_path), cwd=project)
    git("config", "khlone.gate.test", "true", cwd=project)
    before = refs(git, project)

    done = khlone("merge", "a", way, "--json", cwd=project)

    found = document(done, "merge", 1)
    assert held(found) == [("a", "signing-failed")]
    assert found["held"][0]["message"].startswith("the commit cannot be signed: ")
    [line, hint] = done.err.splitlines()
    assert line.startswith("khlone: held: a")
    assert "commit.gpgSign=false" in hint
    assert refs(git, project) == before


def test_without_a_signature_it_lands_when_that_is_said(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    of_two_commits(khlone, git, commit, project)
    git("config", "gpg.format", "ssh", cwd=project)
    git("config", "user.signingKey", _no_key(tmp_path), cwd=project)

    # As `git -c commit.gpgSign=false khlone` hands it on.
    merge(khlone, project, "a", env={"GIT_CONFIG_PARAMETERS": "'commit.gpgsign'='false'"})

    assert git("log", "-1", "--format=%s %G?", "main", cwd=project) == "Merge branch 'a' N\n"
