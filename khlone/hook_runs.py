"""How does the command of a hook run?

`sh -c` with the text alone, in which copies stand for its scripts; everything else as
variables and as one JSON object on stdin; an environment that is built from a list of
names; a time-out, and a bound on what is kept of the output; whatever a command leaves
running is ended with it. Here (`run`), or in the background by a process that outlives
this one (`start`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from khlone import files, flock, named_files, process
from khlone.config_dir import state_root
from khlone.errors import CommandNotFound, Locked, Refusal
from khlone.hook_logs import Tail, log_in
from khlone.project_hooks import Occasion, Prepared, Ready
from khlone.values import dataclass, plain

#: What a hook inherits, unless it says `secrets = true`.
INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TERM", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR"}
    | {f"XDG_{what}_HOME" for what in ("CONFIG", "STATE", "CACHE", "DATA")}
)
INHERITED_PREFIXES = ("LC_", "KHLONE_")
#: What belongs to the clone in which khlone was called, not to the one that a hook is about.
OF_A_CLONE = frozenset(
    f"KHLONE_{what}"
    for what in (
        "NAME",
        "ID",
        "BRANCH",
        "TARGET",
        "PATH",
        "REPOSITORY",
        "PORT",
        "PORTS",
        "PORT_COUNT",
        "HOOK",
        "HOOK_NAME",
        "HOOK_RUN",
    )
)
RUN_VARIABLE = "KHLONE_HOOK_RUN"
#: Lines of a failed hook's output that its refusal holds.
SHOWN_LINES = 15
_MOST_SHOWN_BYTES = 64 << 10
#: What a killed khlone left in the folder of copies goes after this, in seconds: no hook runs for so long.
_LEFT_BEHIND_S = 2 * 24 * 3600.0
#: How long one that takes it for left behind may hold it, in seconds.
_SWEPT_S = 10.0
_SPEC = "spec.json"
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from khlone.hook_runs import main; main(sys.argv[1])"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult:
    """How one command of a hook ended; `exit` and `signal` are both None when it was not run, or not to its end."""

    event: str
    name: str | None
    source: str
    command: str
    exit: int | None = None
    signal: int | None = None
    timed_out: bool = False
    output: str = ""
    truncated: bool = False

    @property
    def passed(self) -> bool:
        """Whether it ended well."""
        return self.exit == 0


# -- here ------------------------------------------------------------------------------------


def run(
    prepared: Prepared, environment: Mapping[str, str], *, ended: Callable[[HookResult], None] = lambda _: None
) -> list[HookResult]:
    """Run all of it, one step after the other; what comes after a failure is not run.

    `ended` gets each result as it comes. An interruption ends what runs, and passes on.
    """
    with _laid_out(prepared, environment) as place:
        results: list[HookResult] = []
        for level in prepared.levels:
            for step in level:
                jobs = [_job(ready, place) for ready in step]
                if results and not all(result.passed for result in results):
                    results += [not_run(ready) for ready in step]
                    continue
                for result in _run_step(jobs, prepared.occasion, environment):
                    results.append(result)
                    ended(result)
        return results


def require_passed(results: Sequence[HookResult]) -> None:
    """Raise the Refusal for the first that failed: the hook, how it ended and the last it said."""
    failed = next((result for result in results if not result.passed), None)
    if failed is None:
        return
    whose = "" if failed.source == "project" else "your own "
    name = "" if failed.name is None else f" ({failed.name})"
    said = "\n".join(f"  {line}" for line in failed.output.splitlines()[-SHOWN_LINES:])
    refusal = Refusal(f"{whose}hook {failed.event}{name} {how(failed)}" + (f":\n{said}" if said else ""))
    refusal.facts |= {"hook": failed.event, "name": failed.name, "exit": failed.exit, "signal": failed.signal}
    raise refusal


def how(result: HookResult) -> str:
    """How it ended, for people."""
    if result.timed_out:
        return "took too long and was ended"
    if result.signal is not None:
        return f"was ended by signal {result.signal}"
    return "could not be run" if result.exit is None else f"ended with exit {result.exit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One command as it is given to `sh`: `text` is the user's, but for the places of its scripts."""

    event: str
    name: str | None
    source: str
    command: str
    text: str
    timeout_s: float
    secrets: bool


def _job(ready: Ready, place: Path | None) -> _Job:
    command = ready.command
    text = command.text
    if ready.reading is not None and ready.reading.scripts and place is not None:
        text = named_files.pinned(ready.reading, _folder_of(ready, place))
    return _Job(
        event=command.event,
        name=command.name,
        source=ready.source,
        command=command.text,
        text=text,
        timeout_s=command.timeout_s,
        secrets=command.secrets,
    )


def not_run(ready: Ready) -> HookResult:
    """A command as a result that is not there."""
    command = ready.command
    return HookResult(event=command.event, name=command.name, source=ready.source, command=command.text)


def _run_step(jobs: Sequence[_Job], occasion: Occasion, environment: Mapping[str, str]) -> Iterator[HookResult]:
    run_id = os.urandom(8).hex()
    marks = [f"{run_id}.{number}" for number in range(len(jobs))]
    one = functools.partial(_run_one, occasion=occasion, environment=environment)
    if len(jobs) == 1:
        yield one(jobs[0], marks[0])
        return
    with ThreadPoolExecutor(len(jobs)) as pool:
        pids: dict[str, int] = {}
        futures = [pool.submit(one, job, mark, pids=pids) for job, mark in zip(jobs, marks, strict=True)]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            for future, mark in zip(futures, marks, strict=True):
                if not future.done() and not future.cancel() and mark in pids:
                    process.end_group(pids[mark])
            raise


def _run_one(
    job: _Job,
    mark: str,
    *,
    occasion: Occasion,
    environment: Mapping[str, str],
    pids: dict[str, int] | None = None,
    heard: Callable[[bytes], None] = lambda _: None,
) -> HookResult:
    tail = Tail(_MOST_SHOWN_BYTES)

    def hear(chunk: bytes) -> None:
        tail.add(chunk)
        heard(chunk)

    built = environment_of(environment, occasion, job.name, secrets=job.secrets, own=job.source == "user")
    status, timed_out = None, False
    try:
        done = process.run(
            ("/bin/sh", "-c", "--", job.text),
            cwd=occasion.folder,
            environment={**built, RUN_VARIABLE: mark},
            stdin=json.dumps(plain(occasion.context)).encode() + b"\n",
            timeout_s=job.timeout_s,
            capture_bytes=0,
            started=None if pids is None else lambda pid: pids.update({mark: pid}),
            heard=hear,
        )
        status, timed_out = done.status, done.timed_out
    except CommandNotFound as error:
        hear(error.message.encode(errors="replace") + b"\n")
    finally:
        process.end_marked(RUN_VARIABLE, mark)
    return HookResult(
        event=job.event,
        name=job.name,
        source=job.source,
        command=job.command,
        exit=status if status is not None and status >= 0 else None,
        signal=-status if status is not None and status < 0 else None,
        timed_out=timed_out,
        output=tail.text,
        truncated=tail.truncated,
    )


def environment_of(
    environment: Mapping[str, str], occasion: Occasion, name: str | None, *, secrets: bool, own: bool
) -> dict[str, str]:
    """The variables of one command: a list of names, everything with `secrets`; never another clone's.

    For commands that are not the user's own, PATH has its absolute entries alone: others
    would be looked up in the worktree.
    """
    kept = {
        variable: value
        for variable, value in process.scrubbed(environment).items()
        if variable not in OF_A_CLONE
        and not variable.startswith("KHLONE_PORT_")
        and (secrets or variable in INHERITED or variable.startswith(INHERITED_PREFIXES))
    }
    if not own and "PATH" in kept:
        kept["PATH"] = os.pathsep.join(filter(os.path.isabs, kept["PATH"].split(os.pathsep)))
    named = {} if name is None else {"KHLONE_HOOK_NAME": name}
    told = {"KHLONE_HOOK": occasion.event, "PWD": os.fspath(occasion.folder)}
    return {**kept, **occasion.variables, **named, **told}


# -- copies of scripts -------------------------------------------------------------------------


def _folder_of(ready: Ready, place: Path) -> Path:
    """Where the copies of one command's scripts lie."""
    return place / str(ready.number)


@contextlib.contextmanager
def _laid_out(prepared: Prepared, environment: Mapping[str, str]) -> Iterator[Path | None]:
    """A private folder with copies of the scripts for the length of the block; None where there is no script."""
    place = _lay_out(prepared, environment)
    if place is None:
        yield None
        return
    try:
        with _in_use(place):
            yield place
    finally:
        files.remove_tree(place)


def _in_use(place: Path) -> AbstractContextManager[None]:
    """While this is held nobody takes the folder for left behind, whatever the clock says."""
    return flock.held(place, "the copies of scripts", wait_s=_SWEPT_S, is_folder=True, or_without=True)


def _lay_out(prepared: Prepared, environment: Mapping[str, str], *, always: bool = False) -> Path | None:
    with_scripts = [one for one in prepared.all if one.reading is not None and one.reading.scripts]
    if not with_scripts and not always:
        return None
    place = _new_place(state_root(environment) / "hooks" / "running")
    for one in with_scripts:
        assert one.reading is not None
        for name, label in named_files.copies(one.reading).items():
            path = _folder_of(one, place) / name
            files.make_private_dir(path.parent.parent)
            files.make_private_dir(path.parent)
            files.write_new(path, one.reading.scripts[label], mode=0o500, durable=False)
    return place


def _new_place(usual: Path) -> Path:
    """A fresh private folder whose path means the same in any quotes."""
    with files.explained(usual):
        if named_files.can_stand(usual):
            files.make_private_dir(usual)
            _drop_left_behind(usual)
            return files.make_private_dir(usual / os.urandom(8).hex())
        place = Path(tempfile.mkdtemp(prefix="khlone-hook-"))
    if not named_files.can_stand(place):
        os.rmdir(place)
        raise Refusal(f"copies of scripts cannot lie in {place}", hint="set TMPDIR to a path of plain letters")
    return place


def _drop_left_behind(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError, Locked):
            if time.time() - os.lstat(path).st_mtime > _LEFT_BEHIND_S:
                with flock.held(path, "a hook", wait_s=0.0, is_folder=True):
                    files.remove_tree(path)


# -- in the background -------------------------------------------------------------------------


def start(prepared: Prepared, environment: Mapping[str, str]) -> None:
    """Run all of it in the background; its output goes to a log file, and its failure nowhere else."""
    if not prepared.levels:
        return
    place = _lay_out(prepared, environment, always=True)
    assert place is not None
    occasion = prepared.occasion
    spec = {
        "occasion": {
            "event": occasion.event,
            "folder": os.fspath(occasion.folder),
            "variables": dict(occasion.variables),
            "context": plain(occasion.context),
        },
        "logs": os.fspath(occasion.logs or state_root(environment) / "hooks" / "logs"),
        "levels": [[[plain(_job(ready, place)) for ready in step] for step in level] for level in prepared.levels],
    }
    try:
        files.write_new(place / _SPEC, json.dumps(spec).encode(), durable=False)
        # Isolated, with what this process searches: a working folder or PYTHONPATH brings nothing along.
        path = [entry for entry in sys.path if os.path.isabs(entry)]
        argv = [sys.executable, "-I", "-c", _BOOT, os.fspath(place), *path]
        # Neither a process of the clone in which this one was called, nor part of the hook that this one is part
        # of, which ends with all that it started.
        kept = {name: value for name, value in process.scrubbed(environment).items() if name not in OF_A_CLONE}
        process.start_detached(argv, environment=kept)
    except BaseException:
        files.remove_tree(place)
        raise


def main(folder: str) -> None:
    """The process in the background: run what the spec in a folder says, write the log, delete the folder."""
    place = Path(folder)
    try:
        spec = json.loads(files.read_regular(place / _SPEC, most=1 << 30) or b"{}")
        given = spec["occasion"]
        occasion = Occasion(
            event=given["event"],
            folder=Path(given["folder"]),
            variables=given["variables"],
            context=given["context"],
        )
        levels = [[[_Job(**job) for job in step] for step in level] for level in spec["levels"]]
        with _in_use(place), log_in(Path(spec["logs"]), occasion.event) as log:
            for level in levels:
                _run_level(level, occasion, log.line, log.add)
    finally:
        files.remove_tree(place)


def _run_level(
    steps: Sequence[Sequence[_Job]],
    occasion: Occasion,
    line: Callable[[str], None],
    heard: Callable[[bytes], None],
) -> None:
    """The steps of one file, up to the first that fails; the other file's run all the same."""
    for step in steps:
        run_id = os.urandom(8).hex()
        for job in step:
            line(f"$ {job.command}")
        with ThreadPoolExecutor(len(step)) as pool:
            running = deque(
                pool.submit(_run_one, job, f"{run_id}.{number}", occasion=occasion, environment=os.environ, heard=heard)
                for number, job in enumerate(step)
            )
            results = [future.result() for future in running]
        for result in results:
            line(f"# {result.event}{'' if result.name is None else f' ({result.name})'} {how(result)}")
        if not all(result.passed for result in results):
            return
