"""Which commit would land? Built in the object database, with no checkout.

`merge-tree --write-tree` makes the tree, `commit-tree` the commit, by the user's own
identity. Three git processes for a merge: how far apart, the tree, the commit.
"""

from __future__ import annotations

import os

from khlone.app import App
from khlone.errors import MergeConflict, NoSuchRef, NotFastForward, NothingToMerge, UnrelatedHistories
from khlone.model import Candidate, CloneRecord, Strategy
from khlone.repository import failure

_MOST_SUBJECTS = 100


def build(app: App, clone: CloneRecord, target: str, source: str, strategy: Strategy) -> Candidate:
    """The commit that lands `source` on the target's tip of now.

    Raises NothingToMerge, MergeConflict, NotFastForward, UnrelatedHistories or
    IdentityMissing; nothing but loose objects is left behind.
    """
    old = app.repository.read_ref(f"refs/heads/{target}")
    if old is None:
        raise NoSuchRef(target)
    behind, ahead = _distance(app, old, source)
    if ahead == 0:
        raise NothingToMerge(clone.name, target)
    if strategy is Strategy.FF_ONLY:
        if behind:
            raise NotFastForward(clone.name, target)
        oid = source
    else:
        tree = _merged_tree(app, clone, target, old, source)
        squash = strategy is Strategy.SQUASH
        message = _squash_message(app, clone, old, source, ahead) if squash else _merge_message(clone, target)
        parents = [old] if squash else [old, source]
        oid = app.repository.commit_tree(tree, parents, message, sign=app.settings.gpg_sign)
    return Candidate(clone=clone.name, target=target, strategy=strategy, old=old, oid=oid, source=source)


def _distance(app: App, old: str, source: str) -> tuple[int, int]:
    done = app.repository.git("rev-list", "--left-right", "--count", f"{old}...{source}")
    behind, ahead = done.text.split()
    return int(behind), int(ahead)


def _merged_tree(app: App, clone: CloneRecord, target: str, old: str, source: str) -> str:
    done = app.repository.git(
        "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", old, source, writes=True, check=False
    )
    fields = [os.fsdecode(field) for field in done.stdout.split(b"\0")]
    if done.status == 1 and fields[0]:
        raise MergeConflict(clone.name, target, sorted({path for path in fields[1:] if path}))
    if done.status != 0:
        if "unrelated histories" in done.error_text:
            raise UnrelatedHistories(clone.name, target)
        raise failure(["merge-tree"], done)
    return fields[0]


def _merge_message(clone: CloneRecord, target: str) -> str:
    into = "" if target in ("main", "master") else f" into {target}"
    return f"Merge branch '{clone.branch}'{into}\n"


def _squash_message(app: App, clone: CloneRecord, old: str, source: str, ahead: int) -> str:
    """One commit keeps its own message; several become a list of their subjects, oldest first."""
    shown = app.repository.git(
        "log",
        "--reverse",
        "--no-merges",
        "-z",
        "--format=%B" if ahead == 1 else "--format=%s",
        f"--max-count={_MOST_SUBJECTS}",
        f"{old}..{source}",
    )
    texts = [text.strip("\n") for text in shown.text.split("\0") if text.strip("\n")]
    if len(texts) == 1:
        return texts[0] + "\n"
    listed = "".join(f"* {text}\n" for text in texts)
    more = f"* and {ahead - len(texts)} more\n" if ahead > _MOST_SUBJECTS else ""
    return f"Squash branch '{clone.branch}' ({ahead} commits)\n\n{listed}{more}"
