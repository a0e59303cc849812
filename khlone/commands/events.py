"""`events`: what happens in the merge queues, step by step."""

from __future__ import annotations

import json

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
def command(context: Context, *, follow: bool) -> None:
    """Show what happened in the merge queues, oldest first.

    With --follow each event is one line, with --json one JSON object a line.
    """
    from khlone.operations import events

    app = context.app()
    if context.output.as_json and not follow:
        context.output.document("events", {"events": list(events.follow(app, go_on=False))})
        return
    for event in events.follow(app, go_on=follow):
        if context.output.as_json:
            context.output.line(json.dumps(event))
        else:
            names = event.get("clones")
            about = event.get("clone") or (", ".join(map(str, names)) if isinstance(names, list) else "")
            rest = f" {str(event['oid'])[:10]}" if event.get("oid") else ""
            context.output.answer(visible(f"{event['at']} {event['event']} {about} {event.get('target', '')}{rest}"))
