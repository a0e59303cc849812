"""What does every verb get? Where to print, where it was called, and the repository that was meant."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from khlone import signals
from khlone.output import Output

if TYPE_CHECKING:
    from khlone.app import App
    from khlone.entry_points import Selection
    from khlone.plugins import Plugins
    from khlone.settings import Settings


class Context:
    """One call of the command; `command` is what stood after `-x` or `--`."""

    def __init__(self, *, output: Output, environment: Mapping[str, str], command: list[str] | None = None) -> None:
        self.output = output
        self.environment = environment
        self.command = command
        self.directory: Path | None = None
        self.without_plugins = False
        self._opened: App | None = None

    def app(self) -> App:
        """The repository that was meant; a registry that was lost is rebuilt first, and said so."""
        app = self.plain_app()
        if not app.has_registry:
            from khlone.operations import rebuild

            if rebuild.is_needed(app):
                app.prepare_state(mending=True)
                self.output.tell("the registry was missing and is rebuilt")
                for note in rebuild.rebuild(app):
                    self.output.tell(f"  {note}")
        return app

    def plain_app(self) -> App:
        """The repository that was meant, its registry in whatever state."""
        from khlone.app import App

        # What is imported is nothing to undo; from here on there may be.
        signals.interrupt()
        self.output.keep_stdout()
        chosen = self._selection() if self.without_plugins else None
        self._opened = App.open(self.directory, environment=self.environment, told=self.output.tell, selection=chosen)
        self._opened.progress = self.output.progress
        self._opened.watch = self.output.watch
        return self._opened

    def write_spent(self) -> None:
        """Write down what time hooks have taken."""
        if self._opened is not None:
            self._opened.write_spent()

    def tell_way_out(self) -> None:
        """Say what to type if the folder that the command was called in has gone, or moved, with its clone."""
        app = self._opened
        if app is None or self.directory is not None or os.path.lexists(app.location.cwd):
            return
        where = app.location.anchor
        with contextlib.suppress(OSError):
            here = Path(os.getcwd())
            if not here.is_relative_to(app.location.common_dir):
                where = here
        self.output.tell(f"the folder you are in is not there any more; to go on: cd {shlex.quote(str(where))}")

    def where(self) -> Path:
        """The folder that the command is to work in."""
        from khlone import signals

        signals.interrupt()
        return self.directory or Path(os.getcwd())

    def settings(self) -> Settings:
        """The settings of the repository that was meant; outside of one those of the user."""
        from khlone import settings
        from khlone.errors import NotARepository

        try:
            return self.plain_app().settings
        except NotARepository:
            here = self.where()
            return settings.load(common_dir=None, git_dir=None, cwd=here, worktree=None, environment=self.environment)

    def plugins(self) -> Plugins:
        """The plugins of the repository that was meant; outside of one those that the environment chooses."""
        from khlone.app import load_plugins
        from khlone.errors import NotARepository
        from khlone.settings import Settings

        try:
            return self.plain_app().plugins
        except NotARepository:
            limit_s = Settings().plugins_timeout_s
            return load_plugins(self.environment, selection=self._selection(), limit_s=limit_s, told=self.output.tell)

    def may_reach_foreign_plugins(self) -> bool:
        """Whether a plugin that is not khlone's own is installed and not left out by the environment; loads none."""
        from khlone import entry_points
        from khlone.config_dir import cache_root
        from khlone.errors import KhloneError

        cache = None
        with contextlib.suppress(KhloneError):
            cache = cache_root(self.environment)
        return entry_points.may_reach_foreign(cache, self._selection())

    def _selection(self) -> Selection:
        from khlone import entry_points

        if self.without_plugins:
            return entry_points.Selection(names=frozenset(), source="--no-plugins")
        return entry_points.selection(self.environment)
