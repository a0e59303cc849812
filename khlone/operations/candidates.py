"""Which commit would land? Built in the object database, with no checkout.

`merge-tree --write-tree` makes the tree, `commit-tree` the commit, by the user's own
identity. Three git processes: what the branch has, the tree, the commit. A branch that
was squashed onto the target before needs two more, since history does not tell of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from khlone.app import App
from khlone.errors import MergeConflict, NotFastForward, NothingToMerge, UnrelatedHistories
from khlone.model import Candidate, CloneRecord, Strategy
from khlone.operations import commit_hooks, messages, replay, resolutions
from khlone.operations.integration import KHLONE_IDENTITY
from khlone.repository import failure


def build(
    app: App,
    clone: CloneRecord,
    target: str,
    old: str,
    source: str,
    strategy: Strategy,
    *,
    verify: bool,
) -> Candidate:
    """The commit that lands `source` on `target` where that is at `old`.

    Without `verify` the hook commit-msg is left out.

    Raises NothingToMerge, MergeConflict, NotFastForward, UnrelatedHistories,
    CommitHookRefused or IdentityMissing; nothing but loose objects is left behind.
    """
    squashed = squashed_before(app, clone, target, old)
    bounds = _bounds(old, squashed)
    resolved_by: str | None = None
    if strategy is Strategy.FF_ONLY:
        oid = _fast_forward(app, clone, target, old, source, bounds)
    elif strategy is Strategy.REBASE:
        replayed = replay.replay(app, clone, target, old, source, bounds)
        oid, resolved_by = replayed.oid, replayed.resolved_by
    elif strategy is Strategy.SQUASH:
        commits = _commits(app, source, bounds)
        if not commits:
            raise NothingToMerge(clone.name, target)
        tree, resolved_by = _resolved_tree(app, clone, target, old, source, squashed)
        said = messages.squash_message(
            clone,
            target,
            commits,
            template=app.settings.squash_template,
            own_address=app.settings.author_address,
        )
        said = messages.with_resolver(app, said, resolved_by)
        message = commit_hooks.message(app, clone, strategy, said, verify=verify)
        oid = app.repository.commit_tree(tree, [old], message, sign=app.settings.gpg_sign)
    else:
        if not _count(app, source, bounds):
            raise NothingToMerge(clone.name, target)
        tree, resolved_by = _resolved_tree(app, clone, target, old, source, squashed)
        said = messages.with_resolver(app, messages.merge_message(clone, target), resolved_by)
        message = commit_hooks.message(app, clone, strategy, said, verify=verify)
        oid = app.repository.commit_tree(tree, [old, source], message, sign=app.settings.gpg_sign)
    return Candidate(
        clone=clone.name,
        target=target,
        strategy=strategy,
        old=old,
        oid=oid,
        source=source,
        resolved_by=resolved_by,
        verify=verify,
    )


def with_target(
    app: App, clone: CloneRecord, target: str, upstream: str | None, onto: str, source: str, *, rebase: bool
) -> str:
    """The other way round: the commit that brings `onto` into the branch at `source`.

    `onto` is where the target is, or its upstream where that is named. The commit is a
    merge on top of `source`, or the last of the branch's own on top of `onto`. Raises
    NothingToMerge when none of these is left, and what `build` raises.
    """
    shown = upstream or target
    squashed = squashed_before(app, clone, target, onto)
    if rebase:
        return replay.replay(app, clone, shown, onto, source, _bounds(onto, squashed)).oid
    tree, resolved_by = _resolved_tree(app, clone, shown, onto, source, squashed)
    kind = "remote-tracking branch" if upstream else "branch"
    message = messages.with_resolver(app, f"Merge {kind} '{shown}' into {clone.branch}\n", resolved_by)
    return app.repository.commit_tree(tree, [source, onto], message, sign=app.settings.gpg_sign)


def _bounds(old: str, squashed: str | None) -> list[str]:
    return [f"^{oid}" for oid in (old, squashed) if oid is not None]


def clashing(app: App, source: str, others: Iterable[tuple[str, str]]) -> list[str]:
    """Which of these, by name and commit, do not merge cleanly with a commit."""
    asked = ("merge-tree", "--write-tree", "--name-only", "--no-messages", source)
    return [name for name, oid in others if app.repository.git(*asked, oid, check=False).status == 1]


# -- what the branch has -----------------------------------------------------------------------


def squashed_before(app: App, clone: CloneRecord, target: str, old: str) -> str | None:
    """The tip of the branch that was last squashed or replayed onto the target, if that is part of it still."""
    if clone.merged_head is None:
        return None
    last = app.registry.last_landing(clone.id, target)
    if last is None or last.plan["strategy"] not in (Strategy.SQUASH, Strategy.REBASE):
        return None
    new, squashed = str(last.plan["new"]), str(last.plan["source"])
    if new == squashed:
        return None  # One commit, landed at once where it began, is the very same commit: history tells of it.
    lost = app.repository.git("rev-list", "--max-count=1", new, f"^{old}", f"^{squashed}", check=False)
    return squashed if lost.status == 0 and not lost.stdout else None


def _count(app: App, source: str, bounds: Sequence[str]) -> int:
    return int(app.repository.git("rev-list", "--count", source, *bounds).text)


def _commits(app: App, source: str, bounds: Sequence[str]) -> list[messages.Said]:
    """Every commit of the branch that the bounds do not reach, oldest first."""
    shown = app.repository.git(
        "rev-list",
        "--reverse",
        "--topo-order",
        "--no-commit-header",
        "--encoding=UTF-8",
        "--format=%P%n%an <%ae>%n%B%x00",
        source,
        *bounds,
    )
    found = []
    for record in shown.text.split("\0\n")[:-1]:
        parents, author, message = record.split("\n", 2)
        found.append(messages.Said(is_merge=" " in parents, author=author, message=message.strip("\n")))
    return found


def _fast_forward(app: App, clone: CloneRecord, target: str, old: str, source: str, bounds: Sequence[str]) -> str:
    behind, ahead = app.repository.git("rev-list", "--left-right", "--count", f"{old}...{source}").text.split()
    if ahead == "0" or (len(bounds) > 1 and not _count(app, source, bounds)):
        raise NothingToMerge(clone.name, target)
    if behind != "0":
        raise NotFastForward(clone.name, target)
    return source


# -- the tree ------------------------------------------------------------------------------------


def _resolved_tree(
    app: App, clone: CloneRecord, target: str, old: str, source: str, squashed: str | None
) -> tuple[str, str | None]:
    """The tree, and the plugin that resolved a conflict in it."""
    tree, conflicted = _merge_tree(app, clone, target, old, source, squashed)
    if not conflicted:
        return tree, None
    found = resolutions.resolve(app, clone, target, old, source, tree, conflicted)
    if found is None:
        raise MergeConflict(
            clone.name, target, [one.path for one in conflicted], own=clone.target, is_gone=not clone.path.is_dir()
        )
    return found.tree, found.plugin


def _merge_tree(
    app: App, clone: CloneRecord, target: str, old: str, source: str, squashed: str | None
) -> tuple[str, list[resolutions.Stages]]:
    """The tree as git has merged it, and the paths in which it has conflicts; raises UnrelatedHistories."""
    ours = old if squashed is None else _joined(app, old, squashed)
    done = app.repository.git(
        "merge-tree", "--write-tree", "-z", "--no-messages", ours, source, writes=True, check=False
    )
    fields = [os.fsdecode(field) for field in done.stdout.split(b"\0")]
    if done.status == 1 and fields[0]:
        return fields[0], resolutions.parse_stages([field for field in fields[1:] if field])
    if done.status != 0:
        if "unrelated histories" in done.error_text:
            raise UnrelatedHistories(clone.name, target)
        raise failure(["merge-tree"], done)
    return fields[0], []


def _joined(app: App, old: str, squashed: str) -> str:
    """A commit with the target's tree that has both as parents: it says what squashing forgot.

    As one side of the merge it makes `squashed` the base, so that going on with the same
    lines is no conflict. Nothing refers to it.
    """
    arguments = ["commit-tree", "-m", "joined", "-p", old, "-p", squashed, f"{old}^{{tree}}"]
    return app.repository.git(*arguments, environment=KHLONE_IDENTITY, writes=True).text.strip()
