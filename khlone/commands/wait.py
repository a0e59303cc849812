"""`wait`: wait until the sessions of clones have ended."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("wait")
@click.argument("names", nargs=-1)
def command(context: Context, *, names: tuple[str, ...]) -> int:
    """Wait until the session of each clone has ended; end as it did, with 1 where that is not known.

    With several names: 0 when all of them gave 0, else 1. One that has ended already is not waited for.
    """
    from khlone.operations import ending

    app = context.app()
    clones = [app.require_clone(name) for name in dict.fromkeys(names or (None,))]
    ended = [ending.wait(app, clone) for clone in clones]
    if context.output.as_json:
        context.output.document("wait", {"sessions": ended})
    else:
        for one in ended:
            why = f" ({one.reason})" if one.reason else ""
            context.output.tell(f"{one.name}: {one.state}{visible(why)}")
    return ended[0].code if len(ended) == 1 else int(any(one.code != 0 for one in ended))
