"""How is a key put into a git configuration file so that it can be taken out again byte for byte?

git writes the new content, into a copy. What was there and what is there now are kept by
whoever asks; the file itself is changed under git's own lock, by one rename, and only if
it still is what the new content was made from. Taking out restores the old bytes where
nobody has changed the file since, and removes the one key where somebody has.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import GitFailed, KhloneError, Locked
from khlone.values import dataclass

_LOCK_WAIT_S = 10.0
_ABSENT = (1, 5)
#: What our lock holds: a git that finds it only sees that there is one.
_TAKEN = b"# khlone hooks\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A file's content before and after a key was put in; `before` is `None` where there was no file."""

    before: bytes | None
    after: bytes

    def to_json(self) -> dict[str, str | None]:
        """As `from_json` reads it."""
        return {"before": None if self.before is None else self.before.decode("latin-1"), "after": _text(self.after)}

    @classmethod
    def from_json(cls, found: dict[str, str | None]) -> Edit:
        """What `to_json` wrote."""
        before = found["before"]
        return cls(before=None if before is None else before.encode("latin-1"), after=_bytes(found["after"]))


def _text(content: bytes) -> str:
    return content.decode("latin-1")


def _bytes(text: str | None) -> bytes:
    return (text or "").encode("latin-1")


def value_in(app: App, path: Path, key: str) -> str | None:
    """The value of a key in one file, as a path where it begins with a tilde; `None` where it has none."""
    if not files.exists(path):
        return None
    done = app.repository.git("config", "--file", os.fspath(path), "--type=path", "-z", "--get", key, check=False)
    return done.text.removesuffix("\0") if done.status == 0 else None


def plan(app: App, path: Path, key: str, value: str) -> Edit:
    """What a file is and would be with that key; nothing is changed."""
    before = files.read_regular(path)
    return Edit(before=before, after=_with(app, before or b"", key, value))


def _with(app: App, content: bytes, key: str, value: str | None) -> bytes:
    """A configuration's content with a key set, or taken out where the value is `None`."""
    copy = app.state_dir / "stage" / f"config.{os.getpid()}.{os.urandom(4).hex()}"
    files.write_new(copy, content, durable=False)
    try:
        words = [key, value] if value is not None else ["--unset", key]
        done = app.repository.git("config", "--file", os.fspath(copy), *words, check=False)
        if done.status != 0 and not (value is None and done.status in _ABSENT):
            raise GitFailed(["config", *words], done.status, done.error_text)
        return files.read_regular(copy) or b""
    finally:
        copy.unlink(missing_ok=True)


def put_in(path: Path, edit: Edit) -> bool:
    """Change the file as planned; says no when it is not any more what the plan was made for."""
    with _locked(path):
        if files.read_regular(path) != edit.before:
            return False
        _replace(path, edit.after)
        return True


def take_out(app: App, path: Path, key: str, edit: Edit | None) -> None:
    """Bring back the bytes from before, or remove the key alone where the file has changed since."""
    with _locked(path):
        current = files.read_regular(path)
        if current is None:
            return
        if edit is not None and current == edit.after:
            after = edit.before
        else:
            after = _with(app, current, key, None)
            if not after.strip() and (edit is None or edit.before is None):
                after = None
        if after is None:
            os.unlink(path)
            files.sync_dir(path.parent)
        elif after != current:
            _replace(path, after)


def dead_locks(paths: Iterable[Path]) -> list[Path]:
    """The locks among those of these files that a khlone took; with the repository's lock held, a dead one."""
    return [lock for lock in map(_lock_of, paths) if _content(lock) == _TAKEN]


def clear(paths: Iterable[Path]) -> None:
    """Take away what a killed khlone left beside these files; call it with the repository's lock held."""
    for path in paths:
        for lock in dead_locks([path]):
            for temporary in path.parent.glob(f".{path.name}.*.tmp"):
                temporary.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _content(path: Path) -> bytes | None:
    with contextlib.suppress(KhloneError, OSError):
        return files.read_regular(path)
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold git's own lock on a configuration file; it says whose it is, should we be killed."""
    lock = _lock_of(path)
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            files.write_new(lock, _TAKEN, mode=0o666, durable=False)
            break
        except FileExistsError:
            if time.monotonic() > until:
                raise Locked(f"{path}", f"{lock}, which another git has or left behind", _LOCK_WAIT_S) from None
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    """Let the file have that content at once, with the permissions that it has or a new one gets."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    files.write_new(temporary, content, mode=0o666)
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
    os.replace(temporary, path)
    files.sync_dir(path.parent)
