"""Which files a shell command names, and where the copies of those that it runs are put."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from khlone.errors import Refusal
from khlone.named_files import MOST_SCRIPT_BYTES, Reading, Worktree, copies, pinned, read
from tests.support import write

PLACE = Path("/P")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A worktree with scripts, files that are only read, and links."""
    tree = tmp_path / "tree"
    scripts = ("scripts/a.sh", "my script.sh", "build", "foo{1}.sh")
    write(tree, dict.fromkeys((*scripts, "scripts/lib.sh", "b.py", "data.txt"), "echo hello\n"))
    for name in scripts:
        (tree / name).chmod(0o755)
    (tree / "in").symlink_to("scripts/a.sh")
    (tree / "out").symlink_to("/bin/sh")
    return tree


def looked_at(command: str, tree: Path) -> Reading:
    """What a command names when it is run in the worktree."""
    return read(command, Worktree(tree), tree, {"PWD": str(tree), "KHLONE_PATH": str(tree)})


@pytest.mark.parametrize(
    ("command", "put"),
    [
        ("./scripts/a.sh x", "/P/0/a.sh x"),
        ("FOO=1 ./in", "FOO=1 /P/0/in"),
        ("true; ./in", "true; /P/0/in"),
        ("if ./in; then ./in; fi", "if /P/0/in; then /P/0/in; fi"),
        ("{ ./in; }", "{ /P/0/in; }"),
        ("(./in)|./in&", "(/P/0/in)|/P/0/in&"),
        ("`./in`", "`/P/0/in`"),
        ('"$(./in)"', '"$(/P/0/in)"'),
        ("sh scripts/lib.sh", "sh /P/0/lib.sh"),
        ("/usr/bin/env python3 -u b.py data.txt", "/usr/bin/env python3 -u /P/0/b.py data.txt"),
        ("timeout 5 sh b.py", "timeout 5 sh /P/0/b.py"),
        ("sh < scripts/lib.sh", "sh < /P/0/lib.sh"),
        (". scripts/lib.sh", ". /P/0/lib.sh"),
        ('"./my script.sh"', "/P/0/script"),
        (r"./my\ script.sh", "/P/0/script"),
        ('./"my script".sh', "/P/0/script"),
        ("./foo{1}.sh", "/P/0/script"),
        ("sh -c './in && python3 b.py'", "sh -c '/P/1/in && python3 /P/0/b.py'"),
        (r'sh -c "sh -c \"./in x\""', r'sh -c "sh -c \"/P/0/in x\""'),
        ("sh -c '$KHLONE_PATH/in'", "sh -c '/P/0/in'"),
        ("cd scripts && ./a.sh", "cd scripts && /P/0/a.sh"),
        ("$PWD/in", "/P/0/in"),
        ('"${KHLONE_PATH}"/scripts/a.sh', "/P/0/a.sh"),
        ("xargs --run=./in", "xargs --run=/P/0/in"),
        ("x -f./in", "x -f/P/0/in"),
        ("echo a#b ./in # ./in", "echo a#b /P/0/in # ./in"),
        ("> scripts/a.sh ./in 2>&1", "> scripts/a.sh /P/0/in 2>&1"),
    ],
)
def test_a_copy_stands_where_the_command_runs_a_file(tree: Path, command: str, put: str) -> None:
    assert pinned(looked_at(command, tree), PLACE) == put


@pytest.mark.parametrize("command", ["npm run build", "build", "cat data.txt", "--f=data.txt", "cat out", "echo b.py"])
def test_a_file_that_is_not_run_is_left_where_it_is(tree: Path, command: str) -> None:
    assert pinned(looked_at(command, tree), PLACE) == command


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("cat data.txt", ["data.txt"]),
        ("x --a=data.txt,b.py", ["b.py", "data.txt"]),
        ("./in", ["in"]),
        ("cat out", ["out"]),
        ("make build", ["build"]),
        ("echo hello /etc/passwd ../x '*.py' $UNKNOWN.py scripts", []),
        ("# data.txt", []),
        ("> data.txt", []),
        ("build", []),
    ],
)
def test_every_file_that_is_named_is_found_and_no_other(tree: Path, command: str, named: list[str]) -> None:
    assert [file.path for file in looked_at(command, tree).files] == named


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("./out -c true", "leads out"),
        ("$(git rev-parse --show-toplevel)/scripts/a.sh", "copy cannot stand"),
        ('"$(git rev-parse --show-toplevel)/scripts/a.sh"', "copy cannot stand"),
        ('"$ROOT"/scripts/a.sh', "copy cannot stand"),
    ],
)
def test_a_script_that_cannot_be_held_is_refused(tree: Path, command: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        looked_at(command, tree)


def test_a_script_that_is_too_large_is_refused_and_read_only_it_is_not(tree: Path) -> None:
    with open(tree / "data.txt", "wb") as stream:
        stream.truncate(MOST_SCRIPT_BYTES + 1)

    (file,) = looked_at("cat data.txt", tree).files

    assert file.sha256 == hashlib.sha256(bytes(MOST_SCRIPT_BYTES + 1)).hexdigest()
    with pytest.raises(Refusal, match="larger"):
        looked_at("sh data.txt", tree)


def test_what_was_read_is_what_is_kept(tree: Path) -> None:
    reading = looked_at("./in data.txt", tree)
    write(tree, {"scripts/a.sh": "other\n"})

    assert dict(reading.scripts) == {"in": b"echo hello\n"}
    assert copies(reading) == {"0/in": "in"}
    assert {file.sha256 for file in reading.files} == {hashlib.sha256(b"echo hello\n").hexdigest()}


@pytest.mark.parametrize("place", ["/a b", "/a'b", "/$a", '/a"b', "/a;b"])
def test_a_place_that_needs_quotes_is_not_put_into_a_command(tree: Path, place: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        pinned(looked_at("./in", tree), Path(place))


QUOTED = [
    "./in",
    '"./in"',
    "'./in'",
    r"./\in",
    '"$PWD"/in',
    "sh -c './in'",
    'sh -c "./in"',
    r'sh -c "\"./in\" x"',
    "`./in`",
]


@pytest.mark.parametrize("command", QUOTED)
def test_sh_runs_the_copy_whatever_the_quotes(tree: Path, tmp_path: Path, command: str) -> None:
    ran = tmp_path / "ran"
    write(tree, {"scripts/a.sh": f"#!/bin/sh\necho original > {ran}\n"})
    (tree / "scripts/a.sh").chmod(0o755)
    place = tmp_path / "place"
    write(place, {"0/in": f"#!/bin/sh\necho copy > {ran}\n"})
    (place / "0/in").chmod(0o755)

    subprocess.run(["sh", "-c", pinned(looked_at(command, tree), place)], cwd=tree, check=True)

    assert ran.read_text() == "copy\n"
