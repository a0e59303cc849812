"""A file that another program may be writing is changed without losing either change."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from khlone import files, swap
from khlone.errors import Locked, StateUnsafe


def adding(word: bytes, foreign: Callable[[], None] = lambda: None) -> Callable[[bytes | None], bytes | None]:
    """A change that adds a line; the first time somebody else writes between reading and writing."""
    seen: list[bytes | None] = []

    def change(content: bytes | None) -> bytes | None:
        seen.append(content)
        lines = (content or b"").splitlines()
        if len(seen) == 1:
            foreign()
        return content if word in lines else b"".join(line + b"\n" for line in (*lines, word))

    return change


def writes(path: Path, content: bytes) -> Callable[[], None]:
    """Another program that replaces the file, as programs do, by a rename."""

    def write() -> None:
        files.write_atomic(path, content, durable=False)

    return write


def test_a_change_made_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\n")

    swap.update(path, adding(b"mine", writes(path, b"one\nforeign\n")))

    assert path.read_bytes() == b"one\nforeign\nmine\n"
    assert os.listdir(tmp_path) == ["f"]


def test_a_plain_replacement_would_lose_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\n")
    change = adding(b"mine", writes(path, b"one\nforeign\n"))

    files.write_atomic(path, change(path.read_bytes()) or b"")

    assert b"foreign" not in path.read_bytes()


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "f"

    swap.update(path, adding(b"mine", writes(path, b"foreign\n")))

    assert path.read_bytes() == b"foreign\nmine\n"


@pytest.mark.parametrize("has_exchange", [True, False])
def test_the_mode_and_the_links_of_the_user_stay(
    tmp_path: Path, has_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_exchange:
        monkeypatch.setattr(swap, "_exchanger", lambda: None)
    (tmp_path / "real").write_bytes(b"one\n")
    (tmp_path / "real").chmod(0o644)
    (tmp_path / "middle").symlink_to("real")
    (tmp_path / "f").symlink_to(tmp_path / "middle")

    assert swap.update(tmp_path / "f", adding(b"mine"))

    assert (tmp_path / "real").read_bytes() == b"one\nmine\n"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o644
    assert sorted(os.listdir(tmp_path)) == ["f", "middle", "real"]
    assert (tmp_path / "f").is_symlink()


def test_nothing_to_change_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"mine\n")
    before = path.stat()

    assert not swap.update(path, adding(b"mine"))

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_lock_of_the_program_is_waited_for_and_never_made(tmp_path: Path) -> None:
    path, lock = tmp_path / "f", tmp_path / "f.lock"
    path.write_bytes(b"one\n")
    lock.mkdir()
    asked = threading.Event()
    is_held = []

    def change(content: bytes | None) -> bytes | None:
        is_held.append(lock.exists())
        return adding(b"mine")(content)

    def leave() -> None:
        assert asked.wait(60)
        lock.rmdir()

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(Locked):
        swap.update(path, change, locks=[lock], wait_s=0.2)
    asked.set()
    thread.join(60)

    assert swap.update(path, change, locks=[lock])

    assert is_held == [False]
    assert sorted(os.listdir(tmp_path)) == ["f"]


def test_a_lock_that_a_crash_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "f.lock").mkdir()
    os.utime(tmp_path / "f.lock", (1, 1))

    swap.update(tmp_path / "f", adding(b"mine"), locks=[tmp_path / "f.lock"], wait_s=30)

    assert (tmp_path / "f").read_bytes() == b"mine\n"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()

    with pytest.raises(StateUnsafe):
        swap.update(tmp_path / "f", adding(b"mine"))

    assert os.listdir(tmp_path) == ["f"]


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    words = [f"w{number}".encode() for number in range(6)]
    threads = [threading.Thread(target=swap.update, args=(path, adding(word))) for word in words]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert set(path.read_bytes().splitlines()) == set(words)
