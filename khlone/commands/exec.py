"""`exec`: run a command in a clone, or in every clone."""

from __future__ import annotations

import click

from khlone.commands import MOST, Context, verb
from khlone.errors import UsageError
from khlone.model import ExecResult


@verb("exec", options_metavar="[OPTIONS]", epilog="Everything after -- is the command.")
@click.argument("name", required=False)
@click.option("--all", "everywhere", is_flag=True, help="Run it in every clone; the output of each comes as a whole.")
@click.option("-j", "--jobs", type=click.IntRange(1, MOST), metavar="N", help="With --all: this many at a time.")
@click.option("--no-wait", is_flag=True, help="End with 75 rather than wait until there is a place for it.")
@click.option("--fail-fast", is_flag=True, help="With --all: begin no other after the first failure.")
def command(
    context: Context, *, name: str | None, everywhere: bool, jobs: int | None, no_wait: bool, fail_fast: bool
) -> int:
    """Run a command in a clone and end as it ended: git khlone exec NAME -- CMD ...

    A command that was ended by signal n gives 128+n. With --all: 0 when every one gave 0, else 1.
    """
    from khlone.operations import execute

    if not context.command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")
    if everywhere:
        if name is not None:
            raise UsageError("--all runs it in every clone, so NAME cannot be given too")
        results = execute.execute_all(
            context.app(),
            context.command,
            jobs=jobs,
            fail_fast=fail_fast,
            wait=not no_wait,
            ended=lambda result: _print(context, result),
        )
        code = int(any(result.exit != 0 for result in results))
    else:
        if jobs is not None or fail_fast:
            raise UsageError("--jobs and --fail-fast go with --all")
        app = context.app()
        clone = app.require_clone(name)
        app.note_used(clone)
        result = execute.execute(app, clone.name, context.command, capture=context.output.as_json, wait=not no_wait)
        results = [result]
        code = result.exit if result.exit is not None else 128 + (result.signal or 0)
    if context.output.as_json:
        context.output.document("exec", {"results": results})
    return code


def _print(context: Context, result: ExecResult) -> None:
    """The output of one clone, as a whole, below a line that says whose it is and how it ended."""
    if result.exit is None and result.signal is None:
        context.output.tell(f"{result.name}: not run")
        return
    how = f"exit {result.exit}" if result.exit is not None else f"signal {result.signal}"
    context.output.tell(f"{result.name}: {how}{', output cut' if result.truncated else ''}")
    if context.output.as_json:
        return
    context.output.raw_story(result.stderr)
    if result.stdout:
        context.output.answer(result.stdout.removesuffix("\n"))
