"""How is Qwen Code kept to its clone?

`QWEN_HOME` moves config and credentials, `QWEN_RUNTIME_DIR` sessions and temporary files.
A refresh replaces the credentials file, which would take a link away and log the others
out, so each clone logs in by itself, or has a key. Nothing here writes a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import AgentProfile, AgentReading, AgentVersions, ConfigItem, Login, Sharing, hookimpl

#: What is linked from the user's dir: read, never written.
LINKED = ("agents", "commands", "skills")
#: What is a session's own, or a secret.
PRIVATE = (
    ".env",
    "arena",
    "debug",
    "history",
    "installation_id",
    "mcp-oauth-tokens.json",
    "oauth_creds.json",
    "output-language.md",
    "plans",
    "projects",
    "tmp",
    "todos",
    "trustedFolders.json",
)
#: Set by Qwen Code or an editor for what they start, or leading to a file that is written.
STRIPPED = (
    "QWEN_CODE",
    "QWEN_CODE_IDE_SERVER_PORT",
    "QWEN_CODE_IDE_WORKSPACE_PATH",
    "QWEN_CODE_MEMORY_BASE_DIR",
    "QWEN_CODE_NO_RELAUNCH",
    "QWEN_CODE_TRUSTED_FOLDERS_PATH",
)
HEADLESS = ("--output-format", "stream-json")
#: Settings with hooks, servers and commands, what they name, and variables that lead requests, with the key, elsewhere.
BROUGHT = (".qwen/settings.json", ".qwen/.env", ".env", ".qwen/hooks/", ".qwen/extensions/")


@hookimpl
def khlone_agents(environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `qwen`."""
    profile = AgentProfile(
        name="qwen",
        executable="qwen",
        version_words=("--version",),
        headless=HEADLESS,
        resume=("--resume", "{session}"),
        headless_resume=(*HEADLESS, "--resume", "{session}"),
        config_variables=("QWEN_HOME", "QWEN_RUNTIME_DIR"),
        key_variables=("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
        strip=STRIPPED,
        home=_home(environment),
        items=(
            ConfigItem(
                name="settings.json", sharing=Sharing.COPY, as_json=True, depths={"mcpServers": 2}, why="written to"
            ),
            ConfigItem(name="QWEN.md", sharing=Sharing.COPY, why="what is to be remembered is written to it"),
            ConfigItem(name="memory.md", sharing=Sharing.COPY, why="it is written to"),
            ConfigItem(name="extensions", sharing=Sharing.COPY, moves_paths=True, why="it is written to"),
            *(ConfigItem(name=name, sharing=Sharing.LINK, why="only read") for name in LINKED),
            *(ConfigItem(name=name, sharing=Sharing.NEVER, why="a session's own, or a secret") for name in PRIVATE),
        ),
        locks=("{config_dir}/oauth_creds.lock",),
        versions=(AgentVersions(login=Login.OWN, why="a refresh replaces oauth_creds.json, a link too"),),
        reading=AgentReading(
            output="jsonl",
            result="result",
            failed="is_error",
            session="session_id",
            usage="usage",
            transcripts="projects/*/chats/*.jsonl",
        ),
        brought=BROUGHT,
        description="Qwen Code",
    )
    return [profile]


def _home(environment: Mapping[str, str]) -> Path | None:
    moved, home = environment.get("QWEN_HOME", ""), environment.get("HOME", "")
    if os.path.isabs(moved):
        return Path(moved)
    return Path(home, ".qwen") if os.path.isabs(home) else None
