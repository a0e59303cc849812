"""`plugins`: show which plugins are installed, and why one is not loaded."""

from __future__ import annotations

from khlone.commands import Context, verb
from khlone.model import PluginReport
from khlone.output import visible


@verb("plugins")
def command(context: Context) -> None:
    """Show which plugins are installed, which hooks they implement, and why one is not loaded.

    IMPORT is the time that loading it took, SPENT what its hooks have taken in the last
    commands, both in milliseconds; what took less than five in a command does not count.
    """
    reports = context.plugins().reports
    if context.output.as_json:
        context.output.document("plugins", {"plugins": reports})
        return
    if not reports:
        context.output.tell("no plugins are installed")
        return
    context.output.table(
        ("NAME", "VERSION", "DISTRIBUTION", "LOADED", "IMPORT", "SPENT", "HOOKS"), list(map(_row, reports))
    )
    for report in reports:
        if report.reason is not None:
            context.output.tell(f"{visible(report.name)}: {visible(report.reason)}")


def _row(report: PluginReport) -> tuple[str, ...]:
    return (
        visible(report.name),
        visible(report.version),
        visible(report.distribution),
        "yes" if report.loaded else "no",
        "-" if report.import_ms is None else f"{report.import_ms:.1f}",
        f"{sum(one.ms for one in report.spent):.0f}" if report.spent else "-",
        " ".join(hook.removeprefix("khlone_") for hook in report.hooks) or "-",
    )
