"""How do files that Git LFS keeps come into a clone, without a network?

The checkout leaves pointers, so that nothing is downloaded and nothing missing fails it;
then git-lfs puts the content in place that lies in the repository.
"""

from __future__ import annotations

from khlone import files
from khlone.app import App
from khlone.locks import HeldLock
from khlone.model import CloneRecord
from khlone.process import Completed

#: Lets the filters of Git LFS leave pointers.
POINTERS = {"GIT_LFS_SKIP_SMUDGE": "1"}


def fill(app: App, clone: CloneRecord, lock: HeldLock) -> None:
    """Replace the pointers in a new clone by what is here; says on `app.told` in one line what is not.

    The folder `lfs` of the common dir is there as soon as a filter of Git LFS has run once.
    """
    if not files.exists(app.location.common_dir / "lfs"):
        return

    def run(*arguments: str, stdin: bytes | None = None) -> Completed:
        return app.repository.git(
            *arguments, cwd=clone.path, writes=True, keep_open=[lock.descriptor], stdin=stdin, check=False
        )

    run("lfs", "checkout")
    # git takes a file of another size for changed until the index is told. git-lfs tells it, but not
    # of any file where the name of one has two lines.
    done = run("update-index", "-q", "-z", "--stdin", stdin=run("diff-files", "--name-only", "-z").stdout)
    listed = run("lfs", "ls-files")
    if done.status != 0 or listed.status != 0:
        app.told(f"warning: git lfs could not fill {clone.name}: its large files may be pointers")
        return
    missing = sum(line.partition(" ")[2].startswith("- ") for line in listed.text.split("\n"))
    if missing:
        app.told(
            f"warning: {missing} large file{'' if missing == 1 else 's'} of {clone.name} stay pointers:"
            " the content is not here (in the clone: git lfs pull)"
        )
