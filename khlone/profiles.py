"""What is there to know about an agent program? Frozen values that say it, without I/O.

A profile is data: khlone itself links, copies and strips by it, and asks the plugin that
offers it for content only where an item is generated. docs/agents-profiles.md shows one
with everything in it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone.values import dataclass, field


class Sharing(enum.StrEnum):
    """How one item of the user's config comes into the config dir of a clone."""

    #: The plugin makes the clone's content out of the user's: `khlone_agent_item`.
    GENERATE = "generate"
    #: A copy of the clone's own, which `agents refresh` brings up to date.
    COPY = "copy"
    #: A symbolic link to the real place of the user's, for what the program only reads.
    LINK = "link"
    #: Left alone: sessions, history, caches, locks, credentials.
    NEVER = "never"


class Login(enum.StrEnum):
    """How a clone comes to be logged in."""

    #: The program is told where the user's one store of credentials is.
    STORE = "store"
    #: Credential files are links to the user's; put back before each start where one was replaced.
    LINK = "link"
    #: Only by a token or key in a variable: anything else would log the other clones out.
    KEY = "key"
    #: Each clone logs in by itself.
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigItem:
    """One file or folder of the user's config, by its `name` in the config dir.

    `source` is where the user's lies when that is not `home / name`. `as_json` means that
    it is a JSON object, merged key by key by `agents refresh` and `agents promote`; then
    `keys` are the keys at the top that are shared at all (none: every one), and `depths`
    says for one of them down to which level keys are merged on their own (2: each server
    in `mcpServers` is one). `per_repository` names keys at the top that have an entry for
    each repository, by its path, and the keys of such an entry that may go back to the
    user. `sound_keys` are those of which at least one is there unless the program has
    reset its file. `moves_paths` means that JSON files of a copied folder hold absolute
    paths into it. `is_credential` marks what `Login.LINK` links; its `expiry` is the key,
    levels separated by dots, of the moment at which that login runs out, in milliseconds
    since the epoch: of programs that renew it without a lock that all clones share, one
    starts first then, and the others once it is renewed.
    """

    name: str
    sharing: Sharing
    why: str = ""
    source: Path | None = None
    as_json: bool = False
    keys: Sequence[str] = ()
    depths: Mapping[str, int] = field(default_factory=dict)
    per_repository: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sound_keys: Sequence[str] = ()
    moves_paths: bool = False
    is_credential: bool = False
    expiry: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVersions:
    """What holds for the versions from `since` to `until`, both included, `None` for no bound.

    `environment` is added to that of the profile, with the same templates. `status` are
    the words by which the program says, without a network, whether it is logged in: it
    ends with 0 when it is, with 1 when it is not.
    """

    login: Login
    since: str | None = None
    until: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    status: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReading:
    """Where the facts about a headless run are to be found.

    `output` is `json` (one document on stdout), `jsonl` (an event a line) or empty for
    plain text. The others are keys of the document, levels separated by dots; with
    `jsonl` they are looked for in the last event that has them. `rate_limit` may name an
    event by `type=NAME`. `sessions` and `transcripts` are patterns below the config dir:
    files of running sessions, and records that resuming needs. `activity` and
    `waiting_for` are keys of the former: whether the agent works, and whom it waits for.
    `failed` may be `KEY=VALUE` too: it has failed where an event has that value. `usage`
    and `cost_usd` are of the whole run, unless `usage_of` is `step`, where each event tells
    of its own, or `session`, where they are of all that was ever asked in that session.
    """

    output: str = ""
    result: str = ""
    failed: str = ""
    session: str = ""
    usage: str = ""
    cost_usd: str = ""
    usage_of: str = "run"
    rate_limit: str = ""
    sessions: str = ""
    transcripts: str = ""
    activity: str = ""
    waiting_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProfile:
    """How an agent program is started in a clone, and kept to it.

    Only `name` is needed. `executable` is looked up on PATH; with `version_words` it
    prints its version. `interactive`, `headless`, `resume` and `headless_resume` are the
    words after the executable, in which `{prompt}` and `{session}` are replaced; a
    headless start without `{prompt}` gets the prompt on stdin. `budget` are more words for
    one that is to cost no more than `{usd}` dollars, where the program can keep to that.

    `config_variables` are set to the clone's own config dir, `temp_variables` to a short
    private folder, `cache_variables` to a private one that may be emptied, and
    `credential_variables` to `store`, the user's own, where the version logs in that way.
    `environment` adds fixed variables; in its values `{config_dir}`, `{temp}`, `{cache}`,
    `{path}` and `{name}` are replaced. `strip` names inherited variables that must not
    reach the program. `key_variables` hold keys that bill by use: an inherited one is
    taken away unless it was chosen; the first gets a key that was assigned to a clone.
    `token_variables` hold long-lived tokens of a subscription, or choose another provider:
    with one of them no login is needed; an assigned key that begins with one of
    `token_prefixes` is such a token and goes into the first of them.

    `home` is the user's own config dir, `items` what of it goes where. `locks` are names
    of lock files and folders of the program, which khlone never makes. `own_hooks` are
    the program's own events that can call a command. `versions` are asked in their order,
    the first that fits counts. `brought` are files of a repository, and folders where a
    `/` ends the name, by which the program runs something without asking: it is not
    started before the user has approved those that the repository has.
    """

    name: str
    executable: str | None = None
    version_words: Sequence[str] = ()
    interactive: Sequence[str] = ()
    headless: Sequence[str] = ()
    resume: Sequence[str] = ()
    headless_resume: Sequence[str] = ()
    budget: Sequence[str] = ()
    config_variables: Sequence[str] = ()
    temp_variables: Sequence[str] = ()
    cache_variables: Sequence[str] = ()
    credential_variables: Sequence[str] = ()
    key_variables: Sequence[str] = ()
    token_variables: Sequence[str] = ()
    token_prefixes: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    strip: Sequence[str] = ()
    home: Path | None = None
    store: Path | None = None
    items: Sequence[ConfigItem] = ()
    locks: Sequence[str] = ()
    versions: Sequence[AgentVersions] = ()
    reading: AgentReading = field(default_factory=AgentReading)
    own_hooks: Sequence[str] = ()
    brought: Sequence[str] = ()
    description: str = ""

    def of_version(self, version: str | None) -> AgentVersions:
        """What holds for a version; for an unknown one what holds for the newest."""
        if version is None:
            return self.versions[0] if self.versions else AgentVersions(login=Login.OWN)
        wanted = version_key(version)
        for one in self.versions:
            is_old = one.since is not None and wanted < version_key(one.since)
            is_new = one.until is not None and wanted > version_key(one.until)
            if not is_old and not is_new:
                return one
        return AgentVersions(login=Login.OWN)

    def source_of(self, item: ConfigItem) -> Path | None:
        """Where the user's own of an item lies, `None` where the user has no such place."""
        if item.source is not None:
            return item.source
        return None if self.home is None else self.home / item.name


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAgent:
    """An agent as it is on this machine: `version` and `path` are `None` where it is not installed or silent."""

    profile: AgentProfile
    plugin: str
    path: Path | None
    version: str | None

    @property
    def held(self) -> AgentVersions:
        """What holds for the installed version."""
        return self.profile.of_version(self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What was done about one item, or one `key` of it with dots between levels; `clone` is `None` for the user's."""

    clone: str | None
    item: str
    what: str
    key: str | None = None
    message: str | None = None


def version_key(version: str) -> tuple[int, ...]:
    """A version's numbers in an order that can be compared; letters count as nothing."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("-")[0].split("+")[0]))
