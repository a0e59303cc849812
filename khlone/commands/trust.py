"""`trust`: look at what the repository would run, and approve it."""

from __future__ import annotations

import sys

import click

from khlone import trust as approvals
from khlone.commands import Context, verb
from khlone.errors import EXIT_PERMISSION, NotTrusted, UsageError
from khlone.named_files import NamedFile
from khlone.operations import trust
from khlone.operations.trust import Review, Reviewed
from khlone.output import size, visible


@verb("trust")
@click.option("-y", "--yes", is_flag=True, help="Approve without asking.")
@click.option("--list", "listed", is_flag=True, help="Show what was approved in this repository.")
@click.option(
    "--check", is_flag=True, help="Approve nothing; end with 0 if nothing needs to be approved, else with 77."
)
@click.option("--at", metavar="REF", help="With the files of this commit, which a new clone would have.")
def command(context: Context, *, yes: bool, listed: bool, check: bool, at: str | None) -> int:
    """Show in full what the hooks of this repository, and agents in it, would run, and approve it.

    The hooks are those of .khlone.toml in the main worktree; the files that they name are
    looked at in the worktree in which this is called. So are the files that the repository
    brings along for agents: their hooks, servers and settings (.claude/settings.json,
    .mcp.json and others). Whatever of it changes has to be approved again.
    """
    if yes + listed + check > 1:
        raise UsageError("--yes, --list and --check exclude each other")
    app = context.app()
    if not (listed or check):
        trust.require_user(app)
    shown = trust.review(app, at=at)
    if listed:
        _list(context, shown)
        _document(context, shown)
        return 0
    for one in shown.commands:
        _show(context, one)
    if not shown.commands:
        context.output.tell("this repository has no hooks, and nothing for agents")
    waiting = len(shown.unapproved)
    if waiting and not check:
        if not yes:
            _ask(context, waiting)
        shown = trust.approve(app, shown)
        context.output.tell("approved")
    elif shown.commands:
        context.output.tell(f"{_count(waiting)} not approved" if waiting else "all of it is approved")
    _document(context, shown)
    return EXIT_PERMISSION if shown.unapproved else 0


def _ask(context: Context, waiting: int) -> None:
    """Return when the user at the terminal says yes."""
    what = f"what this repository would run ({_count(waiting)})"
    if context.output.as_json or not sys.stdin.isatty():
        error = NotTrusted(what)
        error.hint = "after a look at it: git khlone trust --yes"
        raise error
    if not click.confirm(f"khlone: approve {_count(waiting)}, to run with your rights?", err=True):
        raise NotTrusted(what)


def _count(number: int) -> str:
    return f"{number} command{'' if number == 1 else 's'}"


def _document(context: Context, shown: Review) -> None:
    if not context.output.as_json:
        return
    commands = [{**_fields(one), "files": [_file(file) for file in one.files]} for one in shown.commands]
    context.output.document(
        "trust",
        {
            "repository": shown.repository,
            "file": shown.file,
            "commands": commands,
            "approvals": [approval(one) for one in shown.approvals],
        },
    )


def _fields(one: Reviewed) -> dict[str, object]:
    return {
        "event": one.event,
        "name": one.name,
        "command": one.command,
        "timeout_s": one.timeout_s,
        "secrets": one.secrets,
        "approved": one.approved,
    }


def _file(file: NamedFile) -> dict[str, object]:
    return {"path": file.path, "sha256": file.sha256, "bytes": file.size, "script": file.script}


def approval(one: approvals.Approval) -> dict[str, object]:
    """An approval as documents show it."""
    return {
        "repository": one.repository,
        "event": one.event,
        "name": one.name,
        "command": one.command,
        "secrets": one.secrets,
        "files": [{"path": path, "sha256": digest} for path, digest in sorted(one.files.items())],
        "approved_at": one.approved_at,
    }


def _show(context: Context, one: Reviewed) -> None:
    state = "approved" if one.approved else "NOT APPROVED"
    secrets = ", with all of your variables" if one.secrets else ""
    bound = f", up to {one.timeout_s:g} s" if one.timeout_s else ""
    context.output.answer(f"{visible(_title(one.event, one.name))}: {state}{bound}{secrets}")
    _show_command(context, one.command)
    for file in one.files:
        kind = "runs" if file.script else "reads"
        context.output.answer(f"  {kind} {visible(file.path)} ({size(file.size)}) sha256:{file.sha256}")


def _title(event: str, name: str | None) -> str:
    return event if name is None else f"{event} ({name})"


def _show_command(context: Context, text: str) -> None:
    for line in visible(text, lines=True).rstrip("\n").split("\n"):
        context.output.answer(f"    {line}")


def _list(context: Context, shown: Review) -> None:
    for one in shown.approvals:
        show_approval(context, one)
    if not shown.approvals:
        context.output.tell("nothing is approved in this repository")


def show_approval(context: Context, one: approvals.Approval) -> None:
    """Print one approval."""
    secrets = ", with all variables" if one.secrets else ""
    context.output.answer(f"{visible(_title(one.event, one.name))}: approved {one.approved_at[:19]}Z{secrets}")
    _show_command(context, one.command)
    for path, digest in sorted(one.files.items()):
        context.output.answer(f"  {visible(path)} sha256:{digest}")
