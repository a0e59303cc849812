"""What would a repository run, by its hooks or an agent, and what of it does the user approve?

Looked at in one place: the worktree in which khlone was called, or a commit, whose files
a clone will have. What was shown is what is approved, whatever happens to the files
meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from khlone import hook_files, trust
from khlone.app import App
from khlone.errors import UsageError
from khlone.named_files import MOST_SCRIPT_BYTES, Found, NamedFile, Tree, Worktree
from khlone.operations import brought, gates, permission
from khlone.project_hooks import Hooks
from khlone.trust import Approval, Approvals, Subject
from khlone.values import dataclass

#: Stands for the folder of a worktree that has the files of a commit; nothing lies there.
_AT_COMMIT = Path("/nonexistent/khlone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """One command that would run, and whether the user approved it as it is."""

    event: str
    name: str | None
    command: str
    timeout_s: float
    secrets: bool
    files: Sequence[NamedFile]
    approved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the repository's file would run, and what was ever approved here. `file` is None where there is none."""

    repository: Path
    file: Path | None
    commands: Sequence[Reviewed]
    approvals: Sequence[Approval]

    @property
    def unapproved(self) -> list[Reviewed]:
        """What would not run as it is."""
        return [one for one in self.commands if not one.approved]


def review(app: App, *, at: str | None = None) -> Review:
    """Look at all that would run, with the files of the calling worktree, or of commit `at`.

    Raises NoSuchRef, InvalidSetting, StateUnsafe, or Refusal for what could never run.
    """
    location = app.location
    repository = trust.identity(location)
    approvals = Approvals.of_user(app.environment).load()
    file = hook_files.project_file(location)
    if file is None and at is not None:
        raise UsageError("a bare repository has no hooks that --at could be about")
    subjects: list[Subject] = []
    for_agents = brought.profiles(app)
    folder = location.worktree or location.anchor
    tree: Tree = Worktree(folder, location.anchor, location.common_dir)
    if at is not None:
        oid = app.repository.resolve_commit(at, cwd=location.worktree)
        folder, tree = _AT_COMMIT, _Commit(app, oid)
        subjects += brought.at_commit(app, for_agents, oid, tree, folder)
    elif location.worktree is not None:
        subjects += brought.in_worktree(app, for_agents, location.worktree)
    if file is not None:
        of_gates = [gates.subject_of(gate) for gate in gates.of_project(app)]
        subjects = [*Hooks.load(location, app.environment).subjects(tree, folder), *of_gates, *subjects]
    found = [
        _reviewed(subject, approved=bool(repository.id) and trust.key_of(repository, subject) in approvals)
        for subject in subjects
    ]
    return Review(
        repository=location.anchor,
        file=file if file is not None and os.path.lexists(file) else None,
        commands=found,
        approvals=[one for one in approvals.values() if trust.is_of(one, repository)],
    )


def approve(app: App, shown: Review) -> Review:
    """Approve all that was shown, as it was shown; raises NotPermitted inside a session or a hook."""
    in_session = require_user(app)
    app.prepare_state()
    approvals = Approvals.of_user(app.environment)
    repository = trust.identity(app.location)
    approvals.approve(repository, [_subject(one) for one in shown.commands], app.environment, in_session=in_session)
    known = approvals.load().values()
    return Review(
        repository=shown.repository,
        file=shown.file,
        commands=[_reviewed(_subject(one), approved=True) for one in shown.commands],
        approvals=[one for one in known if trust.is_of(one, repository)],
    )


def require_user(app: App) -> bool:
    """Raise NotPermitted in a hook, and in a session whose user does not let it approve; says whether it is one."""
    trust.require_person(app.environment, in_session=True)
    permission.require(app, "trust")
    return permission.find(app) is not None


def withdraw(app: App, *, everywhere: bool = False) -> list[Approval]:
    """Forget what was approved in this repository, or in all of them; returns it.

    Raises NotPermitted inside a session whose user does not let it.
    """
    permission.require(app, "trust")
    return Approvals.of_user(app.environment).withdraw(None if everywhere else trust.identity(app.location))


def _reviewed(subject: Subject, *, approved: bool) -> Reviewed:
    return Reviewed(
        event=subject.event,
        name=subject.name,
        command=subject.command,
        timeout_s=subject.timeout_s,
        secrets=subject.secrets,
        files=subject.files,
        approved=approved,
    )


def _subject(shown: Reviewed) -> Subject:
    return Subject(
        event=shown.event,
        name=shown.name,
        command=shown.command,
        timeout_s=shown.timeout_s,
        secrets=shown.secrets,
        files=shown.files,
    )


class _Commit:
    """The files that a worktree has right after it was checked out at a commit."""

    def __init__(self, app: App, oid: str) -> None:
        self._app, self._oid = app, oid
        self._elsewhere = Worktree(_AT_COMMIT, app.location.anchor, app.location.common_dir)

    def look(self, path: str) -> Found | None:
        """What lies there, links followed within the commit."""
        if not (path == os.fspath(_AT_COMMIT) or path.startswith(f"{_AT_COMMIT}/")):
            return self._elsewhere.look(path)
        name = os.path.relpath(path, _AT_COMMIT)
        if "\n" in name:
            return None
        shown = "" if name == "." else name
        asked = f"{self._oid}:{shown}\n".encode(errors="surrogateescape")
        answer = self._app.repository.git("cat-file", "--batch", "--follow-symlinks", stdin=asked).stdout
        head, _, content = answer.partition(b"\n")
        words = head.split(b" ")
        if words[0] == b"symlink":
            digest = hashlib.sha256(b"leads to " + content.removesuffix(b"\n")).hexdigest()
            return Found(label=name, leads_out=True, sha256=digest)
        if len(words) != 3 or words[1] not in (b"blob", b"tree"):
            return None
        if words[1] == b"tree":
            return Found(label=name, is_folder=True)
        content = content[: int(words[2])]
        return Found(
            label=name,
            executable=content.startswith(b"#!") or self._has_mode(name),
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            content=content if len(content) <= MOST_SCRIPT_BYTES else None,
        )

    def _has_mode(self, name: str) -> bool:
        listed = self._app.repository.git("--literal-pathspecs", "ls-tree", self._oid, "--", name, check=False).text
        return listed.startswith("100755 ")
