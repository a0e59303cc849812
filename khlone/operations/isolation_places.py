"""Which folders and files does a clone at level `sandbox` or `container` see, and which of them may it write?

What it may write is named one by one: its worktree, its admin folder, its private folders,
and of the common dir what commits and fetches need. All that makes git or khlone run
something or look elsewhere is read-only: hooks, configuration, the admin folders of others,
the main worktree, the registry, and in the clone's own places `.git`, `commondir`, `gitdir`
and `config.worktree`, which are laid over as mounts of their own so that nothing can be put
in their place.
"""

from __future__ import annotations

import enum
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from khlone import config_dir, files, process
from khlone.app import App
from khlone.errors import IsolationMissing
from khlone.model import CloneRecord
from khlone.operations import undo
from khlone.operations.isolation import MOVED, Start
from khlone.operations.isolation_home import PATHS, User, links, shared, user_of
from khlone.profiles import AgentProfile, Login

#: Of the common dir, what commits, fetches and pushes write; git locks each ref in its own folder.
_WRITTEN = ("objects", "refs", "logs", "lfs")
#: Of the clone's admin folder, what leads git elsewhere or says who owns it.
_FIXED = ("commondir", "gitdir", "config.worktree", "khlone.json", "locked")


class Access(enum.Enum):
    """What a clone may do at a place."""

    #: An empty folder is there instead.
    HIDDEN = "hidden"
    READ = "read"
    WRITE = "write"


class Places:
    """The places of one clone; of two that lie in each other the inner one counts."""

    def __init__(self) -> None:
        self._found: dict[Path, Access] = {}

    def add(self, access: Access, *paths: Path) -> None:
        """Those of the paths that are there; what was said of the same path before is void."""
        self._found |= {path: access for path in paths if path != Path("/") and os.path.exists(path)}

    def __iter__(self) -> Iterator[tuple[Path, Access]]:
        """Outer ones first."""
        return iter(sorted(self._found.items(), key=lambda place: len(place[0].parts)))

    def is_hidden(self, path: Path) -> bool:
        """Whether a path lies where nothing is to be seen."""
        within = [place for place in (path, *path.parents) if place in self._found]
        return bool(within) and self._found[within[0]] is Access.HIDDEN


def of(app: App, start: Start) -> Places:
    """The places of the clone in which a command starts; raises IsolationMissing where HOME lies inside."""
    clone, location = start.clone, app.location
    user = user_of(app, clone)
    found = Places()
    _hide(app, clone, user, found)
    main = None if location.bare else location.main_worktree
    for shown in (main, location.common_dir):
        if shown is not None and user.home is not None and _real(user.home).is_relative_to(shown):
            raise IsolationMissing(
                clone.isolation.value, f"your HOME lies in {shown}, which clones see", hint="use --isolate home"
            )
        if shown is not None:
            found.add(Access.READ, shown)
    _common_dir(app, found)
    _own(app, clone, start.profile, found)
    _of_user(app, user, found)
    if app.settings.value("isolation.login") is True:
        _credentials(start.profile, found)
    agent = start.variables.get("SSH_AUTH_SOCK", "")
    if os.path.isabs(agent):
        found.add(Access.READ, Path(agent))
    # Last, when it is known what lies in sight: a folder that is laid over one has its name.
    others = [other.path for other in app.registry.clones() if other.id != clone.id]
    found.add(Access.HIDDEN, *(path for path in others if not found.is_hidden(path)))
    return found


def programs(start: Start, found: Places) -> None:
    """Add what would be hidden of the folders on PATH, of the program and of khlone itself, to be read."""
    entries = [Path(entry) for entry in start.variables.get("PATH", "").split(os.pathsep) if os.path.isabs(entry)]
    # Not with what it is installed in alone: its Python may lie in a home too.
    entries += [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]
    program = Path(start.argv[0])
    if program.is_absolute():
        real = _real(program)
        entries += [program.parent, real.parent]
        entries += [parent for parent in real.parents if parent.name == "node_modules"][-1:]
    hidden = {path for path, access in found if access is Access.HIDDEN}
    for entry in entries:
        if entry not in hidden and found.is_hidden(entry):
            found.add(Access.READ, entry)


def without_store(app: App, start: Start) -> Mapping[str, str]:
    """The variables, without those that lead to a login that is not shared with clones of this level."""
    if app.settings.value("isolation.login") is True:
        return start.variables
    return {name: value for name, value in start.variables.items() if name not in start.profile.credential_variables}


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _hide(app: App, clone: CloneRecord, user: User, found: Places) -> None:
    """Homes, temporary folders, sockets of services, other clones and all that khlone keeps of them."""
    account = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    hidden = [Path("/tmp"), Path("/var/tmp"), Path("/run"), Path("/home"), Path("/root"), account]  # noqa: S108
    hidden += [place for place in (user.home, user.config, user.cache) if place is not None]
    hidden.append(config_dir.state_root(app.environment))
    shown = [place for place in (app.location.main_worktree, app.location.common_dir) if place is not None]
    if not any(place.is_relative_to(clone.path.parent) for place in shown):
        hidden.append(clone.path.parent)
    found.add(Access.HIDDEN, *map(_real, hidden))
    # Where names are resolved: often a link into /run.
    found.add(Access.READ, *(path for path in [_real(Path("/etc/resolv.conf"))] if path.is_relative_to("/run")))


def _common_dir(app: App, found: Places) -> None:
    common = app.location.common_dir
    # git makes it with the first reflog, in a folder that is read-only there.
    os.makedirs(common / "logs", exist_ok=True)
    found.add(Access.WRITE, *(common / name for name in _WRITTEN))
    try:
        lines = (files.read_regular(common / "objects/info/alternates") or b"").splitlines()
    except OSError:
        lines = []
    found.add(
        Access.READ, *(_real(common / "objects" / os.fsdecode(line)) for line in lines if line[:1] not in (b"#", b""))
    )


def _own(app: App, clone: CloneRecord, profile: AgentProfile, found: Places) -> None:
    admin, private = undo.admin_path(app, clone), app.config_dirs.clone_path(clone.id)
    fixed = admin / "config.worktree"
    if not files.exists(fixed):
        # Without the extension git does not read it; with it, nobody but the user is to write it.
        files.write_new(fixed, b"", durable=False)
    found.add(Access.WRITE, clone.path, admin, *(private / name for name in ("config", "cache", "home")))
    found.add(Access.READ, clone.path / ".git", *(admin / name for name in _FIXED))
    if profile.temp_variables:
        found.add(Access.WRITE, app.config_dirs.temp_path(clone.id))


def _of_user(app: App, user: User, found: Places) -> None:
    """What the clone's home leads to, and the configuration of git with all that it includes."""
    found.add(Access.READ, *_git_files(user))
    if user.home is not None:
        found.add(Access.READ, user.home / ".ssh/known_hosts")
        if app.settings.value("isolation.sshconfig") is True:
            found.add(Access.READ, user.home / ".ssh/config")
    if user.config is not None:
        found.add(Access.READ, user.config / "khlone")
    of_links = links(app)
    for place, target in shared(app, user).items():
        found.add(Access.READ if place in of_links else Access.WRITE, target)


def _git_files(user: User) -> list[Path]:
    asked = [process.git_executable(), "config", "--global", "--includes", "--list", "--show-origin", "-z"]
    kept = {name: value for name, value in user.variables.items() if name in (*MOVED, "PATH")}
    done = process.run(asked, cwd=Path("/"), environment=kept, timeout_s=30.0)
    fields = iter(done.text.split("\0") if done.status == 0 else [])
    named: dict[str, None] = dict.fromkeys(os.fspath(path) for path in user.git_files())
    for origin, item in zip(fields, fields, strict=False):
        named[origin.removeprefix("file:")] = None
        key, _, value = item.partition("\n")
        if key in PATHS:
            named[f"{user.home}{value[1:]}" if value.startswith("~/") else value] = None
    if user.config is not None:
        named |= dict.fromkeys(os.fspath(user.config / "git" / name) for name in ("ignore", "attributes"))
    return [Path(path) for path in named if os.path.isabs(path)]


def _credentials(profile: AgentProfile, found: Places) -> None:
    """The agent's store of the user's: a refresh must be able to write there, and nothing else may."""
    logins = {one.login for one in profile.versions}
    names = {item.name for item in profile.items if item.is_credential}
    stores = [profile.store] if Login.STORE in logins and profile.store is not None else []
    if Login.LINK in logins:
        sources = [profile.source_of(item) for item in profile.items if item.is_credential]
        stores += [_real(source).parent for source in sources if source is not None]
    for store in stores:
        found.add(Access.WRITE, store)
        kept = [entry for entry in store.iterdir() if entry.name not in names] if store.is_dir() else []
        found.add(Access.READ, *(entry for entry in kept if not entry.name.endswith((".lock", ".owner"))))
