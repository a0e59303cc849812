"""How is Codex kept to its clone?

`CODEX_HOME` holds everything: config, databases, sessions. The databases are opened in a
way that refuses links, and skills are written into each home, so those are never linked;
`auth.json` is a link, since a login and a refresh are written to where it leads. Nothing
here writes a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import AgentProfile, AgentReading, AgentVersions, ConfigItem, Login, Sharing, hookimpl

#: What is linked from the user's dir: read, never written.
LINKED = ("AGENTS.md", "AGENTS.override.md", "prompts")
#: What Codex writes to: trust, what was allowed, the skills that come with it.
COPIED = ("config.toml", "rules", "skills")
#: What is a session's own.
PRIVATE = (
    "sessions",
    "archived_sessions",
    "history.jsonl",
    "shell_snapshots",
    "log",
    "tmp",
    "installation_id",
    ".credentials.json",
)
#: Set by Codex for what it starts itself.
STRIPPED = ("CODEX_SANDBOX", "CODEX_SANDBOX_NETWORK_DISABLED", "CODEX_THREAD_ID", "CODEX_CI")
HEADLESS = ("exec", "--json")


@hookimpl
def khlone_agents(environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `codex`."""
    profile = AgentProfile(
        name="codex",
        executable="codex",
        version_words=("--version",),
        headless=(*HEADLESS, "-"),
        resume=("resume", "{session}"),
        headless_resume=(*HEADLESS, "resume", "{session}", "-"),
        # The databases have a variable of their own, which an inherited one would share.
        config_variables=("CODEX_HOME", "CODEX_SQLITE_HOME"),
        key_variables=("CODEX_API_KEY", "OPENAI_API_KEY"),
        token_variables=("CODEX_ACCESS_TOKEN",),
        strip=STRIPPED,
        home=_home(environment),
        items=(
            *(ConfigItem(name=name, sharing=Sharing.COPY, why="it is written to") for name in COPIED),
            *(ConfigItem(name=name, sharing=Sharing.LINK, why="only read") for name in LINKED),
            ConfigItem(
                name="auth.json",
                sharing=Sharing.NEVER,
                is_credential=True,
                why="refresh tokens work once: a copy logs the others out, a link is written through",
            ),
            *(ConfigItem(name=name, sharing=Sharing.NEVER, why="what one session has done") for name in PRIVATE),
        ),
        locks=("{config_dir}/auth.lock", "{config_dir}/installation_id"),
        versions=(
            AgentVersions(
                login=Login.LINK,
                status=("login", "status"),
                why="auth.json is replaced where it leads to, and the link stays",
            ),
        ),
        reading=AgentReading(
            output="jsonl",
            result="item.text",
            failed="type=turn.failed",
            session="thread_id",
            usage="usage",
            usage_of="session",
            transcripts="sessions/*/*/*/rollout-*.jsonl",
        ),
        brought=(".codex/config.toml", ".codex/hooks.json", ".codex/rules/", ".codex/agents/"),
        description="Codex",
    )
    return [profile]


def _home(environment: Mapping[str, str]) -> Path | None:
    moved, home = environment.get("CODEX_HOME", ""), environment.get("HOME", "")
    if os.path.isabs(moved):
        return Path(moved)
    return Path(home, ".codex") if os.path.isabs(home) else None
