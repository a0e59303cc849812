"""Claude Code's config dir: what of the user's it takes, and what it must never touch."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from khlone_plugins import claude

from khlone.app import App
from khlone.model import CloneRecord, CloneState, Isolation
from khlone.operations import agent_dirs
from khlone.plugins import Plugins
from khlone.profiles import AgentProfile

STATE: dict[str, object] = {
    "hasCompletedOnboarding": True,
    "theme": "dark",
    "mcpServers": {"docs": {"command": "docs-server"}},
    "migrationVersion": 11,
    "firstStartTime": "2026-01-01T00:00:00.000Z",
    "oauthAccount": {"accountUuid": "u"},
    "customApiKeyResponses": {"approved": ["x"], "rejected": []},
    "userID": "id",
    "installMethod": "npm",
}
OTHERS: dict[str, object] = {
    "projects": {"/elsewhere": {"hasTrustDialogAccepted": True, "history": ["a secret prompt"]}},
    "activeWorktreeSession": {"path": "/elsewhere"},
    "cachedChangelog": "words",
}
TRUST = {"hasTrustDialogAccepted": True, "allowedTools": [], "history": []}
NO_TRUST: dict[str, object] = {"allowedTools": [], "history": []}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has used Claude Code, and an environment without its variables."""
    home = tmp_path / "home"
    (home / ".claude").mkdir(parents=True)
    for name in list(os.environ):
        if name.startswith(("CLAUDE", "KHLONE", "GIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """The fresh config dir of a clone."""
    place = tmp_path / "state" / "config" / "claude"
    place.mkdir(parents=True, mode=0o700)
    return place


@pytest.fixture
def main_worktree(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real repository with one commit."""
    identity = {"NAME": "T", "EMAIL": "t@example.invalid"}
    for key, value in identity.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "project"
    git("init", "-q", str(root), cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=root)
    return root


def git(*arguments: str, cwd: Path) -> None:
    """Run git."""
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)


def clone_at(path: Path, config_dir: Path) -> CloneRecord:
    """A clone as the registry knows it."""
    return CloneRecord(
        id="c1",
        name="x",
        branch="x",
        branch_owned=True,
        target="main",
        base="0" * 40,
        path=path,
        admin="x",
        state=CloneState.CREATING,
        agent="claude",
        isolation=Isolation.CONFIG,
        config_dir=config_dir,
        created_at="2026-01-01T00:00:00Z",
    )


def profile() -> AgentProfile:
    """The profile, through the front that khlone uses."""
    return Plugins.of(claude).agents({}, environment=os.environ)["claude"]


def populate(config_dir: Path, *, where: Path | None = None, agent: str = "claude") -> list[str]:
    """Fill the config dir of a clone of the repository `where`, as khlone does; returns what was told."""
    folder = config_dir.parents[2]
    if where is None:
        where = folder / "empty"
        git("init", "-q", str(where), cwd=folder)
    told: list[str] = []
    app = App.open(where, told=told.append, plugins=Plugins.of(claude))
    wanted = profile() if agent == "claude" else AgentProfile(name=agent)
    agent_dirs.fill(app, clone_at(folder / "x", config_dir), wanted, config_dir)
    return told


def places(config_dir: Path) -> tuple[Path, Path]:
    """The main worktree that `populate` makes, and the clone's."""
    return config_dir.parents[2] / "empty", config_dir.parents[2] / "x"


def projects(config_dir: Path) -> object:
    """The projects that the clone's `.claude.json` has."""
    return json.loads((config_dir / ".claude.json").read_bytes())["projects"]


def write_state(path: Path, **more: object) -> None:
    """The user's `.claude.json`."""
    path.write_text(json.dumps({**STATE, **OTHERS, **more}))


def snapshot(folder: Path) -> dict[str, object]:
    """Every path below a folder with its kind and content."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (kind, content)
    return found


# -- the profile


def test_the_config_dir_is_the_clones_and_the_credentials_stay_the_users(home: Path) -> None:
    found = profile()

    assert found.config_variables == ("CLAUDE_CONFIG_DIR",)
    assert (found.credential_variables, found.store) == (("CLAUDE_SECURESTORAGE_CONFIG_DIR",), home / ".claude")
    assert found.environment["DISABLE_AUTOUPDATER"] == "1"
    assert found.environment["CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL"] == "1"


def test_no_session_of_another_claude_reaches_the_clone(home: Path) -> None:
    assert {"CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_MESSAGING_TOKEN"} <= set(profile().strip)
    assert not set(profile().strip) & {*profile().config_variables, *profile().environment}


@pytest.mark.parametrize(
    ("environment", "store"),
    [
        ({}, "{home}/.claude"),
        ({"CLAUDE_CONFIG_DIR": "/mine"}, "/mine"),
        ({"CLAUDE_CONFIG_DIR": "relative"}, "{home}/.claude"),
        ({"CLAUDE_CONFIG_DIR": ""}, "{home}/.claude"),
        ({"CLAUDE_SECURESTORAGE_CONFIG_DIR": "/store"}, "/store"),
        ({"CLAUDE_CONFIG_DIR": "/mine", "CLAUDE_SECURESTORAGE_CONFIG_DIR": "/store"}, "/store"),
        ({"CLAUDE_CONFIG_DIR": "/mine", "CLAUDE_SECURESTORAGE_CONFIG_DIR": ""}, "{home}/.claude"),
        ({"KHLONE_ID": "c0", "CLAUDE_CONFIG_DIR": "/clone"}, "{home}/.claude"),
        ({"KHLONE_ID": "c0", "CLAUDE_CONFIG_DIR": "/clone", "CLAUDE_SECURESTORAGE_CONFIG_DIR": "/mine"}, "/mine"),
        ({"KHLONE_ID": "c0", "CLAUDE_CONFIG_DIR": "/c", "CLAUDE_SECURESTORAGE_CONFIG_DIR": "x"}, "{home}/.claude"),
    ],
)
def test_the_store_is_the_users_whatever_the_caller_is(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], store: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert profile().store == Path(store.format(home=home))


# -- the config dir


def test_a_fresh_dir_gets_the_users_keys_and_no_projects(home: Path, config_dir: Path) -> None:
    write_state(home / ".claude.json")

    populate(config_dir)

    seeded = config_dir / ".claude.json"
    assert json.loads(seeded.read_bytes()) == {
        **STATE,
        "projects": dict.fromkeys(map(str, places(config_dir)), NO_TRUST),
    }
    assert stat.S_IMODE(seeded.stat().st_mode) == 0o600
    assert sorted(os.listdir(config_dir)) == [".claude.json"]


def test_settings_are_copied_and_the_rest_is_linked_to_its_real_place(
    home: Path, config_dir: Path, tmp_path: Path
) -> None:
    dotfiles = tmp_path / "dotfiles"
    (dotfiles / "agents").mkdir(parents=True)
    (dotfiles / "settings.json").write_text('{"model": "x"}')
    (home / ".claude" / "agents").symlink_to(dotfiles / "agents")
    (home / ".claude" / "settings.json").symlink_to(dotfiles / "settings.json")
    (home / ".claude" / "skills").mkdir()
    (home / ".claude" / "CLAUDE.md").write_text("be brief")
    (home / ".claude" / "commands").symlink_to(tmp_path / "nowhere")
    (home / ".claude" / "output-styles").mkdir()

    populate(config_dir)

    assert sorted(os.listdir(config_dir)) == ["CLAUDE.md", "agents", "output-styles", "settings.json", "skills"]
    assert not (config_dir / "settings.json").is_symlink()
    assert (config_dir / "settings.json").read_text() == '{"model": "x"}'
    assert stat.S_IMODE((config_dir / "settings.json").stat().st_mode) == 0o600
    assert (config_dir / "agents").readlink() == Path(os.path.realpath(dotfiles / "agents"))
    assert (config_dir / "skills").readlink() == Path(os.path.realpath(home / ".claude" / "skills"))


def test_credentials_history_and_sessions_never_reach_a_clone(home: Path, config_dir: Path) -> None:
    user = home / ".claude"
    for name in (".credentials.json", "history.jsonl", "settings.local.json"):
        (user / name).write_text("{}")
    for name in ("projects", "sessions", "todos", "backups"):
        (user / name).mkdir()

    populate(config_dir)

    assert os.listdir(config_dir) == []


def test_nothing_of_the_users_changes(home: Path, config_dir: Path) -> None:
    write_state(home / ".claude.json")
    (home / ".claude" / ".credentials.json").write_text('{"token": "secret"}')
    (home / ".claude" / "settings.json").write_text("{}")
    (home / ".claude" / "agents").mkdir()
    before = snapshot(home)

    populate(config_dir)
    populate(config_dir)

    assert snapshot(home) == before
    assert sorted(os.listdir(config_dir)) == [".claude.json", "agents", "settings.json"]


@pytest.mark.parametrize("content", [b"", b'{"theme": "dark"', b"[]", b"null", b'"x"', b"\xff\xfe", b'{"a":' * 100_000])
def test_a_damaged_source_seeds_nothing(home: Path, config_dir: Path, content: bytes) -> None:
    (home / ".claude.json").write_bytes(content)

    populate(config_dir)

    assert os.listdir(config_dir) == []


def test_a_source_that_is_no_file_seeds_nothing(home: Path, config_dir: Path) -> None:
    (home / ".claude.json").mkdir()
    os.mkfifo(home / ".claude" / "settings.json")
    os.mkfifo(home / ".claude" / "CLAUDE.md")

    populate(config_dir)

    assert os.listdir(config_dir) == []


def test_settings_above_one_megabyte_are_left_out(home: Path, config_dir: Path) -> None:
    settings = home / ".claude" / "settings.json"
    settings.write_bytes(b" " * ((1 << 20) + 1))
    populate(config_dir)
    assert os.listdir(config_dir) == []

    settings.write_bytes(b" " * (1 << 20))
    populate(config_dir)
    assert os.listdir(config_dir) == ["settings.json"]


def test_a_config_dir_of_the_users_own_is_the_source(
    home: Path, config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_state(own / ".claude.json", theme="light")
    write_state(home / ".claude.json", theme="dark")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(own))

    populate(config_dir)

    assert json.loads((config_dir / ".claude.json").read_bytes())["theme"] == "light"


def test_inside_a_clone_the_source_is_the_users_and_not_that_clones(
    home: Path, config_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    write_state(outer / ".claude.json", theme="clone")
    write_state(home / ".claude.json", theme="user")
    monkeypatch.setenv("KHLONE_ID", "c0")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(outer))
    monkeypatch.setenv("CLAUDE_SECURESTORAGE_CONFIG_DIR", str(home / ".claude"))

    populate(config_dir)

    assert json.loads((config_dir / ".claude.json").read_bytes())["theme"] == "user"


def test_other_agents_are_none_of_its_business(home: Path, config_dir: Path) -> None:
    write_state(home / ".claude.json")

    populate(config_dir, agent="generic")

    assert os.listdir(config_dir) == []


# -- trust


@pytest.mark.parametrize("relative", [False, True])
def test_trust_given_to_the_main_worktree_is_passed_on(
    home: Path, config_dir: Path, main_worktree: Path, tmp_path: Path, relative: bool
) -> None:
    outer = tmp_path / "outer"
    git("worktree", "add", "-q", str(outer), cwd=main_worktree)
    if relative:  # as git 2.48 and newer write it with worktree.useRelativePaths
        (outer / ".git").write_text("gitdir: ../project/.git/worktrees/outer\n")
    entry = {"hasTrustDialogAccepted": True, "history": ["a secret prompt"], "allowedTools": ["Bash"]}
    write_state(home / ".claude.json", projects={str(main_worktree): entry, "/elsewhere": entry})

    populate(config_dir, where=outer)

    assert projects(config_dir) == {str(main_worktree): TRUST, str(tmp_path / "x"): TRUST}
    assert stat.S_IMODE((config_dir / ".claude.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("accepted", [False, "true", 1, None])
def test_trust_that_was_not_given_is_not_invented(
    home: Path, config_dir: Path, main_worktree: Path, tmp_path: Path, accepted: object
) -> None:
    entry = {"hasTrustDialogAccepted": accepted}
    trusted = {"hasTrustDialogAccepted": True}
    write_state(home / ".claude.json", projects={str(main_worktree): entry, str(tmp_path): trusted})

    populate(config_dir, where=main_worktree)

    assert projects(config_dir) == {str(main_worktree): NO_TRUST, str(tmp_path / "x"): NO_TRUST}


def test_servers_that_the_user_added_to_the_repository_come_along(
    home: Path, config_dir: Path, main_worktree: Path
) -> None:
    entry = {"mcpServers": {"db": {"command": "db"}}, "enabledMcpjsonServers": ["a"], "lastCost": 3}
    write_state(home / ".claude.json", projects={str(main_worktree): entry})

    populate(config_dir, where=main_worktree)

    found = projects(config_dir)
    assert isinstance(found, dict)
    assert found[str(main_worktree)] == {**NO_TRUST, "mcpServers": entry["mcpServers"], "enabledMcpjsonServers": ["a"]}


def test_the_clone_of_a_bare_repository_inherits_no_trust(
    home: Path, config_dir: Path, main_worktree: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(main_worktree), str(bare), cwd=tmp_path)
    write_state(home / ".claude.json", projects={str(tmp_path): {"hasTrustDialogAccepted": True}})

    populate(config_dir, where=bare)

    assert "projects" not in json.loads((config_dir / ".claude.json").read_bytes())
