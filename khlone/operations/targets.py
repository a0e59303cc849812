"""What of a clone whose target was deleted, and where else can it land?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from khlone.app import App
from khlone.errors import NoSuchRef
from khlone.model import CloneRecord
from khlone.operations import names


def is_gone(app: App, clone: CloneRecord) -> bool:
    """Whether a clone has a target that is no branch any more."""
    return clone.target is not None and app.repository.read_ref(f"refs/heads/{clone.target}") is None


def told(target: str) -> str:
    """What is so, for people, as the rest of a line on the clone."""
    return f"its target {names.shown(target)} is gone"


def require(app: App, clones: Sequence[CloneRecord], target: str) -> tuple[str, str]:
    """The branch that is the target of clones, and its tip; NoSuchRef names one that is there instead."""
    from khlone.operations import landing

    try:
        return landing.require_branch(app, target)
    except NoSuchRef as error:
        theirs = [clone for clone in clones if clone.target == target]
        if theirs:
            gone = f"the target of {names.listed([clone.name for clone in theirs], most=3)} is gone"
            error.hint = f"{gone}; {way_out(app, theirs)}"
        raise


def way_out(app: App, clones: Sequence[CloneRecord]) -> str:
    """What to type so that clones whose target is gone land somewhere."""
    again = f"make the branch {names.shown(str(clones[0].target))} again"
    other = next(_others(app, clones), None)
    if other is None:
        return again
    words = " ".join(shlex.quote(clone.name) for clone in clones)
    return f"`git khlone merge {words} --into {shlex.quote(other)}`, or {again}"


def way_in(app: App, clone: CloneRecord) -> str:
    """What to type so that a clone whose target is gone gets what another branch has."""
    again = f"make the branch {names.shown(str(clone.target))} again"
    other = next(_others(app, [clone]), None)
    return again if other is None else f"in the clone: git merge {shlex.quote(other)}, or {again}"


def _others(app: App, clones: Sequence[CloneRecord]) -> Iterator[str]:
    """Branches that are there, the likeliest target first; none of a clone's own."""
    own = {clone.branch for clone in app.registry.clones()} | {clone.branch for clone in clones}
    for name in (app.settings.target, app.repository.default_branch()):
        if name and name not in own and app.repository.read_ref(f"refs/heads/{name}") is not None:
            yield name
    listed = app.repository.git("for-each-ref", "--format=%(refname)", "refs/heads", check=False)
    for ref in listed.text.splitlines():
        name = ref.removeprefix("refs/heads/")
        if name not in own:
            yield name
