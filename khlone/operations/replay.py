"""How are the commits of a branch put on top of its target, one by one and without a checkout?

What `git rebase` does, in the object database: merges are left out, so are commits whose
very change the target has; a commit that already stands where it would land stays the
same commit. Author, message and date are kept, the committer is the user. Three git
processes a commit that has to be made anew. A plugin may resolve the conflict of a commit,
which then says so itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from khlone.app import App
from khlone.errors import MergeConflict, NothingToMerge, UnrelatedHistories
from khlone.model import CloneRecord
from khlone.operations import messages, resolutions
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.repository import failure
from khlone.values import dataclass

_FORMAT = "%H%n%P%n%T%n%an%n%ae%n%ad%n%B%x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pick:
    """A commit to be put somewhere else."""

    oid: str
    parent: str
    tree: str
    author: tuple[str, str, str]
    message: str

    @property
    def shown(self) -> str:
        """The commit as people know it."""
        return f"{self.oid[:10]} ({self.message.strip().partition(chr(10))[0]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The tip of the commits in their new place, and the plugins that resolved conflicts on the way."""

    oid: str
    resolved_by: str | None


def replay(app: App, clone: CloneRecord, target: str, old: str, source: str, bounds: Sequence[str]) -> Replayed:
    """The branch's own commits on top of `old`; what `bounds` exclude is not among them.

    Raises NothingToMerge, UnrelatedHistories, MergeConflict for the first commit that does
    not apply, or IdentityMissing. Nothing but loose objects is left behind.
    """
    if app.repository.git("merge-base", old, source, check=False).status != 0:
        raise UnrelatedHistories(clone.name, target)
    picks = _picks(app, old, source, bounds)
    tip, tree = old, app.repository.git("rev-parse", f"{old}^{{tree}}").text.strip()
    trees = {pick.oid: pick.tree for pick in picks}
    plugins: list[str] = []
    for pick in picks:
        if pick.parent == tip:
            tip, tree = pick.oid, pick.tree
            continue
        made, plugin = _applied(app, clone, target, tip, tree, pick)
        if plugin is not None and plugin not in plugins:
            plugins.append(plugin)
        if made == tree and pick.tree != _tree_of(app, pick.parent, trees):
            continue  # All of it is there already.
        name, email, date = pick.author
        author = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": date}
        message = messages.with_resolver(app, pick.message, plugin)
        tip = app.repository.commit_tree(made, [tip], message, sign=app.settings.gpg_sign, environment=author)
        tree = made
    if tip == old:
        raise NothingToMerge(clone.name, target)
    return Replayed(oid=tip, resolved_by=", ".join(plugins) or None)


def _picks(app: App, old: str, source: str, bounds: Sequence[str]) -> list[_Pick]:
    """The branch's own commits, oldest first, without merges and without changes that the target has."""
    shown = app.repository.git(
        "rev-list",
        "--reverse",
        "--topo-order",
        "--no-merges",
        "--right-only",
        "--cherry-pick",
        "--no-commit-header",
        "--encoding=UTF-8",
        "--date=raw",
        f"--format={_FORMAT}",
        f"{old}...{source}",
        *(bound for bound in bounds if bound != f"^{old}"),
    )
    found = []
    for record in shown.text.split("\0\n")[:-1]:
        oid, parent, tree, name, email, date, message = record.split("\n", 6)
        found.append(_Pick(oid=oid, parent=parent, tree=tree, author=(name, email, f"@{date}"), message=message))
    return found


def _applied(app: App, clone: CloneRecord, target: str, tip: str, tree: str, pick: _Pick) -> tuple[str, str | None]:
    """The tree that the commit's change makes of `tree`, that of `tip`; and the plugin that resolved a conflict."""
    # A commit of that tree whose parent is the pick's makes that parent the base of the merge.
    parents = ["-p", pick.parent] if pick.parent else []
    stand_in = app.repository.git(
        "commit-tree", "-m", "stand-in", *parents, tree, environment=KHLONE_IDENTITY, writes=True
    ).text.strip()
    done = app.repository.git(
        "merge-tree", "--write-tree", "-z", "--no-messages", stand_in, pick.oid, writes=True, check=False
    )
    fields = [os.fsdecode(field) for field in done.stdout.split(b"\0")]
    if done.status == 1 and fields[0]:
        conflicted = resolutions.parse_stages([field for field in fields[1:] if field])
        found = resolutions.resolve(app, clone, target, tip, pick.oid, fields[0], conflicted)
        if found is not None:
            return found.tree, found.plugin
        paths = [one.path for one in conflicted]
        raise MergeConflict(
            clone.name, target, paths, commit=pick.shown, own=clone.target, is_gone=not clone.path.is_dir()
        )
    if done.status != 0:
        if "unrelated histories" in done.error_text:
            raise UnrelatedHistories(clone.name, target)
        raise failure(["merge-tree"], done)
    return fields[0], None


def _tree_of(app: App, oid: str, known: dict[str, str]) -> str:
    if oid not in known:
        known[oid] = app.repository.git("rev-parse", f"{oid}^{{tree}}").text.strip() if oid else ""
    return known[oid]
