"""How is Claude Code kept to its clone, and started as if it were at home there?

A config dir of its own, absolute, with the credentials still in the user's one store:
links and copies of `.credentials.json` log the other clones out from 2.1.118 on, and
`CLAUDE_SECURESTORAGE_CONFIG_DIR` exists since 2.1.145. The fresh dir is seeded, since a
warm one writes nothing at the start: `.claude.json` is generated from the user's, by the
keys in `USER_KEYS` and without projects; `settings.json` is copied, because the program
writes through a link; `LINKED` are links, since they are only read.

Nothing is written outside the config dir, and `.credentials.json` is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from khlone import AgentProfile, Clone, hookimpl
from khlone.errors import StateUnsafe
from khlone.files import read_regular, write_atomic

AGENT = "claude"

#: What of the user's `.claude.json` is the user's and not a project's, a session's or a cache's.
USER_KEYS = (
    "autoCompactEnabled",
    "customApiKeyResponses",
    "editorMode",
    "firstStartTime",
    "hasCompletedOnboarding",
    "installMethod",
    "lastOnboardingVersion",
    "mcpServers",
    "migrationVersion",
    "oauthAccount",
    "preferredNotifChannel",
    "theme",
    "userID",
    "verbose",
)
#: What is linked from the user's dir, and what it has to be there.
LINKED: Mapping[str, Callable[[str], bool]] = {
    "agents": os.path.isdir,
    "commands": os.path.isdir,
    "skills": os.path.isdir,
    "output-styles": os.path.isdir,
    "CLAUDE.md": os.path.isfile,
}
#: Set by Claude Code for what it starts itself: one clone's session must not reach the next.
STRIPPED = (
    "CLAUDECODE",
    "CLAUDE_PID",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_MESSAGING_SOCKET",
    "CLAUDE_CODE_MESSAGING_TOKEN",
    "CLAUDE_ENV_FILE",
    "CLAUDE_PROJECT_DIR",
)

_CONFIG = "CLAUDE_CONFIG_DIR"
_STORE = "CLAUDE_SECURESTORAGE_CONFIG_DIR"
#: Old versions kept every prompt in `.claude.json`; above this it is not the user's settings any more.
_MOST_STATE_BYTES = 64 << 20
_MOST_SETTINGS_BYTES = 1 << 20


@hookimpl
def khlone_agents() -> list[AgentProfile]:
    """Offer `claude`."""
    environment = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1"}
    user = find_user_dirs(os.environ)
    if user is not None:
        # Profile values are templates: braces of a path stand for themselves.
        environment[_STORE] = os.fspath(user.store).replace("{", "{{").replace("}", "}}")
    profile = AgentProfile(
        name=AGENT,
        executable="claude",
        config_variables=(_CONFIG,),
        environment=environment,
        strip=STRIPPED,
        description="Claude Code",
    )
    return [profile]


@hookimpl
def khlone_populate_config_dir(agent: AgentProfile, config_dir: Path) -> None:
    """Seed the config dir from the user's; what is absent, damaged or unreadable there is left out."""
    user = find_user_dirs(os.environ)
    if agent.name != AGENT or user is None:
        return
    state = _load_object(user.state)
    seed = {key: state[key] for key in USER_KEYS if key in state}
    if seed:
        _write_object(config_dir / ".claude.json", seed)
    settings = _read(user.config / "settings.json", _MOST_SETTINGS_BYTES)
    if settings is not None:
        write_atomic(config_dir / "settings.json", settings, durable=False)
    for name, is_usable in LINKED.items():
        target = os.path.realpath(user.config / name)
        if is_usable(target):
            with contextlib.suppress(FileExistsError):
                os.symlink(target, config_dir / name)


@hookimpl
def khlone_prepare(clone: Clone) -> None:
    """Pass on the user's trust in the repository to its clone, where the user has given it."""
    user = find_user_dirs(os.environ)
    if clone.agent != AGENT or clone.config_dir is None or user is None:
        return
    root = find_main_worktree(clone.path)
    seeded = _load_object(clone.config_dir / ".claude.json")
    if root is None or not seeded or not _is_trusted(_load_object(user.state), root):
        return
    trust = {"hasTrustDialogAccepted": True, "allowedTools": [], "history": []}
    # 2.1.112 and later look under the main worktree, older ones under the linked one.
    projects = {os.fspath(root): trust, os.fspath(clone.path): trust}
    _write_object(clone.config_dir / ".claude.json", {**seeded, "projects": projects})


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDirs:
    """Where the user's own files lie, never a clone's: config dir, `.claude.json`, credentials."""

    config: Path
    state: Path
    store: Path


def find_user_dirs(environment: Mapping[str, str]) -> UserDirs | None:
    """The user's own places, None without a home; also right inside a clone.

    There CLAUDE_CONFIG_DIR is the clone's, so the store that was handed down is taken.
    Relative values are ignored: each program would find another folder.
    """
    home = os.path.expanduser(environment.get("HOME") or "~")
    if not os.path.isabs(home):
        return None
    usual = Path(home, ".claude")
    inside = bool(environment.get("KHLONE_ID"))
    store = _absolute(environment.get(_STORE))
    config = store if inside else _absolute(environment.get(_CONFIG))
    if config is None or (inside and config == usual):
        return UserDirs(config=usual, state=Path(home, ".claude.json"), store=store or usual)
    # The variable set and empty means the usual store.
    fallback = usual if environment.get(_STORE) == "" else config
    return UserDirs(config=config, state=config / ".claude.json", store=store or fallback)


def find_main_worktree(worktree: Path) -> Path | None:
    """The main worktree that a linked one belongs to; None for a bare repository or a submodule."""
    line = (_read(worktree / ".git", 1 << 16) or b"").decode(errors="surrogateescape").strip()
    if not line.startswith("gitdir: "):
        return None
    admin = Path(os.path.normpath(worktree / line.removeprefix("gitdir: ")))
    common = admin.parent.parent
    return common.parent if admin.parent.name == "worktrees" and common.name == ".git" else None


def _absolute(value: str | None) -> Path | None:
    return Path(os.path.normpath(value)) if value and os.path.isabs(value) else None


def _is_trusted(state: Mapping[str, object], root: Path) -> bool:
    projects = state.get("projects")
    project = projects.get(os.fspath(root)) if isinstance(projects, dict) else None
    return isinstance(project, dict) and project.get("hasTrustDialogAccepted") is True


def _read(path: Path, most: int) -> bytes | None:
    """The content of the user's file, through links of the user's; None when it cannot serve."""
    try:
        return read_regular(Path(os.path.realpath(path)), most=most)
    except (OSError, StateUnsafe):
        return None


def _load_object(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty when there is none, or only a damaged one."""
    try:
        found = json.loads(_read(path, _MOST_STATE_BYTES) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_object(path: Path, content: Mapping[str, object]) -> None:
    write_atomic(path, json.dumps(content, indent=2).encode() + b"\n", durable=False)
