"""How does a command start in a container of podman or docker?

In the image that the settings name, as the same user, with the clone's places at the same
paths and nothing else of this machine but, if wanted, its network. Values of variables
reach the engine by its own environment, never by its arguments, paths aside.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from khlone import process, values
from khlone.app import App
from khlone.errors import InvalidSetting, IsolationMissing
from khlone.model import CloneRecord
from khlone.operations import isolation_devcontainer, isolation_left, isolation_places
from khlone.operations.isolation import MOVED, Start
from khlone.operations.isolation_home import Home
from khlone.operations.isolation_places import Access, Places

_LEVEL = "container"
_ENGINES = ("podman", "docker")
#: Inherited variables that reach the container, besides those that are the clone's own.
_PASSED = re.compile(
    r"TERM|COLORTERM|LANG|LANGUAGE|LC_\w+|TZ|NO_COLOR|SSH_AUTH_SOCK|GIT_(AUTHOR|COMMITTER)_\w+"
    r"|(https?|no|all|HTTPS?|NO|ALL)_(proxy|PROXY)"
)
#: Paths, which the engine would take for its own.
_BY_VALUE = (*MOVED, "TMPDIR", "PWD")
#: Only the image knows them.
_LEFT_OUT = ("PATH", "SHLVL", "_")


class Container:
    """Level `container`: the clone's places in an image of the user's."""

    def __init__(self) -> None:
        self._home = Home()

    def require(self, app: App, *, is_new: bool = False) -> None:
        """Raise IsolationMissing without an engine or an image, or, for a new clone, where the image is not here."""
        self._home.require(app, is_new=is_new)
        engine = _engine(app)
        _limits(app)
        if app.settings.value("isolation.devcontainer") is True:
            isolation_devcontainer.require(app)
            return
        image = _image(app)
        if is_new:
            asked = [engine, "image", "inspect", "--format", "{{.Id}}", image]
            done = process.run(
                asked, environment=isolation_left.outside(app), timeout_s=isolation_left.ENGINE_S, capture_bytes=1 << 16
            )
            if done.status != 0:
                name = Path(engine).name
                raise IsolationMissing(
                    _LEVEL,
                    f"{name} has no image {image}",
                    hint=f"get it with {name} pull, or make it with {name} build",
                )

    def prepare(self, app: App, clone: CloneRecord) -> None:
        """Make the clone's home, or what is missing in it."""
        self._home.prepare(app, clone)

    def variables(self, app: App, clone: CloneRecord) -> Mapping[str, str | None]:
        """Those of `home`, and the temporary folder that is there."""
        return {**self._home.variables(app, clone), "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": None}  # noqa: S108

    def wrap(self, app: App, start: Start) -> Start:
        """The engine's command; raises IsolationMissing or InvalidSetting."""
        engine = _engine(app)
        outside = isolation_left.outside(app)
        given = isolation_places.without_store(app, start)
        # A variable that is not inherited as it is here is the clone's own, or was given to it.
        secrets = {*start.profile.key_variables, *start.profile.token_variables}
        passed = {
            name: value
            for name, value in given.items()
            if (outside.get(name) != value or name in secrets or _PASSED.fullmatch(name))
            and name not in (*_BY_VALUE, *_LEFT_OUT)
        }
        for left in isolation_left.end(app, start.clone):
            app.told(f"the container {left} of {start.clone.name}, left behind by a khlone that was killed, is removed")
        walls = _walls(app, engine, start, given)
        of_repository: Mapping[str, str] = {}
        if app.settings.value("isolation.devcontainer") is True:
            made = isolation_devcontainer.made(app, start.clone, engine, walls)
            image, of_repository = made.image, made.variables
        else:
            image = _image(app)
        container = isolation_left.name_of(start.session)
        argv = [engine, "run", "--rm", "--interactive", "--name", container, "--pull", "never"]
        if start.is_foreground and sys.stdin.isatty() and sys.stdout.isatty():
            argv.append("--tty")
        argv += walls
        for name in sorted(passed):
            argv += ["--env", name]
        for name in sorted(of_repository.keys() - passed.keys() - {*_BY_VALUE}):
            argv += ["--env", f"{name}={of_repository[name]}"]
        program = start.argv[0] if os.sep in start.command[0] else start.command[0]
        argv += ["--entrypoint", program, image, *start.command[1:]]
        isolation_left.note(app, start.clone, container, engine)
        return values.replace(start, argv=argv, variables={**outside, **passed})

    def ended(self, app: App, start: Start, status: int | None) -> None:
        """A container whose engine was killed goes on without it: it is removed."""
        name = isolation_left.name_of(start.session)
        if status is None or status < 0:
            isolation_left.remove(app, _engine(app), name)
        isolation_left.drop(app, start.clone, name)


def _walls(app: App, engine: str, start: Start, given: Mapping[str, str]) -> list[str]:
    """What any container of a clone is started with: its user, places and limits."""
    argv = ["--label", f"khlone.clone={start.clone.id}"]
    argv += ["--user", f"{os.geteuid()}:{os.getegid()}", "--workdir", os.fspath(start.clone.path)]
    if os.geteuid() != 0 and Path(engine).name == "podman":
        argv += ["--userns", "keep-id"]
    argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", "label=disable"]
    argv += ["--network", "host" if app.settings.value("isolation.network") is True else "none"]
    argv += [*_limits(app), *str(app.settings.value("isolation.options") or "").split()]
    argv += list(_mounts(isolation_places.of(app, start)))
    for name in _BY_VALUE:
        argv += ["--env", f"{name}={given[name]}"] if name in given else []
    return argv


def _engine(app: App) -> str:
    chosen = app.settings.value("isolation.engine")
    wanted = [str(chosen)] if chosen else list(_ENGINES)
    found = next(filter(None, (process.find_program(name, app.environment) for name in wanted)), None)
    if found is None:
        raise IsolationMissing(
            _LEVEL,
            f"{' or '.join(wanted)} is not on PATH",
            hint=f"install {wanted[0]} (Debian and Ubuntu: apt-get install podman), or use --isolate sandbox",
        )
    return found


def _image(app: App) -> str:
    found = str(app.settings.value("isolation.image") or "")
    if not found:
        raise IsolationMissing(
            _LEVEL,
            "no image is set",
            hint="git config --global khlone.isolation.image IMAGE, one with git and your agent in it",
        )
    if re.fullmatch(r"[A-Za-z0-9][\w.:/@-]*", found) is None:
        raise InvalidSetting("khlone.isolation.image", found, "it must be the name of an image")
    return found


def _limits(app: App) -> list[str]:
    found = []
    memory, cpus = app.settings.value("isolation.memory"), str(app.settings.value("isolation.cpus") or "")
    processes = app.settings.value("isolation.processes")
    if memory:
        found += ["--memory", str(memory)]
    if cpus:
        if re.fullmatch(r"\d{1,4}(\.\d{1,3})?", cpus) is None or not float(cpus):
            raise InvalidSetting("khlone.isolation.cpus", cpus, "it must be a number of processors, such as 1.5")
        found += ["--cpus", cpus]
    if isinstance(processes, (int, float)) and processes:
        found += ["--pids-limit", str(int(processes))]
    return found


def _mounts(places: Places) -> Iterator[str]:
    """The places that are shown, and what is hidden inside of these."""
    shown: list[Path] = []
    for path, access in places:
        if access is not Access.HIDDEN:
            shown.append(path)
            ending = [] if access is Access.WRITE else ["readonly"]
            yield from ("--mount", _csv("type=bind", f"source={path}", f"target={path}", *ending))
        elif any(path.is_relative_to(outer) for outer in shown):
            yield from ("--mount", _csv("type=tmpfs", f"target={path}"))


def _csv(*fields: str) -> str:
    """Both engines read a mount as a line of comma-separated values."""
    return ",".join('"' + one.replace('"', '""') + '"' if re.search(r'[",\n]', one) else one for one in fields)
