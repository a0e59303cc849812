"""Steps that several tests of verbs take, and what they look at: disk and refs, without asking khlone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

from tests.support import Done, Git, Khlone

#: Twenty lines, so that changes far apart merge.
NOTES = "".join(f"line {number}\n" for number in range(20))

_Result = TypeVar("_Result")


def edited(text: str, number: int, line: str) -> str:
    """`text` with one of its lines replaced."""
    lines = text.splitlines(keepends=True)
    lines[number] = line + "\n"
    return "".join(lines)


# -- asking khlone -------------------------------------------------------------------------


def document(done: Done, verb: str, code: int = 0) -> dict[str, Any]:
    """The one document of a verb that ended with `code`."""
    assert done.code == code, (done.code, done.out, done.err)
    found = done.json()
    assert found["schema"] == f"khlone.{verb}/1"
    return dict(found)


def refused(done: Done, error: str, code: int = 1) -> dict[str, Any]:
    """The error document of a refusal."""
    found = document(done, "error", code)
    assert found["code"] == error, found
    assert "Traceback" not in done.err
    return found


def new(khlone: Khlone, where: Path, name: str, *options: str) -> Path:
    """A new clone; returns its worktree."""
    found = document(khlone("new", name, *options, "--json", cwd=where), "new")
    assert found["failed"] == []
    return Path(found["clones"][0]["path"])


def show(khlone: Khlone, where: Path, name: str) -> dict[str, Any]:
    """The CLONE of that name."""
    found = document(khlone("show", name, "--json", cwd=where), "show")["clone"]
    assert isinstance(found, dict)
    return found


def clone_names(khlone: Khlone, where: Path) -> list[str]:
    """The names that `list` knows."""
    return sorted(clone["name"] for clone in document(khlone("list", "--json", cwd=where), "list")["clones"])


def trash(khlone: Khlone, where: Path) -> list[dict[str, Any]]:
    """The entries of the trash, in their order."""
    return list(document(khlone("trash", "--json", cwd=where), "trash")["entries"])


def at_once(tasks: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Run every task in a thread of its own, all released at one moment."""
    gate = Barrier(len(tasks))

    def run(task: Callable[[], _Result]) -> _Result:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


# -- looking without khlone ----------------------------------------------------------------


def tree(folder: Path) -> dict[str, tuple[str, int, bytes]]:
    """(kind, permissions, bytes or link target) of everything below a folder but its own `.git`."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        if parent == os.fsencode(folder):
            folders[:] = [name for name in folders if name != b".git"]
            files = [name for name in files if name != b".git"]
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            relative = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            found[relative] = (_kind(mode), stat.S_IMODE(mode), _content(path, mode))
    return found


def _kind(mode: int) -> str:
    return stat.filemode(mode)[0]


def _content(path: bytes, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if stat.S_ISREG(mode):
        with open(path, "rb") as stream:
            return stream.read()
    return b""


def refs(git: Git, where: Path) -> list[str]:
    """Every ref with its oid, khlone's own included, and what HEAD is."""
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", cwd=where).splitlines()
    return [*listed, git("rev-parse", "--symbolic-full-name", "HEAD", cwd=where, check=False).strip()]


def branches(git: Git, where: Path) -> dict[str, str]:
    """The oid of each local branch."""
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", cwd=where).splitlines()
    return {name.removeprefix("refs/heads/"): oid for name, _, oid in (line.partition(" ") for line in lines)}


def common_dir(git: Git, where: Path) -> Path:
    """The repository's common dir."""
    return Path(git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=where).strip())


def footprint(git: Git, repository: Path) -> dict[str, object]:
    """All that a clone leaves behind somewhere: refs, admin folders, worktrees, config dirs, configuration."""
    common = common_dir(git, repository)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path(os.environ["HOME"], ".local/state"), "khlone/repositories")
    return {
        "refs": refs(git, repository),
        "admin": _names(common / "worktrees"),
        "worktrees": _names(repository.parent / f"{repository.name.removesuffix('.git')}.clones"),
        "stage": _names(common / "khlone" / "stage"),
        "config dirs": sorted(str(path) for path in state.glob("*/clones/*")),
        "configuration": (common / "config").read_bytes(),
        "listed": git("worktree", "list", "--porcelain", cwd=repository),
    }


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def local_state(git: Git, worktree: Path, *, without: Sequence[str] = ()) -> dict[str, object]:
    """Bytes of every file, both diffs and the index of a checkout, some paths and their folders aside."""
    index = git("ls-files", "-s", "-v", cwd=worktree).splitlines()
    return {
        "files": {name: entry for name, entry in tree(worktree).items() if name not in without},
        "index": [line for line in index if line.partition("\t")[2] not in without],
        "diff": git("diff", cwd=worktree),
        "cached": git("diff", "--cached", cwd=worktree),
    }
