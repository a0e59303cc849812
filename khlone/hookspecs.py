"""Which hooks may a plugin implement, and what is promised about each?

Four disciplines, named in the first line of every docstring and implemented once, in
plugins.py: **gate** (before a change; the first refusal stops it and what was made is
rolled back), **collect** (all answers combined; a clash names both plugins), **first**
(the first answer that is not None), **notify** (after a change; every plugin runs even
when one raises, and the change stands). Arguments are frozen values, passed by name: an
implementation takes any subset of them. No hook runs under a state lock.

docs/hooks.md is made from these docstrings, and a test runs every example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from khlone.errors import Refusal
    from khlone.model import (
        Candidate,
        Clone,
        Conflict,
        Demand,
        Finding,
        Held,
        Location,
        MergePlan,
        MergeResult,
        NewRequest,
        RemovePlan,
        Session,
        Verdict,
    )
    from khlone.profiles import AgentProfile, ConfigItem

PROJECT = "khlone"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Commands(Protocol):
    """The command as `khlone_register_commands` gets it: takes verbs, and answers for them.

    A verb has `-C`, `--json` and `--quiet` like khlone's own. stdout is for its answer:
    `print` and `click.echo` go to stderr while it runs.
    """

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
        """A decorator like `click.command` that adds the verb."""

    def add_command(self, command: Any, name: str | None = None) -> None:
        """Add a finished `click.Command` as a verb; ValueError for a name that cannot be typed."""

    def app(self) -> Any:
        """The repository that was meant as a `khlone.App`, `-C` obeyed; raises NotARepository."""

    def answer(self, text: str) -> None:
        """Print a line on stdout; nothing under `--json`."""

    def document(self, content: Mapping[str, object]) -> None:
        """Under `--json` print the one document, of schema `<plugin>.<verb>/1`; else nothing."""

    def tell(self, text: str) -> None:
        """Print a line on stderr; nothing under `--quiet`."""


# -- gate ----------------------------------------------------------------------------------


@hookspec
def khlone_pre_create(request: NewRequest) -> None:
    """Gate: may stop a clone before it is reserved.

    Runs once for each clone of `new`, before any name is resolved. `Refusal` stops that
    clone (`vetoed`), any other exception too (`plugin-failed`). Nothing exists yet, so
    nothing is rolled back::

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
    should be 0600. A `Refusal` (`vetoed`) or any other exception (`plugin-failed`) rolls
    the clone back, and `khlone_post_cleanup` runs::

        from khlone import hookimpl

        @hookimpl
        def khlone_populate_config_dir(clone, agent, config_dir):
            if agent.name == "mine":
                (config_dir / "settings.json").write_text("{}")
    """


@hookspec
def khlone_prepare(clone: Clone) -> None:
    """Gate: makes a checked-out clone fit for work, before it is ready.

    Runs after the checkout, when `clone.path` is complete. A `Refusal` (`vetoed`) or any
    other exception (`plugin-failed`) rolls the clone back, files made here included;
    `khlone_post_cleanup` then runs, so that what lies elsewhere can be given back::

        from khlone import hookimpl

        @hookimpl
        def khlone_prepare(clone):
            (clone.path / ".env").write_text(f"DATABASE=app_{clone.id[:8]}\\n")
    """


@hookspec
def khlone_pre_spawn(clone: Clone, command: Sequence[str]) -> None:
    """Gate: may stop a process before it is started in the clone.

    Runs for `exec` and `new -x`, after `khlone_admit`. `Refusal` stops it (`vetoed`), any
    other exception too (`plugin-failed`); the clone stays::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_spawn(clone, command):
            if command[0] == "rm":
                raise Refusal("not here")
    """


@hookspec
def khlone_pre_merge(clone: Clone, plan: MergePlan) -> None:
    """Gate: may hold a clone back before its merge is computed.

    Runs once for each clone of `merge`, with `--dry-run` too. `Refusal` holds this clone
    (`vetoed`), any other exception too (`plugin-failed`); the other clones go on::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_merge(clone, plan):
            if plan.target == "main" and clone.agent == "trial":
                raise Refusal("trial agents do not land on main")
    """


@hookspec
def khlone_gate(clone: Clone, candidate: Candidate) -> Verdict | None:
    """Gate: gives a verdict on the built commit before it lands.

    Runs after `khlone_pre_merge`, and again when the target moved meanwhile; never with
    `--no-gate` or `--dry-run`. `candidate.oid` is exactly the commit that will land; it
    lies in the object database and is checked out nowhere. A failing verdict or a
    `Refusal` holds the clone (`gate-failed`, exit 5), any other exception too
    (`plugin-failed`). None means that the plugin has not looked::

        import subprocess
        from khlone import Verdict, hookimpl

        @hookimpl
        def khlone_gate(clone, candidate):
            shown = subprocess.run(["git", "-C", clone.path, "diff", "--check", candidate.old, candidate.oid])
            return Verdict(passed=shown.returncode == 0, gate="whitespace")
    """
    return None


@hookspec
def khlone_pre_sync(clone: Clone) -> None:
    """Gate: may hold a clone back before its branch gets what its target has.

    Runs where there is something to bring, not with `--dry-run`. `Refusal` keeps this clone
    as it is (`vetoed`), any other exception too (`plugin-failed`); the other clones go on::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_sync(clone):
            if (clone.path / "FROZEN").exists():
                raise Refusal("FROZEN says so")
    """


@hookspec
def khlone_pre_cleanup(clone: Clone, plan: RemovePlan) -> None:
    """Gate: may keep a clone before it is moved to the trash.

    Runs once for each clone of `remove` and `prune`, after khlone's own refusals. `Refusal`
    keeps this clone (`vetoed`), any other exception too (`plugin-failed`), even with
    `--force`. What the worktree holds is checked once more afterwards::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_pre_cleanup(clone, plan):
            if (clone.path / "KEEP").exists():
                raise Refusal("KEEP says so")
    """


# -- collect -------------------------------------------------------------------------------


@hookspec
def khlone_agents(settings: Mapping[str, str], environment: Mapping[str, str]) -> Iterable[AgentProfile]:
    """Collect: offers agent profiles; two plugins with one name are a clash.

    Runs whenever a profile is looked up. `settings` holds the `khlone.*` settings in
    force, keys in lower case without the `khlone.` prefix. `environment` is the user's,
    also where khlone is called by an agent in a clone: the variables that move the agent's
    config are those that the clone was made under. A plugin that raises is left
    out with a warning where the agent that is wanted is another plugin's; else the
    command ends with `plugin-failed`, since its agent may have been that one::

        from khlone import AgentProfile, hookimpl

        @hookimpl
        def khlone_agents():
            return [AgentProfile(name="mine", executable="mine", config_variables=["MINE_HOME"])]
    """
    return ()


@hookspec
def khlone_environment(clone: Clone) -> Mapping[str, str] | None:
    """Collect: adds variables to the environment of every process started in the clone.

    Runs for `exec`, `new -x`, `run`, `ask`, `attach` and `env`. Two plugins that set one variable to different
    values are a clash (`plugin-clash`), and whatever raises ends the command
    (`plugin-failed`): no process starts with half of its environment::

        from khlone import hookimpl

        @hookimpl
        def khlone_environment(clone):
            return {"DATABASE": f"app_{clone.id[:8]}"}
    """
    return None


@hookspec
def khlone_admit(clone: Clone, demand: Demand) -> Refusal | None:
    """Collect: answers a `Refusal` while there is no room for one more session.

    Runs for `exec` and `new -x`, before `khlone_pre_spawn`. Every plugin is asked; any
    refusal, answered or raised, ends the command with `not-admitted` (exit 75: try again)
    and all reasons; a subclass of `Refusal` with a `code` and an `exit_code` of its own
    ends it with these. Any other exception ends it with `plugin-failed`::

        from khlone import Refusal, hookimpl

        @hookimpl
        def khlone_admit(clone, demand):
            if demand.live_sessions >= 4:
                return Refusal("four sessions are enough for this machine")
    """
    return None


@hookspec
def khlone_diagnose(clones: Sequence[Clone]) -> Iterable[Finding]:
    """Collect: adds findings to `git khlone doctor`.

    Runs at the end of `doctor`. A plugin that raises becomes a finding itself, after what
    it had found; the others are asked all the same::

        from khlone import Finding, Severity, hookimpl

        @hookimpl
        def khlone_diagnose(clones):
            for clone in clones:
                if not (clone.path / ".env").exists():
                    yield Finding(code="no-env", severity=Severity.INFO, clone=clone.name, message="no .env")
    """
    return ()


@hookspec
def khlone_register_commands(cli: Commands) -> None:
    """Collect: adds verbs to the command.

    Runs when the first word is none of khlone's verbs, and for `git khlone -h`. khlone's
    own verbs cannot be replaced: that is a warning, as is a plugin that raises, whose
    verbs are left out. A verb that two plugins have is a clash (`plugin-clash`) when it
    is called. A verb ends as its function says: a number is the exit code, KhloneError
    and click's exceptions are told, any other exception is `plugin-failed`::

        import click
        from khlone import hookimpl

        @hookimpl
        def khlone_register_commands(cli):
            @cli.command("count")
            @click.option("--twice", is_flag=True, help="Count twice.")
            def count(twice):
                \"\"\"Say how many clones there are.\"\"\"
                app = cli.app()
                clones = len(app.registry.clones()) if app.has_registry else 0
                cli.answer(str(clones * 2 if twice else clones))
                cli.document({"clones": clones})
    """


@hookspec
def khlone_columns(clone: Clone) -> Mapping[str, str] | None:
    """Collect: adds columns to the table of `git khlone list`; `--json` stays as it is.

    Runs for each clone of a table. A column of khlone's, or of a plugin asked before, is
    a clash: a warning names both and the first stays. A plugin that raises loses its
    columns with a warning; the table is shown all the same::

        from khlone import hookimpl

        @hookimpl
        def khlone_columns(clone):
            return {"env": "yes" if (clone.path / ".env").exists() else "no"}
    """
    return None


# -- first ---------------------------------------------------------------------------------


@hookspec(firstresult=True)
def khlone_spawn_command(clone: Clone, command: Sequence[str]) -> Sequence[str] | None:
    """First: replaces the command line to be started, to wrap it in a sandbox or a container.

    Runs after `khlone_pre_spawn`. None leaves it to the next plugin, in the end to the
    plain command. A `Refusal` (`vetoed`) or any other exception (`plugin-failed`) means
    that nothing is started::

        from khlone import hookimpl

        @hookimpl
        def khlone_spawn_command(clone, command):
            return ["nice", "-n", "5", *command]
    """
    return None


@hookspec(firstresult=True)
def khlone_agent_item(
    clone: Clone, agent: AgentProfile, item: ConfigItem, source: bytes | None, location: Location
) -> bytes | None:
    """First: makes the content of an item that is generated (`Sharing.GENERATE`) for a clone.

    Runs for a new clone, before `khlone_populate_config_dir`, and for `agents refresh`.
    `source` is what the user has, `None` where there is nothing sound; the worktree of
    `clone` need not be there yet. None leaves it to the next plugin, in the end the item
    out. A `Refusal` (`vetoed`) or any other exception (`plugin-failed`) rolls a new clone
    back::

        from khlone import hookimpl

        @hookimpl
        def khlone_agent_item(agent, item, source):
            if (agent.name, item.name) == ("mine", "state.json"):
                return b'{"onboarded": true}\\n'
    """
    return None


@hookspec(firstresult=True)
def khlone_resolve_conflict(
    clone: Clone, conflict: Conflict, worktree: Path
) -> Mapping[str, bytes | None] | bool | None:
    """First: resolves a merge that git alone cannot compute.

    Runs in `merge`, with `--dry-run` too, and in `sync`, where the conflict is in at most 200
    plain files; again when the target moved meanwhile. In a rebase it runs for each commit
    that conflicts: `conflict.source` is that commit, `conflict.old` what it goes on top of. `worktree` is a
    private folder with just the conflicted files, as git left them. The answer is the
    content of every conflicted path (`None` for no file there); True when the files in
    `worktree` are that content now; `None` or False to leave it to the next plugin, in the
    end to people: the clone is held (`conflict`). So it is when a path is left out, another
    one is named, or a marker of the conflict is left, and when a plugin raises, a `Refusal`
    or anything else; a warning says what was wrong. What was resolved goes the way of
    every merge, through gates and to the target, with a trailer `Conflict-resolved-by` that
    names the plugin::

        import subprocess
        from khlone import hookimpl

        @hookimpl
        def khlone_resolve_conflict(clone, conflict):
            if [one.path for one in conflict.files] != ["CHANGELOG.md"]:
                return None
            (changelog,) = conflict.files
            both = b""
            for side in (changelog.ours, changelog.theirs):
                both += subprocess.check_output(["git", "-C", clone.path, "cat-file", "blob", side])
            return {"CHANGELOG.md": both}
    """
    return None


@hookspec(firstresult=True)
def khlone_worktree_path(request: NewRequest) -> Path | None:
    """First: decides where the worktree of a new clone lies; absolute, and not there yet.

    Runs after `khlone_pre_create`. None leaves it to the next plugin, in the end to the
    setting `khlone.worktree`. A `Refusal` (`vetoed`) or any other exception
    (`plugin-failed`) stops the clone; nothing exists yet::

        from pathlib import Path
        from khlone import hookimpl

        @hookimpl
        def khlone_worktree_path(request):
            return Path("/scratch") / request.name.replace("/", "-")
    """
    return None


# -- notify --------------------------------------------------------------------------------


@hookspec
def khlone_opened(location: Location, settings: Mapping[str, str], state_dir: Path | None) -> None:
    """Notify: tells which repository a command works on.

    Runs once, before every other hook of that command. `settings` holds the `khlone.*`
    settings in force, keys in lower case without the `khlone.` prefix. `state_dir` is the
    user's private folder for what khlone knows, of which a plugin makes and uses
    `plugins/<its name>`; `None` where the user has no place for it. A plugin that keeps any
    of it is a class, of which each command makes an object of its own. Whatever it raises
    is a warning::

        from khlone import hookimpl

        class Plugin:
            @hookimpl
            def khlone_opened(self, location, settings):
                self.root = location.main_worktree or location.common_dir
                self.greeting = settings.get("mine.greeting", "hello")
    """


@hookspec
def khlone_post_create(clone: Clone) -> None:
    """Notify: tells that a clone is ready.

    Runs once for each clone, after the commit point. Whatever it raises is a warning, and
    the clone stays::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_create(clone):
            print(f"{clone.name} is ready in {clone.path}")
    """


@hookspec
def khlone_post_spawn(clone: Clone, session: Session) -> None:
    """Notify: tells that a process was started in the clone.

    Runs while the process runs. Whatever it raises is a warning, and the process goes
    on::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_spawn(clone, session):
            print(session.pid)
    """


@hookspec
def khlone_session_ended(clone: Clone, session: Session) -> None:
    """Notify: tells that a session of the clone has ended; `session.state` says how.

    Runs once the session is recorded as ended; never for one whose khlone was killed.
    Whatever it raises is a warning, and the exit code stays that of the session::

        from khlone import hookimpl

        @hookimpl
        def khlone_session_ended(clone, session):
            print(clone.name, session.state)
    """


@hookspec
def khlone_session_waiting(clone: Clone, session: Session) -> None:
    """Notify: tells that the agent of a session waits for a person, `session.waiting_for` for what.

    Runs while the session goes on, once each time that the agent begins to wait, within
    `khlone.watch.interval` of it; only for agents that say so of themselves. Whatever it
    raises is a warning, and the session goes on::

        from khlone import hookimpl

        @hookimpl
        def khlone_session_waiting(clone, session):
            print(clone.name, "waits:", session.waiting_for)
    """


@hookspec
def khlone_post_merge(clone: Clone, result: MergeResult) -> None:
    """Notify: tells that a clone has landed.

    Runs for each clone that landed, when all clones of the command are through. Whatever
    it raises is a warning, and the merge stands::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_merge(clone, result):
            print(f"{clone.name} is in {result.target} at {result.new}")
    """


@hookspec
def khlone_held(clone: Clone, held: Held) -> None:
    """Notify: tells that a clone of a merge did not land, and why.

    Runs for each clone that was held, when all clones of the command are through; not with
    `--dry-run`. Whatever it raises is a warning, and changes nothing::

        from khlone import hookimpl

        @hookimpl
        def khlone_held(clone, held):
            print(f"{clone.name} is held ({held.code}): {held.message}")
    """


@hookspec
def khlone_renamed(clone: Clone, old: str) -> None:
    """Notify: tells that a clone has another name, and maybe another branch and folder.

    Runs once the rename is done; `clone` is what it is now. Whatever it raises is a
    warning, and the name stays::

        from khlone import hookimpl

        @hookimpl
        def khlone_renamed(clone, old):
            print(f"{old} is {clone.name} now")
    """


@hookspec
def khlone_post_sync(clone: Clone) -> None:
    """Notify: tells that a clone's branch and worktree have what its target has.

    Runs once for each clone that `sync` has changed. Whatever it raises is a warning, and
    the change stands::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_sync(clone):
            print(f"{clone.name} is at {clone.head}")
    """


@hookspec
def khlone_post_cleanup(clone: Clone) -> None:
    """Notify: tells that a clone is in the trash, or that its creation was rolled back.

    Runs after the removal, after a failed create, and when a later command takes back a
    create whose process died. It may run twice for one clone, so what it gives back must
    be safe to give back twice. Whatever it raises is a warning::

        from khlone import hookimpl

        @hookimpl
        def khlone_post_cleanup(clone):
            print(f"{clone.name} is gone")
    """
