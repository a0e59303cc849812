"""How is OpenCode kept to its clone?

`OPENCODE_CONFIG_DIR` moves config alone; the database, snapshots and locks follow the four
variables of the XDG base directories. Three of them are the clone's config dir, the names
below `opencode/` do not meet; the cache is one that may be emptied. Other programs in the
clone follow these variables too: what git, gh and khlone itself read there is linked.
Nothing here writes a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import AgentProfile, AgentReading, AgentVersions, ConfigItem, Login, Sharing, hookimpl

#: What is linked from the user's config: read, never written.
LINKED = (
    "AGENTS.md",
    "agent",
    "agents",
    "command",
    "commands",
    "mode",
    "modes",
    "plugin",
    "plugins",
    "skill",
    "skills",
    "themes",
    "tool",
    "tools",
)
#: What OpenCode writes to, or may.
COPIED = ("opencode.json", "opencode.jsonc", "config.json", "tui.json", "package.json")
#: What is a session's own, or a secret.
PRIVATE = ("opencode.db", "storage", "snapshot", "log", "locks", "mcp-auth.json", "prompt-history.jsonl")
#: The config of other programs that are run in a clone, found by the same variable.
FOREIGN = ("git", "gh", "khlone")
#: Set by OpenCode for what it starts itself, or leading to a place that is written.
STRIPPED = (
    "OPENCODE",
    "OPENCODE_CLIENT",
    "OPENCODE_CONFIG_DIR",
    "OPENCODE_DB",
    "OPENCODE_PID",
    "OPENCODE_SERVER_PASSWORD",
    "OPENCODE_SERVER_USERNAME",
    "OPENCODE_WORKSPACE_ID",
)
HEADLESS = ("run", "--format", "json")

#: Settings of a repository that start servers, code that is loaded, and what it is installed by, and from where.
BROUGHT = (
    "opencode.json",
    "opencode.jsonc",
    *(f".opencode/{name}" for name in ("opencode.json", "opencode.jsonc", "plugin/", "plugins/", "tool/", "tools/")),
    *(f".opencode/{name}" for name in ("package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc")),
)


@hookimpl
def khlone_agents(environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `opencode`."""
    config = _user_dir(environment, "XDG_CONFIG_HOME", ".config")
    profile = AgentProfile(
        name="opencode",
        executable="opencode",
        version_words=("--version",),
        headless=HEADLESS,
        resume=("--session", "{session}"),
        headless_resume=(*HEADLESS, "--session", "{session}"),
        config_variables=("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
        cache_variables=("XDG_CACHE_HOME",),
        key_variables=("OPENCODE_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"),
        token_variables=("OPENCODE_AUTH_CONTENT",),
        environment={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
        strip=STRIPPED,
        home=config,
        items=_items(_user_dir(environment, "XDG_DATA_HOME", ".local/share")),
        locks=("{config_dir}/opencode/locks",),
        versions=(AgentVersions(login=Login.LINK, why="auth.json is the user's, by a link"),),
        reading=AgentReading(
            output="jsonl",
            result="part.text",
            failed="type=error",
            session="sessionID",
            usage="part.tokens",
            cost_usd="part.cost",
            usage_of="step",
        ),
        brought=BROUGHT,
        description="OpenCode",
    )
    return [profile]


def _items(data: Path | None) -> tuple[ConfigItem, ...]:
    return (
        *(
            ConfigItem(
                name=f"opencode/{name}",
                sharing=Sharing.COPY,
                as_json=name.endswith(".json"),
                why="it may be written to",
            )
            for name in COPIED
        ),
        *(ConfigItem(name=f"opencode/{name}", sharing=Sharing.LINK, why="only read") for name in LINKED),
        *(ConfigItem(name=name, sharing=Sharing.LINK, why=f"{name} looks for it there") for name in FOREIGN),
        ConfigItem(
            name="opencode/auth.json",
            sharing=Sharing.NEVER,
            source=None if data is None else data / "opencode/auth.json",
            is_credential=True,
            why="one login, by a link",
        ),
        *(
            ConfigItem(name=f"opencode/{name}", sharing=Sharing.NEVER, why="a session's own, or a secret")
            for name in PRIVATE
        ),
    )


def _user_dir(environment: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    moved, home = environment.get(variable, ""), environment.get("HOME", "")
    if os.path.isabs(moved):
        return Path(moved)
    return Path(home, below_home) if os.path.isabs(home) else None
