"""`stop`: end the sessions of clones, with all that they have started."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("stop")
@click.argument("names", nargs=-1)
@click.option("--all", "everywhere", is_flag=True, help="The sessions of all clones.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    default=10.0,
    metavar="S",
    help="Seconds between asking it to end and killing it; 10 unless said.",
)
def command(context: Context, *, names: tuple[str, ...], everywhere: bool, grace: float) -> int:
    """End the session of each clone, and all that it has started: asked first, killed after a grace."""
    from khlone.errors import NoSuchSession, SessionFailed, UsageError
    from khlone.operations import ending, permission, standing

    app = context.app()
    if everywhere and names:
        raise UsageError("--all stops every session, so NAME cannot be given too")
    if everywhere:
        clones = [one for one in (app.registry.clones() if app.has_registry else []) if standing.current(app, one)]
    else:
        clones = [app.require_clone(name) for name in dict.fromkeys(names or (None,))]
    inside = permission.find(app)
    for clone in clones:
        permission.require_own(inside, clone, "stop")
    stopped, failures = [], []
    for clone in clones:
        try:
            one = ending.stop(app, clone, grace_s=grace)
        except (NoSuchSession, SessionFailed) as error:
            failures.append((clone.name, error))
            continue
        stopped.append(one)
        if not context.output.as_json:
            context.output.tell(f"{one.name}: {one.state}, {visible(' '.join(one.command))}")
    if context.output.as_json and (stopped or not failures):
        held = [
            {"name": name, "code": error.code, "message": error.message, "hint": error.hint} for name, error in failures
        ]
        context.output.document("stop", {"sessions": stopped, "failed": held})
    elif failures:
        for _, other in failures[1:]:
            context.output.tell(other.message)
        raise failures[0][1]
    return failures[0][1].exit_code if failures else 0
