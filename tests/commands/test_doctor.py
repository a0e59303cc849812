"""`doctor`: finds what foreign hands and crashes left, mends it with `--fix`, and loses no byte of a user's."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import (
    branches,
    clone_names,
    common_dir,
    document,
    new,
    refs,
    refused,
    show,
    trash,
    tree,
)
from tests.support import KHLONE, Commit, Done, Git, Khlone, write

GIT_COMMANDS = (("worktree", "list"), ("branch", "-a"), ("fetch", "-q", "."), ("gc", "-q"), ("fsck",))


def findings(done: Done, code: int = 0) -> list[dict[str, Any]]:
    """The findings of the document, in its exact shape."""
    found = document(done, "doctor", code)
    assert list(found) == ["schema", "findings"]
    for one in found["findings"]:
        assert set(one) == {"code", "severity", "clone", "message", "fix", "fixed"}
        assert one["severity"] in ("error", "warning", "info")
        assert isinstance(one["fixed"], bool)
    return list(found["findings"])


def diagnosed(khlone: Khlone, where: Path) -> list[tuple[str, str]]:
    """(code, severity) of what doctor finds, with exit 1 exactly when an error is among it; nothing is fixed."""
    done = khlone("doctor", "--json", cwd=where)
    found = findings(done, done.code)
    assert not any(one["fixed"] for one in found)
    assert done.code == int(any(one["severity"] == "error" for one in found))
    return [(one["code"], one["severity"]) for one in found]


def mended(khlone: Khlone, where: Path) -> list[str]:
    """The codes that `doctor --fix` fixed; no error may be left."""
    return [one["code"] for one in findings(khlone("doctor", "--fix", "--json", cwd=where)) if one["fixed"]]


def on_disk(git: Git, project: Path) -> dict[str, object]:
    """Every byte of the repository, of its clones and of the user's state, what locks say of their holders aside."""
    common = common_dir(git, project)
    clones = project.with_name(f"{project.name}.clones")
    state = Path(os.environ["XDG_STATE_HOME"])
    whole: dict[str, object] = {}
    for folder in (common, clones, state):
        for name, entry in tree(folder).items() if folder.exists() else ():
            if not name.startswith("khlone/locks/"):
                whole[f"{folder}/{name}"] = entry
    links = {path: path.read_bytes() for path in clones.glob("*/.git")} if clones.exists() else {}
    return {**whole, **{str(path): text for path, text in links.items()}}


@dataclass(frozen=True)
class Place:
    """A clone with commits and work in it, and what is round it."""

    project: Path
    path: Path
    common: Path
    admin: Path
    tip: str

    @property
    def registry(self) -> Path:
        return self.common / "khlone" / "registry.sqlite3"


@pytest.fixture
def place(khlone: Khlone, git: Git, commit: Commit, project: Path) -> Place:
    """A clone `a` one commit ahead, with an edit, an untracked and an ignored file."""
    path = new(khlone, project, "a")
    tip = commit(path, {"one.txt": "1\n"}, "one")
    write(path, {"notes.txt": "changed\n", "new.txt": "new\n", "kept.log": "ignored\n"})
    common = common_dir(git, project)
    (admin,) = (common / "worktrees").iterdir()
    return Place(project=project, path=path, common=common, admin=admin, tip=tip)


# -- health --------------------------------------------------------------------------------


def test_a_healthy_repository_has_no_findings_and_is_not_touched(khlone: Khlone, git: Git, place: Place) -> None:
    new(khlone, place.project, "b")
    assert khlone("remove", "b", cwd=place.project).code == 0
    before = on_disk(git, place.project)

    done = khlone("doctor", "--json", cwd=place.project)

    assert findings(done) == []
    assert on_disk(git, place.project) == before
    assert mended(khlone, place.project) == []


def test_a_clone_of_an_empty_tree_is_healthy(khlone: Khlone, commit: Commit, git: Git, tmp_path: Path) -> None:
    git("init", "-q", str(tmp_path / "bare"), cwd=tmp_path)
    commit(tmp_path / "bare", {}, "nothing in it")
    new(khlone, tmp_path / "bare", "a")

    assert diagnosed(khlone, tmp_path / "bare") == []


@pytest.mark.parametrize("fix", [(), ("--fix",)])
def test_a_repository_without_clones_is_healthy(khlone: Khlone, git: Git, project: Path, fix: tuple[str, ...]) -> None:
    before = refs(git, project), (project / ".git/khlone").exists()

    done = khlone("doctor", *fix, cwd=project)

    assert (done.code, done.out) == (0, "all is well\n")
    assert refs(git, project) == before[0]
    assert fix or not (project / ".git/khlone").exists()


def test_the_text_names_finding_and_cure(khlone: Khlone, place: Place) -> None:
    shutil.rmtree(place.path)

    done = khlone("doctor", cwd=place.project)

    assert done.code == 1
    assert "worktree-missing" in done.out
    assert "doctor --fix" in done.err


# -- foreign admin folders -------------------------------------------------------------------


def _foreign(git: Git, project: Path, tmp_path: Path) -> Path:
    git("worktree", "add", "-q", "--detach", str(tmp_path / "foreign"), cwd=project)
    return common_dir(git, project) / "worktrees" / "foreign"


POISON: dict[str, Callable[[Path], object]] = {
    "empty-commondir": lambda admin: (admin / "commondir").write_bytes(b""),
    "missing-commondir": lambda admin: (admin / "commondir").unlink(),
    "null-head": lambda admin: (admin / "HEAD").write_text("0" * 40 + "\n"),
    "missing-head": lambda admin: (admin / "HEAD").unlink(),
    "empty-head": lambda admin: (admin / "HEAD").write_bytes(b""),
    "empty-gitdir": lambda admin: (admin / "gitdir").write_bytes(b""),
}


@pytest.mark.parametrize("kind", POISON)
@pytest.mark.parametrize("used", [True, False], ids=["with-clones", "without"])
def test_a_poisonous_admin_folder_is_named_and_with_fix_git_works_again(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, kind: str, used: bool
) -> None:
    path = new(khlone, project, "a") if used else None
    admin = _foreign(git, project, tmp_path)
    POISON[kind](admin)
    content, before = tree(admin), on_disk(git, project)

    found = diagnosed(khlone, project)
    untouched = on_disk(git, project)
    fixed = mended(khlone, project)

    assert ("broken-admin-folder", "error") in found
    assert untouched == before
    assert "broken-admin-folder" in fixed
    for command in GIT_COMMANDS:
        git(*command, cwd=project)
    (kept,) = (common_dir(git, project) / "khlone" / "quarantine").iterdir()
    assert tree(kept) == content
    assert diagnosed(khlone, project) == [("quarantine", "info")]
    if path is not None:
        assert git("status", "--porcelain", cwd=path) == ""


def test_the_empty_commondir_makes_git_itself_die_until_then(git: Git, project: Path, tmp_path: Path) -> None:
    admin = _foreign(git, project, tmp_path)

    POISON["empty-commondir"](admin)

    for command in (("worktree", "list"), ("branch", "-a"), ("fsck",)):
        with pytest.raises(AssertionError, match="commondir"):
            git(*command, cwd=project)


def test_git_khlone_is_not_held_up_by_the_git_that_started_it(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path
) -> None:
    new(khlone, project, "a")
    POISON["empty-commondir"](_foreign(git, project, tmp_path))
    path = f"{Path(KHLONE).parent}:{os.environ['PATH']}"

    done = subprocess.run(
        ["git", "khlone", "doctor", "--fix"], cwd=project, env={**os.environ, "PATH": path}, check=False
    )

    assert done.returncode == 0
    git("worktree", "list", cwd=project)


@pytest.mark.parametrize("old", [True, False])
def test_a_leftover_initializing_lock_is_taken_off_when_it_is_old(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, old: bool
) -> None:
    new(khlone, project, "a")
    admin = _foreign(git, project, tmp_path)
    (admin / "locked").write_text("initializing")
    shutil.rmtree(tmp_path / "foreign")
    if old:
        os.utime(admin / "locked", (time.time() - 3600, time.time() - 3600))

    found = diagnosed(khlone, project)
    fixed = mended(khlone, project)
    git("worktree", "prune", cwd=project)

    assert found == ([("left-initializing", "warning")] if old else [])
    assert fixed == (["left-initializing"] if old else [])
    assert admin.exists() is not old


def test_a_healthy_worktree_of_the_users_is_left_alone(khlone: Khlone, git: Git, place: Place, tmp_path: Path) -> None:
    admin = _foreign(git, place.project, tmp_path)
    gone = tmp_path / "gone"
    git("worktree", "add", "-q", str(gone), cwd=place.project)
    shutil.rmtree(gone)
    before = tree(admin), tree(place.common / "worktrees" / "gone")

    fixed = mended(khlone, place.project)

    assert fixed == []
    assert (tree(admin), tree(place.common / "worktrees" / "gone")) == before


# -- what foreign commands do to a clone -----------------------------------------------------


@dataclass(frozen=True)
class Harm:
    """What somebody does to a clone, how doctor calls it, and what of the user's files is there afterwards."""

    do: Callable[[Git, Place], object]
    codes: tuple[str, ...]
    files: str = "all"
    status: str = " M notes.txt\n?? new.txt\n"


def _delete(path: Path) -> Path:
    shutil.rmtree(path)
    return path


def _delete_marker(git: Git, at: Place) -> str:
    ref = git("for-each-ref", "--format=%(refname)", "refs/khlone/clones", cwd=at.project).strip()
    return git("update-ref", "-d", ref, cwd=at.project)


JUNK = {
    "word": b"junk",
    "zero-bytes": bytes(41),
    "binary": b"\x01\xff\n\xfe",
    "nowhere": b"/nowhere/at/all\n",
    "torn-ref": b"ref: refs/heads/",
}
HARMS: dict[str, Harm] = {
    "git-worktree-remove": Harm(
        do=lambda git, at: git("worktree", "remove", "-f", "-f", str(at.path), cwd=at.project),
        codes=("admin-missing", "worktree-missing"),
        files="committed",
        status="",
    ),
    "rm-worktree": Harm(do=lambda git, at: _delete(at.path), codes=("worktree-missing",), files="committed", status=""),
    "empty-worktree": Harm(
        do=lambda git, at: subprocess.run(["find", str(at.path), "-mindepth", "1", "-delete"], check=True),
        codes=("worktree-missing",),
        files="committed",
        status="",
    ),
    "rm-admin": Harm(do=lambda git, at: _delete(at.admin), codes=("admin-missing",)),
    "branch-D": Harm(
        do=lambda git, at: git("update-ref", "-d", "refs/heads/a", cwd=at.project), codes=("branch-missing",)
    ),
    "marker-D": Harm(
        do=_delete_marker,
        codes=("marker-missing",),
    ),
    "empty-branch": Harm(do=lambda git, at: (at.common / "refs/heads/a").write_bytes(b""), codes=("branch-missing",)),
    "empty-commondir": Harm(
        do=lambda git, at: (at.admin / "commondir").write_bytes(b""), codes=("broken-admin-folder", "git-fails")
    ),
    "empty-gitdir": Harm(do=lambda git, at: (at.admin / "gitdir").write_bytes(b""), codes=("broken-admin-folder",)),
    "null-head": Harm(
        do=lambda git, at: (at.admin / "HEAD").write_text("0" * 40 + "\n"), codes=("broken-admin-folder",)
    ),
    **{
        f"{kind}-{name}": Harm(
            do=lambda git, at, name=name, junk=junk: (at.admin / name).write_bytes(junk),  # type: ignore[misc]
            codes=("broken-admin-folder",),
        )
        for name in ("HEAD", "commondir", "gitdir")
        for kind, junk in JUNK.items()
    },
    "no-head": Harm(do=lambda git, at: (at.admin / "HEAD").unlink(), codes=("broken-admin-folder",)),
    "empty-index": Harm(do=lambda git, at: (at.admin / "index").write_bytes(b""), codes=("index-damaged",)),
    "no-index": Harm(do=lambda git, at: (at.admin / "index").unlink(), codes=("index-damaged",)),
    "torn-index": Harm(
        do=lambda git, at: os.truncate(at.admin / "index", (at.admin / "index").stat().st_size // 2),
        codes=("index-damaged",),
    ),
    "no-link": Harm(do=lambda git, at: (at.path / ".git").unlink(), codes=("worktree-unlinked",)),
    "empty-link": Harm(do=lambda git, at: (at.path / ".git").write_bytes(b""), codes=("worktree-unlinked",)),
    "branch-m": Harm(do=lambda git, at: git("branch", "-m", "renamed", cwd=at.path), codes=("branch-renamed",)),
    "mv": Harm(do=lambda git, at: at.path.rename(at.path.with_name("moved")), codes=("worktree-moved",)),
    "git-worktree-move": Harm(
        do=lambda git, at: git(
            "worktree", "move", "-f", "-f", str(at.path), str(at.project.parent / "far"), cwd=at.project
        ),
        codes=("worktree-moved",),
    ),
    "astray": Harm(do=lambda git, at: (at.admin / "gitdir").write_text("/nowhere/.git\n"), codes=("admin-astray",)),
}


@pytest.mark.parametrize("kind", HARMS)
def test_harm_from_outside_is_found_unchanged_and_healed_with_no_byte_lost(
    khlone: Khlone, git: Git, place: Place, kind: str
) -> None:
    harm = HARMS[kind]
    whole = tree(place.path)
    harm.do(git, place)
    before = on_disk(git, place.project)

    found = diagnosed(khlone, place.project)
    untouched = on_disk(git, place.project)
    mended(khlone, place.project)

    assert untouched == before
    assert {code for code, severity in found if severity == "error"} >= set(harm.codes)
    clone = show(khlone, place.project, "a")
    path = Path(clone["path"])
    committed = {name: entry for name, entry in whole.items() if name not in ("new.txt", "kept.log", "notes.txt")}
    expected = whole if harm.files == "all" else committed
    assert expected.items() <= tree(path).items()
    assert git("rev-parse", "HEAD", cwd=path).strip() == place.tip
    assert branches(git, place.project)[clone["branch"]] == place.tip
    assert git("branch", "--show-current", cwd=path).strip() == clone["branch"]
    assert git("status", "--porcelain", cwd=path) == harm.status
    assert (clone["state"], clone["head"]) == ("ready", place.tip)
    assert [one for one in diagnosed(khlone, place.project) if one[1] == "error"] == []
    for command in GIT_COMMANDS:
        git(*command, cwd=place.project)
    git("worktree", "prune", cwd=place.project)
    assert khlone("remove", "--force", "a", cwd=place.project).code == 0


def test_what_was_staged_is_staged_again_when_the_worktree_was_deleted(khlone: Khlone, git: Git, place: Place) -> None:
    git("add", "notes.txt", cwd=place.path)
    shutil.rmtree(place.path)

    mended(khlone, place.project)

    assert (place.path / "notes.txt").read_text() == "changed\n"
    assert git("status", "--porcelain", cwd=place.path) == "M  notes.txt\n"


def test_a_deleted_branch_comes_back_at_its_own_tip_when_another_is_checked_out(
    khlone: Khlone, git: Git, commit: Commit, place: Place
) -> None:
    git("switch", "-q", "-c", "other", "main", "--force", cwd=place.path, check=False)
    git("stash", "-q", "-u", cwd=place.path)
    git("switch", "-q", "-c", "other", "main", cwd=place.path, check=False)
    commit(place.path, {"other.txt": "other\n"}, "other")
    git("branch", "-q", "-D", "a", cwd=place.path)

    mended(khlone, place.project)

    assert branches(git, place.project)["a"] == place.tip
    assert git("branch", "--show-current", cwd=place.path).strip() == "other"


def test_a_repository_of_the_users_in_the_place_of_a_worktree_is_not_touched(
    khlone: Khlone, git: Git, place: Place
) -> None:
    shutil.rmtree(place.path)
    git("init", "-q", str(place.path), cwd=place.project)
    write(place.path, {"theirs.txt": "theirs\n"})
    before = tree(place.path)

    done = khlone("doctor", "--fix", "--json", cwd=place.project)

    assert [one["code"] for one in findings(done, 1) if one["severity"] == "error"] == ["worktree-foreign"]
    assert tree(place.path) == before
    assert (place.path / ".git").is_dir()


def test_a_repository_that_was_moved_finds_its_clones_again(
    khlone: Khlone, git: Git, place: Place, tmp_path: Path
) -> None:
    whole = tree(place.path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    place.project.rename(moved / "project")

    left = mended(khlone, moved / "project")

    assert "worktree-unlinked" in left
    assert tree(place.path) == whole
    assert git("status", "--porcelain", cwd=place.path) == " M notes.txt\n?? new.txt\n"


def test_a_repository_that_was_moved_with_its_clones_finds_them_again(
    khlone: Khlone, git: Git, place: Place, tmp_path: Path
) -> None:
    whole = tree(place.path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    place.project.rename(moved / "project")
    place.path.parent.rename(moved / "project.clones")

    left = mended(khlone, moved / "project")

    path = moved / "project.clones" / "a"
    assert left == ["worktree-moved"]
    assert show(khlone, moved / "project", "a")["path"] == str(path)
    assert tree(path) == whole
    assert git("status", "--porcelain", cwd=path) == " M notes.txt\n?? new.txt\n"


def test_a_copy_of_the_repository_does_not_take_the_originals_clones(
    khlone: Khlone, git: Git, place: Place, tmp_path: Path
) -> None:
    shutil.copytree(place.project, tmp_path / "copy", symlinks=True)
    before = on_disk(git, place.project)

    khlone("doctor", "--fix", cwd=tmp_path / "copy")

    assert on_disk(git, place.project) == before
    assert findings(khlone("doctor", "--json", cwd=place.project)) == []


# -- orphans ---------------------------------------------------------------------------------


def test_a_marker_of_no_clone_is_named_and_goes_with_fix(khlone: Khlone, git: Git, place: Place) -> None:
    git("update-ref", "refs/khlone/clones/0123456789abcdef", "main", cwd=place.project)
    before = on_disk(git, place.project)

    found = diagnosed(khlone, place.project)
    untouched = on_disk(git, place.project)
    fixed = mended(khlone, place.project)

    assert found == [("orphan-marker", "warning")]
    assert untouched == before
    assert fixed == ["orphan-marker"]
    assert "0123456789abcdef" not in "".join(refs(git, place.project))


@pytest.mark.parametrize("kind", ["clones", "trash/0123456789abcdef"])
def test_a_ref_that_alone_keeps_a_commit_is_kept(khlone: Khlone, git: Git, place: Place, kind: str) -> None:
    alone = git("commit-tree", "-m", "alone", "main^{tree}", cwd=place.project).strip()
    ref = f"refs/khlone/{kind}/0123456789abcdef"
    git("update-ref", ref, alone, cwd=place.project)

    fixed = mended(khlone, place.project)

    assert fixed == []
    assert f"{alone} {ref}" in refs(git, place.project)
    assert [severity for _, severity in diagnosed(khlone, place.project)] == ["warning"]


# -- the registry ----------------------------------------------------------------------------


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda file: file.write_bytes(b"garbage " * 4096),
    "header": lambda file: file.write_bytes(b"\0" * 100 + file.read_bytes()[100:]),
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "cut-to-a-page": lambda file: os.truncate(file, 4096),
    "page": lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 4096 + file.read_bytes()[8192:]),
}


@pytest.fixture
def both(khlone: Khlone, place: Place) -> Place:
    """A live clone `a` and a removed clone `b`."""
    path = new(khlone, place.project, "b")
    write(path, {"b.txt": "b\n"})
    assert khlone("remove", "--force", "b", cwd=place.project).code == 0
    return place


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_registry_is_refused_by_every_verb_and_rebuilt_by_doctor(
    khlone: Khlone, git: Git, both: Place, kind: str
) -> None:
    clone, entries, whole = show(khlone, both.project, "a"), trash(khlone, both.project), tree(both.path)
    DAMAGE[kind](both.registry)
    damaged, before = both.registry.read_bytes(), on_disk(git, both.project)

    for verb in (
        ()
        if kind == "page"
        else (("list",), ("show", "a"), ("trash",), ("new", "c"), ("remove", "a"), ("restore", "b"))
    ):
        refused(khlone(*verb, "--json", cwd=both.project), "registry-corrupt")
    found = diagnosed(khlone, both.project)
    untouched = on_disk(git, both.project)
    fixed = mended(khlone, both.project)

    assert found == [("registry-corrupt", "error")]
    assert untouched == before
    assert fixed == ["registry-corrupt"]
    (aside,) = (both.common / "khlone" / "quarantine").glob("*.sqlite3")
    assert aside.read_bytes() == damaged
    assert show(khlone, both.project, "a") == clone
    assert trash(khlone, both.project) == entries
    assert tree(both.path) == whole
    assert khlone("restore", "b", cwd=both.project).code == 0
    assert (both.path.with_name("b") / "b.txt").read_text() == "b\n"


@pytest.mark.parametrize("kind", ["deleted", "emptied"])
@pytest.mark.parametrize("verb", [("list",), ("new", "c"), ("doctor", "--fix"), ("remove", "--force", "a")])
def test_a_lost_registry_is_rebuilt_by_the_next_command_and_said_so(
    khlone: Khlone, both: Place, kind: str, verb: tuple[str, ...]
) -> None:
    clone, entries = show(khlone, both.project, "a"), trash(khlone, both.project)
    both.registry.unlink()
    if kind == "emptied":
        both.registry.touch()

    done = khlone(*verb, cwd=both.project)

    assert done.code == 0, done.err
    assert "registry" in done.err + done.out
    assert entries[0] in trash(khlone, both.project)
    if verb[0] != "remove":
        assert show(khlone, both.project, "a") == clone


def test_an_empty_registry_of_no_clones_is_in_nobodys_way(khlone: Khlone, git: Git, project: Path) -> None:
    new(khlone, project, "a")
    assert khlone("remove", "a", cwd=project).code == 0
    state = common_dir(git, project) / "khlone"
    shutil.rmtree(state / "trash")
    os.truncate(state / "registry.sqlite3", 0)

    assert diagnosed(khlone, project)[0] == ("registry-missing", "error")
    assert khlone("new", "b", cwd=project).code == 0
    assert [one for one in diagnosed(khlone, project) if one[1] == "error"] == []


def test_a_lost_registry_is_found_by_doctor_without_fix(khlone: Khlone, git: Git, both: Place) -> None:
    both.registry.unlink()
    before = on_disk(git, both.project)

    found = diagnosed(khlone, both.project)

    assert found == [("registry-missing", "error")]
    assert on_disk(git, both.project) == before


def test_fix_is_spoken_of_only_where_it_mends_something(khlone: Khlone, place: Place) -> None:
    (place.path / ".git").write_text("gitdir: /somewhere/else\n")
    hopeless = khlone("doctor", cwd=place.project)
    (place.path / ".git").unlink()
    mendable = khlone("doctor", cwd=place.project)

    assert "worktree-foreign" in hopeless.out
    assert "worktree-unlinked" in mendable.out
    assert ["doctor --fix" in done.err for done in (hopeless, mendable)] == [False, True]


def test_a_lost_state_folder_is_found_by_doctor_and_nothing_is_said_to_be_dropped(
    khlone: Khlone, git: Git, both: Place
) -> None:
    shutil.rmtree(both.common / "khlone")
    before = on_disk(git, both.project)

    found = document(khlone("doctor", "--json", cwd=both.project), "doctor", 1)["findings"]

    assert [(one["code"], one["severity"]) for one in found] == [("registry-missing", "error")]
    assert "update-ref -d" not in str(found)
    assert on_disk(git, both.project) == before


@pytest.mark.parametrize("verb", [("list",), ("new", "c"), ("doctor", "--fix"), ("remove", "--force", "a")])
def test_a_lost_state_folder_is_rebuilt_with_the_clones_and_the_identity(
    khlone: Khlone, both: Place, verb: tuple[str, ...]
) -> None:
    clone = show(khlone, both.project, "a")
    identity = json.loads((both.common / "khlone/id").read_text())["id"]
    shutil.rmtree(both.common / "khlone")

    done = khlone(*verb, cwd=both.project)

    assert done.code == 0, done.err
    assert json.loads((both.common / "khlone/id").read_text())["id"] == identity
    if verb[0] != "remove":
        assert show(khlone, both.project, "a") == clone
        assert khlone("remove", "--force", "a", cwd=both.project).code == 0
    assert not Path(clone["config_dir"]).exists(), "it went to the trash with its clone"
    assert khlone("restore", "a", cwd=both.project).code == 0
    assert Path(clone["config_dir"]).is_dir()


def test_a_copy_without_state_does_not_take_the_originals_identity(khlone: Khlone, both: Place, tmp_path: Path) -> None:
    shutil.copytree(both.project, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy/.git/khlone")
    identity = json.loads((both.common / "khlone/id").read_text())["id"]

    khlone("doctor", "--fix", cwd=tmp_path / "copy")

    assert json.loads((tmp_path / "copy/.git/khlone/id").read_text())["id"] != identity
    assert show(khlone, both.project, "a")["state"] == "ready"


def test_a_marker_is_no_orphan_while_an_admin_folder_tells_of_its_clone(khlone: Khlone, both: Place) -> None:
    marker = both.admin / "khlone.json"
    aside = marker.rename(both.project.parent / "marker")
    both.registry.unlink()
    assert khlone("new", "c", cwd=both.project).code == 0
    aside.rename(marker)

    assert diagnosed(khlone, both.project) == [("unregistered-clone", "warning")]
    assert mended(khlone, both.project) == ["unregistered-clone"]
    assert show(khlone, both.project, "a")["state"] == "ready"


@pytest.mark.parametrize(
    "verb", [("list",), ("new", "c"), ("remove", "--force", "a"), ("doctor",), ("doctor", "--fix")]
)
def test_a_registry_of_a_newer_khlone_is_not_touched(
    khlone: Khlone, git: Git, place: Place, verb: tuple[str, ...]
) -> None:
    connection = sqlite3.connect(place.registry)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = on_disk(git, place.project)

    found = refused(khlone(*verb, "--json", cwd=place.project), "registry-newer")

    assert "99" in found["message"]
    assert on_disk(git, place.project) == before


@pytest.mark.parametrize("point", ["remove.snapshot", "remove.worktree-moved", "remove.admin-moved", "remove.refs"])
def test_a_registry_lost_in_the_middle_of_a_removal_loses_no_work(khlone: Khlone, place: Place, point: str) -> None:
    whole = tree(place.path)
    killed = khlone("remove", "--force", "a", cwd=place.project, env={"KHLONE_FAULT": point})
    place.registry.unlink()

    fixed = mended(khlone, place.project)
    if clone_names(khlone, place.project) == []:
        assert khlone("restore", "a", cwd=place.project).code == 0

    assert killed.code == -9
    assert "registry-missing" in fixed
    assert tree(place.path) == whole
    assert khlone("doctor", cwd=place.project).code == 0


# -- interrupted operations ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "verb"), [("create.refs", ("new", "b")), ("remove.snapshot", ("remove", "--force", "a"))]
)
def test_an_interrupted_operation_is_told_untouched_and_then_finished(
    khlone: Khlone, git: Git, place: Place, point: str, verb: tuple[str, ...]
) -> None:
    killed = khlone(*verb, cwd=place.project, env={"KHLONE_FAULT": point})
    before = on_disk(git, place.project)

    found = diagnosed(khlone, place.project)
    untouched = on_disk(git, place.project)
    fixed = mended(khlone, place.project)

    assert killed.code == -9
    assert ("interrupted-operation", "error") in found
    assert untouched == before
    assert "interrupted-operation" in fixed
    assert [one for one in diagnosed(khlone, place.project) if one[1] == "error"] == []
