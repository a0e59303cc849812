"""When do the shell hooks of a repository, and the user's own, run?

The events of `[hooks]` are khlone's own hooks: `pre-` ones run within the gate and refuse
by failing, `post-` ones start in the background once the change stands. What a post- hook
will run is read, and must have been approved, in the gate before it: an unapproved one
stops a command while nothing is changed, and a merge that rewrites the files changes
nothing of what its own hooks run. A repository without hooks costs the look for two files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from khlone import CloneState, hookimpl

if TYPE_CHECKING:
    from khlone.model import Clone, Location, MergePlan, MergeResult, NewRequest, RemovePlan, Session
    from khlone.project_hooks import Hooks, Occasion, Prepared


class ShellHooks:
    """The hooks as the two files were when this run first asked; one for each run of khlone."""

    #: Each command has its own time-out.
    khlone_limit_s = 0.0

    def __init__(self) -> None:
        self._location: Location | None = None
        self._hooks: Hooks | None = None
        self._is_read = False
        self._frozen: dict[tuple[str, str], Prepared] = {}

    @hookimpl
    def khlone_opened(self, location: Location) -> None:
        """Note which repository it is."""
        self._location = location

    @hookimpl
    def khlone_pre_create(self, request: NewRequest) -> None:
        """Run pre-create, in the main worktree."""
        if self._found() is not None:
            self._run("pre-create", None, request=request)

    @hookimpl
    def khlone_prepare(self, clone: Clone) -> None:
        """Freeze post-create, now that its files are there."""
        if self._found() is not None:
            self._freeze("post-create", clone)

    @hookimpl
    def khlone_post_create(self, clone: Clone) -> None:
        """Start post-create."""
        self._start("post-create", clone)

    @hookimpl
    def khlone_pre_spawn(self, clone: Clone, command: Sequence[str]) -> None:
        """Run pre-spawn."""
        if self._found() is not None:
            self._freeze("post-spawn", clone)
            self._run("pre-spawn", clone, command=command)

    @hookimpl
    def khlone_post_spawn(self, clone: Clone, session: Session) -> None:
        """Start post-spawn."""
        self._start("post-spawn", clone, session=session)

    @hookimpl
    def khlone_pre_merge(self, clone: Clone, plan: MergePlan) -> None:
        """Run pre-merge."""
        if self._found() is not None:
            self._freeze("post-merge", clone)
            self._run("pre-merge", clone, plan=plan)

    @hookimpl
    def khlone_post_merge(self, clone: Clone, result: MergeResult) -> None:
        """Start post-merge."""
        self._start("post-merge", clone, result=result)

    @hookimpl
    def khlone_pre_cleanup(self, clone: Clone, plan: RemovePlan) -> None:
        """Run pre-cleanup."""
        if self._found() is not None:
            self._freeze("post-cleanup", clone)
            self._run("pre-cleanup", clone, plan=plan)

    @hookimpl
    def khlone_post_cleanup(self, clone: Clone) -> None:
        """Start post-cleanup, in the main worktree; after a create that was undone only what is approved."""
        from khlone.errors import NotTrusted

        try:
            self._start("post-cleanup", clone)
        except NotTrusted:
            if clone.state is not CloneState.CREATING:
                raise

    @hookimpl
    def khlone_pre_sync(self, clone: Clone) -> None:
        """Run pre-sync."""
        if self._found() is not None:
            self._freeze("post-sync", clone)
            self._run("pre-sync", clone)

    @hookimpl
    def khlone_post_sync(self, clone: Clone) -> None:
        """Start post-sync."""
        self._start("post-sync", clone)

    def is_idle(self) -> bool:
        """Whether there is no file with hooks, so that khlone need not look again after calling."""
        return self._found() is None

    def _found(self) -> Hooks | None:
        """The hooks, read once; None where there are none."""
        if not self._is_read and self._location is not None:
            from khlone import hook_files

            if hook_files.exist(self._location, os.environ):
                from khlone.project_hooks import Hooks

                self._hooks = Hooks.load(self._location, os.environ)
            self._is_read = True
        return self._hooks

    def _occasion(self, event: str, clone: Clone | None, **context: object) -> Occasion:
        from khlone import project_hooks

        assert self._location is not None
        return project_hooks.occasion(event, self._location, clone, **context)

    def _run(self, event: str, clone: Clone | None, **context: object) -> None:
        """Run an event to its end; raises NotTrusted, or the Refusal of a command that failed."""
        hooks = self._found()
        if hooks is None or not hooks.has(event):
            return
        from khlone import hook_runs

        prepared = hooks.prepare(self._occasion(event, clone, **context))
        hook_runs.require_passed(hook_runs.run(prepared, os.environ))

    def _freeze(self, event: str, clone: Clone) -> None:
        """Read what an event will run; raises NotTrusted."""
        hooks = self._found()
        if hooks is not None and hooks.has(event):
            self._frozen[event, clone.id] = hooks.prepare(self._occasion(event, clone))

    def _start(self, event: str, clone: Clone, **context: object) -> None:
        """Start what was frozen, else what would run now, in the background."""
        hooks = self._found()
        if hooks is None or not hooks.has(event):
            return
        from khlone import hook_runs

        occasion = self._occasion(event, clone, **context)
        frozen = self._frozen.pop((event, clone.id), None)
        hook_runs.start(hooks.prepare(occasion) if frozen is None else frozen.about(occasion), os.environ)
