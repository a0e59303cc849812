"""The private folders: one rename to appear, one to go, and nothing that is not ours is touched."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from khlone import files
from khlone.config_dir import ConfigDirs, cache_root, state_root
from khlone.errors import NotPermitted, StateUnsafe


class Killed(BaseException):
    """Stands for the end of the process at one point."""


@pytest.fixture
def dirs(tmp_path: Path) -> ConfigDirs:
    """The folders of one repository in a fresh account."""
    return ConfigDirs(tmp_path / "state" / "khlone", "repo1")


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> list[str]:
    """What lies in a folder, sorted; nothing when it is not there."""
    return sorted(os.listdir(folder)) if folder.exists() else []


# -- where


def test_the_state_lies_where_xdg_says_and_in_home_otherwise() -> None:
    assert state_root({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/khlone")
    assert state_root({"HOME": "/h"}) == Path("/h/.local/state/khlone")
    assert state_root({"XDG_STATE_HOME": "relative", "HOME": "/h"}) == Path("/h/.local/state/khlone")
    assert state_root({"XDG_STATE_HOME": "", "HOME": "/h"}) == Path("/h/.local/state/khlone")


def test_the_cache_lies_where_xdg_says_and_in_home_otherwise() -> None:
    assert cache_root({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/khlone")
    assert cache_root({"HOME": "/h"}) == Path("/h/.cache/khlone")


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_the_hint_names_the_variable_to_set(environment: dict[str, str]) -> None:
    with pytest.raises(NotPermitted) as caught:
        state_root(environment)

    assert "XDG_STATE_HOME" in str(caught.value.hint)


def test_the_layout_is_the_documented_one_and_asking_makes_nothing(tmp_path: Path) -> None:
    dirs = ConfigDirs(tmp_path / "khlone", "repo1")
    clone = tmp_path / "khlone" / "repositories" / "repo1" / "clones" / "c1"

    assert dirs.config_path("c1", "claude") == clone / "config" / "claude"
    assert dirs.logs("c1") == clone / "logs"
    assert dirs.run("c1") == clone / "run"
    assert dirs.trash_path("c1", "op1") == tmp_path / "khlone" / "repositories" / "repo1" / "trash" / "c1" / "op1"
    assert names(tmp_path) == []


@pytest.mark.parametrize("bad", ["", ".", "..", ".hidden", "-x", "a/b", "a\0b", "a b", "a\n", "\u212a"])
def test_ids_that_could_lead_elsewhere_are_refused(dirs: ConfigDirs, tmp_path: Path, bad: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: dirs.config_path("c1", bad),
        lambda: dirs.config_path(bad, "claude"),
        lambda: dirs.trash_path("c1", bad),
        lambda: dirs.publish("c1", bad, "claude"),
        lambda: dirs.publish("c1", "op1", bad),
        lambda: dirs.discard(bad, "op1"),
        lambda: dirs.purge("c1", bad),
        lambda: ConfigDirs(tmp_path, bad),
    ]

    for call in calls:
        with pytest.raises(ValueError, match="cannot name a folder"):
            call()
    assert names(tmp_path) == []


# -- publish


def test_a_published_clone_is_private_complete_and_marked(dirs: ConfigDirs, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        config = dirs.publish("c1", "op1", "claude")
    finally:
        os.umask(before)

    clone = dirs.clone_path("c1")
    assert config == dirs.config_path("c1", "claude")
    assert names(clone) == ["config", "khlone.json", "logs", "run"]
    assert names(config) == []
    assert json.loads((clone / "khlone.json").read_bytes()) == {
        "clone": "c1",
        "operation": "op1",
        "repository": "repo1",
    }
    assert mode(clone / "khlone.json") == 0o600
    folders = [config, *config.parents]
    private = folders[: folders.index(tmp_path / "state")]
    assert {folder.name: mode(folder) for folder in private} == {folder.name: 0o700 for folder in private}
    assert names(clone.parent) == ["c1"]


def test_publishing_again_keeps_what_the_dir_holds(dirs: ConfigDirs) -> None:
    config = dirs.publish("c1", "op1", "claude")
    (config / "settings.json").write_text("{}")

    assert dirs.publish("c1", "op1", "claude") == config
    assert names(config) == ["settings.json"]
    assert names(dirs.publish("c1", "op1", "generic")) == []


def test_a_clone_of_another_operation_is_not_taken_over(dirs: ConfigDirs) -> None:
    dirs.publish("c1", "op1", "claude")

    with pytest.raises(StateUnsafe, match="another operation"):
        dirs.publish("c1", "op2", "claude")
    assert dirs.is_made_by("c1", "op1")
    assert not dirs.is_made_by("c1", "op2")


def test_what_a_killed_publication_left_is_replaced(dirs: ConfigDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "rename_new", die)
        with pytest.raises(Killed):
            dirs.publish("c1", "op1", "claude")
    folder = dirs.clone_path("c1").parent
    assert names(folder) == ["c1.op1.tmp"]
    assert not dirs.is_made_by("c1", "op1")

    dirs.publish("c1", "op1", "claude")

    assert names(folder) == ["c1"]


@pytest.mark.parametrize("part", ["repositories", "repositories/repo1", "repositories/repo1/clones"])
def test_a_link_in_place_of_a_folder_is_refused(dirs: ConfigDirs, tmp_path: Path, part: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "state" / "khlone" / part
    link.parent.mkdir(parents=True, mode=0o700)
    link.symlink_to(elsewhere)

    with pytest.raises(StateUnsafe):
        dirs.publish("c1", "op1", "claude")
    assert names(elsewhere) == []


def test_a_link_in_place_of_a_clone_is_neither_used_nor_followed(dirs: ConfigDirs, tmp_path: Path) -> None:
    dirs.publish("c0", "op0", "claude")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "khlone.json").write_text('{"clone": "c1", "operation": "op1"}')
    dirs.clone_path("c1").symlink_to(elsewhere)

    with pytest.raises(StateUnsafe):
        dirs.publish("c1", "op1", "claude")
    with pytest.raises(StateUnsafe):
        dirs.trash("c1", "op1")
    assert not dirs.is_made_by("c1", "op1")
    assert not dirs.discard("c1", "op1")
    assert names(elsewhere) == ["khlone.json"]


# -- discard


def test_discard_deletes_what_its_operation_made(dirs: ConfigDirs, tmp_path: Path) -> None:
    config = dirs.publish("c1", "op1", "claude")
    kept = tmp_path / "agents"
    kept.mkdir()
    (kept / "mine.md").write_text("mine")
    (config / "agents").symlink_to(kept)

    assert dirs.discard("c1", "op1")
    assert names(dirs.clone_path("c1").parent) == []
    assert names(kept) == ["mine.md"]
    assert dirs.discard("c1", "op1")


def test_discarding_in_a_fresh_account_makes_nothing(dirs: ConfigDirs, tmp_path: Path) -> None:
    assert dirs.discard("c1", "op1")
    assert names(tmp_path) == []


@pytest.mark.parametrize("marker", [None, "", "{", "[]", '{"clone": "c1"}', '{"clone": "c2", "operation": "op1"}'])
def test_discard_keeps_what_it_cannot_prove_to_be_its_own(dirs: ConfigDirs, marker: str | None) -> None:
    config = dirs.publish("c1", "op1", "claude")
    (config / "work").write_text("precious")
    path = dirs.clone_path("c1") / "khlone.json"
    path.unlink()
    if marker is not None:
        path.write_text(marker)

    assert not dirs.discard("c1", "op1")
    assert (config / "work").read_text() == "precious"


def test_discard_keeps_the_clone_of_another_operation(dirs: ConfigDirs) -> None:
    dirs.publish("c1", "op1", "claude")

    assert not dirs.discard("c1", "op2")
    assert dirs.is_made_by("c1", "op1")


def test_a_killed_discard_is_finished_by_the_next(dirs: ConfigDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dirs.publish("c1", "op1", "claude")
    (config / "a").write_text("a")
    remove_tree = files.remove_tree

    def die_half_way(path: Path) -> None:
        if path.exists():
            (path / "khlone.json").unlink()
            raise Killed
        remove_tree(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_tree", die_half_way)
        with pytest.raises(Killed):
            dirs.discard("c1", "op1")
    assert names(config.parent.parent.parent) == ["c1.op1.tmp"]

    assert dirs.discard("c1", "op1")
    assert names(dirs.clone_path("c1").parent) == []


def test_discard_leaves_the_leftover_of_another_operation(dirs: ConfigDirs) -> None:
    dirs.publish("c1", "op1", "claude")
    other = dirs.clone_path("c1").with_name("c1.op2.tmp")
    other.mkdir()

    assert dirs.discard("c1", "op1")
    assert names(other.parent) == ["c1.op2.tmp"]


# -- trash, restore, purge


def test_trash_and_restore_move_every_byte_there_and_back(dirs: ConfigDirs) -> None:
    config = dirs.publish("c1", "op1", "claude")
    (config / "history.jsonl").write_text("words")
    inode = config.stat().st_ino

    dirs.trash("c1", "t1")

    trashed = dirs.trash_path("c1", "t1")
    assert names(dirs.clone_path("c1").parent) == []
    assert (trashed / "config" / "claude" / "history.jsonl").read_text() == "words"
    assert [mode(folder) for folder in (trashed, trashed.parent, trashed.parent.parent)] == [0o700] * 3

    dirs.restore("c1", "t1")

    assert (config / "history.jsonl").read_text() == "words"
    assert config.stat().st_ino == inode
    assert dirs.is_made_by("c1", "op1")
    assert names(trashed.parent.parent) == []


def test_trash_and_restore_may_be_repeated(dirs: ConfigDirs) -> None:
    config = dirs.publish("c1", "op1", "claude")

    dirs.trash("c1", "t1")
    dirs.trash("c1", "t1")
    assert dirs.trash_path("c1", "t1").is_dir()
    dirs.restore("c1", "t1")
    dirs.restore("c1", "t1")

    assert config.is_dir()


def test_with_nothing_there_there_is_nothing_to_do(dirs: ConfigDirs, tmp_path: Path) -> None:
    dirs.trash("c1", "t1")
    dirs.restore("c1", "t1")
    dirs.purge("c1", "t1")

    assert names(tmp_path) == []


def test_neither_trash_nor_restore_overwrites(dirs: ConfigDirs) -> None:
    dirs.publish("c1", "op1", "claude")
    dirs.trash("c1", "t1")
    dirs.publish("c1", "op2", "claude")

    with pytest.raises(StateUnsafe, match="in the way"):
        dirs.trash("c1", "t1")
    with pytest.raises(StateUnsafe, match="in the way"):
        dirs.restore("c1", "t1")

    assert dirs.is_made_by("c1", "op2")
    assert "op1" in (dirs.trash_path("c1", "t1") / "khlone.json").read_text()


def test_purge_deletes_one_entry_and_may_be_repeated(dirs: ConfigDirs) -> None:
    for trash in ("t1", "t2"):
        dirs.publish("c1", "op1", "claude")
        dirs.trash("c1", trash)
    (dirs.trash_path("c1", "t1").with_name("t1.tmp")).mkdir()

    dirs.purge("c1", "t1")
    dirs.purge("c1", "t1")
    assert names(dirs.trash_path("c1", "t1").parent) == ["t2"]

    dirs.purge("c1", "t2")
    assert names(dirs.trash_path("c1", "t1").parent.parent) == []


@pytest.mark.needs_root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user")
def test_root_may_use_the_folders_of_a_user(dirs: ConfigDirs, tmp_path: Path) -> None:
    (tmp_path / "state" / "khlone").mkdir(parents=True, mode=0o700)
    os.chown(tmp_path / "state" / "khlone", 12345, 12345)

    assert dirs.publish("c1", "op1", "claude").is_dir()


def test_a_state_folder_that_cannot_be_written_is_explained(
    dirs: ConfigDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir(mode=0o500)

    def mkdir(path: str | Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", mkdir)  # as the system answers everyone but root
    with pytest.raises(NotPermitted, match="cannot write"):
        dirs.publish("c1", "op1", "claude")
