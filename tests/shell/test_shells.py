"""Completion, `khlone cd` and the man page, in real shells under a real pseudo-terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.commands.steps import document, new
from tests.support import KHLONE, Git, Khlone, make_repository

SHELLS = {
    "bash": ("bash", "--noprofile", "-i"),
    "zsh": ("zsh", "-i"),
    "fish": ("fish", "-i"),
}
PROMPT = "ready> "
#: Written at the end of each start file: a prompt that can be waited for, and git's own completion.
START = {
    "bash": f"PS1='{PROMPT}'\n. /usr/share/bash-completion/bash_completion\n"
    ". /usr/share/bash-completion/completions/git\nbind 'set enable-bracketed-paste off'\nbind 'set bell-style none'\n",
    "zsh": f"PROMPT='{PROMPT}'\nunsetopt zle_bracketed_paste prompt_sp 2>/dev/null; unset zle_bracketed_paste\n"
    "autoload -Uz compinit && compinit -u -D\nzstyle ':completion:*' menu no\nunsetopt auto_menu list_beep beep\n",
    "fish": f"function fish_prompt; printf '%s' '{PROMPT}'; end\nset -g fish_greeting\n"
    "set -g fish_autosuggestion_enabled 0\nfunction fish_right_prompt; end\n",
}


@pytest.fixture
def project(khlone: Khlone, repository: Path) -> Path:
    """Two clones whose names begin alike with nothing else here, and one in the trash."""
    new(khlone, repository, "zebra-one")
    new(khlone, repository, "unique-name")
    new(khlone, repository, "yesterday")
    assert khlone("remove", "yesterday", cwd=repository).code == 0
    return repository


class Session:
    """A shell in a terminal: type, and read the whole screen text that came back."""

    def __init__(self, shell: str, cwd: Path) -> None:
        environment = {
            **os.environ,
            "PATH": f"{KHLONE.parent}:{os.environ['PATH']}",
            "TERM": "dumb" if shell != "fish" else "xterm",
            "SHELL": shutil.which(shell) or shell,
            "PAGER": "cat",
            "MANPAGER": "cat",
            "HISTFILE": "",
        }
        self.child = pexpect.spawn(
            SHELLS[shell][0],
            list(SHELLS[shell][1:]),
            cwd=str(cwd),
            env=environment,
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 200),
        )
        self.child.expect_exact(PROMPT)

    def run(self, line: str) -> str:
        """Run a line to its end and return what it printed."""
        self.child.send(f"{line}\r")
        self.child.send("echo EN'D'\r")
        self.child.expect("END\r?\n")
        text = str(self.child.before)
        self.child.expect_exact(PROMPT)
        return text

    def offers(self, keys: str, awaited: str) -> bool:
        """Type a line without running it; says whether a text comes on the screen."""
        self.child.send(keys)
        try:
            self.child.expect_exact(awaited, timeout=30)
        except pexpect.TIMEOUT:
            return False
        finally:
            self.child.send("\x15")
        return True

    def close(self) -> None:
        """End the shell."""
        self.child.close(force=True)


def start_file(shell: str) -> Path:
    """Where a shell of this account begins."""
    home = Path(os.environ["HOME"])
    return {
        "bash": home / ".bashrc",
        "zsh": home / ".zshrc",
        "fish": Path(os.environ["XDG_CONFIG_HOME"]) / "fish/config.fish",
    }[shell]


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell."""
    name = str(request.param)
    assert shutil.which(name), f"{name} is not installed"
    return name


@pytest.fixture
def session(shell: str, khlone: Khlone, project: Path) -> Iterator[Session]:
    """A shell that `setup` was made for."""
    start = start_file(shell)
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_text(START[shell])
    if shell == "fish":  # else its first start reads every man page of the machine, beside and after the test
        (Path(os.environ["HOME"]) / ".local/share/fish/generated_completions").mkdir(parents=True, exist_ok=True)
    done = khlone("setup", "--shell", shell, "--yes", cwd=project)
    assert done.code == 0, done
    running = Session(shell, project)
    yield running
    running.close()


@pytest.mark.parametrize("command", ["khlone", "git khlone"])
def test_tab_completes_verbs_names_and_options(session: Session, project: Path, command: str) -> None:
    """Each line works only once its words are whole."""
    clones = project.parent / "project.clones"

    named = session.run(f"{command} pat\t uni\t")
    trashed = session.run(f"{command} restore yes\t")
    listed = session.run(f"{command} list --no-st\t")

    assert str(clones / "unique-name") in named
    assert str(clones / "yesterday") in trashed
    assert "zebra-one" in listed


@pytest.mark.parametrize("command", ["khlone", "git khlone"])
def test_files_are_completed_in_a_command_that_khlone_is_to_run(session: Session, project: Path, command: str) -> None:
    lines = {
        "exec unique-name -- cat first-n\t": "first-needle.txt",
        "slot run one -- cat second-n\t": "second-needle.txt",
        "new later -x cat third-n\t": "third-needle.txt",
    }
    for name in lines.values():
        (project / name).write_text("whole\n")

    assert [session.offers(f"{command} {typed}", whole) for typed, whole in lines.items()] == [True] * len(lines)


def test_tab_asks_the_repository_that_is_named(session: Session, khlone: Khlone, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other one")
    for name in ("walrus-two", "vulture-two", "turtle-two"):
        new(khlone, other, name)
    quoted = str(other).replace(" ", "\\ ")

    assert session.offers(f"khlone -C {quoted} path wal\t", "walrus-two")
    assert session.offers(f"git -C {quoted} khlone path vul\t", "vulture-two")
    assert session.offers(f"git khlone -C {quoted} path tur\t", "turtle-two")


@pytest.mark.parametrize("command", ["khlone", "git khlone"])
def test_tab_completes_what_a_word_or_an_option_takes(session: Session, git: Git, project: Path, command: str) -> None:
    lines = {
        "hook run pre-cr\t": "pre-create",
        "hook run post-sync uni\t": "unique-name",
        "new other --from quar\t": "quartz/deep",
        "new other --from v9-\t": "v9-tag",
        "merge zebra-one --into oni\t": "onion/deep",
        "new other --branch jas\t": "jasper/deep",
        "new other --agent open\t": "opencode",
        "new other --agent tama\t": "tamarind",
        "adopt ./plac\t": "./place/",
    }
    for branch in ("quartz/deep", "onion/deep", "jasper/deep"):
        git("branch", branch, cwd=project)
    git("tag", "v9-tag", cwd=project)
    git("config", "khlone.agents.tamarind.command", "true", cwd=project)
    (project / "place").mkdir()

    offered = {typed: session.offers(f"{command} {typed}", whole) for typed, whole in lines.items()}

    assert offered == dict.fromkeys(lines, True)


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_a_branch_whose_name_is_a_command_is_neither_run_nor_offered(session: Session, git: Git, project: Path) -> None:
    git("branch", "evil$(touch${IFS}ran)", cwd=project)
    git("branch", "evil-twin", cwd=project)

    assert session.offers("khlone new other --from evi\t", "evil-twin")
    assert not (project / "ran").exists()


def test_setup_is_enough_where_zsh_has_no_completion_yet(khlone: Khlone, project: Path) -> None:
    start_file("zsh").write_text(START["zsh"].replace("autoload -Uz compinit && compinit -u -D\n", ""))
    assert khlone("setup", "--shell", "zsh", "--yes", cwd=project).code == 0
    session = Session("zsh", project)

    try:
        named = session.run("khlone pat\t uni\t")
    finally:
        session.close()

    assert str(project.parent / "project.clones" / "unique-name") in named


def test_every_agent_of_khlones_own_is_offered(khlone: Khlone, project: Path) -> None:
    known = document(khlone("agents", "list", "--json", cwd=project), "agents")["agents"]
    script = khlone("completion", "bash", cwd=project).out

    assert isinstance(known, list)
    assert f'@agents) names="{" ".join(sorted(one["name"] for one in known))} $' in script


def test_cd_goes_to_the_clone_and_back_stays_possible(session: Session, project: Path) -> None:
    session.run("khlone cd unique-name")

    shown = session.run("pwd")

    assert str(project.parent / "project.clones" / "unique-name") in shown


def test_new_with_cd_goes_into_the_new_clone(session: Session, project: Path) -> None:
    session.run("khlone new fresh --cd")

    shown = session.run("pwd")

    assert str(project.parent / "project.clones" / "fresh") in shown


def test_the_wrapper_gives_the_exit_code_of_khlone(session: Session) -> None:
    variable = "$status" if "fish" in session.child.command else "$?"

    shown = session.run(f"khlone path nobody; echo code={variable}")

    assert "code=1" in shown


def test_git_khlone_help_shows_the_man_page(session: Session) -> None:
    shown = session.run("git khlone --help | head -n 5")

    assert "GIT-KHLONE(1)" in shown


def test_setup_shows_first_and_remove_leaves_every_file_as_it_was(shell: str, khlone: Khlone, project: Path) -> None:
    start = start_file(shell)
    start.parent.mkdir(parents=True, exist_ok=True)
    start.write_bytes(b"# mine \xff\nexport A=1")
    before = account()

    shown = khlone("setup", "--shell", shell, "--dry-run", cwd=project)
    unasked = khlone("setup", "--shell", shell, cwd=project)
    after_looking = account()
    done = khlone("setup", "--shell", shell, "--yes", cwd=project)
    again = khlone("setup", "--shell", shell, "--yes", cwd=project)
    removed = khlone("setup", "--shell", shell, "--yes", "--remove", cwd=project)

    assert shown.code == 0
    assert "khlone" in shown.out
    assert unasked.code == 77
    assert after_looking == before
    assert done.code == 0
    assert "nothing to change" in again.err
    assert removed.code == 0
    assert account() == before


def account() -> dict[str, bytes]:
    """Every file of the account but caches and state."""
    found = {}
    for base in (os.environ["HOME"], os.environ["XDG_CONFIG_HOME"]):
        for path in sorted(Path(base).rglob("*")):
            if path.is_file():
                found[str(path)] = path.read_bytes()
    return found


def test_a_start_file_that_is_a_link_stays_one(khlone: Khlone, project: Path) -> None:
    dotfiles = Path(os.environ["HOME"]) / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "bashrc").write_text("# mine\n")
    (Path(os.environ["HOME"]) / ".bashrc").symlink_to("dotfiles/bashrc")

    done = khlone("setup", "--shell", "bash", "--yes", cwd=project)

    assert done.code == 0
    assert (Path(os.environ["HOME"]) / ".bashrc").is_symlink()
    assert "khlone" in (dotfiles / "bashrc").read_text()


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_is_legal_in_its_shell(khlone: Khlone, project: Path, tmp_path: Path, name: str) -> None:
    done = khlone("completion", name, cwd=project)
    (tmp_path / "script").write_text(done.out)

    checked = subprocess.run([name, "-n", tmp_path / "script"], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
