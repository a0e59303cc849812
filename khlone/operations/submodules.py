"""How do a clone's submodules get their files and keep their commits, without a network?

Each clone has repositories of its own for its submodules, in its admin folder, where git
looks for them: made of what the calling or the main worktree has fetched, by hard links, so
that clones can have different commits checked out. The shared configuration is not touched.
Commits that only a clone's submodule has are handed over to that of the main worktree
before the clone's branch lands or the clone leaves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import KhloneError
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.operations import names, undo
from khlone.process import Completed
from khlone.values import dataclass

_DEEPEST = 10
#: Nothing of a submodule is fetched: not by a promise, not by itself, whatever is configured.
_OFFLINE = ("protocol.allow=never", "protocol.file.allow=always", "submodule.recurse=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A worktree with submodules: the clone's, or that of one of its submodules.

    `sources` are git dirs in which the submodules' repositories may lie, the best first.
    """

    worktree: Path
    git_dir: Path
    sources: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submodule:
    """One gitlink of an index with its entry in `.gitmodules`."""

    name: str
    path: str
    oid: str


def fill(app: App, clone: CloneRecord, lock: HeldLock) -> None:
    """Check out the submodules of a new clone, nested ones too, as far as what is here allows.

    Says on `app.told`, in one line, which stay empty because they were never fetched here.
    """
    location = app.location
    main = location.main_worktree
    sources = (location.git_dir, location.common_dir)
    place = _Place(worktree=clone.path, git_dir=undo.admin_path(app, clone), sources=sources)
    empty = list(_fill(app, place, lock, "", [location.worktree, main]))
    if empty:
        app.told(
            f"warning: {names.listed(empty)} of {clone.name} stays empty: never fetched here"
            " (in the clone: git submodule update --init)"
        )


def _fill(app: App, place: _Place, lock: HeldLock, prefix: str, beside: list[Path | None]) -> Iterator[str]:
    """The paths of those that stay empty. `beside` are worktrees that may have old-style repositories in them."""
    if prefix.count("/") > _DEEPEST * 8 or not files.exists(place.worktree / ".gitmodules"):
        return
    for one in _submodules(app, place):
        embedded = tuple(top / one.path / ".git" for top in beside if top is not None)
        inside = tuple(source / "modules" / one.name for source in place.sources)
        found = [source for source in (*inside, *embedded) if (source / "HEAD").is_file()]
        own = place.git_dir / "modules" / one.name
        if found and not _is_active(app, place, one):
            continue
        source = next((git_dir for git_dir in found if _has(app, git_dir, one.oid)), None)
        if source is None or not _is_room(place, one) or not _make(app, place, one, source, lock):
            yield prefix + one.path
            continue
        inner = _Place(worktree=place.worktree / one.path, git_dir=own, sources=tuple(found))
        yield from _fill(
            app, inner, lock, f"{prefix}{one.path}/", [top / one.path if top is not None else None for top in beside]
        )


def _submodules(app: App, place: _Place) -> Iterator[_Submodule]:
    """The gitlinks of a worktree's index that `.gitmodules` gives a name that may be a folder's."""
    listed = app.repository.git("ls-files", "--stage", "-z", cwd=place.worktree, check=False)
    links = {}
    for line in listed.stdout.split(b"\0"):
        facts, _, where = line.partition(b"\t")
        if facts.startswith(b"160000 "):
            links[os.fsdecode(where)] = os.fsdecode(facts.split(b" ")[1])
    if not links:
        return
    asked = (
        "config",
        "--file",
        os.fspath(place.worktree / ".gitmodules"),
        "-z",
        "--get-regexp",
        r"^submodule\..*\.path$",
    )
    found = app.repository.git(*asked, cwd=place.worktree, check=False)
    for item in found.text.split("\0"):
        key, _, path = item.partition("\n")
        name = key.removeprefix("submodule.").removesuffix(".path")
        if path in links and _is_plain(name) and _is_plain(path):
            yield _Submodule(name=name, path=path, oid=links[path])


def _is_plain(name: str) -> bool:
    """Whether a name or path stays below the folder that it is joined to."""
    return bool(name) and name[0] not in "/-" and not any(part in ("", ".", "..", ".git") for part in name.split("/"))


def _is_room(place: _Place, one: _Submodule) -> bool:
    """Whether the folder is there, empty and no link leads to it."""
    folder = place.worktree / one.path
    return os.path.realpath(folder) == os.fspath(folder) and folder.is_dir() and not os.listdir(folder)


def _is_active(app: App, place: _Place, one: _Submodule) -> bool:
    """Whether the user wants that submodule, by the rules of gitsubmodules(7): `git submodule deinit` takes it off."""

    def ask(*arguments: str) -> Completed:
        return app.repository.git(*arguments, cwd=place.worktree, check=False)

    said = ask("config", "--type=bool", "--get", f"submodule.{one.name}.active")
    if said.status == 0:
        return said.text.strip() == "true"
    specs = [spec for spec in ask("config", "-z", "--get-all", "submodule.active").text.split("\0") if spec]
    if specs:
        return one.path in ask("ls-files", "-z", "--", *specs).text.split("\0")
    return ask("config", "--get", f"submodule.{one.name}.url").status == 0


def _has(app: App, git_dir: Path, oid: str) -> bool:
    return _ask(app, git_dir, "cat-file", "-e", f"{oid}^{{tree}}").status == 0


def _ask(app: App, git_dir: Path, *arguments: str, lock: HeldLock | None = None) -> Completed:
    # With a worktree named, since git dies of a `core.worktree` that is gone, whatever it is asked.
    place = os.fspath(git_dir)
    return app.repository.git(
        *arguments,
        cwd=git_dir,
        environment={"GIT_DIR": place, "GIT_WORK_TREE": place, "GIT_NO_LAZY_FETCH": "1"},
        writes=lock is not None,
        keep_open=[lock.descriptor] if lock is not None else (),
        configuration=_OFFLINE,
        check=False,
    )


def _make(app: App, place: _Place, one: _Submodule, source: Path, lock: HeldLock) -> bool:
    """Give a submodule its repository and its files; False, and nothing left, when git could not."""
    own, folder = place.git_dir / "modules" / one.name, place.worktree / one.path
    own.parent.mkdir(parents=True, exist_ok=True)
    done = app.repository.git(
        "clone",
        "--mirror",
        "--quiet",
        "--template=",
        "--local",
        "--",
        os.fspath(source),
        os.fspath(own),
        cwd=place.git_dir,
        writes=True,
        keep_open=[lock.descriptor],
        configuration=_OFFLINE,
        check=False,
    )
    try:
        if done.status == 0 and _settle(app, place, one, source, lock):
            return True
    except (KhloneError, OSError) as error:
        app.told(f"warning: submodule {names.shown(one.path)}: {error}")
    if files.exists(own):
        files.remove_tree(own)
    for entry in os.listdir(folder):
        files.remove_tree(folder / entry)
    return False


def _settle(app: App, place: _Place, one: _Submodule, source: Path, lock: HeldLock) -> bool:
    """Turn a mirror into the repository of a submodule, configured as its source is, and fill its worktree."""
    own, folder = place.git_dir / "modules" / one.name, place.worktree / one.path
    content = files.read_regular(source / "config")
    if content is None:
        return False
    files.write_atomic(own / "config", content, mode=0o666)
    for key, value in (("core.worktree", os.path.relpath(folder, own)), ("core.bare", "false")):
        app.repository.git("config", "--file", os.fspath(own / "config"), key, value, writes=True)
    files.write_atomic(own / "HEAD", f"{one.oid}\n".encode(), mode=0o666)
    files.write_new(folder / ".git", b"gitdir: " + os.fsencode(os.path.relpath(own, folder)) + b"\n", mode=0o666)
    filled = app.repository.git(
        "reset",
        "--hard",
        "--quiet",
        "--no-recurse-submodules",
        cwd=folder,
        writes=True,
        keep_open=[lock.descriptor],
        configuration=_OFFLINE,
        environment={"GIT_NO_LAZY_FETCH": "1"},
        check=False,
    )
    return filled.status == 0


# -- what is given back --------------------------------------------------------------------


def hand_over(app: App, clone: CloneRecord, lock: HeldLock) -> None:
    """Give the main worktree's submodules the commits that only the clone's have, under refs of their own.

    What cannot be given is told; it stays in the clone's own repositories.
    """
    modules = undo.admin_path(app, clone) / "modules"
    for own in _repositories(modules):
        kept = app.location.common_dir / "modules" / own.relative_to(modules)
        if not (kept / "HEAD").is_file():
            continue
        tips = _ask(app, own, "rev-parse", "HEAD", "--branches")
        if tips.status != 0 or all(_has(app, kept, tip) and _is_kept(app, kept, tip) for tip in tips.text.split()):
            continue
        ref = f"refs/khlone/clones/{clone.id}"
        wanted = (f"+HEAD:{ref}/HEAD", f"+refs/heads/*:{ref}/heads/*")
        done = _ask(app, kept, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                    "--no-recurse-submodules", os.fspath(own), *wanted, lock=lock)  # fmt: skip
        if done.status != 0:
            why = done.error_text.strip().splitlines()
            app.told(f"warning: commits of {clone.name} stay in {own} alone: {why[-1] if why else 'git failed'}")


def forget_handed_over(app: App) -> None:
    """Drop the refs of commits that a branch, a tag or a remote branch of the submodule has by now."""
    for git_dir in _repositories(app.location.common_dir / "modules"):
        listed = _ask(app, git_dir, "for-each-ref", "--format=%(objectname) %(refname)", "refs/khlone/clones")
        for line in listed.text.splitlines():
            oid, _, ref = line.partition(" ")
            lasting = ("refs/heads", "refs/tags", "refs/remotes")
            if _ask(app, git_dir, "for-each-ref", "--count=1", f"--contains={oid}", *lasting).text:
                _ask(app, git_dir, "update-ref", "-d", ref, oid)


def _is_kept(app: App, git_dir: Path, oid: str) -> bool:
    """Whether some ref of a repository keeps a commit."""
    return bool(_ask(app, git_dir, "for-each-ref", "--count=1", f"--contains={oid}").text)


def _repositories(folder: Path) -> Iterator[Path]:
    """The git dirs in a folder of modules, nested ones too."""
    if not folder.is_dir():
        return
    for parent, folders, found in os.walk(folder):
        if "HEAD" in found and "objects" in folders:
            yield Path(parent)
            folders[:] = [name for name in folders if name == "modules"]
