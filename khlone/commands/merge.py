"""`merge`: bring clones back."""

from __future__ import annotations

import click

from khlone.commands import Context, landing, verb
from khlone.errors import UsageError
from khlone.model import Held, MergeResult
from khlone.output import paragraph, visible


@verb("merge")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--into", metavar="T", help="Land on this branch instead of the clones' target.")
@landing.options
@click.option("--no-gate", is_flag=True, help="Ask no gate.")
@click.option("--all-ready", is_flag=True, help="Land every clone that has commits its target lacks.")
@click.option("--detach", is_flag=True, help="Only put them in the merge queue.")
@click.option("--remove", "remove_landed", is_flag=True, help="Remove the clones that landed.")
@click.option("--dry-run", is_flag=True, help="Build the commits, land nothing.")
def command(
    context: Context,
    *,
    names: tuple[str, ...],
    into: str | None,
    strategies: tuple[str, ...],
    committed: bool,
    pushing: tuple[str, ...],
    no_gate: bool,
    no_verify: bool,
    all_ready: bool,
    detach: bool,
    remove_landed: bool,
    dry_run: bool,
) -> int:
    """Bring the branches of clones back to their target, one after the other.

    A clone that cannot land is held and the rest goes on. Your checkout is never where a
    merge is computed; a target that is checked out is fast-forwarded there when nothing
    local overlaps.
    """
    from khlone.operations import merge, offer

    strategy = landing.strategy(strategies)
    if all_ready and names:
        raise UsageError("--all-ready takes no NAME")
    if detach and dry_run:
        raise UsageError("--detach and --dry-run exclude each other")
    app = context.app()
    chosen = tuple(offer.ready_names(app, into)) if all_ready else names or (None,)
    if not chosen:
        context.output.tell("no clone has commits that its target lacks")
    request = offer.MergeRequest(
        names=chosen,
        into=into,
        strategy=strategy,
        committed=committed,
        gate=not no_gate,
        dry_run=dry_run,
        remove=remove_landed,
        detach=detach,
        push=landing.is_pushed(pushing),
        verify=not no_verify,
    )
    result = merge.merge(app, request)
    if context.output.as_json:
        context.output.document("merge", _document(result))
    _print(context, result, dry_run=dry_run)
    codes = [held.exit_code for held in result.held] + [kept.exit_code for kept in result.kept]
    return codes[0] if codes else 0


def _document(result: MergeResult) -> dict[str, object]:
    return {
        "target": result.target,
        "old": result.old,
        "new": result.new,
        "gated": result.gated,
        "pushed": result.pushed,
        "landed": result.landed,
        "held": [_held(one) for one in result.held],
        "removed": result.removed,
        "kept": [{"name": kept.name, "code": kept.code, "message": kept.message} for kept in result.kept],
        "notes": result.notes,
    }


def _held(held: Held) -> dict[str, object]:
    return {name: getattr(held, name) for name in ("name", "code", "message", "paths", "partners")}


def _print(context: Context, result: MergeResult, *, dry_run: bool) -> None:
    would = "would land" if dry_run else "landed"
    pushed = "" if result.pushed is None else f", pushed to {visible(result.pushed)}"
    for landed in result.landed:
        gated = "" if result.gated or dry_run else ", ungated"
        context.output.answer(
            f"{landed.name} {would} on {visible(result.target)} as {landed.oid[:10]} "
            f"({landed.strategy.value}{gated}{pushed})"
        )
    for held in result.held:
        landing.tell_held(context, held)
    for removed in result.removed:
        context.output.tell(f"{removed.name} is in the trash; git khlone restore {removed.trash}")
    for kept in result.kept:
        context.output.tell(f"kept: {kept.name} has landed but was not removed: {paragraph(kept.message)}")
        if kept.hint:
            context.output.tell(f"  hint: {visible(kept.hint)}")
