"""How is Gemini CLI kept to its clone?

`GEMINI_CLI_HOME` is the folder that `.gemini` lies in, so that every item is named with
`.gemini/` before it. Credentials are written in place, through a link. Nothing here writes
a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import AgentProfile, AgentReading, AgentVersions, ConfigItem, Login, Sharing, hookimpl

#: What is linked from the user's dir: read, never written.
LINKED = ("agents", "commands", "policies", "skills")
#: What is the user's login.
CREDENTIALS = ("oauth_creds.json", "google_accounts.json")
#: What is a session's own, or a secret.
PRIVATE = (
    ".env",
    "a2a-oauth-tokens.json",
    "history",
    "installation_id",
    "mcp-oauth-tokens.json",
    "projects.json",
    "state.json",
    "tmp",
    "trustedFolders.json",
)
#: Set by Gemini CLI or an editor for what they start, or leading to a file that is written.
STRIPPED = (
    "GEMINI_CLI",
    "GEMINI_CLI_IDE_AUTH_TOKEN",
    "GEMINI_CLI_IDE_PID",
    "GEMINI_CLI_IDE_SERVER_PORT",
    "GEMINI_CLI_IDE_WORKSPACE_PATH",
    "GEMINI_CLI_NO_RELAUNCH",
    "GEMINI_CLI_TRUSTED_FOLDERS_PATH",
)
HEADLESS = ("--output-format", "json")
#: Settings with hooks, servers and commands, what they name, and variables that lead requests, with the key, elsewhere.
BROUGHT = (
    ".gemini/settings.json",
    ".gemini/.env",
    ".env",
    ".gemini/hooks/",
    ".gemini/policies/",
    ".gemini/extensions/",
)


@hookimpl
def khlone_agents(environment: Mapping[str, str]) -> list[AgentProfile]:
    """Offer `gemini`."""
    profile = AgentProfile(
        name="gemini",
        executable="gemini",
        version_words=("--version",),
        headless=HEADLESS,
        resume=("--resume", "{session}"),
        headless_resume=(*HEADLESS, "--resume", "{session}"),
        config_variables=("GEMINI_CLI_HOME",),
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        token_variables=("GOOGLE_GENAI_USE_VERTEXAI",),
        strip=STRIPPED,
        home=_home(environment),
        items=tuple(_items()),
        versions=(AgentVersions(login=Login.LINK, why="oauth_creds.json is written in place, through a link"),),
        reading=AgentReading(
            output="json",
            result="response",
            failed="error",
            session="session_id",
            usage="stats",
            transcripts=".gemini/tmp/*/chats/*",
        ),
        brought=BROUGHT,
        description="Gemini CLI",
    )
    return [profile]


def _items() -> list[ConfigItem]:
    copied = [
        ConfigItem(
            name="settings.json", sharing=Sharing.COPY, as_json=True, depths={"mcpServers": 2}, why="written to"
        ),
        ConfigItem(name="GEMINI.md", sharing=Sharing.COPY, why="what is to be remembered is written to it"),
        ConfigItem(name="extensions", sharing=Sharing.COPY, moves_paths=True, why="it is written to"),
    ]
    linked = [ConfigItem(name=name, sharing=Sharing.LINK, why="only read") for name in LINKED]
    credentials = [
        ConfigItem(name=name, sharing=Sharing.NEVER, is_credential=True, why="one login, by a link")
        for name in CREDENTIALS
    ]
    private = [ConfigItem(name=name, sharing=Sharing.NEVER, why="a session's own, or a secret") for name in PRIVATE]
    return [_below(item) for item in (*copied, *linked, *credentials, *private)]


def _below(item: ConfigItem) -> ConfigItem:
    return ConfigItem(
        name=f".gemini/{item.name}",
        sharing=item.sharing,
        as_json=item.as_json,
        depths=item.depths,
        moves_paths=item.moves_paths,
        is_credential=item.is_credential,
        why=item.why,
    )


def _home(environment: Mapping[str, str]) -> Path | None:
    found = environment.get("GEMINI_CLI_HOME") or environment.get("HOME", "")
    return Path(found) if os.path.isabs(found) else None
