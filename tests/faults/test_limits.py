"""The system refuses: descriptors, locks, room, the disk itself. It is told, and nothing is half done."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, refused, tree
from tests.faults.lab import code_of, customized, leftovers, open_operations, run
from tests.sandbox import Sandbox
from tests.support import KHLONE, TIMEOUT_S, Commit, Done, Git, Khlone

#: How a command may end when the system refuses something in the middle of it.
EXPLAINED = {
    "plugin-failed",
    "no-space",
    "not-permitted",
    "disk-failed",
    "over-limit",
    "git-failed",
    "locked",
    "registry-corrupt",
    "state-unsafe",
    "clone-busy",
}


def limited(limit: str, *arguments: str, cwd: Path) -> Done:
    """Run khlone under a limit of the shell."""
    return run("/bin/sh", "-c", f'ulimit {limit}; exec "$@"', "sh", str(KHLONE), *arguments, cwd=cwd)


# -- descriptors ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "a"), ("merge", "a")])
def test_too_few_descriptors_are_told_and_leave_nothing_half_done(
    khlone: Khlone, git: Git, commit: Commit, project: Path, verb: tuple[str, ...]
) -> None:
    path = new(khlone, project, "a")
    if verb[0] == "merge":
        commit(path, {"one.txt": "1\n"}, "one")
    before, files = footprint(git, project), tree(path)
    codes = []

    for count in range(5, 40):
        done = limited(f"-n {count}", *verb, "--json", cwd=project)
        if done.code == 0:
            break
        codes.append(code_of(done))
        assert footprint(git, project) == before, count
        assert tree(path) == files, count
        assert open_operations(project) == [], count

    assert done.code == 0, "with enough of them it is done"
    assert "over-limit" in codes
    assert set(codes) <= EXPLAINED
    assert leftovers(project) == []


def test_a_descriptor_of_the_callers_above_a_limit_that_was_set_since_is_in_nobodys_way(
    khlone: Khlone, project: Path
) -> None:
    new(khlone, project, "a")
    with open(os.devnull) as null:
        high = fcntl.fcntl(null.fileno(), fcntl.F_DUPFD, 60)
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", 'ulimit -n 40; exec "$@"', "sh", str(KHLONE), "list", "--json"],
            cwd=project,
            pass_fds=(high,),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(high)

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["clones"][0]["dirty"] is False


def test_a_limit_is_no_misspelt_command(khlone: Khlone, project: Path) -> None:
    found = refused(limited("-n 7", "new", "b", "--json", cwd=project), "over-limit", 75)

    assert "too many open files" in found["message"]
    assert "ulimit" in found["hint"]


# -- locks ---------------------------------------------------------------------------------


@pytest.mark.needs_strace
@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK"])
def test_without_kernel_locks_nothing_is_changed(khlone: Khlone, git: Git, project: Path, number: str) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)
    inject = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:error={number}")

    done = run(*inject, str(KHLONE), "new", "b", "--json", cwd=project)

    assert "no file locks" in refused(done, "not-permitted", 77)["message"]
    assert footprint(git, project) == before
    assert open_operations(project) == []


# -- files that may not grow ---------------------------------------------------------------


def test_a_git_that_is_killed_for_a_large_file_leaves_nothing(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    new(khlone, project, "a")
    commit(project, {"large.bin": os.urandom(1 << 20)}, "large")
    before = footprint(git, project)

    done = limited("-f 512", "new", "b", "--json", cwd=project)

    found = refused(done, "no-space")
    assert "beyond the limit" in found["message"]
    assert footprint(git, project) == before
    assert leftovers(project) == []
    assert khlone("new", "b", cwd=project).code == 0


# -- the n-th call -------------------------------------------------------------------------

#: Counts the calls that change files below WATCHED, and lets those from the n-th on fail: one, or all the rest.
FAILING = """
import builtins, errno, os
_watched = tuple(os.environ.get("WATCHED", "").split(":"))
_at = int(os.environ.get("FAIL_AT", "0"))
_number = int(os.environ.get("FAIL_WITH", "5"))
_all = os.environ.get("FAIL_ALL") == "1"
_log = os.environ.get("FAIL_LOG")
_count = 0

def _place(value, keywords):
    if isinstance(value, int):
        try:
            return os.readlink(f"/proc/self/fd/{value}")
        except OSError:
            return ""
    text = os.fsdecode(value)
    folder = keywords.get("dir_fd", keywords.get("src_dir_fd"))
    return text if folder is None else os.path.join(_place(folder, {}), text)

def _wrap(name):
    call = getattr(os, name)
    def failing(first, *rest, **keywords):
        global _count
        writes = name != "open" or (rest and rest[0] & (os.O_WRONLY | os.O_RDWR))
        if writes and _place(first, keywords).startswith(_watched):
            _count += 1
            if _log:
                descriptor = _open(_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                _write(descriptor, f"{name} {_place(first, keywords)}\\n".encode())
                os.close(descriptor)
            if _at and (_count == _at or (_all and _count > _at)):
                raise OSError(_number, os.strerror(_number), first if not isinstance(first, int) else None)
        return call(first, *rest, **keywords)
    setattr(os, name, failing)

_open, _write = os.open, os.write
if _watched != ("",):
    for name in ("open", "write", "fsync", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "chmod"):
        _wrap(name)
"""
NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EROFS, errno.EDQUOT)
#: So many of a verb's calls are let fail, spread over all of them; in the torture run each one.
TRIES = 1000 if os.environ.get("KHLONE_TORTURE") else 8


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """A repository with a clone `a` that is one commit ahead."""
    box = Sandbox(tmp_path)
    box.create()
    assert box.khlone("new", "a").code == 0
    box.write(box.clone_path("a"), {"src/new.txt": "new\n"})
    box.commit(box.clone_path("a"), "work")
    return box


def _ready(box: Sandbox, verb: str) -> list[str]:
    """What to call next, once more, after whatever the last try left."""
    names = [str(row[0]) for row in box.rows("SELECT name FROM clones WHERE state NOT IN ('trashed') ORDER BY name")]
    if verb == "new":
        for name in names:
            if name == "b":
                assert box.khlone("remove", "--force", "b").code == 0
        return ["new", "b"]
    if verb == "restore":
        if names:
            assert box.khlone("remove", "--force", *names).code == 0
        return ["restore", "a"]
    if not names:
        assert box.khlone("restore", "a").code == 0
    if verb == "remove":
        return ["remove", "--force", "a"]
    box.git("reset", "-q", "--hard", "HEAD")
    if box.git("rev-parse", "main") != box.git("rev-parse", "a"):
        box.write(box.clone_path("a"), {"src/again.txt": box.git("rev-parse", "a")})
        box.commit(box.clone_path("a"), "again")
    return ["merge", "a"]


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("verb", ["new", "remove", "merge", "restore"])
def test_whichever_call_fails_the_cause_is_told_and_what_is_left_is_whole(
    sandbox: Sandbox, tmp_path: Path, verb: str, for_good: bool
) -> None:
    env = customized(tmp_path / "site", FAILING) | {"WATCHED": str(sandbox.root)}
    log = tmp_path / "log"
    calls = _ready(sandbox, verb)
    counted = sandbox.khlone(*calls, env=env | {"FAIL_LOG": str(log)})
    count = len(log.read_text().splitlines())
    assert counted.code == 0
    assert count > 5

    for at in range(1, count + 1, count // TRIES + 1):
        number = NUMBERS[at % len(NUMBERS)]
        fail = {"FAIL_AT": str(at), "FAIL_WITH": str(number), "FAIL_ALL": "1" if for_good else "0"}
        calls = _ready(sandbox, verb)
        done = sandbox.khlone(*calls, "--json", env=env | fail)
        where = (at, errno.errorcode[number], log.read_text().splitlines()[at - 1], done)
        if done.code != 0:
            assert "Traceback" not in done.err, where
            assert code_of(done) in EXPLAINED, where
        mended = sandbox.khlone("doctor", "--fix")
        assert mended.code == 0, (where, mended)
        assert sandbox.violations() == [], where


# -- a disk that is read-only --------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "--force", "a"), ("merge", "a")])
def test_on_a_read_only_disk_a_change_is_refused_and_a_look_works(
    khlone: Khlone, git: Git, commit: Commit, project: Path, verb: tuple[str, ...]
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    before, files = footprint(git, project), tree(path)
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1/project" && shift && exec "$@"'
    wrap = ("unshare", "--mount", "/bin/sh", "-c", script, "sh", str(project.parent))

    changed = run(*wrap, str(KHLONE), *verb, "--json", cwd=project)
    looked = run(*wrap, str(KHLONE), "list", "--json", cwd=project)

    assert code_of(changed) == "not-permitted", changed
    assert "read-only" in changed.out
    assert [one["name"] for one in document(looked, "list")["clones"]] == ["a"]
    assert (footprint(git, project), tree(path)) == (before, files)
    assert open_operations(project) == []
