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
    from khlone.errors import UsageError
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
    stopped = [ending.stop(app, clone, grace_s=grace) for clone in clones]
    if context.output.as_json:
        context.output.document("stop", {"sessions": stopped})
        return 0
    for one in stopped:
        context.output.tell(f"{one.name}: {one.state}, {visible(' '.join(one.command))}")
    return 0
