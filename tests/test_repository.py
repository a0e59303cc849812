"""git is asked in one way: of the repository that is meant, safely, with patience for its races, in known words."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from khlone import discovery, files, process, ref_files
from khlone import repository as repositories
from khlone.errors import GitFailed, GitTooOld, IdentityMissing, NoSpace, NoSuchRef
from khlone.process import Completed
from khlone.ref_files import is_oid
from khlone.repository import MINIMUM_GIT, RefUpdate, Repository, check_git_version, failure, null_oid
from tests.support import Commit, Git

NULL = "0" * 40


@pytest.fixture
def ours(repository: Path) -> Repository:
    return opened(repository)


def opened(where: Path) -> Repository:
    return Repository(discovery.discover(where, os.environ), durable=False)


def oid(git: Git, where: Path, revision: str = "HEAD") -> str:
    return git("rev-parse", revision, cwd=where).strip()


# -- how git is called ---------------------------------------------------------------------


def test_what_a_hook_exports_does_not_reach_git(repository: Path, tmp_path: Path, git: Git) -> None:
    git("init", "-q", str(tmp_path / "other"), cwd=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
        patch.setenv("GIT_INDEX_FILE", str(tmp_path / "garbage"))
        (tmp_path / "garbage").write_bytes(b"garbage")
        ours = Repository(discovery._discover_plain(repository) or pytest.fail("not found"))

        listed = ours.git("ls-files", cwd=repository).text.split()
        status, cold = ours.cold("ls-files", cwd=repository)

    assert "README.md" in listed
    assert (status, cold.split()) == (0, listed)


@pytest.mark.parametrize("hook", ["reference-transaction", "pre-commit", "post-checkout"])
def test_no_hook_of_the_repository_runs(repository: Path, git: Git, ours: Repository, hook: str) -> None:
    path = repository / ".git" / "hooks" / hook
    path.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    path.chmod(0o755)

    ours.git("commit", "-q", "--allow-empty", "-m", "x", cwd=repository, writes=True)
    ours.git("checkout", "-q", "-b", "side", cwd=repository, writes=True)
    ours.update_refs([RefUpdate(ref="refs/heads/new", new=oid(git, repository), old=NULL)], reason="test")

    assert not (repository / "ran").exists()


def test_no_program_that_the_configuration_names_runs_for_a_status(
    repository: Path, git: Git, ours: Repository
) -> None:
    program = repository.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    program.chmod(0o755)
    git("config", "core.fsmonitor", str(program), cwd=repository)

    ours.git("status", "--porcelain", cwd=repository)
    assert not (repository / "ran").exists()
    git("status", cwd=repository)
    assert (repository / "ran").exists(), "the control: git alone runs it"


def test_a_reading_call_writes_no_index(repository: Path, git: Git, ours: Repository) -> None:
    index = repository / ".git" / "index"
    os.utime(repository / "README.md", (1, 1))
    before = index.read_bytes()

    ours.git("status", "--porcelain", cwd=repository)
    assert index.read_bytes() == before
    git("status", cwd=repository)
    assert index.read_bytes() != before, "the control: git alone refreshes it"


def test_a_failure_says_what_git_said(ours: Repository, repository: Path) -> None:
    with pytest.raises(GitFailed, match=r"(?i)not a valid object name") as caught:
        ours.git("cat-file", "-t", "nothing")

    assert caught.value.facts["command"] == ["cat-file", "-t", "nothing"]
    assert caught.value.facts["exit"] == 128
    assert ours.git("cat-file", "-t", "nothing", check=False).status == 128


def test_an_answer_that_was_cut_is_never_taken_for_the_whole(ours: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = process.run

    def run(argv: list[str], **options: Any) -> Completed:
        return plain(argv, **options, capture_bytes=10)

    monkeypatch.setattr(process, "run", run)

    with pytest.raises(GitFailed, match="bytes of output"):
        ours.git("log", check=False)


# -- refs ----------------------------------------------------------------------------------


def test_a_ref_is_read_as_git_reads_it(repository: Path, git: Git, ours: Repository) -> None:
    odd = os.fsdecode(b"refs/heads/caf\xc3\xa9")
    git("branch", "loose", "HEAD~1", cwd=repository)
    git("branch", "packed", "HEAD~2", cwd=repository)
    git("tag", "-a", "-m", "t", "annotated", cwd=repository)
    git("pack-refs", "--all", cwd=repository)
    git("branch", "-f", "loose", "HEAD", cwd=repository)
    git("branch", "deep/er/one", cwd=repository)
    git("update-ref", odd, "HEAD", cwd=repository)
    git("symbolic-ref", "refs/heads/alias", "refs/heads/packed", cwd=repository)
    git("symbolic-ref", "refs/heads/dangling", "refs/heads/none", cwd=repository)
    names = [
        *("refs/heads/main", "refs/heads/loose", "refs/heads/packed", "refs/tags/annotated", "refs/heads/deep/er/one"),
        *(odd, "refs/heads/alias", "refs/heads/dangling", "refs/heads/none", "refs/heads/deep", "refs/heads/deep/er"),
        *("refs/heads/main/below", "refs/heads/packed/below", "refs/heads/pack", "refs/heads/acked", "HEAD"),
    ]

    found = {name: ours.read_ref(name) for name in names}

    assert found == {
        name: git("show-ref", "--verify", "--hash", name, cwd=repository, check=False).strip() or None for name in names
    }


def test_an_absent_ref_is_never_another_one_that_git_would_guess(
    repository: Path, git: Git, ours: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("update-ref", "refs/heads/refs/heads/x", "HEAD", cwd=repository)
    monkeypatch.setattr(Repository, "has_ref_files", False)

    assert ours.read_ref("refs/heads/x") is None
    assert ours.read_ref("refs/heads/main") == oid(git, repository)
    assert git("rev-parse", "--verify", "-q", "refs/heads/x", cwd=repository) != "", "the control: rev-parse guesses"


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"0" * 39 + b"\n"])
def test_a_broken_ref_has_no_value(repository: Path, ours: Repository, content: bytes) -> None:
    (repository / ".git" / "refs" / "heads" / "broken").write_bytes(content)

    assert ours.read_ref("refs/heads/broken") is None


def test_a_ref_that_is_packed_meanwhile_is_found(
    repository: Path, git: Git, ours: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("branch", "side", cwd=repository)
    plain = files.read_regular
    calls: list[Path] = []

    def read(path: Path, *, most: int = 1 << 20) -> bytes | None:
        # Between the look at the packed refs and the one at the loose ref, git unpacks it.
        if path.name == "packed-refs" and not calls:
            calls.append(path)
            content = plain(path, most=most)
            git("pack-refs", "--all", cwd=repository)
            return content
        if path.name == "side" and not calls:
            return None
        return plain(path, most=most)

    monkeypatch.setattr(repositories, "read_regular", read)

    assert ours.read_ref("refs/heads/side") == oid(git, repository)


def test_refs_change_together_or_not_at_all(repository: Path, git: Git, ours: Repository) -> None:
    head, old = oid(git, repository), oid(git, repository, "HEAD~1")
    git("branch", "moved", old, cwd=repository)
    before = git("for-each-ref", cwd=repository)

    with pytest.raises(GitFailed):
        ours.update_refs(
            [
                RefUpdate(ref="refs/heads/new", new=head, old=NULL),
                RefUpdate(ref="refs/heads/moved", new=head, old=head),
            ],
            reason="stale",
        )
    assert git("for-each-ref", cwd=repository) == before

    ours.update_refs(
        [
            RefUpdate(ref="refs/heads/new", new=head, old=NULL),
            RefUpdate(ref="refs/heads/moved", new=null_oid(old), old=old),
        ],
        reason="khlone: a test",
    )
    assert ours.read_ref("refs/heads/new") == head
    assert ours.read_ref("refs/heads/moved") is None
    assert "khlone: a test" in git("reflog", "show", "refs/heads/new", cwd=repository)


@pytest.mark.parametrize("name", ["x", "X", "a/x", "A/X/y", "a"])
def test_branches_that_cannot_stand_beside_a_name_are_found(
    repository: Path, git: Git, ours: Repository, name: str
) -> None:
    for branch in ("a/x", "a/xx", "x", "xx"):
        git("branch", branch, cwd=repository)
    expected = {"x": ["x"], "X": ["x"], "a/x": ["a/x"], "A/X/y": ["a/x"], "a": ["a/x", "a/xx"]}

    assert sorted(ours.colliding_refs(name)) == expected[name]


def test_letters_that_are_patterns_to_git_are_letters_here(repository: Path, git: Git, ours: Repository) -> None:
    git("branch", "abc", cwd=repository)

    assert ours.colliding_refs("a*") == []
    assert ours.colliding_refs("[a]bc") == []


def test_a_revision_becomes_the_commit_it_names(repository: Path, git: Git, ours: Repository) -> None:
    git("tag", "-a", "-m", "t", "annotated", "HEAD~1", cwd=repository)

    assert ours.resolve_commit("annotated") == oid(git, repository, "HEAD~1")
    assert ours.resolve_commit("HEAD", cwd=repository) == oid(git, repository)
    for wrong in ("nothing", "HEAD^{tree}", "--all", "-", "HEAD:README.md", ""):
        with pytest.raises(NoSuchRef):
            ours.resolve_commit(wrong)


def test_the_full_name_of_a_short_one(repository: Path, git: Git, ours: Repository) -> None:
    git("tag", "v1", cwd=repository)

    assert ours.full_name("main") == "refs/heads/main"
    assert ours.full_name("v1") == "refs/tags/v1"
    assert ours.full_name(oid(git, repository)) is None
    assert ours.full_name("nothing") is None


def test_the_default_branch_is_the_remotes_word_then_our_own(repository: Path, git: Git) -> None:
    git("branch", "trunk", cwd=repository)
    seen = [opened(repository).default_branch()]

    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk", cwd=repository)
    seen.append(opened(repository).default_branch())
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/nothing", cwd=repository)
    seen.append(opened(repository).default_branch())

    assert seen == ["main", "trunk", "main"]


# -- races ---------------------------------------------------------------------------------


def test_a_lock_that_is_gone_at_the_next_try_is_waited_out(
    repository: Path, ours: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, answers = repository / ".git" / "index.lock", []
    lock.write_text("")
    plain = process.run

    def run(argv: list[str], **options: Any) -> Completed:
        done = plain(argv, **options)
        answers.append(done.status)
        lock.unlink(missing_ok=True)
        return done

    monkeypatch.setattr(process, "run", run)
    (repository / "README.md").write_text("changed\n")

    ours.git("add", "README.md", cwd=repository, writes=True)

    assert answers == [128, 0]


def test_a_lock_that_stays_is_an_error_that_names_it(
    repository: Path, ours: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = repository / ".git" / "index.lock"
    lock.write_text("theirs")
    monkeypatch.setattr(repositories, "_RETRY_TOTAL_S", 0.05)

    with pytest.raises(GitFailed, match=r"index\.lock"):
        ours.git("add", "README.md", cwd=repository, writes=True)

    assert lock.read_text() == "theirs"


def test_a_failure_that_is_no_race_is_not_tried_again(
    repository: Path, ours: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, plain = [], process.run

    def run(argv: list[str], **options: Any) -> Completed:
        calls.append(argv)
        return plain(argv, **options)

    monkeypatch.setattr(process, "run", run)

    with pytest.raises(GitFailed):
        ours.git("add", "nothing", cwd=repository, writes=True)

    assert len(calls) == 1


# -- commits -------------------------------------------------------------------------------


def test_a_commit_is_made_by_the_user_with_undecodable_words(repository: Path, git: Git, ours: Repository) -> None:
    head = oid(git, repository)

    made = ours.commit_tree(oid(git, repository, "HEAD^{tree}"), [head], os.fsdecode(b"caf\xe9\n"))

    assert git("show", "-s", "--format=%P %an %ae", made, cwd=repository) == (
        f"{head} Test Author author@example.invalid\n"
    )
    assert "caf" in git("cat-file", "-p", made, cwd=repository)


@pytest.mark.parametrize(
    "identity",
    [
        {"user.useConfigOnly": "true"},
        {"user.useConfigOnly": "true", "user.email": "a@example.invalid"},
        {"user.name": "", "user.email": "a@example.invalid"},
        {"user.name": "<>", "user.email": "a@example.invalid"},
    ],
)
def test_a_commit_by_nobody_is_told_as_that(
    repository: Path, git: Git, monkeypatch: pytest.MonkeyPatch, identity: dict[str, str]
) -> None:
    tree = oid(git, repository, "HEAD^{tree}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for key, value in identity.items():
        git("config", key, value, cwd=repository)

    with pytest.raises(IdentityMissing):
        opened(repository).commit_tree(tree, [], "x")


@pytest.mark.parametrize(
    "done",
    [
        Completed(status=128, stdout=b"", stderr=b"error: unable to write file x: No space left on device\n"),
        Completed(status=128, stdout=b"", stderr=b"fatal: write error: Disk quota exceeded\n"),
        Completed(status=-signal.SIGXFSZ, stdout=b"", stderr=b""),
    ],
)
def test_a_full_disk_is_told_as_that(done: Completed) -> None:
    assert isinstance(failure(["add"], done), NoSpace)


def test_a_git_that_was_ended_for_its_time_is_told_as_that() -> None:
    assert "timed out" in str(failure(["gc"], Completed(status=-9, stdout=b"", stderr=b"", timed_out=True)))


def test_only_a_full_object_name_is_one() -> None:
    assert is_oid("a" * 40)
    assert is_oid("0" * 64)
    assert not any(is_oid(text) for text in ("", "a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 40 + "\n"))
    assert null_oid("a" * 64) == "0" * 64


# -- which git -----------------------------------------------------------------------------


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A git that says a version from a file and counts how often it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "git"
    path.write_text(f"#!/bin/sh\necho asked >>{folder}/asked\ncat {folder}/version\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    process.git_executable.cache_clear()
    yield path
    process.git_executable.cache_clear()


def says(fake_git: Path, text: str) -> None:
    (fake_git.parent / "version").write_text(text)


def asked(fake_git: Path) -> int:
    return (fake_git.parent / "asked").read_text().count("asked")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5\n", (2, 39, 5)),
        ("git version 2.39.5 (Apple Git-154)\n", (2, 39, 5)),
        ("git version 2.55.0.rc1.7.gabc\n", (2, 55, 0)),
        ("git version 3.0\n", (3, 0)),
    ],
)
def test_a_version_is_read(fake_git: Path, text: str, version: tuple[int, ...]) -> None:
    says(fake_git, text)

    assert check_git_version(None) == version


@pytest.mark.parametrize("text", ["git version 2.38.9\n", "git version 1.9.1\n", "nonsense\n", ""])
def test_a_git_that_is_too_old_is_refused(fake_git: Path, tmp_path: Path, text: str) -> None:
    says(fake_git, text)

    with pytest.raises(GitTooOld) as caught:
        check_git_version(tmp_path / "cache" / "git-version")

    assert caught.value.facts["needed"] == ".".join(map(str, MINIMUM_GIT))


def test_git_is_asked_once_until_it_is_another_one(fake_git: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "git-version"
    says(fake_git, "git version 2.40.1\n")
    versions = [check_git_version(cache), check_git_version(cache)]
    counts = [asked(fake_git)]

    os.utime(fake_git, (1, 1))
    says(fake_git, "git version 2.41.0\n")
    versions.append(check_git_version(cache))
    counts.append(asked(fake_git))

    assert versions == [(2, 40, 1), (2, 40, 1), (2, 41, 0)]
    assert counts == [1, 2]


def test_an_answer_that_is_no_version_is_not_kept(fake_git: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "git-version"
    says(fake_git, "something went wrong\n")
    with pytest.raises(GitTooOld):
        check_git_version(cache)

    says(fake_git, "git version 2.40.1\n")
    assert check_git_version(cache) == (2, 40, 1)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"/other/git\n1\n1\ngit version 9.9.9"])
def test_a_cache_that_says_something_else_is_not_believed(fake_git: Path, tmp_path: Path, content: bytes) -> None:
    says(fake_git, "git version 2.40.1\n")
    (tmp_path / "git-version").write_bytes(content)

    assert check_git_version(tmp_path / "git-version") == (2, 40, 1)


def test_a_cache_that_cannot_be_written_is_done_without(fake_git: Path, tmp_path: Path) -> None:
    says(fake_git, "git version 2.40.1\n")
    (tmp_path / "file").write_text("")

    assert check_git_version(tmp_path / "file" / "git-version") == (2, 40, 1)


@pytest.mark.parametrize(
    ("value", "in_files"), [("reftable", False), ("Reftable", False), ("files", True), ('"files"', True)]
)
def test_a_repository_says_whether_its_refs_are_files(tmp_path: Path, value: str, in_files: bool) -> None:
    (tmp_path / "config").write_text(f"[core]\n\trepositoryformatversion = 1\n[extensions]\n\trefStorage = {value}\n")

    assert ref_files.in_use(tmp_path) is in_files


def test_many_refs_are_read_as_git_tells_them_wherever_each_lies(git: Git, commit: Commit, repository: Path) -> None:
    packed = {f"refs/heads/{name}" for name in ("one", "two", "deep/one")}
    for ref in packed:
        git("update-ref", ref, commit(repository, {"notes.txt": ref}, ref), cwd=repository)
    git("pack-refs", "--all", cwd=repository)
    git("update-ref", "refs/heads/two", commit(repository, {"notes.txt": "newer"}, "newer"), cwd=repository)
    git("symbolic-ref", "refs/heads/other", "refs/heads/one", cwd=repository)
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", *packed, cwd=repository)
    expected = dict(line.split(" ") for line in listed.splitlines())
    absent = ["refs/heads/none", "refs/heads/deep", "refs/heads/on"]

    found = ref_files.read_all(repository / ".git", [*packed, *absent, "refs/heads/other"])

    assert not (repository / ".git/refs/heads/one").exists()
    assert found == {**expected, "refs/heads/other": ref_files.ASK_GIT}
