"""Where khlone's files lie: on a network, on a read-only disk, nowhere. Refused by name, and told by the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import clone_names, document, footprint, new, refused
from tests.faults.lab import leftovers, rows, run
from tests.support import KHLONE, Done, Git, Khlone

#: In a mount namespace of its own, the kernel's list of mounts has one more; what lies there stays where it is.
MOUNTED = (
    'cat /proc/self/mountinfo >"$1" && echo "999 1 0:99 / $2 rw - $3 far:/disk rw" >>"$1" && '
    'mount --bind "$1" /proc/$$/mountinfo && shift 3 && exec "$@"'
)


class Mounts:
    """Runs khlone where a folder is said to be another file system."""

    def __init__(self, list_file: Path, folder: Path) -> None:
        self.list_file = list_file
        self.folder = folder

    def __call__(self, kind: str, *words: str, cwd: Path) -> Done:
        wrap = ("unshare", "--mount", "/bin/sh", "-c", MOUNTED, "sh", str(self.list_file), str(self.folder), kind)
        return run(*wrap, str(KHLONE), *words, cwd=cwd)


@pytest.fixture
def under(project: Path, tmp_path: Path) -> Mounts:
    """The folder with the repository is the one that lies elsewhere."""
    return Mounts(tmp_path / "mountinfo", project.parent)


def told(done: Done, code: int = 0) -> list[tuple[str, str]]:
    """(code, severity) of the findings of a doctor."""
    return [(one["code"], one["severity"]) for one in document(done, "doctor", code)["findings"]]


# -- a network file system -----------------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_on_a_network_file_system_nothing_is_begun_and_the_way_out_named(
    git: Git, project: Path, under: Mounts, kind: str
) -> None:
    before = footprint(git, project)

    error = refused(under(kind, "new", "a", "--json", cwd=project), "network-file-system")
    found = told(under(kind, "doctor", "--json", cwd=project), 1)

    assert kind in error["message"]
    assert "khlone.allowNetworkFileSystem" in error["hint"]
    assert found == [("network-file-system", "error")]
    assert footprint(git, project) == before
    assert not (project / ".git" / "khlone").exists()


@pytest.mark.needs_root
def test_on_a_local_one_at_the_same_place_all_is_well(khlone: Khlone, project: Path, under: Mounts) -> None:
    """The control: the same list with another type."""
    assert under("ext4", "new", "a", cwd=project).code == 0
    assert told(under("ext4", "doctor", "--json", cwd=project)) == []
    assert clone_names(khlone, project) == ["a"]


@pytest.mark.needs_root
@pytest.mark.parametrize("verb", [("new", "b"), ("remove", "a"), ("merge", "a"), ("prune",)])
def test_a_repository_that_came_to_lie_there_is_not_changed_and_can_be_looked_at(
    khlone: Khlone, git: Git, project: Path, under: Mounts, verb: tuple[str, ...]
) -> None:
    new(khlone, project, "a")
    before = footprint(git, project)

    changed = under("nfs4", verb[0], "--json", *verb[1:], cwd=project)
    looked = under("nfs4", "list", "--json", cwd=project)
    mended = under("nfs4", "doctor", "--fix", "--json", cwd=project)

    refused(changed, "network-file-system")
    assert [one["name"] for one in document(looked, "list")["clones"]] == ["a"]
    assert told(mended, 1) == [("network-file-system", "error")]
    assert footprint(git, project) == before


@pytest.mark.needs_root
def test_who_allows_it_is_warned_by_the_doctor_and_has_no_write_ahead_log(
    khlone: Khlone, git: Git, project: Path, under: Mounts
) -> None:
    git("config", "khlone.allowNetworkFileSystem", "true", cwd=project)

    assert under("nfs4", "new", "a", cwd=project).code == 0
    found = told(under("nfs4", "doctor", "--json", cwd=project))

    assert found == [("network-file-system", "warning")]
    assert rows(project, "PRAGMA journal_mode") != [("wal",)]
    assert [path.name for path in (project / ".git" / "khlone").glob("*-wal")] == []
    assert clone_names(khlone, project) == ["a"]


@pytest.mark.needs_root
def test_a_home_that_lies_there_stops_nothing_and_is_told(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "far-home"
    home.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    under = Mounts(tmp_path / "mountinfo", home)

    made = under("nfs4", "new", "a", cwd=project)
    done = under("nfs4", "doctor", "--json", cwd=project)

    assert made.code == 0, made.err
    assert told(done) == [("network-file-system", "warning")]
    assert str(home / "state") in document(done, "doctor")["findings"][0]["message"]


# -- places that cannot be written to --------------------------------------------------------


@pytest.mark.needs_root
@pytest.mark.parametrize("has_clones", [True, False], ids=["clones", "none yet"])
def test_a_repository_on_a_read_only_disk_is_not_called_well(
    khlone: Khlone, git: Git, project: Path, has_clones: bool
) -> None:
    if has_clones:
        new(khlone, project, "a")
    before = footprint(git, project)
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && cd "$1" && shift && exec "$@"'
    wrap = ("unshare", "--mount", "/bin/sh", "-c", script, "sh", str(project))

    found = told(run(*wrap, str(KHLONE), "doctor", "--json", cwd=project), 1)
    control = told(khlone("doctor", "--json", cwd=project))

    assert found == [("not-writable", "error")]
    assert control == []
    assert footprint(git, project) == before


def _is_a_file(home: Path) -> None:
    home.write_text("no folder\n")


def _others_may_write(home: Path) -> None:
    state = home / ".local" / "state" / "khlone"
    state.mkdir(parents=True)
    state.chmod(0o777)


def _leads_nowhere(home: Path) -> None:
    state = home / ".local" / "state" / "khlone"
    state.parent.mkdir(parents=True)
    state.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (None, "not-permitted"),
        (_is_a_file, "not-writable"),
        (_others_may_write, "state-unsafe"),
        (_leads_nowhere, "state-unsafe"),
    ],
    ids=["none", "file", "open", "link"],
)
def test_a_home_that_cannot_be_used_is_not_called_well(
    khlone: Khlone, git: Git, project: Path, tmp_path: Path, make: Any, code: str
) -> None:
    home = tmp_path / "home"
    if make is not None:
        make(home)
    nowhere = {"XDG_STATE_HOME": None, "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None}
    env = {**nowhere, "HOME": None if make is None else str(home)}

    before = told(khlone("doctor", "--json", cwd=project, env=env), 1)
    new(khlone, project, "a")
    after = khlone("doctor", "--json", cwd=project, env=env)
    made = khlone("new", "b", "--json", cwd=project, env=env)

    assert before == [(code, "error")]
    # With clones too; without any home the doctor itself ends with that very error.
    assert after.code in (1, 77)
    assert f'"code": "{code}"' in after.out
    assert made.code not in (0, 3)
    assert clone_names(khlone, project) == ["a"]
    assert leftovers(project) == []


def test_a_home_that_is_not_there_yet_is_one_that_can_be_made(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    """The control."""
    env = {"XDG_STATE_HOME": str(tmp_path / "not" / "yet")}

    assert told(khlone("doctor", "--json", cwd=project, env=env)) == []
    assert not (tmp_path / "not").exists()
