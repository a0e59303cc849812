"""What does a use case work with? One repository with its adapters, each opened when first used.

`App.open` finds the repository; nothing is created on disk before `prepare_state`, which
every mutating operation calls first. No adapter knows another: they meet here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import discovery, files, mounts, repository, settings, worktrees
from khlone.config_dir import ConfigDirs, cache_root, state_root
from khlone.errors import KhloneError, NetworkFileSystem, NoSuchClone, NotPermitted, RepositoryUnsupported, UsageError
from khlone.model import CloneRecord, Location
from khlone.registry import Registry

if TYPE_CHECKING:
    from khlone.entry_points import Selection
    from khlone.locks import Locks
    from khlone.plugins import Plugins
    from khlone.queue_watch import QueueView

#: Set inside every process that khlone starts in a clone.
SESSION_VARIABLES = (
    "KHLONE_NAME",
    "KHLONE_ID",
    "KHLONE_BRANCH",
    "KHLONE_TARGET",
    "KHLONE_PATH",
    "KHLONE_REPOSITORY",
    "KHLONE_SESSION",
)
#: How many used clones are remembered: those that are gone by then are passed over.
_REMEMBERED = 8
#: SQLite's own limit is 512, with room for the names of its journals.
_LONGEST_REGISTRY_PATH = 504


def _silent(_: str) -> None:
    return


def _unseen(_done: int, _total: int, _what: str) -> None:
    return


def _unwatched(_: Callable[[], QueueView]) -> None:
    return


class App:
    """One repository, its registry, locks, plugins and settings; the first argument of every operation."""

    def __init__(
        self,
        location: Location,
        *,
        environment: Mapping[str, str],
        told: Callable[[str], None] = _silent,
        plugins: Plugins | None = None,
        selection: Selection | None = None,
    ) -> None:
        self.location = location
        self.environment = environment
        self.told = told
        #: Called before each part of an operation of several: how many are done, how many there are, what is next.
        self.progress: Callable[[int, int, str], None] = _unseen
        #: Called with what tells how a merge queue stands, whenever something has been told, or a round begins.
        self.watch: Callable[[Callable[[], QueueView]], None] = _unwatched
        #: The folder of the user's commit hooks, and which have commands in git's configuration, once looked for.
        self.commit_hooks: tuple[Path, frozenset[str]] | None = None
        self.state_dir = location.common_dir / "khlone"
        self._plugins = plugins
        self._selection = selection

    @classmethod
    def open(
        cls,
        cwd: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        told: Callable[[str], None] = _silent,
        plugins: Plugins | None = None,
        selection: Selection | None = None,
    ) -> App:
        """The repository round `cwd` (default: the working folder).

        `told` receives one line for people whenever something is worth saying. `plugins`
        are used instead of the installed ones, `selection` says which of these are wanted
        instead of KHLONE_PLUGINS and the setting. Raises NotARepository, NotPermitted,
        RepositoryUnsupported, GitMissing or GitTooOld.
        """
        known = dict(os.environ if environment is None else environment)
        found = discovery.discover(Path.cwd() if cwd is None else cwd, known)
        return cls(found, environment=known, told=told, plugins=plugins, selection=selection)

    # -- adapters

    @cached_property
    def settings(self) -> settings.Settings:
        """The settings in force; keys that nobody reads are told."""
        found = settings.load(
            common_dir=self.location.common_dir,
            git_dir=self.location.git_dir,
            cwd=self.location.worktree or self.location.common_dir,
            worktree=self.location.worktree,
            environment=self.environment,
        )
        self.tell_problems([f"{error.message}; nothing in it counts" for error in found.broken])
        self.tell_problems(settings.remarks(found, lambda: installed_plugins(self.environment)))
        return found

    @cached_property
    def repository(self) -> repository.Repository:
        """git, working on this repository."""
        repository.check_git_version(self._git_version_cache())
        return repository.Repository(self.location, durable=self.settings.durable)

    @property
    def registry_path(self) -> Path:
        """Where the registry's database lies."""
        return self.state_dir / "registry.sqlite3"

    @cached_property
    def registry(self) -> Registry:
        """The registry; call `prepare_state` before the first change."""
        return Registry(self.registry_path)

    @property
    def has_registry(self) -> bool:
        """Whether there is a registry to read; a repository without clones has none.

        An empty file is none: SQLite would take it for a new database without clones.
        Raises NotPermitted where it cannot be told, as for another user than its owner.
        """
        try:
            return self.registry_path.stat().st_size > 0
        except PermissionError as error:
            raise NotPermitted(
                f"cannot look into {self.state_dir}, which belongs to {files.owner_of(self.state_dir)}",
                hint="run khlone as that user",
                path=self.state_dir,
            ) from error
        except OSError:
            return False

    @cached_property
    def locks(self) -> Locks:
        """The repository's locks."""
        from khlone.locks import Locks

        return Locks(self.state_dir / "locks")

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins, loaded through their entry points; fixed for the life of this App."""
        found = self._plugins
        if found is None:
            limit_s = self.settings.plugins_timeout_s
            found = load_plugins(self.environment, selection=self._wanted_plugins, limit_s=limit_s, told=self.told)
        state_dir = None
        with contextlib.suppress(KhloneError):
            state_dir = state_root(self.environment)
        self.tell_problems(found.opened(self.location, self.settings.values, state_dir))
        return found

    def write_spent(self) -> None:
        """Write down what time hooks have taken, where plugins were loaded at all."""
        if "plugins" in self.__dict__:
            self.plugins.write_spent()

    @property
    def has_foreign_plugins(self) -> bool:
        """Whether a plugin that is not khlone's own may have a word in something; loads none."""
        if self._plugins is not None:
            return True
        from khlone import entry_points

        return entry_points.may_reach_foreign(_cache_dir(self.environment), self._wanted_plugins)

    @cached_property
    def _wanted_plugins(self) -> Selection:
        from khlone import entry_points

        return self._selection or entry_points.selection(self.environment, self.settings.values.get("plugins"))

    @cached_property
    def config_dirs(self) -> ConfigDirs:
        """The private folders of this repository's clones."""
        return ConfigDirs(state_root(self.environment), self.repository_id)

    def _git_version_cache(self) -> Path | None:
        folder = _cache_dir(self.environment)
        return None if folder is None else folder / "git-version"

    def tell_problems(self, problems: Sequence[str]) -> None:
        """Say what went wrong in hooks that cannot stop what they were told of."""
        for problem in problems:
            self.told(f"warning: {problem}")

    def checkouts(self) -> Iterator[tuple[str, Path, Path]]:
        """Every (branch ref, worktree, git dir) that is checked out somewhere."""
        location = self.location
        return worktrees.checkouts(location.common_dir, location.main_worktree, bare=location.bare)

    # -- the state folder

    def require_outside(self) -> None:
        """Raise NotPermitted in a sandbox or a container of a clone of this repository, where it is read-only."""
        level = self.walls
        if level is not None:
            raise NotPermitted(
                f"khlone changes nothing from inside a {level}",
                hint="ask the user, or call it outside: git, list, show and path work here",
                inside=level,
            )

    @property
    def walls(self) -> str | None:
        """The level of isolation whose walls stand around this process: the folders of other clones are not seen."""
        level = self.environment.get("KHLONE_ISOLATION")
        place = self.state_dir if self.state_dir.exists() else self.location.common_dir
        return level if level in ("sandbox", "container") and not os.access(place, os.W_OK) else None

    def prepare_state(self, *, mending: bool = False) -> None:
        """Make the state folder and its parts.

        Raises RepositoryUnsupported, NetworkFileSystem, NotPermitted or StateUnsafe, and, unless
        it is for `mending`, InvalidSetting for a settings file that cannot be read.
        """
        self.require_outside()
        if not mending:
            self.settings.require_whole()
        if not self.repository.has_ref_files:
            raise RepositoryUnsupported(
                "its refs are kept in a reftable", hint="git refs migrate --ref-format=files keeps them in files"
            )
        _ = self.has_registry  # Says whose it is, where it is another user's.
        if len(os.fsencode(self.registry_path)) > _LONGEST_REGISTRY_PATH:
            raise RepositoryUnsupported(
                f"the path of its git folder is {len(os.fsencode(self.location.common_dir))} bytes long, "
                f"and SQLite opens no file with a path of more than {_LONGEST_REGISTRY_PATH}",
                hint="move it to a shorter path",
            )
        # Also where there is a state already: a repository may have been moved, or be mounted on another machine.
        if not (mending and self.state_dir.exists()):
            kind = mounts.network_type(self.location.common_dir)
            if kind is not None and not self.settings.allow_network_file_system:
                raise NetworkFileSystem(self.location.common_dir, kind)
        with files.explained(self.state_dir):
            for name in ("", "locks", "stage", "trash"):
                files.make_private_dir(self.state_dir / name)
        self.__dict__.pop("repository_id", None)
        _ = self.repository_id

    @cached_property
    def repository_id(self) -> str:
        """The repository's identity: kept when it is moved, renewed when it is a copy."""
        path = self.state_dir / "id"
        found = os.stat(self.location.common_dir)
        here = {"path": os.fspath(self.location.common_dir), "device": found.st_dev, "inode": found.st_ino}
        known: dict[str, object] = {}
        content = files.read_regular(path)
        if content is not None:
            with contextlib.suppress(ValueError):
                known = json.loads(content)
        identity = known.get("id")
        if isinstance(identity, str) and all(known.get(key) == value for key, value in here.items()):
            return identity
        if isinstance(identity, str) and not self._is_copy(known):
            self._write_identity(path, {"id": identity, **here})
            return identity
        fresh = os.urandom(8).hex()
        if content is None and self.state_dir.is_dir():
            return self._first_identity(path, {"id": fresh, **here})
        self._write_identity(path, {"id": fresh, **here})
        return fresh

    def be_again(self, identity: str) -> None:
        """Take up an identity that this repository had before it lost its own."""
        found = os.stat(self.location.common_dir)
        here = {"path": os.fspath(self.location.common_dir), "device": found.st_dev, "inode": found.st_ino}
        self._write_identity(self.state_dir / "id", {"id": identity, **here})
        for name in ("repository_id", "config_dirs"):
            self.__dict__.pop(name, None)

    def _first_identity(self, path: Path, content: Mapping[str, object]) -> str:
        """Write the first identity, unless another process was faster: then theirs."""
        temporary = path.with_name(f"id.{os.urandom(4).hex()}.tmp")
        files.write_new(temporary, json.dumps(content).encode() + b"\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return str(json.loads(files.read_regular(path) or b"{}").get("id"))
        finally:
            os.unlink(temporary)
        files.sync_dir(path.parent)
        return str(content["id"])

    def _is_copy(self, known: Mapping[str, object]) -> bool:
        """Whether the place that the identity was written at still is that repository."""
        old = Path(str(known.get("path")))
        if old == self.location.common_dir:
            return False
        try:
            found = os.stat(old)
            there = files.read_regular(old / "khlone" / "id")
        except (OSError, KhloneError):
            return False
        same_place = (found.st_dev, found.st_ino) == (known.get("device"), known.get("inode"))
        return same_place and there is not None and str(known.get("id")).encode() in there

    def _write_identity(self, path: Path, content: Mapping[str, object]) -> None:
        if self.state_dir.is_dir():
            files.write_atomic(path, json.dumps(content).encode() + b"\n")

    # -- names

    def calling_clone(self) -> CloneRecord | None:
        """The clone whose worktree the command was called in."""
        if self.location.git_dir == self.location.common_dir or not self.has_registry:
            return None
        name = self.location.git_dir.name
        return next((clone for clone in self.registry.clones() if clone.admin == name), None)

    def require_clone(self, name: str | None) -> CloneRecord:
        """The clone of that name; for `None` and `@` the calling one, for `-` the one used before.

        Raises NoSuchClone or UsageError.
        """
        if name is None or name == "@":
            calling = self.calling_clone()
            if calling is None:
                raise UsageError("no clone is named, and this is not the worktree of one", hint="give a NAME")
            return calling
        if name == "-":
            return self._used_before()
        clone = self.registry.clone(name) if self.has_registry else None
        if clone is None:
            known = self.registry.trash() if self.has_registry else []
            is_trashed = any(entry.clone.name == name for entry in known)
            raise NoSuchClone(name, self._near(name), is_trashed=is_trashed)
        return clone

    def note_used(self, clone: CloneRecord) -> None:
        """Remember that the user went to a clone or ran something in it, for the name `-`.

        What sessions do is not remembered: it would come between the user's own steps.
        """
        if "KHLONE_SESSION" in self.environment:
            return
        known = self._used()
        if known[:1] == [clone.id]:
            return
        lines = [clone.id, *(one for one in known if one != clone.id)][:_REMEMBERED]
        with contextlib.suppress(OSError):
            files.write_atomic(self.state_dir / "used", "".join(f"{one}\n" for one in lines).encode(), durable=False)

    def _used(self) -> list[str]:
        """The ids of the clones that were used last, the newest first."""
        with contextlib.suppress(OSError, KhloneError):
            return (files.read_regular(self.state_dir / "used") or b"").decode(errors="replace").split()
        return []

    def _used_before(self) -> CloneRecord:
        """The clone that was used last, the calling one aside."""
        live = {clone.id: clone for clone in self.registry.clones()} if self.has_registry else {}
        calling = self.calling_clone()
        for clone_id in self._used():
            if clone_id in live and (calling is None or clone_id != calling.id):
                return live[clone_id]
        raise UsageError(
            "no clone was used before this", hint="path, cd and exec remember the NAME that they are given"
        )

    def _near(self, name: str) -> list[str]:
        if not self.has_registry:
            return []
        import difflib

        return difflib.get_close_matches(name, [clone.name for clone in self.registry.clones()], n=3)


def load_plugins(
    environment: Mapping[str, str], *, selection: Selection, limit_s: float, told: Callable[[str], None]
) -> Plugins:
    """The installed plugins that are wanted, with the user's cache and log; `told` gets the warnings."""
    from khlone import plugin_log
    from khlone.plugins import Plugins

    log = None
    with contextlib.suppress(KhloneError):
        log = state_root(environment) / plugin_log.LOG_FILE
    return Plugins.load(
        cache_dir=_cache_dir(environment),
        selection=selection,
        limit_s=limit_s,
        log=log,
        told=lambda warning: told(f"warning: {warning}"),
    )


def installed_plugins(environment: Mapping[str, str]) -> list[str]:
    """The names of the plugins that are installed, wanted or not."""
    from khlone import entry_points

    return [entry.name for entry in entry_points.installed(_cache_dir(environment), [])]


def _cache_dir(environment: Mapping[str, str]) -> Path | None:
    with contextlib.suppress(KhloneError):
        return cache_root(environment)
    return None
