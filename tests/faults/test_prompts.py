"""Nobody is there to answer: signing, credentials and programs that ask on the terminal end, and are not waited for."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, footprint, new, show
from tests.faults.lab import leftovers, open_operations, run
from tests.support import KHLONE, Commit, Git, Khlone

GIT = str(shutil.which("git"))
#: A signing program whose passphrase prompt wants the terminal, and waits for it.
ASKING = '#!/bin/sh\necho asked >> "$ASKED"\nread answer < /dev/tty || exit 2\n'


@pytest.fixture
def signing(git: Git, project: Path, tmp_path: Path) -> Path:
    """A repository whose commits are signed by a program that asks on the terminal."""
    program = tmp_path / "sign"
    program.write_text(ASKING)
    program.chmod(0o755)
    git("config", "gpg.program", str(program), cwd=project)
    return project


def on_a_terminal(*argv: str) -> Sequence[str]:
    """The command with a terminal of its own, on which nobody types."""
    return ("script", "--quiet", "--return", "--command", shlex.join(argv), "/dev/null")


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "none"])
def test_a_signature_that_is_asked_for_on_the_terminal_holds_the_clone_and_nothing_waits(
    khlone: Khlone, git: Git, commit: Commit, signing: Path, tmp_path: Path, terminal: bool
) -> None:
    commit(new(khlone, signing, "a"), {"one.txt": "1\n"}, "one")
    git("config", "commit.gpgSign", "true", cwd=signing)
    before = footprint(git, signing)
    asked = tmp_path / "asked"
    command = (str(KHLONE), "merge", "a")

    done = run(*(on_a_terminal(*command) if terminal else command), cwd=signing, env={"ASKED": str(asked)})

    assert done.code == 1, done
    assert asked.read_text() == "asked\n", "the control: the program did ask"
    assert "sign" in done.out + done.err
    assert footprint(git, signing) == before
    assert open_operations(signing) == []
    assert leftovers(signing) == []


def test_a_removal_signs_nothing(khlone: Khlone, git: Git, signing: Path, tmp_path: Path) -> None:
    (new(khlone, signing, "a") / "new.txt").write_text("new\n")
    git("config", "commit.gpgSign", "true", cwd=signing)
    asked = tmp_path / "asked"

    done = khlone("remove", "--force", "a", cwd=signing, env={"ASKED": str(asked)})

    assert done.code == 0, done.err
    assert not asked.exists()


# -- languages -----------------------------------------------------------------------------

#: A git that speaks another language unless it is asked for plain words; of a value or a version there is no other.
TRANSLATED = f"""#!/bin/sh
if [ "$LC_ALL" = C ]; then exec {GIT} "$@"; fi
case " $* " in *" version "* | *" config "*) exec {GIT} "$@" ;; esac
echo "fatal: Kein Git-Repository (oder irgendein Elternverzeichnis): .git" >&2
exit 128
"""


@pytest.mark.parametrize("language", ["de_DE.UTF-8", "tr_TR.UTF-8", "ja_JP.eucJP", "POSIX", None])
def test_in_every_language_git_is_understood(
    khlone: Khlone, commit: Commit, project: Path, tmp_path: Path, language: str | None
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(TRANSLATED)
    (folder / "git").chmod(0o755)
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LC_ALL": language,
        "LANG": language,
        "LANGUAGE": "de:tr:ja" if language else None,
    }
    commit(new(khlone, project, "a"), {"größe-İı.txt": "1\n"}, "Größe")

    merged = khlone("merge", "a", cwd=project, env=env)
    listed = khlone("list", cwd=project, env=env)
    outside = khlone("list", "--json", cwd=tmp_path, env={**env, "PATH": os.environ["PATH"]})
    removed = khlone("remove", "a", cwd=project, env=env)
    restored = khlone("restore", "a", cwd=project, env=env)
    doctored = khlone("doctor", cwd=project, env=env)

    assert [done.code for done in (merged, listed, removed, restored, doctored)] == [0] * 5, merged.err + doctored.out
    assert outside.json()["code"] == "not-a-repository"
    assert (project / "größe-İı.txt").read_text() == "1\n"
    assert clone_names(khlone, project) == ["a"]
    assert show(khlone, project, "a")["merged"] is True
