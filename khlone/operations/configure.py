"""What is each setting and where does it come from, and how does a user change one?"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import process, setting_table, settings
from khlone.app import App, installed_plugins
from khlone.errors import GitFailed, InvalidSetting, Locked, NotPermitted, UsageError
from khlone.operations import setting_edits
from khlone.setting_table import Kind, Setting, Source
from khlone.settings import Settings
from khlone.trust import INSIDE_VARIABLES
from khlone.values import dataclass

#: Seconds that another git, which changes the same file in milliseconds, is waited for.
_WAIT_S = 10.0
_POLL_S = 0.1
#: `git config --unset-all` of a key that is not there.
_ABSENT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting as it is in force; `value` is the default where nobody set it, `fault` why it cannot be used."""

    key: str
    value: str | None
    default: str | None
    type: str
    sources: Sequence[str]
    source: Source
    file: Path | None
    line: int | None
    variable: str | None
    doc: str | None
    fault: str | None

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        if self.source is Source.ENVIRONMENT:
            return str(self.variable)
        if self.file is None:
            return "the command line" if self.source is Source.COMMAND else self.source.value
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file that settings are written to; `git` is the program's own, the others are TOML."""

    source: Source
    file: Path


# -- looking -------------------------------------------------------------------------------


def load(app: App | None, cwd: Path, environment: Mapping[str, str]) -> Settings:
    """The settings in force: those of a repository, or those of the user where there is none."""
    if app is not None:
        return app.settings
    return settings.load(common_dir=None, git_dir=None, cwd=cwd, worktree=None, environment=environment)


def rows(found: Settings) -> list[Row]:
    """Every setting of the table in its order, those that have a name of the user's once for each, then the others."""
    keys: list[str] = []
    for setting in setting_table.SETTINGS:
        mine = sorted(key for key in found.values if setting_table.find(key) is setting)
        keys += mine if setting.is_pattern else [setting.key]
    keys += sorted(key for key in found.values if setting_table.find(key) is None)
    return [row(found, key) for key in keys]


def row(found: Settings, key: str) -> Row:
    """One setting by its key without `khlone.`; a key that is not in the table has no type."""
    setting = setting_table.find(key.lower())
    text = found.values.get(key.lower())
    origin = found.origins.get(key.lower(), settings.Origin(source=Source.DEFAULT))
    default = None if setting is None else setting.default
    return Row(
        key=f"khlone.{key if setting is None or setting.is_pattern else setting.key}",
        value=default if text is None else text,
        default=default,
        type=Kind.TEXT.value if setting is None else setting.expected,
        sources=[one.value for one in ((Source.USER, Source.GIT) if setting is None else setting.sources)],
        source=origin.source,
        file=origin.file,
        line=origin.line_of(key.lower()),
        variable=origin.variable or (None if setting is None else setting.variable),
        doc=None if setting is None else setting.doc,
        fault=None if setting is None or text is None else setting.fault(text),
    )


def require(key: str, environment: Mapping[str, str]) -> tuple[str, Setting | None]:
    """A key as it is written, without `khlone.`, with its setting; `None` for a plugin's. Raises UsageError."""
    plain = key[7:] if key.lower().startswith("khlone.") else key
    setting = setting_table.find(plain.lower())
    if setting is None:
        owners = {name.lower() for name in installed_plugins(environment)}
        if "." not in plain or plain.lower().split(".")[0] not in owners:
            near = settings.near(plain.lower())
            raise UsageError(
                f"there is no setting khlone.{plain}",
                hint=f"did you mean {near}?" if near else "see git khlone config",
            )
        return plain, None
    return (plain if setting.is_pattern else setting.key), setting


# -- changing ------------------------------------------------------------------------------


def place(app: App | None, source: Source, environment: Mapping[str, str]) -> Place:
    """The file of the user, of the worktree or of git's repository; raises UsageError where there is none."""
    if source is Source.USER:
        user = settings.user_file(environment)
        if user is None:
            raise UsageError("neither XDG_CONFIG_HOME nor HOME is an absolute path, so there is no file of the user's")
        return Place(source=source, file=user)
    if app is None:
        raise UsageError("this is no git repository", hint="--user changes what holds everywhere")
    if source is Source.GIT:
        return Place(source=source, file=app.location.common_dir / "config")
    if app.location.worktree is None:
        raise UsageError("there is no worktree here that could have a file", hint="--repository, or --user")
    return Place(source=source, file=app.location.worktree / settings.PROJECT_FILE)


def require_may_change(where: Place, environment: Mapping[str, str]) -> None:
    """Raise NotPermitted where a session or a hook would change what decides about itself."""
    inside = next((name for name in INSIDE_VARIABLES if environment.get(name)), None)
    if inside is not None and where.source is not Source.PROJECT:
        what = "a session" if inside == "KHLONE_SESSION" else "a hook"
        raise NotPermitted(
            f"the settings in {where.file} are not changed inside {what}",
            hint="the user does it, in a terminal of their own",
            inside=inside,
        )


def put(where: Place, key: str, setting: Setting | None, value: str) -> bool:
    """Set a key in a file; says whether that changed anything. Raises InvalidSetting or UsageError first."""
    _require_taken(where, key, setting)
    why = None if setting is None else setting.fault(value)
    if why is not None:
        raise InvalidSetting(f"khlone.{key}", value, why)
    if where.source is Source.GIT:
        _git(where.file, ["--replace-all", f"khlone.{key}", value])
        return True
    written = value if setting is None else setting_edits.as_toml(setting.kind, value)
    return setting_edits.change(
        where.file, lambda text: setting_edits.with_value(text, key, written, where.file), mode=_mode(where)
    )


def drop(where: Place, key: str) -> bool:
    """Take a key out of a file; says whether it was there."""
    if where.source is Source.GIT:
        return _git(where.file, ["--unset-all", f"khlone.{key}"]) != _ABSENT
    if not where.file.parent.is_dir():
        return False
    return setting_edits.change(
        where.file, lambda text: setting_edits.without(text, key, where.file), mode=_mode(where)
    )


def _require_taken(where: Place, key: str, setting: Setting | None) -> None:
    taken = (Source.USER, Source.GIT) if setting is None else setting.sources
    if where.source not in taken:
        flags = {Source.USER: "--user", Source.PROJECT: "--project", Source.GIT: "--repository"}
        raise UsageError(f"khlone.{key} is not taken from {where.file}", hint=" or ".join(flags[one] for one in taken))


def _mode(where: Place) -> int:
    """A new file of the user's is private, one that is to be committed as any other."""
    return 0o600 if where.source is Source.USER else 0o666


def _git(file: Path, words: Sequence[str]) -> int:
    """Have git change one of its files; waits while another git holds its lock."""
    argv = [process.git_executable(), "config", "--file", os.fspath(file), *words]
    started = time.monotonic()
    while True:
        done = process.run(argv, environment=process.scrubbed(), timeout_s=30.0)
        if done.status in (0, _ABSENT):
            return done.status
        waited = time.monotonic() - started
        if "could not lock" not in done.error_text or "File exists" not in done.error_text:
            raise GitFailed(argv[1:], done.status, done.error_text)
        if waited > _WAIT_S:
            raise Locked(str(file), f"{file}.lock", waited)
        time.sleep(_POLL_S)


# -- the editor ----------------------------------------------------------------------------


def edit(where: Place, draft: str, environment: Mapping[str, str], cwd: Path) -> tuple[str, Path]:
    """Let the user change a text in the editor that git would open; returns it, and the file that holds it.

    The file stays until `forget`: what was typed is not lost when it cannot be used. Raises
    GitFailed without an editor, and NotPermitted when the editor ends with a failure.
    """
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="khlone-config-"))
    copy = folder / where.file.name.lstrip(".")
    copy.write_bytes(draft.encode())
    asked = process.run(
        [process.git_executable(), "var", "GIT_EDITOR"], cwd=cwd, environment=environment, timeout_s=30.0
    )
    if asked.status != 0:
        forget(copy)
        raise GitFailed(["var", "GIT_EDITOR"], asked.status, asked.error_text)
    editor = asked.text.rstrip("\n")
    child = process.start_foreground(
        ("sh", "-c", f'{editor} "$@"', editor, os.fspath(copy)), cwd=cwd, environment=environment
    )
    status = child.wait()
    if status != 0:
        with contextlib.suppress(OSError):
            if copy.read_bytes() == draft.encode():
                forget(copy)
        hint = f"what you typed is in {copy}" if copy.exists() else None
        raise NotPermitted(f"the editor ended with {status}; nothing was changed", hint=hint)
    try:
        return copy.read_bytes().decode(), copy
    except UnicodeDecodeError as error:
        raise InvalidSetting(str(copy), "", str(error)) from error


def forget(copy: Path) -> None:
    """Remove what `edit` left."""
    with contextlib.suppress(OSError):
        for path in copy.parent.iterdir():
            path.unlink()
        copy.parent.rmdir()
