"""The guide for agents tells the truth: all of its commands are run, and its tables are those of the contract."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone.parser import VERBS
from tests.commands.steps import refused
from tests.support import KHLONE, ROOT, Git, Khlone, make_commit, make_repository

GUIDE = (ROOT / "docs/agents.md").read_text(encoding="utf-8")
SKILL = (ROOT / "skills/khlone/SKILL.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"### ([^\n]*)\n(?:(?!\n### ).)*?```sh\n(.*?)```", GUIDE, re.DOTALL))


def shell(script: str, cwd: Path) -> subprocess.Popen[str]:
    """A shell that stops at the first command that fails."""
    environment = {**os.environ, "PATH": f"{KHLONE.parent}:{os.environ['PATH']}"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(["sh", "-ec", script], cwd=cwd, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def run(heading: str, cwd: Path) -> str:
    """What the commands below a heading print; they must end well."""
    child = shell(BLOCKS[heading], cwd)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0, (heading, out)
    return str(out)


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The rows of the tables of so many columns."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns and not set(cells[0]) <= set("-"):
            yield cells


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The repository that the guide works in."""
    return make_repository(tmp_path / "shop")


def test_every_command_of_the_guide_runs(shop: Path, git: Git, khlone: Khlone) -> None:
    begun = run("Start, work, look", shop)
    landed = run("Bring it back", shop)
    make_commit(shop, {"login.txt": "another\n"}, "on the target")
    make_commit(shop.parent / "shop.clones/fix-login", {"login.txt": "mine\n"}, "in the clone")
    held = khlone("merge", "fix-login", "--json", cwd=shop)
    settled = run("When a merge is held", shop)
    waited = subprocess_after_75(shop, khlone)

    assert begun.count(str(shop.parent / "shop.clones/fix-login")) >= 2
    assert '"state": "ready"' in begun
    assert "fix-login is in the trash" in landed
    assert (held.code, held.json()["held"][0]["code"]) == (4, "conflict")
    assert "it waits in" in settled
    assert git("show", "main:login.txt", cwd=shop) == "settled\n"
    assert "landed on main" in waited
    assert set(BLOCKS) == {"Start, work, look", "Bring it back", "Wait", "When a merge is held"}
    assert GUIDE.count("```sh") == len(BLOCKS)


def subprocess_after_75(shop: Path, khlone: Khlone) -> str:
    """What the commands for waiting print when another command holds the clone at first."""
    make_commit(shop.parent / "shop.clones/fix-login", {"more.txt": "more\n"}, "more")
    stopped = {**os.environ, "KHLONE_FAULT": "remove.reserved:stop"}
    with subprocess.Popen([KHLONE, "remove", "--force", "fix-login"], cwd=shop, env=stopped) as holder:
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        waiting = shell(BLOCKS["Wait"].replace('sleep "$pause"', 'echo "busy: $code"; sleep "$pause"'), shop)
        assert waiting.stdout is not None
        lines = []
        for line in waiting.stdout:
            lines.append(line)
            if line == "busy: 75\n":
                break
        holder.kill()
        holder.send_signal(signal.SIGCONT)
        holder.wait(timeout=60)
        assert khlone("restore", "fix-login", cwd=shop).code == 0
        rest, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, (lines, rest)
    return "".join(lines) + str(rest)


def test_the_exit_codes_are_those_of_the_contract() -> None:
    documented = {code for code, *_ in rows(ERRORS.partition("## Codes")[0], 2)}
    told = {code for code, *_ in rows(GUIDE.partition("### Wait")[0], 3)}

    assert told == documented
    assert {"75", "77", "128+n"} < told


def test_what_holds_a_merge_has_the_exit_code_that_is_told() -> None:
    documented = {code: number for code, number, *_ in rows(ERRORS, 4)}

    told = {code: number for code, number, _ in rows(GUIDE.partition("### When a merge is held")[2], 3)}

    assert len(told) == 9  # the head too
    assert told.items() - {("code", "exit")} <= documented.items()


def test_the_guide_names_no_verb_that_does_not_exist_and_warns_of_what_destroys() -> None:
    named = set(re.findall(r"\bgit khlone ([a-z]+)", GUIDE))

    assert named <= set(VERBS)
    assert {"new", "path", "exec", "merge", "list", "sync", "remove", "restore"} <= named
    for words in ("git worktree remove", "rm -rf", "--force"):
        assert words in GUIDE


def test_the_skill_is_the_guide_with_its_front_matter() -> None:
    _, head, text = SKILL.split("---\n", 2)

    keys = dict(line.split(": ", 1) for line in head.splitlines())
    assert keys["name"] == "khlone" == (ROOT / "skills/khlone/SKILL.md").parent.name
    assert set(keys) == {"name", "description"}
    assert 0 < len(keys["description"]) <= 1024
    assert text == f"\n{GUIDE}"


# -- `help` -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "text"), [(["agents"], GUIDE), (["agents", "--skill"], SKILL)])
def test_the_guide_is_printed_anywhere(words: list[str], text: str, khlone: Khlone, tmp_path: Path) -> None:
    plain = khlone("help", *words, cwd=tmp_path)
    asked = khlone("help", *words, "--json", cwd=tmp_path)

    assert (plain.code, plain.out, plain.err) == (0, text, "")
    assert asked.json() == {"schema": "khlone.help/1", "command": "git khlone help agents", "text": text}


@pytest.mark.parametrize("verb", ["new", "merge", "help"])
def test_help_of_a_verb_is_what_the_verb_says(verb: str, khlone: Khlone, tmp_path: Path) -> None:
    for form in ([], ["--json"]):
        assert khlone("help", verb, *form, cwd=tmp_path).out == khlone(verb, "--help", *form, cwd=tmp_path).out


def test_help_alone_is_the_help_of_the_command(khlone: Khlone, tmp_path: Path) -> None:
    for form in ([], ["--json"]):
        assert khlone("help", *form, cwd=tmp_path).out == khlone("-h", *form, cwd=tmp_path).out


def test_help_about_nothing_says_what_was_meant(khlone: Khlone, tmp_path: Path) -> None:
    found = refused(khlone("help", "mergge", "--json", cwd=tmp_path), "usage", 2)

    assert found["hint"] == "did you mean merge?"
    assert refused(khlone("help", "agent", "--json", cwd=tmp_path), "usage", 2)["hint"] == "did you mean agents?"
    refused(khlone("help", "merge", "--skill", "--json", cwd=tmp_path), "usage", 2)
