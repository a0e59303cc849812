"""Which hooks may a plugin implement, and what is promised about each?

Four disciplines, named in the first line of every docstring and implemented once, in
plugins.py: **gate** (before a change; the first refusal stops it and what was made is
rolled back), **collect** (all answers combined; a clash names both plugins), **first**
(the first answer that is not None), **notify** (after a change; every plugin runs even
when one raises, and the change stands). Arguments are frozen values, passed by name: an
implementation takes any subset of them. No hook runs under a state lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from khlone.model import (
        AgentProfile,
        Candidate,
        Clone,
        Finding,
        MergePlan,
        MergeResult,
        NewRequest,
        RemovePlan,
        Session,
        Verdict,
    )

PROJECT = "khlone"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def khlone_pre_create(request: NewRequest) -> None:
    """Gate: runs before a clone is reserved; raise `Refusal` to stop it.

    Nothing exists yet, so nothing is rolled back::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_create(request):
            if request.name.startswith("tmp"):
                raise Refusal("names that start with tmp are for scratch work")
    """


@hookspec
def khlone_populate_config_dir(clone: Clone, agent: AgentProfile, config_dir: Path) -> None:
    """Gate: fills the fresh, empty, private (0700) config dir of one agent in one clone.

    Runs before the worktree exists. Whatever is written lies inside `config_dir`; files
    should be 0600. A `Refusal` rolls the clone back::

        from khlone import hookimpl

        @hookimpl
        def khlone_populate_config_dir(clone, agent, config_dir):
            if agent.name == "mine":
                (config_dir / "settings.json").write_text("{}")
    """


@hookspec
def khlone_prepare(clone: Clone) -> None:
    """Gate: runs after the checkout and before the clone is ready; `clone.path` is complete.

    A `Refusal` rolls the clone back, files made here included; `khlone_post_cleanup`
    then runs, so that what lies outside the worktree can be given back::

        import shutil
        from khlone import hookimpl

        @hookimpl
        def khlone_prepare(clone):
            shutil.copy("/srv/fixtures/data.db", clone.path / "data.db")
    """


@hookspec
def khlone_post_create(clone: Clone) -> None:
    """Notify: runs once the clone is ready.

    ::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_create(clone):
            print(f"{clone.name} is ready in {clone.path}")
    """


@hookspec
def khlone_agents(settings: Mapping[str, str]) -> Iterable[AgentProfile]:
    """Collect: offers agent profiles; two plugins with one name are a clash.

    `settings` holds the `khlone.*` settings in force, keys in lower case without the
    `khlone.` prefix::

        from khlone import AgentProfile, hookimpl

        @hookimpl
        def khlone_agents():
            return [AgentProfile(name="mine", executable="mine", config_variables=["MINE_HOME"])]
    """
    return ()


@hookspec
def khlone_environment(clone: Clone) -> Mapping[str, str] | None:
    """Collect: adds variables to the environment of every process started in the clone.

    Two plugins that set one variable to different values are a clash::

        from khlone import hookimpl

        @hookimpl
        def khlone_environment(clone):
            return {"DATABASE": f"app_{clone.id[:8]}"}
    """
    return None


@hookspec
def khlone_pre_spawn(clone: Clone, command: Sequence[str]) -> None:
    """Gate: runs before a process is started in the clone; raise `Refusal` to stop it.

    ::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_spawn(clone, command):
            if command[0] == "rm":
                raise Refusal("not here")
    """


@hookspec(firstresult=True)
def khlone_spawn_command(clone: Clone, command: Sequence[str]) -> Sequence[str] | None:
    """First: replaces the command line to be started, to wrap it in a sandbox or a container.

    ::

        from khlone import hookimpl

        @hookimpl
        def khlone_spawn_command(clone, command):
            return ["nice", "-n", "5", *command]
    """
    return None


@hookspec
def khlone_post_spawn(clone: Clone, session: Session) -> None:
    """Notify: runs once a process was started in the clone.

    ::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_spawn(clone, session):
            print(session.pid)
    """


@hookspec
def khlone_session_ended(clone: Clone, session: Session) -> None:
    """Notify: runs once a session of the clone has ended; `session.state` says how.

    ::

        from khlone import hookimpl

        @hookimpl
        def khlone_session_ended(clone, session):
            print(clone.name, session.state)
    """


@hookspec
def khlone_pre_merge(clone: Clone, plan: MergePlan) -> None:
    """Gate: runs before a merge is computed; a `Refusal` holds this clone, others go on.

    ::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_merge(clone, plan):
            if plan.target == "main" and clone.agent == "trial":
                raise Refusal("trial agents do not land on main")
    """


@hookspec
def khlone_gate(clone: Clone, candidate: Candidate) -> Verdict | None:
    """Gate: gives a verdict on the built commit before it lands; a failing one holds the clone.

    `candidate.oid` is exactly the commit that will land; it lies in the object database
    and is checked out nowhere::

        import subprocess
        from khlone import Verdict, hookimpl

        @hookimpl
        def khlone_gate(clone, candidate):
            shown = subprocess.run(["git", "-C", clone.path, "diff", "--check", candidate.old, candidate.oid])
            return Verdict(passed=shown.returncode == 0, gate="whitespace")
    """
    return None


@hookspec
def khlone_post_merge(clone: Clone, result: MergeResult) -> None:
    """Notify: runs once a clone has landed.

    ::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_merge(clone, result):
            print(f"{clone.name} is in {result.target} at {result.new}")
    """


@hookspec
def khlone_pre_cleanup(clone: Clone, plan: RemovePlan) -> None:
    """Gate: runs before a clone is moved to the trash; a `Refusal` keeps it.

    What the worktree holds is checked once more afterwards::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_cleanup(clone, plan):
            if (clone.path / "KEEP").exists():
                raise Refusal("KEEP says so")
    """


@hookspec
def khlone_post_cleanup(clone: Clone) -> None:
    """Notify: runs once a clone is in the trash, and after a create that was rolled back.

    It may run twice for one clone, so what it gives back must be safe to give back twice::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_cleanup(clone):
            print(f"{clone.name} is gone")
    """


@hookspec
def khlone_diagnose(clones: Sequence[Clone]) -> Iterable[Finding]:
    """Collect: adds findings to `git khlone doctor`.

    ::

        from khlone import Finding, Severity, hookimpl

        @hookimpl
        def khlone_diagnose(clones):
            for clone in clones:
                if not (clone.path / ".env").exists():
                    yield Finding(code="no-env", severity=Severity.INFO, clone=clone.name, message="no .env")
    """
    return ()


@hookspec(firstresult=True)
def khlone_worktree_path(request: NewRequest) -> Path | None:
    """First: decides where the worktree of a new clone lies; absolute, and not there yet.

    ::

        from pathlib import Path
        from khlone import hookimpl

        @hookimpl
        def khlone_worktree_path(request):
            return Path("/scratch") / request.name.replace("/", "-")
    """
    return None
