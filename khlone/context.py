"""What does every verb get? Where to print, where it was called, and the repository that was meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from khlone.output import Output

if TYPE_CHECKING:
    from khlone.app import App


class Context:
    """One call of the command; `command` is what stood after `-x` or `--`."""

    def __init__(self, *, output: Output, environment: Mapping[str, str], command: list[str] | None = None) -> None:
        self.output = output
        self.environment = environment
        self.command = command
        self.directory: Path | None = None

    def app(self) -> App:
        """The repository that was meant; a registry that was lost is rebuilt first, and said so."""
        app = self.plain_app()
        if not app.has_registry and app.state_dir.exists():
            from khlone.operations import rebuild

            if rebuild.is_needed(app):
                app.prepare_state()
                self.output.tell("the registry was missing and is rebuilt")
                for note in rebuild.rebuild(app):
                    self.output.tell(f"  {note}")
        return app

    def plain_app(self) -> App:
        """The repository that was meant, its registry in whatever state."""
        from khlone.app import App

        self.output.keep_stdout()
        return App.open(self.directory, environment=self.environment, told=self.output.tell)
