"""Where does the command start and how does it end? argv in, exit code out, one error handler.

Everything heavy is imported inside the path that needs it: a verb's module when the verb
is called. Whatever git exports to its hooks is removed from this process's environment
after the repository that was meant has been read from it.
"""

from __future__ import annotations

import os
import sys

from khlone import signals

# Known to type checkers as true. Nothing is imported above that costs much: until `main` runs, a signal is Python's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from khlone.context import Context
    from khlone.errors import KhloneError
    from khlone.output import Output

#: Options of the whole command that take a value.
_VALUED = ("-C", "--color")

#: What the command of a user's own has written is not khlone's to undo.
_UNDONE = "what khlone had begun is undone, or will be by the next command; what a program of yours wrote stays"


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Cut off the command that is to be run: after `-x` of `new`, after `--` of `exec`."""
    words = list(argv)
    verb = _verb(words)
    marks = {
        "new": ("-x", "--exec"),
        "exec": ("--",),
        "run": ("--",),
        "ask": ("--",),
        "attach": ("--",),
        "slot": ("--",),
    }.get(verb or "", ())
    for at, word in enumerate(words):
        if word in marks:
            return words[:at], words[at + 1 :]
        if word == "--":  # what follows are names
            break
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
    signals.end_silently()
    _open_streams()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _open_streams() -> None:
    """A stream that the caller closed leads nowhere, as git has it, so that no file of ours takes its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 - open to the end


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code; every error has been printed."""
    from khlone.context import Context
    from khlone.output import Output

    words, command = split_command(argv)
    output = Output(as_json="--json" in words, quiet="--quiet" in words or "-q" in words)
    context = Context(output=output, environment=dict(os.environ), command=command)
    context.without_plugins = "--no-plugins" in words
    _scrub()
    try:
        try:
            return _call(context, words)
        finally:
            output.finish()
            context.write_spent()
            signals.end_silently()
    except BaseException as error:  # noqa: BLE001 - the one place where whatever ends a command is told
        return _told(output, context, error)


def _told(output: Output, context: Context, error: BaseException) -> int:
    """Say on `output` what ended the command, and return the exit code for it."""
    from khlone.errors import EXIT_SIGNAL, Interrupted, KhloneError

    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        number = error.signal_number if isinstance(error, Interrupted) else signals.SIGINT
        # As git: who reads no further has no use for a word about it.
        return EXIT_SIGNAL + number if number == signals.SIGPIPE else _interrupted(output, number)
    if isinstance(error, OSError):
        error = _refused_by_system(error) or error
    if isinstance(error, KhloneError):
        return _say(output, error)
    return _bug(output, context, error)


def _say(output: Output, error: KhloneError) -> int:
    from khlone.errors import Interrupted, OutputFailed

    try:
        output.error(error)
    except OutputFailed as failed:
        output.error(error)
        output.error(failed)
    except Interrupted:
        return error.exit_code
    return error.exit_code


def _call(context: Context, words: list[str]) -> int:
    from khlone import quick

    call = quick.find(context, words)
    if call is not None:
        call(context)
        return 0
    from khlone import parser

    return parser.run(context, words)


def _scrub() -> None:
    from khlone.process import scrubbed

    kept = scrubbed()
    for name in [name for name in os.environ if name not in kept]:
        del os.environ[name]


def _interrupted(output: Output, number: int) -> int:
    import signal

    from khlone.errors import EXIT_SIGNAL, KhloneError

    name = signal.Signals(number).name
    error = KhloneError(f"interrupted by {name}", hint=_UNDONE)
    _say(output, _coded(error, "interrupted"))
    return EXIT_SIGNAL + number


def _coded(error: KhloneError, code: str) -> KhloneError:
    error.code = code  # type: ignore[misc]
    return error


def _refused_by_system(error: OSError) -> KhloneError | None:
    """What the operating system refuses is no bug of khlone's, wherever it did."""
    from khlone import files
    from khlone.errors import WorkingFolderGone

    if isinstance(error, FileNotFoundError):
        try:
            os.getcwd()
        except FileNotFoundError:
            return WorkingFolderGone()
    return files.cause(error, "the repository")


def _bug(output: Output, context: Context, error: BaseException) -> int:
    import traceback

    from khlone import reports
    from khlone.errors import EXIT_BUG, KhloneError

    where = reports.write(context.environment, "".join(traceback.format_exception(error)))
    shown = KhloneError(
        f"a bug: {type(error).__name__}; the report is in {where}"
        if where
        else f"a bug: {type(error).__name__}: {error}",
        hint="please send the report; nothing is lost, `git khlone doctor` says what was left",
        report=where,
    )
    _say(output, _coded(shown, "bug"))
    return EXIT_BUG
