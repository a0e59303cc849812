"""Where does the command start and how does it end? argv in, exit code out, one error handler.

Everything heavy is imported inside the path that needs it: a verb's module when the verb
is called. Whatever git exports to its hooks is removed from this process's environment
after the repository that was meant has been read from it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import click

from khlone import __version__
from khlone.errors import EXIT_BUG, EXIT_SIGNAL, Interrupted, KhloneError, UsageError
from khlone.output import Output

if TYPE_CHECKING:
    from khlone.commands import Context

#: Every verb and its one line of help; the module of the same name has the rest.
VERBS = {
    "new": "Make a clone: a worktree, a branch and a private config dir.",
    "list": "Show every clone, how far it is and whether it is dirty.",
    "show": "Show everything about one clone.",
    "path": "Print the folder of a clone.",
    "env": "Print the variables of a clone.",
    "exec": "Run a command in a clone.",
    "diff": "Show what a clone has changed since it left its target.",
    "merge": "Bring the branches of clones back to their target.",
    "remove": "Move clones to the trash.",
    "trash": "Show what can be restored.",
    "restore": "Bring a clone back from the trash.",
    "prune": "Remove what is done with; --trash deletes old trash for good.",
    "log": "Show what was done.",
    "doctor": "Find what is wrong, and mend it with --fix.",
}
#: Options of the whole command that take a value.
_VALUED = ("-C",)


class LazyGroup(click.Group):
    """A group that imports the module of a verb when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in their order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of one verb."""
        if cmd_name not in VERBS:
            return None
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
            import difflib

            near = difflib.get_close_matches(args[0], list(VERBS), n=1)
            hint = f"did you mean {near[0]}?" if near else "see git khlone -h"
            raise UsageError(f"there is no verb {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _root(context: Context) -> LazyGroup:
    from khlone.commands import common

    @click.group(
        "git khlone",
        cls=LazyGroup,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": context},
    )
    @click.version_option(__version__, prog_name="khlone")
    @common
    def root() -> None:
        """A private place on a shared git repository for every coding agent."""

    assert isinstance(root, LazyGroup)
    return root


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Cut off the command that is to be run: after `-x` of `new`, after `--` of `exec`."""
    words = list(argv)
    verb = _verb(words)
    marks = {"new": ("-x", "--exec"), "exec": ("--",)}.get(verb or "", ())
    for at, word in enumerate(words):
        if word in marks:
            return words[:at], words[at + 1 :]
    return words, None


def _verb(words: Sequence[str]) -> str | None:
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _VALUED:
            skip = True
        elif not word.startswith("-"):
            return word
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code."""
    code = run(sys.argv[1:] if argv is None else argv)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code; every error has been printed."""
    from khlone.commands import Context

    words, command = split_command(argv)
    output = Output(as_json="--json" in words, quiet="--quiet" in words or "-q" in words)
    context = Context(output=output, environment=dict(os.environ), command=command)
    _scrub()
    _catch_signals()
    try:
        return _run(context, words)
    except KhloneError as error:
        output.error(error)
        return error.exit_code
    except Interrupted as interrupt:
        return _interrupted(output, interrupt.signal_number)
    except KeyboardInterrupt:
        return _interrupted(output, signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SIGNAL + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - the one place where a bug is turned into a report
        return _bug(output, context, error)


def _run(context: Context, words: list[str]) -> int:
    try:
        if not words:
            words = ["--help"]
        result = _root(context).main(args=words, prog_name="git khlone", standalone_mode=False)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "git khlone"
        raise UsageError(_lower(error.format_message()), hint=f"see {where} -h") from error
    except click.ClickException as error:
        raise UsageError(_lower(error.format_message())) from error
    return result if isinstance(result, int) else 0


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).removesuffix(".")


def _scrub() -> None:
    from khlone.process import scrubbed

    kept = scrubbed()
    for name in [name for name in os.environ if name not in kept]:
        del os.environ[name]


def _catch_signals() -> None:
    def interrupt(number: int, _: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _interrupted(output: Output, number: int) -> int:
    name = signal.Signals(number).name
    error = KhloneError(f"interrupted by {name}", hint="what was begun is undone, or will be by the next command")
    output.error(_coded(error, "interrupted"))
    return EXIT_SIGNAL + number


def _coded(error: KhloneError, code: str) -> KhloneError:
    error.code = code  # type: ignore[misc]
    return error


def _bug(output: Output, context: Context, error: Exception) -> int:
    import traceback

    from khlone import reports

    where = reports.write(context.environment, "".join(traceback.format_exception(error)))
    shown = KhloneError(
        f"a bug: {type(error).__name__}; the report is in {where}"
        if where
        else f"a bug: {type(error).__name__}: {error}",
        hint="please send the report; nothing is lost, `git khlone doctor` says what was left",
        report=where,
    )
    output.error(_coded(shown, "bug"))
    return EXIT_BUG
