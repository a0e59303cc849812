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
from collections.abc import Iterator
from pathlib import Path

from khlone import files
from khlone.app import App
from khlone.errors import GitFailed, Locked
from khlone.values import dataclass

_LOCK_WAIT_S = 10.0
_ABSENT = (1, 5)


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
    with _locked(path) as lock:
        if files.read_regular(path) != edit.before:
            return False
        _replace(path, lock, edit.after)
        return True


def take_out(app: App, path: Path, key: str, edit: Edit | None) -> None:
    """Bring back the bytes from before, or remove the key alone where the file has changed since."""
    with _locked(path) as lock:
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
            _replace(path, lock, after)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Hold git's own lock on a configuration file."""
    lock = path.with_name(path.name + ".lock")
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            files.write_new(lock, b"", mode=0o666, durable=False)
            break
        except FileExistsError:
            if time.monotonic() > until:
                raise Locked(f"{path}", f"{lock}, which another git has or left behind", _LOCK_WAIT_S) from None
            time.sleep(0.02)
    try:
        yield lock
    finally:
        lock.unlink(missing_ok=True)


def _replace(path: Path, lock: Path, content: bytes) -> None:
    """Fill the lock and let it become the file, as git does, with the file's own permissions."""
    descriptor = os.open(lock, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(lock, path)
    files.sync_dir(path.parent)
