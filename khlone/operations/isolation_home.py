"""How does a clone get a HOME of its own that git, ssh and toolchains still work in?

    <private folder of the clone>/home/
        .gitconfig          the clone's own; includes the user's by their paths
        .ssh/config         the user's known hosts are read, new ones come into a file beside it
        .config/khlone      a link to the user's own settings of khlone
        .npm .cache/pip     links to package caches, and to what else the settings choose

Made once, and what is missing again before each start. Keys are not among it: ssh gets
them from the user's agent, whose socket stays known. Nothing is written outside of it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from khlone import files, process
from khlone.app import App
from khlone.errors import InvalidSetting
from khlone.model import CloneRecord, Isolation
from khlone.operations import agents
from khlone.operations.isolation import MOVED, Start
from khlone.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Where a package manager keeps what it fetched, below HOME or XDG_CACHE_HOME, and what would move it."""

    in_home: tuple[str, ...] = ()
    in_cache: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


CACHES: Mapping[str, Cache] = {
    "npm": Cache(in_home=(".npm",), variables=("NPM_CONFIG_CACHE", "npm_config_cache")),
    "pnpm": Cache(in_home=(".local/share/pnpm/store",), variables=("PNPM_HOME",)),
    "yarn": Cache(in_cache=("yarn",), variables=("YARN_CACHE_FOLDER",)),
    "pip": Cache(in_cache=("pip",), variables=("PIP_CACHE_DIR",)),
    "uv": Cache(in_cache=("uv",), variables=("UV_CACHE_DIR",)),
    "cargo": Cache(in_home=(".cargo/registry", ".cargo/git"), variables=("CARGO_HOME",)),
    "go": Cache(in_home=("go/pkg/mod",), in_cache=("go-build",), variables=("GOPATH", "GOMODCACHE", "GOCACHE")),
}
#: Keys of git whose value is a path, in which git puts HOME for `~/`: the user's is meant, not the clone's.
PATHS = frozenset(
    {
        "commit.template",
        "core.attributesfile",
        "core.excludesfile",
        "core.hookspath",
        "gpg.ssh.allowedsignersfile",
        "gpg.ssh.revocationfile",
        "init.templatedir",
        "user.signingkey",
        "blame.ignorerevsfile",
    }
)


class Home:
    """Level `home`."""

    def require(self, app: App, *, is_new: bool = False) -> None:
        """Nothing is needed, but settings that can be used."""
        del is_new
        caches(app)
        links(app)

    def prepare(self, app: App, clone: CloneRecord) -> None:
        """Make the home, or what is missing in it."""
        home = app.config_dirs.home_path(clone.id)
        user = user_of(app, clone)
        with files.explained(home):
            for folder in (home, home / ".config", home / ".cache", home / ".local", home / ".ssh"):
                files.make_private_dir(folder)
            self._write_ssh_config(app, home, user)
            self._write_git_config(home, user, collects=clone.isolation is Isolation.HOME)
            if user.config is not None:
                _link(user.config / "khlone", home / ".config/khlone")
            for place, target in shared(app, user).items():
                if target.exists():
                    _link(target, home / place)

    def variables(self, app: App, clone: CloneRecord) -> Mapping[str, str | None]:
        """The home, and what leads below it; variables that would lead package managers out of it are taken away."""
        home = app.config_dirs.home_path(clone.id)
        chosen = caches(app)
        left_out = {name: None for key, cache in CACHES.items() if key not in chosen for name in cache.variables}
        return {
            **left_out,
            "HOME": os.fspath(home),
            "XDG_CONFIG_HOME": os.fspath(home / ".config"),
            "XDG_CACHE_HOME": os.fspath(home / ".cache"),
            "XDG_DATA_HOME": os.fspath(home / ".local/share"),
            "XDG_STATE_HOME": os.fspath(home / ".local/state"),
            "GIT_CONFIG_GLOBAL": os.fspath(home / ".gitconfig"),
        }

    def wrap(self, app: App, start: Start) -> Start:
        """Variables do it all."""
        del app
        return start

    def ended(self, app: App, start: Start, status: int | None) -> None:
        """Nothing is left of it."""
        del app, start, status

    def _write_ssh_config(self, app: App, home: Path, user: User) -> None:
        place = home / ".ssh/config"
        if files.exists(place):
            return
        # Named as global ones, the user's known hosts are never written to.
        known = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
        known += [os.fspath(user.home / ".ssh/known_hosts")] if user.home is not None else []
        lines = [
            f"UserKnownHostsFile {_ssh_quoted(home / '.ssh/known_hosts')}",
            f"GlobalKnownHostsFile {' '.join(map(_ssh_quoted, known))}",
        ]
        if user.home is not None and app.settings.value("isolation.sshconfig") is True:
            lines.append(f"Include {_ssh_quoted(user.home / '.ssh/config')}")
        lines.append("Include /etc/ssh/ssh_config")
        files.write_new(place, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"), durable=False)

    def _write_git_config(self, home: Path, user: User, *, collects: bool) -> None:
        place = home / ".gitconfig"
        if files.exists(place):
            return
        # ssh goes by the account's home, whatever HOME says. What the user has set comes later, and counts.
        ssh = f"ssh -F {shlex.quote(os.fspath(home / '.ssh/config'))}"
        lines = ["[core]", f"\tsshCommand = {_git_quoted(ssh)}"]
        for path in user.git_files():
            lines += ["[include]", f"\tpath = {_git_quoted(os.fspath(path))}"]
        for key, value in _of_user(user):
            section, _, name = key.rpartition(".")
            kind, dot, below = section.partition(".")
            lines += [f"[{kind} {_git_quoted(below)}]" if dot else f"[{kind}]", f"\t{name} = {_git_quoted(value)}"]
        if not collects:
            # Collecting garbage writes where such clones may not.
            lines += ["[gc]", "\tauto = 0", "[maintenance]", "\tauto = false"]
        content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
        files.write_new(place, content, durable=False)


# -- the user's ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The account as it was when a clone was made: its variables, and the folders that they mean."""

    variables: Mapping[str, str]

    @property
    def home(self) -> Path | None:
        """The user's HOME."""
        return self._folder("HOME")

    @property
    def config(self) -> Path | None:
        """Where the user's settings of programs lie."""
        return self._folder("XDG_CONFIG_HOME") or (None if self.home is None else self.home / ".config")

    @property
    def cache(self) -> Path | None:
        """Where the user's programs keep what can be made again."""
        return self._folder("XDG_CACHE_HOME") or (None if self.home is None else self.home / ".cache")

    def git_files(self) -> list[Path]:
        """The user's files of git's configuration, those that come later count more."""
        if "GIT_CONFIG_GLOBAL" in self.variables:
            named = self._folder("GIT_CONFIG_GLOBAL")
            return [] if named is None else [named]
        found = [] if self.config is None else [self.config / "git/config"]
        return found if self.home is None else [*found, self.home / ".gitconfig"]

    def _folder(self, variable: str) -> Path | None:
        found = self.variables.get(variable, "")
        return Path(found) if os.path.isabs(found) else None


def user_of(app: App, clone: CloneRecord) -> User:
    """The user whose clone it is, whoever calls."""
    return User(variables=agents.user_environment(app, app.config_dirs.clone_path(clone.id)))


def caches(app: App) -> list[str]:
    """The package caches that clones share with the user; raises InvalidSetting for one that is not known."""
    words = str(app.settings.value("isolation.caches") or "").replace(",", " ").split()
    for word in words:
        if word not in CACHES:
            raise InvalidSetting("khlone.isolation.caches", word, f"it must be some of {', '.join(CACHES)}")
    return words


def links(app: App) -> list[str]:
    """What else of the user's HOME clones have links to; raises InvalidSetting for a path that leads out of it."""
    words = str(app.settings.value("isolation.links") or "").split()
    for word in words:
        if os.path.isabs(word) or os.path.normpath(word) != word or word.split("/")[0] in (".", "..", ".git"):
            raise InvalidSetting("khlone.isolation.links", word, "it must be a path below HOME")
    return words


def shared(app: App, user: User) -> dict[str, Path]:
    """What a clone's home has links to, by the path in it, whether the user has it or not."""
    found: dict[str, Path] = {}
    for key in caches(app):
        if user.home is not None:
            found |= {place: user.home / place for place in CACHES[key].in_home}
        if user.cache is not None:
            found |= {f".cache/{place}": user.cache / place for place in CACHES[key].in_cache}
    if user.home is not None:
        found |= {place: user.home / place for place in links(app) if place not in found}
    return found


def _of_user(user: User) -> Iterator[tuple[str, str]]:
    """What the user's configuration of git says by `~/`, with the user's HOME in its place."""
    if user.home is None:
        return
    asked = [process.git_executable(), "config", "--global", "--includes", "--list", "-z"]
    kept = {name: value for name, value in user.variables.items() if name in (*MOVED, "PATH")}
    done = process.run(asked, cwd=Path("/"), environment=kept, timeout_s=30.0)
    pairs = [item.partition("\n")[::2] for item in done.text.split("\0") if item] if done.status == 0 else []
    for key, value in pairs:
        is_include = key == "include.path" or (key.startswith("includeif.") and key.endswith(".path"))
        if value.startswith("~/") and (key in PATHS or is_include):
            yield key.replace(":~/", f":{user.home}/"), f"{user.home}{value[1:]}"
    known = {key for key, _ in pairs}
    for key, name in (("core.excludesfile", "ignore"), ("core.attributesfile", "attributes")):
        if key not in known and user.config is not None and (user.config / "git" / name).is_file():
            yield key, os.fspath(user.config / "git" / name)


def _link(target: Path, place: Path) -> None:
    """A link at a place below the home that has nothing yet; what is there is the clone's."""
    if files.exists(place) or target == place:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink(target, place)


def _git_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _ssh_quoted(path: Path | str) -> str:
    return '"' + os.fspath(path).replace("%", "%%") + '"'
