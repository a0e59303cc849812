"""`contention` shows what agents at once do to each other, touches nothing of the user's and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.agents.steps import on_path, program
from tests.commands.steps import document, refused, tree
from tests.commands.test_resources import alive, wait_for
from tests.support import KHLONE, Khlone


@pytest.fixture
def own_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else uses."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_clones_lose_nothing_where_one_config_dir_loses_entries_and_links_log_out(
    khlone: Khlone, tmp_path: Path, own_temp: Path
) -> None:
    mine = tree(Path(os.environ["HOME"]))

    found = document(khlone("contention", "--fake", "-n", "6", "--json", cwd=tmp_path), "contention")

    rows = {row["mode"]: row for row in found["rows"]}
    assert (found["program"], found["version"], found["login"]) == (None, "2.1.252", "store")
    assert rows["shared"]["lost"] > 0
    assert rows["shared"]["lost_per_1000"] == round(1000 * rows["shared"]["lost"] / 6, 1)
    assert (rows["linked"]["lost"], rows["linked"]["logged_out"]) == (0, 5)
    khlones = rows["khlone"]
    assert (khlones["starts"], khlones["lost"], khlones["failed"], khlones["logged_out"]) == (6, 0, 0, 0)
    assert tree(Path(os.environ["HOME"])) == mine
    assert list(own_temp.iterdir()) == []


def test_a_version_that_can_share_no_login_is_said_not_to_be_started(khlone: Khlone, tmp_path: Path) -> None:
    env = {"FAKE_AGENT_VERSION": "2.1.130"}
    folder = tmp_path / "bin"
    # What passes a variable of the caller's on, which contention itself does not.
    fake(folder, env)

    done = khlone("contention", "-n", "2", "--json", cwd=tmp_path, env=on_path(folder))

    (row,) = [row for row in document(done, "contention")["rows"] if row["mode"] == "khlone"]
    assert (row["logged_out"], row["lost"]) == (None, 0)
    assert "key" in row["note"]


def fake(folder: Path, variables: dict[str, str]) -> None:
    """A fake agent of other habits, on PATH."""
    from khlone.testing import install_fake_agent

    inner = install_fake_agent(folder / "inner")
    settings = "; ".join(f"export {name}={value}" for name, value in variables.items())
    program(folder, "claude", f'{settings}; exec "{inner}" "$@"')


def test_the_table_has_a_line_for_each_number_and_way(khlone: Khlone, tmp_path: Path) -> None:
    done = khlone("contention", "--fake", "--sweep", "1, 2", cwd=tmp_path)

    lines = done.out.splitlines()
    assert done.code == 0
    assert [line.split()[0] for line in lines[1:]] == ["1", "1", "1", "2", "2", "2"]
    assert "clones of khlone" in lines[3]


def test_an_agent_that_does_not_start_is_one_line_and_leaves_nothing(
    khlone: Khlone, tmp_path: Path, own_temp: Path
) -> None:
    program(tmp_path / "bin", "claude", "echo it is broken >&2; exit 3")

    found = refused(khlone("contention", "--json", cwd=tmp_path, env=on_path(tmp_path / "bin")), "agent-not-started")

    assert "it is broken" in found["message"]
    assert list(own_temp.iterdir()) == []


def test_a_program_is_named_as_a_shell_has_it(khlone: Khlone, tmp_path: Path) -> None:
    program(tmp_path / "bin", "one", "echo it is the one on PATH >&2; exit 3")
    env = on_path(tmp_path / "bin")

    found = [khlone("contention", "--program", name, "--json", cwd=tmp_path, env=env) for name in ("one", "bin/one")]

    assert all("the one on PATH" in refused(one, "agent-not-started")["message"] for one in found)


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "0"),
        ("-n", "2", "--sweep", "3"),
        ("--sweep", "2,,3"),
        ("--sweep", "0"),
        ("--sweep", "999999999999"),
        ("--sweep", "²"),
        ("--fake", "--program", "x"),
        ("--program", "/nowhere/claude"),
        ("--rounds", "0"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(khlone: Khlone, tmp_path: Path, words: tuple[str, ...]) -> None:
    refused(khlone("contention", *words, "--json", cwd=tmp_path), "usage", 2)


def test_an_interrupt_ends_the_clients_and_leaves_nothing(tmp_path: Path, own_temp: Path) -> None:
    pids = tmp_path / "pids"
    then = (
        'case "$1" in --version) echo 2.1.330;; -p) [ -e "$HOME/.claude.json" ] && { echo $$ >>PIDS; exec sleep 1000; }'
    )
    program(
        tmp_path / "bin", "claude", f"{then.replace('PIDS', str(pids))}; echo '{{}}' >\"$HOME/.claude.json\";; esac"
    )
    env = {**os.environ, **on_path(tmp_path / "bin")}
    words = [str(KHLONE), "contention", "-n", "2"]

    with subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        limit = time.monotonic() + 100
        while not (pids.exists() and len(pids.read_text().split()) == 2):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=100)

    assert child.returncode == 128 + signal.SIGINT, err
    assert b"Traceback" not in err
    assert list(own_temp.iterdir()) == []
    wait_for(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
