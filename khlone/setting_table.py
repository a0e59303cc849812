"""Which settings are there, of which type, and who may set each?

The one list: what is read, what `config` shows and writes, docs/settings.md and the JSON
schema for editors are made from it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence

from khlone.errors import InvalidSetting
from khlone.values import dataclass

_TRUE = {"true", "yes", "on"}
#: Empty is false to git, a key without `=` true: whoever reads git's files writes the latter out.
_FALSE = {"false", "no", "off", ""}
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Kind(enum.StrEnum):
    """The type of a setting; the value is what people are told that it must be."""

    TEXT = "text"
    WORDS = "words with spaces between"
    COMMAND = "a command"
    FLAG = "true or false"
    CHOICE = "one of the words"
    COUNT = "a whole number"
    SECONDS = "a number of seconds"
    AMOUNT = "a number"
    SIZE = "a number with K, M, G or T"
    DURATION = "a number with s, m, h, d or w"


class Source(enum.StrEnum):
    """Where a value can come from, lowest precedence first."""

    DEFAULT = "default"
    USER = "user"
    PROJECT = "project"
    GIT = "git"
    ENVIRONMENT = "environment"
    COMMAND = "command"


_ALL = (Source.USER, Source.PROJECT, Source.GIT)
#: What runs something, leads somewhere or decides what is safe: not for a file that anyone may have committed.
_OWN = (Source.USER, Source.GIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting; a `*` in the key stands for a name. `default` is as somebody would write it, `None` for none.

    `sources` are the files that it is taken from; `variable` is read from the environment,
    `option` is the flag that beats them all.
    """

    key: str
    kind: Kind
    doc: str
    default: str | None = None
    choices: Sequence[str] = ()
    sources: Sequence[Source] = _ALL
    variable: str | None = None
    option: str | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether the key stands for many."""
        return "*" in self.key

    @property
    def expected(self) -> str:
        """What a value must be, for people."""
        return " or ".join(self.choices) if self.choices else self.kind.value

    def matches(self, key: str) -> bool:
        """Whether a key, lower case, without `khlone.`, is this setting's."""
        low = self.key.lower()
        if not self.is_pattern:
            return key == low
        before, _, after = low.partition("*")
        return len(key) > len(before) + len(after) and key.startswith(before) and key.endswith(after)

    def fault(self, text: str) -> str | None:
        """Why a text cannot be its value, `None` where it can."""
        try:
            parse(self, f"khlone.{self.key}", text)
        except InvalidSetting as error:
            return str(error.facts["why"])
        return None


#: What a profile of an agent can say in settings; docs/agents-profiles.md has what each means.
_AGENT_KEYS = (
    ("variable", Kind.WORDS, "the variables that are set to its config dir"),
    ("command", Kind.COMMAND, "its program"),
    ("description", Kind.TEXT, "what people are told that it is"),
    ("version", Kind.WORDS, "the words that make it print its version"),
    ("interactive", Kind.WORDS, "the words after the program for a session at a terminal"),
    ("headless", Kind.WORDS, "the words after the program for a run without one"),
    ("resume", Kind.WORDS, "the words that go on with a session"),
    ("headless-resume", Kind.WORDS, "the words that go on with a session without a terminal"),
    ("locks", Kind.WORDS, "lock files and folders of the program"),
    ("temp", Kind.WORDS, "the variables that are set to a private folder with a short path"),
    ("cache", Kind.WORDS, "the variables that are set to a folder that may be emptied"),
    ("key", Kind.WORDS, "the variables of keys that bill by use"),
    ("strip", Kind.WORDS, "the variables that it must not inherit"),
    ("set", Kind.WORDS, "variables with fixed values, as NAME=VALUE"),
    ("home", Kind.TEXT, "the user's config dir, absolute or below `~/`"),
    ("copy", Kind.WORDS, "the items of that folder that a clone has copies of"),
    ("link", Kind.WORDS, "the items of that folder that a clone has links to"),
    ("never", Kind.WORDS, "the items of that folder that no clone has"),
    ("brought", Kind.WORDS, "the files of a repository, or folders with a `/`, that it runs something by"),
    ("login", Kind.TEXT, "how it logs in, `own` or `key`"),
    ("inherit-key", Kind.FLAG, "whether keys that bill by use are passed on to clones where they are inherited"),
)

SETTINGS = (
    Setting(
        key="agent",
        kind=Kind.TEXT,
        default="claude",
        variable="KHLONE_AGENT",
        option="new --agent",
        doc="The agent of new clones.",
    ),
    Setting(key="target", kind=Kind.TEXT, option="new --into", doc="The target of new clones."),
    Setting(
        key="isolate",
        kind=Kind.CHOICE,
        default="config",
        choices=("config", "home", "sandbox", "container"),
        sources=_OWN,
        variable="KHLONE_ISOLATE",
        option="new --isolate",
        doc="How far new clones are kept apart.",
    ),
    Setting(
        key="isolation.caches",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="From level `home` on: the package caches that clones share with you, some of npm, pnpm, yarn, pip, uv, "
        "cargo and go.",
    ),
    Setting(
        key="isolation.links",
        kind=Kind.WORDS,
        default=".rustup .nvm .pyenv .rbenv .sdkman .volta",
        sources=_OWN,
        doc="From level `home` on: what else of your HOME clones see, as paths below it.",
    ),
    Setting(
        key="isolation.sshConfig",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="From level `home` on: whether your `~/.ssh/config` counts in clones too.",
    ),
    Setting(
        key="isolation.network",
        kind=Kind.FLAG,
        default="true",
        sources=_OWN,
        doc="In `sandbox` and `container`: whether there is a network.",
    ),
    Setting(
        key="isolation.image",
        kind=Kind.TEXT,
        sources=_OWN,
        doc="In `container`: the image, with git and the agent in it; it is never fetched by khlone.",
    ),
    Setting(
        key="isolation.engine",
        kind=Kind.CHOICE,
        choices=("podman", "docker"),
        sources=_OWN,
        doc="In `container`: what runs it; without it podman, else docker.",
    ),
    Setting(
        key="isolation.devcontainer",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="In `container`: whether the devcontainer CLI makes the image, as the repository's `devcontainer.json` "
        "says; `khlone.isolation.image` does not count then.",
    ),
    Setting(
        key="isolation.memory",
        kind=Kind.SIZE,
        sources=_OWN,
        doc="In `container`: how much memory one command may use; beyond that it is killed.",
    ),
    Setting(
        key="isolation.cpus",
        kind=Kind.TEXT,
        sources=_OWN,
        doc="In `container`: how many processors' time one command may use, such as 1.5.",
    ),
    Setting(
        key="isolation.processes",
        kind=Kind.COUNT,
        sources=_OWN,
        doc="In `container`: how many processes one command may have.",
    ),
    Setting(
        key="isolation.options",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="In `container`: more options for `podman run` or `docker run`.",
    ),
    Setting(
        key="isolation.login",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="In `sandbox` and `container`: whether agents share your login where they do outside, which lets them "
        "write into the folder that it is in.",
    ),
    Setting(
        key="sync",
        kind=Kind.CHOICE,
        default="merge",
        choices=("merge", "rebase"),
        sources=_OWN,
        variable="KHLONE_SYNC",
        option="sync --rebase",
        doc="How `sync` brings the target in.",
    ),
    Setting(
        key="worktree",
        kind=Kind.TEXT,
        default="{parent}/{repository}.clones/{folder}",
        sources=_OWN,
        variable="KHLONE_WORKTREE",
        doc="The path of new worktrees, as a template; {name} and {branch} can be used too.",
    ),
    Setting(
        key="durable",
        kind=Kind.FLAG,
        default="true",
        variable="KHLONE_DURABLE",
        doc="Whether a new clone is on disk, not only in memory, when `new` returns.",
    ),
    Setting(
        key="include.size",
        kind=Kind.SIZE,
        default="512M",
        sources=_OWN,
        variable="KHLONE_INCLUDE_SIZE",
        doc="How many bytes of ignored files a new clone may get copies of.",
    ),
    Setting(
        key="gate.required", kind=Kind.FLAG, default="false", doc="Whether a merge needs a gate that looked at it."
    ),
    Setting(
        key="gate.*.timeout",
        kind=Kind.SECONDS,
        default="1800",
        sources=_OWN,
        doc="How long the gate may take.",
    ),
    Setting(
        key="gate.*.needed",
        kind=Kind.FLAG,
        default="true",
        sources=_OWN,
        doc="Whether the gate must pass; an advisory one is told of and holds nothing.",
    ),
    Setting(
        key="gate.*.paths",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="The gate is asked only where one of these paths changes, as git's glob patterns.",
    ),
    Setting(
        key="gate.*.retries",
        kind=Kind.COUNT,
        default="0",
        sources=_OWN,
        doc="How often the gate is asked again when it failed.",
    ),
    Setting(
        key="gate.*.command",
        kind=Kind.COMMAND,
        sources=_OWN,
        doc="The same as `gate.<name>`, for a table in a TOML file.",
    ),
    Setting(
        key="gate.*",
        kind=Kind.COMMAND,
        sources=_OWN,
        option="merge --no-gate",
        doc="A command that must pass on the exact commit that lands; one in `.khlone.toml` needs `git khlone trust`.",
    ),
    Setting(
        key="merge.approval",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="Whether only what `git khlone approve` has approved lands, and nothing that was committed since.",
    ),
    Setting(
        key="merge.firstLands",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="Whether of several clones that fail only together the first in the queue lands all the same.",
    ),
    Setting(
        key="merge.hooks",
        kind=Kind.FLAG,
        default="true",
        sources=_OWN,
        doc="Whether the commit hooks of the repository look at what lands, as at a merge or a commit by git: "
        "prepare-commit-msg and commit-msg, pre-merge-commit, and pre-commit of a squash.",
    ),
    Setting(
        key="merge.mode",
        kind=Kind.CHOICE,
        default="batch",
        choices=("batch", "serial", "speculative"),
        sources=_OWN,
        doc="How gates look at what waits: all as one, and halves where that fails; one after the other; or several "
        "ahead at once, each on top of those before it.",
    ),
    Setting(
        key="merge.push",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        option="merge --push",
        doc="Whether what lands goes to the remote branch that the target follows, and lands here only when it has.",
    ),
    Setting(
        key="merge.memory",
        kind=Kind.SIZE,
        default="1G",
        sources=_OWN,
        doc="How much memory the gates of one candidate are taken to need: where merge.window is not set, the "
        "speculative mode looks at as many at once as there are cores, and as fit into what is available.",
    ),
    Setting(
        key="merge.window",
        kind=Kind.COUNT,
        sources=_OWN,
        doc="How many candidates gates look at at once in the speculative mode; as many as there are cores and room "
        "in memory unless said.",
    ),
    Setting(
        key="squash.template",
        kind=Kind.TEXT,
        doc="What the commit of a squashed clone says. {message} is what it would say without it; there are "
        "{subjects}, {messages}, {branch}, {name}, {target} and {count} too, and {{ and }} for a brace. Co-authors and "
        "sign-offs are added.",
    ),
    Setting(
        key="limits.sessions",
        kind=Kind.COUNT,
        doc="How many sessions of this user may run at once on this machine; the others wait in line.",
    ),
    Setting(
        key="limits.agent.*",
        kind=Kind.COUNT,
        sources=_OWN,
        doc="How many sessions of one agent may run at once; `command` stands for those that are no agent.",
    ),
    Setting(
        key="limits.memory",
        kind=Kind.SIZE,
        doc="How much memory may be reserved for sessions in all; the others wait in line.",
    ),
    Setting(
        key="limits.memoryEach",
        kind=Kind.SIZE,
        default="780M",
        sources=_OWN,
        doc="How much memory is reserved for a session of an agent until three of its kind were seen.",
    ),
    Setting(
        key="limits.reserve",
        kind=Kind.SIZE,
        sources=_OWN,
        doc="How much memory sessions leave to others; without it a tenth of all, at most 1G.",
    ),
    Setting(
        key="limits.disk",
        kind=Kind.SIZE,
        default="1G",
        sources=_OWN,
        doc="How much room is left on the disk of a clone before one more session starts beside others, 0 for any.",
    ),
    Setting(
        key="limits.pressure",
        kind=Kind.COUNT,
        default="10",
        sources=_OWN,
        doc="The share of time, in percent, in which programs wait for memory from which on no session starts beside "
        "others; 0 for any.",
    ),
    Setting(
        key="limits.boot",
        kind=Kind.SECONDS,
        default="10",
        sources=_OWN,
        doc="How many seconds the next agent waits at most for the start of one that shares its config dir, or that "
        "renews a login which both share by a link; 0 for none. Agents with a config dir for each clone, and a login "
        "that is good, never wait.",
    ),
    Setting(
        key="limits.cost",
        kind=Kind.AMOUNT,
        sources=_OWN,
        doc="How many dollars the sessions of one clone may cost between two midnights (UTC), as far as their agents "
        "say what they cost; any number unless set.",
    ),
    Setting(
        key="watch.interval",
        kind=Kind.SECONDS,
        default="5",
        sources=_OWN,
        doc="How many seconds lie between two looks at a session that runs.",
    ),
    Setting(
        key="watch.busy",
        kind=Kind.DURATION,
        default="2m",
        sources=_OWN,
        doc="How long a process must poll without doing anything before it is slowed down, 0 for never.",
    ),
    Setting(
        key="watch.idle",
        kind=Kind.DURATION,
        default="1m",
        sources=_OWN,
        doc="How long a session must do nothing before it may be laid to rest while memory is short.",
    ),
    Setting(
        key="slots.*",
        kind=Kind.COUNT,
        sources=_OWN,
        option="slot run -n",
        doc="How many commands may run at once in slots of this name, over all clones of the machine; without it one.",
    ),
    Setting(
        key="limits.wait",
        kind=Kind.DURATION,
        default="1d",
        sources=_OWN,
        doc="How long a session waits in line before it is refused.",
    ),
    Setting(
        key="trash.age",
        kind=Kind.DURATION,
        default="30d",
        variable="KHLONE_TRASH_AGE",
        option="prune --age",
        doc="How old trash may get before `prune --trash` deletes it.",
    ),
    Setting(
        key="trash.size",
        kind=Kind.SIZE,
        variable="KHLONE_TRASH_SIZE",
        option="prune --size",
        doc="How large the trash may get before `prune --trash` deletes of it, the oldest first.",
    ),
    Setting(
        key="remote",
        kind=Kind.TEXT,
        sources=_OWN,
        option="push --remote",
        doc="The remote that clones are pushed to; without it the one that git would push to.",
    ),
    Setting(
        key="forge",
        kind=Kind.CHOICE,
        choices=("gh", "glab"),
        sources=_OWN,
        doc="The program that opens pull requests; without it the remote's address says which.",
    ),
    Setting(
        key="network.timeout",
        kind=Kind.SECONDS,
        default="600",
        sources=_OWN,
        variable="KHLONE_NETWORK_TIMEOUT",
        doc="How many seconds one talk with a remote may take, the hook of a push included, 0 for any number.",
    ),
    Setting(
        key="plugins",
        kind=Kind.WORDS,
        sources=_OWN,
        variable="KHLONE_PLUGINS",
        option="--no-plugins",
        doc="The only plugins to load; empty for none.",
    ),
    Setting(
        key="plugins.timeout",
        kind=Kind.SECONDS,
        default="60",
        sources=_OWN,
        variable="KHLONE_PLUGINS_TIMEOUT",
        doc="How many seconds one hook of a plugin may take before it counts as failed, 0 for any number.",
    ),
    Setting(
        key="ports.size", kind=Kind.COUNT, default="10", sources=_OWN, doc="How many ports each clone gets, 0 for none."
    ),
    Setting(
        key="ports.range",
        kind=Kind.TEXT,
        default="20000-29999",
        sources=_OWN,
        doc="Where the ports of clones lie, as FIRST-LAST.",
    ),
    Setting(
        key="dotenv.template",
        kind=Kind.TEXT,
        default=".env.khlone",
        doc="The file of a branch from which its clones get an `.env`; empty for none.",
    ),
    Setting(key="dotenv.name", kind=Kind.TEXT, default=".env", doc="What that file becomes."),
    Setting(
        key="deps.kinds",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="Which packages a new clone gets: `auto`, or some of npm, pnpm, yarn, uv, pip and cargo.",
    ),
    Setting(
        key="deps.required",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="Whether a clone that does not get its packages is not made at all.",
    ),
    Setting(
        key="deps.scripts",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="Whether packages of npm, pnpm and yarn may run scripts of theirs when installed.",
    ),
    Setting(
        key="deps.timeout",
        kind=Kind.SECONDS,
        default="600",
        sources=_OWN,
        doc="How many seconds an installer, or the copy of a folder, may take.",
    ),
    Setting(
        key="notify.command",
        kind=Kind.COMMAND,
        sources=_OWN,
        doc="A program that is told what is through, by KHLONE_EVENT and KHLONE_MESSAGE.",
    ),
    Setting(
        key="notify.how",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="Ways to tell what is through: some of bell, osc9, osc777 and desktop.",
    ),
    Setting(
        key="notify.events",
        kind=Kind.WORDS,
        default="merged held failed ended waiting",
        sources=_OWN,
        doc="Which events are told: some of merged, held, failed, ended and waiting (an agent waits for a person).",
    ),
    *(
        Setting(key=f"agents.*.{key}", kind=kind, sources=_OWN, doc=f"An agent of your own: {what}.")
        for key, kind, what in _AGENT_KEYS
    ),
    Setting(
        key="generic.variable",
        kind=Kind.WORDS,
        default="KHLONE_CONFIG_DIR",
        sources=_OWN,
        doc="The variables that agent `generic` sets to its config dir.",
    ),
    Setting(
        key="allowNetworkFileSystem",
        kind=Kind.FLAG,
        default="false",
        sources=_OWN,
        doc="Work on a network file system, when one machine alone uses the repository.",
    ),
    Setting(
        key="hooks",
        kind=Kind.CHOICE,
        choices=("all", "clones"),
        sources=(Source.GIT,),
        option="hooks install --all",
        doc="For which worktrees git hooks are wanted; with `clones` every new clone has them. "
        "In the two files `[hooks]` is a table of shell hooks.",
    ),
    Setting(
        key="session.allow",
        kind=Kind.WORDS,
        sources=_OWN,
        doc="What a command that runs in a clone may do that is otherwise the user's alone: any of `trust`, `remove`, "
        "`stop`, `rename`, `undo`, `prune`, `hooks`, `setup`, `force` and `uninstall`. From git only the account's own "
        "configuration counts, not a repository's, and no variable of the session.",
    ),
    Setting(
        key="trailer",
        kind=Kind.FLAG,
        default="false",
        sources=(Source.GIT,),
        doc="Whether khlone's hook prepare-commit-msg adds a trailer with the clone's name to commits.",
    ),
)


def find(key: str) -> Setting | None:
    """The setting that a key, lower case, without `khlone.`, belongs to."""
    return next((one for one in _by_precision() if one.matches(key)), None)


def _by_precision() -> Iterator[Setting]:
    """Keys before patterns."""
    yield from (one for one in SETTINGS if not one.is_pattern)
    yield from (one for one in SETTINGS if one.is_pattern)


def parse(setting: Setting, key: str, text: str) -> object:
    """The value that a text stands for: bool, int, float or str; raises InvalidSetting naming `key`."""
    if setting.kind is Kind.FLAG:
        found = as_bool(text)
        if found is None:
            raise InvalidSetting(key, text, f"it must be {setting.expected}")
        return found
    if setting.kind is Kind.SIZE:
        return as_bytes(key, text)
    if setting.kind is Kind.DURATION:
        return as_seconds(key, text)
    form = {Kind.COUNT: r"\d{1,9}", **dict.fromkeys((Kind.SECONDS, Kind.AMOUNT), r"\d{1,6}(\.\d{1,6})?")}.get(
        setting.kind
    )
    if form is not None:
        if re.fullmatch(form, text) is None:
            raise InvalidSetting(key, text, f"it must be {setting.expected}")
        return float(text)
    if setting.choices and text and text not in setting.choices:
        raise InvalidSetting(key, text, f"it must be {setting.expected}")
    return text


def as_bool(text: str) -> bool | None:
    """A boolean as git reads it, `None` for anything else."""
    low = text.lower()
    if low in _TRUE or low in _FALSE:
        return low in _TRUE
    try:
        return int(low) != 0
    except ValueError:
        return None


#: A number that is right but for its length.
_LARGE = r"\s*\d{10,}\s*([smhdwKMGTkgt]?)(i?[Bb])?\s*\Z"
_TOO_LARGE = "it is too large"


def as_bytes(key: str, text: str) -> int:
    """Bytes of a size such as 500M or 10G (powers of 1024); raises InvalidSetting."""
    match = re.fullmatch(r"(\d{1,12})\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidSetting(key, text, _TOO_LARGE if re.match(_LARGE, text) else f"it must be {Kind.SIZE.value}")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


def as_seconds(key: str, text: str) -> float:
    """Seconds of a duration such as 90m, 12h, 30d, 2w or plain seconds; raises InvalidSetting."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhdw]?)", text.strip())
    if match is None:
        raise InvalidSetting(key, text, _TOO_LARGE if re.match(_LARGE, text) else f"it must be {Kind.DURATION.value}")
    return float(int(match[1]) * _UNITS_S[match[2] or "s"])
