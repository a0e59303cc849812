"""How does a command start in a sandbox of bubblewrap?

The machine read-only, with what isolation_places.py says hidden or writable; a /tmp, process
ids and, without `khlone.isolation.network`, a network of its own; no capabilities, also for
root. It ends with the process that started it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from khlone import process, values
from khlone.app import App
from khlone.errors import CommandNotFound, IsolationMissing
from khlone.model import CloneRecord
from khlone.operations import isolation_places
from khlone.operations.isolation import Start
from khlone.operations.isolation_home import Home
from khlone.operations.isolation_places import Access

_LEVEL = "sandbox"
_BARE = ("--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--cap-drop", "ALL")
#: Folders that are empty at first and may be written; what is in them is gone with the sandbox.
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108
_TIOCSTI = Path("/proc/sys/dev/tty/legacy_tiocsti")


class Sandbox:
    """Level `sandbox`: that of `home`, behind walls."""

    def __init__(self) -> None:
        self._home = Home()

    def require(self, app: App, *, is_new: bool = False) -> None:
        """Raise IsolationMissing where there is no bubblewrap, or, for a new clone, where it does not work."""
        self._home.require(app, is_new=is_new)
        bwrap = process.find_program("bwrap", app.environment)
        if bwrap is None:
            raise IsolationMissing(
                _LEVEL,
                "bwrap is not on PATH",
                hint="install bubblewrap (Debian and Ubuntu: apt-get install bubblewrap), or use --isolate home",
            )
        if is_new:
            done = process.run([bwrap, *_BARE, "--", "/bin/true"], environment=app.environment, timeout_s=30.0)
            if done.status != 0:
                why = done.error_text.strip().splitlines()[-1:] or [f"it ended with {done.status}"]
                raise IsolationMissing(
                    _LEVEL, f"bwrap does not work here: {why[0]}", hint="allow user namespaces, or use --isolate home"
                )

    def prepare(self, app: App, clone: CloneRecord) -> None:
        """Make the clone's home, or what is missing in it."""
        self._home.prepare(app, clone)

    def variables(self, app: App, clone: CloneRecord) -> Mapping[str, str | None]:
        """Those of `home`, and the temporary folder that is there."""
        return {**self._home.variables(app, clone), "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": None}  # noqa: S108

    def wrap(self, app: App, start: Start) -> Start:
        """The command within bwrap; raises CommandNotFound, or IsolationMissing."""
        bwrap = process.find_program("bwrap", app.environment) or "bwrap"
        if not os.access(start.argv[0], os.X_OK):
            raise CommandNotFound(start.argv[0], "no such file or directory")
        places = isolation_places.of(app, start)
        isolation_places.programs(start, places)
        argv = [bwrap, "--die-with-parent", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", *_BARE]
        if app.settings.value("isolation.network") is not True:
            argv.append("--unshare-net")
        if start.is_foreground and _can_type():
            argv.append("--new-session")
        hidden = []
        for path, access in places:
            argv += _mount(path, access)
            hidden += [path] if access is Access.HIDDEN and path not in _TEMPORARY else []
        for path in hidden:
            argv += ["--remount-ro", os.fspath(path)]
        argv += ["--chdir", os.fspath(start.clone.path), "--", *start.argv]
        return values.replace(start, argv=argv, variables=isolation_places.without_store(app, start))

    def ended(self, app: App, start: Start, status: int | None) -> None:
        """All of it ends with bwrap."""
        del app, start, status


def _mount(path: Path, access: Access) -> list[str]:
    place = os.fspath(path)
    if access is Access.HIDDEN:
        return ["--perms", "1777" if path in _TEMPORARY else "0755", "--tmpfs", place]
    return ["--ro-bind" if access is Access.READ else "--bind", place, place]


def _can_type() -> bool:
    """Whether a program may put words into the input of its terminal, as if the user had typed them."""
    try:
        return _TIOCSTI.read_text().strip() != "0"
    except OSError:
        return True
