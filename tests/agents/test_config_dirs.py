"""What the config dir of a clone gets of the user's own, how it is logged in, and which key it works with."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agents.steps import environment, inside, on_path, program, user_settings
from tests.agents.test_profiles import block
from tests.commands.steps import document, new, refused, show
from tests.support import KHLONE, Khlone, write

GOOD: dict[str, Any] = {
    "hasCompletedOnboarding": True,
    "theme": "dark",
    "mcpServers": {"docs": {"command": "docs"}},
    "projects": {"/elsewhere": {"history": ["a prompt"]}},
}
CANARY = "sk-ant-canary-8d1f0b77"


@pytest.fixture
def home() -> Path:
    """The home of a user who has used Claude Code."""
    found = Path(os.environ["HOME"])
    write(found, {".claude.json": json.dumps(GOOD), ".claude/settings.json": '{"model": "opus"}'})
    return found


def config_dir(khlone: Khlone, where: Path, name: str) -> Path:
    """The config dir of a clone."""
    return Path(show(khlone, where, name)["config_dir"])


def claude(folder: Path, version: str, then: str = "true") -> dict[str, str]:
    """The environment in which `claude` is a program of that version."""
    program(folder, "claude", f'[ "$1" = --version ] && exec echo "{version} (Claude Code)"\n{then}')
    return on_path(folder)


def state(where: Path) -> dict[str, Any]:
    """The `.claude.json` of a config dir."""
    return dict(json.loads((where / ".claude.json").read_bytes()))


def states() -> Path:
    """Where khlone keeps the user's things."""
    return Path(os.environ["XDG_STATE_HOME"], "khlone")


# -- items ---------------------------------------------------------------------------------


def test_plugins_are_copied_and_lead_nowhere_back(khlone: Khlone, repository: Path, home: Path) -> None:
    plugins = home / ".claude/plugins"
    installed = {"plugins": {"a": [{"installPath": str(plugins / "cache/a"), "note": f"see {plugins}"}]}}
    write(plugins, {"installed_plugins.json": json.dumps(installed), "cache/a/run.sh": "#!/bin/sh\n"})
    (plugins / "cache/a/run.sh").chmod(0o755)
    (plugins / "cache/b").symlink_to("a")
    (plugins / "outside").symlink_to(home / ".claude/settings.json")
    new(khlone, repository, "one", "--agent", "claude")

    found = config_dir(khlone, repository, "one") / "plugins"

    entry = json.loads((found / "installed_plugins.json").read_bytes())["plugins"]["a"][0]
    assert entry == {"installPath": str(found / "cache/a"), "note": f"see {plugins}"}
    assert stat.S_IMODE((found / "cache/a/run.sh").stat().st_mode) == 0o700
    assert (found / "cache/b/run.sh").read_text() == "#!/bin/sh\n"
    assert (found / "cache/b").resolve() == (found / "cache/a").resolve()
    assert (found / "outside").readlink() == home / ".claude/settings.json"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert list(found.parent.glob(".plugins.*")) == []


def test_an_agent_of_settings_alone_copies_and_links(khlone: Khlone, repository: Path, home: Path) -> None:
    user_settings(block("toml"))
    write(home / ".fir", {"settings.json": '{"a": 1}', "prompts/one.md": "hello", "sessions/1": "private"})

    new(khlone, repository, "one", "--agent", "fir")

    found = config_dir(khlone, repository, "one")
    assert sorted(os.listdir(found)) == ["prompts", "settings.json"]
    assert (found / "prompts").readlink() == home / ".fir/prompts"
    assert (found / "settings.json").read_text() == '{"a": 1}'
    assert not (found / "settings.json").is_symlink()
    assert environment(khlone, repository, "one")["FIR_UPDATE"] == "off"


def test_a_plugin_of_thirty_lines_does_the_same(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    write(
        site,
        {
            "grove.py": block("python"),
            "grove-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: grove\nVersion: 1\n",
            "grove-1.dist-info/entry_points.txt": "[khlone]\ngrove = grove\n",
        },
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    write(home / ".grove", {"settings.json": "{}", "prompts/one.md": "hello", "sessions/1": "private"})

    new(khlone, repository, "one", "--agent", "grove")

    found = config_dir(khlone, repository, "one")
    assert sorted(os.listdir(found)) == ["prompts", "settings.json"]
    seen = inside(khlone, repository, "one", {"GROVE_SESSION": "outer"})
    assert (seen["GROVE_HOME"], seen.get("GROVE_SESSION")) == (str(found), None)


def test_an_agent_in_a_clone_makes_clones_of_the_users_config(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    write(mine, {".claude.json": json.dumps({**GOOD, "theme": "user"})})
    done = khlone("new", "outer", "--agent", "claude", cwd=repository, env={"CLAUDE_CONFIG_DIR": str(mine)})
    assert done.code == 0, done.err
    outer = config_dir(khlone, repository, "outer")
    (outer / ".claude.json").write_text(json.dumps({**GOOD, "theme": "clone"}))

    words = ("exec", "outer", "--", str(KHLONE), "new", "inner", "--agent", "claude")
    done = khlone(*words, cwd=repository, env={"CLAUDE_SECURESTORAGE_CONFIG_DIR": None})

    assert done.code == 0, done.err
    assert state(config_dir(khlone, repository, "inner"))["theme"] == "user"
    stores = [environment(khlone, repository, name)["CLAUDE_SECURESTORAGE_CONFIG_DIR"] for name in ("outer", "inner")]
    assert stores == [str(mine)] * 2


# -- seeds ---------------------------------------------------------------------------------

BAD = {
    "empty": b"",
    "blank": b"\n",
    "cut off": json.dumps(GOOD).encode()[:60],
    "no object": b"[]",
    "reset": b'{"numStartups": 1, "userID": "x"}',
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_lost_its_content_seeds_no_clone(khlone: Khlone, repository: Path, home: Path, kind: str) -> None:
    new(khlone, repository, "before", "--agent", "claude")
    (home / ".claude.json").write_bytes(BAD[kind])

    done = khlone("new", "after", "--agent", "claude", cwd=repository)

    assert done.code == 0
    assert "the last good copy is used" in done.err
    found = state(config_dir(khlone, repository, "after"))
    assert (found["theme"], found["mcpServers"]) == ("dark", GOOD["mcpServers"])
    assert (home / ".claude.json").read_bytes() == BAD[kind], "the user's file is the user's"


def test_a_fresh_user_is_not_told_of_a_reset(khlone: Khlone, repository: Path, home: Path) -> None:
    (home / ".claude.json").write_bytes(BAD["reset"])

    done = khlone("new", "one", "--agent", "claude", cwd=repository)

    assert (done.code, done.err.count("warning")) == (0, 0)
    assert state(config_dir(khlone, repository, "one"))["userID"] == "x"


def test_good_copies_are_private_and_few(khlone: Khlone, repository: Path, home: Path) -> None:
    for number in range(8):
        content = {**GOOD, "theme": f"t{number}", "mcpServers": {f"s{number % 2}": {}}}
        if number % 2:
            del content["hasCompletedOnboarding"]
        (home / ".claude.json").write_text(json.dumps(content))
        new(khlone, repository, f"c{number}", "--agent", "claude")

    copies = list(states().glob("agents/claude/*/*.json"))

    assert 1 <= len(copies) <= 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in copies} == {0o700}
    assert json.loads(sorted(copies)[-1].read_bytes())["theme"] == "t7"


# -- logging in ----------------------------------------------------------------------------


def test_an_old_version_is_logged_in_by_a_link_that_is_put_back(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path
) -> None:
    env = claude(tmp_path / "bin", "2.1.117")
    credentials = home / ".claude/.credentials.json"
    credentials.write_text("users")
    new(khlone, repository, "one", "--agent", "claude")
    place = config_dir(khlone, repository, "one") / ".credentials.json"

    environment(khlone, repository, "one", env)
    first = place.readlink()
    place.unlink()
    place.write_text("fresh login in the clone")
    done = khlone("exec", "one", "--", "claude", "-p", "x", cwd=repository, env=env)

    assert (first, place.readlink()) == (credentials, credentials)
    assert done.code == 0
    (kept,) = place.parent.glob(".credentials.json.*")
    assert kept.read_text() == "fresh login in the clone"
    assert str(kept) in done.err
    assert credentials.read_text() == "users"


def test_a_newer_version_finds_no_link_that_it_would_replace(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path
) -> None:
    new(khlone, repository, "one", "--agent", "claude")
    place = config_dir(khlone, repository, "one") / ".credentials.json"
    environment(khlone, repository, "one", claude(tmp_path / "old", "2.1.117"))
    was_there = place.is_symlink()

    environment(khlone, repository, "one", claude(tmp_path / "new", "2.1.330"))

    assert was_there
    assert not place.is_symlink()


@pytest.mark.parametrize("version", ["2.1.118", "2.1.144"])
def test_a_version_that_would_log_others_out_is_refused_without_a_token(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path, version: str
) -> None:
    env = claude(tmp_path / "bin", version, "echo ran")
    new(khlone, repository, "one", "--agent", "claude")
    words = ("exec", "one", "--json", "--", "claude", "-p", "x")

    without = refused(khlone(*words, cwd=repository, env=env), "agent-needs-key")
    with_token = khlone(*words, cwd=repository, env={**env, "CLAUDE_CODE_OAUTH_TOKEN": "t"})
    another = khlone("exec", "one", "--", "echo", "fine", cwd=repository, env=env)

    assert "CLAUDE_CODE_OAUTH_TOKEN" in without["hint"]
    assert document(with_token, "exec")["results"][0]["stdout"] == "ran\n"
    assert another.out == "fine\n"


# -- keys ----------------------------------------------------------------------------------


def test_an_inherited_key_is_taken_away_and_told_of_once(khlone: Khlone, repository: Path, home: Path) -> None:
    new(khlone, repository, "one", "--agent", "claude")
    new(khlone, repository, "two", "--agent", "claude")
    env = {"ANTHROPIC_API_KEY": CANARY, "ANTHROPIC_AUTH_TOKEN": "t"}
    script = ("sh", "-c", "echo ${ANTHROPIC_API_KEY-none} ${ANTHROPIC_AUTH_TOKEN-none}")

    first = khlone("exec", "one", "--", *script, cwd=repository, env=env)
    second = khlone("exec", "two", "--", *script, cwd=repository, env=env)

    assert (first.out, second.out) == ("none none\n", "none none\n")
    assert "ANTHROPIC_API_KEY" in first.err
    assert CANARY not in first.err
    assert second.err == ""


def test_an_inherited_key_that_is_chosen_is_passed_on(khlone: Khlone, repository: Path, home: Path) -> None:
    user_settings("[agents.claude]\ninherit-key = true\n")
    new(khlone, repository, "one", "--agent", "claude")

    found = inside(khlone, repository, "one", {"ANTHROPIC_API_KEY": CANARY})

    assert found["ANTHROPIC_API_KEY"] == CANARY


def test_another_agent_keeps_what_is_inherited(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one", "--agent", "generic")

    assert inside(khlone, repository, "one", {"ANTHROPIC_API_KEY": CANARY})["ANTHROPIC_API_KEY"] == CANARY


@pytest.mark.parametrize("way", ["file", "command"])
def test_a_key_of_its_own_reaches_the_program_and_nothing_else(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    (tmp_path / "key").chmod(0o600)
    source = ("--file", "key") if way == "file" else ("--command", f"cat '{tmp_path}/key'")
    new(khlone, repository, "one", "--agent", "claude")
    new(khlone, repository, "two", "--agent", "claude")

    assigned = khlone("agents", "key", "one", *source, "--json", "-C", str(tmp_path), cwd=repository)
    assert assigned.code == 1, "that folder is no repository"
    source = ("--file", str(tmp_path / "key")) if way == "file" else source
    done = document(khlone("agents", "key", "one", *source, "--json", cwd=repository), "agents")
    found = [inside(khlone, repository, name).get("ANTHROPIC_API_KEY") for name in ("one", "two")]
    shown = [khlone(*words, cwd=repository) for words in (("env", "one"), ("show", "one"), ("log",), ("doctor",))]
    lines = command_lines(repository)

    assert [change["what"] for change in done["changes"]] == ["assigned"]
    assert found == [CANARY, None]
    assert not [one for one in shown if CANARY in one.out + one.err]
    assert CANARY.encode() not in lines
    assert b"khlone-canary-sleeper" in lines
    assert holding(states(), CANARY) == holding(repository / ".git", CANARY) == []


def command_lines(repository: Path) -> bytes:
    """The command lines of everything that runs while a command runs in the clone."""
    words = [str(KHLONE), "exec", "one", "--", "sh", "-c", "echo up; read line; : khlone-canary-sleeper"]
    with subprocess.Popen(words, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        found = b""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += path.read_bytes()
            except OSError:
                continue
        child.communicate(b"\n", timeout=60)
    return found


def holding(folder: Path, text: str) -> list[Path]:
    """The files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_key_is_read_anew_and_can_be_taken_away(khlone: Khlone, repository: Path, home: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")
    key.chmod(0o600)
    new(khlone, repository, "one", "--agent", "claude")
    khlone("agents", "key", "one", "--file", str(key), cwd=repository)

    key.write_text("second")
    second = inside(khlone, repository, "one", {"ANTHROPIC_API_KEY": "inherited"})
    removed, again = (khlone("agents", "key", "one", "--remove", cwd=repository) for _ in range(2))
    none = inside(khlone, repository, "one")

    assert second["ANTHROPIC_API_KEY"] == "second"
    assert (removed.code, removed.out) == (0, "one: key removed\n")
    assert (again.code, again.out, again.err) == (0, "", "khlone: nothing to change\n")
    assert "ANTHROPIC_API_KEY" not in none


def test_a_subscription_token_of_a_clones_own_is_given_as_one_and_is_the_only_one(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path
) -> None:
    token = f"sk-ant-oat01-{CANARY}"
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text(token)
    new(khlone, repository, "one", "--agent", "claude")
    new(khlone, repository, "two", "--agent", "claude")
    inherited = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-inherited"}

    assert khlone("agents", "key", "one", "--file", str(tmp_path / "token"), cwd=repository).code == 0
    found = inside(khlone, repository, "one", inherited)

    assert (found.get("CLAUDE_CODE_OAUTH_TOKEN"), found.get("ANTHROPIC_API_KEY")) == (token, None)
    assert inside(khlone, repository, "two", inherited)["CLAUDE_CODE_OAUTH_TOKEN"] == "sk-ant-oat01-inherited"
    (tmp_path / "token").write_text(CANARY)
    found = inside(khlone, repository, "one", inherited)
    assert (found.get("CLAUDE_CODE_OAUTH_TOKEN"), found.get("ANTHROPIC_API_KEY")) == (None, CANARY)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("open to others", "is not yours alone"),
        ("missing", "No such file"),
        ("two lines", "is 2 lines, not one"),
        ("empty", "is empty"),
        ("a zero byte", "has characters that no key has"),
        ("no text", "has characters that no key has"),
        ("fails", "ended with 3"),
        ("no command", "cannot run"),
    ],
)
def test_a_key_that_cannot_be_had_is_refused_and_not_shown(
    khlone: Khlone, repository: Path, home: Path, tmp_path: Path, case: str, why: str
) -> None:
    key = tmp_path / "key"
    odd = {"two lines": f"{CANARY}\nx\n", "empty": "\n", "a zero byte": f"{CANARY}\0x", "no text": f"{CANARY}\udcff"}
    key.write_bytes(odd.get(case, CANARY).encode(errors="surrogateescape"))
    key.chmod(0o640 if case == "open to others" else 0o600)
    sources: Mapping[str, tuple[str, ...]] = {
        "missing": ("--file", str(tmp_path / "nowhere")),
        "fails": ("--command", f"sh -c 'echo {CANARY} >&2; exit 3'"),
        "no command": ("--command", "no-such-program-of-khlone"),
    }
    new(khlone, repository, "one", "--agent", "claude")

    done = khlone("agents", "key", "one", *sources.get(case, ("--file", str(key))), "--json", cwd=repository)

    assert done.code == 1
    assert why in json.loads(done.out)["message"]
    assert CANARY not in done.out + done.err
    assert not list(states().glob("repositories/*/clones/*/keys/*"))


@pytest.mark.parametrize(
    "words",
    [("key", "one"), ("key", "one", "--file", "a", "--command", "b"), ("key", "one", "--command", "'"), ("--remove",)],
)
def test_words_that_assign_no_key_are_usage(khlone: Khlone, repository: Path, words: tuple[str, ...]) -> None:
    new(khlone, repository, "one", "--agent", "claude")

    refused(khlone("agents", *words, "--json", cwd=repository), "usage", 2)
