"""Which settings cannot be used, and where do they stand?

Found without being needed: a verb that needs one refuses, and this is told before. Only
what says so by itself is looked at; whether a branch or an agent is there is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from khlone import files, gate_table, hook_files, hook_table
from khlone.app import App
from khlone.errors import InvalidSetting, KhloneError
from khlone.model import Finding, Severity
from khlone.operations import gates


def examine(app: App) -> Iterator[Finding]:
    """A file that cannot be read, of which nothing counts, as an error; a value that cannot be used as a warning."""
    for error in app.settings.broken:
        yield _finding(error, Severity.ERROR)
    for error in (*app.settings.faults(), *_tables(app)):
        yield _finding(error, Severity.WARNING)


def _finding(error: KhloneError, severity: Severity) -> Finding:
    return Finding(code="invalid-setting", severity=severity, message=error.message, fix=error.hint)


def _tables(app: App) -> Iterator[KhloneError]:
    """What is wrong with the gates and hooks of the user and of the repository."""
    try:
        gate_table.parse(app.settings.values, "user")
    except InvalidSetting as error:
        yield error
    if app.settings.broken:
        return
    try:
        gates.of_project(app)
    except KhloneError as error:
        yield error
    for path in (hook_files.user_file(app.environment), hook_files.project_file(app.location)):
        try:
            if path is not None:
                hook_table.parse(files.read_regular(path) or b"", path)
        except KhloneError as error:
            yield error
