"""What do the worktree admin folders say, and how does a new one appear whole?

Reads `<common dir>/worktrees/*` by itself, since one broken entry makes git's own
`worktree list` die for everybody. A new entry is built aside, fsynced and published by
one rename, so that no other git ever sees half of it
(docs/decisions/0001-publish-the-admin-folder.md). Only for the files ref backend.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from khlone import files, process
from khlone.errors import GitFailed, StateUnsafe
from khlone.values import dataclass

#: Written into the admin folder of every clone; git ignores it, the rebuild of a registry reads it.
MARKER = "khlone.json"
_SMALL = 64 << 10
#: What git takes for a HEAD: a ref below `refs/`, or an oid.
_HEAD = r"ref:\s*refs/[^\0\n]*[^\0\n/]|[0-9a-f]{40}|[0-9a-f]{64}"

#: What `problems` says of a file that has bytes which mean nothing there, and of one that has none.
DAMAGED = "is damaged"
_EMPTY = "is missing or empty"

#: A file or folder in a git dir, and what it says is under way there.
_IN_PROGRESS = (
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("BISECT_LOG", "bisect"),
    # Between two picks: the commit of the one that stopped is made, the rest still waits.
    ("sequencer/todo", "cherry-pick or revert"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminEntry:
    """One admin folder. `problem` says what of it git cannot use, `is_poison` that commands elsewhere may die of it."""

    name: str
    path: Path
    worktree: Path | None
    head: str | None
    locked: str | None
    marker: Mapping[str, object] | None
    problem: str | None
    is_poison: bool

    @property
    def branch(self) -> str | None:
        """The full name of the branch that is checked out, `None` when detached or broken."""
        return branch_of(self.head)


def branch_of(head: str | None) -> str | None:
    """The ref that the content of a HEAD file names."""
    return head[5:].strip() if head is not None and head.startswith("ref: ") else None


def _text(path: Path) -> str | None:
    try:
        content = files.read_regular(path, most=_SMALL)
    except (StateUnsafe, OSError):
        return None
    return None if content is None else os.fsdecode(content)


def read_head(git_dir: Path) -> str | None:
    """The content of a worktree's HEAD without its line end; a symbolic link is followed by name."""
    path = git_dir / "HEAD"
    if path.is_symlink():
        return f"ref: {os.readlink(path)}"
    text = _text(path)
    return text.rstrip("\n") if text else None


def read_symbolic(path: Path) -> str | None:
    """The ref that the file of a symbolic ref names, `None` for any other file and for none."""
    if path.is_symlink():
        named = os.readlink(path)
        return named if named.startswith("refs/") else None
    return branch_of(_text(path))


def entries(common_dir: Path) -> list[AdminEntry]:
    """Every admin folder of the repository, broken ones included, by name."""
    folder = common_dir / "worktrees"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [entry for name in names if (entry := read_entry(folder / name)) is not None]


def read_entry(path: Path) -> AdminEntry | None:
    """One admin folder, `None` when there is no folder of that name."""
    if path.is_symlink() or not path.is_dir():
        return None
    gitdir = _text(path / "gitdir")
    locked = _text(path / "locked")
    head = read_head(path)
    found = _problems(path, _text(path / "commondir"), head, gitdir)
    worktree = None
    if gitdir and "gitdir" not in found:
        worktree = Path(os.path.normpath(path / gitdir.rstrip("\n"))).parent
    return AdminEntry(
        name=path.name,
        path=path,
        worktree=worktree,
        head=head,
        locked=None if locked is None else locked.strip(),
        marker=_marker(path),
        problem=" and ".join(f"{name} {what}" for name, what in found.items()) or None,
        is_poison=any(name == "commondir" or what != DAMAGED for name, what in found.items()),
    )


def problems(path: Path) -> dict[str, str]:
    """What is wrong with the three files of an admin folder without which git cannot use it, by their names."""
    return _problems(path, _text(path / "commondir"), read_head(path), _text(path / "gitdir"))


def _problems(path: Path, common: str | None, head: str | None, gitdir: str | None) -> dict[str, str]:
    found = {"commondir": _EMPTY if not common or not common.strip() else _unless(_leads_home(path, common))}
    if head and not head.startswith("ref:") and not head.strip("0"):
        found["HEAD"] = "is the null oid"
    else:
        found["HEAD"] = _EMPTY if not head else _unless(re.fullmatch(_HEAD, head.strip()) is not None)
    is_link = gitdir is not None and gitdir.rstrip("\n").endswith("/.git") and "\0" not in gitdir
    found["gitdir"] = _EMPTY if not gitdir or not gitdir.strip() else _unless(is_link)
    return {name: what for name, what in found.items() if what}


def _unless(is_well: bool) -> str:
    return "" if is_well else DAMAGED


def _leads_home(path: Path, common: str) -> bool:
    """Whether a `commondir` leads to the repository that the admin folder lies in, or to one, where it lies in none."""
    said = common.rstrip("\r\n")
    if said == "../..":
        return True
    try:
        home = os.stat(path / said)
        return path.parent.name != "worktrees" or os.path.samestat(home, os.stat(path.parent.parent))
    except (OSError, ValueError):
        return False


def _marker(path: Path) -> Mapping[str, object] | None:
    text = _text(path / MARKER)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return None


def checkouts(common_dir: Path, main_worktree: Path | None, *, bare: bool) -> Iterator[tuple[str, Path, Path]]:
    """Every (branch ref, worktree, git dir) that a worktree has checked out or is rebasing or bisecting.

    Where the main worktree cannot be told, the common dir stands in its place. A bare
    repository has one where GIT_WORK_TREE named it.
    """
    if not bare or main_worktree is not None:
        for ref in _held_refs(common_dir):
            yield ref, main_worktree or common_dir, common_dir
    for entry in entries(common_dir):
        if entry.worktree is not None:
            for ref in _held_refs(entry.path):
                yield ref, entry.worktree, entry.path


def _held_refs(git_dir: Path) -> Iterator[str]:
    head = branch_of(read_head(git_dir))
    if head is not None:
        yield head
    for name in ("rebase-merge/head-name", "rebase-apply/head-name"):
        text = _text(git_dir / name)
        if text and text.startswith("refs/") and text.strip() != head:
            yield text.strip()
    # What `rebase --update-refs` moves at its end: a ref, its old and its new oid, one a line.
    yield from (line for line in (_text(git_dir / "rebase-merge/update-refs") or "").split("\n")[::3] if line)
    text = _text(git_dir / "BISECT_START")
    if text and f"refs/heads/{text.strip()}" != head:
        yield f"refs/heads/{text.strip()}"


def in_progress(git_dir: Path) -> str | None:
    """What is under way in a worktree: rebase, merge, cherry-pick, revert, bisect, or nothing."""
    return next((what for name, what in _IN_PROGRESS if files.exists(git_dir / name)), None)


def stage(
    staged: Path,
    *,
    worktree: Path,
    head: str,
    locked: str,
    marker: Mapping[str, object],
    source_git_dir: Path,
    common_dir: Path,
    durable: bool,
) -> None:
    """Build an admin folder aside, complete and fsynced, as `git worktree add` would have it.

    `head` is the content of HEAD. The sparse patterns and the per-worktree config of
    `source_git_dir` are carried over, without what belongs to one worktree alone.
    """
    if files.exists(staged):
        files.remove_tree(staged)
    staged.mkdir(mode=0o777, parents=False)
    content = {
        "locked": f"{locked}\n".encode(),
        "gitdir": os.fsencode(worktree / ".git") + b"\n",
        "commondir": b"../..\n",
        "HEAD": f"{head}\n".encode(errors="surrogateescape"),
        MARKER: json.dumps(marker).encode() + b"\n",
    }
    per_worktree = files.read_regular(source_git_dir / "config.worktree")
    if per_worktree is not None and _worktree_config_on(common_dir):
        content["config.worktree"] = per_worktree
    sparse = files.read_regular(source_git_dir / "info" / "sparse-checkout", most=16 << 20)
    for name, value in content.items():
        files.write_new(staged / name, value, mode=0o666, durable=durable)
    if sparse is not None:
        (staged / "info").mkdir()
        files.write_new(staged / "info" / "sparse-checkout", sparse, mode=0o666, durable=durable)
    if "config.worktree" in content:
        _drop_what_is_one_worktrees_own(staged / "config.worktree")
    if durable:
        files.sync_dir(staged)


def _drop_what_is_one_worktrees_own(path: Path) -> None:
    """Take `core.bare` and `core.worktree` out of a copied configuration, as git does."""
    if not any(word in path.read_bytes().lower() for word in (b"bare", b"worktree")):
        return
    for key in ("core.bare", "core.worktree"):
        argv = [process.git_executable(), "config", "--file", os.fspath(path), "--unset-all", key]
        done = process.run(argv, environment=process.scrubbed())
        if done.status not in (0, 5):  # 5: there is no such key
            raise GitFailed(argv[1:], done.status, done.error_text)


def _worktree_config_on(common_dir: Path) -> bool:
    text = _text(common_dir / "config")
    return text is not None and "worktreeconfig" in text.lower()


def publish(staged: Path, admin: Path, *, durable: bool) -> None:
    """Let the staged admin folder appear under its name; raises FileExistsError when that is taken."""
    admin.parent.mkdir(exist_ok=True)
    _share(staged, admin.parent)
    files.rename_new(staged, admin, durable=durable)


def _share(staged: Path, parent: Path) -> None:
    """Where the common dir is its group's to write, so is what is published there (`core.sharedRepository`)."""
    shared = stat.S_IMODE(os.stat(parent.parent).st_mode) & 0o2077
    if not shared & stat.S_IWGRP:
        return
    for folder in (parent, staged, *(path for path in staged.rglob("*") if path.is_dir())):
        with contextlib.suppress(PermissionError):  # The folder of another user, who has shared it.
            os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | shared)
    for path in staged.rglob("*"):
        if path.is_file():
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | shared & 0o066)


def link(worktree: Path, admin: Path, *, durable: bool) -> None:
    """Make the worktree's folder, whose `.git` file points at the admin folder."""
    worktree.mkdir(mode=0o777)
    files.write_new(worktree / ".git", link_content(admin), mode=0o666, durable=durable)


def link_content(admin: Path) -> bytes:
    """The content of the `.git` file of a linked worktree."""
    return b"gitdir: " + os.fsencode(admin) + b"\n"


def is_linked(worktree: Path, admin: Path) -> bool:
    """Whether a folder is the linked worktree of that admin folder: `.git` a regular file that says so."""
    try:
        return files.read_regular(worktree / ".git", most=_SMALL) == link_content(admin)
    except (StateUnsafe, OSError):
        return False


def find_blocking(worktree: Path, admin: Path) -> Path | None:
    """One of the files by which git knows a worktree that it would wait for ever to read: a FIFO, a device."""
    for path in (worktree / ".git", admin / "HEAD", admin / "commondir", admin / "gitdir", admin / "index"):
        with contextlib.suppress(OSError):
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return path
    return None


def write_marker(admin: Path, marker: Mapping[str, object], *, durable: bool = True) -> None:
    """Write what the rebuild of a registry reads."""
    files.write_atomic(admin / MARKER, json.dumps(marker).encode() + b"\n", mode=0o666, durable=durable)


def point_at(admin: Path, worktree: Path, *, head: str | None = None, durable: bool = True) -> None:
    """Let an admin folder point at another worktree folder, and at another HEAD where given."""
    files.write_atomic(admin / "gitdir", os.fsencode(worktree / ".git") + b"\n", mode=0o666, durable=durable)
    if head is not None:
        files.write_atomic(admin / "HEAD", f"{head}\n".encode(errors="surrogateescape"), mode=0o666, durable=durable)
