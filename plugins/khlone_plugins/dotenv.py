"""How does a clone get an `.env` of its own? From a template in its worktree, with the clone's name, branch and ports.

    khlone.dotenv.template    .env.khlone    the template; empty: none
    khlone.dotenv.name        .env           what it is rendered to

    PORT={{ port }}
    DATABASE=app_{{ id }}
    SOURCE={{ path | quote }}

A value stands in the file as it is where no shell could misread it; others need `| quote`.
What is tracked, or was written or changed by anybody else, is left alone.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import hookimpl

if TYPE_CHECKING:
    from khlone.model import Clone, Location
    from khlone.port_leases import Lease

DEFAULT_TEMPLATE = ".env.khlone"
DEFAULT_NAME = ".env"

_PLACE = re.compile(r"\\\{\{|\{\{(?:\s*(?P<name>[a-z][a-z0-9_]*)\s*(?P<quote>\|\s*quote\s*)?\}\})?")
#: What no shell and no reader of such files takes for anything but itself.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_GIT = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_GIT_TIMEOUT_S = 30.0


class Dotenv:
    """The `.env` files of the clones of one repository."""

    def __init__(self) -> None:
        self._settings: Mapping[str, str] = {}
        self._location: Location | None = None

    @hookimpl
    def khlone_opened(self, location: Location, settings: Mapping[str, str]) -> None:
        """Note where and how."""
        self._location, self._settings = location, settings

    @hookimpl
    def khlone_prepare(self, clone: Clone) -> None:
        """Render it; a template that cannot be rendered stops the clone."""
        self._render(clone)

    @hookimpl
    def khlone_post_sync(self, clone: Clone) -> None:
        """Render it again: the template may be another one."""
        self._render(clone)

    @hookimpl
    def khlone_renamed(self, clone: Clone) -> None:
        """Render it again: the name is another one."""
        self._render(clone)

    def _render(self, clone: Clone) -> None:
        template = self._settings.get("dotenv.template", DEFAULT_TEMPLATE)
        if not template or self._location is None or clone.config_dir is None:
            return
        path = _place(clone.path, "khlone.dotenv.template", template)
        if not os.path.lexists(path):
            return
        from khlone import generated, port_leases

        name = self._settings.get("dotenv.name", DEFAULT_NAME)
        target = _place(clone.path, "khlone.dotenv.name", name)
        folder = port_leases.private_folder(clone.config_dir)
        # Looked up here: while the clone is made, `clone` is from before its ports were reserved.
        known = variables(clone, self._location, port_leases.read(folder))
        content = rendered(_text(path, template), template, known).encode()
        if _git(clone.path, "ls-files", "--error-unmatch", "--", f":(literal){name}"):
            print(f"dotenv: {name} is tracked by git and stays as it is")
            return
        is_there = os.path.lexists(target)
        if is_there and not generated.is_unchanged(folder, clone.path, name):
            print(f"dotenv: {name} was not written by khlone, or was changed since, and stays as it is")
            return
        _write(folder, target, name, content, is_there=is_there)
        if not _git(clone.path, "check-ignore", "-q", "--", name):
            print(f"dotenv: warning: git does not ignore {name}, so `git add -A` in {clone.name} would commit it")


def _write(folder: Path, target: Path, name: str, content: bytes, *, is_there: bool) -> None:
    from khlone import files, generated

    # Noted first: what is written and not noted would count as the user's for ever.
    generated.note(folder, name, content)
    if is_there:
        files.write_atomic(target, content, durable=False)
    else:
        files.write_new(target, content, durable=False)


def variables(clone: Clone, location: Location, lease: Lease | None) -> dict[str, str]:
    """What a template may name."""
    found = {
        "name": clone.name,
        "id": clone.id,
        "branch": clone.branch,
        "target": clone.target or "",
        "path": os.fspath(clone.path),
        "repository": os.fspath(location.anchor),
    }
    if lease is not None:
        ports = [str(port) for port in lease.ports]
        found |= {"port": ports[0], "port_count": str(lease.count), "ports": ",".join(ports)}
        found |= {f"port_{number}": port for number, port in enumerate(ports)}
    return found


def rendered(text: str, template: str, known: Mapping[str, str]) -> str:
    """The text with every `{{ variable }}` replaced; raises Refusal, with the line, for what cannot be."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] == r"\{{":
            return "{{"
        line = text.count("\n", 0, match.start()) + 1
        name = match["name"]
        if name is None:
            raise _refusal(template, line, "{{ begins no variable", r"write {{ name }}, {{ name | quote }}, or \{{")
        if name not in known:
            raise _refusal(template, line, f"there is no variable {name!r}", f"there are {', '.join(_listed(known))}")
        value = known[name]
        if match["quote"]:
            return shlex.quote(value)
        if not _PLAIN.fullmatch(value):
            why = f"the value of {name!r} has characters that mean something to a shell"
            raise _refusal(template, line, why, f"write {{{{ {name} | quote }}}}, without quotes round it")
        return value

    return _PLACE.sub(replaced, text)


def _listed(known: Mapping[str, str]) -> list[str]:
    """The variables for people, the numbered ones as one."""
    plain = [name for name in known if not re.fullmatch(r"port_\d+", name)]
    return [*plain, "port_0 and so on"] if len(plain) < len(known) else plain


def _refusal(template: str, line: int, why: str, hint: str) -> Exception:
    from khlone.errors import Refusal

    return Refusal(f"{template}, line {line}: {why}", hint=hint)


def _text(path: Path, template: str) -> str:
    from khlone import files
    from khlone.errors import KhloneError, Refusal

    try:
        return (files.read_regular(path) or b"").decode()
    except KhloneError as error:
        raise Refusal(f"{template} cannot be read: {error.message}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{template} cannot be read: {error}") from error


def _place(worktree: Path, key: str, name: str) -> Path:
    """A file inside the worktree, through no link; raises InvalidSetting or Refusal."""
    from khlone.errors import InvalidSetting, Refusal

    parts = name.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or not name.isprintable():
        raise InvalidSetting(key, name, "it must be a path inside the worktree")
    path = worktree / name
    if os.path.realpath(path.parent) != os.path.join(os.path.realpath(worktree), *parts[:-1]):
        raise Refusal(f"{name} is not used: the way to it leads through a link")
    return path


def _git(worktree: Path, *arguments: str) -> bool:
    """Whether git says yes."""
    from khlone import process

    done = process.run(
        [process.git_executable(), *_GIT, *arguments],
        cwd=worktree,
        environment=process.scrubbed(os.environ),
        timeout_s=_GIT_TIMEOUT_S,
    )
    return done.status == 0
