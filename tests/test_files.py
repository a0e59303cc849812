"""A file is changed whole, a folder moved or deleted so that nothing else is touched and nothing is lost."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from khlone import files
from khlone.errors import DiskFailed, NoSpace, NotPermitted, OverLimit, StateUnsafe
from tests.commands.steps import tree

LONG = 1 << 20


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(os.lstat(path).st_mode)


# -- changing a file -----------------------------------------------------------------------


def torn_reads(path: Path, write: Callable[[bytes], None]) -> int:
    """How many reads beside fifty writes saw something other than one whole content."""
    contents = [bytes([letter]) * LONG for letter in (65, 66)]
    path.write_bytes(contents[0])
    done, torn = threading.Event(), 0

    def keep_writing() -> None:
        for number in range(50):
            write(contents[number % 2])
        done.set()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    while not done.is_set():
        torn += path.read_bytes() not in contents
    writer.join()
    return torn


def test_a_reader_beside_an_atomic_writer_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "state"

    assert torn_reads(path, lambda content: files.write_atomic(path, content, durable=False)) == 0
    assert torn_reads(path, lambda content: _in_place(path, content)) > 0, "the control must show parts"


def _in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)


ENDLESS = """
import sys
from pathlib import Path
from khlone.files import write_atomic
write = {"atomic": lambda p, c: write_atomic(p, c, durable=False), "plain": Path.write_bytes}[sys.argv[2]]
print("on", flush=True)
while True:
    for letter in b"AB":
        write(Path(sys.argv[1]), bytes([letter]) * (1 << 22))
"""


def contents_after_kills(path: Path, how: str, rounds: int) -> Iterator[bytes]:
    """What a file holds each time its endless writer was killed."""
    for _ in range(rounds):
        path.write_bytes(b"A" * (1 << 22))
        with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path), how], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            before = os.stat(path)
            while (os.stat(path).st_ino, os.stat(path).st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                os.sched_yield()
            writer.kill()
        yield path.read_bytes()


def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    whole = {bytes([letter]) * (1 << 22) for letter in b"AB"}

    assert set(contents_after_kills(tmp_path / "atomic", "atomic", 6)) <= whole
    plain = contents_after_kills(tmp_path / "plain", "plain", 60)
    assert any(content not in whole for content in plain), "the control must show a part"


def test_an_atomic_write_replaces_a_link_and_not_what_it_points_at(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    link = tmp_path / "state"
    link.symlink_to(elsewhere)

    files.write_atomic(link, b"ours")

    assert elsewhere.read_text() == "theirs"
    assert not link.is_symlink()
    assert link.read_bytes() == b"ours"
    assert mode(link) == 0o600


def test_an_atomic_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()

    with pytest.raises(OSError, match="directory"):
        files.write_atomic(tmp_path / "state", b"content")

    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("make", ["file", "folder", "link", "dangling"])
def test_a_new_file_never_takes_a_name_that_is_there(tmp_path: Path, make: str) -> None:
    path, target = tmp_path / "new", tmp_path / "target"
    if make == "file":
        path.write_text("theirs")
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    if make == "link":
        target.write_text("theirs")
    before = tree(tmp_path)

    with pytest.raises(FileExistsError):
        files.write_new(path, b"ours")

    assert tree(tmp_path) == before


def test_a_new_file_that_did_not_fit_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def full(descriptor: int, content: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(descriptor)
        return len(content[:1])

    monkeypatch.setattr(os, "write", full)

    with pytest.raises(OSError, match="No space"):
        files.write_new(tmp_path / "new", b"content")

    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_new(tmp_path / "secret", b"")
        files.write_atomic(tmp_path / "other", b"")
        files.make_private_dir(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert [mode(tmp_path / name) for name in ("secret", "other", "a", "a/b")] == [0o600, 0o600, 0o700, 0o700]


# -- reading -------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        listener.bind("socket")

        for name in ("link", "folder", "fifo", "socket"):
            with pytest.raises(StateUnsafe):
                files.read_regular(tmp_path / name)


def test_a_file_above_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    assert files.read_regular(tmp_path / "file", most=5) == b"12345"
    with pytest.raises(StateUnsafe, match="larger than 4"):
        files.read_regular(tmp_path / "file", most=4)


def test_an_absent_file_reads_as_nothing_also_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert files.read_regular(tmp_path / "absent") is None
    assert files.read_regular(tmp_path / "file" / "below") is None


# -- private folders -----------------------------------------------------------------------


def test_a_private_folder_that_others_may_read_is_tightened(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o755)

    files.make_private_dir(folder)

    assert mode(folder) == 0o700


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_private_folder_that_others_may_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(bits)

    with pytest.raises(StateUnsafe, match="others may write"):
        files.make_private_dir(folder)

    assert mode(folder) == bits


@pytest.mark.parametrize("make", ["file", "link", "fifo"])
def test_a_private_folder_is_never_something_else(tmp_path: Path, make: str) -> None:
    path = tmp_path / "state"
    (tmp_path / "theirs").mkdir(0o755)
    if make == "file":
        path.write_text("")
    elif make == "link":
        path.symlink_to(tmp_path / "theirs")
    else:
        os.mkfifo(path)

    with pytest.raises(StateUnsafe, match="not a folder"):
        files.make_private_dir(path)

    assert mode(tmp_path / "theirs") == 0o755


def test_a_private_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(StateUnsafe, match=f"belongs to user {os.getuid()}"):
        files.make_private_dir(folder)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EFBIG, NoSpace),
        (errno.EACCES, NotPermitted),
        (errno.EPERM, NotPermitted),
        (errno.EROFS, NotPermitted),
        (errno.EIO, DiskFailed),
        (errno.EMFILE, OverLimit),
        (errno.ENOTEMPTY, OSError),
    ],
)
def test_a_plain_cause_becomes_an_error_that_names_the_path(number: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"/some/path"), files.explained(Path("/some/path")):
        raise OSError(number, os.strerror(number), "/some/path")


# -- moving --------------------------------------------------------------------------------


def fill(folder: Path) -> Path:
    """A folder with everything that a worktree may hold."""
    (folder / "src" / "empty").mkdir(parents=True)
    (folder / "src" / "code.py").write_bytes(b"print()\n" * 1000)
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "to-file").symlink_to("src/code.py")
    (folder / "to-folder").symlink_to("src")
    (folder / "dangling").symlink_to("/nowhere")
    os.mkfifo(folder / "fifo", 0o640)
    (folder / os.fsdecode(b"caf\xe9\nline")).write_bytes(b"odd")
    (folder / "closed").mkdir()
    (folder / "closed" / "inside").write_bytes(b"kept")
    (folder / "closed").chmod(0o500)
    return folder


def across(monkeypatch: pytest.MonkeyPatch, one: Path, other: Path) -> None:
    """Let renames between two folders fail as they do between file systems."""
    plain = files._rename

    def rename(source: Path, destination: Path) -> None:
        if source.is_relative_to(one) != destination.is_relative_to(one):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(destination))
        plain(source, destination)

    monkeypatch.setattr(files, "_rename", rename)


class Places:
    """Where a folder is moved from and to."""

    def __init__(self, root: Path) -> None:
        self.one, self.other = root / "one", root / "other"
        for folder in (self.one, self.other):
            folder.mkdir()
        self.source, self.destination = self.one / "work", self.other / "kept"
        self.aside = self.one / ".work.aside"
        self.content = tree(fill(self.source))

    def move(self) -> None:
        """Move, as an operation and as its recovery do."""
        files.move_tree(self.source, self.destination, aside=self.aside)

    def is_moved(self) -> bool:
        """Whether the move ended, with nothing lost and nothing left behind."""
        return (
            tree(self.destination) == self.content
            and list(self.one.iterdir()) == []
            and [path.name for path in self.other.iterdir()] == ["kept"]
        )


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_a_move_on_one_file_system_is_one_rename(places: Places) -> None:
    inode = os.stat(places.source).st_ino

    places.move()
    places.move()

    assert places.is_moved()
    assert os.stat(places.destination).st_ino == inode


def test_a_move_across_file_systems_carries_everything(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    across(monkeypatch, places.one, places.other)
    times = os.stat(places.source / "src" / "code.py").st_mtime_ns

    places.move()

    assert places.is_moved()
    assert os.stat(places.destination / "src" / "code.py").st_mtime_ns == times


@pytest.mark.needs_root
def test_a_move_between_real_mounts_carries_everything(tmp_path: Path, places: Places) -> None:
    mounted = places.other
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", mounted], check=True)
    try:
        places.move()

        assert places.is_moved()
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.mark.needs_root
def test_a_full_disk_stops_a_move_with_the_source_whole(tmp_path: Path, places: Places) -> None:
    (places.source / "big").write_bytes(b"x" * (1 << 20))
    content = tree(places.source)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", places.other], check=True)
    try:
        with pytest.raises(NoSpace), files.explained(places.destination):
            places.move()

        assert tree(places.aside) == content
        assert not places.destination.exists()
    finally:
        subprocess.run(["umount", places.other], check=True)

    places.move()
    assert tree(places.destination) == content


class _Killed(BaseException):
    """Stands for the end of the process."""


STEPS = [
    ("_copy_entry", 1),
    ("_copy_entry", 4),
    ("_copy_facts", 9),
    ("_difference", 1),
    ("sync_file_system", 1),
    ("remove_tree", 1),
    ("rename_new", 2),
    ("rename_new", 3),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "count"), STEPS)
def test_a_move_that_was_killed_at_any_step_is_finished_by_the_next(
    places: Places, monkeypatch: pytest.MonkeyPatch, step: str, count: int, when: str
) -> None:
    across(monkeypatch, places.one, places.other)
    plain: Callable[..., object] = getattr(files, step)
    calls: list[str] = []

    def killed(*args: object, **options: object) -> object:
        calls.append(step)
        if len(calls) == count and when == "before":
            raise _Killed
        result = plain(*args, **options)
        if len(calls) == count:
            raise _Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(files, step, killed)
        with pytest.raises(_Killed):
            places.move()
    places.move()

    assert places.is_moved()


def test_a_move_that_was_killed_while_it_deleted_the_source_is_finished_by_the_next(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    across(monkeypatch, places.one, places.other)
    plain, calls = os.unlink, []

    def killed(path: str, *, dir_fd: int | None = None) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise _Killed
        plain(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        with pytest.raises(_Killed):
            places.move()
    places.move()

    assert places.is_moved()


def test_a_move_never_deletes_its_source_for_a_destination_that_is_not_its_copy(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    across(monkeypatch, places.one, places.other)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_copy_tree", _raise_killed)
        with pytest.raises(_Killed):
            places.move()
    places.destination.mkdir()
    (places.destination / "theirs").write_text("theirs")

    with pytest.raises(StateUnsafe, match=r"\.work\.aside"):
        places.move()

    assert tree(places.aside) == places.content
    assert (places.destination / "theirs").read_text() == "theirs"


def _raise_killed(*_: object) -> None:
    raise _Killed


def test_a_copy_that_differs_is_not_published(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    across(monkeypatch, places.one, places.other)
    plain = files._copy_tree

    def spoiled(source: Path, copy: Path) -> None:
        plain(source, copy)
        path = copy / "src" / "code.py"
        path.write_bytes(path.read_bytes().replace(b"p", b"q"))

    monkeypatch.setattr(files, "_copy_tree", spoiled)

    with pytest.raises(OSError, match="the copy differs"):
        places.move()

    assert tree(places.aside) == places.content
    assert not places.destination.exists()


def test_a_move_onto_a_taken_name_changes_nothing(places: Places) -> None:
    places.destination.mkdir()

    with pytest.raises(FileExistsError):
        places.move()

    assert tree(places.source) == places.content


def test_a_rename_never_replaces_a_folder_that_appears_at_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "taken").mkdir()
    inode = os.stat(tmp_path / "taken").st_ino
    monkeypatch.setattr(files, "exists", lambda _: False)

    with pytest.raises(FileExistsError):
        files.rename_new(tmp_path / "ours", tmp_path / "taken")

    assert os.stat(tmp_path / "taken").st_ino == inode
    monkeypatch.setattr(files, "_exclusive_rename", lambda: None)
    files.rename_new(tmp_path / "ours", tmp_path / "taken")
    assert os.stat(tmp_path / "taken").st_ino != inode, "the control: a plain rename replaces it"


def test_a_system_without_an_exclusive_rename_gets_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir()
    monkeypatch.setattr(files, "_exclusive_rename", lambda: lambda source, destination: errno.EINVAL)

    files.rename_new(tmp_path / "ours", tmp_path / "new")

    assert [path.name for path in tmp_path.iterdir()] == ["new"]


# -- deleting ------------------------------------------------------------------------------


def test_deleting_follows_no_link(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside")
    before = tree(outside)
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "folder").symlink_to(outside)
    (ours / "file").symlink_to(outside / "run.sh")

    files.remove_tree(ours)

    assert not ours.exists()
    assert tree(outside) == before


def test_deleting_a_link_leaves_what_it_points_at(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside")
    before = tree(outside)
    (tmp_path / "link").symlink_to(outside)

    files.remove_tree(tmp_path / "link")

    assert not (tmp_path / "link").is_symlink()
    assert tree(outside) == before


def test_deleting_what_is_not_there_is_done_already(tmp_path: Path) -> None:
    files.remove_tree(tmp_path / "absent")
    files.remove_tree(tmp_path / "absent" / "below")

    assert list(tmp_path.iterdir()) == []


def test_deleting_reaches_below_the_depth_at_which_names_and_descriptors_end(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("level", dir_fd=at)
        below = os.open("level", os.O_RDONLY, dir_fd=at)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
        os.close(at)
        at = below
    os.close(at)

    files.remove_tree(folder)

    assert list(tmp_path.iterdir()) == []


DELETE = "import sys; from pathlib import Path; from khlone.files import remove_tree; remove_tree(Path(sys.argv[1]))"


@pytest.mark.needs_root
def test_deleting_opens_closed_folders_for_a_user_who_is_bound_by_modes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "work")
    (folder / "unreadable").mkdir(0o000)
    (folder / "unlisted").mkdir()
    (folder / "unlisted" / "file").write_text("")
    (folder / "unlisted").chmod(0o300)

    # Without these two even root is bound by the modes of its own files, as anyone is.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    plain = subprocess.run([*bound, "rm", "-rf", str(folder)], check=False, capture_output=True)
    done = subprocess.run([*bound, sys.executable, "-c", DELETE, str(folder)], check=False, capture_output=True)

    assert plain.returncode != 0, "the control: rm does not open what is closed"
    assert done.stderr == b""
    assert not folder.exists()


@pytest.mark.needs_root
def test_deleting_crosses_no_mount_point(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("theirs")
    mounted = tmp_path / "work" / "deep" / "mounted"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=True)
    try:
        (mounted / "file").write_text("theirs")

        with pytest.raises(StateUnsafe, match="mounted"):
            files.remove_tree(tmp_path / "work")

        assert (mounted / "file").read_text() == "theirs"
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_size_counts_what_is_there_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x" * LONG)
    (tmp_path / "work" / "sub").mkdir(parents=True)
    empty = files.tree_size(tmp_path / "work")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "work" / "sub" / "file").write_bytes(b"x" * 8192)

    assert 8192 <= files.tree_size(tmp_path / "work") - empty < LONG
    assert files.tree_size(tmp_path / "absent") == 0


# -- durability ----------------------------------------------------------------------------


@pytest.mark.needs_strace
def test_an_atomic_write_is_on_disk_before_and_after_its_rename(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    code = "import sys, pathlib, khlone.files; khlone.files.write_atomic(pathlib.Path(sys.argv[1]), b'x')"
    traced = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename,renameat,renameat2"]

    subprocess.run([*traced, sys.executable, "-c", code, str(tmp_path / "state")], check=True)

    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if str(tmp_path) in line]
    assert [call.partition("(")[0] for call in calls] == ["fsync", "rename", "fsync"]
    assert ".state." in calls[0]
    assert f"{tmp_path}>" in calls[2]


def test_a_file_system_is_synced_where_there_is_no_syncfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))

    files.sync_file_system(tmp_path)

    assert synced == ["all"]
