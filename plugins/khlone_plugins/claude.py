"""How is Claude Code kept to its clone, and started as if it were at home there?

A config dir of its own, absolute, with the credentials still in the user's one store:
links and copies of `.credentials.json` log the other clones out from 2.1.118 on, and
`CLAUDE_SECURESTORAGE_CONFIG_DIR` exists since 2.1.145. The fresh dir is seeded, since a
warm one writes nothing at the start: `.claude.json` is generated from the user's, by the
keys in `USER_KEYS`; `settings.json` is copied, because the program writes through a link;
`LINKED` are links, since they are only read. Nothing here writes a file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from khlone import AgentProfile, AgentReading, AgentVersions, Clone, ConfigItem, Login, Sharing, hookimpl
from khlone.model import Location
from khlone.values import dataclass

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
#: What else says that the file is an up-to-date one: without it the program writes at its first start.
_WARM = re.compile(
    r"firstStartVersion|machineID|pluginUsage|seenNotifications|numStartups|has(Reset|Seen|Shown|Acknowledged)\w*"
    r"|\w+Migration(Complete|Version|Done)"
    # With a subscription: what the service said of usage beyond it, null for nothing. Other `cached` keys are caches.
    r"|cachedExtraUsageDisabledReason"
)
#: What of a project's entry is the user's choice for that repository.
PROJECT_KEYS = ("mcpServers", "enabledMcpjsonServers", "disabledMcpjsonServers")
#: At least one of these is there unless the file is empty or was reset.
SOUND_KEYS = ("hasCompletedOnboarding", "mcpServers", "oauthAccount")
#: What is linked from the user's dir: read, never written.
LINKED = ("agents", "commands", "skills", "output-styles", "CLAUDE.md")
#: What is a session's own.
PRIVATE = (
    "projects",
    "sessions",
    "history.jsonl",
    "todos",
    "debug",
    "backups",
    "shell-snapshots",
    "session-env",
    "stats-cache.json",
    "settings.local.json",
)
#: Made by the program, all of them folders: a file in such a place makes it fail or hang.
LOCKS = (
    "{config_dir}.lock",
    "{config_dir}/.claude.json.lock",
    "{config_dir}/.oauth_refresh.lock",
    "{config_dir}/.storage-write.lock",
)
ENVIRONMENT: Mapping[str, str] = {
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    # Without it a request that fails is tried for three minutes and more.
    "CLAUDE_CODE_MAX_RETRIES": "4",
}
_STATUS = ("auth", "status", "--json")
VERSIONS = (
    AgentVersions(
        since="2.1.145",
        login=Login.STORE,
        status=_STATUS,
        why="CLAUDE_SECURESTORAGE_CONFIG_DIR keeps one store and one refresh lock for all clones",
    ),
    AgentVersions(
        since="2.1.118",
        until="2.1.144",
        login=Login.KEY,
        status=_STATUS,
        why="the first refresh replaces a link by a private file, and the shared store cannot be named yet",
    ),
    AgentVersions(
        since="2.1.112",
        until="2.1.117",
        login=Login.LINK,
        status=_STATUS,
        why="a refresh writes through the link, one client at a time",
    ),
    # Whether one of these is logged in was not tried.
    AgentVersions(until="2.1.111", login=Login.LINK, why="a refresh writes through the link"),
)
READING = AgentReading(
    output="jsonl",
    result="result",
    failed="is_error",
    session="session_id",
    usage="usage",
    cost_usd="total_cost_usd",
    rate_limit="type=rate_limit_event",
    sessions="sessions/*.json",
    transcripts="projects/*/*.jsonl",
    activity="status",
    waiting_for="waitingFor",
)
OWN_HOOKS = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "Notification",
    "Stop",
    "SubagentStop",
    "PreCompact",
    "SessionEnd",
    "WorktreeCreate",
    "WorktreeRemove",
)
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

#: Hooks, servers, helpers and variables that a repository may bring along; headless, nobody is asked about them.
BROUGHT = (".claude/settings.json", ".claude/settings.local.json", ".claude/hooks/", ".mcp.json")

_STATE = ".claude.json"
_CONFIG = "CLAUDE_CONFIG_DIR"
_STORE = "CLAUDE_SECURESTORAGE_CONFIG_DIR"


@hookimpl
def khlone_agents(environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `claude`."""
    user = find_user_dirs(environment)
    profile = AgentProfile(
        name=AGENT,
        executable="claude",
        version_words=("--version",),
        headless=("-p", "--output-format", "stream-json", "--verbose"),
        resume=("--resume", "{session}"),
        headless_resume=("-p", "--output-format", "stream-json", "--verbose", "--resume", "{session}"),
        budget=("--max-budget-usd", "{usd}"),
        config_variables=(_CONFIG,),
        temp_variables=("CLAUDE_CODE_TMPDIR",),
        credential_variables=(_STORE,),
        key_variables=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        token_variables=("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"),
        token_prefixes=("sk-ant-oat",),
        environment=ENVIRONMENT,
        strip=STRIPPED,
        home=None if user is None else user.config,
        store=None if user is None else user.store,
        items=_items(user),
        locks=LOCKS,
        versions=VERSIONS,
        reading=READING,
        own_hooks=OWN_HOOKS,
        brought=BROUGHT,
        description="Claude Code",
    )
    return [profile]


def _items(user: UserDirs | None) -> tuple[ConfigItem, ...]:
    return (
        ConfigItem(
            name=_STATE,
            sharing=Sharing.GENERATE,
            source=None if user is None else user.state,
            as_json=True,
            keys=USER_KEYS,
            depths={"mcpServers": 2, "customApiKeyResponses": 2, "projects": 4},
            per_repository={"projects": PROJECT_KEYS},
            sound_keys=SOUND_KEYS,
            why="written at every start; the user's keys, this repository's trust and MCP servers, no other project",
        ),
        ConfigItem(
            name="settings.json",
            sharing=Sharing.COPY,
            as_json=True,
            depths={"enabledPlugins": 2, "env": 2, "permissions": 2, "extraKnownMarketplaces": 2},
            why="written through a link when a plugin is switched on or off",
        ),
        ConfigItem(
            name="plugins", sharing=Sharing.COPY, moves_paths=True, why="a link would share its locks and its store"
        ),
        *(ConfigItem(name=name, sharing=Sharing.LINK, why="only read") for name in LINKED),
        ConfigItem(
            name=".credentials.json",
            sharing=Sharing.NEVER,
            is_credential=True,
            expiry="claudeAiOauth.expiresAt",
            why="refresh tokens work once: a copy or a replaced link logs the others out",
        ),
        *(ConfigItem(name=name, sharing=Sharing.NEVER, why="what one session has said and done") for name in PRIVATE),
    )


@hookimpl
def khlone_agent_item(
    clone: Clone, agent: AgentProfile, item: ConfigItem, source: bytes | None, location: Location
) -> bytes | None:
    """Make `.claude.json` of the user's: the user's keys, and of projects the repository of the clone alone."""
    if (agent.name, item.name) != (AGENT, _STATE) or source is None:
        return None
    state = json.loads(source)
    seed = {key: value for key, value in state.items() if key in USER_KEYS or _WARM.fullmatch(key)}
    root = None if location.bare else location.main_worktree
    if root is not None:
        projects = state.get("projects")
        known = projects.get(os.fspath(root)) if isinstance(projects, dict) else None
        entry = _project(known if isinstance(known, dict) else {})
        # 2.1.112 and later look under the main worktree, older ones under the linked one.
        seed["projects"] = {os.fspath(root): entry, os.fspath(clone.path): entry}
    return json.dumps(seed, indent=2).encode() + b"\n"


def _project(known: Mapping[str, object]) -> dict[str, object]:
    """The entry of a clone's repository: servers the user has added to it, and the user's trust where it was given.

    Arrays are there since 1.0.72 ends without them; what was allowed elsewhere is asked again.
    """
    entry: dict[str, object] = {"allowedTools": [], "history": []}
    entry |= {key: known[key] for key in PROJECT_KEYS if key in known}
    if known.get("hasTrustDialogAccepted") is True:
        entry["hasTrustDialogAccepted"] = True
    return entry


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


def _absolute(value: str | None) -> Path | None:
    return Path(os.path.normpath(value)) if value and os.path.isabs(value) else None
