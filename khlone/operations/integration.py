"""Is what a branch did already part of another one?

Judged by content as well as by history, since squashing and rebasing rewrite commits. Six
proofs, cheapest first: ancestor; same tree; empty difference from the merge base; the
same patch (of the whole branch, or of each commit); a merge would add nothing; and all
of these once more on the upstream of the target.
"""

from __future__ import annotations

from khlone.app import App
from khlone.model import CloneRecord
from khlone.ref_files import is_oid
from khlone.values import dataclass

#: The author of commits that only khlone reads (snapshots, synthetic squashes).
KHLONE_IDENTITY = {
    "GIT_AUTHOR_NAME": "khlone",
    "GIT_AUTHOR_EMAIL": "khlone@localhost",
    "GIT_COMMITTER_NAME": "khlone",
    "GIT_COMMITTER_EMAIL": "khlone@localhost",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Why a branch counts as integrated, and in which ref."""

    kind: str
    where: str


def prove(app: App, clone: CloneRecord, head: str) -> Proof | None:
    """The first proof that `head` is integrated in the clone's target or its upstream, else `None`.

    A clone without a target, or whose target is gone, is integrated when another branch
    contains its tip; the latter also where it has landed on another branch.
    """
    if clone.target is None:
        return _contained(app, clone, head)
    ref = f"refs/heads/{clone.target}"
    is_gone = app.repository.read_ref(ref) is None
    if is_gone:
        places = [f"refs/heads/{name}" for name in app.registry.landed_on(clone.id, head)]
    else:
        places = [ref, app.repository.git("for-each-ref", "--format=%(upstream)", ref).text.strip()]
    for where in places:
        tip = app.repository.read_ref(where) if where else None
        if tip is not None:
            kind = _proof(app, head, tip)
            if kind is not None:
                return Proof(kind=kind, where=where)
    return _contained(app, clone, head) if is_gone else None


def _contained(app: App, clone: CloneRecord, head: str) -> Proof | None:
    done = app.repository.git("for-each-ref", f"--contains={head}", "--format=%(refname)", "refs/heads", "refs/remotes")
    others = [name for name in done.text.splitlines() if name != clone.ref]
    return Proof(kind="ancestor", where=others[0]) if others else None


def _proof(app: App, head: str, tip: str) -> str | None:
    ask = app.repository.git
    if ask("merge-base", "--is-ancestor", head, tip, check=False).status == 0:
        return "ancestor"
    trees = ask("rev-parse", f"{head}^{{tree}}", f"{tip}^{{tree}}").text.split()
    if trees[0] == trees[1]:
        return "same tree"
    found = ask("merge-base", tip, head, check=False)
    base = found.text.strip()
    if found.status != 0 or not is_oid(base):
        return None
    if ask("rev-parse", f"{base}^{{tree}}").text.strip() == trees[0]:
        return "empty diff"
    if _same_patch(app, head, tip, base, trees[0]):
        return "same patch"
    merged = ask("merge-tree", "--write-tree", "--no-messages", tip, head, check=False)
    if merged.status == 0 and merged.text.split("\n", 1)[0] == trees[1]:
        return "merge adds nothing"
    return None


def _same_patch(app: App, head: str, tip: str, base: str, tree: str) -> bool:
    made = app.repository.git("commit-tree", "-m", "squash", "-p", base, tree, environment=KHLONE_IDENTITY, check=False)
    squashed = made.text.strip()
    if made.status == 0 and _all_there(app, tip, squashed):
        return True
    merges = app.repository.git("rev-list", "--merges", "--max-count=1", f"{tip}..{head}", check=False)
    return merges.status == 0 and not merges.stdout and _all_there(app, tip, head)


def _all_there(app: App, tip: str, head: str) -> bool:
    """Whether every commit of `tip..head` has its patch in `tip` (cold: it diffs what `tip` has since)."""
    status, output = app.repository.cold("cherry", tip, head)
    lines = output.splitlines()
    return status == 0 and bool(lines) and all(line.startswith("- ") for line in lines)
