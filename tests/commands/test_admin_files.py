"""A clone whose HEAD, `commondir` or `gitdir` holds junk: told, mended from what is known, no byte of it lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, common_dir, document, new, show, trash
from tests.support import Commit, Git, Khlone, write

FILES = ("HEAD", "commondir", "gitdir")


@pytest.fixture
def path(khlone: Khlone, commit: Commit, project: Path) -> Path:
    """The worktree of a clone `a` that is one commit ahead, with a file that no commit holds."""
    path = new(khlone, project, "a")
    commit(path, {"one.txt": "1\n"}, "one")
    write(path, {"new.txt": "new\n"})
    return path


def admin_of(git: Git, project: Path) -> Path:
    (admin,) = (common_dir(git, project) / "worktrees").iterdir()
    return admin


def quarantined(git: Git, project: Path) -> list[bytes]:
    return [one.read_bytes() for one in (common_dir(git, project) / "khlone" / "quarantine").iterdir()]


def told(khlone: Khlone, project: Path, *words: str) -> str:
    """What doctor says of the admin folder; with `--fix` it says that it is fixed, and nothing else is wrong."""
    done = khlone("doctor", "--json", *words, cwd=project)
    found = document(done, "doctor", done.code)["findings"]
    (one,) = (one for one in found if one["code"] == "broken-admin-folder")
    assert (one["severity"], one["clone"], one["fixed"]) == ("error", "a", bool(words))
    assert done.code == int(not words)
    return str(one["message"])


@pytest.mark.parametrize("name", FILES)
def test_list_doctor_and_remove_agree_and_what_the_hint_names_mends_it(
    khlone: Khlone, git: Git, project: Path, path: Path, name: str
) -> None:
    place = admin_of(git, project) / name
    whole = place.read_bytes()
    place.write_bytes(b"junk\n")

    listed = show(khlone, project, "a")
    kept = khlone("remove", "a", cwd=project)
    message = told(khlone, project)
    told(khlone, project, "--fix")

    assert (listed["state"], f"{name} is damaged" in listed["reason"]) == ("broken", True)
    assert kept.code == 1
    assert "doctor" in kept.err or "uncommitted" in kept.err
    assert f"{name} is damaged" in message
    assert "for sure" not in message
    assert place.read_bytes() == whole
    assert quarantined(git, project) == [b"junk\n"]
    assert git("status", "--porcelain", cwd=path) == "?? new.txt\n"


def test_all_three_files_at_once(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    admin = admin_of(git, project)
    whole = {name: (admin / name).read_bytes() for name in FILES}
    for name in FILES:
        (admin / name).write_bytes(name.encode())

    told(khlone, project, "--fix")

    assert {name: (admin / name).read_bytes() for name in FILES} == whole
    assert sorted(quarantined(git, project)) == sorted(name.encode() for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_the_file_is_set_aside_whole(
    khlone: Khlone, git: Git, project: Path, path: Path, name: str
) -> None:
    place = admin_of(git, project) / name
    place.unlink()
    write(place, {"inside.txt": "inside\n"})

    told(khlone, project, "--fix")

    (kept,) = (common_dir(git, project) / "khlone" / "quarantine").iterdir()
    assert (kept / "inside.txt").read_text() == "inside\n"
    assert git("status", "--porcelain", cwd=path) == "?? new.txt\n"


@pytest.mark.parametrize("name", FILES)
def test_a_removal_by_force_loses_nothing_and_restore_brings_a_working_clone(
    khlone: Khlone, git: Git, project: Path, path: Path, name: str
) -> None:
    tip = git("rev-parse", "a", cwd=project)
    (admin_of(git, project) / name).write_bytes(b"junk\n")

    assert khlone("remove", "--force", "a", cwd=project).code == 0
    assert clone_names(khlone, project) == []
    assert len(trash(khlone, project)) == 1
    assert khlone("restore", "a", cwd=project).code == 0

    assert (path / "new.txt").read_text() == "new\n"
    assert git("rev-parse", "HEAD", cwd=path) == tip
    assert git("status", "--porcelain", cwd=path) == "?? new.txt\n"


def test_a_head_that_was_on_another_branch_goes_back_there(khlone: Khlone, git: Git, project: Path, path: Path) -> None:
    git("switch", "-q", "-c", "other", cwd=path)
    (admin_of(git, project) / "HEAD").write_bytes(b"junk")

    assert "for sure" not in told(khlone, project, "--fix")

    assert git("branch", "--show-current", cwd=path) == "other\n"


@pytest.mark.parametrize("how", [("--detach", "a"), ("--detach", "main")])
def test_a_commit_beside_the_branch_keeps_its_name_and_the_doubt_is_told(
    khlone: Khlone, git: Git, commit: Commit, project: Path, path: Path, how: tuple[str, str]
) -> None:
    git("switch", "-q", *how, cwd=path)
    beside = commit(path, {"beside.txt": "beside\n"}, "beside")
    (admin_of(git, project) / "HEAD").write_bytes(b"junk")

    before = told(khlone, project)
    after = told(khlone, project, "--fix")

    assert "cannot be known for sure" in before
    assert beside[:10] in before
    assert after == before
    assert git("rev-parse", "HEAD", cwd=path).strip() == beside
    assert git("status", "--porcelain", cwd=path) == "?? new.txt\n"
    assert "1 commit that its branch lacks" in show(khlone, project, "a")["reason"]


def test_a_rebase_under_way_goes_on_where_it_was(
    khlone: Khlone, git: Git, commit: Commit, project: Path, path: Path
) -> None:
    commit(project, {"one.txt": "other\n"}, "other one")
    git("rebase", "-q", "main", cwd=path, check=False)
    head = git("rev-parse", "HEAD", cwd=path)
    (admin_of(git, project) / "HEAD").write_bytes(b"junk")

    assert "for sure" not in told(khlone, project, "--fix")

    assert git("rev-parse", "HEAD", cwd=path) == head
    git("rebase", "--abort", cwd=path)
    assert git("branch", "--show-current", cwd=path) == "a\n"


def test_without_a_reflog_the_branch_of_the_registry_is_taken_and_the_doubt_is_told(
    khlone: Khlone, git: Git, project: Path, path: Path
) -> None:
    admin = admin_of(git, project)
    (admin / "logs" / "HEAD").unlink()
    (admin / "HEAD").write_bytes(b"junk")

    assert "no reflog says where HEAD was" in told(khlone, project, "--fix")

    assert git("branch", "--show-current", cwd=path) == "a\n"


def test_a_worktree_of_the_users_with_junk_is_told_and_not_moved(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", "--detach", str(tmp_path / "theirs"), cwd=project)
    admin = admin_of(git, project)
    (admin / "HEAD").write_bytes(b"junk")

    done = khlone("doctor", "--fix", "--json", cwd=project)

    (found,) = json.loads(done.out)["findings"]
    assert (done.code, found["code"], found["severity"], found["fixed"]) == (0, "broken-admin-folder", "warning", False)
    assert (admin / "HEAD").read_bytes() == b"junk"
    assert (admin / "index").exists()
