"""`agents install claude` makes clones of Claude Code's own worktrees, and goes again byte for byte."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from khlone.testing import Answer, Loopback
from tests.agents import real
from tests.commands.steps import document, new, refused, show
from tests.support import KHLONE, Done, Khlone, make_commit, write

MINE = '{\n    "model": "opus",\n    "hooks": { "Stop": [ {"hooks": []} ] }\n}'


@pytest.fixture
def home() -> Path:
    """The user's config dir of Claude Code."""
    found = Path(os.environ["HOME"], ".claude")
    found.mkdir()
    return found


def install(
    khlone: Khlone, where: Path, action: str = "install", env: dict[str, str | None] | None = None
) -> list[Any]:
    """Put the hooks in, or take them away; what was changed."""
    done = khlone("agents", action, "claude", "--json", cwd=where, env=env)
    return list(document(done, "agents")["changes"])


def call(khlone: Khlone, where: Path, *words: str, **event: object) -> Done:
    """One call of the hook."""
    return khlone("agents", "hook", "claude", *words, cwd=where, input=json.dumps(event))


def commands(home: Path) -> list[str]:
    """What the settings call for worktrees."""
    hooks = json.loads((home / "settings.json").read_bytes())["hooks"]
    return [one["command"] for event in ("WorktreeCreate", "WorktreeRemove") for one in hooks[event][0]["hooks"]]


@pytest.mark.parametrize("text", [None, "{}", '{"model":"opus"}\n', MINE, '{"hooks": {"WorktreeCreate": []}}'])
def test_the_settings_are_what_they_were_when_the_hooks_are_gone(
    khlone: Khlone, repository: Path, home: Path, text: str | None
) -> None:
    place = home / "settings.json"
    if text is not None:
        place.write_text(text)
        place.chmod(0o640)

    put = install(khlone, repository)
    called, mode = commands(home), stat.S_IMODE(place.stat().st_mode)
    again = install(khlone, repository)
    taken = install(khlone, repository, "uninstall")

    assert [one["what"] for one in put] == ["installed"] * 2
    assert [one.split(" agents ")[1] for one in called] == ["hook claude"] * 2
    assert mode == (0o600 if text is None else 0o640)
    assert (again, [one["what"] for one in taken]) == ([], ["removed"] * 2)
    assert (place.read_text() if place.exists() else None) == text
    assert [path.name for path in home.iterdir()] == ([] if text is None else ["settings.json"])
    assert install(khlone, repository, "uninstall") == []


def test_what_the_user_changes_in_between_stays(khlone: Khlone, repository: Path, home: Path) -> None:
    place = home / "settings.json"
    place.write_text(MINE)
    install(khlone, repository)
    place.write_text(place.read_text().replace('"opus"', '"haiku"'))

    install(khlone, repository, "uninstall")

    assert place.read_text() == MINE.replace('"opus"', '"haiku"')


def test_an_older_call_of_khlones_gives_way_and_does_not_come_back(
    khlone: Khlone, repository: Path, home: Path
) -> None:
    hook = {"hooks": [{"type": "command", "command": "/gone/git-khlone agents hook claude"}]}
    (home / "settings.json").write_text(json.dumps({"model": "opus", "hooks": {"WorktreeCreate": [hook]}}))

    install(khlone, repository)
    called = commands(home)
    install(khlone, repository, "uninstall")

    assert len(called) == 2
    assert not any("/gone" in one for one in called)
    assert (home / "settings.json").read_text() == '{"model": "opus"}'


def test_a_link_to_dotfiles_stays_one(khlone: Khlone, repository: Path, home: Path, tmp_path: Path) -> None:
    write(tmp_path / "dotfiles", {"claude.json": MINE})
    (home / "settings.json").symlink_to(tmp_path / "dotfiles/claude.json")

    install(khlone, repository)

    assert (home / "settings.json").is_symlink()
    assert len(commands(home)) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"hooks": []}', '{"hooks": {"WorktreeRemove": "x"}}', "// a\n{}"])
def test_settings_that_are_not_understood_are_left_alone(
    khlone: Khlone, repository: Path, home: Path, text: str
) -> None:
    (home / "settings.json").write_text(text)

    refused(khlone("agents", "install", "claude", "--json", cwd=repository), "unsound-agent-config")

    assert (home / "settings.json").read_text() == text


@pytest.mark.parametrize("words", [("install",), ("install", "codex"), ("install", "claude", "codex"), ("hook",)])
def test_what_cannot_be_meant_is_refused(khlone: Khlone, repository: Path, home: Path, words: tuple[str, ...]) -> None:
    refused(khlone("agents", *words, "--json", cwd=repository), "usage", 2)


@pytest.mark.parametrize(
    "given", ["", "[]", "{", '{"hook_event_name": "Stop"}', '{"hook_event_name": "WorktreeCreate"}']
)
def test_an_event_that_is_none_is_refused(khlone: Khlone, repository: Path, given: str) -> None:
    done = khlone("agents", "hook", "claude", "--json", cwd=repository, input=given)

    refused(done, "usage", 2)


def test_a_session_cannot_put_them_in(khlone: Khlone, repository: Path, home: Path) -> None:
    new(khlone, repository, "one", "--agent", "generic")

    done = khlone("exec", "one", "--", str(KHLONE), "agents", "install", "claude", "--json", cwd=repository)

    assert (done.code, json.loads(done.out)["code"]) == (77, "not-permitted")
    assert not (home / "settings.json").exists()


def test_who_leaves_khlone_leaves_no_hooks_behind(khlone: Khlone, repository: Path, home: Path) -> None:
    (home / "settings.json").write_text(MINE)
    install(khlone, repository)

    shown = document(khlone("uninstall", "--dry-run", "--json", cwd=repository), "uninstall")["removed"]
    still = commands(home)
    done = document(khlone("uninstall", "--json", cwd=repository), "uninstall")["removed"]

    assert {"kind": "agent-hooks", "what": "claude"} in shown
    assert len(still) == 2
    assert {"kind": "agent-hooks", "what": "claude"} in done
    assert (home / "settings.json").read_text() == MINE


def test_hooks_that_cannot_be_taken_out_are_named_when_khlone_goes(
    khlone: Khlone, repository: Path, home: Path
) -> None:
    install(khlone, repository)
    broken = (home / "settings.json").read_text()[:-3]
    (home / "settings.json").write_text(broken)

    done = khlone("uninstall", "--json", cwd=repository)

    assert (home / "settings.json").read_text() == broken
    assert [one["kind"] for one in done.json()["kept"]] == ["agent-hooks"]
    assert done.code == 1


# -- what they do --------------------------------------------------------------------------


def test_a_worktree_that_is_asked_for_is_a_clone_and_the_same_one_again(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    event = {"hook_event_name": "WorktreeCreate", "cwd": str(repository)}

    first = call(khlone, tmp_path, name="agent a:1", **event)
    again = call(khlone, tmp_path, name="agent a:1", **event)

    clone = show(khlone, repository, "agent-a-1")
    assert (first.code, first.out) == (0, f"{clone['path']}\n")
    assert again.out == first.out
    assert (clone["agent"], clone["branch"]) == ("claude", "agent-a-1")


def test_a_worktree_goes_where_nothing_is_lost_by_it(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    path, kept = new(khlone, repository, "one"), new(khlone, repository, "two")
    make_commit(kept, {"work.txt": "work"}, "work")
    event = {"hook_event_name": "WorktreeRemove", "cwd": str(repository)}

    gone = call(khlone, tmp_path, worktree_path=str(path), **event)
    stays = call(khlone, tmp_path, "--json", worktree_path=str(kept), **event)
    foreign = call(khlone, tmp_path, "--json", worktree_path=str(repository), **event)

    assert (gone.code, path.exists()) == (0, False)
    assert [one["name"] for one in document(khlone("trash", "--json", cwd=repository), "trash")["entries"]] == ["one"]
    assert (stays.code, kept.exists()) == (1, True)
    assert "two" in json.loads(stays.out)["message"]
    assert json.loads(foreign.out)["code"] == "no-such-clone"


@pytest.mark.slow
def test_the_real_claude_works_in_a_clone_when_it_is_asked_for_a_worktree(
    khlone: Khlone, repository: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    programs = real.claude(tmp_path_factory.getbasetemp().parent / "agents")
    trusted = {"projects": {str(repository): {"hasTrustDialogAccepted": True, "allowedTools": [], "history": []}}}
    write(home.parent, {".claude.json": json.dumps({"hasCompletedOnboarding": True, **trusted})})
    path = f"{programs}:{KHLONE.parent}:{os.environ['PATH']}"
    install(khlone, repository, env={"PATH": path})
    with Loopback() as api:
        env: dict[str, str | None] = {**api.environment(), "PATH": path, "ANTHROPIC_API_KEY": real.DUMMY_KEY}

        # A clone only to run it from there: the real one works in the worktree that it asks for.
        done = run(["claude", "--worktree", "feature", "-p", "hello"], env, repository)

    clone = show(khlone, repository, "feature")
    assert (done.code, done.out.strip()) == (0, Answer().text), done
    assert not (repository / ".claude").exists()
    (record,) = home.glob("projects/*/*.jsonl")
    assert any(f'"cwd":"{clone["path"]}"' in line for line in record.read_text().splitlines())


def run(words: list[str], env: dict[str, str | None], cwd: Path) -> Done:
    """A program, run as the user would."""
    import subprocess

    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    done = subprocess.run(
        words, env=variables, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)
