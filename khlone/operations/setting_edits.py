"""How is one key of a TOML file changed so that its comments, its order and all else stay?

tomlkit makes the new text; what it holds is compared with what it should hold before it
is written, by one rename, while nobody else of khlone's writes into that folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from khlone import files, flock, setting_files, setting_table
from khlone.errors import InvalidSetting, KhloneError, StateUnsafe
from khlone.setting_table import Kind

#: Seconds that another change, which takes milliseconds, is waited for.
_WAIT_S = 20.0


def with_value(text: str, key: str, value: object, path: Path) -> str:
    """The text with a key set; raises InvalidSetting for a text that is no TOML or has a table in the way."""
    before = _flat(text, path)
    document = _parsed(text, path)
    places = list(_places(document, key.lower()))
    if places:
        holder, name = places[-1]
        if isinstance(holder[name], MutableMapping):
            raise InvalidSetting(f"khlone.{key}", str(value), f"it is a table in {path}; see git khlone config edit")
        holder[name] = value
    else:
        _insert(document, key, value, path)
    after = str(document.as_string())
    _require(_flat(after, path) == before | dict(setting_files.flatten({key.lower(): value})), path)
    return after


def without(text: str, key: str, path: Path) -> str:
    """The text without a key; the same text where it has none. Raises InvalidSetting for a text that is no TOML."""
    before = _flat(text, path)
    if key.lower() not in before:
        return text
    document = _parsed(text, path)
    for holder, name in list(_places(document, key.lower())):
        del holder[name]
    after = str(document.as_string())
    before.pop(key.lower())
    _require(_flat(after, path) == before, path)
    return after


def change(path: Path, changed: Callable[[str], str], *, mode: int) -> bool:
    """Rewrite a file by what `changed` makes of its text; says whether it differs. `mode` is for a new one.

    Raises StateUnsafe for what is not a regular file, Locked when somebody else writes there for long.
    """
    with files.explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with flock.held(
            path.parent, str(path.parent), holder="another change of settings", wait_s=_WAIT_S, is_folder=True
        ):
            before = files.read_regular(path)
            text = _decoded(before or b"", path)
            after = changed(text)
            if after == text:
                return False
            kept = mode if before is None else stat.S_IMODE(os.lstat(path).st_mode)
            files.write_atomic(path, after.encode(), mode=kept)
            if before is not None:
                path.chmod(kept)
            return True


def replace(path: Path, before: str, after: str, *, mode: int) -> bool:
    """Write a whole new text; raises StateUnsafe when the file is not what it was."""

    def changed(text: str) -> str:
        if text != before:
            raise StateUnsafe(path, "it has changed since it was read")
        return after

    return change(path, changed, mode=mode)


def read(path: Path) -> str:
    """The text of a file, empty when it is not there."""
    return _decoded(files.read_regular(path) or b"", path)


def check(text: str, path: Path) -> None:
    """Raise InvalidSetting, with the line, unless a text is TOML whose settings can be used."""
    for key, value in _flat(text, path).items():
        setting = setting_table.find(key)
        why = None if setting is None else setting.fault(value)
        if why is not None:
            line = setting_files.toml_lines(text).get(key)
            raise InvalidSetting(f"khlone.{key}", value, why, f"{path}:{line}")


def as_toml(kind: Kind, text: str) -> object:
    """A value as it is written in TOML: a boolean, a number, or text."""
    if kind is Kind.FLAG:
        return setting_table.as_bool(text)
    if kind in (Kind.COUNT, Kind.SECONDS, Kind.AMOUNT):
        return float(text) if "." in text else int(text)
    return text


def _parsed(text: str, path: Path) -> Any:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise InvalidSetting.of_file(path, ValueError(str(error))) from error


def _flat(text: str, path: Path) -> dict[str, str]:
    import tomllib

    try:
        return dict(setting_files.flatten(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting.of_file(path, error) from error


def _places(holder: Any, key: str, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """Every table and name under which a key, lower case, stands."""
    for name, item in holder.items():
        here = f"{prefix}.{name.lower()}" if prefix else setting_files.top_level(name)
        if here == key:
            yield holder, name
        elif key.startswith(f"{here}.") and isinstance(item, MutableMapping):
            yield from _places(item, key, here)


def _insert(document: Any, key: str, value: object, path: Path) -> None:
    """Put a new key into the table where it belongs, which is made where it is missing."""
    import tomlkit

    *tables, last = key.split(".")
    above = [".".join(tables[:count]).lower() for count in range(1, len(tables) + 1)]
    # A value such as `plugins` cannot be a table too: what is below it is written in quotes.
    if any((found := setting_table.find(one)) is not None and not found.is_pattern for one in above):
        document[key] = value
        return
    at = document
    for number, table in enumerate(tables):
        place = next((one for one in _places(document, above[number])), None)
        if place is None:
            if number == 0 and len(document):
                document.add(tomlkit.nl())
            # Only the innermost has a header of its own.
            at[table] = tomlkit.table(is_super_table=number < len(tables) - 1)
            at = at[table]
            continue
        at = place[0][place[1]]
        if not isinstance(at, MutableMapping):
            raise InvalidSetting(f"khlone.{key}", str(value), f"{above[number]} is no table in {path}")
    at[last] = value


def _require(holds: bool, path: Path) -> None:
    if not holds:
        raise KhloneError(
            f"{path} cannot be changed without changing more of it; nothing was written",
            hint="change it with git khlone config edit",
        )


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidSetting.of_file(path, error) from error
