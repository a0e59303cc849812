"""What has the user approved?

A command that a repository brings along runs only when the user approved exactly that:
in this repository, for this event, this text, with these contents of the files that it
names. Approvals lie outside every repository, in `<state>/khlone/trust.json` (0600),
replaced whole under a lock. A file that cannot be read approves nothing and is never
reset. Nobody can approve from within a session or a hook.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from khlone import files, flock
from khlone.config_dir import state_root
from khlone.errors import KhloneError, NotPermitted, StateUnsafe
from khlone.model import Location, utc_now
from khlone.named_files import NamedFile
from khlone.values import dataclass, field_names

FILE = "trust.json"
#: In an environment with one of these nobody sits who could approve anything.
INSIDE_VARIABLES = ("KHLONE_SESSION", "KHLONE_HOOK")

_VERSION = 1
_MOST_BYTES = 16 << 20
#: Seconds that the lock, which is held for milliseconds, is waited for.
_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One repository: its id, and its main worktree (its common dir, if it is bare)."""

    id: str
    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What would run: one command with the files that it names, as they are now."""

    event: str
    name: str | None
    command: str
    timeout_s: float
    secrets: bool
    files: Sequence[NamedFile] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One command that the user approved; `files` are path and SHA-256 of those that it named."""

    key: str
    repository: Path
    repository_id: str
    event: str
    name: str | None
    command: str
    secrets: bool
    files: Mapping[str, str]
    approved_at: str


def identity(location: Location) -> Identity:
    """The repository, whose id is empty until khlone has written it."""
    content = None
    with contextlib.suppress(OSError, KhloneError):
        content = files.read_regular(location.common_dir / "khlone" / "id")
    found = ""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        found = str(json.loads(content or b"{}").get("id") or "")
    return Identity(id=found, root=location.anchor)


def key_of(repository: Identity, subject: Subject) -> str:
    """What an approval is found by: any difference in what would run gives another key."""
    facts = [
        _VERSION,
        repository.id,
        os.fspath(repository.root),
        subject.event,
        subject.secrets,
        hashlib.sha256(subject.command.encode(errors="surrogateescape")).hexdigest(),
        sorted([file.path, file.sha256] for file in subject.files),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def require_person(environment: Mapping[str, str], *, in_session: bool = False) -> None:
    """Raise NotPermitted inside a session or a hook, where a program would approve what it brought along.

    With `in_session` the user lets sessions do it.
    """
    inside = next((name for name in INSIDE_VARIABLES if environment.get(name)), None)
    if inside is not None and not (in_session and inside == "KHLONE_SESSION" and not environment.get("KHLONE_HOOK")):
        what = "a session" if inside == "KHLONE_SESSION" else "a hook"
        raise NotPermitted(
            f"nothing can be approved inside {what}", hint="the user does it, in a terminal of their own", inside=inside
        )


class Approvals:
    """The user's approvals, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_user(cls, environment: Mapping[str, str]) -> Approvals:
        """Those of the user whose environment it is; raises NotPermitted where there is no place for them."""
        return cls(state_root(environment) / FILE)

    def load(self) -> dict[str, Approval]:
        """Every approval by its key; raises StateUnsafe for a file that others could have written, or a damaged one."""
        try:
            found = os.lstat(self._path)
            content = files.read_regular(self._path, most=_MOST_BYTES)
        except FileNotFoundError:
            return {}
        if content is None:
            return {}
        if found.st_uid != os.geteuid():
            raise StateUnsafe(self._path, f"it belongs to user {found.st_uid}")
        if stat.S_IMODE(found.st_mode) & 0o022:
            raise StateUnsafe(self._path, "others may write to it")
        try:
            document = json.loads(content)
            if document["version"] != _VERSION:
                raise StateUnsafe(
                    self._path, f"it is of version {document['version']}, which this khlone does not know"
                )
            listed = [_approval(item) for item in document["approvals"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            aside = shlex.join(["mv", os.fspath(self._path), f"{self._path}.damaged"])
            raise StateUnsafe(
                self._path,
                "it is damaged, so nothing is approved",
                hint=f"{aside}; then git khlone trust, in each project",
            ) from error
        return {one.key: one for one in listed}

    def approve(
        self,
        repository: Identity,
        subjects: Sequence[Subject],
        environment: Mapping[str, str],
        *,
        in_session: bool = False,
    ) -> None:
        """Note that the user approved these; raises NotPermitted inside a session, StateUnsafe or Locked."""
        require_person(environment, in_session=in_session)
        if not repository.id:
            raise ValueError("a repository without an identity")
        now = utc_now()
        with self._changing() as approvals:
            for subject in subjects:
                key = key_of(repository, subject)
                approvals[key] = Approval(
                    key=key,
                    repository=repository.root,
                    repository_id=repository.id,
                    event=subject.event,
                    name=subject.name,
                    command=subject.command,
                    secrets=subject.secrets,
                    files={file.path: file.sha256 for file in subject.files},
                    approved_at=now,
                )

    def withdraw(self, repository: Identity | None) -> list[Approval]:
        """Forget the approvals of one repository, or of all; returns them."""
        with self._changing() as approvals:
            gone = [one for one in approvals.values() if repository is None or is_of(one, repository)]
            for one in gone:
                del approvals[one.key]
        return gone

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Approval]]:
        """The approvals to be changed; what they are at the end of the block is written."""
        with files.explained(self._path):
            files.make_private_dir(self._path.parent)
            lock = self._path.with_suffix(".lock")
            with flock.held(lock, "the list of approvals", holder="another process", wait_s=_WAIT_S):
                before = self.load()
                approvals = dict(before)
                yield approvals
                if approvals != before:
                    listed = [_as_json(one) for one in approvals.values()]
                    content = json.dumps({"version": _VERSION, "approvals": listed}, indent=1)
                    files.write_atomic(self._path, content.encode() + b"\n")


def is_of(approval: Approval, repository: Identity) -> bool:
    """Whether an approval holds in this repository, or did where it lay before it was moved."""
    return approval.repository == repository.root or (bool(repository.id) and approval.repository_id == repository.id)


def _approval(item: Mapping[str, object]) -> Approval:
    text = {name: item[name] for name in ("key", "repository_id", "event", "command", "approved_at")}
    name, named = item["name"], item["files"]
    if not all(isinstance(value, str) for value in text.values()) or not isinstance(named, dict):
        raise ValueError("not an approval")
    return Approval(
        **{key: str(value) for key, value in text.items()},
        name=None if name is None else str(name),
        repository=Path(str(item["repository"])),
        secrets=item["secrets"] is True,
        files={str(path): str(digest) for path, digest in named.items()},
    )


def _as_json(approval: Approval) -> dict[str, object]:
    found = {name: getattr(approval, name) for name in field_names(approval)}
    return {**found, "repository": os.fspath(approval.repository), "files": dict(approval.files)}
