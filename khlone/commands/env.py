"""`env`: the variables of a clone."""

from __future__ import annotations

import shlex

import click

from khlone.commands import Context, verb


@verb("env")
@click.argument("name", required=False)
def command(context: Context, *, name: str | None) -> None:
    """Print the variables that a process in the clone gets, as `export` lines for a shell."""
    from khlone.operations import environment

    app = context.app()
    clone = app.require_clone(name)
    variables = environment.additions(app, clone)
    if context.output.as_json:
        context.output.document("env", {"name": clone.name, "environment": variables})
    for variable, value in sorted(variables.items()):
        context.output.answer(f"export {variable}={shlex.quote(value)}")
