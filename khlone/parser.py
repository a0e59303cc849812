"""How are the words of a command line understood? By click, one command a verb, imported when it is asked for."""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import TYPE_CHECKING

import click

from khlone.context import Context
from khlone.errors import KhloneError, UsageError

if TYPE_CHECKING:
    from khlone.commands.foreign import ForeignVerbs

#: Every verb and its one line of help; the module of the same name has the rest.
VERBS = {
    "new": "Make a clone: a worktree, a branch and a private config dir.",
    "list": "Show every clone, how far it is and whether it is dirty.",
    "show": "Show everything about one clone.",
    "path": "Print the folder of a clone.",
    "cd": "Go to the folder of a clone, by the shell's wrapper.",
    "env": "Print the variables of a clone.",
    "exec": "Run a command in a clone.",
    "run": "Run the session of a clone, with a supervisor that sees it through.",
    "ask": "Ask the agent of a clone something, without a terminal.",
    "attach": "Come to a session that has a terminal, or start one.",
    "logs": "Print what the session of a clone has said.",
    "stop": "End the sessions of clones, with all that they have started.",
    "wait": "Wait until the sessions of clones have ended.",
    "top": "Show what the sessions of all clones use, again and again on a terminal.",
    "slot": "Run a heavy command in one of a few slots that all clones share.",
    "usage": "Show how many tokens clones have used, and what it cost.",
    "limits": "Show what the machine has, who has reserved what of it, and how many clones it carries.",
    "diff": "Show what a clone has changed since it left its target.",
    "sync": "Bring what the target has into clones.",
    "push": "Bring the branches of clones to their remote.",
    "pr": "Open a pull request of a clone, or show the one that is open.",
    "merge": "Bring the branches of clones back to their target.",
    "approve": "Approve what a clone's branch is at, for landing.",
    "conflicts": "Show which clones would conflict, and the best order to land them.",
    "queue": "Show and change what waits to land.",
    "events": "Show what happens in the merge queues.",
    "adopt": "Make a clone of a worktree that is there.",
    "rename": "Give a clone another name.",
    "remove": "Move clones to the trash.",
    "trash": "Show what can be restored.",
    "restore": "Bring a clone back from the trash.",
    "prune": "Remove what is done with; --trash deletes old trash for good.",
    "log": "Show what was done.",
    "undo": "Take back what was done last, or an operation of the log.",
    "doctor": "Find what is wrong, and mend it with --fix.",
    "hooks": "Install git hooks that note and guard what clones' branches do.",
    "trust": "Show what the repository's hooks would run, and approve it.",
    "untrust": "Take approvals back.",
    "hook": "Run the shell hooks of an event by hand.",
    "agents": "Show which agents there are, and how each is kept to its clone.",
    "contention": "Show what many agents at once do to each other here, with and without khlone.",
    "plugins": "Show which plugins are installed, and why one is not loaded.",
    "config": "Show every setting and where it comes from, or change one.",
    "completion": "Print what a shell needs to complete the words of khlone.",
    "setup": "Put completion, the cd wrapper and the man page where they work.",
    "uninstall": "Take away what khlone has put in the repository and in the account.",
    "help": "Show the help of a verb, or how agents work with khlone.",
}


class LazyGroup(click.Group):
    """A group that imports the module of a verb when the verb is asked for, and asks plugins for others."""

    foreign: ForeignVerbs | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in their order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of one verb."""
        if cmd_name not in VERBS:
            return self._verbs_of_plugins(ctx).find(cmd_name)
        import importlib

        module = importlib.import_module(f"khlone.commands.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may have been meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            added = self._verbs_of_plugins(ctx).names
            if args[0] not in added:
                import difflib

                near = difflib.get_close_matches(args[0], [*VERBS, *added], n=1)
                hint = f"did you mean {near[0]}?" if near else "see git khlone -h"
                raise UsageError(f"there is no verb {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them; those of plugins have a section of their own."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))
        rows: list[tuple[str, str]] = []
        with contextlib.suppress(KhloneError):
            rows = self._verbs_of_plugins(ctx).rows()
        if rows:
            with formatter.section("Verbs of plugins"):
                formatter.write_dl(rows)

    def _verbs_of_plugins(self, ctx: click.Context) -> ForeignVerbs:
        if self.foreign is None:
            from khlone.commands.foreign import ForeignVerbs

            context = ctx.find_object(Context)
            assert context is not None
            found = ForeignVerbs(context, VERBS)
            found.load()
            self.foreign = found
        return self.foreign


def _root(context: Context) -> LazyGroup:
    from khlone.commands import common, version

    @click.group(
        "git khlone",
        cls=LazyGroup,
        context_settings={"help_option_names": [], "max_content_width": 100, "obj": context},
    )
    @version
    @common
    def root() -> None:
        """A private place on a shared git repository for every coding agent."""

    assert isinstance(root, LazyGroup)
    return root


def run(context: Context, words: list[str]) -> int:
    """Call the verb that the words name; raises UsageError for words that name none."""
    try:
        if not words:
            words = ["--help"]
        root = _root(context)
        # Not `root.main`: it makes exits of its own out of a closed stdout and of an interruption.
        with root.make_context("git khlone", words) as ctx:
            result = root.invoke(ctx)
        if root.foreign is not None:
            root.foreign.finish()
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.exceptions.Abort as error:
        # `click.confirm` says so of Ctrl-C, and of a stdin that ended.
        raise KeyboardInterrupt from error
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "git khlone"
        raise UsageError(_message(error), hint=f"see {where} -h") from error
    except click.ClickException as error:
        raise UsageError(_lower(error.format_message())) from error
    return result if isinstance(result, int) else 0


def _message(error: click.UsageError) -> str:
    """What click says, with the words as they were typed, also one that is empty."""
    text = error.format_message()
    if isinstance(error, click.MissingParameter):
        text = " ".join(text.split()).replace(". Choose from: ", ": choose from ")
    empty = re.fullmatch(r"(Got unexpected extra arguments?) \((.*)\)", text, re.DOTALL)
    if empty is not None:
        words = " ".join((word and shlex.quote(word)) or "''" for word in empty[2].split(" "))
        return f"{_lower(empty[1])}: {words}"
    text = text.replace("is not a valid integer range", "is not a whole number")
    return _lower(text.replace("1<=x<=", "1 to ").replace("x>=1", "1 and above"))


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).removesuffix(".")
