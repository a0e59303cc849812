"""Which commands does an event run, frozen so that what was approved is what runs?

The user's own hooks come first and need no approval. The repository's come from the
file in its main worktree, which no clone's work touches before it lands. When an event is
prepared all that it would run is read, its scripts kept in memory, and each command must
have been approved as it is then.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import files, hook_files, named_files, trust
from khlone.errors import NotTrusted, Refusal
from khlone.hook_files import PROJECT_FILE
from khlone.hook_table import HookCommand, Steps, parse
from khlone.model import Clone, CloneState, Location, NewRequest
from khlone.named_files import Reading, Tree, Worktree
from khlone.trust import Subject
from khlone.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What an event is about: where its hooks run, and what they are told.

    `logs` is where the output of those in the background goes; None for khlone's own place.
    `trust` is what the user types to approve them as they are there.
    """

    event: str
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    logs: Path | None = None
    trust: str = "git khlone trust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One command that may run; what the user's own file holds is not read, and runs as it is."""

    command: HookCommand
    source: str
    number: int
    reading: Reading | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that an event runs, frozen: whatever happens to the files from here on, this is what runs."""

    occasion: Occasion
    levels: Sequence[Sequence[Sequence[Ready]]]

    @property
    def all(self) -> list[Ready]:
        """Its commands in their order."""
        return [ready for level in self.levels for step in level for ready in step]

    def about(self, occasion: Occasion) -> Prepared:
        """The same commands with what is known by now."""
        return Prepared(occasion=occasion, levels=self.levels)


class Hooks:
    """The hooks of one repository, and the user's own, as the two files were when they were read."""

    def __init__(
        self,
        location: Location,
        environment: Mapping[str, str],
        user: Mapping[str, Steps],
        project: Mapping[str, Steps],
    ) -> None:
        self.location = location
        self._environment = environment
        self._user, self._project = user, project

    @classmethod
    def load(cls, location: Location, environment: Mapping[str, str]) -> Hooks:
        """Read the user's file and that of the main worktree; raises InvalidSetting or StateUnsafe."""
        user = hook_files.user_file(environment)
        project = hook_files.project_file(location)
        return cls(location, environment, _read(user), _read(project))

    def has(self, event: str) -> bool:
        """Whether anything is to be run at an event."""
        return event in self._user or event in self._project

    def prepare(self, occasion: Occasion, *, approved: bool = True) -> Prepared:
        """What an event runs; raises NotTrusted for what is not approved, Refusal for what cannot be run safely.

        With `approved=False` it is only to be looked at.
        """
        levels = []
        if occasion.event in self._user:
            steps = self._user[occasion.event]
            own = [[Ready(command=one, source="user", number=0, reading=None) for one in step] for step in steps]
            levels.append(own)
        if occasion.event in self._project:
            tree = Worktree(occasion.folder, self.location.anchor, self.location.common_dir)
            steps = self._project[occasion.event]
            numbers = itertools.count()
            ready = [[self._ready(one, tree, occasion.folder, next(numbers)) for one in step] for step in steps]
            if approved:
                self._require_approved([one for step in ready for one in step], occasion.trust)
            levels.append(ready)
        return Prepared(occasion=occasion, levels=levels)

    def subjects(self, tree: Tree, folder: Path) -> list[Subject]:
        """All that the repository's file would run in `folder`, for the user to look at; raises Refusal."""
        commands = [one for steps in self._project.values() for step in steps for one in step]
        return [subject_of(self._ready(one, tree, folder)) for one in commands]

    def _ready(self, command: HookCommand, tree: Tree, folder: Path, number: int = 0) -> Ready:
        known = {"PWD": os.fspath(folder), "KHLONE_PATH": os.fspath(folder)}
        known["KHLONE_REPOSITORY"] = os.fspath(self.location.anchor)
        try:
            reading = named_files.read(command.text, tree, folder, known)
        except Refusal as refusal:
            told = Refusal(f"hook {command.title} of {PROJECT_FILE}: {refusal.message}", hint=refusal.hint)
            raise told from refusal
        return Ready(command=command, source="project", number=number, reading=reading)

    def _require_approved(self, ready: Sequence[Ready], how: str) -> None:
        approvals = trust.Approvals.of_user(self._environment).load()
        repository = trust.identity(self.location)
        for one in ready:
            subject = subject_of(one)
            if repository.id and trust.key_of(repository, subject) in approvals:
                continue
            changed = _changed(subject, [known for known in approvals.values() if trust.is_of(known, repository)])
            error = NotTrusted(f"hook {one.command.title} of {PROJECT_FILE}{changed}")
            error.hint = f"look at it and approve it with `{how}`"
            raise error


#: What a hook's JSON object may hold; what an event does not have is null.
CONTEXT = ("request", "clone", "command", "session", "plan", "result")
#: Events of a clone that run in the main worktree: its own folder is not there.
_ELSEWHERE = ("post-cleanup",)


def occasion(event: str, location: Location, clone: Clone | None, **context: object) -> Occasion:
    """What an event of a clone is about; without one, of a clone that is not there yet and `request` tells of."""
    variables = {"KHLONE_REPOSITORY": os.fspath(location.anchor)}
    folder = location.anchor
    logs, how = None, "git khlone trust"
    request = context.get("request")
    if clone is not None:
        variables |= _variables(clone)
        if clone.config_dir is not None:
            # <clone>/config/<agent>; gone when the clone is.
            logs = clone.config_dir.parent.parent / "logs"
            logs = logs if logs.is_dir() else None
        if event not in _ELSEWHERE:
            folder = clone.path
            creating = clone.state is CloneState.CREATING
            how = f"git khlone trust --at {clone.base[:12]}" if creating else f"git khlone -C {clone.path} trust"
    elif isinstance(request, NewRequest):
        variables |= {"KHLONE_NAME": request.name, "KHLONE_BRANCH": request.branch or request.name}
        variables |= {} if request.target is None else {"KHLONE_TARGET": request.target}
    told = {"event": event, "repository": location.anchor, **dict.fromkeys(CONTEXT), **context, "clone": clone}
    return Occasion(event=event, folder=folder, variables=variables, context=told, logs=logs, trust=how)


def _variables(clone: Clone) -> dict[str, str]:
    found = {"KHLONE_NAME": clone.name, "KHLONE_ID": clone.id, "KHLONE_BRANCH": clone.branch}
    found["KHLONE_PATH"] = os.fspath(clone.path)
    if clone.target is not None:
        found["KHLONE_TARGET"] = clone.target
    if clone.ports is not None:
        found |= {"KHLONE_PORT": str(clone.ports[0]), "KHLONE_PORT_COUNT": str(clone.ports[1])}
    return found


def _read(path: Path | None) -> dict[str, Steps]:
    content = None if path is None else files.read_regular(path)
    return {} if path is None or content is None else parse(content, path)


def subject_of(ready: Ready) -> Subject:
    """A command as it is approved."""
    command = ready.command
    return Subject(
        event=command.event,
        name=command.name,
        command=command.text,
        timeout_s=command.timeout_s,
        secrets=command.secrets,
        files=() if ready.reading is None else ready.reading.files,
    )


def _changed(subject: Subject, approvals: Sequence[trust.Approval]) -> str:
    """Which files are not as they were approved, where it is only those."""
    named = {file.path: file.sha256 for file in subject.files}
    for approval in approvals:
        if (approval.event, approval.command) == (subject.event, subject.command):
            other = sorted(path for path in {*named, *approval.files} if named.get(path) != approval.files.get(path))
            if other:
                return f" names {', '.join(other)}, which changed since: it"
    return ""
