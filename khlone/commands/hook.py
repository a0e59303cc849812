"""`hook`: run the shell hooks of an event by hand."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.hook_runs import HookResult, how
from khlone.operations import hook
from khlone.output import visible


@verb("hook")
@click.argument("action", metavar="run", type=click.Choice(["run"]))
@click.argument("event")
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Show what would run, run nothing.")
def command(context: Context, *, action: str, event: str, name: str | None, dry_run: bool) -> int:
    """Run the shell hooks of an event on a clone, wait for them and show what they say.

    EVENT is pre-create, post-create, pre-spawn and so on. Ends with 1 when one fails; what
    comes after it is not run.
    """
    assert action == "run"
    done = hook.run(context.app(), event, name, dry_run=dry_run, ended=lambda result: _print(context, result))
    if context.output.as_json:
        shown = [_result(result) for result in done.results]
        content = {"event": event, "clone": done.clone, "dry_run": dry_run, "approved": done.approved, "results": shown}
        context.output.document("hook", content)
    elif dry_run:
        for result in done.results:
            context.output.answer(f"{_title(result)}: {visible(result.command)}")
    if not done.results:
        context.output.tell(f"there is no hook for {event}")
    if not done.approved:
        context.output.tell("not approved: git khlone trust")
    return 0 if dry_run or all(result.passed for result in done.results) else 1


def _title(result: HookResult) -> str:
    name = "" if result.name is None else f" ({result.name})"
    return visible(f"{'' if result.source == 'project' else 'your own '}{result.event}{name}")


def _result(result: HookResult) -> dict[str, object]:
    return {
        "name": result.name,
        "source": result.source,
        "command": result.command,
        "exit": result.exit,
        "signal": result.signal,
        "timed_out": result.timed_out,
        "output": result.output,
        "truncated": result.truncated,
    }


def _print(context: Context, result: HookResult) -> None:
    context.output.tell(f"{_title(result)} {how(result)}{', output cut' if result.truncated else ''}")
    if result.output:
        context.output.answer(result.output.removesuffix("\n"))
