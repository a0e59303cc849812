"""`exec`: run a command in a clone."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError


@verb("exec", options_metavar="[OPTIONS]", epilog="Everything after -- is the command.")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> int:
    """Run a command in a clone and end as it ended: git khlone exec NAME -- CMD ...

    A command that was ended by signal n gives 128+n.
    """
    from khlone.operations import execute

    if not context.command:
        raise UsageError("no command is given", hint="git khlone exec NAME -- CMD ...")
    result = execute.execute(context.app(), name, context.command, capture=context.output.as_json)
    if context.output.as_json:
        context.output.document("exec", {"results": [result]})
    return result.exit if result.exit is not None else 128 + (result.signal or 0)
