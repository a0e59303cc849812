"""What is said of a file system is what the kernel's list of mounts says, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from khlone import mounts


def table(tmp_path: Path, *lines: tuple[str, str]) -> Path:
    """A mountinfo file: (mount point as the kernel writes it, type)."""
    path = tmp_path / "mountinfo"
    path.write_text(
        "".join(
            f"{number} 1 0:{number} / {point} rw,relatime shared:1 - {kind} some:/where rw,vers=4\n"
            for number, (point, kind) in enumerate(lines, start=20)
        )
    )
    return path


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "lustre"])
def test_a_network_file_system_is_recognized(tmp_path: Path, kind: str) -> None:
    found = table(tmp_path, ("/", "ext4"), ("/srv/shared", kind))

    assert mounts.network_type(Path("/srv/shared/project/.git"), table=found) == kind
    assert mounts.network_type(Path("/srv/shared"), table=found) == kind
    assert mounts.network_type(Path("/srv/shared-not"), table=found) is None
    assert mounts.network_type(Path("/srv"), table=found) is None


@pytest.mark.parametrize(("written", "name"), [(r"\040", " "), (r"\011", "\t"), (r"\134", "\\"), (r"\012", "\n")])
def test_a_mount_point_with_odd_letters_is_recognized(tmp_path: Path, written: str, name: str) -> None:
    found = table(tmp_path, ("/", "ext4"), (f"/srv/our{written}disk", "nfs4"))

    assert mounts.network_type(Path(f"/srv/our{name}disk/project"), table=found) == "nfs4"
    assert mounts.network_type(Path("/srv/our"), table=found) is None


def test_the_innermost_and_last_mount_decides(tmp_path: Path) -> None:
    inner = table(tmp_path, ("/", "nfs4"), ("/srv/local", "ext4"))
    assert mounts.network_type(Path("/srv/local/a"), table=inner) is None
    assert mounts.network_type(Path("/srv/a"), table=inner) == "nfs4"

    over = table(tmp_path, ("/", "ext4"), ("/srv", "ext4"), ("/srv", "cifs"))
    assert mounts.network_type(Path("/srv/a"), table=over) == "cifs"


def test_without_a_table_of_mounts_or_with_an_odd_one_nothing_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\nfew words\n1 2 3 4 /srv - \n")

    assert mounts.network_type(tmp_path, table=tmp_path / "absent") is None
    assert mounts.network_type(Path("/srv"), table=tmp_path / "odd") is None
