"""`pr`: open a pull request of a clone, or show the one that is open."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.output import visible


@verb("pr")
@click.argument("name", required=False)
@click.option("--title", metavar="TITLE", help="Its title, instead of the first commit's.")
@click.option("--body", metavar="TEXT", help="Its text, instead of one that is made of the commits.")
@click.option("--into", "base", metavar="BRANCH", help="The branch to merge it into, instead of the clone's target.")
@click.option("--draft", is_flag=True, help="Open it as a draft.")
@click.option("--web", is_flag=True, help="Show it in the browser.")
@click.option("--remote", metavar="REMOTE", help="Push to this remote, whatever the settings say.")
@click.option("--no-verify", is_flag=True, help="Leave the hook pre-push out.")
@click.option("--dry-run", is_flag=True, help="Say what would be pushed and opened, change nothing.")
def command(
    context: Context,
    *,
    name: str | None,
    title: str | None,
    body: str | None,
    base: str | None,
    draft: bool,
    web: bool,
    remote: str | None,
    no_verify: bool,
    dry_run: bool,
) -> None:
    """Push a clone's branch and open a pull request of it, by gh or glab.

    Where one is open already it gets the new commits and is shown. The last line of the
    answer is its address.
    """
    from khlone.operations import propose

    request = propose.ProposeRequest(
        name=name,
        base=base,
        title=title,
        body=body,
        draft=draft,
        web=web,
        remote=remote,
        verify=not no_verify,
        dry_run=dry_run,
    )
    found = propose.propose(context.app(), request)
    if context.output.as_json:
        context.output.document("pr", {field: getattr(found, field) for field in propose.Proposed.__slots__})
    what = f"{visible(found.title)!r}, {visible(found.branch)} into {visible(found.base)}"
    if dry_run:
        context.output.answer(f"{found.name}: would be pushed to {found.remote} and proposed as {what}")
        return
    context.output.tell(f"{found.name}: {'opened' if found.opened else 'is open already'}: {what}")
    context.output.answer(visible(found.url or ""))
