"""Which settings are in force, and where does each come from?

The keys are the same in `git config khlone.*`, in the repository's `.khlone.toml` and in
the user's `config.toml`, in that order of precedence; a flag beats them all. A
repository's file is data that anyone may have committed: keys that name code or places
are not read from it. Where git's files are plain, git is not asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from khlone import git_config, process
from khlone.errors import InvalidSetting
from khlone.files import read_regular
from khlone.values import dataclass, field

#: Keys that a repository's own file may set: harmless whoever wrote them.
_FROM_PROJECT = re.compile(r"(agent|target|durable|gate\.required|limits\..*|trash\..*)\Z")
_TRUE = {"true", "yes", "on"}
#: Empty is false to git, a key without `=` true: `_git_config` writes the latter out.
_FALSE = {"false", "no", "off", ""}

DEFAULT_INCLUDE_SIZE = "512M"
DEFAULT_AGENT = "claude"
DEFAULT_PLUGINS_TIMEOUT = "60"
DEFAULT_WORKTREE = "{parent}/{repository}.clones/{folder}"
PROJECT_FILE = ".khlone.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force; `values` holds every `khlone.*` key, lower case, without that prefix."""

    values: Mapping[str, str] = field(default_factory=dict)
    gpg_sign: bool = False
    has_checkout_workers: bool = False

    @property
    def agent(self) -> str:
        """The agent of a new clone."""
        return self.values.get("agent") or DEFAULT_AGENT

    @property
    def worktree(self) -> str:
        """The template of a new worktree's path."""
        return self.values.get("worktree") or DEFAULT_WORKTREE

    @property
    def target(self) -> str | None:
        """The target of a new clone."""
        return self.values.get("target") or None

    @property
    def durable(self) -> bool:
        """Whether a created clone is on disk, not only in the page cache, when `new` returns."""
        return self._flag("durable", True)

    @property
    def sync_by_rebase(self) -> bool:
        """Whether `sync` rebases rather than merges."""
        value = self.values.get("sync", "merge")
        if value not in ("merge", "rebase"):
            raise InvalidSetting("khlone.sync", value, "it must be merge or rebase")
        return value == "rebase"

    @property
    def gate_required(self) -> bool:
        """Whether a landing without any gate is refused."""
        return self._flag("gate.required", False)

    @property
    def gate_commands(self) -> Mapping[str, str]:
        """The gate commands by name."""
        return {
            key.removeprefix("gate."): value
            for key, value in self.values.items()
            if key.startswith("gate.") and key != "gate.required"
        }

    @property
    def allow_network_file_system(self) -> bool:
        """Whether a repository on a network file system may be used."""
        return self._flag("allownetworkfilesystem", False)

    @property
    def hooks(self) -> str | None:
        """For which worktrees git hooks are wanted: `all`, `clones` or none."""
        value = self.values.get("hooks") or None
        if value not in (None, "all", "clones"):
            raise InvalidSetting("khlone.hooks", value, "it must be all or clones")
        return value

    @property
    def include_size(self) -> int:
        """How many bytes of ignored files a new clone may get copies of."""
        return as_bytes("khlone.include.size", self.values.get("include.size", DEFAULT_INCLUDE_SIZE))

    @property
    def plugins_timeout_s(self) -> float:
        """How long one hook of a plugin may take; 0 is as long as it likes."""
        value = self.values.get("plugins.timeout", DEFAULT_PLUGINS_TIMEOUT)
        if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value) is None:
            raise InvalidSetting("khlone.plugins.timeout", value, "it must be a number of seconds")
        return float(value)

    def _flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        found = _as_bool(value)
        if found is None:
            raise InvalidSetting(f"khlone.{key}", value, "it must be true or false")
        return found


def as_bytes(key: str, text: str) -> int:
    """Bytes of a size such as 500M or 10G (powers of 1024); raises InvalidSetting."""
    match = re.fullmatch(r"(\d{1,12})\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidSetting(key, text, "it must be a number with K, M, G or T")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


def _as_bool(value: str) -> bool | None:
    """A boolean as git reads it, `None` for anything else."""
    low = value.lower()
    if low in _TRUE or low in _FALSE:
        return low in _TRUE
    try:
        return int(low) != 0
    except ValueError:
        return None


def load(
    *, common_dir: Path, git_dir: Path, cwd: Path, worktree: Path | None, environment: Mapping[str, str]
) -> Settings:
    """Read every source; raises InvalidSetting for a file that cannot be parsed."""
    values: dict[str, str] = {}
    user = user_file(environment)
    if user is not None:
        values.update(_toml(user))
    if worktree is not None:
        project = _toml(worktree / PROJECT_FILE)
        values.update({key: value for key, value in project.items() if _FROM_PROJECT.match(key)})
    gpg_sign = has_workers = False
    pairs = git_config.read(common_dir, git_dir, environment)
    for key, value in _git_config(git_dir, cwd, environment) if pairs is None else pairs:
        if key.startswith("khlone."):
            values[key.removeprefix("khlone.").lower()] = value
        elif key == "commit.gpgsign":
            gpg_sign = bool(_as_bool(value))
        elif key == "checkout.workers":
            has_workers = True
    return Settings(values=values, gpg_sign=gpg_sign, has_checkout_workers=has_workers)


def _git_config(git_dir: Path, cwd: Path, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    kept = process.scrubbed(environment)
    for name, value in environment.items():
        if name.startswith(("GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")):
            kept[name] = value
    # Named, since the working folder need not lead to it: GIT_DIR may have.
    asked = [process.git_executable(), "--git-dir", os.fspath(git_dir), "config", "--list", "-z"]
    done = process.run(asked, cwd=cwd, environment=kept, timeout_s=30.0)
    if done.status != 0:
        raise InvalidSetting("git config", "", done.error_text.strip() or "git could not read it")
    pairs = []
    for item in done.text.split("\0"):
        key, equals, value = item.partition("\n")
        if key:
            pairs.append((key, value if equals else "true"))
    return pairs


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's own file lies, whether it is there or not; `None` where there is no place for it."""
    base = environment.get("XDG_CONFIG_HOME")
    if base and os.path.isabs(base):
        return Path(base, "khlone", "config.toml")
    home = environment.get("HOME")
    return Path(home, ".config", "khlone", "config.toml") if home and os.path.isabs(home) else None


def _toml(path: Path) -> dict[str, str]:
    try:
        content = read_regular(path)
    except OSError as error:
        raise InvalidSetting(str(path), "", os.strerror(error.errno or 0).lower()) from error
    if content is None:
        return {}
    import tomllib

    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(str(path), "", str(error)) from error
    return dict(_flatten("", document))


def _flatten(prefix: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        found: list[tuple[str, str]] = []
        for key, inner in value.items():
            found += _flatten(f"{prefix}.{key.lower()}" if prefix else _key(key), inner)
        return found
    if isinstance(value, bool):
        return [(prefix, "true" if value else "false")]
    if isinstance(value, list):
        words = [str(item) for item in value]
        import shlex

        # Words of an agent's command line may hold spaces; other lists are of plain words.
        return [(prefix, shlex.join(words) if prefix.startswith("agents.") else " ".join(words))]
    return [(prefix, str(value))]


def _key(name: str) -> str:
    """A top-level key as git would write it: `allow-network-file-system` is `allownetworkfilesystem`."""
    return name.lower() if "." in name else name.lower().replace("_", "").replace("-", "")
