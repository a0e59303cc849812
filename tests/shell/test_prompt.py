"""The name of the clone in the prompt of real shells, without a process started for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands.steps import new
from tests.shell.test_shells import PROMPT, SHELLS, START, Session, start_file
from tests.support import Khlone, write

#: How each start file uses it, as the man page says.
USE = {
    "bash": f"PROMPT_COMMAND=khlone_prompt\nPS1='${{khlone_clone:+($khlone_clone) }}{PROMPT}'\n",
    "zsh": "precmd_functions+=(khlone_prompt)\nsetopt prompt_subst\n"
    f"PROMPT='${{khlone_clone:+($khlone_clone) }}{PROMPT}'\n",
    "fish": "function fish_prompt; khlone_prompt; set -q khlone_clone[1]; and printf '(%s) ' $khlone_clone; "
    f"printf '%s' '{PROMPT}'; end\n",
}
STATUS = {"bash": "$?", "zsh": "$?", "fish": "$status"}


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell."""
    name = str(request.param)
    assert shutil.which(name), f"{name} is not installed"
    return name


@pytest.fixture
def script(shell: str, khlone: Khlone, repository: Path) -> Path:
    """What `setup` puts into the shell, without what only a terminal has."""
    path = repository.parent / f"khlone.{shell}"
    path.write_text(khlone("completion", shell, cwd=repository).out)
    return path


def run(shell: str, script: Path, text: str, *, cwd: Path) -> list[str]:
    """The lines that a text prints in a shell that has the script."""
    quiet = {"bash": "complete() { :; }; ", "zsh": "", "fish": ""}[shell]
    done = subprocess.run(
        [shell, "-c", f"{quiet}source '{script}'\n{text}"], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def shown(shell: str, script: Path, where: Path, before: str = "") -> str:
    """What the prompt would show in a folder."""
    return run(shell, script, f'{before}\nkhlone_prompt\necho "[$khlone_clone]"', cwd=where)[0][1:-1]


def test_the_prompt_names_the_clone_and_follows_where_one_goes(shell: str, khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "feature/one")
    start = start_file(shell)
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(START[shell])
    assert khlone("setup", "--shell", shell, "--yes", cwd=repository).code == 0
    with start.open("a") as stream:
        stream.write(USE[shell])

    session = Session(shell, repository)
    try:
        session.child.send("khlone cd feature/one\r")
        session.child.expect_exact(f"(feature/one) {PROMPT}")
        session.child.send("cd src\r")
        session.child.expect_exact(f"(feature/one) {PROMPT}")
        session.child.send("cd /\r")
        session.child.expect(f"[^)][^)] ?[^)]{PROMPT}")
    finally:
        session.close()


def test_the_name_is_that_of_the_folder_else_of_the_session_else_nothing(
    shell: str, script: Path, khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    clone = new(khlone, repository, "one")
    session = "set -gx KHLONE_NAME of-session" if shell == "fish" else "export KHLONE_NAME=of-session"

    assert shown(shell, script, clone / "src") == "one"
    assert shown(shell, script, clone, session) == "one"
    assert shown(shell, script, tmp_path, session) == "of-session"
    assert shown(shell, script, repository) == ""
    assert shown(shell, script, Path("/")) == ""


def test_what_is_no_clone_or_damaged_shows_nothing_and_complains_of_nothing(
    shell: str, script: Path, tmp_path: Path
) -> None:
    hostile = '{"id": "01", "name": "$(touch pwned)%n\\\\[", "branch": "x"}\n'
    write(
        tmp_path,
        {
            "empty/.git": "",
            "gone/.git": "gitdir: /no/such/place\n",
            "relative/.git": "gitdir: ../admin\n",
            "hostile/.git": "gitdir: ../hostile-admin\n",
            "admin/khlone.json": '{"id": "01", "name": "by-a-relative-path"}\n',
            "hostile-admin/khlone.json": hostile,
            "bytes/.git": b"\xff\0\xfe\n",
        },
    )

    found = {name: shown(shell, script, tmp_path / name) for name in ("empty", "gone", "hostile", "relative")}

    assert found == {"empty": "", "gone": "", "hostile": "", "relative": "by-a-relative-path"}
    assert not list(tmp_path.rglob("pwned"))


def test_the_status_of_the_last_command_stays(shell: str, script: Path, repository: Path) -> None:
    assert run(shell, script, f"false\nkhlone_prompt\necho {STATUS[shell]}", cwd=repository) == ["1"]


def started(shell: str, script: Path, text: str, where: Path) -> int:
    """How many processes a shell starts for a text."""
    log = script.with_suffix(".trace")
    subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-o",
            log,
            "-e",
            "trace=fork,vfork,clone,clone3",
            shell,
            "-c",
            f"source '{script}'\n{text}",
        ],
        cwd=where,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return sum(
        "(" in line and "CLONE_THREAD" not in line and "resumed" not in line for line in log.read_text().splitlines()
    )


@pytest.mark.needs_strace
def test_no_process_is_started_for_the_prompt(shell: str, script: Path, khlone: Khlone, repository: Path) -> None:
    clone = new(khlone, repository, "one")

    none = started(shell, script, "true", clone)
    prompts = started(shell, script, "khlone_prompt\n" * 5, clone)
    control = started(shell, script, "command ls >/dev/null\n" * 5 + "true", clone)

    assert prompts == none
    assert control >= none + 5
