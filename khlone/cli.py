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

from khlone.context import Context
from khlone.errors import EXIT_BUG, EXIT_SIGNAL, Interrupted, KhloneError
from khlone.output import Output

#: Options of the whole command that take a value.
_VALUED = ("-C",)


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
    _open_streams()
    code = run(sys.argv[1:] if argv is None else argv)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.exit(code)


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
    words, command = split_command(argv)
    output = Output(as_json="--json" in words, quiet="--quiet" in words or "-q" in words)
    context = Context(output=output, environment=dict(os.environ), command=command)
    context.without_plugins = "--no-plugins" in words
    _scrub()
    _catch_signals()
    try:
        return _call(context, words)
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
    except OSError as error:
        return _refused_by_system(output, context, error)
    except Exception as error:  # noqa: BLE001 - the one place where a bug is turned into a report
        return _bug(output, context, error)


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


def _refused_by_system(output: Output, context: Context, error: OSError) -> int:
    """What the operating system refuses is no bug of khlone's, wherever it did."""
    from khlone import files

    known = files.cause(error, "the repository")
    if known is None:
        return _bug(output, context, error)
    output.error(known)
    return known.exit_code


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
