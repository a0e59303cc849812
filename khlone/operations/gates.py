"""What do the gates say of a candidate? Commands in a scratch worktree, then plugins.

The commands come from the user's settings, or from the repository's own file where the
user has approved them (`git khlone trust`). Each sees exactly the commit that would land.
A tree that a gate has passed is not shown to it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from khlone import gate_table, hook_files, process, queue_rows, settings, trust
from khlone.app import SESSION_VARIABLES, App
from khlone.errors import CommandNotFound, GateFailed, NotTrusted
from khlone.gate_table import Gate
from khlone.hook_logs import Log, Tail, log_in
from khlone.model import Candidate, Clone, Strategy, Verdict
from khlone.operations import commit_hooks, scratch
from khlone.operations.scratch import Scratch
from khlone.trust import Subject
from khlone.values import dataclass

#: Lines and bytes of a failed gate's output that are shown and kept.
SHOWN_LINES = 15
_MOST_SHOWN_BYTES = 64 << 10
_EVENT = "gate"
_NAMED_PATHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What all gates together say: without any verdict nothing looked at it."""

    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()

    @property
    def failed(self) -> Verdict | None:
        """The first that refused."""
        return next((verdict for verdict in self.verdicts if not verdict.passed), None)


class Gates:
    """The gates of one repository as they were when the command began."""

    def __init__(self, app: App) -> None:
        self._app = app

    @cached_property
    def commands(self) -> list[Gate]:
        """The gate commands; the user's own hide those of the repository with the same name.

        Raises InvalidSetting, or NotTrusted for one of the repository's that is not approved.
        """
        own = gate_table.parse(self._app.settings.values, "user")
        names = {gate.name for gate in own}
        theirs = [gate for gate in of_project(self._app) if gate.name not in names]
        if theirs:
            _require_approved(self._app, theirs)
        hooks = [gate for gate in commit_hooks.gates(self._app) if gate.name not in names]
        return [*own, *theirs, *hooks]

    @property
    def tell_strategies_apart(self) -> bool:
        """Whether what lands in one way has other gates than what lands in another."""
        return any(not commit_hooks.concerns(gate, Strategy.REBASE, verify=True) for gate in self.commands)

    @property
    def is_there(self) -> bool:
        """Whether any gate may look at a candidate."""
        return bool(self.commands) or self._app.plugins.has("khlone_gate")

    def judge(
        self,
        candidate: Candidate,
        asked: Sequence[tuple[Clone, Candidate]],
        *,
        begun: Callable[[str], None] = lambda _: None,
    ) -> Judgement:
        """Let every gate look at a candidate; plugins are asked about each of the changes in it."""
        return self.with_plugins(self.run_commands(candidate, begun=begun), asked)

    def run_commands(
        self,
        candidate: Candidate,
        *,
        given_up: Callable[[], bool] = lambda: False,
        begun: Callable[[str], None] = lambda _: None,
    ) -> Judgement:
        """What the commands say, up to the first that refuses; one that runs is ended when it is given up.

        `begun` gets the name of each gate that begins to run. Safe for several threads, once `commands` is known.
        """
        verdicts: list[Verdict] = []
        notes: list[str] = []
        for gate in self._applicable(candidate):
            begun(gate.name)
            verdict = self._of_command(gate, candidate, notes, given_up)
            if not gate.needed and not verdict.passed:
                notes.append(f"warning: advisory gate {gate.name!r} refused {candidate.clone}: {verdict.message}")
                continue
            verdicts.append(verdict)
            if verdict.flaky:
                notes.append(f"warning: gate {gate.name!r} is flaky: it failed first and then passed {candidate.clone}")
            if not verdict.passed:
                break
        return Judgement(verdicts=verdicts, notes=notes)

    def with_plugins(self, judgement: Judgement, asked: Sequence[tuple[Clone, Candidate]]) -> Judgement:
        """The same with what plugins say of each change, who are asked where no command has refused."""
        if judgement.failed is not None or not self._app.plugins.has("khlone_gate"):
            return judgement
        said = [verdict for clone, each in asked for verdict in self._app.plugins.gate(clone, each)]
        return Judgement(verdicts=[*judgement.verdicts, *said], notes=judgement.notes)

    def _applicable(self, candidate: Candidate) -> list[Gate]:
        found = []
        for gate in self.commands:
            if not commit_hooks.concerns(gate, candidate.strategy, verify=candidate.verify):
                continue
            if gate.paths:
                specs = [f":(top,glob){path}" for path in gate.paths]
                asked = ["diff-tree", "-r", "--quiet", candidate.old, candidate.oid, "--", *specs]
                if self._app.repository.git(*asked, check=False).status == 0:
                    continue
            found.append(gate)
        return found

    def _of_command(self, gate: Gate, candidate: Candidate, notes: list[str], given_up: Callable[[], bool]) -> Verdict:
        tree = self._app.repository.git("rev-parse", "--verify", f"{candidate.oid}^{{tree}}").text.strip()
        with self._app.registry.reading() as connection:
            if queue_rows.known_result(connection, tree, gate.key):
                return Verdict(passed=True, gate=gate.name)
        with scratch.lease(self._app) as place:
            verdict = self._try(gate, candidate, place, notes, given_up)
            for _ in range(gate.retries):
                if verdict.passed or given_up():
                    break
                again = self._try(gate, candidate, place, notes, given_up)
                if again.passed:
                    return Verdict(passed=True, gate=gate.name, flaky=True)
        if verdict.passed:
            with self._app.registry.transaction() as change:
                queue_rows.note_passed(change.connection, tree, [gate.key])
        return verdict

    def _try(
        self, gate: Gate, candidate: Candidate, place: Scratch, notes: list[str], given_up: Callable[[], bool]
    ) -> Verdict:
        if given_up():
            return Verdict(passed=False, gate=gate.name, message="it was not asked any more")
        place.check_out(candidate.oid)
        verdict = _run(self._app, gate, candidate, place, given_up)
        dirt = place.dirt()
        if dirt:
            named = ", ".join(dirt[:_NAMED_PATHS]) + (" …" if len(dirt) > _NAMED_PATHS else "")
            notes.append(f"warning: gate {gate.name!r} changes files that git does not ignore: {named}")
        return verdict


def required_but_missing(name: str, *, left_out: bool = False) -> GateFailed:
    """The error for a clone that no gate has looked at where one must; `left_out` where it was to be so."""
    return GateFailed(
        name,
        "khlone.gate.required",
        "no gate looked at it, and one is required",
        hint="leave out --no-gate, or unset khlone.gate.required"
        if left_out
        else "set khlone.gate.<name> to a command, install a plugin that is a gate, or unset khlone.gate.required",
    )


def _run(app: App, gate: Gate, candidate: Candidate, place: Scratch, given_up: Callable[[], bool]) -> Verdict:
    tail = Tail(_MOST_SHOWN_BYTES)
    mark = os.urandom(8).hex()
    with log_in(app.config_dirs.gate_logs, f"gate-{gate.name}") as log:
        log.line(f"$ {gate.command}  # {candidate.oid}")
        how = _ended(app, gate, candidate, place, tail, log, mark, given_up)
        log.line(f"# {how or 'passed'}")
    said = "\n".join(f"  {line}" for line in tail.text.splitlines()[-SHOWN_LINES:])
    return Verdict(passed=not how, gate=gate.name, message=how + (f":\n{said}" if said else ""))


def _ended(
    app: App,
    gate: Gate,
    candidate: Candidate,
    place: Scratch,
    tail: Tail,
    log: Log,
    mark: str,
    given_up: Callable[[], bool],
) -> str:
    """How the command failed, empty when it did not; whatever it leaves running is ended."""

    def hear(chunk: bytes) -> None:
        tail.add(chunk)
        log.add(chunk)

    place.begin_run(mark)
    try:
        done = process.run(
            ("/bin/sh", "-c", "--", gate.command),
            cwd=place.path,
            environment={**_environment(app, gate, candidate, place), scratch.RUN_VARIABLE: mark},
            timeout_s=gate.timeout_s or gate_table.LONGEST_TIMEOUT_S,
            capture_bytes=0,
            heard=hear,
            given_up=given_up,
        )
    except CommandNotFound as error:
        return error.message
    finally:
        place.end_run()
    if given_up():
        return "it was ended: nobody waits for it any more"
    if done.timed_out:
        return f"it took longer than {gate.timeout_s:.0f} s and was ended"
    if done.status < 0:
        return f"it was ended by signal {-done.status}"
    return f"it ended with exit {done.status}" if done.status else ""


def _environment(app: App, gate: Gate, candidate: Candidate, place: Scratch) -> Mapping[str, str]:
    left_out = {*SESSION_VARIABLES, "KHLONE_PORT", "KHLONE_PORT_COUNT", "OLDPWD"}
    kept = {name: value for name, value in process.scrubbed(app.environment).items() if name not in left_out}
    return {
        **kept,
        "KHLONE_GATE": gate.name,
        "KHLONE_CANDIDATE": candidate.oid,
        "KHLONE_BASE": candidate.old,
        "KHLONE_TARGET": candidate.target,
        "KHLONE_REPOSITORY": os.fspath(app.location.anchor),
        "PWD": os.fspath(place.path),
    }


# -- those that the repository brings along ----------------------------------------------------


def of_project(app: App) -> list[Gate]:
    """The gate commands in the file of the main worktree, approved or not; raises InvalidSetting."""
    file = hook_files.project_file(app.location)
    return [] if file is None else gate_table.parse(settings.project_values(file), settings.PROJECT_FILE)


def subject_of(gate: Gate) -> Subject:
    """A gate as it is approved: by its text. The files that it runs are what it is there to judge."""
    return Subject(event=_EVENT, name=gate.name, command=gate.command, timeout_s=gate.timeout_s, secrets=False)


def _require_approved(app: App, found: Sequence[Gate]) -> None:
    approvals = trust.Approvals.of_user(app.environment).load()
    repository = trust.identity(app.location)
    for gate in found:
        if not repository.id or trust.key_of(repository, subject_of(gate)) not in approvals:
            error = NotTrusted(f"gate {gate.name!r} of {settings.PROJECT_FILE}")
            error.hint = "look at it and approve it with `git khlone trust`"
            raise error
