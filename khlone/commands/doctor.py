"""`doctor`: find and mend."""

from __future__ import annotations

import sys

import click

from khlone.commands import Context, verb
from khlone.errors import UsageError
from khlone.model import Severity
from khlone.output import visible


@verb("doctor")
@click.option("--fix", is_flag=True, help="Mend what can be mended safely; what cannot be judged is kept.")
@click.option(
    "--host-gone",
    metavar="HOST",
    help="With --fix: HOST will not come back; finish or undo what it began.",
)
def command(context: Context, *, fix: bool, host_gone: str | None) -> int:
    """Find what is wrong with the repository's clones, and mend it with --fix.

    Ends with 0 when no error is left.
    """
    from khlone.operations import doctor

    if host_gone is not None and not fix:
        raise UsageError("--host-gone mends, so it needs --fix", hint="git khlone doctor --fix --host-gone HOST")
    app = context.plain_app()
    may_ask = fix and sys.stdin.isatty() and not context.output.as_json
    offer = (lambda text: click.confirm(visible(text), default=False, err=True)) if may_ask else (lambda _: False)
    findings = doctor.diagnose(app, fix=fix, host_gone=host_gone, offer=offer)
    if context.output.as_json:
        context.output.document("doctor", {"findings": findings})
    for finding in findings:
        clone = f" {finding.clone}:" if finding.clone else ""
        done = " [fixed]" if finding.fixed else ""
        context.output.answer(f"{finding.severity.value}:{clone} {visible(finding.message)} ({finding.code}){done}")
        if finding.fix and not finding.fixed:
            context.output.answer(f"  fix: {visible(finding.fix)}")
    left = [one for one in findings if one.severity is Severity.ERROR and not one.fixed]
    if not findings:
        context.output.answer("all is well")
    elif not fix and any(finding.code in doctor.MENDED for finding in left):
        context.output.tell("git khlone doctor --fix mends what can be mended")
    return 1 if left else 0
