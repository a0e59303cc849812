"""Ports: a block for each clone, never shared, never one that is in use, never kept by who is gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import flock, port_leases
from tests.commands.steps import at_once, clone_names, document, footprint, new, refused, show
from tests.support import KHLONE, Git, Khlone, make_repository, run_git, run_khlone


def block(where: Path, name: str) -> list[int]:
    """First port and count, as `show` has them."""
    ports = show(run_khlone, where, name)["ports"]
    assert isinstance(ports, list)
    return [int(number) for number in ports]


def told(where: Path, name: str) -> dict[str, str]:
    """The variables about ports of a program in the clone."""
    lines = run_khlone("exec", name, "--", "env", cwd=where).out.splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("KHLONE_PORT"))


def allow(where: Path, first: int, last: int, size: int) -> None:
    """Let blocks of this size lie there alone."""
    run_git("config", "khlone.ports.range", f"{first}-{last}", cwd=where)
    run_git("config", "khlone.ports.size", str(size), cwd=where)


def free_range(size: int) -> int:
    """The first of some ports in a row that nothing uses at the moment."""
    for first in range(40000, 60000, size):
        if all(map(port_leases.is_free, range(first, first + size))):
            return first
    raise AssertionError("no ports")


@pytest.fixture
def one_block(repository: Path) -> int:
    """The first port of the only block that clones may have, of two ports."""
    first = free_range(2)
    allow(repository, first, first + 1, 2)
    return first


# -- what a clone is told ------------------------------------------------------------------


def test_every_way_to_ask_names_the_same_ports(khlone: Khlone, repository: Path) -> None:
    run_git("config", "khlone.ports.size", "3", cwd=repository)

    made = khlone("new", "one", "-x", "sh", "-c", "echo $KHLONE_PORT $KHLONE_PORTS $KHLONE_PORT_2", cwd=repository)

    first, count = block(repository, "one")
    assert count == 3
    assert made.out.splitlines()[0] == f"{first} {first} {first + 1} {first + 2} {first + 2}"
    expected = {
        "KHLONE_PORT": str(first),
        "KHLONE_PORT_COUNT": "3",
        "KHLONE_PORTS": f"{first} {first + 1} {first + 2}",
        "KHLONE_PORT_0": str(first),
        "KHLONE_PORT_1": str(first + 1),
        "KHLONE_PORT_2": str(first + 2),
    }
    assert told(repository, "one") == expected
    environment = document(khlone("env", "one", "--json", cwd=repository), "env")["environment"]
    assert {name: environment[name] for name in expected} == expected
    assert document(khlone("list", "--json", cwd=repository), "list")["clones"][0]["ports"] == [first, 3]


def test_a_shell_hook_is_told_the_ports(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    config = Path(os.environ["XDG_CONFIG_HOME"], "khlone", "config.toml")
    config.parent.mkdir(parents=True)
    config.write_text(f'[hooks]\npre-spawn = "echo $KHLONE_PORT >{tmp_path}/told"\n')
    new(khlone, repository, "one")

    assert khlone("exec", "one", "--", "true", cwd=repository).code == 0

    assert (tmp_path / "told").read_text() == f"{block(repository, 'one')[0]}\n"


def test_without_ports_nothing_is_reserved(khlone: Khlone, repository: Path) -> None:
    run_git("config", "khlone.ports.size", "0", cwd=repository)

    new(khlone, repository, "one")

    assert show(khlone, repository, "one")["ports"] is None
    assert told(repository, "one") == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "many"),
        ("size", "1001"),
        ("range", "9-1"),
        ("range", "80-90"),
        ("range", "30000-30001"),
        ("range", "x"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told_and_nothing_is_made(
    khlone: Khlone, git: Git, repository: Path, key: str, value: str
) -> None:
    git("config", f"khlone.ports.{key}", value, cwd=repository)
    before = footprint(git, repository)

    refused(khlone("new", "one", "--json", cwd=repository), "invalid-setting", 2)

    assert footprint(git, repository) == before


# -- never shared --------------------------------------------------------------------------


def test_thirty_clones_of_two_repositories_made_at_once_get_thirty_blocks(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    other = make_repository(tmp_path / "other")
    places = [repository if number % 3 else other for number in range(30)]

    made = at_once(
        [
            lambda number=number, place=place: run_khlone("new", f"c{number}", cwd=place)  # type: ignore[misc]
            for number, place in enumerate(places)
        ]
    )

    assert [done.code for done in made] == [0] * 30, [done.err for done in made if done.code]
    blocks = [block(place, f"c{number}") for number, place in enumerate(places)]
    given = [port for first, count in blocks for port in range(first, first + count)]
    assert len(set(given)) == len(given) == 300


def hold_two_at_once(state: Path) -> set[int]:
    """Let two clones reserve in the same moment, if anything lets them; returns what they got."""
    both = threading.Barrier(2)
    found: list[int] = []

    def slowly(port: int) -> bool:
        # Both are at the choice at the same time, unless one has to wait for the other.
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=2)
        return True

    def reserve(name: str) -> None:
        folder = state / "repositories" / "r" / "clones" / name
        folder.mkdir(parents=True)
        lease = port_leases.hold(state, folder, repository=state, among=range(20000, 20010), count=1)
        found.append(lease.first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port_leases, "is_free", slowly)
        threads = [threading.Thread(target=reserve, args=(name,)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2
    return set(found)


@contextlib.contextmanager
def unlocked(*_: object, **__: object) -> Iterator[None]:
    """No lock at all."""
    yield


def test_two_that_choose_at_the_same_moment_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(hold_two_at_once(tmp_path / "with")) == 2

    monkeypatch.setattr(flock, "held", unlocked)

    assert len(hold_two_at_once(tmp_path / "without")) == 1, "the lock is what keeps them apart"


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_that_a_program_listens_on_is_not_given(
    khlone: Khlone, repository: Path, family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, 0))
        server.listen()
        taken = server.getsockname()[1]
        allow(repository, taken - 1, min(taken + 40, 65535), 2)

        new(khlone, repository, "one")

    first, count = block(repository, "one")
    assert taken not in range(first, first + count)


def test_a_block_is_refused_rather_than_shared(khlone: Khlone, git: Git, repository: Path, one_block: int) -> None:
    new(khlone, repository, "one")
    before = footprint(git, repository)

    error = refused(khlone("new", "two", "--json", cwd=repository), "no-ports", 75)

    assert error["facts"] == {"first": one_block, "last": one_block + 1, "count": 2}
    assert footprint(git, repository) == before


# -- stable, and given back ----------------------------------------------------------------


def test_a_block_stays_over_rename_and_a_change_of_the_settings(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one")
    before = told(repository, "one")
    allow(repository, 50000, 50100, 4)

    assert khlone("rename", "one", "two", cwd=repository).code == 0

    assert told(repository, "two") == before


def test_a_block_is_free_after_the_removal_and_the_same_after_the_restore(
    khlone: Khlone, repository: Path, one_block: int
) -> None:
    new(khlone, repository, "one")
    assert khlone("remove", "one", cwd=repository).code == 0
    new(khlone, repository, "two")
    assert block(repository, "two") == [one_block, 2]
    assert khlone("remove", "two", cwd=repository).code == 0

    assert khlone("restore", "one", cwd=repository).code == 0

    assert block(repository, "one") == [one_block, 2]
    assert told(repository, "one")["KHLONE_PORT"] == str(one_block)


def test_a_clone_that_comes_back_does_not_take_what_another_has_by_now(
    khlone: Khlone, repository: Path, one_block: int
) -> None:
    new(khlone, repository, "one")
    assert khlone("remove", "one", cwd=repository).code == 0
    new(khlone, repository, "two")
    assert khlone("restore", "one", cwd=repository).code == 0
    second = free_range(4)
    allow(repository, second, second + 3, 2)

    moved = told(repository, "one")

    assert moved["KHLONE_PORT"] != str(one_block)
    assert told(repository, "two")["KHLONE_PORT"] == str(one_block)


def test_blocks_of_the_trash_are_given_last(khlone: Khlone, repository: Path) -> None:
    first = free_range(4)
    allow(repository, first, first + 3, 2)
    new(khlone, repository, "one")
    assert khlone("remove", "one", cwd=repository).code == 0

    new(khlone, repository, "two")
    new(khlone, repository, "three")

    assert block(repository, "two") == [first + 2, 2]
    assert block(repository, "three") == [first, 2]


def test_a_new_that_was_killed_keeps_no_ports(khlone: Khlone, repository: Path, one_block: int) -> None:
    killed = subprocess.run(
        [KHLONE, "new", "lost"],
        cwd=repository,
        env={**os.environ, "KHLONE_FAULT": "create.prepared"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -9

    new(khlone, repository, "one")

    assert block(repository, "one") == [one_block, 2]
    assert clone_names(khlone, repository) == ["one"]


def test_a_repository_that_is_gone_keeps_no_ports(
    khlone: Khlone, repository: Path, one_block: int, tmp_path: Path
) -> None:
    new(khlone, repository, "one")
    other = make_repository(tmp_path / "other")
    allow(other, one_block, one_block + 1, 2)
    refused(khlone("new", "two", "--json", cwd=other), "no-ports", 75)

    shutil.rmtree(repository)

    new(khlone, other, "two")
    assert block(other, "two") == [one_block, 2]


def test_a_clone_without_ports_gets_them_when_it_first_needs_them(khlone: Khlone, git: Git, repository: Path) -> None:
    assert khlone("new", "one", "--agent", "generic", cwd=repository, env={"KHLONE_PLUGINS": "generic"}).code == 0
    git("worktree", "add", "-q", "-b", "linked", "../linked", cwd=repository)
    assert khlone("adopt", "../linked", cwd=repository).code == 0
    assert show(khlone, repository, "one")["ports"] is None

    first, second = told(repository, "one"), told(repository, "linked")

    assert int(first["KHLONE_PORT"]) == block(repository, "one")[0]
    assert int(second["KHLONE_PORT"]) == block(repository, "linked")[0]
    assert first["KHLONE_PORT"] != second["KHLONE_PORT"]


def test_a_damaged_lease_is_replaced(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one")
    lease = port_leases.private_folder(Path(show(khlone, repository, "one")["config_dir"])) / port_leases.LEASE_FILE
    lease.write_text("{")
    assert show(khlone, repository, "one")["ports"] is None

    found = told(repository, "one")

    assert block(repository, "one")[0] == int(found["KHLONE_PORT"])
    assert lease.stat().st_mode & 0o777 == 0o600
