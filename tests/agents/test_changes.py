"""The user's changes reach clones, a clone's own reach the user, and neither is lost."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

from tests.agents.steps import user_settings
from tests.agents.test_config_dirs import BAD, GOOD, config_dir, state
from tests.commands.steps import at_once, document, new, refused
from tests.faults.lab import stopped
from tests.support import KHLONE, Done, Khlone, write

SETTINGS: dict[str, Any] = {
    "model": "opus",
    "enabledPlugins": {"a": True, "b": True},
    "permissions": {"allow": ["Bash"], "deny": []},
}


@pytest.fixture
def home() -> Path:
    """The home of a user who has used Claude Code."""
    found = Path(os.environ["HOME"])
    write(found, {".claude.json": json.dumps(GOOD), ".claude/settings.json": json.dumps(SETTINGS)})
    return found


@pytest.fixture
def clone(khlone: Khlone, repository: Path, home: Path) -> Path:
    """The config dir of a clone called `one`."""
    new(khlone, repository, "one", "--agent", "claude")
    return config_dir(khlone, repository, "one")


def edit(path: Path, **changes: Any) -> None:
    """Change keys at the top of a JSON file; None takes one out."""
    found = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    return dict(json.loads(path.read_bytes()))


def said(done: Done, code: int = 0) -> list[tuple[str, str | None, str]]:
    """Item, key and what was done, of each change."""
    return [(one["item"], one["key"], one["what"]) for one in document(done, "agents", code)["changes"]]


# -- refresh -------------------------------------------------------------------------------


def test_what_the_user_changed_reaches_the_clone_and_its_own_stays(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    edit(clone / ".claude.json", numStartups=7, mcpServers={**GOOD["mcpServers"], "own": {"command": "own"}})
    edit(clone / "settings.json", enabledPlugins={"a": False, "b": True})
    servers = {**GOOD["mcpServers"], "users": {"command": "u"}}
    edit(home / ".claude.json", theme="light", numStartups=9, mcpServers=servers)
    edit(home / ".claude/settings.json", model="haiku", enabledPlugins={"a": True, "c": True})

    changes = said(khlone("agents", "refresh", "one", "--json", cwd=repository))

    found = state(clone)
    assert (found["theme"], found["numStartups"]) == ("light", 7)
    assert sorted(found["mcpServers"]) == ["docs", "own", "users"]
    settings = read(clone / "settings.json")
    assert (settings["model"], settings["enabledPlugins"]) == ("haiku", {"a": False, "c": True})
    assert ("settings.json", "model", "updated") in changes
    assert (".claude.json", "mcpServers.users", "updated") in changes
    assert stat.S_IMODE((clone / ".claude.json").stat().st_mode) == 0o600


def test_what_both_changed_stays_and_is_said_until_one_gives_in(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    edit(clone / "settings.json", model="clone")
    edit(home / ".claude/settings.json", model="user")

    first, second = (said(khlone("agents", "refresh", "one", "--json", cwd=repository)) for _ in range(2))
    edit(clone / "settings.json", model="user")
    third = said(khlone("agents", "refresh", "one", "--json", cwd=repository))
    edit(home / ".claude/settings.json", model="later")
    fourth = said(khlone("agents", "refresh", "one", "--json", cwd=repository))

    assert first == second == [("settings.json", "model", "kept")]
    assert third == []
    assert fourth == [("settings.json", "model", "updated")]


def test_a_dry_run_says_the_same_and_changes_nothing(khlone: Khlone, repository: Path, home: Path, clone: Path) -> None:
    edit(home / ".claude.json", theme="light")
    (home / ".claude/skills").mkdir()
    before = (clone / ".claude.json").read_bytes()

    told = said(khlone("agents", "refresh", "one", "--dry-run", "--json", cwd=repository))
    untouched = (clone / ".claude.json").read_bytes(), (clone / "skills").exists()
    done = said(khlone("agents", "refresh", "--all", "--json", cwd=repository))

    assert untouched == (before, False)
    assert told == done == [(".claude.json", "theme", "updated"), ("skills", None, "linked")]


def test_of_all_clones_one_that_is_busy_is_told_and_the_others_are_brought_up_to_date(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    new(khlone, repository, "a-busy", "--agent", "claude")
    edit(home / ".claude.json", theme="light")

    at_work = stopped(["rename", "a-busy", "b-busy"], point="rename.reserved", cwd=repository)
    try:
        done = khlone("agents", "refresh", "--all", "--json", cwd=repository)
    finally:
        os.kill(at_work.pid, signal.SIGCONT)
        assert at_work.wait(timeout=60) == 0

    found = said(done, 75)
    assert ("config dir", None, "kept") in found
    assert (".claude.json", "theme", "updated") in found
    assert read(clone / ".claude.json")["theme"] == "light"


def test_links_follow_the_user(khlone: Khlone, repository: Path, home: Path, tmp_path: Path) -> None:
    (home / ".claude/agents").mkdir()
    (home / ".claude/commands").mkdir()
    new(khlone, repository, "one", "--agent", "claude")
    clone = config_dir(khlone, repository, "one")
    (clone / "commands").unlink()
    write(clone / "commands", {"own.md": "own"})
    (home / ".claude/agents").rename(tmp_path / "agents")
    (home / ".claude/agents").symlink_to(tmp_path / "agents")

    changes = said(khlone("agents", "refresh", "one", "--json", cwd=repository))

    assert sorted(changes) == [("agents", None, "linked"), ("commands", None, "kept")]
    assert (clone / "agents").readlink() == tmp_path / "agents"
    assert (clone / "commands/own.md").read_text() == "own"


def test_a_copied_folder_follows_while_the_clone_leaves_it_alone(khlone: Khlone, repository: Path, home: Path) -> None:
    plugins = home / ".claude/plugins"
    write(plugins, {"cache/a/x": "1"})
    new(khlone, repository, "one", "--agent", "claude")
    new(khlone, repository, "two", "--agent", "claude")
    one, two = (config_dir(khlone, repository, name) / "plugins" for name in ("one", "two"))
    write(two, {"cache/own": "own"})
    write(plugins, {"cache/a/x": "longer"})

    changes = document(khlone("agents", "refresh", "--all", "--json", cwd=repository), "agents")["changes"]

    assert [(one["clone"], one["what"]) for one in changes] == [("one", "updated"), ("two", "kept")]
    assert (one / "cache/a/x").read_text() == "longer"
    assert ((two / "cache/a/x").read_text(), (two / "cache/own").read_text()) == ("1", "own")


def test_a_bad_file_of_the_users_takes_nothing_from_clones(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    before = state(clone)
    (home / ".claude.json").write_bytes(BAD["reset"])
    (home / ".claude/settings.json").write_bytes(b'{"model": ')

    changes = said(khlone("agents", "refresh", "one", "--json", cwd=repository))

    assert changes == [("settings.json", None, "kept")]
    assert state(clone) == before


def test_an_agent_of_settings_is_refreshed_too(khlone: Khlone, repository: Path, home: Path) -> None:
    user_settings('[agents.fir]\nvariable = "FIR_HOME"\nhome = "~/.fir"\ncopy = ["a.json", "b.conf"]\n')
    write(home / ".fir", {"a.json": '{"x": 1}', "b.conf": "one"})
    new(khlone, repository, "one", "--agent", "fir")
    write(home / ".fir", {"a.json": '{"x": 2}', "b.conf": "two"})

    changes = said(khlone("agents", "refresh", "one", "--json", cwd=repository))

    assert changes == [("a.json", "x", "updated"), ("b.conf", None, "updated")]
    assert (config_dir(khlone, repository, "one") / "b.conf").read_text() == "two"


# -- promote -------------------------------------------------------------------------------


def test_what_a_clone_changed_is_promoted_and_nothing_else(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    found = state(clone)
    entry = {**found["projects"][str(repository)], "mcpServers": {"db": {"command": "db"}}, "lastCost": 3}
    entry["hasTrustDialogAccepted"] = True
    edit(
        clone / ".claude.json",
        numStartups=9,
        oauthAccountNow={"x": 1},
        mcpServers={**GOOD["mcpServers"], "own": {"command": "own"}},
        projects={**found["projects"], str(repository): entry, "/other": {"mcpServers": {"no": {}}}},
    )
    edit(clone / "settings.json", enabledPlugins={"a": False, "b": True})
    edit(home / ".claude.json", theme="light")

    changes = said(khlone("agents", "promote", "one", "--json", cwd=repository))

    assert sorted(changes) == [
        (".claude.json", "mcpServers.own", "promoted"),
        (".claude.json", f"projects.{repository}.mcpServers.db", "promoted"),
        ("settings.json", "enabledPlugins.a", "promoted"),
    ]
    mine = read(home / ".claude.json")
    projects = {**GOOD["projects"], str(repository): {"mcpServers": {"db": {"command": "db"}}}}
    servers = {**GOOD["mcpServers"], "own": {"command": "own"}}
    assert mine == {**GOOD, "theme": "light", "mcpServers": servers, "projects": projects}
    assert read(home / ".claude/settings.json") == {**SETTINGS, "enabledPlugins": {"a": False, "b": True}}
    assert said(khlone("agents", "promote", "one", "--json", cwd=repository)) == []


def test_a_whole_setting_that_is_gone_in_a_clone_stays_with_the_user(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    edit(clone / ".claude.json", theme=None, mcpServers={})

    changes = said(khlone("agents", "promote", "one", "--json", cwd=repository))

    assert changes == [(".claude.json", "mcpServers.docs", "promoted")]
    assert (read(home / ".claude.json")["theme"], read(home / ".claude.json")["mcpServers"]) == ("dark", {})


def test_one_key_alone_can_be_promoted(khlone: Khlone, repository: Path, home: Path, clone: Path) -> None:
    edit(clone / "settings.json", model="haiku", enabledPlugins={"a": False, "b": True})
    words = ("agents", "promote", "one", "--key", "enabledPlugins", "--json")

    told = said(khlone(*words, "--dry-run", cwd=repository))
    untouched = read(home / ".claude/settings.json")
    done = said(khlone(*words, cwd=repository))

    assert told == done == [("settings.json", "enabledPlugins.a", "promoted")]
    assert untouched == SETTINGS
    assert read(home / ".claude/settings.json")["model"] == "opus"


def test_what_the_user_has_changed_too_is_a_conflict_and_stays(
    khlone: Khlone, repository: Path, home: Path, clone: Path
) -> None:
    edit(clone / "settings.json", model="clone", enabledPlugins={"a": False, "b": True})
    edit(home / ".claude/settings.json", model="user")

    changes = said(khlone("agents", "promote", "one", "--json", cwd=repository), code=1)

    assert changes == [("settings.json", "enabledPlugins.a", "promoted"), ("settings.json", "model", "conflict")]
    assert read(home / ".claude/settings.json")["model"] == "user"
    assert read(clone / "settings.json")["model"] == "clone"


def test_clones_that_promote_at_once_lose_nothing(khlone: Khlone, repository: Path, home: Path) -> None:
    names = [f"c{number}" for number in range(4)]
    for name in names:
        new(khlone, repository, name, "--agent", "claude")
        path = config_dir(khlone, repository, name) / ".claude.json"
        edit(path, mcpServers={**GOOD["mcpServers"], name: {"command": name}})

    done = at_once([lambda name=name: khlone("agents", "promote", name, cwd=repository) for name in names])  # type: ignore[misc]

    assert [one.code for one in done] == [0] * 4
    assert sorted(read(home / ".claude.json")["mcpServers"]) == [*names, "docs"]


def test_a_file_behind_links_keeps_its_links_and_mode(
    khlone: Khlone, repository: Path, home: Path, clone: Path, tmp_path: Path
) -> None:
    (home / ".claude/settings.json").rename(tmp_path / "settings.json")
    (tmp_path / "settings.json").chmod(0o644)
    (tmp_path / "middle").symlink_to("settings.json")
    (home / ".claude/settings.json").symlink_to(tmp_path / "middle")
    edit(clone / "settings.json", model="haiku")

    assert khlone("agents", "promote", "one", cwd=repository).code == 0

    assert read(tmp_path / "settings.json")["model"] == "haiku"
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o644
    assert (home / ".claude/settings.json").is_symlink()
    assert (tmp_path / "middle").is_symlink()


@pytest.mark.parametrize("kind", BAD)
def test_nothing_is_promoted_into_a_bad_file(
    khlone: Khlone, repository: Path, home: Path, clone: Path, kind: str
) -> None:
    edit(clone / ".claude.json", mcpServers={"own": {}})
    (home / ".claude.json").write_bytes(BAD[kind])

    refused(khlone("agents", "promote", "one", "--json", cwd=repository), "unsound-agent-config")

    assert (home / ".claude.json").read_bytes() == BAD[kind]


# -- the last good copy --------------------------------------------------------------------


def test_restore_fails_where_there_is_no_good_copy(khlone: Khlone, repository: Path, home: Path) -> None:
    (home / ".claude.json").write_bytes(b"{")

    done = khlone("agents", "restore", "claude", "--json", cwd=repository)

    (change,) = json.loads(done.out)["changes"]
    assert (done.code, change["what"]) == (1, "kept")
    assert "there is no good copy" in change["message"]
    assert (home / ".claude.json").read_bytes() == b"{"


def test_a_link_into_a_folder_that_is_not_there_is_named_and_left(
    khlone: Khlone, repository: Path, home: Path, clone: Path, tmp_path: Path
) -> None:
    edit(clone / "settings.json", model="other")
    (home / ".claude/settings.json").unlink()
    (home / ".claude/settings.json").symlink_to(tmp_path / "nowhere/settings.json")

    verbs = [("promote", "one"), ("install", "claude"), ("uninstall", "claude")]
    found = [refused(khlone("agents", *words, "--json", cwd=repository), "state-unsafe", 77) for words in verbs]

    assert all(f"make {tmp_path}/nowhere" in one["hint"] for one in found)
    assert (home / ".claude/settings.json").is_symlink()


@pytest.mark.parametrize("kind", BAD)
def test_doctor_reports_a_bad_file_and_restore_puts_the_copy_back(
    khlone: Khlone, repository: Path, home: Path, clone: Path, kind: str
) -> None:
    (home / ".claude.json").write_bytes(BAD[kind])

    (finding,) = document(khlone("doctor", "--fix", "--json", cwd=repository), "doctor")["findings"]
    untouched = (home / ".claude.json").read_bytes()
    changes = said(khlone("agents", "restore", "claude", "--json", cwd=repository))
    again = said(khlone("agents", "restore", "claude", "--json", cwd=repository))

    assert (finding["code"], finding["fixed"]) == ("unsound-agent-config", False)
    assert finding["fix"] == "git khlone agents restore claude"
    assert untouched == BAD[kind], "never without asking"
    assert (changes, again) == ([(".claude.json", None, "restored")], [])
    assert read(home / ".claude.json") == GOOD
    kept = list(home.glob(".claude.json.*.bad"))
    assert [path.read_bytes() for path in kept] == [BAD[kind]] * bool(BAD[kind])
    assert document(khlone("doctor", "--json", cwd=repository), "doctor")["findings"] == []


@pytest.mark.parametrize(("answer", "is_restored"), [("y", True), ("n", False)])
def test_doctor_asks_at_a_terminal(
    khlone: Khlone, repository: Path, home: Path, clone: Path, answer: str, is_restored: bool
) -> None:
    (home / ".claude.json").write_bytes(b"")

    child = pexpect.spawn(str(KHLONE), ["doctor", "--fix"], cwd=str(repository), timeout=60, encoding="utf-8")
    child.expect("put the last good copy back")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()

    assert (json.loads((home / ".claude.json").read_bytes() or b"{}") == GOOD) is is_restored
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    "words",
    [
        ("refresh", "one", "--all"),
        ("promote", "one", "two"),
        ("restore",),
        ("list", "--dry-run"),
        ("refresh", "one", "--key", "a"),
    ],
)
def test_words_that_do_not_go_together_are_usage(khlone: Khlone, repository: Path, words: tuple[str, ...]) -> None:
    refused(khlone("agents", *words, "--json", cwd=repository), "usage", 2)
