"""`list`: show every clone."""

from __future__ import annotations

import click

from khlone.commands import Context, verb
from khlone.model import Clone
from khlone.output import visible


@verb("list")
@click.option("--no-status", is_flag=True, help="Do not look at the worktrees: faster, without dirty and untracked.")
def command(context: Context, *, no_status: bool) -> None:
    """Show every clone, how far it is and whether it is dirty."""
    from khlone.operations import inspect

    app = context.app()
    clones = inspect.list_clones(app, status=not no_status)
    if context.output.as_json:
        context.output.document("list", {"repository": app.location.anchor, "clones": clones})
        return
    if not clones:
        context.output.tell("no clones yet; make one with git khlone new NAME")
        return
    context.output.table(
        ("NAME", "STATE", "BRANCH", "TARGET", "AHEAD", "BEHIND", "CHANGES", "PATH"), list(map(_row, clones))
    )
    for clone in clones:
        if clone.reason:
            context.output.tell(f"{clone.name}: {visible(clone.reason)}")


def _row(clone: Clone) -> tuple[str, ...]:
    return (
        clone.name,
        clone.state.value,
        visible(clone.branch),
        visible(clone.target or "-"),
        _count(clone.ahead),
        _count(clone.behind),
        _changes(clone),
        visible(str(clone.path)),
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _changes(clone: Clone) -> str:
    if clone.dirty is None:
        return "-"
    words = ["modified"] if clone.dirty else []
    if clone.untracked:
        words.append(f"{clone.untracked} untracked")
    return ", ".join(words) or "clean"
