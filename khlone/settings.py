"""Which settings are in force, and where does each come from?

The keys of setting_table.py are the same in `git config khlone.*`, in the repository's
`.khlone.toml` and in the user's `config.toml`, in that order of precedence; some have a
variable that beats the files, and a flag beats them all. A repository's file is data that
anyone may have committed: keys that name code or places are not read from it. Where git's
files are plain, git is not asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from khlone import git_config, process, setting_table
from khlone.errors import InvalidSetting, KhloneError, StateUnsafe
from khlone.files import read_regular
from khlone.model import Isolation
from khlone.setting_table import Setting, Source
from khlone.values import dataclass, field

PROJECT_FILE = ".khlone.toml"
#: Of the user's value and of that of a repository's own file the one that is chosen counts: anyone may have
#: committed the latter, and it must not loosen what the user demands. It may demand more.
_STRICTER: Mapping[str, Callable[[Any], object]] = {
    "gate.required": max,
    "durable": max,
    "limits.sessions": min,
    "limits.memory": min,
    "trash.age": max,
    "trash.size": max,
}
#: What verbs that only ask go by too, which a value that cannot be used must not stop.
_GONE_BY = ("durable", "plugins.timeout")
#: Longer than any talk with a remote.
_FOREVER_S = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value comes from: a file, or a variable of the environment, or neither."""

    source: Source
    file: Path | None = None
    variable: str | None = None

    def line_of(self, key: str) -> int | None:
        """The line in which the key stands, where there is a file that tells; the file is read again for it."""
        if self.file is None:
            return None
        from khlone import setting_files

        return setting_files.line_of(self.file, key)

    def shown(self, key: str) -> str:
        """The place of a key for people: FILE:LINE, or the variable."""
        if self.file is None:
            return self.variable or {Source.COMMAND: "the command line"}.get(self.source, self.source.value)
        line = self.line_of(key)
        return str(self.file) if line is None else f"{self.file}:{line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force; `values` holds every `khlone.*` key, lower case, without that prefix.

    `origins` says where each comes from; `left_out` are keys that stand where they are not taken from,
    `broken` says why a file could not be read, of which nothing counts then.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    left_out: Sequence[tuple[str, Origin]] = ()
    broken: Sequence[KhloneError] = ()
    gpg_sign: bool = False
    has_checkout_workers: bool = False
    author_address: str | None = None

    def require_whole(self) -> None:
        """Raise what keeps a file from being read, or a value that every verb goes by, from being used.

        For whatever must not go by half of the settings.
        """
        for error in self.broken:
            raise error
        for key in _GONE_BY:
            self.value(key)

    def faults(self) -> Iterator[KhloneError]:
        """Every value of a setting of khlone's own that cannot be used."""
        for key in self.values:
            if setting_table.find(key) is not None:
                try:
                    self.value(key)
                except InvalidSetting as error:
                    yield error

    @property
    def agent(self) -> str:
        """The agent of a new clone."""
        return str(self.value("agent"))

    def inherits_key(self, agent: str) -> bool:
        """Whether a key in the environment is passed on to an agent."""
        return self.value(f"agents.{agent.lower()}.inherit-key") is True

    @property
    def worktree(self) -> str:
        """The template of a new worktree's path."""
        return str(self.value("worktree"))

    @property
    def target(self) -> str | None:
        """The target of a new clone."""
        return self._text("target")

    @property
    def isolation(self) -> Isolation:
        """How far a new clone is kept apart."""
        return Isolation(str(self.value("isolate")))

    @property
    def durable(self) -> bool:
        """Whether a created clone is on disk, not only in the page cache, when `new` returns; so where it is unsaid."""
        with contextlib.suppress(InvalidSetting):
            return self.value("durable") is True
        return True

    @property
    def sync_by_rebase(self) -> bool:
        """Whether `sync` rebases rather than merges."""
        return self.value("sync") == "rebase"

    @property
    def gate_required(self) -> bool:
        """Whether a landing without any gate is refused."""
        return self.value("gate.required") is True

    @property
    def merge_mode(self) -> str:
        """How gates look at what waits: `batch`, `serial` or `speculative`."""
        return str(self.value("merge.mode"))

    @property
    def merge_window(self) -> int | None:
        """How many candidates gates look at at once in the speculative mode, `None` where the machine decides."""
        found = self.value("merge.window")
        return int(found) or None if isinstance(found, (int, float)) else None

    @property
    def merge_memory(self) -> int:
        """Bytes of memory that the gates of one candidate are taken to need."""
        found = self.value("merge.memory")
        assert isinstance(found, int)
        return found

    @property
    def merge_hooks(self) -> bool:
        """Whether the user's commit hooks look at what lands."""
        return self.value("merge.hooks") is True

    @property
    def merge_push(self) -> bool:
        """Whether what lands goes to the target's upstream too."""
        return self.value("merge.push") is True

    @property
    def first_lands(self) -> bool:
        """Whether of several clones that fail only together the first in the queue lands all the same."""
        return self.value("merge.firstlands") is True

    @property
    def approval_required(self) -> bool:
        """Whether only a commit that somebody approved lands."""
        return self.value("merge.approval") is True

    @property
    def squash_template(self) -> str | None:
        """What the commit of a squashed clone says instead of what khlone would say."""
        return self._text("squash.template")

    @property
    def allow_network_file_system(self) -> bool:
        """Whether a repository on a network file system may be used."""
        return self.value("allownetworkfilesystem") is True

    @property
    def hooks(self) -> str | None:
        """For which worktrees git hooks are wanted: `all`, `clones` or none."""
        return self._text("hooks")

    @property
    def include_size(self) -> int:
        """How many bytes of ignored files a new clone may get copies of."""
        found = self.value("include.size")
        assert isinstance(found, int)
        return found

    @property
    def trash_age_s(self) -> float:
        """The age, in seconds, above which trash goes."""
        found = self.value("trash.age")
        assert isinstance(found, float)
        return found

    @property
    def trash_size(self) -> int | None:
        """How many bytes the trash may hold; `None` for any number."""
        found = self.value("trash.size")
        return found if isinstance(found, int) else None

    @property
    def plugins_timeout_s(self) -> float:
        """How long one hook of a plugin may take; 0 is as long as it likes, what cannot be used is the default."""
        found: object = None
        with contextlib.suppress(InvalidSetting):
            found = self.value("plugins.timeout")
        return found if isinstance(found, float) else float(str(_default_of("plugins.timeout")))

    @property
    def remote(self) -> str | None:
        """The remote that clones are pushed to and pull requests come from."""
        return self._text("remote")

    @property
    def network_timeout_s(self) -> float:
        """How long one talk with a remote may take, the hooks of a push included; 0 is as long as it likes."""
        found = self.value("network.timeout")
        assert isinstance(found, float)
        return found or _FOREVER_S

    @property
    def forge(self) -> str | None:
        """The program that opens pull requests: `gh`, `glab`, or none, and the remote's address says it."""
        return self._text("forge")

    def value(self, key: str) -> object:
        """The value of one setting of the table, or its default; raises InvalidSetting naming where it stands."""
        setting = setting_table.find(key)
        assert setting is not None, key
        text = self.values.get(key)
        if text is None or (not text and not _may_be_empty(setting)):
            return None if setting.default is None else setting_table.parse(setting, key, setting.default)
        try:
            return setting_table.parse(setting, f"khlone.{setting.key}", text)
        except InvalidSetting as error:
            origin = self.origins.get(key)
            where = None if origin is None else origin.shown(key)
            raise InvalidSetting(f"khlone.{setting.key}", text, str(error.facts["why"]), where) from None

    def _text(self, key: str) -> str | None:
        found = self.value(key)
        return found if isinstance(found, str) and found else None


def _default_of(key: str) -> str | None:
    setting = setting_table.find(key)
    return None if setting is None else setting.default


def _may_be_empty(setting: Setting) -> bool:
    """Whether an empty value says something: a flag that is off, a list of nothing, a number that is none."""
    return setting.kind not in (setting_table.Kind.TEXT, setting_table.Kind.CHOICE)


def load(
    *,
    common_dir: Path | None,
    git_dir: Path | None,
    cwd: Path,
    worktree: Path | None,
    environment: Mapping[str, str],
) -> Settings:
    """Read every source, without a repository those of the user; raises InvalidSetting for what git cannot read."""
    reader = _Reader()
    user = user_file(environment)
    if user is not None:
        reader.take_file(user, Source.USER)
    if worktree is not None:
        reader.take_file(worktree / PROJECT_FILE, Source.PROJECT)
    pairs = _plain_git_config(common_dir, git_dir, environment)
    if pairs is None:
        pairs = _git_config(git_dir, cwd, environment)
    for key, value, origin in pairs:
        if origin.source is Source.GIT:
            reader.take_git(key, value, origin)
    reader.take_environment(environment)
    for key, value, origin in pairs:
        if origin.source is not Source.GIT:
            reader.take_git(key, value, origin)
    return reader.settings()


#: Where the address of whoever commits stands, the first that is set counts.
_ADDRESSES = ("GIT_AUTHOR_EMAIL", "author.email", "user.email")


class _Reader:
    """Collects values, those of higher precedence later."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._origins: dict[str, Origin] = {}
        self._left_out: list[tuple[str, Origin]] = []
        self._broken: list[KhloneError] = []
        self._gpg_sign = self._has_workers = False
        self._addresses: dict[str, str] = {}

    def settings(self) -> Settings:
        """What was collected."""
        return Settings(
            values=self._values,
            origins=self._origins,
            left_out=self._left_out,
            broken=self._broken,
            gpg_sign=self._gpg_sign,
            has_checkout_workers=self._has_workers,
            author_address=next((self._addresses[key] for key in _ADDRESSES if self._addresses.get(key)), None),
        )

    def take_file(self, path: Path, source: Source) -> None:
        """A TOML file, when it is there; its table `hooks`, and the gates of a repository, are read elsewhere."""
        origin = Origin(source=source, file=path)
        try:
            pairs = _toml(path)
        except (InvalidSetting, StateUnsafe) as error:
            self._broken.append(error)
            return
        for key, value in pairs:
            if not key.startswith("hooks."):
                self._take(key, value, origin)

    def take_environment(self, environment: Mapping[str, str]) -> None:
        """The variables that stand for settings; an empty one counts where empty means something."""
        self._addresses["GIT_AUTHOR_EMAIL"] = environment.get("GIT_AUTHOR_EMAIL", "")
        for setting in setting_table.SETTINGS:
            value = None if setting.variable is None else environment.get(setting.variable)
            if value is not None and (value or setting.kind is setting_table.Kind.WORDS):
                self._take(setting.key.lower(), value, Origin(source=Source.ENVIRONMENT, variable=setting.variable))

    def take_git(self, key: str, value: str, origin: Origin) -> None:
        """One pair of git's configuration."""
        if key.startswith("khlone."):
            self._take(key.removeprefix("khlone.").lower(), value, origin)
        elif key == "commit.gpgsign":
            self._gpg_sign = bool(setting_table.as_bool(value))
        elif key == "checkout.workers":
            self._has_workers = True
        elif key in _ADDRESSES:
            self._addresses[key] = value

    def _take(self, key: str, value: str, origin: Origin) -> None:
        setting = setting_table.find(key)
        from_file = origin.source in (Source.USER, Source.PROJECT)
        # A key that is not in the table may be a plugin's: the user may set it, a repository's own file may not.
        taken_from = (Source.USER,) if setting is None else setting.sources
        if origin.source is Source.PROJECT and key.startswith("gate.") and key != "gate.required":
            return  # Needs approval: `operations.gates` reads it.
        if from_file and origin.source not in taken_from:
            self._left_out.append((key, origin))
            return
        if origin.source is Source.PROJECT and setting is not None and self._is_looser(setting, key, value):
            return
        self._values[key] = value
        self._origins[key] = origin

    def _is_looser(self, setting: Setting, key: str, value: str) -> bool:
        """Whether a repository's own file asks for less than the user has demanded for all repositories."""
        stricter, demanded = _STRICTER.get(key), self._values.get(key)
        if stricter is None or demanded is None:
            return False
        try:
            asked, kept = (setting_table.parse(setting, key, text) for text in (value, demanded))
        except InvalidSetting:  # told where the value is used
            return False
        return asked != kept and stricter([asked, kept]) == kept


def remarks(found: Settings, plugins: Callable[[], Iterable[str]]) -> list[str]:
    """What to tell of keys that nobody reads, with their places; keys below a plugin's name are that plugin's."""
    unknown = [(key, origin) for key, origin in found.origins.items() if setting_table.find(key) is None]
    if not unknown and not found.left_out:
        return []
    owners = {name.lower() for name in plugins()}
    told = []
    for key, origin in (*unknown, *found.left_out):
        setting = setting_table.find(key)
        if setting is None and key.split(".")[0] not in owners:
            meant = near(key)
            told.append(
                f"{origin.shown(key)}: there is no setting khlone.{key}" + (f"; did you mean {meant}?" if meant else "")
            )
        elif origin.source is Source.PROJECT:
            told.append(
                f"{origin.shown(key)}: khlone.{key} is not taken from a repository's own file; "
                "set it with git khlone config set --user or --repository"
            )
        elif (key, origin) in found.left_out:
            told.append(f"{origin.shown(key)}: khlone.{key} is taken from git's configuration alone")
    return told


def near(key: str) -> str | None:
    """The setting whose key, lower case, or the table whose name is most like this one; `None` where none is."""
    import difflib

    known = {one.key.lower(): one.key for one in setting_table.SETTINGS}
    found = difflib.get_close_matches(key, known, n=1)
    if found:
        return f"khlone.{known[found[0]]}"
    tables = difflib.get_close_matches(key.partition(".")[0], ("hooks", "gate"), n=1)
    return f"the table [{tables[0]}]" if "." in key and tables else None


def _plain_git_config(
    common_dir: Path | None, git_dir: Path | None, environment: Mapping[str, str]
) -> list[tuple[str, str, Origin]] | None:
    pairs = git_config.read(common_dir, git_dir, environment)
    if pairs is None:
        return None
    return [(key, value, Origin(source=Source.GIT, file=path)) for key, value, path in pairs]


def _git_config(git_dir: Path | None, cwd: Path, environment: Mapping[str, str]) -> list[tuple[str, str, Origin]]:
    kept = process.scrubbed(environment)
    for name, value in environment.items():
        if name.startswith(("GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")):
            kept[name] = value
    # Named, since the working folder need not lead to it: GIT_DIR may have.
    repository = [] if git_dir is None else ["--git-dir", os.fspath(git_dir)]
    asked = [process.git_executable(), *repository, "config", "--list", "-z", "--show-origin"]
    done = process.run(asked, cwd=cwd, environment=kept, timeout_s=30.0)
    if done.status != 0:
        raise InvalidSetting("git config", "", done.error_text.strip() or "git could not read it")
    pairs = []
    fields = iter(done.text.split("\0"))
    for place, item in zip(fields, fields, strict=False):
        key, equals, value = item.partition("\n")
        kind, _, path = place.partition(":")
        origin = Origin(source=Source.COMMAND)
        if kind == "file":
            origin = Origin(source=Source.GIT, file=cwd / path)
        pairs.append((key, value if equals else "true", origin))
    return pairs


def allowed_in_sessions(environment: Mapping[str, str], known: Collection[str]) -> frozenset[str]:
    """What the user lets sessions do, by `khlone.session.allow` of their own git configuration, else of their file.

    What a repository holds, which a session can write, has no say. Raises InvalidSetting
    for a word that is not `known`.
    """
    # Only the places of the account's files: anything else of git's could name another value.
    places = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "PATH")
    kept = {name: environment[name] for name in places if name in environment}
    asked = [process.git_executable(), "config", "--global", "--includes", "--get", "khlone.session.allow"]
    done = process.run(asked, cwd=Path("/"), environment=kept, timeout_s=30.0)
    value = done.text
    if done.status != 0:
        own = user_file(environment)
        value = "" if own is None else dict(_toml(own)).get("session.allow", "")
    words = frozenset(value.replace(",", " ").split())
    if unknown := sorted(words.difference(known)):
        raise InvalidSetting("khlone.session.allow", unknown[0], f"it must be some of {', '.join(known)}")
    return words


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's own file lies, whether it is there or not; `None` where there is no place for it."""
    base = environment.get("XDG_CONFIG_HOME")
    if base and os.path.isabs(base):
        return Path(base, "khlone", "config.toml")
    home = environment.get("HOME")
    return Path(home, ".config", "khlone", "config.toml") if home and os.path.isabs(home) else None


def project_values(path: Path) -> dict[str, str]:
    """Every key of a repository's own file, whoever wrote it; raises InvalidSetting."""
    return dict(_toml(path))


def _toml(path: Path) -> list[tuple[str, str]]:
    try:
        content = read_regular(path)
    except OSError as error:
        raise InvalidSetting(str(path), "", os.strerror(error.errno or 0).lower()) from error
    if content is None:
        return []
    import tomllib

    from khlone import setting_files

    try:
        return setting_files.flatten(tomllib.loads(content.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting.of_file(path, error) from error
